"""The nose: balls and tapered capsules, joined smoothly to the face, and its nostrils.

Bridge, side walls, tip with its two domes, wings and columella are signed distances in millimetres; a polynomial smooth
minimum joins them to the face, so that no crease needs to be drawn and the alar groove comes out by itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import stations

Array = NDArray[np.float64]


def ball(p: Array, centre, radius: float) -> Array:
    return np.linalg.norm(p - np.array(centre), axis=-1) - radius


def capsule(p: Array, a, radius_a: float, b, radius_b: float) -> Array:
    """Approximate distance to a capsule whose radius changes from end to end."""
    a, b = np.array(a), np.array(b)
    t = np.clip(((p - a) @ (b - a)) / ((b - a) @ (b - a)), 0, 1)
    return np.linalg.norm(p - a - t[..., None] * (b - a), axis=-1) - (radius_a + (radius_b - radius_a) * t)


def ellipsoid(p: Array, centre, axes) -> Array:
    q = (p - np.array(centre)) / np.array(axes)
    r = np.linalg.norm(q, axis=-1)
    return (r - 1) * r / np.maximum(np.linalg.norm(q / np.array(axes), axis=-1), 1e-9)


def join(a: Array, b: Array, k: float | Array) -> Array:
    """Smooth minimum: where |a − b| < k the two round into each other."""
    h = np.maximum(k - np.abs(a - b), 0) / k
    return np.minimum(a, b) - h * h * k / 4


def distance(p: Array, face: Array) -> Array:
    """(P,) signed distance at p (P, 3) to face and nose, ``face`` being the distance to the face without one."""
    q = p * [1.0, 1.0, 1.0]
    q[:, 0] = np.abs(q[:, 0])
    k = stations.NOSE_BLEND
    bridge = join(capsule(q, *stations.NOSE_BRIDGE), capsule(q, *stations.NOSE_WALL), 6.0)
    tip = join(ball(q, *stations.NOSE_TIP), ball(q, *stations.NOSE_DOME), 4.0)
    tip = join(tip, capsule(q, *stations.NOSE_COLUMELLA), 3.0)
    wing = ellipsoid(q, *stations.NOSE_ALA)
    body = join(join(bridge, tip, k + 2), wing, 3.6)
    # deep into the cheek the wing meets in a groove, up the bridge in a wide hollow
    width = 3.4 + 6.8 * np.clip((q[:, 1] + 13) / 20, 0, 1)
    return join(body, face, width)


def may_meet(centre: Array, directions: Array) -> NDArray[np.bool_]:
    """Whether rays could touch the nose: those through its neighbourhood."""
    forward = np.maximum(directions[:, 2], 1e-6)
    x, y = directions[:, 0] / forward, directions[:, 1] / forward
    return (directions[:, 2] > 0.5) & (np.abs(x) < 0.42) & (y > -0.56) & (y < 0.42)


def meet(centre: Array, directions: Array, face_radius: Array) -> Array:
    """(P,) distance along rays (P, 3) from ``centre`` at which they leave the face or the nose on it."""
    t = face_radius + 34.0
    for _ in range(60):
        gap = distance(centre + t[:, None] * directions, 0.9 * (t - face_radius))
        t = t - 0.8 * gap
    return np.maximum(t, face_radius)


# Frontal places of the grid's nodes on the nose, rows 12 … 15 by columns 0 … 6; then the nodes below it in 3D.
NODES = {
    12: ((0, 8.5), (4.2, 8.2), (7.8, 7.4), (11.0, 6.2), (14.0, 5.0), (17.2, 4.0)),
    13: ((0, 0.5), (5.0, 0.0), (9.6, -1.6), (13.2, -3.6), (16.0, -5.0), (18.4, -5.4)),
    14: ((0, -6.6), (5.4, -7.0), (10.2, -8.2), (14.4, -9.6), (16.9, -10.6), (19.2, -11.6)),
    15: ((0, -12.2), (4.3, -13.6), (8.6, -15.8), (12.6, -17.2), (15.8, -16.2), (18.6, -17.0)),
}
UNDER = {
    (16, 0): (0, -15.6, 69.5), (16, 1): (3.9, -16.6, 66.5), (16, 5): (16.2, -18.8, 50.5),
    (17, 0): (0, -17.8, 66.0), (17, 1): (3.7, -18.4, 63.0), (17, 5): (14.6, -20.4, 52.0),
    (18, 0): (0, -19.6, 62.0), (18, 1): (4.0, -19.8, 59.0), (18, 5): (12.0, -21.4, 53.6),
    (19, 0): (0, -21.2, 59.0), (19, 1): (3.8, -21.4, 57.6), (19, 2): (6.4, -21.8, 56.4),
    (19, 3): (8.6, -22.0, 55.4), (19, 4): (10.2, -22.0, 54.6), (19, 5): (12.2, -22.8, 53.6),
}  # fmt: skip


def place(grid, position: Array, pinned: NDArray[np.bool_], skin) -> None:
    """Put the grid's nodes on the nose and hold them there."""
    for row, nodes in NODES.items():
        ids = grid[row, : len(nodes)]
        position[ids] = skin.lift(np.array(nodes, float), 62.0)
        pinned[ids] = True
    ids = np.array([grid[place] for place in UNDER])
    position[ids] = skin.project(np.array(list(UNDER.values())))
    pinned[ids] = True


def nostrils(rings, cap: int, position: Array, skin) -> None:
    """Turn the window under the wing into a rim, an opening and the way in."""
    centre, (across, along), turn = stations.NOSTRIL
    turn = np.radians(turn)
    outer = position[rings[0]]
    ahead = np.array([-np.sin(turn), 0, np.cos(turn)])
    aside = np.array([np.cos(turn), 0, np.sin(turn)])
    offset = outer - np.array(centre)
    angle = np.unwrap(np.arctan2(offset @ aside / across, offset @ ahead / along))
    # keep the outline's order but spread the opening's vertices evenly
    even = np.linspace(angle[0], angle[0] + np.sign(angle[-1] - angle[0]) * 2 * np.pi, len(angle) + 1)[:-1]
    angle = 0.5 * angle + 0.5 * even
    opening = (
        np.array(centre)
        + across * np.sin(angle)[:, None] * aside
        + along * np.cos(angle)[:, None] * ahead
    )  # fmt: skip
    opening = skin.project(opening)
    position[rings[1]] = skin.project(0.45 * outer + 0.55 * opening)
    middle = opening.mean(0)
    position[rings[2]] = opening + np.array([0, 0.5, 0])
    position[rings[3]] = middle + 0.84 * (opening - middle) + np.array([0, 2.6, -0.6])
    position[rings[4]] = middle + 0.62 * (opening - middle) + np.array([-0.4, 8.0, -3.0])
    position[cap] = position[rings[4]].mean(0) + np.array([-0.3, 1.5, -0.8])
