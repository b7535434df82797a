"""The head's own colours: skin, lips, brows, eyes and stubble, painted into its UV atlas."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from next3d.compiled import compiled
from next3d.data.synthesis.anatomy import BROWS, EYES, OUTER_LIPS, Anatomy, anatomy
from next3d.data.synthesis.identity import Identity, linear
from next3d.data.synthesis.noise import fractal_noise, spots, value_noise
from next3d.data.synthesis.parts import EYES as EYE_PART
from next3d.data.synthesis.parts import LIPS, MOUTH, SKIN

IRIS_RADIUS = 0.60  # centimetres on an average eyeball
GLOSS_SKIN, GLOSS_LIPS, GLOSS_EYES, GLOSS_MOUTH = 0.22, 0.55, 1.0, 0.5


def smoothstep(low: ArrayLike, high: ArrayLike, x: np.ndarray) -> np.ndarray:
    """0 below ``low``, 1 above ``high``, smooth between; ``low`` may exceed ``high``."""
    t = np.clip((x - low) / (np.asarray(high) - low), 0, 1)
    return t * t * (3 - 2 * t)


def bell(x: np.ndarray, width: float) -> np.ndarray:
    return np.exp(-((x / width) ** 2))


def curve_through(points: np.ndarray, at: np.ndarray, closed: bool = False) -> np.ndarray:
    """A smooth curve (Catmull-Rom) through ``points`` (K, D) at places ``at`` (N,) in [0, 1]; returns (N, D).

    An open curve goes on in its end segments' direction for places a little outside.
    """
    if closed:
        padded = np.concatenate([points[-1:], points, points[:2]])
    else:
        padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    segments = len(padded) - 3
    place = np.asarray(at) * segments
    index = np.clip(np.floor(place).astype(int), 0, segments - 1)
    t = (place - index)[:, None]
    a, b, c, d = (padded[index + k] for k in range(4))
    return b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))


def closed_curve(points: np.ndarray, count: int = 96) -> np.ndarray:
    """A smooth closed curve through ``points`` (K, D), as (count, D)."""
    return curve_through(points, np.linspace(0, 1, count, endpoint=False), closed=True)


def to_curve(points: np.ndarray, curve: np.ndarray, closed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Distance (N,) of 2D points to a polyline (K, 2), negative inside a closed one, and the place along it, 0 to 1."""
    ends = np.roll(curve, -1, 0) if closed else curve[1:]
    starts = curve if closed else curve[:-1]
    best, place = np.full(len(points), np.inf), np.zeros(len(points))
    inside = np.zeros(len(points), bool)
    for i, (a, b) in enumerate(zip(starts, ends)):
        edge = b - a
        t = np.clip(((points - a) @ edge) / max(edge @ edge, 1e-12), 0, 1)
        squared = ((points - a - t[:, None] * edge) ** 2).sum(1)
        place = np.where(squared < best, (i + t) / len(starts), place)
        best = np.minimum(best, squared)
        if closed and a[1] != b[1]:
            crosses = (a[1] > points[:, 1]) != (b[1] > points[:, 1])
            inside ^= crosses & (points[:, 0] < a[0] + (points[:, 1] - a[1]) / (b[1] - a[1]) * edge[0])
    distance = np.sqrt(best)
    return np.where(inside, -distance, distance), place


class Fields(NamedTuple):
    """Masks and fixed patterns over the texels of an atlas; each (T,) float32, computed once per resolution.

    People share the patterns and differ in their strength, so that a person stays a smooth function of the latent.
    """

    part: np.ndarray  # 1 on the left eyeball, 2 on the right, 0 on skin
    inner: np.ndarray  # the inside of the mouth
    lips: np.ndarray
    brow: np.ndarray  # height above the brow line in centimetres
    brow_place: np.ndarray  # 0 at the nose, 1 at the temple, −1 away from the brows
    brow_stroke: np.ndarray
    lash: np.ndarray
    water_line: np.ndarray
    shadow: np.ndarray  # eye shadow
    socket: np.ndarray
    cheeks: np.ndarray
    warm: np.ndarray  # nose, ears, chin
    forehead: np.ndarray
    hairline: np.ndarray  # centimetres above the hairline
    temples: np.ndarray
    moustache: np.ndarray
    goatee: np.ndarray
    jaw: np.ndarray
    hollow: np.ndarray  # nostrils
    crease: np.ndarray  # nasolabial folds and the lines of age
    mottle: np.ndarray
    mottle_other: np.ndarray
    fine: np.ndarray
    freckle: np.ndarray
    freckle_rank: np.ndarray
    dots: np.ndarray
    strands: np.ndarray
    iris: np.ndarray  # centimetres from the eye's axis, on the ball; far away elsewhere
    iris_fibre: np.ndarray


