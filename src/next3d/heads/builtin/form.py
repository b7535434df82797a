"""The skin of face, jaw and cranium: a surface star-shaped about one point, and an even layout of the grid on it.

The radius over direction is a cubic radial basis function through the stations; balls and capsules joined smoothly add
the nose (:mod:`.nose`). The grid is laid on it by Laplacian relaxation and then by biharmonic fairing of the
mirrored mesh: without the latter, sheared rows of quads shade as wrinkles.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.interpolate import PchipInterpolator, RBFInterpolator
from scipy.sparse.linalg import splu

from . import nose, stations
from .stations import CENTRE

Array = NDArray[np.float64]


def unit(vectors: Array) -> Array:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def smoothstep(low: float, high: float, x: ArrayLike) -> Array:
    """0 below ``low``, 1 above ``high`` (either order), a cubic between."""
    t = np.clip((np.asarray(x, float) - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def resample(points: ArrayLike, count: int) -> Array:
    """(count, k) points evenly spaced along a smooth curve through ``points`` (P, k)."""
    points = np.asarray(points, float)
    s = np.r_[0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))]
    return PchipInterpolator(s, points)(np.linspace(0, s[-1], count))


def cranium() -> Array:
    """(P, 3) points of the braincase where no other station decides: a Fibonacci spiral on the superellipsoid."""
    n = 420
    k = np.arange(n) + 0.5
    polar, turn = np.arccos(1 - 2 * k / n), np.pi * (1 + 5**0.5) * k
    d = np.stack([np.cos(turn) * np.sin(polar), np.cos(polar), np.sin(turn) * np.sin(polar)], 1)
    power = stations.CRANIUM_POWER
    p = d / (np.abs(d / stations.CRANIUM_AXES) ** power).sum(1, keepdims=True) ** (1 / power)
    p[:, 0] *= 1 + stations.CRANIUM_PARIETAL * np.exp(-(((p[:, 2] + 25) / 42) ** 2))
    p[:, 2] *= 1 + np.where(p[:, 1] < 0, 0.0014 * p[:, 1], 0)  # the occiput tucks in below
    p += stations.CRANIUM_CENTRE
    _, y, z = p.T
    return p[(y > 104) | ((y > 2) & (z < -58)) | ((y > 62) & (z < -12))]


def points() -> Array:
    """(P, 3) all stations of the skin, both sides."""
    face = [(x, y, z) for y, row in stations.FACE_DEPTH.items() for x, z in zip(stations.FACE_X, row) if z is not None]
    half = np.concatenate([np.array(face), stations.JAW, stations.NAPE, stations.NECK_RING, cranium()])
    return np.unique(np.round(np.concatenate([half, half * [-1, 1, 1]]), 4), axis=0)


class Skin:
    """The star-shaped surface, nose included."""

    def __init__(self) -> None:
        p = points()
        offset = p - CENTRE
        smoothing = np.where((p[:, 1] > 36) & (p[:, 2] > -10), 3e-1, 1e-1)  # mm²-scaled: foreheads are smooth
        self.interpolate = RBFInterpolator(
            unit(offset), np.linalg.norm(offset, axis=1), kernel="cubic", degree=1, smoothing=smoothing * 2e-2
        )

    def radius(self, directions: Array) -> Array:
        """(P,) distance from CENTRE to the skin, in mm, along unit directions (P, 3)."""
        base = self.interpolate(directions)
        near = np.flatnonzero(nose.may_meet(CENTRE, directions))
        if len(near):
            base[near] = nose.meet(CENTRE, directions[near], base[near])
        return base

    def project(self, positions: Array) -> Array:
        """(P, 3) positions moved along the ray from CENTRE onto the skin."""
        d = unit(positions - CENTRE)
        return CENTRE + self.radius(d)[:, None] * d

    def lift(self, xy: ArrayLike, guess: float = 45.0) -> Array:
        """(P, 3) the points of the front of the skin seen at frontal places ``xy`` (P, 2)."""
        xy = np.asarray(xy, float)
        p = np.c_[xy, np.full(len(xy), guess)]
        for _ in range(14):
            p[:, 2] = self.project(p)[:, 2]
        return p


def neighbours(quads: NDArray[np.int64], count: int) -> sparse.csr_matrix:
    """(count, count) 1 where two vertices share an edge."""
    e = np.concatenate([quads[:, [k, (k + 1) % 4]] for k in range(4)])
    e = np.concatenate([e, e[:, ::-1]])
    a = sparse.csr_matrix((np.ones(len(e)), (e[:, 0], e[:, 1])), shape=(count, count))
    a.data[:] = 1
    return a


class Mirrored:
    """Graph of the whole skin made from the left half's quads: fairing across the midline."""

    def __init__(self, quads: NDArray[np.int64], count: int, midline: NDArray[np.int64]) -> None:
        self.count, self.midline = count, midline
        self.off = np.setdiff1d(np.arange(count), midline)
        self.twin = np.arange(count)
        self.twin[self.off] = count + np.arange(len(self.off))
        self.total = count + len(self.off)
        self.quads = np.concatenate([quads, self.twin[quads][:, ::-1]])
        graph = neighbours(self.quads, self.total)
        self.degree = np.asarray(graph.sum(1)).ravel()
        average = sparse.diags(1 / np.maximum(self.degree, 1)) @ graph
        self.laplacian = (average - sparse.eye(self.total)).tocsr()

    def both(self, half: Array) -> Array:
        return np.concatenate([half, half[self.off] * ([-1, 1, 1] if half.ndim == 2 else 1)])

    def relax(self, half: Array, weight: ArrayLike) -> Array:
        """One Laplacian step of the left half (count, 3); ``weight`` (count,) or one number, 0 holds a vertex."""
        step = (self.laplacian @ self.both(half))[: self.count]
        out = half + np.broadcast_to(np.asarray(weight, float), self.count)[:, None] * step
        out[self.midline, 0] = 0
        return out

    def fair(
        self, half: Array, free: NDArray[np.bool_], tether: ArrayLike, edge: NDArray[np.int64] | None = None
    ) -> Array:
        """The left half with ``free`` vertices moved to minimise bending (squared Laplacian), softly tethered.

        ``tether`` (count,) or one number: the pull towards where a vertex was, against bending. Bending is not
        counted at the vertices ``edge``: those of an open border.
        """
        loose = self.both(free.astype(float)) > 0
        linked = self.degree > 0
        pull = self.both(np.broadcast_to(np.asarray(tether, float), self.count))
        weight = np.where(loose, pull, np.where(linked, 1e4, 1.0))
        counted = np.ones(self.total)
        if edge is not None:
            counted[edge] = counted[self.twin[edge]] = 0
        system = (self.laplacian.T @ sparse.diags(counted) @ self.laplacian + sparse.diags(weight)).tocsc()
        solution = splu(system).solve(weight[:, None] * self.both(half))[: self.count]
        out = half.copy()
        out[free] = solution[free]
        out[self.midline, 0] = 0
        return out
