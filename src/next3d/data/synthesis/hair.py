"""Hair on the head: some hundred locks, combed by style, grown from the scalp of the person's own neutral head."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from next3d.data.synthesis.anatomy import Anatomy
from next3d.data.synthesis.identity import Identity
from next3d.data.synthesis.locks import TAPER, Hull, Style, grow, ribbons
from next3d.data.synthesis.noise import hashed
from next3d.data.synthesis.parts import Part, ellipsoid, unit
from next3d.data.synthesis.skin import recede, smoothstep

LOCKS = 540
PARTED = np.array([(0, 0.25), (0.12, 0.8), (0.3, 1.0), (0.75, 0.95), (0.92, 0.6), (1, 0.1)])  # narrow at the part


@lru_cache(maxsize=4)
def scalp(face: Anatomy) -> np.ndarray:
    """Vertices of the head that hair can grow from, spread evenly over the skull."""
    ids = np.flatnonzero((face.above_hairline(face.vertices) > 0.05) & (face.eyeball == 0) & (face.ear == 0))
    k = np.arange(2600) + 0.5  # a Fibonacci sphere
    height, turn = 1 - 2 * k / 2600, np.pi * (1 + 5**0.5) * k
    ring = np.sqrt(1 - height**2)
    even = np.stack([ring * np.cos(turn), height, ring * np.sin(turn)], 1)
    directions = unit(face.vertices[ids] - face.centre)
    nearest = ids[(even @ directions.T).argmax(1)]
    close = (even @ directions.T).max(1) > 0.998
    return np.unique(nearest[close])


def hair(face: Anatomy, who: Identity, vertices: np.ndarray, normals: np.ndarray, hull: Hull) -> list[Part]:
    """The hair of a person.

    Args:
        vertices, normals: (V, 3) of the person's neutral head
        hull: its surface, ears included
    """
    if who.hair in ("bald", "buzz"):
        return []
    style_name = who.hair if who.hat in ("none", "band") or who.hair in ("bob", "long", "curly") else "crop"
    roots = scalp(face)
    mean = face.vertices[roots]
    azimuth = face.azimuth(mean)
    line = face.above_hairline(mean) - (recede(who) - 0.15) * (0.4 + np.exp(-(((azimuth - 27) / 12) ** 2)))
    roots, mean, azimuth = roots[line > 0], mean[line > 0], azimuth[line > 0]
    fine = style_name in ("crop", "fringe", "side", "quiff", "slick")
    limit = 760 if fine else LOCKS
    if len(roots) > limit:
        chosen = np.argsort(hashed(np.arange(len(roots)), 77))[:limit]
        roots, mean, azimuth = roots[chosen], mean[chosen], azimuth[chosen]
    cm = face.unit
    axis, q = who.axis, who.quantile
    at = (mean - face.centre) / cm  # centimetres from the middle of the skull
    x, y, z = at.T
    count = len(roots)
    ids = np.arange(count)
    random = [hashed(ids, 100 + k) for k in range(6)]
    volume = 0.75 + 0.5 * q("hair_volume")
    top = smoothstep(5.5, 8.5, y)
    front = smoothstep(-1.0, 5.0, z)
    side_sign = np.sign(x + 1e-3)
    part_at = 2.6 * np.tanh(1.6 * axis["hair_part"])
    whorl = np.array([0.6 * np.sign(part_at + 1e-6), 8.9, -4.5])
    away = unit(at - whorl)
    down, ahead = np.array([0.0, -1.0, 0.0]), np.array([0.0, 0.0, 1.0])
    layer = (0.25 + 0.9 * random[0] * volume) * cm
    wave = max(0.0, q("hair_wave") - 0.45) / 0.55
    curl, turns = np.zeros(count), np.full(count, 0.7 + 1.2 * wave)
    swing = np.full(count, 0.30 * wave * cm)
    guard = None
    width = (0.62 + 0.22 * random[1]) * cm
    gravity = np.full(count, 0.35)
    lift = np.full(count, 0.25)
    # parted hair flows away from the part, falls at the sides, and goes back a little
    part_side = np.where(np.abs(x - part_at) < 0.05, side_sign, np.sign(x - part_at))
    parted = unit(np.stack([part_side * (0.75 + 0 * x), -0.35 + 0 * x, -0.30 + 0.25 * front], 1))
    steps = 8
    long = q("hair_length")
    if style_name == "crop":
        comb = unit(away + np.array([0, 0, 0.25]))
        steps = 6
        length = (2.2 + 1.5 * long + 0.9 * top) * (0.85 + 0.3 * random[2])
        length = 1.6 * length
        comb = comb + 0.5 * np.stack([random[3] - 0.5, 0 * x, random[4] - 0.5], 1)
        lift, layer, width = 0.13 + 0.33 * top, 0.55 * layer, 0.50 * width
    elif style_name == "side":
        comb = np.where(top[:, None] > 0.2, parted + 0.35 * front[:, None] * [0, 0.25, 0], down - 0.25 * ahead)
        length = (2.4 + 0.8 * long) * (1 - top) + (6.0 + 2.5 * long) * top
        lift, layer = 0.2 + 0.45 * top * front, layer * (0.40 + 0.75 * top)
        width = (0.58 + 0.16 * top) * width
        gravity = 0.2 + 0.25 * top
    elif style_name == "quiff":
        comb = np.where(top[:, None] > 0.3, [0, 0.2, -1.0], down - 0.3 * ahead)
        length = (1.8 + 0.6 * long) * (1 - top) + (4.5 + 2.5 * long * front + 1.0 * front) * top
        lift = 0.25 + 1.5 * top * front
        layer = layer * (0.35 + 1.6 * top * (0.4 + front))
        gravity = np.zeros(count)
        width = (0.55 + 0.30 * top) * width
    elif style_name == "slick":
        comb = unit(np.stack([-0.12 * x, 0.1 - 0.5 * (1 - top), -1.0 + 0 * x], 1))
        length = 6.5 + 3.0 * long + 0 * x
        lift, layer, gravity = 0.15 + 0 * x, 0.5 * layer, 0.25 + 0 * x
        width = 0.7 * width
    elif style_name == "fringe":
        comb = unit(away + 0.35 * down)
        length = (7.5 + 2.5 * long) * (0.9 + 0.2 * random[2])
        # The fringe ends above the eyes, whatever the hairline
        length = np.where(front > 0.55, np.clip(y - 1.9 + 0.9 * random[2], 2, 11), length)
        lift, gravity = 0.22 + 0.3 * top, 0.55 + 0 * x
        width = 0.75 * width
        steps = 10
    elif style_name in ("bob", "long"):
        reach = (11.0 + 3.0 * long) if style_name == "bob" else (17.0 + 8.0 * long)
        sweep = smoothstep(3.0, 6.0, z)
        comb = unit(
            parted
            + down * (0.5 - 0.5 * sweep)[:, None]
            + sweep[:, None] * np.stack([0.9 * part_side, 0.2 + 0 * x, -0.1 + 0 * x], 1)
        )
        length = np.maximum(y + reach - 3.5, 4.0) * (0.94 + 0.12 * random[2])
        lift, gravity = 0.25 + 0.3 * top, 1.3 + 0 * x
        layer = layer * 1.15 + 0.2 * cm
        width = 1.45 * width
        steps = 11
        guard = 46 + 22 * random[4]
        swing = (1.6 if style_name == "long" else 1.0) * swing
        turns = turns * (1.6 if style_name == "long" else 1.0)
    elif style_name == "curly":
        comb = unit(away + 0.4 * np.stack([random[3] - 0.5, random[4] - 0.5, random[5] - 0.5], 1) * 2)
        length = (3.2 + 3.5 * long) * (0.8 + 0.4 * random[2]) * (0.65 + 0.35 * smoothstep(-2, 4, y))
        lift, gravity = 1.3 + 0 * x, 0.05 + 0 * x
        swing = 0 * swing
        curl, turns = (0.42 + 0.2 * wave) * cm + 0 * x, 2.0 + 0.8 * random[3]
        width = 0.42 * width + 0.16 * cm
        steps = 11
    else:  # bun
        knot = np.array([0, 6.5 + 2.5 * np.tanh(axis["hair_part"]), -9.5])
        comb = unit(knot - at)
        length = np.linalg.norm(knot - at, axis=1) * 0.98
        lift, layer, gravity = 0.05 + 0 * x, 0.45 * layer, 0 * x
        swing, steps = 0 * swing, 10
    if who.hat in ("beanie", "cap", "brim"):
        flat = smoothstep(1.5, 4.0, y)
        layer, lift = layer * (1 - flat) + 0.12 * cm * flat, lift * (1 - flat)
        curl = curl * (1 - flat)
        length = np.where(
            flat > 0.5, np.minimum(length, np.maximum(y + 3, 2) if style_name == "crop" else length), length
        )
    style = Style(comb, length * cm, lift, gravity, width, layer, curl, turns, swing, guard)
    path, outward = grow(vertices[roots], normals[roots], style, hull, steps, seed=3)
    gloss = 0.55 - 0.25 * (style_name == "curly")
    root_shade = 0.80 if fine else 0.68
    taper = PARTED if style_name in ("bob", "long") else TAPER
    parts = [
        ribbons(
            path, outward, width, who.hair_colour, gloss=gloss, seed=3, root_shade=root_shade, variety=0.13, taper=taper
        )
    ]
    if style_name == "bun":
        parts.append(_bun(face, who, knot * cm + hull.centre, hull))
    return parts


def _bun(face: Anatomy, who: Identity, knot: np.ndarray, hull: Hull) -> Part:
    """A ball of coiled locks at the back of the head."""
    cm = face.unit
    size = (2.2 + 0.9 * who.quantile("hair_length")) * cm
    out = unit(knot - hull.centre)
    centre = hull.push_out(knot[None], 0.62 * size)[0]
    ball, _ = ellipsoid((0, 0, 0), (1, 1, 1), 7, 12)
    normals = unit(ball)
    around = np.cross(out, normals) + 0.15 * normals
    ones = np.ones(len(ball))
    style = Style(around, ones * 2.2 * size, 0 * ones, 0 * ones, ones * 0.36 * size, 0.02 * size * ones, 0 * ones, ones)
    inner = Hull(centre + normals * size * 0.9, centre, 0.1)
    path, outward = grow(centre + normals * size * 0.9, normals, style, inner, 8, seed=9)
    return ribbons(path, outward, ones * 0.36 * size, who.hair_colour, gloss=0.55, seed=9)
