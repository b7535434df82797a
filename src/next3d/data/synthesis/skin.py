"""The head's own colours: skin, lips, brows, eyes and stubble, painted into its UV atlas."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import CubicSpline

from next3d.data.synthesis.anatomy import BROWS, EYES, OUTER_LIPS, Anatomy, anatomy
from next3d.data.synthesis.identity import Identity, linear
from next3d.data.synthesis.noise import fractal_noise, spots, value_noise
from next3d.data.synthesis.parts import EYES as EYE_PART
from next3d.data.synthesis.parts import LIPS, MOUTH, SKIN

IRIS_RADIUS = 0.60  # centimetres on an average eyeball
GLOSS = {"skin": 0.22, "lips": 0.55, "eyes": 1.0, "mouth": 0.5}


def smoothstep(low: ArrayLike, high: ArrayLike, x: np.ndarray) -> np.ndarray:
    """0 below ``low``, 1 above ``high``, smooth between; ``low`` may exceed ``high``."""
    t = np.clip((x - low) / (np.asarray(high) - low), 0, 1)
    return t * t * (3 - 2 * t)


def bell(x: np.ndarray, width: float) -> np.ndarray:
    return np.exp(-((x / width) ** 2))


def closed_curve(points: np.ndarray, count: int = 96) -> np.ndarray:
    """A smooth closed curve through ``points`` (K, D), as (count, D)."""
    points = np.concatenate([points, points[:1]])
    spline = CubicSpline(np.arange(len(points)), points, bc_type="periodic")
    return spline(np.linspace(0, len(points) - 1, count, endpoint=False))


def to_curve(points: np.ndarray, curve: np.ndarray, closed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Distance (N,) of 2D points to a polyline (K, 2), negative inside a closed one, and the place along it in [0, 1]."""
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


@dataclass(frozen=True)
class Fields:
    """Masks and fixed patterns over the texels of an atlas; each (T,) float32, computed once per resolution.

    People share the patterns and differ in their strength, so that a person stays a smooth function of the latent.
    """

    shape: tuple[int, int]
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
    texels: np.ndarray = field(repr=False)  # (T, 3) normalised positions, for those who need more


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


