"""The 100 shape directions: 75 anatomical ones by name, then 25 smooth harmonics. One unit is one standard deviation.

Standard deviations follow published anthropometry of adults (head breadth 6 mm, head length 7, face height 6, breadth
between the cheekbones 5 and between the angles of the jaw 6, nose height 3.5, nose breadth 2.8, distance of the pupils
3.5, width of the mouth 3.3, length of the ear 3.5), so that heads drawn from a unit normal vary as people do.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import sph_harm_y

from . import lids
from .anatomy import MM, Anatomy, Array, smoothstep
from .expressions import Face
from .fields import blob, curve, press, stroke

NAMED = [
    "headWidth",
    "headHeight",
    "headDepth",
    "faceWidth",
    "faceLength",
    "faceForward",
    "foreheadSlope",
    "foreheadBulge",
    "templeWidth",
    "occiput",
    "jawWidth",
    "jawCorner",
    "chinForward",
    "chinHeight",
    "chinWidth",
    "chinCleft",
    "jawProtrusion",
    "underChin",
    "cheekboneWidth",
    "cheekboneForward",
    "cheekFullness",
    "cheekHollow",
    "browRidge",
    "browHeight",
    "glabella",
    "noseLength",
    "noseForward",
    "noseWidth",
    "noseBridgeWidth",
    "noseBridgeHeight",
    "noseHump",
    "noseTipUp",
    "noseTipWidth",
    "nostrilHeight",
    "eyeSize",
    "eyeSpacing",
    "eyeTilt",
    "eyeDepth",
    "eyeHeight",
    "eyeOpening",
    "eyeLength",
    "lidFold",
    "eyeBags",
    "mouthWidth",
    "upperLipFullness",
    "lowerLipFullness",
    "mouthHeight",
    "mouthForward",
    "mouthCornersUp",
    "philtrum",
    "cupidsBow",
    "overbite",
    "earSize",
    "earAngle",
    "earHeight",
    "earLobe",
    "earLength",
    "neckWidth",
    "neckDepth",
    "neckForward",
    "larynx",
    "masculine",
    "fullness",
    "age",
    "childlike",
]
ODD_NAMED = [
    "chinAside",
    "noseTipAside",
    "noseAside",
    "eyesAslant",
    "browsAslant",
    "mouthAslant",
    "earsAslant",
    "cheekAside",
    "lidsAside",
    "faceBend",
]
TEMPER = 0.75  # directions overlap: together they must not vary more than people do
EYE_FORMS = {"eyeTilt", "eyeOpening", "eyeLength", "lidsAside", "eyesAslant"}  # these move lids along the balls
DEGREES_EVEN, DEGREES_ODD = (3, 4, 5, 6), (3, 4, 5)
EVEN_COUNT, ODD_COUNT = 17, 8
ODD = [*ODD_NAMED, *(f"oddDetail{i + 1}" for i in range(ODD_COUNT))]
NAMES = [*NAMED, *ODD_NAMED, *(f"detail{i + 1}" for i in range(EVEN_COUNT)), *ODD[len(ODD_NAMED) :]]
assert len(NAMES) == 100, len(NAMES)


class Clay(Face):
    """Brushes that change the form of a head."""

    def __init__(self, anatomy: Anatomy):
        super().__init__(anatomy)
        x = anatomy.vertices
        self.x, self.y, self.z = x[:, 0], x[:, 1], anatomy.depth
        self.ear = np.zeros(anatomy.count)
        for ear in anatomy.ears:
            self.ear[ear] = 1
        base = x[anatomy.neck, 1].max()
        self.head = smoothstep(
            base + 5 * MM, self.p["chin"][1] - 15 * MM, self.y - 0.25 * self.z
        )  # 0 at the neck's end
        self.front = smoothstep(-45 * MM, 20 * MM, self.z)

    def spot(self, x: float, y: float, z: float) -> Array:
        """A point at x and depth z in millimetres and height y in metres."""
        return np.array([x * MM, y, z * MM + self.anatomy.base_depth])

    def along(self, axis: int, amount: Array) -> Array:
        """(V, 3) displacement of ``amount`` (V,) metres along an axis."""
        out = np.zeros_like(self.anatomy.vertices)
        out[:, axis] = amount
        return out

    def pair(self, centre: Array, size: ArrayLike, vector: ArrayLike) -> Array:
        """A stroke on the left and its mirror image."""
        field = stroke(self.anatomy, centre, size, vector)
        return field + self.anatomy.reflect(field)

    def swell(self, centre: Array, size: ArrayLike, amount: float) -> Array:
        """Out along the normal of the skin, on both sides."""
        out = (self.x[:, None] * 0) + stroke(self.anatomy, centre, size, (0, 0, 0))
        weight = blob(self.anatomy, centre, size)
        weight = weight + weight[self.anatomy.mirror]
        radial = self.anatomy.vertices - self.spot(0, self.p["eye"][1], -20)
        radial[:, 1] *= 0.3
        radial /= np.linalg.norm(radial, axis=1, keepdims=True)
        return out + weight[:, None] * radial * amount * MM

    def about(self, place: str, scale: ArrayLike, size: ArrayLike, shift: ArrayLike = (0, 0, 0)) -> Array:
        """Scaling (per axis, −1 … 1) about a place and a shift in millimetres, under a blob; on both sides."""
        weight = blob(self.anatomy, self.p[place], size)[:, None]
        field = weight * (
            (self.anatomy.vertices - self.p[place]) * np.asarray(scale, float) + np.asarray(shift, float) * MM
        )
        if abs(self.p[place][0]) < 1e-6:
            return field
        return field + self.anatomy.reflect(field)

    def ears(self, motion: Callable[[Array], Array]) -> Array:
        """(V, 3) a motion (of positions relative to the root of the left ear) of the ear and the skin around it."""
        ear = self.anatomy.vertices[self.anatomy.ears[0]]
        root = np.array([ear[:, 0].min(), ear[:, 1].mean(), ear[:, 2].max() - 4 * MM])
        d = self.anatomy.vertices - root
        far = np.linalg.norm((self.anatomy.vertices - ear.mean(0)) / (np.array([34, 52, 40]) * MM), axis=1)
        weight = smoothstep(1.0, 0.55, far)
        weight[self.anatomy.ears[0]] = np.maximum(
            weight[self.anatomy.ears[0]], smoothstep(-4 * MM, 6 * MM, d[self.anatomy.ears[0], 0])
        )
        field = weight[:, None] * motion(d)
        return field + self.anatomy.reflect(field)


def rotation(axis: int, degrees: float) -> Array:
    """The 3×3 generator of a small turn: displacement = d @ generatorᵀ."""
    g = np.zeros((3, 3))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    g[i, j], g[j, i] = -1, 1
    return g * np.radians(degrees)


def mix(fields: dict[str, Array], **shares: float) -> Array:
    """A direction made of others."""
    return np.sum([share * fields[name] for name, share in shares.items()], axis=0)


def named(c: Clay) -> dict[str, Array]:
    """Raw fields of the named directions, in metres per standard deviation, before eyes and ears are made to ride."""
    a, p, at = c.anatomy, c.p, c.at
    x, y, z = c.x, c.y, c.z
    eye, chin, ear = p["eye"], p["chin"], p["ear"]
    s: dict[str, Array] = {}
    brow = eye[1] + 20 * MM
    above = smoothstep(eye[1] - 10 * MM, p["vertex"][1], y)
    behind = smoothstep(0, -120 * MM, z)
    s["headWidth"] = c.along(0, 0.036 * x * c.head)
    s["headHeight"] = c.along(1, 6.0 * MM * above)
    s["headDepth"] = c.along(2, -6.0 * MM * behind * c.head)
    s["faceWidth"] = c.along(
        0, 0.040 * x * smoothstep(-70 * MM, 10 * MM, z) * np.exp(-(((y - eye[1] + 46 * MM) / (75 * MM)) ** 2))
    )
    fall = smoothstep(eye[1] + 6 * MM, chin[1], y)
    s["faceLength"] = c.along(1, -4.5 * MM * fall * c.head * smoothstep(-110 * MM, 10 * MM, z))
    mid = np.exp(-(((y - p["subnasale"][1]) / (38 * MM)) ** 2)) * np.exp(-((x / (42 * MM)) ** 2)) * c.front
    s["faceForward"] = c.along(2, 2.4 * MM * mid)
    forehead = smoothstep(brow - 8 * MM, brow + 55 * MM, y) * c.front
    s["foreheadSlope"] = c.along(2, -4.0 * MM * forehead)
    s["foreheadBulge"] = stroke(a, c.spot(0, brow + 36 * MM, 40), (48, 30, 50), (0, 0.6, 2.6))
    s["templeWidth"] = c.pair(c.spot(66, brow + 8 * MM, 5), (26, 30, 36), (2.2, 0, 0.3))
    s["occiput"] = stroke(a, p["occiput"] + np.array([0, -12, 6]) * MM, (55, 42, 40), (0, 0, -4.2))
    gonion = np.array([56 * MM, chin[1] + 22 * MM, ear[2] + 22 * MM])
    s["jawWidth"] = c.pair(gonion, (30, 30, 36), (3.0, 0, 0.2))
    s["jawCorner"] = c.pair(gonion, (26, 22, 30), (0.7, -3.0, -1.6))
    s["chinForward"] = stroke(a, at("chin", 0, -4, -4), (26, 20, 26), (0, 0, 2.7))
    s["chinHeight"] = stroke(a, at("chin", 0, -12, -8), (34, 22, 34), (0, -3.0, 0.3))
    s["chinWidth"] = c.pair(at("chin", 14, -4, -6), (14, 16, 20), (2.0, 0, -0.3))
    s["chinCleft"] = stroke(a, at("chin", 0, 0), (4.2, 8, 12), (0, 0, -0.8)) + c.pair(
        at("chin", 8, 0), (6, 8, 12), (0.2, 0, 0.5)
    )
    s["jawProtrusion"] = c.along(
        2, 1.8 * MM * smoothstep(p["lip_contact"][1] + 14 * MM, chin[1], y) * smoothstep(-60 * MM, 30 * MM, z) * c.head
    )
    s["underChin"] = stroke(a, at("chin", 0, -24, -34), (34, 22, 32), (0, -3.4, 1.2))
    zygion = c.spot(58, eye[1] - 24 * MM, 16)
    s["cheekboneWidth"] = c.pair(zygion, (24, 20, 32), (2.4, 0, 0))
    s["cheekboneForward"] = c.pair(c.spot(46, eye[1] - 24 * MM, 36), (18, 15, 24), (0.8, 0.3, 1.7))
    hollow = c.spot(46, p["lip_corner"][1] + 8 * MM, 30)
    s["cheekFullness"] = c.swell(hollow, (24, 26, 32), 2.4)
    s["cheekHollow"] = c.swell(hollow + np.array([2, 4, -4]) * MM, (15, 19, 24), -1.5)
    s["browRidge"] = c.pair(c.spot(22, brow - 3 * MM, 50), (20, 8, 22), (0.1, -0.3, 1.5))
    s["browHeight"] = c.brow((0, 1.7, 0), (0, 2.0, 0), (0, 1.8, 0)) + a.reflect(
        c.brow((0, 1.7, 0), (0, 2.0, 0), (0, 1.8, 0))
    )
    s["glabella"] = stroke(a, at("sellion", 0, 9), (11, 9, 16), (0, 0, 1.3))
    s.update(nose(c))
    s.update(eyes(c))
    s.update(mouth(c))
    s.update(ears_and_neck(c))
    s["masculine"] = mix(
        s, browRidge=0.8, jawWidth=0.6, chinHeight=0.6, chinForward=0.5, noseForward=0.4, noseWidth=0.4, neckWidth=0.6,
        larynx=0.8, jawCorner=0.4, upperLipFullness=-0.4, browHeight=-0.4, foreheadSlope=0.4, cheekFullness=-0.3,
    )  # fmt: skip
    s["fullness"] = mix(s, cheekFullness=0.9, underChin=0.9, jawWidth=0.5, neckWidth=0.6, noseWidth=0.3)
    jowl = c.spot(34, chin[1] + 12 * MM, 30)
    fold = c.nasolabial(1.2, 0.6)
    s["age"] = mix(
        s, eyeBags=0.9, lidFold=0.6, underChin=0.5, earLength=0.5, noseLength=0.4, upperLipFullness=-0.5,
        lowerLipFullness=-0.3, cheekHollow=0.5, mouthCornersUp=-0.5,
    )  # fmt: skip
    s["age"] += c.pair(jowl, (12, 12, 18), (0.9, -1.8, 0.4)) + 0.6 * (fold + a.reflect(fold))
    s["childlike"] = mix(
        s, eyeSize=0.6, faceLength=-0.7, noseLength=-0.6, noseForward=-0.5, foreheadBulge=0.5, cheekFullness=0.5,
        chinForward=-0.5, neckWidth=-0.6, browRidge=-0.5, noseTipUp=0.4, jawWidth=-0.5,
    )  # fmt: skip
    s["chinAside"] = stroke(a, at("chin", 0, -2, -6), (40, 30, 46), (2.0, 0, 0))
    s["noseTipAside"] = stroke(a, p["nose_tip"] + np.array([0, 0, -6]) * MM, (15, 13, 18), (1.1, 0, 0))
    s["noseAside"] = stroke(a, (p["nose_tip"] + p["sellion"]) / 2, (15, 15, 22), (0.9, 0, 0))
    slant = np.tanh(x / (30 * MM))
    s["eyesAslant"] = c.along(
        1, 0.8 * MM * slant * np.exp(-(((y - eye[1]) / (26 * MM)) ** 2)) * c.front * (np.abs(x) < 1)
    )
    one = c.brow((0, 0.8, 0), (0, 1.1, 0), (0, 1.0, 0))
    s["browsAslant"] = one - a.reflect(one)
    s["mouthAslant"] = stroke(a, p["lip_contact"], (34, 18, 40), (0, 1, 0)) * slant[:, None] * 1.0
    lift = c.ears(lambda d: 0 * d + np.array([0, 1.6, 0]) * MM)
    s["earsAslant"] = lift * np.sign(x)[:, None]
    s["cheekAside"] = c.swell(hollow, (24, 28, 32), 1.4) * slant[:, None]
    opened = lids.raise_lids(a, 0, 0.35, -0.1)
    s["lidsAside"] = opened - a.reflect(opened)
    bend = (y - eye[1]) / (100 * MM)
    s["faceBend"] = c.along(0, 1.6 * MM * (bend**2 * np.sign(bend)) * -c.front * c.head)
    return s


def nose(c: Clay) -> dict[str, Array]:
    a, p, at = c.anatomy, c.p, c.at
    tip, root, base, wing = p["nose_tip"], p["sellion"], p["subnasale"], p["ala"]
    middle = (tip + root) / 2
    length = (root - tip)[1]
    s = {}
    around = np.exp(-((c.x / (24 * MM)) ** 2)) * smoothstep(base[2] - 22 * MM, base[2] - 4 * MM, a.vertices[:, 2])
    down = np.where(
        c.y > base[1], smoothstep(root[1], base[1] + 8 * MM, c.y), smoothstep(base[1] - 22 * MM, base[1], c.y)
    )
    s["noseLength"] = c.along(1, -2.2 * MM * around * down)
    out = np.clip((a.vertices[:, 2] - (base[2] - 12 * MM)) / (tip[2] - base[2] + 12 * MM), 0, 1.2)
    band = smoothstep(root[1] + 2 * MM, tip[1] + 4 * MM, c.y) * smoothstep(base[1] - 14 * MM, base[1] + 2 * MM, c.y)
    s["noseForward"] = c.along(2, 2.0 * MM * out * band * np.exp(-((c.x / (18 * MM)) ** 2)))
    s["noseWidth"] = c.pair(wing + np.array([-3, 0, 0]) * MM, (11, 11, 15), (1.35, 0, -0.1))
    s["noseBridgeWidth"] = c.pair(middle + np.array([8, 2, -7]) * MM, (7, 0.42 * length / MM, 9), (1.0, 0, 0.1))
    s["noseBridgeHeight"] = stroke(a, root + np.array([0, -3, 0]) * MM, (10, 13, 16), (0, 0, 1.7))
    s["noseHump"] = stroke(a, middle, (8, 10, 14), (0, 0, 1.1))
    turn = (a.vertices - (base + np.array([0, 4, -4]) * MM)) @ rotation(0, -5.0).T
    s["noseTipUp"] = blob(a, tip + np.array([0, -3, -5]) * MM, (15, 13, 15))[:, None] * turn
    s["noseTipWidth"] = c.pair(tip + np.array([7, -1, -5]) * MM, (7, 8, 9), (0.9, 0, 0))
    s["nostrilHeight"] = c.pair(wing + np.array([-2, 2, 0]) * MM, (8, 9, 13), (0, 1.0, 0)) + 0 * at("ala")[0]
    return s


def eyes(c: Clay) -> dict[str, Array]:
    a, p = c.anatomy, c.p
    eye = p["eye"]
    d = a.vertices - eye
    r = np.linalg.norm(d * np.array([1, 1.15, 0.8]), axis=1)
    near = smoothstep(36 * MM, 15 * MM, r)[:, None] * smoothstep(-2 * MM, 5 * MM, c.x)[:, None]

    def both(field: Array) -> Array:
        return field + a.reflect(field)

    s = {
        "eyeSize": both(near * d * 0.022),
        "eyeSpacing": both(near * np.array([1.3, 0, -0.25]) * MM),
        "eyeTilt": both(near * (d @ rotation(2, 1.7).T)),
        "eyeDepth": both(near * np.array([0, 0, -1.1]) * MM),
        "eyeHeight": both(near * np.array([0, 1.1, 0]) * MM),
        "eyeOpening": both(lids.raise_lids(a, 0, 0.32, -0.12)),
    }
    margin = np.abs(d[:, 0]) < 26 * MM
    wide = near[:, 0] * margin * d[:, 0] * 0.030
    s["eyeLength"] = both(c.along(0, wide))
    fold = [c.on_skin(eye + np.array([x, y, 0]) * MM) for x, y in ((-10, 9.5), (0, 12), (11, 10.5), (17, 6))]
    droop = press(a, curve(fold, 16), (5, 3.2, 7), 0.55) + sum(stroke(a, q, (8, 4, 8), (0, -0.35, 0)) for q in fold)
    s["lidFold"] = both(droop * np.minimum(1, 1.6 * c.off_lids + 0.25)[:, None])
    bag = [c.on_skin(eye + np.array([x, y, 0]) * MM) for x, y in ((-9, -13), (0, -15.5), (9, -14.5))]
    trough = [q + np.array([0, -6, 0]) * MM for q in bag]
    s["eyeBags"] = both(press(a, curve(bag, 12), (6, 3.4, 8), 0.65) + press(a, curve(trough, 12), (6, 3, 8), -0.3))
    return s


def mouth(c: Clay) -> dict[str, Array]:
    a, p = c.anatomy, c.p
    s = {}
    s["mouthWidth"] = c.lips(corner=(1.6, 0, -0.7), spread=1.0)
    thick = (1 - c.u**2)[None, :, None]

    def fuller(inward: Array, upper: Array) -> Array:
        w = upper * (1 - inward)
        return np.stack([0 * w, 0.95 * w, 0.55 * upper * np.sin(np.pi * (0.25 + 0.6 * inward))], -1) * thick

    def fuller_below(inward: Array, upper: Array) -> Array:
        w = (1 - upper) * (1 - inward)
        return np.stack([0 * w, -1.05 * w, 0.65 * (1 - upper) * np.sin(np.pi * (0.25 + 0.6 * inward))], -1) * thick

    s["upperLipFullness"] = c.lips(roll=fuller)
    s["lowerLipFullness"] = c.lips(roll=fuller_below)
    centre = p["lip_contact"]
    s["mouthHeight"] = stroke(a, centre, (38, 17, 42), (0, 1.5, 0))
    s["mouthForward"] = stroke(a, centre, (32, 22, 40), (0, 0, 1.9))
    s["mouthCornersUp"] = c.lips(corner=(0.1, 1.0, -0.1), spread=2.0)
    gutter = [c.on_skin(centre + np.array([0, y, 0]) * MM) for y in (11, 14.5)]
    ridge = [q + np.array([4.6, 0, 0]) * MM for q in gutter]
    lines = press(a, curve(ridge, 6), (2.6, 4, 7), 0.35)
    s["philtrum"] = press(a, curve(gutter, 6), (2.6, 4, 7), -0.5) + lines + a.reflect(lines)

    def bow(inward: Array, upper: Array) -> Array:
        wave = np.exp(-(((np.abs(c.lateral) - 0.22) / 0.14) ** 2)) - 0.9 * np.exp(-((c.lateral / 0.12) ** 2))
        w = upper * (1 - inward) * wave[None]
        return np.stack([0 * w, 0.55 * w, 0.15 * w], -1)

    s["cupidsBow"] = c.lips(roll=bow)
    over = smoothstep(0, 16 * MM, c.y - centre[1]) * np.exp(-(((c.y - centre[1]) / (20 * MM)) ** 2))
    under = np.exp(-(((c.y - centre[1]) / (17 * MM)) ** 2))
    s["overbite"] = c.along(2, 0.9 * MM * (2.2 * over - 0.6 * under) * np.exp(-((c.x / (26 * MM)) ** 2)) * c.front)
    return s


def ears_and_neck(c: Clay) -> dict[str, Array]:
    a, p = c.anatomy, c.p
    s = {}
    s["earSize"] = c.ears(lambda d: 0.055 * d)
    s["earAngle"] = c.ears(lambda d: d @ rotation(1, 4.5).T)
    s["earHeight"] = c.ears(lambda d: 0 * d + np.array([0, 1.8, 0.4]) * MM)
    s["earLobe"] = c.ears(
        lambda d: np.stack([0 * d[:, 0], -2.0 * MM * smoothstep(-8 * MM, -26 * MM, d[:, 1]), 0 * d[:, 0]], 1)
    )
    s["earLength"] = c.ears(lambda d: d * np.array([0, 0.055, 0]))
    neck = smoothstep(p["chin"][1] + 8 * MM, p["chin"][1] - 45 * MM, c.y - 0.35 * (c.z + 30 * MM))
    axis = np.array([0, 0, p["ear"][2] - 22 * MM])
    s["neckWidth"] = c.along(0, 0.055 * c.x * neck) + c.along(2, 0.03 * (a.vertices[:, 2] - axis[2]) * neck)
    s["neckDepth"] = c.along(2, 0.055 * (a.vertices[:, 2] - axis[2]) * neck)
    s["neckForward"] = c.along(2, 3.0 * MM * smoothstep(p["chin"][1] - 5 * MM, a.vertices[a.neck, 1].min(), c.y))
    s["larynx"] = stroke(a, c.at("chin", 0, -46, -52), (10, 14, 30), (0, 0, 1.6))
    return s


def harmonics(c: Clay) -> tuple[list[Array], list[Array]]:
    """Even and odd radial waves over the head, finest on the face; in metres per standard deviation."""
    a = c.anatomy
    d = a.vertices - c.spot(0, c.p["subnasale"][1] + 14 * MM, 0)
    radius = np.linalg.norm(d, axis=1)
    polar, azimuth = np.arccos(np.clip(d[:, 1] / radius, -1, 1)), np.arctan2(d[:, 0], d[:, 2])
    window = (0.35 + 0.65 * smoothstep(-60 * MM, 20 * MM, c.z)) * c.head * smoothstep(8 * MM, 40 * MM, radius)
    even: list[Array] = []
    odd: list[Array] = []
    for degree in DEGREES_EVEN:
        amplitude = 0.5 * MM * (3 / degree) ** 0.8
        for order in range(degree + 1):
            wave = sph_harm_y(degree, order, polar, azimuth)
            for part, into, share in ((wave.real, even, 1.0), (wave.imag, odd, 0.6)):
                if into is odd and (order == 0 or degree not in DEGREES_ODD):
                    continue
                scale = np.sqrt(np.mean(part[(c.z > 0) & a.is_skin] ** 2))
                into.append((share * amplitude * window * part / scale / radius)[:, None] * d)
    return even[:EVEN_COUNT], odd[:ODD_COUNT]


def directions(anatomy: Anatomy) -> Array:
    """The (100, V, 3) shape directions in the order of :data:`NAMES`."""
    clay = Clay(anatomy)
    fields = named(clay)
    even, odd = harmonics(clay)
    fields.update({f"detail{i + 1}": field for i, field in enumerate(even)})
    fields.update({f"oddDetail{i + 1}": field for i, field in enumerate(odd)})
    out = []
    for name in NAMES:
        part = anatomy.antisymmetric if name in ODD else anatomy.symmetric
        gain = 1.0 if "etail" in name else TEMPER
        out.append(gain * part(lids.ride(anatomy, part(fields[name]), slide=name in EYE_FORMS)))
    return np.stack(out)
