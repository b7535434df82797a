"""Numbers that change while training runs (NETWORK facts of the released recipe; paper, B)."""

from __future__ import annotations

import math


def ramp(images: float, start: float, end: float, over: float) -> float:
    """Linear from ``start`` at 0 to ``end`` at ``over`` images, then constant; ``over`` = 0 means ``end`` at once."""
    if over <= 0:
        return end
    return start + (end - start) * min(images / over, 1.0)


def ema_decay(images: float, batch: int, half_life: float, ramp_up: float | None) -> float:
    """The decay of one step's exponential moving average of the weights.

    Args:
        images: images seen so far.
        batch: images per step.
        half_life: images after which an old weight counts half.
        ramp_up: the half-life is at most this fraction of ``images``, so that early averages follow fast; None = off.
    """
    if ramp_up is not None:
        half_life = min(half_life, images * ramp_up)
    return 0.5 ** (batch / max(half_life, 1e-8))


def lazy(learning_rate: float, betas: tuple[float, float], interval: int) -> tuple[float, tuple[float, float]]:
    """Adam's learning rate and betas when a regulariser runs as an extra step once every ``interval`` steps.

    The optimiser then makes (interval + 1)/interval times as many steps; the correction of StyleGAN2 (appendix B)
    keeps its speed.
    """
    if interval <= 0:
        return learning_rate, betas
    ratio = interval / (interval + 1)
    return learning_rate * ratio, (betas[0] ** ratio, betas[1] ** ratio)


def blur_sigma(images: float, sigma: float, fade: float) -> float:
    """The blur, in pixels of the output picture, that both real and generated images get: ``sigma`` fading to 0."""
    return sigma * max(1 - images / fade, 0.0) if fade > 0 else 0.0


def cosine(progress: float, start: float = 1.0, end: float = 0.0) -> float:
    """Half a cosine from ``start`` at progress 0 to ``end`` at 1."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


def ray_resolution(images: float, start: int, end: int, over: float) -> int:
    """The ray image's resolution: ``start`` growing linearly to ``end`` over ``over`` images, in steps of 8 (EG3D)."""
    if over <= 0 or start == end:
        return end
    return int(round(ramp(images, start, end, over) / 8) * 8)
