"""Where a generator's w vectors lie: their mean and spread, and coordinates in which they are about standard normal.

In these coordinates one step size suits every model, and the distance to the mean is a likelihood: directions that the
mapping network hardly uses are short. (The idea of whitening w is Zhu et al. 2020's; here without their activation.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from next3d.generator.generator import Generator
from next3d.geometry.cameras import Camera

SAMPLES = 8192
FLOOR = 1e-2  # share of the mean variance that every direction has at least


@dataclass(frozen=True)
class LatentSpace:
    """An affine map between w and whitened coordinates.

    Attributes:
        mean: (w_dim,)
        spread: (w_dim, w_dim) whitened coordinates (row) @ spread + mean = w
    """

    mean: Tensor
    spread: Tensor

    @staticmethod
    def of(model: Generator, seed: int = 0) -> LatentSpace:
        """Measured on :data:`SAMPLES` draws."""
        w = draw_w(model, SAMPLES, seed).double().cpu()
        mean = w.mean(0)
        values, vectors = torch.linalg.eigh((w - mean).T @ (w - mean) / len(w))
        deviation = (values.clamp_min(0) + FLOOR * values.mean().clamp_min(1e-12)).sqrt()
        spread = deviation[:, None] * vectors.T
        return LatentSpace(mean.float().to(model.device), spread.float().to(model.device))

    def w(self, x: Tensor) -> Tensor:
        """Whitened (…, w_dim) → w (…, w_dim)."""
        return x @ self.spread + self.mean

    def whiten(self, w: Tensor) -> Tensor:
        """The inverse of :meth:`w`."""
        return torch.linalg.solve(self.spread.T, (w - self.mean).T.reshape(self.mean.numel(), -1)).T.reshape(w.shape)


@torch.no_grad()
def draw_w(model: Generator, count: int, seed: int) -> Tensor:
    """(count, w_dim) random w vectors, the mapping network being shown the frontal camera."""
    z = torch.randn(count, model.config.mapping.z_dim, generator=torch.Generator().manual_seed(seed))
    return w_of(model, z)


@torch.no_grad()
def w_of(model: Generator, z: Tensor) -> Tensor:
    """Latents (N, z_dim) → w (N, w_dim)."""
    label = Camera.orbit().label.expand(len(z), 25).to(model.device)
    return model.mapping(z.to(model.device), label)[:, 0]
