"""Eyelids: blinks that travel along the eyeball, lids that follow the gaze, and displacements that spare the ball."""

from __future__ import annotations

import numpy as np

from .anatomy import MM, Anatomy, Array, Eye, Index, smoothstep

CLEARANCE = 0.25  # mm between the ball and the inner side of a moving lid
OVERCLOSE = 2.6  # mm by which the lids pass each other at full closure, in reserve for larger eyes and raised gaze
CORNER_GAP = 1.3  # mm that stays open next to a corner, beside the ball
BULGE = 0.9  # mm by which closed lids stand farther from the ball
UPPER_SHARE = 0.80  # of the way to closure travelled by the upper lid


def reach(eye: Eye) -> Array:
    """(K, 1) how far each ring takes part in the motion of its lid: 1 at the margin and inside, 0 at the orbit.

    The fold above the upper lid hardly moves, so that the lid unrolls below it.
    """
    return (np.minimum(np.arange(len(eye.rings)) / eye.margin, 1) ** 2.0)[:, None]


def elevation(points: Array, centre: Array) -> Array:
    """Angle about the horizontal axis through ``centre``, up positive; 0 looks along +z."""
    return np.arctan2(points[..., 1] - centre[1], points[..., 2] - centre[2])


def turn(points: Array, centre: Array, angle: Array) -> Array:
    """Turn points about the horizontal axis through ``centre``; up positive."""
    c, s = np.cos(angle), np.sin(angle)
    d = points - centre
    return centre + np.stack([d[..., 0], c * d[..., 1] + s * d[..., 2], c * d[..., 2] - s * d[..., 1]], -1)


def travel(anatomy: Anatomy, side: int, upper: Array, lower: Array, inner_radius: float = 0.0) -> Array:
    """(V, 3) displacement that turns the margin columns of a lid by angles and the lid with them, clear of the ball.

    Args:
        anatomy: the head
        side: 0 for the left eye, 1 for the right
        upper, lower: (n,) radians, up positive, for every column; only those of the respective lid are used
        inner_radius: keep this many millimetres clear of the ball
    """
    eye, (centre, radius) = anatomy.eyes[side], anatomy.spheres[side]
    rest = anatomy.vertices[eye.rings]  # (K, n, 3)
    angle = np.where(eye.upper, upper, lower) * reach(eye)
    moved = turn(rest, centre, angle)
    # The lid is pushed out where it would touch; never pulled in.
    d = moved - centre
    r = np.linalg.norm(d, axis=-1, keepdims=True)
    near = np.linalg.norm(rest - centre, axis=-1, keepdims=True) < radius + 4 * MM
    least = np.minimum(
        radius + max(inner_radius, CLEARANCE) * MM, np.linalg.norm(rest - centre, axis=-1, keepdims=True)
    )
    moved = np.where(near & (r < least), centre + d * (least / r), moved)
    out = np.zeros_like(anatomy.vertices)
    out[eye.rings] = moved - rest
    return out


def margin_angles(anatomy: Anatomy, side: int) -> tuple[Array, Array]:
    """(n,), (n,) elevation of the upper and of the lower margin at each column (its own and its partner's)."""
    eye, (centre, _) = anatomy.eyes[side], anatomy.spheres[side]
    margin = anatomy.vertices[eye.rings[eye.margin]]
    angle = elevation(margin, centre)
    n, x = len(angle), np.abs(margin[:, 0])
    lower = ~eye.upper
    corners = np.zeros(n, bool)
    corners[[eye.inner, eye.outer]] = True

    def along(mask: Array) -> Array:
        order = np.argsort(x[mask])
        return np.interp(x, x[mask][order], angle[mask][order])

    return along(eye.upper | corners), along(lower | corners)


def opening(anatomy: Anatomy, side: int) -> Array:
    """(n,) how far the lids stand apart at each column: 0 at the corners, 1 where they do most."""
    eye, (centre, _) = anatomy.eyes[side], anatomy.spheres[side]
    upper, lower = margin_angles(anatomy, side)
    lever = np.linalg.norm((anatomy.vertices[eye.rings[eye.margin]] - centre)[:, 1:], axis=1)
    gap = np.clip((upper - lower) * lever, 0, None)
    return gap / gap.max()


