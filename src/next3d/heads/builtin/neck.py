"""The neck: a loft from the ring under jaw and nape to an oval above the shoulders."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import stations
from .form import Array
from .topology import NECK_ROW, ROWS


def shape(grid: NDArray[np.int64], position: Array) -> None:
    """Place the rows below NECK_ROW as a Hermite loft."""
    top, above = position[grid[NECK_ROW]], position[grid[NECK_ROW - 2]]
    turn = np.arctan2(top[:, 0], top[:, 2] + 52.0)
    width, depth = stations.NECK_BASE_AXES
    base = stations.NECK_BASE_CENTRE + np.c_[width * np.sin(turn), 5 * (1 - np.cos(turn)), depth * np.cos(turn)]
    leave = np.c_[0 * turn, np.full(len(turn), -66.0), np.full(len(turn), -2.0)]
    arrive = np.c_[34 * np.sin(turn) ** 3, np.full(len(turn), -76.0), -10 + 16 * np.cos(turn)]
    del above
    steps = ROWS - NECK_ROW
    for k in range(1, steps + 1):
        t = k / steps
        position[grid[NECK_ROW + k]] = (
            (2 * t**3 - 3 * t**2 + 1) * top
            + (t**3 - 2 * t**2 + t) * leave
            + (3 * t**2 - 2 * t**3) * base
            + (t**3 - t**2) * arrive
        )
