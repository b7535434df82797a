"""What the rig knows about a sculpted head: positions, triangles and a few named index sets.

Everything in this folder is a function of an :class:`Anatomy`. Nothing names a vertex by number, so the form may be
sculpted anew and the rig built again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Index = NDArray[np.integer]

MM = 1e-3  # the rig is written in millimetres; arrays are in metres
MIRROR = np.array([-1.0, 1.0, 1.0])  # reflection through the plane x = 0


@dataclass(frozen=True)
class Eye:
    """One eye: concentric vertex rings around the fissure and the ball behind them.

    Attributes:
        rings: (K, n) from the orbit inwards; ring ``margin`` is the outer edge of the lid margin, the next one its
            inner edge, the rest are hidden behind the lids. Columns of both eyes correspond by mirroring.
        margin: the index of the margin ring
        upper: (n,) columns that belong to the upper lid, the two corners excluded
        inner, outer: the columns of the corner at the nose and of the corner at the temple
        ball: vertices of the eyeball
    """

    rings: Index
    margin: int
    upper: NDArray[np.bool_]
    inner: int
    outer: int
    ball: Index


@dataclass(frozen=True)
class Mouth:
    """The mouth: closed vertex rings from the skin inwards.

    Attributes:
        rings: (K, n) from the skin around the mouth to the inside
        border: the ring on the border of the red of the lips
        contact: the ring where the lips touch; deeper rings line the mouth
        left, right, upper_mid, lower_mid: columns of the corners and of the two midpoints
    """

    rings: Index
    border: int
    contact: int
    left: int
    right: int
    upper_mid: int
    lower_mid: int


@dataclass(frozen=True, eq=False)  # compared and hashed by identity, so that what is measured on it can be cached
class Anatomy:
    """A head in metres, head frame, exactly symmetric: ``vertices[mirror] == vertices · (−1, 1, 1)``."""

    vertices: Array  # (V, 3)
    triangles: Index  # (F, 3)
    mirror: Index  # (V,)
    eyes: tuple[Eye, Eye]  # left, right
    mouth: Mouth
    ears: tuple[Index, Index]
    nostrils: tuple[Index, Index]  # the insides of the nostrils
    neck: Index  # the ring of vertices where the neck ends
    skin: Index  # all vertices that are not eyeballs

    @cached_property
    def count(self) -> int:
        return len(self.vertices)

    @cached_property
    def normals(self) -> Array:
        return vertex_normals(self.vertices, self.triangles)

    @cached_property
    def is_skin(self) -> NDArray[np.bool_]:
        mask = np.zeros(self.count, bool)
        mask[self.skin] = True
        return mask

    @cached_property
    def spheres(self) -> tuple[tuple[Array, float], tuple[Array, float]]:
        """Centre and radius of the left and of the right eyeball, by least squares."""
        fits = [fit_sphere(self.vertices[eye.ball]) for eye in self.eyes]
        return fits[0], fits[1]

    @cached_property
    def depth(self) -> Array:
        """(V,) z measured from 25 mm behind the centres of the eyes, so that a head may be moved in its frame."""
        return self.vertices[:, 2] - self.base_depth

    @cached_property
    def base_depth(self) -> float:
        return float(self.spheres[0][0][2] - 25 * MM)

    def reflect(self, field: Array) -> Array:
        """The mirror image of a field of vectors (V, 3) on the head."""
        return field[self.mirror] * MIRROR

    def symmetric(self, field: Array) -> Array:
        """The symmetric part of a field of vectors (V, 3); exact in floating point."""
        return (field + self.reflect(field)) / 2

    def antisymmetric(self, field: Array) -> Array:
        return (field - self.reflect(field)) / 2

    @cached_property
    def points(self) -> dict[str, Array]:
        """Measured places (3,), of the left side where they come in pairs."""
        x, eye, mouth = self.vertices, self.eyes[0], self.mouth
        midline = np.flatnonzero((self.mirror == np.arange(self.count)) & self.is_skin)
        front = midline[self.depth[midline] > 0]
        margin, border, contact = eye.rings[eye.margin], mouth.rings[mouth.border], mouth.rings[mouth.contact]
        tip = front[np.argmax(x[front, 2])]
        upper_lip, lower_lip = x[border[mouth.upper_mid]], x[border[mouth.lower_mid]]
        between = front[(x[front, 1] < x[tip, 1]) & (x[front, 1] > upper_lip[1])]
        subnasale = between[np.argmin(x[between, 2] - 0.5 * (x[between, 1] - upper_lip[1]))]
        bridge = front[(x[front, 1] > x[tip, 1]) & (x[front, 1] < x[margin[eye.inner], 1] + 15 * MM)]
        sellion = bridge[np.argmin(x[bridge, 2])]
        below = front[(x[front, 1] < lower_lip[1] - 8 * MM) & (x[front, 1] > lower_lip[1] - 45 * MM)]
        chin = below[np.argmax(x[below, 2] - 0.4 * (x[below, 1]))]
        nostril = x[self.nostrils[0]].mean(0)
        around = np.linalg.norm((x - nostril) / np.array([1, 1, 1.2]), axis=1) < 15 * MM
        wing = np.flatnonzero(around & self.is_skin & (self.normals[:, 0] > 0.62) & (x[:, 1] > nostril[1] - 3 * MM))
        wing = np.setdiff1d(wing, self.nostrils[0])
        ala = wing[np.argmax(x[wing, 0])]
        ear = x[self.ears[0]]
        return {
            "nose_tip": x[tip],
            "subnasale": x[subnasale],
            "sellion": x[sellion],
            "ala": x[ala],
            "chin": x[chin],
            "lip_corner": x[border[mouth.left]],
            "upper_lip": upper_lip,
            "lower_lip": lower_lip,
            "lip_contact": (x[contact[mouth.upper_mid]] + x[contact[mouth.lower_mid]]) / 2,
            "eye_inner": x[margin[eye.inner]],
            "eye_outer": x[margin[eye.outer]],
            "eye": self.spheres[0][0],
            "ear": ear.mean(0),
            "vertex": x[np.argmax(x[:, 1])],
            "occiput": x[np.argmin(x[:, 2])],
        }


def fit_sphere(points: Array) -> tuple[Array, float]:
    """Centre (3,) and radius of the sphere nearest to the points (P, 3)."""
    a = np.c_[2 * points, np.ones(len(points))]
    solution = np.linalg.lstsq(a, (points**2).sum(1), rcond=None)[0]
    return solution[:3], float(np.sqrt(solution[3] + solution[:3] @ solution[:3]))


def vertex_normals(vertices: Array, triangles: Index) -> Array:
    """Unit normals (V, 3), weighted by area."""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    face = np.cross(b - a, c - a)
    normals = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(normals, triangles[:, k], face)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)


def smoothstep(low: float, high: float, x: Array) -> Array:
    """0 below ``low``, 1 above ``high`` (either order), a cubic between."""
    t = np.clip((np.asarray(x, float) - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)