def closure(anatomy: Anatomy, side: int, amount: float, over: float = OVERCLOSE) -> Array:
    """(V, 3) the lids closed by ``amount`` (0 open, 1 closed)."""
    eye, (_, radius) = anatomy.eyes[side], anatomy.spheres[side]
    upper, lower = margin_angles(anatomy, side)
    gap = opening(anatomy, side)
    meet = lower + (1 - UPPER_SHARE) * (upper - lower)
    # Next to a corner the lids meet at its height, and do not pass each other.
    margin = anatomy.vertices[eye.rings[eye.margin]] - anatomy.spheres[side][0]
    columns = np.arange(len(gap))
    from_inner = np.minimum((columns - eye.inner) % len(gap), (eye.inner - columns) % len(gap))
    from_outer = np.minimum((columns - eye.outer) % len(gap), (eye.outer - columns) % len(gap))
    corner = margin[np.where(from_inner < from_outer, eye.inner, eye.outer), 1]
    lever = np.linalg.norm(margin[:, 1:], axis=1)
    level = np.arcsin(np.clip(corner / lever, -1, 1))
    inside = smoothstep(0.2, 0.63, gap)
    meet = level + inside * (meet - level)
    extra = over * MM / radius * inside - CORNER_GAP * MM / lever * (1 - inside) * (gap > 0)
    field = travel(anatomy, side, amount * (meet - extra / 2 - upper), amount * (meet + extra / 2 - lower))
    # The closed lids bulge a little, as over a cornea, and in reserve for the lids' other motions.
    out = anatomy.vertices + field - anatomy.spheres[side][0]
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    bulge = np.zeros(anatomy.count)
    bulge[eye.rings] = reach(eye) * gap**0.8
    return field + (amount * BULGE * MM * bulge)[:, None] * out


def edges(anatomy: Anatomy, away: float = 0.4) -> Index:
    """Vertices of the lids' margins away from the corners: where lids meet, so that smoothing must leave them alone."""
    found = []
    for side, eye in enumerate(anatomy.eyes):
        open_columns = opening(anatomy, side) > away
        found.append(eye.rings[eye.margin - 1 : eye.margin + 2, open_columns].ravel())
    return np.concatenate(found)


def blink(anatomy: Anatomy, side: int) -> tuple[Array, Array]:
    """Directions (V, 3) of a blink t and of its corrective t²: together they pass through half and full closure."""
    half, full = closure(anatomy, side, 0.5), closure(anatomy, side, 1.0)
    return 4 * half - full, 2 * full - 4 * half


def raise_lids(anatomy: Anatomy, side: int, upper: float, lower: float) -> Array:
    """(V, 3) margins moved along the ball by millimetres at mid-lid, up positive; corners stay."""
    _, radius = anatomy.spheres[side]
    high, low = margin_angles(anatomy, side)
    arch = np.clip((high - low) / (high - low).max(), 0, 1) ** 0.7
    return travel(anatomy, side, upper * MM / radius * arch, lower * MM / radius * arch)


def closeness(anatomy: Anatomy, side: int) -> Array:
    """(V,) 1 on skin that lies against the eyeball, falling to 0 within 10 mm of it."""
    centre, radius = anatomy.spheres[side]
    distance = np.linalg.norm(anatomy.vertices - centre, axis=1) - radius
    weight = smoothstep(10 * MM, 3.0 * MM, distance)
    rings = anatomy.eyes[side].rings
    lid = np.zeros(anatomy.count)
    share = smoothstep(0.15, 0.75, np.minimum(np.arange(len(rings)) / anatomy.eyes[side].margin, 1))
    lid[rings] = share[:, None]
    weight = np.maximum(weight, lid)
    weight[~anatomy.is_skin] = 0
    return weight


def spare_balls(anatomy: Anatomy, field: Array) -> Array:
    """Remove from a displacement (V, 3) what would press the lids into the eyeballs, and what would move the balls.

    Along the ball (tangentially) lids stay free: a tangent leads away from a sphere.
    """
    field = field.copy()
    for side in (0, 1):
        centre, _ = anatomy.spheres[side]
        normal = anatomy.vertices - centre
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        inwards = np.minimum((field * normal).sum(1), 0) * closeness(anatomy, side)
        field -= inwards[:, None] * normal
    field[~anatomy.is_skin] = 0
    return field


def ride(anatomy: Anatomy, field: Array, *, slide: bool = False) -> Array:
    """A displacement (V, 3) of a whole head's shape, made to carry each eye rigidly.

    Each ball takes the similarity (shift and scale about its centre) that fits its lids' displacement best, and the
    lids take it too. With ``slide`` they keep, along the ball, what they have of their own: forms of the eye itself.
    """
    out = field.copy()
    for side, eye in enumerate(anatomy.eyes):
        centre, radius = anatomy.spheres[side]
        lids = eye.rings[eye.margin - 1 : eye.margin + 1].ravel()
        d = anatomy.vertices[lids] - centre
        shift = field[lids].mean(0)
        local = d - d.mean(0)
        scale = float((local * (field[lids] - shift)).sum() / (local**2).sum())
        shift = shift - scale * d.mean(0)
        rigid = shift + scale * (anatomy.vertices - centre)
        weight = closeness(anatomy, side)[:, None]
        own = field - rigid
        normal = (anatomy.vertices - centre) / np.linalg.norm(anatomy.vertices - centre, axis=1, keepdims=True)
        against = (own * normal).sum(1, keepdims=True) * normal if slide else own
        own = own - weight * against
        near = np.linalg.norm(anatomy.vertices - centre, axis=1) < radius + 45 * MM
        replaced = rigid + own
        out = np.where((weight > 0) & near[:, None], replaced, out)
        out[eye.ball] = rigid[eye.ball]
    return out
