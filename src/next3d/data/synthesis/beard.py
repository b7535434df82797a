"""Beards, brows and lashes: short locks that ride on the skin, so that they move with the face."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from next3d.data.synthesis.anatomy import EYES, OUTER_LIPS, Anatomy
from next3d.data.synthesis.identity import Identity
from next3d.data.synthesis.locks import Style, grow, ribbons
from next3d.data.synthesis.noise import hashed
from next3d.data.synthesis.parts import Binding, Part, frames, unit
from next3d.data.synthesis.skin import beard_regions, closed_curve, landmarks_of, smoothstep, to_curve

BEARD_LOCKS = 560


def bind(
    part: Part, vertices: np.ndarray, normals: np.ndarray, faces: np.ndarray, face: np.ndarray, places: np.ndarray
) -> Part:
    """Make a part ride on the skin.

    Args:
        vertices, normals, faces: the neutral head
        face: (P,) the face of the head that each vertex of the part rides on
        places: (P, 3) barycentric
    """
    origin, axes = frames(vertices, normals, faces[face], places)
    inverse = axes.transpose(0, 2, 1)
    turn = lambda v: np.einsum("pij,pj->pi", inverse, v).astype(np.float32)  # noqa: E731
    tangent = part.tangent if part.tangent is not None else np.zeros_like(part.vertices)
    binding = Binding(face, places.astype(np.float32), turn(part.vertices - origin), turn(part.normals), turn(tangent))
    return Part(**{**part.__dict__, "binding": binding})


@lru_cache(maxsize=4)
def skin_samples(face: Anatomy) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places on the lower face, evenly by area: faces (K,), barycentric (K, 3), normalised points (K, 3)."""
    f = face.head_faces
    corners = face.vertices[f]
    usable = (face.eyeball[f[:, 0]] == 0) & ~face.inner_mouth[f].any(1) & (face.ear[f[:, 0]] == 0)
    usable &= corners[:, :, 1].mean(1) < face.eye_line - 1.0 * face.unit
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) * usable
    total = np.cumsum(area)
    count = 6000
    chosen = np.searchsorted(total, (np.arange(count) + hashed(np.arange(count), 1)) / count * total[-1]).clip(
        0, len(f) - 1
    )
    a, b = np.sqrt(hashed(np.arange(count), 2)), hashed(np.arange(count), 3)
    places = np.stack([1 - a, a * (1 - b), a * b], 1)
    points = np.einsum("pkc,pk->pc", corners[chosen], places)
    return chosen, places, (points - [0, face.eye_line, 0]) / face.unit


