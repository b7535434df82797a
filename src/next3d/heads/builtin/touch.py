"""Finishing touches of the sculptor: soft strokes and local smoothing on the assembled left half, in millimetres."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .form import Array, Mirrored
from .topology import Connectivity


def stroke(position: Array, centre: ArrayLike, size: ArrayLike, vector: ArrayLike) -> None:
    """Push by ``vector`` under a Gaussian of axes ``size`` around ``centre``."""
    weight = np.exp(-(((position - np.array(centre, float)) / np.array(size, float)) ** 2).sum(1))
    position += weight[:, None] * np.array(vector, float)


def finish(position: Array, c: Connectivity, graph: Mirrored) -> Array:
    """The head with its finishing touches."""
    return position
