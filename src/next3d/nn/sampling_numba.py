"""Plane sampling on CPUs in compiled code, forward and backward; the torch twin is in sampling.py."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from next3d.compiled import compiled, run

BLOCK = 8192  # points that are worth a thread of their own


class SamplePlanes(torch.autograd.Function):
    """Sum over planes of bilinear samples, zeros outside; differentiable once, with respect to the planes alone.

    Some five times faster than ``grid_sample``, forward and backward: a texel's channels lie side by side in memory and
    one pass finds the texels, weighs and adds them. The order of additions is fixed, so results repeat to the bit.
    """

    @staticmethod
    def forward(ctx: Any, grids: tuple[Tensor, ...], *planes: Tensor) -> Tensor:
        """Planes (N, C, H, W) and as many grids (N, P, 2), (column, row) in [−1, 1] → (N, P, C) float32."""
        batch, channels = planes[0].shape[:2]
        points = grids[0].shape[1]
        result = torch.zeros(batch, points, channels)
        found, places = result.numpy(), [_array(grid) for grid in grids]
        sources = [_array(plane.permute(0, 2, 3, 1)) for plane in planes]
        tasks = [
            (tuple(s[n] for s in sources), tuple(g[n, i : i + BLOCK] for g in places), found[n, i : i + BLOCK])
            for n in range(batch)
            for i in range(0, points, BLOCK)
        ]
        run(_gather, tasks)
        ctx.places = places
        ctx.shapes = [(plane.shape, plane.dtype) for plane in planes]
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        incoming = _array(gradient)
        results = [torch.zeros(n, h, w, c) for (n, c, h, w), _ in ctx.shapes]
        arrays = [result.numpy() for result in results]
        # One task owns one plane: threads never add to the same texel.
        run(
            _scatter,
            [(incoming[n], g[n], a[n]) for n in range(len(incoming)) for g, a in zip(ctx.places, arrays)],
        )
        return None, *(result.permute(0, 3, 1, 2).to(kind) for result, (_, kind) in zip(results, ctx.shapes))


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to(torch.float32).contiguous().numpy()


# Only fused multiply-adds are allowed beyond strict arithmetic: results repeat on one machine.
FASTMATH = {"contract", "nsz"}


@numba.njit(inline="always")
def _taps(place, size):
    """The lower texel along one axis and the weight of the upper one; −2 where the point touches no texel."""
    x = ((place + 1) * size - 1) * np.float32(0.5)
    if not (-1 < x < size):  # NaN too
        return -2, np.float32(0)
    low = int(np.floor(x))
    return low, np.float32(x - low)


@compiled(fastmath=FASTMATH)
def _gather(planes, grids, found):
    """found (P, C) += samples of each plane (H, W, C) at its grid (P, 2)."""
    points, channels = found.shape
    for k in range(len(planes)):
        plane, grid = planes[k], grids[k]
        height, width = plane.shape[0], plane.shape[1]
        for p in range(points):
            column, right = _taps(grid[p, 0], width)
            row, below = _taps(grid[p, 1], height)
            if column == -2 or row == -2:
                continue
            for dy in range(2):
                j = row + dy
                if j < 0 or j >= height:
                    continue
                wy = below if dy else np.float32(1) - below
                for dx in range(2):
                    i = column + dx
                    if i < 0 or i >= width:
                        continue
                    w = wy * (right if dx else np.float32(1) - right)
                    for c in range(channels):
                        found[p, c] += w * plane[j, i, c]


@compiled(fastmath=FASTMATH)
def _scatter(gradient, grid, plane):
    """plane (H, W, C) += gradient (P, C) spread over the texels around grid (P, 2): the transpose of _gather."""
    points, channels = gradient.shape
    height, width = plane.shape[0], plane.shape[1]
    for p in range(points):
        column, right = _taps(grid[p, 0], width)
        row, below = _taps(grid[p, 1], height)
        if column == -2 or row == -2:
            continue
        for dy in range(2):
            j = row + dy
            if j < 0 or j >= height:
                continue
            wy = below if dy else np.float32(1) - below
            for dx in range(2):
                i = column + dx
                if i < 0 or i >= width:
                    continue
                w = wy * (right if dx else np.float32(1) - right)
                for c in range(channels):
                    plane[j, i, c] += w * gradient[p, c]
