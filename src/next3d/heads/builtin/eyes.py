"""Eyes: an oval pinned on the skin, lids that wrap the eyeball with a margin of their own thickness, and the eyeball.

Columns 0 … 31 of the rings run from the inner corner (0) along the lower lid to the outer corner (16) and back along
the upper lid. Rings 1 … 8 blend from the skin to a sphere just outside the eyeball: where they meet is the lid's
crease.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import stations
from .form import Array, Skin, smoothstep, unit
from .topology import BALL_ANGLES, BALL_SEGMENTS, LID_MARGIN

COLUMNS = 32
OUTER_CORNER = 16
UPPER = np.arange(COLUMNS) > OUTER_CORNER
ALONG = np.concatenate([np.linspace(0, 1, 17)[:-1], np.linspace(1, 0, 17)[:-1]])  # 0 inner corner … 1 outer corner
FRACTIONS = (0.20, 0.39, 0.54, 0.66, 0.77, 0.86, 0.935, 1.0)  # of the way from the oval to the margin, rings 1 … 8
LID = 1.5  # mm from the eyeball to the outer edge of the margin
FILM = 0.15  # mm from the eyeball to its inner edge


def oval(skin: Skin) -> Array:
    """(32, 3) the outline of the eye's window on the skin."""
    (cx, cy), (nose, temple), (up, down), power = stations.EYE_OVAL
    angle = np.pi + np.linspace(0, 2 * np.pi, COLUMNS + 1)[:-1]
    c, s = np.cos(angle), np.sin(angle)
    c, s = np.sign(c) * np.abs(c) ** (2 / power), np.sign(s) * np.abs(s) ** (2 / power)
    x = cx + np.where(c < 0, nose, temple) * c
    y = cy + np.where(s > 0, up, down) * s - 3.0 * np.clip(c, 0, 1) * np.clip(s, 0, 1)
    return skin.lift(np.c_[x, y], 40.0)


def margin() -> Array:
    """(32, 2) the frontal outline of the fissure."""
    inner, outer = np.array(stations.EYE_INNER), np.array(stations.EYE_OUTER)

    def lid(rise: float, peak: float, roundness: float) -> Array:
        t = np.linspace(0, 1, 17)
        u = t ** (np.log(0.5) / np.log(peak))
        bow = rise * np.maximum(np.sin(np.pi * u), 0) ** roundness
        return inner + (outer - inner) * t[:, None] + np.array([0.0, 1.0]) * bow[:, None]

    return np.concatenate([lid(*stations.LID_LOWER)[:-1], lid(*stations.LID_UPPER)[::-1][:-1]])


def on_ball(xy: Array, radius: float) -> Array:
    """(P,) depth of a sphere about the eye's centre, eased towards both corners where the lids leave the ball."""
    cx, cy, cz = stations.EYE_CENTRE
    z = cz + np.sqrt(np.maximum(radius**2 - (xy[:, 0] - cx) ** 2 - (xy[:, 1] - cy) ** 2, 12.0))
    inner, outer = stations.EYE_INNER[0], stations.EYE_OUTER[0]
    near = smoothstep(inner + 5.2, inner + 0.3, xy[:, 0])
    z = z * (1 - near) + np.maximum(z, 37.6 - 0.35 * (xy[:, 0] - inner)) * near
    far = smoothstep(outer - 3.6, outer, xy[:, 0])
    return z * (1 - far) + 31.8 * far


def shape(rings: NDArray[np.int64], position: Array, skin: Skin) -> None:
    """Place rings 1 … 11 of the left eye; ring 0 is already on the skin."""
    centre, radius = stations.EYE_CENTRE, stations.EYE_RADIUS
    outer, edge = position[rings[0]].copy(), margin()
    arch = np.sin(np.pi * ALONG)
    upper, lower = np.where(UPPER, arch**0.7, 0.0), np.where(UPPER, 0.0, arch**0.7)
    rim = on_ball(edge, radius + LID)  # lids do not fall back behind their margin
    for ring, f in enumerate(FRACTIONS, 1):
        xy = outer[:, :2] * (1 - f) + edge * f
        on_lid = np.where(UPPER, smoothstep(0.70, 0.98, f), smoothstep(0.60, 0.98, f))
        z = skin.lift(xy, 40.0)[:, 2] * (1 - on_lid) + np.maximum(on_ball(xy, radius + LID), rim) * on_lid
        z += upper * (0.8 * np.exp(-(((f - 0.74) / 0.09) ** 2)) - 0.9 * np.exp(-(((f - 0.875) / 0.045) ** 2)))
        z += lower * (0.3 * np.exp(-(((f - 0.90) / 0.05) ** 2)) - 0.2 * np.exp(-(((f - 0.70) / 0.10) ** 2)))
        position[rings[ring]] = np.c_[xy, z]

    position[rings[LID_MARGIN - 1, 0], 0] -= 0.15  # no sliver at the inner corner
    corner = smoothstep(0.12, 0.0, ALONG) + smoothstep(0.9, 1.0, ALONG)  # the two margins run together
    outside = np.c_[edge, rim]
    position[rings[LID_MARGIN]] = outside
    inside = centre + unit(outside - centre) * (radius + FILM)
    inside += 0.5 * corner[:, None] * (outside - inside)
    inside[:, 1] += np.where(UPPER, 0.15, -0.15) * arch**0.5
    position[rings[LID_MARGIN + 1]] = inside
    for ring, turn in ((LID_MARGIN + 2, 0.30), (LID_MARGIN + 3, 0.75)):  # tucked away between lid and ball
        p = centre + unit(inside - centre) * (radius + 2 * FILM)
        angle = np.where(UPPER, -turn, turn) * arch**0.5
        d = p - centre
        y = np.cos(angle) * d[:, 1] - np.sin(angle) * d[:, 2]
        z = np.sin(angle) * d[:, 1] + np.cos(angle) * d[:, 2]
        p = centre + np.c_[d[:, 0], y, z]
        p[:, 2] -= 1.2 * (ring - LID_MARGIN - 1) * (1 - arch**0.5)
        position[rings[ring]] = p


def ball() -> Array:
    """(P, 3) the left eyeball, looking along +z: pole, then ring by ring from pupil and iris to behind the lids."""
    a = np.array(BALL_ANGLES)[:, None]
    # counter-clockwise seen from the front, first vertex upwards
    b = np.pi / 2 + 2 * np.pi * np.arange(BALL_SEGMENTS) / BALL_SEGMENTS
    d = np.stack([np.sin(a) * np.cos(b), np.sin(a) * np.sin(b), np.cos(a) + 0 * b], -1)
    return stations.EYE_CENTRE + stations.EYE_RADIUS * np.concatenate([[[0.0, 0.0, 1.0]], d.reshape(-1, 3)])
