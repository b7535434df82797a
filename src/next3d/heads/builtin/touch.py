"""Finishing touches of the sculptor: soft strokes and local smoothing on the assembled left half, in millimetres."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from . import ear, neck
from .form import Array, Mirrored
from .topology import Connectivity


def stroke(position: Array, centre: ArrayLike, size: ArrayLike, vector: ArrayLike) -> None:
    """Push by ``vector`` under a Gaussian of axes ``size`` around ``centre``."""
    weight = np.exp(-(((position - np.array(centre, float)) / np.array(size, float)) ** 2).sum(1))
    position += weight[:, None] * np.array(vector, float)


def finish(position: Array, c: Connectivity, graph: Mirrored) -> Array:
    """The head with its finishing touches."""
    position = neck.settle(c.grid, position, graph)
    pull = np.full(c.count, np.inf)  # how much each vertex keeps its place while small bumps are ironed out
    pull[c.grid[17, 9:]], pull[c.grid[18, 9:]], pull[c.grid[19, 9:]] = 2.0, 0.7, 0.2
    pull[c.grid[20:26, 9:]], pull[c.grid[26:37]] = 0.06, 0.04
    pull[c.grid[8:20, 16:19]] = 0.3
    pull[c.ear] = np.inf
    before = (ear.ANGLE > 120) & (ear.ANGLE < 278)
    pull[c.ear[:8, before]], pull[c.ear[3:8, ~before]], pull[c.ear[:3, ~before]] = 0.10, 2.0, 0.5
    pull[c.grid[12:16, :6]], pull[c.grid[11, :5]] = 0.3, 0.8
    pull[c.nostril[:2]] = 0.2
    pull[c.mouth[:10]] = 0.25
    pull[-1] = np.inf  # holes of the grid
    free = np.isfinite(pull)
    position = graph.fair(position, free, np.where(free, pull, 0))
    stroke(position, (16.0, -12.5, 53.5), (4.5, 5.5, 6.0), (1.5, -0.4, 0.9))  # wing of the nose, and its groove
    stroke(position, (20.0, -9.0, 48.0), (2.6, 6.5, 5.0), (-0.4, 0.0, -1.3))
    return position
