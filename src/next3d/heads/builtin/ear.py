"""The ear: rings from its root over back wall, helix, scapha, antihelix and concha to the canal.

In front a window of the rings lies flat on the cheek, so that the skin runs into the concha, nothing glued on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from . import stations
from .form import Array, Skin, smoothstep, unit

COLUMNS = 28
ANGLE = np.mod(135 + np.arange(COLUMNS) * 360 / COLUMNS, 360)  # 0 backwards, 90 upwards, 180 forwards
C, S = np.cos(np.radians(ANGLE)), np.sin(np.radians(ANGLE))
UP = unit(np.array([0.10, 1.0, -0.20]))
BACK = np.array([0.50, -0.12, -0.87])
BACK = unit(BACK - (BACK @ UP) * UP)
OUT = np.cross(UP, BACK) * np.sign(np.cross(UP, BACK)[0])


def window(centre: float, width: float) -> Array:
    """(28,) a bell over the angle."""
    return np.exp(-((((ANGLE - centre + 180) % 360 - 180) / width) ** 2))


def outline() -> Array:
    """(28,) radius of the auricle."""
    values = [*stations.EAR_OUTLINE, stations.EAR_OUTLINE[0]]
    return CubicSpline(np.arange(0, 361, 30), values, bc_type="periodic")(ANGLE)


def on_head(skin: Skin, radius: Array) -> Array:
    """(28, 3) places on the head around the ear's root."""
    p = stations.EAR_CENTRE + (radius * S)[:, None] * np.array([0, 0.98, -0.17])
    return skin.project(p + (radius * C)[:, None] * np.array([0, -0.12, -1.0]))


def root(skin: Skin) -> Array:
    """(28, 3) the outline of the ear's window on the head."""
    return on_head(skin, outline() * np.where(C > 0, 0.72, 1.0) + 3.8)


def shape(rings: NDArray[np.int64], cap: int, position: Array, skin: Skin) -> None:
    """Place rings 1 … 11 and the canal's end; ring 0 is already on the head."""
    rho = outline()
    lobe = window(275, 38)
    helix = np.clip(1 - window(268, 45) - 0.9 * window(200, 35), 0, 1)
    height = np.full(COLUMNS, 3.6)

    def auricle(radius: Array, h: Array | float) -> Array:
        h = np.broadcast_to(h, COLUMNS)[:, None]
        return stations.EAR_CENTRE + (radius * S)[:, None] * UP + (radius * C)[:, None] * BACK + h * OUT

    base = on_head(skin, rho * np.where(C > 0, 0.62, 0.97))
    rim = [
        base + 0.3 * OUT,
        base,
        auricle(rho * 0.975, height - 3.4),
        auricle(rho * 1.01, height - 1.2),
        auricle(rho * 0.965, height + 0.7 * helix),
        auricle(rho * 0.87, height + 0.5 * helix - 0.4),
        auricle(rho * (0.79 - 0.01 * helix), height - 2.8 * helix - 0.6),
        auricle(rho * (0.64 + 0.04 * lobe), height - 0.2 * helix - 0.6),
        auricle(rho * 0.52, height - 1.6 - 1.2 * helix),
        auricle(rho * 0.40, height - 7.5 + 2 * lobe),
        auricle(rho * 0.17, height - 9.5),
    ]
    rim[1] = 0.55 * rim[0] + 0.45 * rim[2] - 1.0 * OUT
    front = smoothstep(128, 158, ANGLE) * (1 - smoothstep(232, 256, ANGLE))
    tragus, crus = window(207, 20), window(160, 16)
    radius = (1.50, 1.38, 1.26, 1.14, 1.02, 0.90, 0.80, 0.70, 0.58, 0.42, 0.20)
    lift = (0.3, 0.5, 0.8, 1.2, 1.6, 1.8, 1.2, -0.2, -2.5, -4.0, -5.5)
    tragus_out = (0, 0, 0.2, 0.8, 2.0, 3.0, 2.8, 1.2, -0.2, 0, 0)
    tragus_back = (0, 0, 0, 0.5, 1.5, 2.8, 3.2, 2.2, 0.8, 0, 0)
    crus_out = (0, 0, 0.5, 1.4, 2.2, 2.2, 1.6, 1.0, 0.6, 0.5, 0)
    for k in range(len(rim)):
        flat = on_head(skin, radius[k] * 10 * (1 + 0.12 * np.abs(S))) + lift[k] * OUT
        flat += (tragus_out[k] * tragus + crus_out[k] * crus)[:, None] * OUT + (tragus_back[k] * tragus)[:, None] * BACK
        position[rings[k + 1]] = rim[k] * (1 - front[:, None]) + flat * front[:, None]
    position[cap] = position[rings[-1]].mean(0) - 2.0 * OUT
