"""The training objectives (paper, §3.6) and the terms of the reconstruction warm start."""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional as F


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating loss of the generator, softplus(−D(fake)); logits (N, 1) to a scalar (Eq. 1)."""
    return F.softplus(-fake_logits).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Logistic loss of the discriminator, softplus(D(fake)) + softplus(−D(real)); logits (N, 1) to a scalar (Eq. 1)."""
    return F.softplus(fake_logits).mean() + F.softplus(-real_logits).mean()


def r1_penalty(real_logits: Tensor, *images: Tensor) -> Tensor:
    """Per-sample squared gradient norm (N,) of the logits with respect to ``images``, each (N, C, H, W).

    The caller multiplies by γ/2 (and by the interval, when lazy). The synthetic rendering is a condition, not an
    image that a generator could have made, and is left out (NETWORK facts, 'Discriminator').
    """
    gradients = torch.autograd.grad(real_logits.sum(), images, create_graph=True)
    return sum((g.square().sum((1, 2, 3)) for g in gradients), start=torch.zeros((), device=real_logits.device))


def density_loss(sigma: Tensor, sigma_near: Tensor) -> Tensor:
    """Mean |σ(x) − σ(x + ε)| over points and slightly moved copies, each (N, P, 1), to a scalar (Eq. 2)."""
    return (sigma - sigma_near).abs().mean()


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (N, C, H, W), reflecting at the border; ``sigma`` in pixels, below 1/8 the identity.

    Along each axis it is one matrix product, which is quick everywhere, for wide blurs too.
    """
    if sigma < 0.125:
        return images
    with torch.autocast(images.device.type, enabled=False):
        rows, columns = (blur_matrix(size, sigma, images.device) for size in images.shape[-2:])
        return (rows @ images.float() @ columns.t()).to(images.dtype)


@functools.lru_cache(4)
def blur_matrix(size: int, sigma: float, device: torch.device) -> Tensor:
    """(size, size): what a Gaussian does to a row of pixels that is reflected at its ends."""
    radius = min(max(round(sigma * 3), 1), size - 1)
    taps = torch.arange(-radius, radius + 1)
    weights = (-0.5 * (taps / sigma).square()).exp()
    weights = weights / weights.sum()
    source = (torch.arange(size)[:, None] + taps).abs()  # (size, taps)
    source = torch.where(source >= size, 2 * size - 2 - source, source)
    return torch.zeros(size, size).scatter_add_(1, source, weights.expand(size, -1)).to(device)


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of ``values`` (N, …) under weights of the same shape, picture by picture, then over the pictures.

    Normalised by picture, a loss does not depend on which pictures happen to share a process.
    """
    return ((values * weight).flatten(1).sum(1) / weight.flatten(1).sum(1).clamp_min(1e-6)).mean()


def weighted_l1(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute error of (N, C, H, W) under weights (N, 1, H, W)."""
    return weighted_mean((prediction - target).abs().mean(1, keepdim=True), weight)


def gradient_l1(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted absolute error of the horizontal and vertical differences: the loss that sees edges."""
    difference = prediction - target
    across = (difference[..., :, 1:] - difference[..., :, :-1]).abs().mean(1, keepdim=True)
    down = (difference[..., 1:, :] - difference[..., :-1, :]).abs().mean(1, keepdim=True)
    return (weighted_mean(across, weight[..., :, 1:]) + weighted_mean(down, weight[..., 1:, :])) / 2


def texture_l1(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """How differently two pictures (N, C, H, W) in [−1, 1] are grained, wherever each strand of it lies.

    Differences in four directions at three scales are split into rises and falls, and the root of each one's mean
    square is compared window by window. Colours that cannot be placed to the pixel are averaged away by an L1 of
    pixels; their contrast is not averaged away by this (texture as statistics: Portilla & Simoncelli 2000).

    Args:
        weight: (N, 1, H, W)
    """
    total = prediction.new_zeros(())
    for scale in range(3):
        if scale:
            prediction, target, weight = (F.avg_pool2d(x, 2) for x in (prediction, target, weight))
        one, other = grain(prediction), grain(target)  # (N, 8·C, h, w)
        seen = F.avg_pool2d(weight, GRAIN_WINDOW, GRAIN_WINDOW // 2)
        total = total + weighted_mean((one - other).abs().mean(1, keepdim=True), seen)
    return total


GRAIN_WINDOW = 8  # pixels at each scale: an eye at 128² is a little wider


def grain(image: Tensor) -> Tensor:
    """The root mean square of rises and of falls along four directions, (N, 8·C, h, w) over overlapping windows."""
    differences = (
        image[..., 1:-1, 2:] - image[..., 1:-1, :-2],
        image[..., 2:, 1:-1] - image[..., :-2, 1:-1],
        (image[..., 2:, 2:] - image[..., :-2, :-2]) * 0.7,  # √½: farther apart
        (image[..., 2:, :-2] - image[..., :-2, 2:]) * 0.7,
    )
    changes = torch.cat([part.relu() for d in differences for part in (d, -d)], 1)
    changes = F.pad(changes, (1, 1, 1, 1))
    return (F.avg_pool2d(changes.square(), GRAIN_WINDOW, GRAIN_WINDOW // 2) + 1e-4).sqrt()


def silhouette_loss(alpha: Tensor, solid: Tensor) -> Tensor:
    """Binary cross-entropy between ray opacity (N, 1, H, W) in [0, 1] and the true silhouette of the same shape."""
    return F.binary_cross_entropy(alpha.float().clamp(1e-4, 1 - 1e-4), solid.float())


def depth_l1(depth: Tensor, target: Tensor, inside: Tensor) -> Tensor:
    """Mean absolute error of depth (N, 1, H, W), world units, where ``inside`` is 1."""
    return weighted_mean((depth - target).abs(), inside)