def landmarks_of(face: Anatomy) -> np.ndarray:
    """(68, 3) landmarks of the mean head in centimetres of an average face, the eye line at y = 0."""
    return (face.landmarks - [0, face.eye_line, 0]) / face.unit


def beard_regions(face: Anatomy, points: np.ndarray, lips: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where moustache, goatee and jaw beard grow, in [0, 1]; points (T, 3) normalised, ``lips`` their lip mask."""
    marks = landmarks_of(face)
    x, y = np.abs(points[:, 0]), points[:, 1]
    azimuth = face.azimuth(points * face.unit + [0, face.eye_line, 0])
    nose, lip, corner, chin = marks[33, 1], marks[51, 1], marks[54], marks[8, 1]
    front = points[:, 2] > marks[54, 2] - 2.2
    upper = 0.35 * nose + 0.65 * lip
    droop = 0.9 * smoothstep(1.2, corner[0] + 0.5, x)
    moustache = bell(y - upper + droop, 0.62) * smoothstep(corner[0] + 1.1, corner[0] + 0.2, x) * front
    moustache *= 0.75 + 0.25 * smoothstep(0.0, 0.25, x)
    goatee = smoothstep(2.9, 1.9, x + 0.25 * np.abs(y - corner[1])) * smoothstep(
        marks[57, 1] - 0.15, marks[57, 1] - 0.9, y
    )
    goatee = np.maximum(goatee * front, bell(x - corner[0] - 0.55, 0.5) * front * (y < lip) * (y > chin))
    goatee *= smoothstep(chin - 2.4, chin - 1.2, y)
    edge = np.interp(
        azimuth, [0, 24, 34, 46, 56, 62, 70, 78], [corner[1] + 0.1, corner[1] + 0.1, -6.3, -5.4, -4.0, -2.2, -2.2, -9]
    )
    jaw = smoothstep(edge + 0.7, edge - 0.9, y) * smoothstep(chin - 4.0, chin - 2.2, y) * smoothstep(80, 73, azimuth)
    jaw *= 1 - smoothstep(1.0, 0.2, x) * smoothstep(marks[57, 1] - 1.2, marks[57, 1] - 0.2, y)
    clear = 1 - smoothstep(0.05, 0.5, lips)
    return moustache * clear, goatee * clear, jaw * clear


CHUNK = 1 << 15  # texels at a time, to keep the intermediate arrays small


@lru_cache(maxsize=4)
def paint_fields(face: Anatomy, resolution: int) -> Fields:
    """The fields of a square atlas of ``resolution`` texels."""
    texels = face.texels(resolution)
    columns = [
        np.reshape(a, (resolution**2, -1)) for a in (texels.position, texels.eyeball, texels.behind_lips, texels.ear)
    ]
    whole: Fields | None = None
    for start in range(0, resolution**2, CHUNK):
        piece = _fields(face, *(column[start : start + CHUNK] for column in columns))
        if whole is None:
            whole = Fields(*(np.empty(resolution**2, array.dtype) for array in piece))
        for target, array in zip(whole, piece):
            target[start : start + CHUNK] = array
    assert whole is not None
    return whole


def _fields(face: Anatomy, position: np.ndarray, part: np.ndarray, behind: np.ndarray, ear: np.ndarray) -> Fields:
    """The fields of some texels: position (T, 3), the others (T, 1)."""
    position, part, ear = position.astype(np.float64), part[:, 0], ear[:, 0]
    inner = smoothstep(0.25, 0.75, behind[:, 0])
    points = (position - [0, face.eye_line, 0]) / face.unit
    marks = landmarks_of(face)
    x, y, z = points.T
    front = (part == 0) & (z > marks[54, 2] - 2.5)
    flat = points[:, :2]

    def near(curve: np.ndarray, closed: bool, reach: float, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance and place along a curve, for texels of ``mask`` within ``reach`` of its box; far away elsewhere."""
        distance, place = np.full(len(points), 9.0), np.zeros(len(points))
        box = mask & (flat > curve.min(0) - reach).all(1) & (flat < curve.max(0) + reach).all(1)
        distance[box], place[box] = to_curve(flat[box], curve, closed)
        return distance, place

    mouth = closed_curve(marks[list(OUTER_LIPS), :2])
    lips_distance, _ = near(mouth, True, 0.8, (part == 0) & (z > marks[54, 2] - 1.8))
    lips = smoothstep(0.07, -0.10, lips_distance)

    brow, brow_place = np.full(len(points), 9.0), np.full(len(points), -1.0)
    lash, water, shadow, socket = (np.zeros(len(points)) for _ in range(4))
    for ids, eye in zip(BROWS, EYES):
        line = marks[list(ids)][::-1, :2]  # nose to temple
        line = curve_through(line, np.linspace(-0.06, 1.12, 40))
        distance, place = near(line, False, 1.6, front)
        centre = np.stack([np.interp(place, np.linspace(0, 1, 40), line[:, k]) for k in (0, 1)], 1)
        signed = np.where(flat[:, 1] > centre[:, 1], distance, -distance)
        brow_place = np.where(distance < np.abs(brow), place, brow_place)
        brow = np.where(distance < np.abs(brow), signed, brow)
        ring = closed_curve(marks[list(eye), :2], 64)
        middle = ring.mean(0)
        distance, _ = near(ring, True, 2.6, front)
        half = 0.5 * (ring[:, 0].max() - ring[:, 0].min())
        upper = smoothstep(-0.10, 0.12, y - middle[1] - 0.1 * np.abs(x - middle[0]) / half + 0.12)
        outer = smoothstep(-1.2, 1.0, (np.abs(x) - abs(middle[0])) / half)
        lash = np.maximum(lash, smoothstep(0.16 + 0.05 * outer, 0.03, np.abs(distance)) * upper * (0.6 + 0.4 * outer))
        water = np.maximum(water, smoothstep(0.2, 0.0, np.abs(distance)) * (1 - upper))
        shadow = np.maximum(shadow, smoothstep(1.25, 0.1, distance) * smoothstep(-0.3, 0.5, y - middle[1]))
        socket = np.maximum(
            socket, np.exp(-(((x - middle[0]) / 1.9) ** 2) - ((y - middle[1] + 0.1) / 1.25) ** 2) * front
        )

    azimuth = face.azimuth(position)
    cheeks = np.exp(-(((np.abs(x) - 4.4) / 1.8) ** 2) - ((y + 3.4) / 1.5) ** 2) * front
    warm = np.exp(-((x / 1.35) ** 2) - ((y - marks[30, 1]) / 1.0) ** 2) * (z > marks[30, 2] - 2.2)
    warm = np.maximum(warm, 0.8 * ear)
    warm = np.maximum(warm, 0.45 * np.exp(-((x / 1.6) ** 2) - ((y - marks[8, 1] - 1.2) / 1.1) ** 2) * front)
    forehead = np.exp(-((x / 4.5) ** 2) - ((y - 4.6) / 1.6) ** 2) * front
    nostril = marks[[31, 35, 33]]
    hollow = np.zeros(len(points))
    for sign in (-1, 1):
        hole = np.array([sign * 0.55 * abs(nostril[0, 0]), nostril[2, 1] + 0.12, nostril[2, 2] + 0.1])
        hollow = np.maximum(hollow, np.exp(-(((points - hole) / [0.42, 0.42, 0.62]) ** 2).sum(1)))
    moustache, goatee, jaw = beard_regions(face, points, lips)
    fold = np.array(
        [marks[35, :2] + [0.45, 0.35], [3.0, -5.2], marks[54, :2] + [0.75, 0.5], marks[54, :2] + [0.9, -0.8]]
    )
    fold = curve_through(fold, np.linspace(0, 1, 24))
    crease = np.zeros(len(points))
    for sign in (-1, 1):
        distance, place = near(fold * [sign, 1], False, 1.0, front)
        crease = np.maximum(crease, bell(distance, 0.22) * np.sin(np.pi * np.clip(place, 0.02, 0.98)) ** 0.6)
        under = np.stack([np.linspace(-1.1, 1.1, 12), -1.35 - 0.25 * np.cos(np.linspace(-1.4, 1.4, 12))], 1) * [1, 1]
        under = under + np.array([marks[[36, 39], 0].mean() * -sign, 0])
        distance, _ = near(under, False, 1.0, front)
        crease = np.maximum(crease, 0.6 * bell(distance, 0.16))
    for height in (3.9, 4.7, 5.5):
        wave = height + 0.12 * np.sin(x * 1.3 + height)
        crease = np.maximum(crease, 0.5 * bell(y - wave, 0.10) * smoothstep(3.6, 1.5, np.abs(x)) * front)

    freckle, freckle_rank = spots(points * 2.6 + 40, 5)
    dots, _ = spots(points * 6.0 + 40, 17)
    along = np.stack([brow_place * 34 + np.sign(x) * 50 - 5.0 * brow, brow * 1.4], 1)
    swirl = np.arctan2(x, z + 3) * 26
    strands = value_noise(np.stack([swirl + 40, y * 0.55 + 40], 1), 23)

    off = np.full(len(points), 99.0)
    fibre = np.zeros(len(points))
    for side in (0, 1):
        mine = part == side + 1
        centre, iris = face.eyeball_centres[side].astype(np.float64), face.irises[side].astype(np.float64)
        axis = (iris - centre) / np.linalg.norm(iris - centre)
        offset = (position[mine] - centre) / np.linalg.norm(iris - centre)
        ahead = offset @ axis
        radial = offset - ahead[:, None] * axis
        off[mine] = np.arccos(np.clip(ahead / np.maximum(np.linalg.norm(offset, axis=1), 1e-9), -1, 1)) * 1.2
        turn = np.arctan2(radial[:, 1], radial[:, 0])
        fibre[mine] = value_noise(np.stack([turn * 9 + 60, off[mine] * 2.5 + 5], 1), 3)
    arrays: dict[str, np.ndarray] = dict(  # noqa: C408
        part=part, inner=inner, lips=lips, brow=brow, brow_place=brow_place, brow_stroke=value_noise(along + 90, 11),
        lash=lash, water_line=water, shadow=shadow, socket=socket, cheeks=cheeks, warm=warm, forehead=forehead,
        hairline=face.above_hairline(position), temples=bell(azimuth - 27, 12), moustache=moustache,
        goatee=goatee, jaw=jaw, hollow=hollow, crease=crease, mottle=fractal_noise(points * 0.45 + 20, 3, 1),
        mottle_other=fractal_noise(points * 0.7 + 30, 3, 2), fine=fractal_noise(points * 5 + 50, 2, 4), freckle=freckle,
        freckle_rank=freckle_rank, dots=dots, strands=strands, iris=off, iris_fibre=fibre,
    )  # fmt: skip
    # The back of the skull mirrors no seam: patterns are functions of 3D position, so both sides of it agree.
    return Fields(
        **{k: v if k == "part" else v.astype(np.float32) for k, v in arrays.items()},
    )


@dataclass(frozen=True)
class Skin:
    """A painted atlas.

    Attributes:
        colour: (H, W, 4) float32, linear RGB and gloss
        label: (H, W) uint8 part codes of :mod:`next3d.data.synthesis.parts`
    """

    colour: np.ndarray
    label: np.ndarray


class Palette(NamedTuple):
    """What decides a person's atlas: sRGB colours (3,) and amounts."""

    skin: np.ndarray
    lips: np.ndarray
    iris: np.ndarray
    brow: np.ndarray
    hair: np.ndarray
    eye_shadow: np.ndarray
    mottling: float
    mottling_other: float
    flush: float
    lines: float
    freckles: float
    makeup: float
    brow_thickness: float
    brow_rise: float
    brow_density: float
    moustache: float
    goatee: float
    jaw: float
    stubble: float  # 0 where a beard grows
    scalp: float
    recede: float

    @staticmethod
    def of(who: Identity) -> Palette:
        axis, q = who.axis, who.quantile
        blotches = 0.9 + 0.65 * np.tanh(axis["blotches"])
        tint = 0.5 * who.iris + 0.5 * np.array([0.42, 0.24, 0.30])
        grows = {"none": 0, "moustache": 1, "goatee": 2}.get(who.beard, 3)
        return Palette(
            who.skin,
            who.lips,
            who.iris,
            who.brow_colour,
            who.hair_colour,
            tint * (0.5 + 0.5 * who.skin.mean()),
            float(blotches * (0.7 + 0.3 * np.tanh(axis["age"]))),
            float(blotches * 0.4 * np.tanh(axis["skin_warmth"])),
            float((0.22 + 0.22 * np.tanh(axis["blush"])) * (0.65 + 0.35 * who.skin.mean())),
            float(0.34 * np.clip(q("age") - 0.45, 0, 1)),
            float(np.clip(q("freckles") - 0.62, 0, 1) / 0.38),
            float(np.clip(q("makeup") - 0.62, 0, 1) / 0.38),
            float(0.36 * np.exp(0.22 * np.clip(axis["brow_thickness"], -2, 2))),
            float(0.16 * np.tanh(axis["brow_tilt"])),
            float(0.80 + 0.12 * np.tanh(axis["brow_density"])),
            float(grows > 0),
            float(grows > 1),
            float(grows > 2),
            float(0.30 + 0.10 * np.tanh(axis["beard_length"])) if who.beard == "stubble" else 0.0,
            {"bald": 0.0, "buzz": 0.62}.get(who.hair, 0.9),
            recede(who),
        )


def paint(face: Anatomy, who: Identity, resolution: int) -> Skin:
    """A person's atlas: albedo in linear light, gloss and part codes."""
    fields = paint_fields(face, resolution)
    colour = np.empty((resolution, resolution, 4), np.float32)
    label = np.empty((resolution, resolution), np.uint8)
    _paint(fields, Palette.of(who), LINEAR, colour.reshape(-1, 4), label.reshape(-1))
    return Skin(colour, label)


LINEAR = linear(np.arange(4097) / 4096).astype(np.float32)


@compiled()
def _step(low, high, x):
    t = min(max((x - low) / (high - low), 0.0), 1.0)
    return t * t * (3 - 2 * t)


@compiled()
def _taper(place):
    """Thickness along a brow, from the nose to the temple."""
    if place < 0.12:
        return 0.5 + 0.45 * place / 0.12
    if place < 0.4:
        return 0.95 + 0.05 * (place - 0.12) / 0.28
    if place < 0.75:
        return 1.0 - 0.38 * (place - 0.4) / 0.35
    return 0.62 - 0.50 * (place - 0.75) / 0.25


@compiled()
def _paint(at, who, table, colour, label):
    """Paint every texel: colour (T, 4) linear RGB and gloss, label (T,)."""
    skin = who.skin
    for t in range(len(label)):
        if at.part[t] > 0:  # an eyeball
            r = at.iris[t]
            red_rim = 0.10 * _step(0.7, 1.6, r)
            inner, limbus = _step(0.46, 0.22, r), 1 - 0.72 * _step(0.47, IRIS_RADIUS, r)
            pupil, edge = 1 - _step(0.275, 0.235, r), _step(IRIS_RADIUS + 0.05, IRIS_RADIUS - 0.03, r)
            fibre = 0.72 + 0.56 * at.iris_fibre[t]
            for k in range(3):
                white = (0.90, 0.885, 0.87)[k] * (1 - red_rim * (0.3, 1.0, 1.0)[k])
                iris = who.iris[k] * fibre * (1 + 0.55 * inner * (1.0, 0.85, 0.5)[k]) * limbus * pupil
                colour[t, k] = table[int(min(max(white + edge * (iris - white), 0.0), 1.0) * 4096 + 0.5)]
            colour[t, 3] = GLOSS_EYES
            label[t] = EYE_PART
            continue
        lips, fine, socket, warm = at.lips[t], at.fine[t], at.socket[t], at.warm[t]
        tone = at.mottle[t] * who.mottling + at.mottle_other[t] * who.mottling_other
        freckle = 0.0
        if who.freckles > 0 and at.freckle_rank[t] < 0.25 + 0.6 * who.freckles:
            size = 0.15 + 0.15 * at.freckle_rank[t]
            where = min(at.cheeks[t] * 1.3 + warm + 0.3 * at.forehead[t] + 0.12, 1.0)
            freckle = 0.6 * who.freckles * where * _step(size, 0.55 * size, at.freckle[t])
        brow, place = 0.0, at.brow_place[t]
        if place >= 0 and abs(at.brow[t]) < 1.5:
            thick = max(who.brow_thickness * _taper(place), 0.03)
            edge = abs(at.brow[t] - who.brow_rise * (place - 0.35) - 0.05) / thick
            brow = (
                _step(1.25, 0.55, edge + 0.55 * (at.brow_stroke[t] - 0.5))
                * _step(0.0, 0.05, place)
                * _step(1.0, 0.95, place)
            )
        brow_ink = who.brow_density * brow * (0.78 + 0.22 * at.brow_stroke[t])
        beard = max(who.moustache * at.moustache[t], who.goatee * at.goatee[t], who.jaw * at.jaw[t])
        if who.stubble > 0:
            beard_ink, beard_tone = beard * who.stubble * (0.55 + 0.45 * _step(0.45, 0.18, at.dots[t])), 0.75
        else:
            beard_ink, beard_tone = beard * 0.72, 0.8
        cover = who.scalp * _step(-0.25, 0.55, at.hairline[t] - who.recede * (0.4 + at.temples[t]))
        strands = 0.62 * (0.7 + 0.5 * at.strands[t])
        inner = at.inner[t]
        for k in range(3):
            s = skin[k]
            c = s * (1 + tone * (0.012, 0.03, 0.034)[k]) * (1 + 0.012 * fine)
            rosy = s * (1.06, 0.72, 0.70)[k]
            c += 1.5 * who.flush * at.cheeks[t] * (rosy - c)
            c += (0.75 * who.flush + 0.12) * warm * (rosy - c)
            c += 0.22 * socket * (s * (0.80, 0.66, 0.68)[k] - c)
            c += 0.05 * at.forehead[t] * (min(s * 1.12, 1.0) - c)
            c += who.lines * at.crease[t] * (s * (0.66, 0.50, 0.46)[k] - c)
            c += freckle * (s * (0.70, 0.52, 0.42)[k] - c)
            c += 0.35 * at.hollow[t] * (s * (0.22, 0.12, 0.10)[k] - c)
            c += 0.92 * lips * (who.lips[k] - c)
            c *= 1 + 0.05 * lips * fine
            c += 0.55 * who.makeup * at.shadow[t] * (who.eye_shadow[k] - c)
            c += 0.5 * at.water_line[t] * (min(s * (1.02, 0.74, 0.72)[k], 1.0) - c)
            c += (0.80 + 0.15 * who.makeup) * at.lash[t] * ((0.07, 0.05, 0.05)[k] - c)
            c += brow_ink * (who.brow[k] - c)
            c += beard_ink * (beard_tone * who.brow[k] - c)
            c += cover * (who.hair[k] * strands - c)
            c += inner * ((0.50, 0.20, 0.18)[k] - c)
            colour[t, k] = table[int(min(max(c, 0.0), 1.0) * 4096 + 0.5)]
        gloss = GLOSS_SKIN + 0.10 * warm + 0.06 * at.forehead[t] - 0.12 * socket
        gloss += (GLOSS_LIPS + 0.3 * who.makeup - gloss) * lips
        gloss *= 1 - 0.6 * max(beard, cover)
        colour[t, 3] = gloss + (GLOSS_MOUTH - gloss) * inner
        label[t] = MOUTH if inner > 0.5 else LIPS if lips > 0.5 else SKIN


def recede(who: Identity) -> float:
    """Centimetres by which the hairline has gone back."""
    return 0.5 + 1.1 * max(0.0, who.quantile("age") - 0.7) / 0.3 * (who.hair in ("buzz", "crop", "slick", "side"))


def albedo(latent: ArrayLike, resolution: int = 256, head: str = "builtin") -> np.ndarray:
    """A person's albedo in the UV atlas of the head: (3, resolution, resolution) float32 sRGB in [−1, 1].

    Row 0 is v = 0 (the top of the texture image). Texels outside the UV islands repeat their nearest neighbour.
    """
    skin = paint(anatomy(head), Identity.of(latent), resolution).colour[..., :3].astype(np.float64)
    srgb = np.where(skin <= 0.0031308, 12.92 * skin, 1.055 * np.maximum(skin, 1e-9) ** (1 / 2.4) - 0.055)
    return np.ascontiguousarray((2 * srgb - 1).astype(np.float32).transpose(2, 0, 1))
