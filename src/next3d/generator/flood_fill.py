"""Filling the open mouth: what no path from the corner of a mask reaches belongs to the inside (paper, §3.2).

Two implementations of one rule, chosen by device: a walk in numba for CPUs, and repeated sweeps in torch for any
device, without a synchronisation.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from next3d.compiled import compiled

GPU_SWEEPS = 24
THRESHOLD = 254 / 255  # the fill walks through every pixel up to this value


def fill_holes(alpha: Tensor, *, border: bool = False, implementation: str = "auto") -> Tensor:
    """Set to 1 whatever a 4-connected walk through values ≤ 254/255 from the top left pixel does not reach.

    Args:
        alpha: (N, H, W) in [0, 1]; values that the walk reaches stay as they are
        border: start from every pixel of the border, not only from the corner
        implementation: "auto", "torch" or "numba"

    Returns:
        (N, H, W), differentiable where the walk went.
    """
    open_ = alpha.detach() <= THRESHOLD
    if implementation == "numba" or (implementation == "auto" and alpha.device.type == "cpu"):
        reached = torch.from_numpy(_walk(open_.numpy(), border))
    else:
        reached = reach(open_, border)
    return torch.where(reached, alpha, 1.0)


@compiled()
def _walk(open_: np.ndarray, border: bool) -> np.ndarray:
    count, height, width = open_.shape
    reached = np.zeros_like(open_)
    stack = np.empty((height * width, 2), np.int32)
    for n in range(count):
        top = 0
        for row in range(height):
            on_edge = row == 0 or row == height - 1
            step = 1 if on_edge else max(width - 1, 1)
            for column in range(0, width, step):
                if (border or (row == 0 and column == 0)) and open_[n, row, column]:
                    reached[n, row, column] = True
                    stack[top, 0], stack[top, 1] = row, column
                    top += 1
        while top > 0:
            top -= 1
            row, column = stack[top, 0], stack[top, 1]
            for side in range(4):
                r = row + (side == 0) - (side == 1)
                c = column + (side == 2) - (side == 3)
                if 0 <= r < height and 0 <= c < width and open_[n, r, c] and not reached[n, r, c]:
                    reached[n, r, c] = True
                    stack[top, 0], stack[top, 1] = r, c
                    top += 1
    return reached


def reach(open_: Tensor, border: bool = False) -> Tensor:
    """The pixels of (N, H, W) bool that the walk reaches, in plain torch.

    Every sweep carries the walk along whole open runs in the four directions, so that a mask needs about as many sweeps
    as its longest path has turns. On a GPU the number is fixed, so that nothing waits for it; the outside of
    a head hardly winds.
    """
    reached = torch.zeros_like(open_)
    reached[:, 0, 0] = True
    if border:
        reached[:, 0] = reached[:, -1] = True
        reached[:, :, 0] = reached[:, :, -1] = True
    reached &= open_
    waits = open_.device.type != "cuda"
    for _ in range(open_[0].numel() if waits else GPU_SWEEPS):
        before = reached
        for axis in (1, 2):
            reached = _run(reached, open_, axis) | _run(reached.flip(axis), open_.flip(axis), axis).flip(axis)
        if waits and torch.equal(before, reached):
            break
    return reached


def _run(reached: Tensor, open_: Tensor, axis: int) -> Tensor:
    """Carry ``reached`` forwards along ``axis`` until the next closed pixel."""
    place = torch.arange(1, open_.shape[axis] + 1, device=open_.device)
    place = place[:, None] if axis == 1 else place
    last_reached = torch.where(reached, place, 0).cummax(axis).values
    last_closed = torch.where(open_, 0, place).cummax(axis).values
    return open_ & (last_reached > last_closed)
