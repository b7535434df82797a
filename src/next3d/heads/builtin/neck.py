"""The neck: a loft from the ring under jaw and nape to an oval above the shoulders."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import stations
from .form import Array, Mirrored, smoothstep
from .topology import NECK_ROW, ROWS


def shape(grid: NDArray[np.int64], position: Array) -> None:
    """Place the rows below NECK_ROW: from the ring down and back to the base, its girth least in the middle."""
    top = position[grid[NECK_ROW]]
    turn = np.arctan2(top[:, 0], top[:, 2] + 50.0)
    width, depth = stations.NECK_BASE_AXES
    flare = 1 + stations.NECK_FLARE * np.exp(-(((turn - 1.75) / 0.55) ** 2))  # the trapezius
    base = (
        stations.NECK_BASE_CENTRE
        + np.c_[width * flare * np.sin(turn), -3 + 12 * (1 - np.cos(turn)), depth * np.cos(turn)]
    )
    leave = np.c_[-4 * np.sin(turn), np.full(len(turn), -70.0), -26 + 8 * np.cos(turn)]
    arrive = np.c_[44 * flare * np.sin(turn), np.full(len(turn), -80.0), -30 + 14 * np.cos(turn)]
    steps = ROWS - NECK_ROW
    for k in range(1, steps + 1):
        t = k / steps
        position[grid[NECK_ROW + k]] = (
            (2 * t**3 - 3 * t**2 + 1) * top
            + (t**3 - 2 * t**2 + t) * leave
            + (3 * t**2 - 2 * t**3) * base
            + (t**3 - t**2) * arrive
        )


def settle(grid: NDArray[np.int64], position: Array, graph: Mirrored) -> Array:
    """Round the turn from jaw and nape into the neck, and lay the muscle from behind the ear to the breastbone."""
    free = np.zeros(len(position), bool)
    for column in range(grid.shape[1]):
        first = 32 if column < 14 else 31 if column < 22 else 29
        free[grid[first:ROWS, column]] = True
    position = graph.fair(position, free, 4e-3, edge=grid[ROWS])
    rows = grid[NECK_ROW - 1 : ROWS + 1]
    p = position[rows]
    down = np.clip((p[..., 1] + 75) / -105, 0, 1)
    turn = np.arctan2(p[..., 0], p[..., 2] + 50 + 38 * down)
    muscle = np.exp(-(((turn - (1.75 - 1.35 * down**0.9)) / 0.26) ** 2)) * np.sin(np.pi * (0.12 + 0.8 * down))
    throat = np.exp(-((turn / 0.55) ** 2)) * np.sin(np.pi * (0.1 + 0.9 * down)) * smoothstep(-88, -104, p[..., 1])
    out = np.stack([np.sin(turn), 0 * turn, np.cos(turn)], -1)
    position[rows] = p + out * (2.4 * muscle + 1.3 * throat)[..., None]
    return position