@lru_cache(maxsize=4)
def paint_fields(face: Anatomy, resolution: int) -> Fields:
    """The fields of a square atlas of ``resolution`` texels."""
    texels = face.texels(resolution)
    position = texels.position.reshape(-1, 3).astype(np.float64)
    part = texels.eyeball.ravel()
    inner = smoothstep(0.25, 0.75, texels.behind_lips.ravel())
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
        line = CubicSpline(np.linspace(0, 1, 5), line)(np.linspace(-0.06, 1.12, 40))
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
    ear = texels.ear.ravel()
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
    fold = CubicSpline(np.linspace(0, 1, 4), fold)(np.linspace(0, 1, 24))
    crease = np.zeros(len(points))
    for sign in (-1, 1):
        distance, place = near(fold * [sign, 1], False, 1.0, front)
        crease = np.maximum(crease, bell(distance, 0.22) * np.sin(np.pi * np.clip(place, 0.02, 0.98)) ** 0.6)
        under = np.stack([np.linspace(-1.1, 1.1, 12), -1.35 - 0.25 * np.cos(np.linspace(-1.4, 1.4, 12))], 1) * [1, 1]
        under = under + [marks[[36, 39], 0].mean() * -sign, 0]
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

    ball = (part == 1) | (part == 2)
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
    del ball
    arrays = dict(
        part=part, inner=inner, lips=lips, brow=brow, brow_place=brow_place, brow_stroke=value_noise(along + 90, 11), lash=lash,
        water_line=water, shadow=shadow, socket=socket, cheeks=cheeks, warm=warm, forehead=forehead,
        hairline=face.above_hairline(position), temples=bell(azimuth - 27, 12), moustache=moustache, goatee=goatee, jaw=jaw,
        hollow=hollow, crease=crease, mottle=fractal_noise(points * 0.45 + 20, 3, 1),
        mottle_other=fractal_noise(points * 0.7 + 30, 3, 2), fine=fractal_noise(points * 5 + 50, 2, 4), freckle=freckle,
        freckle_rank=freckle_rank, dots=dots, strands=strands, iris=off, iris_fibre=fibre, texels=points,
    )  # fmt: skip
    # The back of the skull mirrors no seam: patterns are functions of 3D position, so both sides of it agree.
    return Fields(
        shape=(resolution, resolution),
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


def paint(face: Anatomy, who: Identity, resolution: int) -> Skin:
    """A person's atlas: albedo in linear light, gloss and part codes."""
    at = paint_fields(face, resolution)
    axis, q = who.axis, who.quantile
    rgb = np.empty((len(at.part), 3), np.float32)

    def blend(weight: np.ndarray, colour: ArrayLike) -> None:
        nonlocal rgb
        rgb += weight[:, None] * (np.asarray(colour, np.float32) - rgb)

    skin = who.skin
    dark = 1 - skin.mean()
    rgb[:] = skin
    blotches = 0.5 + 0.5 * np.tanh(axis["blotches"])
    tone = at.mottle * np.float32(0.7 + 0.3 * np.tanh(axis["age"])) + at.mottle_other * np.float32(
        0.4 * np.tanh(axis["skin_warmth"])
    )
    rgb *= 1 + tone[:, None] * np.array([0.012, 0.03, 0.034], np.float32) * np.float32(0.4 + 1.3 * blotches)
    rgb *= 1 + 0.012 * at.fine[:, None]
    flush = (0.22 + 0.22 * np.tanh(axis["blush"])) * (1 - 0.35 * dark)
    rosy = skin * np.array([1.06, 0.72, 0.70])
    blend(np.float32(1.5 * flush) * at.cheeks, rosy)
    blend(np.float32(0.75 * flush + 0.12) * at.warm, rosy)
    blend(0.22 * at.socket, skin * np.array([0.80, 0.66, 0.68]))
    blend(0.05 * at.forehead, np.minimum(skin * 1.12, 1))
    blend(np.float32(0.34 * np.clip(q("age") - 0.45, 0, 1)) * at.crease, skin * np.array([0.66, 0.50, 0.46]))
    freckled = np.float32(np.clip(q("freckles") - 0.62, 0, 1) / 0.38)
    if freckled > 0:
        size = 0.30 * (0.5 + 0.5 * at.freckle_rank)
        where = np.clip(at.cheeks * 1.3 + at.warm + 0.3 * at.forehead + 0.12, 0, 1)
        weight = smoothstep(size, 0.55 * size, at.freckle) * (at.freckle_rank < 0.25 + 0.6 * freckled) * where
        blend(0.6 * freckled * weight, skin * np.array([0.70, 0.52, 0.42]))
    blend(0.85 * at.hollow, skin * np.array([0.22, 0.12, 0.10]))
    # Lips, with a darker seam
    blend(0.92 * at.lips, who.lips)
    rgb *= 1 + at.lips[:, None] * 0.05 * at.fine[:, None]
    # Eyes: shadow, lashes and water line are on the lids
    makeup = np.float32(np.clip(q("makeup") - 0.62, 0, 1) / 0.38)
    if makeup > 0:
        tint = 0.5 * who.iris + 0.5 * np.array([0.42, 0.24, 0.30])
        blend(0.55 * makeup * at.shadow, tint * (0.5 + 0.5 * skin.mean()))
    blend(0.5 * at.water_line, np.minimum(skin * np.array([1.02, 0.74, 0.72]), 1))
    blend((0.80 + 0.15 * makeup) * at.lash, np.array([0.07, 0.05, 0.05]))
    # Brows: an arch that tapers, drawn with strokes
    place = np.clip(at.brow_place, 0, 1)
    thick = (
        0.36
        * np.exp(0.22 * np.clip(axis["brow_thickness"], -2, 2))
        * np.interp(place, [0, 0.12, 0.4, 0.75, 1], [0.5, 0.95, 1, 0.62, 0.12])
    )
    rise = np.float32(0.16 * np.tanh(axis["brow_tilt"])) * (place - 0.35) + 0.05
    edge = np.abs(at.brow - rise) / np.maximum(thick, 0.03)
    brow = (
        smoothstep(1.25, 0.55, edge + 0.55 * (at.brow_stroke - 0.5))
        * (at.brow_place >= 0)
        * smoothstep(0, 0.05, at.brow_place)
    )
    brow *= smoothstep(1.0, 0.95, at.brow_place)
    blend(
        np.float32(0.80 + 0.12 * np.tanh(axis["brow_density"])) * brow * (0.78 + 0.22 * at.brow_stroke), who.brow_colour
    )
    # Stubble and the skin under beard and hair
    beard = beard_mask(who, at)
    if who.beard == "stubble":
        spot = smoothstep(0.45, 0.18, at.dots)
        blend(
            beard * np.float32(0.30 + 0.10 * np.tanh(axis["beard_length"])) * (0.55 + 0.45 * spot),
            0.75 * who.brow_colour,
        )
    else:
        blend(beard * 0.72, 0.8 * who.brow_colour)
    cover = scalp_cover(who, at.hairline, at.temples)
    if cover is not None:
        strands = 0.7 + 0.5 * at.strands
        blend(cover, np.zeros(3))
        rgb += cover[:, None] * (who.hair_colour * 0.62) * strands[:, None]

    gloss = np.full(len(rgb), GLOSS["skin"], np.float32)
    gloss += 0.10 * at.warm + 0.06 * at.forehead - 0.12 * at.socket
    gloss += (GLOSS["lips"] + 0.3 * makeup - gloss) * at.lips
    gloss *= 1 - 0.6 * np.maximum(beard, cover if cover is not None else 0)

    # Eyeballs
    ball = (at.part == 1) | (at.part == 2)
    r = at.iris[ball]
    white = np.array([0.90, 0.885, 0.87]) * (1 - 0.10 * smoothstep(0.7, 1.6, r)[:, None] * np.array([0.3, 1, 1]))
    fibre = 0.72 + 0.56 * at.iris_fibre[ball]
    inner = smoothstep(0.46, 0.22, r)
    iris = who.iris * fibre[:, None] * (1 + 0.55 * inner[:, None] * np.array([1.0, 0.85, 0.5]))
    iris = iris * (1 - 0.72 * smoothstep(0.47, IRIS_RADIUS, r)[:, None])  # limbal ring
    iris = iris * (1 - smoothstep(0.275, 0.235, r)[:, None])  # pupil
    eye = white + smoothstep(IRIS_RADIUS + 0.05, IRIS_RADIUS - 0.03, r)[:, None] * (iris - white)
    rgb[ball], gloss[ball] = eye, GLOSS["eyes"]
    # The inside of the cheeks and lips
    blend(at.inner, np.array([0.50, 0.20, 0.18]))
    gloss += (GLOSS["mouth"] - gloss) * at.inner

    label = np.full(len(rgb), SKIN, np.uint8)
    label[at.lips > 0.5] = LIPS
    label[ball] = EYE_PART
    label[at.inner > 0.5] = MOUTH
    colour = np.concatenate([linear(np.clip(rgb, 0, 1)), gloss[:, None]], 1).astype(np.float32)
    return Skin(colour.reshape(*at.shape, 4), label.reshape(at.shape))


def beard_mask(who: Identity, at: Fields) -> np.ndarray:
    """(T,) where a person's beard grows, in [0, 1]."""
    if who.beard == "none":
        return np.zeros_like(at.moustache)
    if who.beard == "moustache":
        return at.moustache
    small = np.maximum(at.moustache, at.goatee)
    return small if who.beard == "goatee" else np.maximum(small, at.jaw)


def scalp_cover(who: Identity, hairline: np.ndarray, temples: np.ndarray) -> np.ndarray | None:
    """(T,) how densely hair covers the scalp, in [0, 1]; None for the bald."""
    if who.hair == "bald":
        return None
    line = hairline - recede(who) * (0.4 + temples)
    return (0.9 if who.hair != "buzz" else 0.62) * smoothstep(-0.25, 0.55, line)


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
