"""Landmarks as places on the mesh: iBUG's 68, the face contour for turned heads, and the irises."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .anatomy import MIRROR, MM, Anatomy, Array, Index
from .jaw import jaw_weights

CONTOUR_YAWS = np.radians(np.arange(-60, 61, 3.0))


@dataclass(frozen=True)
class Places:
    """Points on a mesh: face ids (P,) and barycentric weights (P, 3)."""

    faces: Index
    barycentric: Array

    def points(self, vertices: Array, triangles: Index) -> Array:
        return (vertices[triangles[self.faces]] * self.barycentric[..., None]).sum(-2)


def nearest_places(anatomy: Anatomy, points: ArrayLike, triangles: Index | None = None) -> Places:
    """The nearest places on the mesh (or on the given triangle ids only) of points (P, 3)."""
    wanted: Array = np.atleast_2d(np.asarray(points, float))
    ids = np.arange(len(anatomy.triangles)) if triangles is None else np.asarray(triangles)
    corners = anatomy.vertices[anatomy.triangles[ids]]  # (F, 3, 3)
    a, u, v = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    uu, uv, vv = (u * u).sum(1), (u * v).sum(1), (v * v).sum(1)
    faces, weights = [], []
    for point in wanted:
        near = np.argsort(((corners.mean(1) - point) ** 2).sum(1))[:60]
        d = point - a[near]
        best = None
        du, dv = (d * u[near]).sum(1), (d * v[near]).sum(1)
        det = np.maximum(uu[near] * vv[near] - uv[near] ** 2, 1e-30)
        s = (vv[near] * du - uv[near] * dv) / det
        t = (uu[near] * dv - uv[near] * du) / det
        inside = np.stack([1 - s - t, s, t], 1)
        candidates = [np.where((inside >= 0).all(1)[:, None], inside, np.nan)]
        for i, j in ((0, 1), (1, 2), (2, 0)):  # the edges
            p, q = corners[near, i], corners[near, j]
            r = np.clip(((point - p) * (q - p)).sum(1) / np.maximum(((q - p) ** 2).sum(1), 1e-30), 0, 1)
            w = np.zeros((len(near), 3))
            w[:, i], w[:, j] = 1 - r, r
            candidates.append(w)
        for w in candidates:
            place = (corners[near] * w[..., None]).sum(1)
            distance = np.where(np.isnan(w[:, 0]), np.inf, ((place - point) ** 2).sum(1))
            k = int(np.argmin(distance))
            if best is None or distance[k] < best[0] - 1e-14:
                best = (distance[k], ids[near[k]], w[k])
        assert best is not None
        faces.append(best[1])
        weights.append(best[2])
    return Places(np.array(faces), np.array(weights))


def vertex_places(anatomy: Anatomy, path: Index, where: ArrayLike | None = None) -> Places:
    """Places on a path of vertices (joined by edges), at positions in steps; by default at every vertex."""
    where = np.arange(len(path), dtype=float) if where is None else np.asarray(where, float)
    faces, weights = [], []
    for position in where:
        i = int(np.clip(np.floor(position), 0, len(path) - 2))
        a, b, t = path[i], path[i + 1], position - i
        holders = np.flatnonzero((anatomy.triangles == a).any(1) & (anatomy.triangles == b).any(1))
        if len(holders) == 0:
            raise ValueError("the path of a landmark does not follow edges of the mesh")
        face = holders[0]
        faces.append(face)
        weights.append(np.where(anatomy.triangles[face] == a, 1 - t, np.where(anatomy.triangles[face] == b, t, 0.0)))
    return Places(np.array(faces), np.array(weights))


def even_steps(points: Array, fractions: ArrayLike) -> Array:
    """Positions (in steps) at fractions of the length of a polyline (P, 3)."""
    s = np.r_[0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))]
    return np.interp(np.asarray(fractions) * s[-1], s, np.arange(len(points)))


def ring_path(ring: Index, start: int, end: int, through: int) -> Index:
    """The vertices of a closed ring from column ``start`` to ``end`` by way of ``through``."""
    n = len(ring)
    forward = np.arange(start, start + (end - start) % n + 1) % n
    backward = np.arange(start, start - (start - end) % n - 1, -1) % n
    return ring[forward if through in forward else backward]


def lid_paths(anatomy: Anatomy, side: int) -> tuple[Index, Index]:
    """The upper and the lower lid margin of an eye as vertex paths from the inner to the outer corner."""
    eye = anatomy.eyes[side]
    columns = np.arange(len(eye.upper))
    corners = (columns == eye.inner) | (columns == eye.outer)
    upper, lower = int(columns[eye.upper][len(columns[eye.upper]) // 2]), int(columns[~eye.upper & ~corners][0])
    ring = eye.rings[eye.margin]
    return ring_path(ring, eye.inner, eye.outer, upper), ring_path(ring, eye.inner, eye.outer, lower)


def lip_paths(anatomy: Anatomy, ring: int) -> tuple[Index, Index]:
    """The upper and the lower lip on a ring as vertex paths from the right to the left corner."""
    mouth = anatomy.mouth
    line = mouth.rings[ring]
    return (
        ring_path(line, mouth.right, mouth.left, mouth.upper_mid),
        ring_path(line, mouth.right, mouth.left, mouth.lower_mid),
    )


def ray_places(anatomy: Anatomy, xy: Array, triangles: Index | None = None) -> Places:
    """The foremost places on the skin at frontal positions (P, 2)."""
    ids = np.flatnonzero(anatomy.is_skin[anatomy.triangles].all(1)) if triangles is None else triangles
    corners = anatomy.vertices[anatomy.triangles[ids]]
    faces, weights = [], []
    for point in np.atleast_2d(xy):
        a, b, c = (corners[:, k, :2] for k in range(3))

        def cross(p: Array, q: Array) -> Array:
            return p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]

        area = cross(b - a, c - a)
        safe = np.where(np.abs(area) < 1e-14, 1, area)
        w = (
            np.stack([cross(b - point, c - point), cross(c - point, a - point), cross(a - point, b - point)], 1)
            / safe[:, None]
        )
        hit = (w >= -1e-9).all(1) & (np.abs(area) > 1e-14)
        z = np.where(hit, (corners[..., 2] * w).sum(1), -np.inf)
        k = int(np.argmax(z))
        faces.append(ids[k])
        weights.append(np.clip(w[k], 0, None) / np.clip(w[k], 0, None).sum())
    return Places(np.array(faces), np.array(weights))


def join(*parts: Places) -> Places:
    return Places(np.concatenate([p.faces for p in parts]), np.concatenate([p.barycentric for p in parts]))


def pick(places: Places, index: ArrayLike) -> Places:
    index = np.asarray(index)
    return Places(places.faces[index], places.barycentric[index])


def brow_points(anatomy: Anatomy) -> Array:
    """(5, 2) frontal positions along the left brow, from the nose to the temple."""
    eye = anatomy.points["eye"][:2]
    return eye + np.array([[-19, 17.5], [-10, 21.5], [0, 23], [10, 22], [20, 17]]) * MM


def inner_landmarks(anatomy: Anatomy) -> Places:
    """iBUG landmarks 17–67 (51 of them)."""
    p = anatomy.points
    brow = brow_points(anatomy)
    tip, root, base, wing = p["nose_tip"], p["sellion"], p["subnasale"], p["ala"]
    down = [ray_places(anatomy, np.array([[0, root[1] + t * (tip[1] - root[1])]])) for t in (0.0, 1 / 3, 2 / 3)]
    bridge = join(*down, nearest_places(anatomy, tip))
    below = nearest_places(
        anatomy, [wing + np.array([-2.5, -5, 0]) * MM, (0.5 * wing + 0.5 * base) + np.array([-1, -2, 2]) * MM, base]
    )
    left_below = below.points(anatomy.vertices, anatomy.triangles)
    below = nearest_places(anatomy, np.concatenate([left_below[:2] * MIRROR, left_below[2:], left_below[1::-1]]))
    parts = [ray_places(anatomy, brow[::-1] * [-1, 1]), ray_places(anatomy, brow), bridge, below]
    for side in (1, 0):
        upper, lower = lid_paths(anatomy, side)
        x = anatomy.vertices
        inner_to_outer = join(
            vertex_places(anatomy, upper, even_steps(x[upper], [0, 0.33, 0.67, 1])),
            vertex_places(anatomy, lower, even_steps(x[lower], [0.33, 0.67])),
        )
        parts.append(pick(inner_to_outer, [3, 2, 1, 0, 4, 5] if side == 1 else [0, 1, 2, 3, 5, 4]))
    upper, lower = lip_paths(anatomy, anatomy.mouth.border)
    top = even_steps(anatomy.vertices[upper], [0, 0.20, 0.38, 0.5, 0.62, 0.80, 1])
    parts += [
        vertex_places(anatomy, upper, top),
        vertex_places(anatomy, lower, even_steps(anatomy.vertices[lower], [0.82, 0.66, 0.5, 0.34, 0.18])),
    ]
    upper, lower = lip_paths(anatomy, anatomy.mouth.contact)
    parts += [
        vertex_places(anatomy, upper, even_steps(anatomy.vertices[upper], [0.02, 0.3, 0.5, 0.7, 0.98])),
        vertex_places(anatomy, lower, even_steps(anatomy.vertices[lower], [0.7, 0.5, 0.3])),
    ]
    return join(*parts)


def contour(anatomy: Anatomy) -> Places:
    """(B, 17) places of landmarks 0–16 for heads turned by each of :data:`CONTOUR_YAWS`.

    As in FLAME's embedding: on the side turned away the contour slides to the visible outline of the face; on the side
    turned to the viewer it stays on the jaw line and in front of the ear.
    """
    p = anatomy.points
    tri = anatomy.triangles
    ok = anatomy.is_skin.copy()
    ok[np.concatenate([*anatomy.ears, *anatomy.nostrils, anatomy.mouth.rings.ravel()])] = False
    ear_front = anatomy.vertices[anatomy.ears[0], 2].max() - 4 * MM
    x = anatomy.vertices
    # The face ends in front of the ears, and below at the edge of the jaw, where the skin turns under.
    ok &= (x[:, 2] > ear_front) & (x[:, 1] < p["eye"][1] + 25 * MM) & (anatomy.normals[:, 1] > -0.7)
    ok &= x[:, 1] > p["chin"][1] - 25 * MM
    ok &= (jaw_weights(anatomy) > 0.5) | (x[:, 1] > p["lip_corner"][1] - 26 * MM)
    ids = np.flatnonzero(ok[tri].all(1))
    # A few evenly spread samples in every triangle.
    mesh = np.array([[i, j, 5 - i - j] for i in range(6) for j in range(6 - i)]) / 5.0
    samples = np.einsum("ks,fsc->fkc", mesh, x[tri[ids]]).reshape(-1, 3)
    centre = np.array([0, p["eye"][1] - 25 * MM, p["eye"][2] - 35 * MM])
    angles = jaw_angles(samples, centre, p["eye_outer"][1])
    table: dict[float, Array] = {}
    for yaw in CONTOUR_YAWS[CONTOUR_YAWS >= -1e-9]:
        c, s = np.cos(yaw), np.sin(yaw)
        seen = (samples - centre) @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T
        polar = np.arctan2(seen[:, 0], -seen[:, 1])  # 0 down, + to the subject's left
        radius = np.hypot(seen[:, 0], seen[:, 1])
        found = []
        for angle in angles:
            reach = np.where(np.abs(polar - angle) < np.radians(2.0), radius, -1) - 0.002 * np.abs(polar - angle)
            found.append(samples[int(np.argmax(reach))])
        table[float(yaw)] = np.array(found)
    faces, weights = [], []
    for yaw in CONTOUR_YAWS:
        points = table[min(table, key=lambda k: abs(k - abs(yaw)))]
        if abs(yaw) < 1e-9:
            points = np.concatenate([points[:8], points[8:9] * [0, 1, 1], points[:8][::-1] * MIRROR])
        if yaw < -1e-9:
            points = points[::-1] * MIRROR
        places = nearest_places(anatomy, points, ids)
        faces.append(places.faces)
        weights.append(places.barycentric)
    return Places(np.array(faces), np.array(weights))


def jaw_angles(samples: Array, centre: Array, top: float) -> Array:
    """(17,) polar angles about ``centre`` that divide the frontal outline evenly from the ears to the chin."""
    seen = samples - centre
    polar, radius = np.arctan2(seen[:, 0], -seen[:, 1]), np.hypot(seen[:, 0], seen[:, 1])
    grid = np.radians(np.arange(0, 135, 1.5))
    outline = []
    for angle in grid:
        near = np.abs(polar - angle) < np.radians(2.5)
        outline.append(radius[near].max() if near.any() else np.nan)
    r = np.array(outline)
    y = centre[1] - r * np.cos(grid)
    keep = np.isfinite(r) & (y < top)
    line = np.stack([r * np.sin(grid), y], 1)[keep]
    s = np.r_[0, np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))]
    half = np.interp(np.linspace(0, s[-1], 9), s, grid[keep])  # chin … left ear
    return np.concatenate([-half[:0:-1], half])


def irises(anatomy: Anatomy) -> Places:
    """The centres of the left and the right iris: the foremost points of the balls."""
    parts = []
    for (centre, radius), eye in zip(anatomy.spheres, anatomy.eyes):
        mask = np.zeros(anatomy.count, bool)
        mask[eye.ball] = True
        ids = np.flatnonzero(mask[anatomy.triangles].all(1))
        parts.append(nearest_places(anatomy, centre + np.array([0, 0, radius]), ids))
    return join(*parts)
