"""Bilinear sampling of feature planes at scattered points; zeros outside, ``align_corners`` off."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


class PlaneSampler:
    """Samples several planes at once and adds what it finds.

    Two implementations with one result: ``grid_sample``, for gradients and GPUs, and a table look-up that is about
    five times faster on CPUs (one weighted bag of four rows for each plane and point).

    Args:
        planes: one or more (N, C, H, W); sizes may differ, N and C not
        table: True or False forces the implementation, None chooses
    """

    def __init__(self, planes: Sequence[Tensor], table: bool | None = None) -> None:
        self.planes = list(planes)
        gradients = torch.is_grad_enabled()
        self.use_table = not gradients and planes[0].device.type == "cpu" if table is None else table
        if self.use_table:
            rows = [p.permute(0, 2, 3, 1).reshape(-1, p.shape[1]) for p in planes]  # (N·H·W, C) each
            self.table = rows[0] if len(rows) == 1 else torch.cat(rows)

    def __call__(self, grids: Sequence[Tensor]) -> Tensor:
        """One grid (N, P, 2) for each plane, (column, row) in [−1, 1] → (N, P, C), the sum over the planes."""
        if self.use_table and not (torch.is_grad_enabled() and any(g.requires_grad for g in grids)):
            return self._look_up(grids)
        total = None
        for plane, grid in zip(self.planes, grids):
            grid = grid[:, :, None].to(plane.dtype)  # (N, P, 1, 2)
            found = F.grid_sample(plane, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
            total = found if total is None else total + found
        assert total is not None
        return total[..., 0].transpose(1, 2)

    def _look_up(self, grids: Sequence[Tensor]) -> Tensor:
        indices, weights, first = [], [], 0
        for plane, grid in zip(self.planes, grids):
            n, _, height, width = plane.shape
            index, weight = bilinear_taps(grid, height, width)  # (N, P, 4)
            offset = first + torch.arange(n, dtype=torch.int32, device=plane.device) * (height * width)
            indices.append(index + offset[:, None, None])
            weights.append(weight)
            first += n * height * width
        index, weight = torch.cat(indices, -1), torch.cat(weights, -1)  # (N, P, 4·planes)
        found = F.embedding_bag(
            index.flatten(0, 1), self.table, per_sample_weights=weight.flatten(0, 1).to(self.table.dtype), mode="sum"
        )
        return found.unflatten(0, index.shape[:2])


def bilinear_taps(grid: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The four texels around each point and their weights, 0 for those outside.

    Args:
        grid: (…, 2) column and row in [−1, 1]

    Returns:
        (…, 4) int32 flat indices row·width + column, and (…, 4) weights
    """
    size = grid.new_tensor([width, height])
    # Points far away see nothing; bounding them keeps the indices small. A NaN becomes such a point.
    position = ((grid + 1) * size - 1) / 2
    position = torch.where(position.isnan(), -2.0, position).clamp(min=-2.0).minimum(size + 1)
    low = position.floor()
    fraction = position - low
    low = low.to(torch.int32)
    weights, columns_rows = [], []
    for axis, extent in ((0, width), (1, height)):
        near, far = low[..., axis], low[..., axis] + 1
        inside = torch.stack([(near >= 0) & (near < extent), (far >= 0) & (far < extent)], -1)  # (…, 2)
        weights.append(torch.stack([1 - fraction[..., axis], fraction[..., axis]], -1) * inside)
        columns_rows.append(torch.stack([near, far], -1).clamp(0, extent - 1))
    column, row = columns_rows
    index = row[..., :, None] * width + column[..., None, :]  # (…, 2, 2)
    weight = weights[1][..., :, None] * weights[0][..., None, :]
    return index.flatten(-2), weight.flatten(-2)
