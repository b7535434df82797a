"""Lips: border and line of contact as curves, full between them, and a short lining behind.

Columns 0 … 22 of the half rings run from the midline of the lower lip (0) by the corner (11) to that of the upper
lip.

The mouth must be a true hole: seen from the front, whatever lies between open lips is found by flooding the picture
from its border, so nothing drawn may cover the opening. The lining therefore is only the lips' own back, three rings
about 8 mm deep that widen backwards and end in an open edge, as FLAME's lips do; there is no bag behind it. Through
the opening one sees the inside of the nape, which lies outside the moving part of the atlas.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import stations
from .form import Array, Skin, resample, smoothstep
from .topology import LIP_BORDER, LIP_CONTACT

COLUMNS = 23
CORNER = 11
LOWER = np.arange(COLUMNS) < CORNER
MIDWARD = np.abs(np.arange(COLUMNS) - CORNER) / CORNER  # 1 at the midline, 0 at the corner
SKIN_FRACTIONS = (0.24, 0.46, 0.66, 0.83, 0.93, 1.0)  # rings 1 … 6, from the oval to the border


def oval(skin: Skin) -> Array:
    """(17, 3) the part of the window's outline below and beside the lips; the rest lies under the nose."""
    return skin.lift(resample(stations.MOUTH_OVAL, 18)[:17], 50.0)


def shape(rings: NDArray[np.int64], position: Array, skin: Skin) -> None:
    """Place rings 1 … 13 of the left half; ring 0 is already on the skin."""
    upper, lower = resample(stations.LIP_BORDER_UPPER, 12), resample(stations.LIP_BORDER_LOWER, 12)
    contact = resample(stations.LIP_CONTACT, 12)
    border = np.concatenate([lower, upper[::-1][1:]])
    line = np.concatenate([contact, contact[::-1][1:]])
    outer = position[rings[0]].copy()
    s = MIDWARD
    for ring, f in enumerate(SKIN_FRACTIONS, 1):
        xy = outer[:, :2] * (1 - f) + border[:, :2] * f
        on_lip = smoothstep(0.45, 1.0, f)
        z = skin.lift(xy, 50.0)[:, 2] * (1 - on_lip) + (outer[:, 2] * (1 - f) + border[:, 2] * f) * on_lip
        ax = np.abs(xy[:, 0])
        groove = -1.3 * np.exp(-((ax / 2.9) ** 2)) + 0.7 * np.exp(-(((ax - 5.4) / 2.4) ** 2))  # philtrum
        z += np.where(LOWER, 0, groove) * np.exp(-(((f - 0.66) / 0.34) ** 2))
        roll = 0.5 * np.exp(-(((f - 1) / 0.08) ** 2)) * np.sin(np.pi * s / 2)  # the white roll along the border
        position[rings[ring]] = np.c_[xy, z + roll]
    fullness = np.where(LOWER, 3.0, 2.1) * np.sin(np.pi * s / 2) ** 0.8
    # two soft pads in the lower lip, a tubercle in the middle of the upper
    x = np.abs(border[:, 0])
    fullness *= np.where(LOWER, 1 + 0.10 * np.exp(-(((x - 6.5) / 4) ** 2)), 1 + 0.22 * np.exp(-((x / 4.2) ** 2)))
    for ring, f in zip(range(LIP_BORDER + 1, LIP_CONTACT), (0.30, 0.62, 0.90)):
        p = border * (1 - f) + line * f
        bulge = fullness * np.sin(np.pi * f ** np.where(LOWER, 0.9, 1.15))
        p[:, 2] += 0.85 * bulge
        p[:, 0] += 0.35 * bulge * (1 - s)
        position[rings[ring]] = p
    gap = 0.12 * np.sin(np.pi * s / 2)
    position[rings[LIP_CONTACT]] = line + np.c_[0 * s, np.where(LOWER, -gap, gap), np.full(COLUMNS, -0.6)]
    for ring, back, spread in zip(range(LIP_CONTACT + 1, len(rings)), (2.6, 5.2, 8.0), (0.5, 1.8, 3.6)):
        p = line.copy()
        p[:, 2] -= back * (0.4 + 0.6 * s)
        p[:, 1] += np.where(LOWER, -spread, spread) * s**0.7
        p[:, 0] *= 1 - 0.002 * back
        position[rings[ring]] = p
