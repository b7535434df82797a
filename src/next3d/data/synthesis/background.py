"""Backgrounds: blurred and quiet, drawn in the picture's plane, a function of the latent alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from next3d.data.synthesis.identity import Identity, from_hue, linear
from next3d.data.synthesis.noise import hashed
from next3d.data.synthesis.skin import smoothstep


def muted(srgb: np.ndarray) -> np.ndarray:
    """A wall's version of a colour: greens and magentas, rare on walls, are greyed."""
    grey = 0.55 * np.clip(2.2 * abs(srgb[1] - 0.5 * (srgb[0] + srgb[2])), 0, 1)
    return srgb + grey * (srgb.mean() - srgb)


BAND = 1 << 14  # pixels at a time, to keep the intermediate arrays small


def paint_background(who: Identity, resolution: int) -> np.ndarray:
    """(R, R, 3) float32 linear RGB. The picture's plane is all it knows: it does not move with the camera."""
    image = np.empty((resolution, resolution, 3), np.float32)
    centres = (np.arange(resolution) + 0.5) / resolution
    rows = max(1, BAND // resolution)
    for start in range(0, resolution, rows):
        v, u = np.meshgrid(centres[start : start + rows], centres, indexing="ij")
        image[start : start + rows] = _paint(who, u, v)
    return image


def _paint(who: Identity, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(H, W, 3) linear RGB at places (H, W) of the picture, u right and v down, in [0, 1]."""
    place, light = who.quantile("background_hue"), who.quantile("background_lightness")
    hue = 0.02 + 0.24 * place if place < 0.5 else 0.42 + 0.5 * (place - 0.5)  # earths and ambers, or seas and blues
    base = muted(from_hue(hue, 0.34, 0.25 + 0.6 * light))
    other = muted(from_hue((hue + 0.06 + 0.1 * light) % 1, 0.24, min(0.95, 0.42 + 0.6 * light)))
    dark = muted(from_hue((hue + 0.95) % 1, 0.40, 0.12 + 0.35 * light))
    kind = who.background
    if kind == "plain":
        image = base + (other - base) * 0.5 * np.exp(-((u - 0.5) ** 2 + (v - 0.4) ** 2) / 0.18)[..., None]
    elif kind == "gradient":
        image = dark + (other - dark) * smoothstep(1.05, -0.05, v + 0.25 * (u - 0.5))[..., None]
    elif kind == "bokeh":
        image = dark + (base - dark) * smoothstep(1.1, 0.0, v)[..., None]
        for k in range(14):
            x, y, r = (float(hashed(k, n, 61)) for n in range(3))
            radius = 0.04 + 0.08 * r
            if v.min() > 0.85 * y + radius or v.max() < 0.85 * y - radius:
                continue
            disc = smoothstep(radius, 0.72 * radius, np.hypot(u - x, v - 0.85 * y))
            glow = from_hue((hue + 0.12 * (r - 0.5)) % 1, 0.25, 0.9)
            image = image + (0.30 * disc * (0.4 + 0.6 * float(hashed(k, 7, 61))))[..., None] * (glow - image)
    else:
        wall = base + (other - base) * (0.5 * u)[..., None]
        floor = smoothstep(0.70, 0.80, v)[..., None]
        image = wall + floor * (dark - wall)
        left = 0.08 + 0.55 * float((hue * 5) % 1)
        window = smoothstep(left - 0.03, left + 0.03, u) * smoothstep(left + 0.33, left + 0.27, u)
        window = window * smoothstep(0.02, 0.08, v) * smoothstep(0.55, 0.49, v)
        window = window * (1 - 0.5 * np.exp(-(((u - left - 0.15) / 0.012) ** 2)))
        image = image + 0.75 * window[..., None] * (np.array([0.93, 0.95, 0.97]) - image)
        shelf = smoothstep(0.02, 0.0, np.abs((v * 4.0) % 1 - 0.5) - 0.04) * (v < 0.7) * (np.abs(u - left - 0.15) > 0.24)
        image = image + 0.35 * shelf[..., None] * (dark - image)
    return linear(np.clip(image, 0, 1))


def background(latent: ArrayLike, resolution: int) -> np.ndarray:
    """A person's background alone: (3, R, R) float32 sRGB in [−1, 1], what pictures show where nothing stands."""
    light = paint_background(Identity.of(latent), resolution).astype(np.float64)
    srgb = np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)
    return np.ascontiguousarray((2 * srgb - 1).astype(np.float32).transpose(2, 0, 1))
