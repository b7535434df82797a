"""The 50 expression directions: 42 of ARKit's blendshapes by name, then 8 of our own.

ARKit's other ten move joints (jawOpen, eyeLook…) or have no mesh here (tongueOut). A coefficient of 1 is ARKit's 1.
Lengths are millimetres on an average head.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from . import lids
from .anatomy import MM, Anatomy, Array, Index, smoothstep
from .fields import Membrane, curve, press, relax, stroke
from .jaw import hinge, jaw_weights, lip_side

PAIRED = [
    "eyeBlink",
    "eyeSquint",
    "eyeWide",
    "browDown",
    "browOuterUp",
    "cheekSquint",
    "noseSneer",
    "mouthSmile",
    "mouthFrown",
    "mouthDimple",
    "mouthStretch",
    "mouthPress",
    "mouthLowerDown",
    "mouthUpperUp",
]
SYMMETRIC = [
    "browInnerUp",
    "cheekPuff",
    "mouthPucker",
    "mouthFunnel",
    "mouthRollLower",
    "mouthRollUpper",
    "mouthShrugLower",
    "mouthShrugUpper",
    "mouthClose",
    "jawForward",
]
SIDEWAYS = ["mouth", "jaw"]  # mouthLeft, mouthRight, jawLeft, jawRight
OWN = ["lipsPart", "cheekSuck", "nostrilFlare", "jawClench", "neckTense", "larynxUp"]
ODD = ["browTilt", "cheekPuffAside"]  # change sign in the mirror: + raises the left brow, fills the left cheek

NAMES = [
    *(name + side for name in PAIRED for side in ("Left", "Right")),
    *SYMMETRIC,
    *(name + side for name in SIDEWAYS for side in ("Left", "Right")),
    *OWN,
    *ODD,
]
assert len(NAMES) == 50

# mm that an expression moves the upper and the lower lid margin, up positive. A blink takes these back.
LID_PART = {
    "eyeSquint": (-1.6, 2.2),
    "eyeWide": (2.6, -0.9),
    "browDown": (-0.7, 0.2),
    "browOuterUp": (0.5, 0.0),
    "cheekSquint": (-0.3, 1.8),
    "mouthSmile": (-0.3, 1.1),
}

JAW_OPEN = np.radians(27.0)  # the jaw's angle at jawOpen = 1 (next3d.heads.arkit)


class Face:
    """Brushes placed on one head: the lips as a curve that carries the skin around it, brows, cheeks and lids."""

    def __init__(self, anatomy: Anatomy):
        self.anatomy = a = anatomy
        self.p = anatomy.points
        mouth, x = a.mouth, a.vertices
        self.side = lip_side(a)
        self.u = 1 - np.abs(self.side)  # 0 at the midline, 1 at the corners
        self.lateral = np.sign(x[mouth.rings[mouth.contact], 0]) * self.u  # −1 right corner … 1 left corner
        self.upper = smoothstep(-0.14, 0.14, self.side)
        self.red = mouth.rings[mouth.border :]
        depth = np.arange(len(self.red)) + mouth.border - mouth.contact
        self.carry = np.where(depth <= 0, 1.0, 0.75 ** np.maximum(depth, 0))  # the lining follows less and less
        # 0 at the border of the red, 1 where the lips touch
        self.inward = np.clip(np.arange(len(self.red)) / (mouth.contact - mouth.border), 0, 1)

        self.off_lids = np.ones(a.count)
        self.off_ears = np.ones(a.count)
        for eye in a.eyes:
            k = np.arange(len(eye.rings)) / eye.margin
            self.off_lids[eye.rings] = smoothstep(0.85, 0.12, k)[:, None]
            self.off_lids[eye.ball] = 0
        for ear in a.ears:
            self.off_ears[ear] = 0
        tether = np.full(a.count, 1.2e-3)
        away = np.linalg.norm((x - self.p["lip_contact"]) / np.array([48, 44, 60]) / MM, axis=1)
        tether *= 1 + 40 * smoothstep(0.7, 1.4, away)
        tether[away > 1.6] = np.inf
        tether[(self.off_lids < 1) | (self.off_ears < 1)] = np.inf
        nose = (x[:, 1] > self.p["subnasale"][1] + 1 * MM) & (np.abs(x[:, 0]) < self.p["ala"][0] * 0.8)
        tether[nose & (x[:, 1] < self.p["sellion"][1])] *= 30
        self.membrane = Membrane(a, np.unique(self.red), tether)

    # ---- lips ------------------------------------------------------------------------------------------------------
    def lips(
        self,
        corner: ArrayLike = (0, 0, 0),
        upper: ArrayLike = (0, 0, 0),
        lower: ArrayLike = (0, 0, 0),
        *,
        only: Array | None = None,
        spread: float = 1.6,
        at: float = 0.0,
        roll: Callable[[Array, Array], Array] | None = None,
    ) -> Array:
        """(V, 3) the lips moved and the skin carried along.

        Args:
            corner: displacement of the left corner (the right one mirrored)
            upper, lower: displacements of the two lips at ``at`` (0 the midline, towards 1 the left corner)
            only: (n,) weight of every column; by default all
            spread: how fast the corner's share fades towards the midline
            roll: extra displacement (rings, n, 3) from ``inward`` (rings, 1) and ``upper`` (1, n), millimetres
        """
        c = (self.u**spread)[:, None]
        bell = np.exp(-(((np.abs(self.lateral) - at) / (0.62 if at == 0 else 0.42)) ** 2)) * (1 - self.u**3)
        sign = np.sign(self.lateral + 1e-12)[:, None] * np.array([1, 0, 0]) + np.array([0, 1, 1])
        d = c * np.asarray(corner, float) * sign
        d = d + (bell * self.upper)[:, None] * np.asarray(upper, float)
        d = d + (bell * (1 - self.upper))[:, None] * np.asarray(lower, float)
        field = d[None] * self.carry[:, None, None]
        if roll is not None:
            field = field + roll(self.inward[:, None], self.upper[None, :]) * (self.carry * 1.0)[:, None, None]
        if only is not None:
            field = field * only[:, None]
        out = np.zeros_like(self.anatomy.vertices)
        out[self.red] = field * MM
        return self.membrane(out)

    @property
    def left_lips(self) -> Array:
        """(n,) weight of the left half of the mouth; left and right add up to 1."""
        return smoothstep(-0.35, 0.35, self.lateral)

    # ---- skin ------------------------------------------------------------------------------------------------------
    def at(self, place: str, x: float = 0, y: float = 0, z: float = 0) -> Array:
        """A point by name, shifted by millimetres."""
        return self.p[place] + np.array([x, y, z]) * MM

    def dab(self, centre: Array, size: ArrayLike, vector: ArrayLike) -> Array:
        """A stroke that leaves lids and ears alone."""
        return stroke(self.anatomy, centre, size, vector) * (self.off_lids * self.off_ears)[:, None]

    def fold(self, points: list[Array], size: ArrayLike, depth: float) -> Array:
        field = press(self.anatomy, curve(points, 4 * len(points)), size, depth)
        return field * (self.off_lids * self.off_ears)[:, None]

    def on_skin(self, point: Array) -> Array:
        """The vertex of the skin nearest to a frontal point."""
        a = self.anatomy
        front = np.flatnonzero(a.is_skin & (a.normals[:, 2] > 0.0) & (self.off_ears > 0))
        d = np.linalg.norm((a.vertices[front] - point)[:, :2], axis=1)
        return a.vertices[front[np.argmin(d)]]

    def nasolabial(self, depth: float, bulge: float) -> Array:
        """The fold from the wing of the nose past the left corner of the mouth, and the cheek above it."""
        line = [
            self.at("ala", 3, 5),
            self.at("ala", 8.5, -6),
            self.at("lip_corner", 10, 10),
            self.at("lip_corner", 13, -2),
        ]
        line = [self.on_skin(point) for point in line]
        cheek = [self.on_skin(point + np.array([7, 3, 0]) * MM) for point in line[:3]]
        return self.fold(line, (4.2, 5.5, 9), -depth) + self.fold(cheek, (7, 8, 10), bulge)

    def brow(self, inner: ArrayLike, middle: ArrayLike, outer: ArrayLike) -> Array:
        """The left brow moved at three places; the forehead above follows, the lids do not."""
        eye = self.p["eye"]
        x, y = self.anatomy.vertices[:, 0] - eye[0], self.anatomy.vertices[:, 1] - eye[1]
        ridge = 20.5 * MM
        rise = np.where(
            y > ridge, np.exp(-(((y - ridge) / (22 * MM)) ** 2)), np.exp(-(((y - ridge) / (9.5 * MM)) ** 2))
        )
        front = smoothstep(-25 * MM, 5 * MM, self.anatomy.depth)
        weight = rise * front * self.off_lids * self.off_ears * smoothstep(44 * MM, 26 * MM, x)
        out = np.zeros_like(self.anatomy.vertices)
        for place, width, vector in ((-19, 11, inner), (0, 12, middle), (18, 11, outer)):
            bell = np.exp(-(((x - place * MM) / (width * MM)) ** 2)) * (smoothstep(-2 * MM, 6 * MM, x + eye[0]))
            out += (weight * bell)[:, None] * np.asarray(vector, float) * MM
        return out

    def cheek(self, lift: float, forward: float) -> Array:
        """The apple of the left cheek raised."""
        centre = self.on_skin(self.at("eye", 8, -32)) + np.array([0, 0, -2]) * MM
        field = self.dab(centre, (17, 14, 18), (0.15 * lift, lift, forward))
        bag = self.on_skin(self.at("eye", 3, -17))
        return field + self.dab(bag, (14, 5.5, 9), (0, 0.25 * lift, 0.35 * forward))

    def lid(self, name: str) -> Array:
        """What an expression does to the left lids."""
        return lids.raise_lids(self.anatomy, 0, *LID_PART[name])


def left_or_whole(face: Face) -> dict[str, Array]:
    """Paired expressions on the left, and the symmetric ones whole."""
    a, left = face.anatomy, face.left_lips
    e: dict[str, Array] = {}
    e["eyeBlink"] = lids.blink(a, 0)[0]
    e["eyeSquint"] = face.lid("eyeSquint") + face.cheek(1.2, 0.7)
    e["eyeSquint"] += face.fold([face.at("eye_outer", 6, 3), face.at("eye_outer", 11, 5, -6)], (5, 1.8, 8), -0.5)
    e["eyeWide"] = face.lid("eyeWide") + face.brow((0, 0.6, 0), (0, 0.8, 0), (0, 0.6, 0))
    frown_line = [face.on_skin(np.array([7 * MM, face.p["eye"][1] + y * MM, 0.05])) for y in (14, 20, 26)]
    e["browDown"] = face.brow((-3.2, -5.6, 1.6), (-1.2, -3.8, 1.2), (0, -1.2, 0.4)) + face.fold(
        frown_line, (2.4, 6, 8), -0.9
    )
    e["browDown"] += face.lid("browDown")
    e["browOuterUp"] = face.brow((0, 1.2, 0), (0.3, 5.0, 0), (0.5, 6.5, -0.5)) + face.lid("browOuterUp")
    e["cheekSquint"] = face.cheek(4.6, 3.0) + face.lid("cheekSquint")
    e["cheekSquint"] += face.fold([face.at("eye_outer", 6, -3), face.at("eye_outer", 11, -6, -6)], (5, 1.8, 8), -0.5)
    wing = face.at("ala", -2, 2)
    e["noseSneer"] = face.dab(wing, (8, 10, 13), (0.8, 3.6, -0.4)) + face.nasolabial(1.2, 1.4)
    e["noseSneer"] += face.lips(upper=(0.3, 2.6, 0.8), at=0.4, only=left)
    e["noseSneer"] += face.dab(face.at("sellion", 7, -4, -3), (6, 8, 9), (-0.6, 2.0, 0.9)) + face.cheek(1.6, 0.8)
    e["noseSneer"] += face.brow((-0.8, -1.6, 0.4), (0, -0.6, 0), (0, 0, 0))
    e["mouthSmile"] = (
        face.lips(corner=(7.8, 8.4, -5.2), upper=(0, 1.0, -1.8), lower=(0, 0.8, -1.6), only=left)
        + face.cheek(4.2, 4.2)
        + face.nasolabial(2.6, 2.4)
        + face.lid("mouthSmile")
        + face.dab(face.at("ala", -1, 1), (7, 7, 10), (1.3, 0.5, -0.3))
    )
    e["mouthFrown"] = (
        face.lips(corner=(1.2, -7.0, -1.2), upper=(0, -0.6, 0), lower=(0, 0.9, 0.8), only=left)
        + face.fold(
            [face.on_skin(face.at("lip_corner", 4, -6)), face.on_skin(face.at("lip_corner", 6, -17))], (4, 6, 9), -1.1
        )
        + face.dab(face.at("chin", 9, 6), (10, 9, 14), (0, 1.3, 0.9))
    )
    e["mouthDimple"] = face.lips(corner=(3.8, 1.4, -4.2), lower=(0, 0, -0.5), upper=(0, 0, -0.5), only=left, spread=2.4)
    e["mouthDimple"] += face.fold([face.on_skin(face.at("lip_corner", 7, 1))], (4, 6, 10), -1.8)
    e["mouthStretch"] = face.lips(corner=(8.0, -2.6, -5.0), upper=(0, -0.4, -1.2), lower=(0, -1.2, -1.2), only=left)
    e["mouthStretch"] += face.dab(face.at("lip_corner", 10, -20, -12), (14, 16, 18), (1.8, -2.4, -1.0))

    def pressed(inward: Array, upper: Array) -> Array:
        thin = np.stack(
            [0 * inward * upper, (1 - inward) * (-1.9 * upper + 2.3 * (1 - upper)), -1.5 + 0 * inward * upper], -1
        )
        return thin * (1 - 0.8 * face.u**2)[None, :, None]

    e["mouthPress"] = face.lips(corner=(1.6, 0.4, -1.4), only=left, roll=pressed)
    e["mouthLowerDown"] = face.lips(lower=(0.4, -6.0, 0.6), at=0.42, only=left)
    e["mouthUpperUp"] = face.lips(upper=(0.3, 5.4, 0.9), at=0.42, only=left) + face.nasolabial(0.8, 0.8)
    e["mouthUpperUp"] += face.dab(face.at("ala", -1, 1), (7, 8, 11), (0.3, 1.5, -0.2))

    e["browInnerUp"] = face.brow((0.5, 6.6, 0), (0, 3.0, 0), (0, -0.3, 0))
    centre = face.on_skin(face.at("lip_corner", 15, -2))
    e["cheekPuff"] = face.dab(centre, (19, 21, 26), (7.5, 0.5, 3.2)) + face.dab(
        face.at("upper_lip", 8, 8), (14, 7, 12), (0, 0, 2.4)
    )
    e["cheekPuff"] += face.dab(face.at("lower_lip", 8, -8), (14, 6, 12), (0, 0, 2.2)) + face.lips(
        corner=(-1.5, 0, 1.0), roll=pressed, only=left
    )

    def pout(inward: Array, upper: Array) -> Array:
        y = (1 - inward) * (1.2 * upper - 1.6 * (1 - upper))
        return np.stack([0 * y, y, 1.2 * (1 - inward) + 0 * upper], -1) * (1 - face.u**2)[None, :, None]

    e["mouthPucker"] = face.lips(
        corner=(-11.0, 0.3, 2.8), upper=(0, 0.4, 6.5), lower=(0, 0.2, 6.2), spread=1.15, roll=pout
    )
    e["mouthFunnel"] = face.lips(
        corner=(-6.5, -0.5, 2.6), upper=(0, 3.6, 5.6), lower=(0, -5.0, 5.4), spread=1.2, roll=pout
    )

    def tuck_lower(inward: Array, upper: Array) -> Array:
        w = (1 - upper) * (1 - face.u**2.5)[None]
        return np.stack([0 * w * inward, w * (4.4 - 4.0 * inward), -w * (3.2 + 2.2 * np.sin(np.pi * inward))], -1)

    def tuck_upper(inward: Array, upper: Array) -> Array:
        w = upper * (1 - face.u**2.5)[None]
        return np.stack([0 * w * inward, -w * (3.8 - 3.4 * inward), -w * (2.6 + 2.0 * np.sin(np.pi * inward))], -1)

    e["mouthRollLower"] = face.lips(roll=tuck_lower)
    e["mouthRollUpper"] = face.lips(roll=tuck_upper)
    e["mouthShrugLower"] = face.lips(upper=(0, 2.2, 0.8), lower=(0, 3.4, 2.4), corner=(0, -1.2, 0))
    e["mouthShrugLower"] += face.dab(face.at("chin", 0, 6), (19, 13, 16), (0, 3.6, 0.8))
    e["mouthShrugUpper"] = face.lips(upper=(0, 3.0, 1.6), lower=(0, 1.4, 0.8))
    e["mouthClose"] = close_lips(face)
    weight = jaw_weights(a)[:, None]
    e["jawForward"] = weight * np.array([0, -0.6, 6.0]) * MM
    e["lipsPart"] = face.lips(upper=(0, 1.6, 0.3), lower=(0, -3.0, 0.2))
    hollow = face.on_skin(face.at("lip_corner", 16, 6))
    e["cheekSuck"] = face.dab(hollow, (14, 17, 24), (-6.0, 0, -1.8)) + face.lips(
        corner=(-3.0, 0, 2.0), upper=(0, 0, 1.2), lower=(0, 0, 1.2)
    )
    e["nostrilFlare"] = face.dab(face.at("ala", 0, 0, -1), (5.5, 6, 8), (2.2, 0.5, 0))
    e["jawClench"] = face.dab(face.at("ear", -6, -46, 22), (13, 17, 15), (2.8, 0, 0.6))
    throat = face.at("chin", 0, -60, -55)
    e["neckTense"] = face.dab(throat + np.array([26, 0, -4]) * MM, (9, 34, 20), (2.4, 0, 2.2)) + face.dab(
        face.at("lip_corner", 8, -26, -14), (14, 14, 18), (1.2, -2.2, 0)
    )
    e["larynxUp"] = face.dab(throat + np.array([0, 12, 10]) * MM, (13, 15, 26), (0, 4.0, 1.2))
    e["browTilt"] = 0.5 * e["browOuterUp"] + 0.35 * face.brow((0, 4.5, 0), (0, 3.5, 0), (0, 0, 0))
    e["cheekPuffAside"] = e["cheekPuff"]
    return e


def close_lips(face: Face) -> Array:
    """mouthClose: at any coefficient c it closes the lips that jawOpen = c has parted (to first order)."""
    a = face.anatomy
    weight, turn = jaw_weights(a), hinge(a)
    d = a.vertices - turn
    c, s = np.cos(JAW_OPEN), np.sin(JAW_OPEN)
    opened = np.stack([d[:, 0], c * d[:, 1] - s * d[:, 2], s * d[:, 1] + c * d[:, 2]], 1) - d
    contact = a.mouth.rings[a.mouth.contact]
    drop = weight[contact][:, None] * opened[contact]
    order = np.argsort(face.lateral)
    up, low = np.flatnonzero(face.side >= 0), np.flatnonzero(face.side <= 0)

    def across(columns: Index) -> Array:
        index = order[np.isin(order, columns)]
        return np.stack([np.interp(face.lateral, face.lateral[index], drop[index, k]) for k in range(3)], 1)

    top, bottom = across(up), across(low)
    meet = 0.30 * bottom + 0.70 * top
    want = meet - drop
    # The lower lip's way is counted before the jaw turns.
    back = np.stack([want[:, 0], c * want[:, 1] + s * want[:, 2], -s * want[:, 1] + c * want[:, 2]], 1)
    share = weight[contact][:, None]
    want = want * (1 - share) + back * share
    field = want[None] * face.carry[:, None, None]
    out = np.zeros_like(a.vertices)
    out[face.red] = field
    return face.membrane(out)


def directions(anatomy: Anatomy) -> tuple[Array, dict[tuple[int, int], Array]]:
    """The (50, V, 3) expression directions in the order of :data:`NAMES`, and correctives (V, 3) by pair of indices."""
    face = Face(anatomy)
    drawn = left_or_whole(face)
    by_name: dict[str, Array] = {}
    for name in PAIRED:
        field = drawn[name] if name == "eyeBlink" else relax(anatomy, lids.spare_balls(anatomy, drawn[name]))
        by_name[name + "Left"], by_name[name + "Right"] = field, anatomy.reflect(field)
    for name in (*SYMMETRIC, *OWN):
        field = drawn[name]
        if name in (
            "cheekPuff",
            "browInnerUp",
            "nostrilFlare",
            "jawClench",
            "neckTense",
            "cheekSuck",
        ):  # drawn on the left
            field = field + anatomy.reflect(field)
        by_name[name] = anatomy.symmetric(relax(anatomy, lids.spare_balls(anatomy, field)))
    cheek = stroke(anatomy, face.on_skin(face.at("lip_corner", 15, 2)), (16, 18, 24), (2.0, 0, 1.4))
    mouth = face.lips(roll=lambda i, u: np.array([6.5, 0, 0]) * (1 - 0.1 * i[..., None]) + 0 * u[..., None]) + cheek
    shift = jaw_weights(anatomy)[:, None] * np.array([6.5, 0, 0]) * MM
    for name, field in (("mouth", mouth), ("jaw", shift)):
        field = relax(anatomy, lids.spare_balls(anatomy, field))
        by_name[name + "Left"], by_name[name + "Right"] = field, anatomy.reflect(field)
    for name in ODD:
        by_name[name] = relax(anatomy, anatomy.antisymmetric(lids.spare_balls(anatomy, drawn[name])) * 2, (1.0, -1.0))
        by_name[name] = anatomy.antisymmetric(by_name[name])
    arc = lids.blink(anatomy, 0)[1]
    pairs: dict[tuple[int, int], Array] = {}
    for side in ("Left", "Right"):
        blink = NAMES.index("eyeBlink" + side)
        fields = {"eyeBlink": arc} | {name: -face.lid(name) for name in LID_PART}
        for name, field in fields.items():
            pairs[blink, NAMES.index(name + side)] = field if side == "Left" else anatomy.reflect(field)
    return np.stack([by_name[name] for name in NAMES]), pairs
