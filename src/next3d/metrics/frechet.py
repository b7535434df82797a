"""Fréchet and kernel distances between two sets of features, through torchmetrics.

d² = |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½)   (Heusel et al. 2017). On Inception features it is the FID; on any other
network's features it is not, and our reports call it FD-synthetic.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from next3d.errors import InputError, require

KID_SUBSETS = 100
KID_SIZE = 1000


class Given(nn.Module):
    """Lets torchmetrics take features that were computed elsewhere."""

    def __init__(self, size: int):
        super().__init__()
        self.num_features = size

    def forward(self, features: Tensor) -> Tensor:
        return features


def check(real: Tensor, fake: Tensor) -> None:
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise InputError(
            f"two sets of features have shapes (N, F) and (M, F), got {tuple(real.shape)}, {tuple(fake.shape)}"
        )
    if min(len(real), len(fake)) < 2:
        raise InputError("a distance of distributions needs at least two pictures on each side")
    if not (torch.isfinite(real).all() and torch.isfinite(fake).all()):
        raise InputError("features hold NaN or infinity: the pictures or the estimator are broken")


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """The squared Fréchet distance between Gaussians fitted to features (N, F) and (M, F); statistics in float64.

    Warns where a set has no more samples than features: the covariance is then singular and the distance biased up.
    """
    check(real, fake)
    count, size = min(len(real), len(fake)), real.shape[1]
    if count <= size:
        warnings.warn(
            f"{count} pictures for {size} features: the Fréchet distance is biased upwards; use more than {size}",
            stacklevel=2,
        )
    # Every process holds all features already: torchmetrics must not add them up over processes once more.
    kind = require("torchmetrics.image.fid", "metrics").FrechetInceptionDistance
    metric = kind(feature=Given(size), sync_on_compute=False)
    metric.set_dtype(torch.float64)
    for features, is_real in ((real, True), (fake, False)):
        metric.update(features.double(), real=is_real)
    return float(metric.compute())


def kernel_distance(real: Tensor, fake: Tensor, *, seed: int = 0) -> float:
    """The kernel distance (KID, Bińkowski et al. 2018): unbiased, cubic polynomial kernel, mean over random subsets."""
    check(real, fake)
    poly_mmd = require("torchmetrics.image.kid", "metrics").poly_mmd
    size = min(KID_SIZE, len(real), len(fake))
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(KID_SUBSETS if size == KID_SIZE else 10):
        a = real[torch.randperm(len(real), generator=generator)[:size]].double()
        b = fake[torch.randperm(len(fake), generator=generator)[:size]].double()
        values.append(poly_mmd(a, b))
    return float(torch.stack(values).mean())
