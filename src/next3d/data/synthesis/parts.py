"""Pieces of a scene: meshes with colours, and what carries them along (bones or the skin)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from next3d.data.format import PARTS
from next3d.data.synthesis.identity import linear

BACKGROUND, SKIN, EYES, LIPS, MOUTH, HAIR, THINGS = range(len(PARTS))

# Materials, as the shading kernel knows them
HEAD, FUR, MATTE, SHINY, FLESH, GLASS = range(6)

ROOT, SKULL, JAW = range(3)  # bones


@dataclass(frozen=True)
class Binding:
    """Vertices that ride on the skin: each has a face of the head, a place on it and coordinates in its frame."""

    face: np.ndarray  # (P,)
    barycentric: np.ndarray  # (P, 3)
    local: np.ndarray  # (P, 3) position in the face's frame, metres
    normal: np.ndarray  # (P, 3) in the face's frame
    tangent: np.ndarray  # (P, 3) in the face's frame


@dataclass(frozen=True)
class Part:
    """A mesh of one material, on the neutral head of one person.

    Attributes:
        vertices: (P, 3) metres, head frame
        faces: (F, 3) indices into ``vertices``, counter-clockwise from outside (both sides are drawn)
        normals: (P, 3) unit vectors
        colour: (P, 4) linear RGB and gloss
        material: HEAD, FUR, MATTE, SHINY, FLESH or GLASS
        label: code in the part mask
        bone: ROOT, SKULL or JAW: what it is rigid with, unless ``binding`` is given
        tangent: (P, 3) direction of the strands, zeros where there are none
        uv: (P, 2) across and along the strands
        binding: for what rides on the skin
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    colour: np.ndarray
    material: int
    label: int
    bone: int = SKULL
    tangent: np.ndarray | None = None
    uv: np.ndarray | None = None
    binding: Binding | None = None

    @staticmethod
    def of(
        vertices: np.ndarray,
        faces: np.ndarray,
        srgb: ArrayLike,
        *,
        gloss: float = 0.2,
        shade: np.ndarray | None = None,
        **more,
    ) -> Part:
        """A part of one sRGB colour (or one per vertex), with smooth normals; ``shade`` (P,) or (P, 3) scales it."""
        vertices = np.asarray(vertices, np.float32)
        colour = np.empty((len(vertices), 4), np.float32)
        colour[:, :3] = linear(np.clip(srgb, 0, 1))
        if shade is not None:
            colour[:, :3] *= np.asarray(shade, np.float32).reshape(len(vertices), -1)
        colour[:, 3] = gloss
        faces = np.asarray(faces, np.int64)
        return Part(vertices, faces, vertex_normals(vertices, faces), colour, **more)

    def moved(self, rotation: np.ndarray, offset: ArrayLike) -> Part:
        """The part turned by ``rotation`` (3, 3), then shifted."""
        rotation = np.asarray(rotation, np.float32)
        return replace(
            self,
            vertices=(self.vertices @ rotation.T + np.asarray(offset)).astype(np.float32),
            normals=(self.normals @ rotation.T).astype(np.float32),
        )


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (..., D) scaled to length one; zero stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3) unit normals, faces weighted by area."""
    a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
    face_normals = np.cross(b - a, c - a)
    total = np.stack([np.bincount(faces.ravel(), np.repeat(face_normals[:, k], 3), len(vertices)) for k in range(3)], 1)
    return unit(total).astype(np.float32)


def grid_faces(rows: int, columns: int, closed: bool = False) -> np.ndarray:
    """Triangles of a (rows × columns) grid of vertices; ``closed`` joins the last column to the first."""
    row, column = np.meshgrid(np.arange(rows - 1), np.arange(columns if closed else columns - 1), indexing="ij")
    a = row * columns + column
    b = row * columns + (column + 1) % columns
    quads = np.stack([a, a + columns, b + columns, b], -1).reshape(-1, 4)
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]).astype(np.int64)


def tube(
    path: np.ndarray, radius: ArrayLike, *, closed: bool = False, sides: int = 6, up: ArrayLike = (0, 0, 1)
) -> tuple:
    """Vertices and faces of a tube around ``path`` (K, 3); ``radius`` is a number, or (K,) per point, or a pair of
    half-axes (along ``up`` and across)."""
    path = np.asarray(path, np.float64)
    along = unit(np.roll(path, -1, 0) - np.roll(path, 1, 0)) if closed else unit(np.gradient(path, axis=0))
    across = unit(np.cross(along, np.asarray(up, np.float64)))
    other = np.cross(across, along)
    turn = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    if np.ndim(radius) == 1 and len(np.atleast_1d(radius)) == 2 and len(path) != 2:
        tall, wide = (np.full(len(path), float(r)) for r in np.asarray(radius))
    else:
        tall = wide = np.broadcast_to(np.asarray(radius, np.float64), (len(path),))
    ring = (wide[:, None] * np.cos(turn))[..., None] * across[:, None] + (tall[:, None] * np.sin(turn))[
        ..., None
    ] * other[:, None]
    vertices = (path[:, None] + ring).reshape(-1, 3)
    faces = grid_faces(len(path), sides, closed=True)
    if closed:
        last = grid_faces(2, sides, closed=True)
        last = np.where(last < sides, last + (len(path) - 1) * sides, last - sides)
        faces = np.concatenate([faces, last])
    return vertices, faces[:, ::-1]


def ellipsoid(centre: ArrayLike, radii: ArrayLike, rows: int = 10, columns: int = 14) -> tuple:
    """Vertices and faces of an ellipsoid."""
    theta = np.linspace(0, np.pi, rows)[:, None]
    phi = np.linspace(0, 2 * np.pi, columns, endpoint=False)[None]
    sphere = np.stack(np.broadcast_arrays(np.sin(theta) * np.sin(phi), np.cos(theta), np.sin(theta) * np.cos(phi)), -1)
    return sphere.reshape(-1, 3) * np.asarray(radii) + np.asarray(centre), grid_faces(rows, columns, closed=True)


def join(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Several (vertices, faces) as one."""
    offsets = np.cumsum([0] + [len(v) for v, _ in parts])
    return np.concatenate([v for v, _ in parts]), np.concatenate([f + o for (_, f), o in zip(parts, offsets)])


def frames(vertices: np.ndarray, normals: np.ndarray, faces: np.ndarray, barycentric: np.ndarray) -> tuple:
    """Origins (P, 3) and axes (P, 3, 3; columns: along the first edge, across, outwards) at places on a mesh.

    Args:
        faces: (P, 3) the corner vertices of each place's face
        barycentric: (P, 3)
    """
    corners = vertices[faces]
    origin = np.einsum("pkc,pk->pc", corners, barycentric)
    out = unit(np.einsum("pkc,pk->pc", normals[faces], barycentric))
    edge = corners[:, 1] - corners[:, 0]
    edge = unit(edge - (edge * out).sum(1, keepdims=True) * out)
    return origin, np.stack([edge, np.cross(out, edge), out], -1)
