"""What a frontal picture shows of mouth and eyes, read off its pixels alone.

Where to look is decided once for a person, by the landmarks of their head at rest, and is the same for every picture of
a sweep: a region cannot tell what was commanded. What is seen there is decided by colour. The thresholds were chosen
on factory pictures, whose part masks are the truth, and hold for pictures like them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from next3d.errors import InputError

MIN_RESOLUTION = 64  # an eye is then three pixels high
CORNERS = (48, 54)  # of the mouth, iBUG-68
EYES = (slice(36, 42), slice(42, 48))


@dataclass(frozen=True)
class Regions:
    """Where to look in the frontal pictures of one person.

    Attributes:
        mouth: (R, R) bool: as wide as the mouth at rest, down to where the chin falls
        mouth_width: pixels
        lids: (2, R, R) bool: the outlines of the open eyes, somewhat enlarged
        skin: (2, R, R) bool: skin above and below each eye
        irises: (2, R, R) bool: the outlines of the open eyes, somewhat shrunk
        across: (2, R, R) from −1 to 1 between an eye's corners, left to right in the picture
    """

    mouth: Tensor
    mouth_width: float
    lids: Tensor
    skin: Tensor
    irises: Tensor
    across: Tensor

    @staticmethod
    def of(landmarks: Tensor, resolution: int) -> Regions:
        """From landmarks (68, 2) in [0, 1], u right and v down, of the head at rest."""
        if resolution < MIN_RESOLUTION:
            raise InputError(f"eyes cannot be read off {resolution}² pictures: they need {MIN_RESOLUTION}² or more")
        centres = (torch.arange(resolution) + 0.5) / resolution
        v, u = torch.meshgrid(centres, centres, indexing="ij")
        a, b = landmarks[CORNERS[0]], landmarks[CORNERS[1]]
        width, middle = b[0] - a[0], (a + b) / 2
        mouth = ((u - middle[0]).abs() < width / 2) & (v > middle[1] - 0.3 * width) & (v < middle[1] + width)
        outlines = [landmarks[eye] for eye in EYES]
        grown = {
            size: torch.stack([inside(outline, size, u, v) for outline in outlines])
            for size in ((0.8, 0.7), (1.2, 1.6), (1.3, 2.2), (1.5, 3.2))
        }
        across = [(u - o[:, 0].mean()) / ((o[:, 0].max() - o[:, 0].min()) / 2) for o in outlines]
        return Regions(
            mouth,
            float(width) * resolution,
            grown[1.2, 1.6],
            grown[1.5, 3.2] & ~grown[1.3, 2.2],
            grown[0.8, 0.7],
            torch.stack(across),
        )


def inside(outline: Tensor, size: tuple[float, float], u: Tensor, v: Tensor) -> Tensor:
    """(R, R) bool: inside a convex outline (P, 2) enlarged about its middle by ``size`` across and along."""
    middle = outline.mean(0)
    p = middle + (outline - middle) * torch.tensor(size)
    q = p.roll(-1, 0)
    p, q = p[:, :, None, None], q[:, :, None, None]
    side = (q[:, 0] - p[:, 0]) * (v - p[:, 1]) - (q[:, 1] - p[:, 1]) * (u - p[:, 0])
    return (side > 0).all(0) | (side < 0).all(0)


def between(x: Tensor, low: float, high: float) -> Tensor:
    """0 at ``low``, 1 at ``high`` (which may be the smaller), clamped."""
    return ((x - low) / (high - low)).clamp(0, 1)


def inner_mouth(images: Tensor, regions: Regions) -> Tensor:
    """(T, R, R) in [0, 1]: what in the mouth's region has the colour of a mouth's inside.

    Cavity, gums and tongue are redder than any skin — green to red below 0.45, skin lies above 0.55 — and lips, where
    as red, are brighter (red above 0.65).
    """
    rgb = (images + 1) / 2
    red = rgb[:, 0]
    redder = between(rgb[:, 1] / (red + 0.02), 0.5, 0.4)
    return redder * between(red, 0.7, 0.6) * regions.mouth


def mouth_opening(images: Tensor, regions: Regions) -> Tensor:
    """(T,) area of the mouth's inside in pictures (T, 3, R, R) in [−1, 1], in squares of the mouth's width."""
    return inner_mouth(images, regions).sum((1, 2)) / regions.mouth_width**2


def tongue_or_teeth(images: Tensor, regions: Regions) -> Tensor:
    """(T,) share of the open mouth that is not dark: red above 0.3 of 1. 0 where the mouth is hardly open.

    Only what lies two pixels (at 128²) inside the opening counts, teeth between the cavity's upper and lower end
    included: its blurred edge towards the lips is neither.
    """
    dark_or_tongue = inner_mouth(images, regions) > 0.5
    above = dark_or_tongue.cummax(1).values
    below = dark_or_tongue.flip(1).cummax(1).values.flip(1)
    opening = above & below
    margin = max(1, round(images.shape[-1] / 64))
    outside = (~opening).float()[:, None]
    core = max_pool2d(outside, 2 * margin + 1, 1, margin)[:, 0] == 0
    bright = core & ((images[:, 0] + 1) / 2 > 0.3)
    area = core.sum((1, 2))
    least = 0.05 * regions.mouth_width**2
    return torch.where(area >= least, bright.sum((1, 2)) / area.clamp_min(1), torch.zeros(len(images)))


def eye_openness(images: Tensor, regions: Regions) -> Tensor:
    """(T,) share of the eyes' region that shows eye, the mean of both eyes; closure is its opposite.

    A pixel is eye as far as it is whiter than the skin around the eye — blue to red from the skin's ratio towards the
    0.9 of an eye's white —, or darker, by 30 to 60 %, as irises and lashes are.
    """
    rgb = (images + 1) / 2
    ratio, light = rgb[:, 2] / (rgb[:, 0] + 0.02), rgb.mean(1)
    shares = []
    for lids, around in zip(regions.lids, regions.skin):
        skin = rgb[:, :, around].median(-1).values  # (T, 3)
        skin_ratio, skin_light = (skin[:, 2] / (skin[:, 0] + 0.02))[:, None], skin.mean(1)[:, None]
        white = ((ratio[:, lids] - skin_ratio) / (0.9 - skin_ratio).clamp_min(0.1)).clamp(0, 1)
        dark = between(1 - light[:, lids] / skin_light.clamp_min(0.02), 0.3, 0.6)
        shares.append(torch.maximum(white, dark).mean(1))
    return torch.stack(shares).mean(0)


def gaze_side(images: Tensor, regions: Regions) -> Tensor:
    """(T,) where the irises stand between the eyes' corners, −1 to 1 left to right in the picture.

    The centroid of squared darkness against the brightest tenth of the eye; the mean of both eyes.
    """
    light = (images.mean(1) + 1) / 2
    places = []
    for iris, across in zip(regions.irises, regions.across):
        inner = light[:, iris]
        weight = (inner.quantile(0.9, dim=1, keepdim=True) - inner).clamp_min(0).square()
        places.append((weight * across[iris]).sum(1) / weight.sum(1).clamp_min(1e-6))
    return torch.stack(places).mean(0)


def psnr(first: Tensor, second: Tensor, mask: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio in dB (…) of pictures (…, 3, R, R) in [−1, 1], as they would be stored (clamped).

    Args:
        mask: (…, R, R) bool, the pixels that count; all of them if None
    """
    error = ((first.clamp(-1, 1) - second.clamp(-1, 1)) / 2).double().square().mean(-3)  # (…, R, R)
    if mask is None:
        mean = error.mean((-2, -1))
    else:
        mean = (error * mask).sum((-2, -1)) / mask.sum((-2, -1)).clamp_min(1)
    return -10 * mean.clamp_min(1e-12).log10()
