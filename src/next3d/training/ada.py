"""Adaptive discriminator augmentation (Karras et al. 2020), an option for small datasets.

One affine warp and one colour matrix per sample, each the product of transformations that are applied with
probability p. The warp moves every channel together, the synthetic rendering too, since that must stay aligned with
the picture; the colour matrix touches the colour channels alone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from next3d.training.randomness import SampleRandom


def augment(
    images: list[Tensor], condition: Tensor | None, p: float, random: SampleRandom
) -> tuple[list[Tensor], Tensor | None]:
    """Augment pictures of one view, each (N, 3, H, W), and the condition (N, K, H, W) that belongs to them.

    Resolutions may differ: the transformations are defined in units of the picture's size.
    """
    if p <= 0:
        return images, condition
    warp = geometric_matrices(p, random)
    colour = colour_matrices(p, random)
    images = [_recolour(_warp(image, warp.to(image), "reflection"), colour.to(image)) for image in images]
    return images, None if condition is None else _warp(condition, warp.to(condition), "zeros")


def geometric_matrices(p: float, random: SampleRandom) -> Tensor:
    """(N, 3, 3) output → input transformations in [−1, 1] picture coordinates: the paper's blit and geometric sets.

    Flips are left out: they would need mirrored cameras; quarter turns too, since a head is never upside down.
    """
    draw = random.uniform(12)  # (N, 12)

    def gate(values: Tensor, column: int, neutral: float) -> Tensor:
        return torch.where(draw[:, column] < p, values, torch.full_like(values, neutral))

    normal = random.normal(5)  # (N, 5)
    angle = random.uniform(2) * 2 - 1  # (N, 2)
    shift = (random.uniform(2) * 2 - 1) * 0.25  # blit: up to 1/8 of the size, 1/4 in [−1, 1] units
    matrix = _translate(gate(shift[:, 0], 0, 0.0), gate(shift[:, 1], 0, 0.0))
    scale = gate(torch.exp2(normal[:, 0] * 0.2), 1, 1.0)
    matrix = matrix @ _scale(scale, scale)
    p_rotate = 1 - math.sqrt(1 - min(p, 1.0))  # twice, before and after the anisotropic scale, so that P(any) = p
    for column, place in ((2, 0), (4, 1)):
        turn = torch.where(draw[:, column] < p_rotate, angle[:, place] * math.pi, torch.zeros_like(angle[:, place]))
        matrix = matrix @ _rotate(turn)
        if place == 0:
            stretch = gate(torch.exp2(normal[:, 1] * 0.2), 3, 1.0)
            matrix = matrix @ _scale(stretch, 1 / stretch)
    return matrix @ _translate(gate(normal[:, 2] * 0.25, 5, 0.0), gate(normal[:, 3] * 0.25, 5, 0.0))


def colour_matrices(p: float, random: SampleRandom) -> Tensor:
    """(N, 3, 4) matrices on RGB in [−1, 1]: brightness, contrast, luma flip, hue rotation and saturation."""
    draw, normal, uniform = random.uniform(5), random.normal(3), random.uniform(2)
    count = draw.shape[0]
    eye = torch.eye(4, device=draw.device).expand(count, 4, 4)
    luma = torch.tensor([1.0, 1.0, 1.0, 0.0], device=draw.device) / math.sqrt(3)
    grey = torch.outer(luma, luma)

    def chosen(matrix: Tensor, column: int) -> Tensor:
        return torch.where((draw[:, column] < p)[:, None, None], matrix, eye)

    bright = eye.clone()
    bright[:, :3, 3] = (normal[:, 0] * 0.2)[:, None]
    contrast = torch.diag_embed(
        torch.cat([torch.exp2(normal[:, 1:2] * 0.5).expand(-1, 3), torch.ones_like(normal[:, :1])], 1)
    )
    flip = eye - 2 * grey * (uniform[:, 0] < 0.5).to(grey)[:, None, None]
    angle = (uniform[:, 1] * 2 - 1) * math.pi
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
    axis = luma[:3]
    zero = torch.zeros((), device=draw.device)
    cross = torch.stack([zero, -axis[2], axis[1], axis[2], zero, -axis[0], -axis[1], axis[0], zero]).view(3, 3)
    hue = eye.clone()
    hue[:, :3, :3] = grey[:3, :3] + cosine * (eye[:, :3, :3] - grey[:3, :3]) + sine * cross
    saturate = grey + torch.exp2(normal[:, 2])[:, None, None] * (eye - grey)
    matrix = chosen(saturate, 4) @ chosen(hue, 3) @ chosen(flip, 2) @ chosen(contrast, 1) @ chosen(bright, 0)
    return matrix[:, :3]


def adapt(p: float, sign: float, target: float, images: int, speed: float) -> float:
    """Move ``p`` towards where the mean sign of D on real pictures meets ``target``: 0 to 1 in ``speed`` images."""
    if sign == target:
        return p
    return min(max(p + math.copysign(images / speed, sign - target), 0.0), 1.0)


def _warp(image: Tensor, matrix: Tensor, padding: str) -> Tensor:
    grid = F.affine_grid(matrix[:, :2], list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, padding_mode=padding, align_corners=False)


def _recolour(image: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("nij,njhw->nihw", matrix[:, :, :3], image) + matrix[:, :, 3, None, None]


def _matrix(*entries: Tensor) -> Tensor:
    return torch.stack(entries, -1).unflatten(-1, (3, 3))


def _translate(x: Tensor, y: Tensor) -> Tensor:
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return _matrix(one, zero, x, zero, one, y, zero, zero, one)


def _scale(x: Tensor, y: Tensor) -> Tensor:
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return _matrix(x, zero, zero, zero, y, zero, zero, zero, one)


def _rotate(angle: Tensor) -> Tensor:
    one, zero = torch.ones_like(angle), torch.zeros_like(angle)
    return _matrix(angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero, zero, zero, one)
