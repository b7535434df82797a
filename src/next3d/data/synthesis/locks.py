"""Locks of hair: ribbons with a ridge that grow from roots along a combed path and lie on the head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from next3d.data.synthesis.identity import linear
from next3d.data.synthesis.noise import hashed
from next3d.data.synthesis.parts import FUR, HAIR, SKULL, Part, unit


class Hull:
    """The distance of a head's surface from a centre, by direction; hair and hats are kept outside of it."""

    ROWS, COLUMNS = 36, 72

    def __init__(self, points: np.ndarray, centre: np.ndarray, smooth: float = 0.8) -> None:
        """From points (N, 3) of the surface."""
        self.centre = centre.astype(np.float64)
        offset = points - self.centre
        distance = np.linalg.norm(offset, axis=1)
        row, column = self._cell(offset / distance[:, None])
        grid = np.zeros((self.ROWS, self.COLUMNS))
        np.maximum.at(
            grid,
            (np.rint(row).astype(int).clip(0, self.ROWS - 1), np.rint(column).astype(int) % self.COLUMNS),
            distance,
        )
        wide = np.concatenate([grid] * 3, 1)
        nearest = ndimage.distance_transform_edt(wide == 0, return_distances=False, return_indices=True)
        wide = ndimage.gaussian_filter(wide[tuple(nearest)], smooth, mode="nearest")
        self.grid = wide[:, self.COLUMNS : 2 * self.COLUMNS]

    def _cell(self, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        row = np.arccos(np.clip(direction[..., 1], -1, 1)) / np.pi * (self.ROWS - 1)
        column = (np.arctan2(direction[..., 0], direction[..., 2]) / (2 * np.pi) % 1) * self.COLUMNS
        return row, column

    def radius(self, points: np.ndarray) -> np.ndarray:
        """Distance of the surface from the centre in the direction of each point (..., 3)."""
        row, column = self._cell(unit(points - self.centre))
        top = np.minimum(row.astype(int), self.ROWS - 2)
        left = column.astype(int) % self.COLUMNS
        right = (left + 1) % self.COLUMNS
        fr, fc = row - top, column - np.floor(column)
        g = self.grid
        return (g[top, left] * (1 - fc) + g[top, right] * fc) * (1 - fr) + (
            g[top + 1, left] * (1 - fc) + g[top + 1, right] * fc
        ) * fr

    def push_out(self, points: np.ndarray, clearance: ArrayLike) -> np.ndarray:
        """Points moved along their rays so that they stay ``clearance`` above the surface."""
        offset = points - self.centre
        distance = np.linalg.norm(offset, axis=-1)
        least = self.radius(points) + clearance
        scale = np.maximum(distance, least) / np.maximum(distance, 1e-9)
        return self.centre + offset * scale[..., None]


@dataclass
class Style:
    """How locks grow; every field is (L,) per lock or (L, 3), lengths in metres.

    Attributes:
        comb: (L, 3) direction along the skin at the root
        length: of the lock
        lift: 0 lies flat, 1 stands up
        gravity: how soon the lock turns down
        width: half-width of the ribbon
        layer: clearance above the skin
        curl: radius of the curl
        turns: of the curl or wave over the lock
        wave: how far the lock swings from side to side
        guard: degrees around the skull, from the front, that hang free of hair below the brows
    """

    comb: np.ndarray
    length: np.ndarray
    lift: np.ndarray
    gravity: np.ndarray
    width: np.ndarray
    layer: np.ndarray
    curl: np.ndarray
    turns: np.ndarray
    wave: np.ndarray | None = None
    guard: np.ndarray | None = None


def grow(
    roots: np.ndarray, normals: np.ndarray, style: Style, hull: Hull | None, steps: int = 9, seed: int = 0
) -> tuple:
    """Centre lines (L, S, 3) and outward vectors (L, S, 3) of locks from ``roots`` (L, 3)."""
    count = len(roots)
    ids = np.arange(count)
    down = np.array([0.0, -1.0, 0.0])
    path = np.empty((count, steps, 3))
    point = roots.astype(np.float64)
    path[:, 0] = point
    out = normals.astype(np.float64)
    flow = unit(style.comb - (style.comb * out).sum(1, keepdims=True) * out)
    step = (style.length / (steps - 1))[:, None]
    for s in range(1, steps):
        t = s / (steps - 1)
        fade = np.where(style.gravity > 0.8, (1 - t) ** 3 - 0.12 * t, 1 - 0.75 * t)  # hanging hair turns in at its ends
        pull = np.clip(style.gravity * t * 1.6, 0, 1)[:, None]
        direction = unit(flow * (1 - pull) + down * pull + out * (style.lift * fade)[:, None])
        point = point + direction * step
        if hull is not None:
            if style.guard is not None:
                point = _around_face(point, hull.centre, style.guard)
            point = hull.push_out(point, style.layer * min(1, 2.2 * t))
            direction = unit(point - path[:, s - 1])
            out = unit(point - hull.centre)
        flow = unit(0.35 * flow + 0.65 * (direction - (direction * out).sum(1, keepdims=True) * out * 0.8))
        path[:, s] = point
    for _ in range(2):  # no kinks where a lock met the skin or the edge of the face
        path[:, 1:-1] = 0.5 * path[:, 1:-1] + 0.25 * (path[:, :-2] + path[:, 2:])
    along = unit(np.gradient(path, axis=1))
    if hull is not None:
        outward = unit(path - hull.centre)
        outward[..., 1] *= np.where(outward[..., 1] < 0, 0.35, 1)  # hanging hair faces sideways, not down
    else:
        outward = np.broadcast_to(normals[:, None], path.shape)
    outward = unit(outward - (outward * along).sum(-1, keepdims=True) * along)
    if style.wave is not None and (style.wave > 0).any():
        run = np.linspace(0, 1, steps)
        turn = 2 * np.pi * (style.turns[:, None] * run + 0.35 * hashed(ids, seed, 6)[:, None])
        swing = style.wave[:, None] * np.minimum(1, 1.6 * run) * np.sin(turn)
        path = path + swing[..., None] * (np.cross(along, outward) + 0.5 * outward)
    if (style.curl > 0).any():
        side = np.cross(along, outward)
        phase = 2 * np.pi * hashed(ids, seed, 5)[:, None]
        turn = phase + 2 * np.pi * style.turns[:, None] * np.linspace(0, 1, steps)
        radius = style.curl[:, None] * np.minimum(1, 3 * np.linspace(0, 1, steps))
        path = path + radius[..., None] * (np.cos(turn)[..., None] * side + (1 + np.sin(turn))[..., None] * outward)
    return path, outward


def _around_face(points: np.ndarray, centre: np.ndarray, guard: np.ndarray) -> np.ndarray:
    """Points (L, 3) turned about the skull's upright axis until none hangs before the face."""
    offset = points - centre
    azimuth = np.arctan2(offset[:, 0], offset[:, 2])
    height = offset[:, 1] / 0.01
    least = np.radians(guard) * np.clip((5.2 - height) / 3.0, 0, 1)
    turned = np.where(azimuth < 0, -1, 1) * np.maximum(np.abs(azimuth), least)
    radius = np.hypot(offset[:, 0], offset[:, 2])
    return centre + np.stack([radius * np.sin(turned), offset[:, 1], radius * np.cos(turned)], 1)


TAPER = np.array([(0, 0.72), (0.25, 1.0), (0.6, 0.95), (0.85, 0.62), (1, 0.06)])


def ribbons(
    path: np.ndarray, outward: np.ndarray, width: np.ndarray, srgb: np.ndarray, *, gloss: float, seed: int = 0,
    root_shade: float = 0.62, label: int = HAIR, taper: np.ndarray = TAPER, ridge: float = 0.42, variety: float = 0.16,
) -> Part:  # fmt: skip
    """Locks as ribbons with a ridge: three vertices across, one row per step."""
    count, steps = path.shape[:2]
    t = np.linspace(0, 1, steps)
    along = unit(np.gradient(path, axis=1))
    side = np.cross(along, outward)
    half = (width[:, None] * np.interp(t, taper[:, 0], taper[:, 1]))[..., None]
    across = np.array([-1.0, 0.0, 1.0])
    vertices = path[:, :, None] + half[:, :, None] * (
        across[:, None] * side[:, :, None] + ridge * (1 - across**2)[:, None] * outward[:, :, None]
    )
    normals = unit(outward[:, :, None] + 0.75 * across[:, None] * side[:, :, None])
    ids = np.arange(count)
    tone = 1 + variety * (2 * hashed(ids, seed, 7) - 1)
    shade = tone[:, None] * (root_shade + (1.06 - root_shade) * np.clip(t * 1.5, 0, 1) ** 0.8)
    colour = np.empty((count, steps, 3, 4), np.float32)
    colour[..., :3] = linear(srgb) * shade[..., None, None]
    colour[..., 3] = gloss
    length = np.linalg.norm(np.diff(path, axis=1), axis=-1).sum(1)
    uv = np.empty((count, steps, 3, 2))
    uv[..., 0] = 20 * hashed(ids, seed, 9)[:, None, None] + across * (width[:, None, None] * 400)
    uv[..., 1] = (length[:, None] * t)[..., None] * 100
    quads = _ribbon_faces(steps)
    faces = (quads[None] + (ids * steps * 3)[:, None, None]).reshape(-1, 3)
    flat = lambda array: np.ascontiguousarray(array.reshape(-1, array.shape[-1]), np.float32)  # noqa: E731
    tangent = np.broadcast_to(along[:, :, None], vertices.shape)
    return Part(flat(vertices), faces, flat(normals), flat(colour), FUR, label, SKULL, flat(tangent), flat(uv))


def _ribbon_faces(steps: int) -> np.ndarray:
    rows, columns = np.meshgrid(np.arange(steps - 1), np.arange(2), indexing="ij")
    a = (rows * 3 + columns).ravel()
    return np.concatenate([np.stack([a, a + 3, a + 4], 1), np.stack([a, a + 4, a + 1], 1)])
