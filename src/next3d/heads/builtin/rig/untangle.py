"""Directions that stay free of folds together: where random heads fold, the directions are smoothed."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from .anatomy import Anatomy, Array, Index
from .fields import laplacian

HEADS, ROUNDS = 80, 160
JAW = 30.0  # degrees
ACTIVE = 0.28  # share of the expressions that a random head shows


def neighbours(triangles: Index) -> Index:
    """(P, 2) pairs of triangles that share an edge."""
    edges = np.concatenate([np.sort(triangles[:, pair], axis=1) for pair in ([0, 1], [1, 2], [2, 0])])
    owner = np.tile(np.arange(len(triangles)), 3)
    order = np.lexsort((edges[:, 1], edges[:, 0]))
    edges, owner = edges[order], owner[order]
    same = (edges[1:] == edges[:-1]).all(1)
    return np.stack([owner[:-1][same], owner[1:][same]], 1)


def unit_normals(vertices: Array, triangles: Index) -> tuple[Array, Array]:
    """Unit normals (N, F, 3) and doubled areas (N, F) of vertices (N, V, 3)."""
    a, b, c = (vertices[:, triangles[:, k]] for k in range(3))
    normals = np.cross(b - a, c - a)
    size = np.maximum(np.linalg.norm(normals, axis=-1), 1e-20)
    return normals / size[..., None], size


def folded(vertices: Array, rest: Array, triangles: Index, pairs: Index) -> Array:
    """(N, F) triangles that lie upside down between their neighbours, or have all but vanished.

    Upside down: against at least two neighbours by more than 120°, where at rest the surface is not creased like that.
    """
    now, size = unit_normals(vertices, triangles)
    before, size_before = unit_normals(rest[None], triangles)
    a, b = pairs.T
    crease = (before[:, a] * before[:, b]).sum(-1) < -0.1
    turned = ((now[:, a] * now[:, b]).sum(-1) < -0.5) & ~crease
    upset = sparse.csr_matrix(
        (np.ones(2 * len(pairs), np.int8), (pairs.T.ravel(), np.tile(np.arange(len(pairs)), 2))),
        shape=(len(triangles), len(pairs)),
    )
    count = upset @ turned.T.astype(np.int8)
    return (count.T >= 2) | (size < 0.03 * size_before)


def jaw_turned(vertices: Array, weight: Array, hinge: Array, angles: Array) -> Array:
    """Vertices (N, V, 3) with the jaw opened by angles (N,), blended linearly."""
    d = vertices - hinge
    c, s = np.cos(angles)[:, None], np.sin(angles)[:, None]
    turned = np.stack([d[..., 0], c * d[..., 1] - s * d[..., 2], s * d[..., 1] + c * d[..., 2]], -1)
    return vertices + weight[:, None] * (turned - d)


class Smoother:
    """Smooths directions around the triangles that folded in a batch of heads."""

    def __init__(self, anatomy: Anatomy, hold: Index):
        self.anatomy = anatomy
        self.average, self.pairs = laplacian(anatomy), neighbours(anatomy.triangles)
        self.on_skin = anatomy.is_skin[anatomy.triangles].all(1)
        self.movable = anatomy.is_skin.copy()
        self.movable[hold] = False

    def __call__(self, heads: Array, directions: Array) -> None:
        """Smooth ``directions`` (n, V, 3) in place where ``heads`` (N, V, 3) fold."""
        a = self.anatomy
        bad = folded(heads, a.vertices, a.triangles, self.pairs).any(0) & self.on_skin
        touched = np.zeros(a.count, bool)
        touched[a.triangles[bad]] = True
        touched |= touched[a.mirror]
        around = np.asarray((self.average != 0) @ touched, bool)
        weight = np.maximum(touched, 0.6 * around) * self.movable
        index = np.flatnonzero(weight)
        for field in directions if len(index) else ():
            field[index] += (0.5 * weight[index])[:, None] * (self.average[index] @ field)


def untangle_shapes(anatomy: Anatomy, shapes: Array, hold: Index) -> Array:
    """Shape directions (100, V, 3) smoothed where random heads fold; ``hold`` are vertices that keep their motion."""
    random, out, smooth = np.random.default_rng(5), shapes.copy(), Smoother(anatomy, hold)
    for _ in range(ROUNDS // 3):
        shape = np.clip(1.25 * random.normal(size=(HEADS, len(out))), -2.5, 2.5)
        smooth(anatomy.vertices + np.tensordot(shape, out, 1), out)
    return out


def untangle(
    anatomy: Anatomy,
    shapes: Array,
    expressions: Array,
    pairs: Index,
    correctives: Array,
    jaw: Array,
    hinge: Array,
    hold: Index,
    closing: int,
) -> tuple[Array, Array]:
    """Expression directions (50, V, 3) and correctives (K, V, 3), smoothed alike where random heads fold.

    Args:
        shapes: (100, V, 3); they enter the random heads and stay as they are
        pairs: (K, 2) the expressions whose product drives each corrective
        jaw, hinge: the jaw's weights (V,) and its axis (3,)
        hold: vertices that keep their motion (lid margins)
        closing: the expression that closes the lips over an open jaw
    """
    random, smooth = np.random.default_rng(7), Smoother(anatomy, hold)
    fields, count = np.concatenate([expressions, correctives]), len(expressions)
    for _ in range(ROUNDS):
        shape = np.clip(random.normal(size=(HEADS, len(shapes))), -2.5, 2.5)
        face = random.uniform(size=(HEADS, count)) * (random.uniform(size=(HEADS, count)) < ACTIVE)
        open_jaw = random.uniform(size=HEADS)  # lips close (mouthClose) only as far as the jaw has parted them
        face[:, closing] = np.minimum(face[:, closing], open_jaw)
        amounts = np.concatenate([face, face[:, pairs[:, 0]] * face[:, pairs[:, 1]]], 1)
        heads = anatomy.vertices + np.tensordot(shape, shapes, 1) + np.tensordot(amounts, fields, 1)
        smooth(jaw_turned(heads, jaw, hinge, np.radians(JAW * open_jaw)), fields)
    return fields[:count], fields[count:]
