"""Smooth fields on the head: brush strokes, and interpolation over the mesh."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from scipy.sparse.linalg import splu

from .anatomy import MM, Anatomy, Array, Index


def blob(anatomy: Anatomy, centre: ArrayLike, size: ArrayLike) -> Array:
    """(V,) a Gaussian exp(−Σ((x − centre)/size)²) around ``centre`` (metres); ``size`` in millimetres, one or three."""
    offset = (anatomy.vertices - np.asarray(centre, float)) / (np.asarray(size, float) * MM)
    return np.exp(-(offset**2).sum(1))


def stroke(anatomy: Anatomy, centre: ArrayLike, size: ArrayLike, vector: ArrayLike) -> Array:
    """(V, 3) a displacement of ``vector`` millimetres under a :func:`blob`."""
    return blob(anatomy, centre, size)[:, None] * np.asarray(vector, float) * MM


def press(anatomy: Anatomy, path: ArrayLike, size: ArrayLike, depth: float) -> Array:
    """(V, 3) a fold along ``path`` (P, 3): ``depth`` millimetres along the normal, negative inwards."""
    weight = np.max([blob(anatomy, point, size) for point in np.asarray(path)], axis=0)
    return weight[:, None] * anatomy.normals * depth * MM


def curve(points: ArrayLike, count: int) -> Array:
    """(count, 3) points evenly spaced along a polyline."""
    points = np.asarray(points, float)
    s = np.r_[0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))]
    return np.stack([np.interp(np.linspace(0, s[-1], count), s, points[:, k]) for k in range(points.shape[1])], 1)


@lru_cache(maxsize=2)
def laplacian(anatomy: Anatomy) -> sparse.csr_matrix:
    """(V, V) average over the neighbours, nearer ones weighing more, minus identity."""
    t = anatomy.triangles
    edges = np.concatenate([t[:, [0, 1]], t[:, [1, 2]], t[:, [2, 0]]])
    edges = np.unique(np.sort(edges, axis=1), axis=0)
    edges = np.concatenate([edges, edges[:, ::-1]])
    length = np.linalg.norm(anatomy.vertices[edges[:, 0]] - anatomy.vertices[edges[:, 1]], axis=1)
    n = anatomy.count
    w = sparse.csr_matrix((1 / (length + 0.5 * MM), (edges[:, 0], edges[:, 1])), shape=(n, n))
    degree = np.maximum(np.asarray(w.sum(1)).ravel(), 1e-9)
    return (sparse.diags(1 / degree) @ w - sparse.identity(n)).tocsr()


def harmonic(anatomy: Anatomy, values: list[tuple[Index, float | Array]]) -> Array:
    """(V,) the smoothest weight (membrane) through the values prescribed on index sets."""
    target, held = np.zeros(anatomy.count), np.zeros(anatomy.count, bool)
    for index, value in values:
        target[index] = value
        held[index] = True
    held[~anatomy.is_skin] = True
    lap = laplacian(anatomy)
    free = ~held
    out = target.copy()
    out[free] = splu(lap[free][:, free].tocsc()).solve(-lap[free][:, held] @ target[held])
    return out


class Membrane:
    """Carries displacements from handles to the skin around them: the thin plate |L d|² with a tether to rest.

    Args:
        anatomy: the head
        handles: vertices whose displacement will be prescribed
        tether: (V,) how strongly each vertex is held at rest; infinite where it must not move
    """

    def __init__(self, anatomy: Anatomy, handles: Index, tether: Array):
        held = np.zeros(anatomy.count, bool)
        held[handles] = True
        held |= ~np.isfinite(tether) | ~anatomy.is_skin
        lap = laplacian(anatomy)
        system = (lap.T @ lap + sparse.diags(np.where(np.isfinite(tether), tether, 0.0))).tocsr()
        self.held, self.free = held, ~held
        self.handles = handles
        self.coupling = system[self.free][:, held]
        self.solver = splu(system[self.free][:, self.free].tocsc())

    def __call__(self, displacement: Array) -> Array:
        """(V, 3) zero but at the handles → (V, 3) everywhere."""
        out = np.zeros_like(displacement)
        out[self.handles] = displacement[self.handles]
        out[self.free] = self.solver.solve(-(self.coupling @ out[self.held]))
        return out


def relax(
    anatomy: Anatomy, field: Array, amounts: tuple[float, ...] = (1.0,), rounds: int = 60, hold: Index | None = None
) -> Array:
    """Smooth a displacement (V, 3) where it would turn a triangle by more than 45° or shrink it below a third.

    Smoothing spreads a fold over its neighbours until it is none; elsewhere and at ``hold`` nothing changes.
    """
    triangles, rest = anatomy.triangles, anatomy.vertices
    average = laplacian(anatomy)
    reach = (average != 0).astype(float)

    def normals(vertices: Array) -> Array:
        a, b, c = (vertices[triangles[:, k]] for k in range(3))
        return np.cross(b - a, c - a)

    still = normals(rest)
    size = np.maximum(np.linalg.norm(still, axis=1), 1e-20)
    field = field.copy()
    for _ in range(rounds):
        bad = np.zeros(len(triangles), bool)
        for amount in amounts:
            now = normals(rest + amount * field)
            length = np.linalg.norm(now, axis=1)
            bad |= ((now * still).sum(1) < 0.7 * length * size) | (length < 0.33 * size)
        bad &= anatomy.is_skin[triangles].all(1)
        if not bad.any():
            break
        weight = np.zeros(anatomy.count)
        weight[triangles[bad]] = 1
        weight = np.minimum(1, weight + 0.5 * (reach @ weight > 0))
        weight[~anatomy.is_skin] = 0
        if hold is not None:
            weight[hold] = 0
        field += 0.6 * weight[:, None] * (average @ field)
    return field
