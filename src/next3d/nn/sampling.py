"""Bilinear sampling of feature planes at scattered points; zeros outside, ``align_corners`` off."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


class PlaneSampler:
    """Samples several planes at once and adds what it finds.

    Two implementations with one result: ``grid_sample``, for any device and gradients to the points, and compiled loops
    for CPUs (``sampling_numba``), with gradients to the planes.

    Args:
        planes: one or more (N, C, H, W); sizes may differ, N and C not
        implementation: "auto", "torch" or "numba"
    """

    def __init__(self, planes: Sequence[Tensor], implementation: str = "auto") -> None:
        self.planes = list(planes)
        self.compiled = implementation == "numba" or (implementation == "auto" and planes[0].device.type == "cpu")
        if self.compiled:
            self.planes = [plane.to(torch.float32, memory_format=torch.channels_last) for plane in planes]

    def __call__(self, grids: Sequence[Tensor]) -> Tensor:
        """One grid (N, P, 2) for each plane, (column, row) in [−1, 1] → (N, P, C), the sum over the planes.

        The compiled loops answer in float32, whatever the planes are.
        """
        if self.compiled and not (torch.is_grad_enabled() and any(grid.requires_grad for grid in grids)):
            from next3d.nn.sampling_numba import SamplePlanes

            return SamplePlanes.apply(tuple(grids), *self.planes)
        return sample_planes(self.planes, grids)


def sample_planes(planes: Sequence[Tensor], grids: Sequence[Tensor]) -> Tensor:
    """What :class:`PlaneSampler` computes, in plain torch."""
    total = None
    for plane, grid in zip(planes, grids):
        grid = grid[:, :, None].to(plane.dtype)  # (N, P, 1, 2)
        found = F.grid_sample(plane, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        total = found if total is None else total + found
    assert total is not None
    return total[..., 0].transpose(1, 2)