@lru_cache(maxsize=4)
def beard_weights(face: Anatomy) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Moustache, goatee and jaw at :func:`skin_samples`."""
    points = skin_samples(face)[2]
    marks = landmarks_of(face)
    front = points[:, 2] > marks[54, 2] - 1.8
    distance, _ = to_curve(points[:, :2], closed_curve(marks[list(OUTER_LIPS), :2]), True)
    lips = np.where(front, smoothstep(0.15, -0.02, distance), 0)
    return beard_regions(face, points, lips)


def beard(face: Anatomy, who: Identity, vertices: np.ndarray, normals: np.ndarray) -> list[Part]:
    """The beard of a person on the neutral head; empty for none and stubble."""
    if who.beard in ("none", "stubble"):
        return []
    chosen, places, points = skin_samples(face)
    moustache, goatee, jaw = beard_weights(face)
    mask = {"moustache": moustache, "goatee": np.maximum(moustache, goatee)}.get(who.beard)
    if mask is None:
        mask = np.maximum(np.maximum(moustache, goatee), jaw)
    keep = np.flatnonzero(mask > 0.25 + 0.5 * hashed(np.arange(len(mask)), 4))
    keep = keep[np.argsort(hashed(keep, 6))][: BEARD_LOCKS if who.beard == "full" else 300]
    chosen, places, points, lip = (
        chosen[keep],
        places[keep],
        points[keep],
        moustache[keep] > np.maximum(goatee, jaw)[keep],
    )
    cm = face.unit
    count = len(keep)
    random = [hashed(np.arange(count), 200 + k) for k in range(3)]
    origin, axes = frames(vertices, normals, face.head_faces[chosen], places)
    out = axes[..., 2]
    grown = 0.5 + 1.0 * who.quantile("beard_length")
    x = points[:, 0]
    chin = smoothstep(3.5, 0.5, np.abs(x)) * smoothstep(-9.5, -11.5, points[:, 1])
    length = np.where(
        lip, 0.85 + 0.35 * grown, (0.75 + 0.55 * random[0]) * grown + 1.3 * chin * grown * (who.beard != "moustache")
    )
    comb = np.stack([np.where(lip, 1.6 * np.sign(x), 0.25 * np.sign(x)), -1.0 + 0 * x, 0 * x + 0.1], 1)
    one = np.ones(count)
    lift = np.where(lip, 0.3, 0.35 + 0.35 * grown)
    style = Style(comb, length * cm, lift, 0.35 * one, (0.17 + 0.07 * random[1]) * cm, 0 * one, 0 * one, one)
    width = np.where(lip, 0.15, style.width / cm) * cm
    path, outward = grow(origin + 0.02 * cm * out, out, style, None, 4, seed=21)
    part = ribbons(
        path, outward, width, 0.92 * who.brow_colour + 0.08 * who.hair_colour, gloss=0.35, seed=21, root_shade=0.85
    )
    repeat = len(part.vertices) // count
    return [bind(part, vertices, normals, face.head_faces, np.repeat(chosen, repeat), np.repeat(places, repeat, 0))]


@lru_cache(maxsize=4)
def lid_edges(face: Anatomy) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each eye the faces and places along the edge of the upper lid, from the nose outwards."""
    marks = landmarks_of(face)
    f = face.head_faces
    centres = (face.vertices[f].mean(1) - [0, face.eye_line, 0]) / face.unit
    skin = (face.eyeball[f[:, 0]] == 0) & (centres[:, 2] > marks[36:48, 2].min() - 0.8)
    result = []
    for eye in EYES:
        upper = marks[list(eye)][:4]
        upper = upper[np.argsort(np.abs(upper[:, 0]))]
        t = np.linspace(0, 1, 28)
        coefficients = np.polyfit(np.linspace(0, 1, 4), upper, 3)
        line = sum(c[None] * (t[:, None] ** (3 - k)) for k, c in enumerate(coefficients))
        candidates = np.flatnonzero(skin)
        ids = candidates[np.linalg.norm(centres[candidates][None] - line[:, None], axis=-1).argmin(1)]
        result.append((ids, np.full((len(ids), 3), 1 / 3)))
    return result


def lashes(face: Anatomy, who: Identity, vertices: np.ndarray, normals: np.ndarray) -> list[Part]:
    """Upper lashes: fine dark locks along the edges of the upper lids."""
    parts = []
    cm = face.unit
    longer = 0.36 + 0.30 * np.clip(who.quantile("makeup") - 0.4, 0, 1)
    for side, (chosen, places) in zip((1, -1), lid_edges(face)):
        origin, _ = frames(vertices, normals, face.head_faces[chosen], places)
        t = np.linspace(0, 1, len(chosen))
        direction = unit(np.stack([side * (t - 0.35) * 1.1, 0.30 + 0 * t, 1.0 + 0 * t], 1))
        out = unit(np.stack([0 * t, 1.0 + 0 * t, -0.3 + 0 * t], 1))
        length = longer * (0.55 + 0.75 * np.sin(np.pi * np.clip(0.15 + 0.8 * t, 0, 1))) * cm
        s = np.linspace(0, 1, 4)[None, :, None]
        rise = np.array([0, 1.0, 0])
        path = origin[:, None] + length[:, None, None] * (s * direction[:, None] + 0.45 * s**2 * rise)
        outward = np.broadcast_to(out[:, None], path.shape)
        part = ribbons(
            path, outward, np.full(len(t), 0.042 * cm), np.full(3, 0.03), gloss=0.0, root_shade=0.9, ridge=0.1
        )
        repeat = len(part.vertices) // len(t)
        parts.append(
            bind(part, vertices, normals, face.head_faces, np.repeat(chosen, repeat), np.repeat(places, repeat, 0))
        )
    return parts
