"""The inside of the mouth: two rows of teeth, gums, a palate and a tongue. The lower ones move with the jaw."""

from __future__ import annotations

from functools import cache

import numpy as np

from next3d.data.synthesis.anatomy import Anatomy
from next3d.data.synthesis.identity import Identity
from next3d.data.synthesis.parts import FLESH, JAW, MOUTH, SHINY, SKULL, Part, grid_faces

# Widths of the teeth from the midline outwards, in centimetres, and their heights
UPPER = np.array([(0.84, 1.02), (0.66, 0.90), (0.76, 1.00), (0.68, 0.82), (0.68, 0.76), (0.95, 0.70), (0.9, 0.66)])
LOWER = np.array([(0.54, 0.86), (0.58, 0.86), (0.66, 0.94), (0.68, 0.84), (0.70, 0.80), (1.0, 0.72), (0.9, 0.68)])
COLUMNS, ROWS = 6, 7  # of the front of one tooth
PALATE_INSET = 0.34  # centimetres from the middle of the row of teeth to the edge of the palate


def mouth(face: Anatomy, who: Identity, landmarks: np.ndarray) -> list[Part]:
    """Teeth, gums, palate and tongue for a neutral head with the given (68, 3) landmarks."""
    cm = face.unit
    seam = 0.5 * (landmarks[62] + landmarks[66])  # where the lips meet, at their middle
    half = 0.5 * abs(landmarks[54, 0] - landmarks[48, 0])
    front = np.array([0, seam[1] + 0.10 * cm, seam[2] - 0.85 * cm])
    scale = np.clip(half / (2.5 * cm), 0.85, 1.2)
    ivory = np.array([0.93, 0.90, 0.83]) + np.array([0.03, 0.02, 0.05]) * np.tanh(who.axis["lip_depth"])
    gum = np.array([0.72, 0.36, 0.36]) * (0.75 + 0.25 * who.skin.mean() / 0.6)
    parts = []
    for upper, bone, lift, back in ((True, SKULL, -0.34, 0.0), (False, JAW, -0.02, -0.26)):
        up = 1 if upper else -1
        teeth, shade, gums = _row(upper)
        for (points, faces), colour, gloss, material, tone in (
            (teeth, ivory, 0.75, SHINY, shade),
            (gums, gum, 0.45, FLESH, None),
        ):
            points = points * [scale, up, scale] * cm + front + [0, lift * cm, back * cm]
            faces = faces if upper else faces[:, ::-1]
            parts.append(
                Part.of(points, faces, colour, gloss=gloss, shade=tone, material=material, label=MOUTH, bone=bone)
            )
        if upper:
            points, faces, tone = _palate()
            points = points * [scale, up, scale] * cm + front + [0, lift * cm, back * cm]
            parts.append(Part.of(points, faces, gum, gloss=0.35, shade=tone, material=FLESH, label=MOUTH, bone=bone))
    parts.append(_tongue(front, cm * scale, gum))
    return parts


def _arch(length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (K, 2) as (x, z) of a dental arch at signed arc lengths in centimetres, and outward directions (K, 2)."""
    x = np.linspace(0, 2.75, 200)
    z = -0.95 * (x / 1.75) ** 2.6 * 0.9 - 0.14 * x**2
    run = np.concatenate([[0], np.cumsum(np.hypot(np.diff(x), np.diff(z)))])
    at = np.abs(length)
    points = np.stack([np.sign(length) * np.interp(at, run, x), np.interp(at, run, z)], 1)
    slope = np.interp(at, run, np.gradient(z, x))
    outward = np.stack([-np.sign(length) * slope, np.ones_like(at)], 1)
    return points, outward / np.linalg.norm(outward, axis=1, keepdims=True)


@cache
def _row(upper: bool) -> tuple:
    """A row of teeth in centimetres with edges at y = 0, roots upwards: (vertices, faces), shades (V, 3), gums."""
    table = UPPER if upper else LOWER
    starts = np.concatenate([[0], np.cumsum(table[:, 0])])
    blocks, shades, count = [], [], 0
    faces = []
    across = np.linspace(-1, 1, COLUMNS)
    rows = np.linspace(0, 1, ROWS)
    for side in (1, -1):
        for k, (width, height) in enumerate(table):
            s = side * (starts[k] + 0.5 * width + across * 0.5 * width * 0.985 * side)
            points, outward = _arch(s)
            # rounded corners at the edge; canines end in a point
            corner = np.abs(across) ** (3.0 if k != 2 else 1.5) * (0.10 if k != 2 else 0.20)
            low = corner + (0.06 if k == 1 else 0) + 0.015 * k
            grid = np.empty((ROWS + 3, COLUMNS, 3))
            bulge = 0.16 * (1 - 0.75 * across**4)
            for r, t in enumerate(rows):
                y = low + t * (height - low)
                profile = bulge * np.sin(np.pi * (0.28 + 0.55 * t)) - 0.05 * t
                narrow = 1 - 0.10 * t**2
                middle, _ = _arch(np.array([side * (starts[k] + 0.5 * width)]))
                base = middle + (points - middle) * narrow
                p = base + outward * profile[:, None]
                grid[r + 3] = np.stack([p[:, 0], y, p[:, 1]], 1)
            for r, (inset, lift) in enumerate(((0.55, height), (0.46, 0.45), (0.22, 0.02))):
                p = points + outward * (bulge - inset)[:, None]
                grid[r] = np.stack([p[:, 0], low + lift, p[:, 1]], 1)
            tone = np.ones((ROWS + 3, COLUMNS))
            tone[:, [0, -1]] = 0.62
            tone[:2] = 0.6
            tone = tone[..., None] * np.ones(3)
            tone[:3] *= 1.15, 0.92, 0.84  # the backs of the teeth see flesh, not the sky
            tone *= (0.97 - 0.055 * k) * np.linspace(1.0, 0.92, ROWS + 3)[:, None, None]
            blocks.append(grid.reshape(-1, 3))
            shades.append(tone.reshape(-1, 3))
            faces.append(grid_faces(ROWS + 3, COLUMNS) + count)
            count += (ROWS + 3) * COLUMNS
    teeth = np.concatenate(blocks), np.concatenate(faces)[:, ::-1]
    total = starts[-1]
    s = np.linspace(-total, total, 40)
    points, outward = _arch(s)
    gums = np.empty((5, 40, 3))
    tooth = np.abs(np.interp(np.abs(s), starts, np.arange(len(starts))) % 1 - 0.5) * 2
    heights = np.interp(np.abs(s), starts, np.concatenate([table[:1, 1], table[:, 1]]))
    for r, (height, out) in enumerate(((-0.14, 0.03), (-0.02, 0.15), (0.22, 0.20), (0.7, 0.12), (1.1, -0.5))):
        p = points + outward * out
        gums[r] = np.stack([p[:, 0], heights + height - 0.10 * tooth * (r < 2), p[:, 1]], 1)
    return teeth, np.concatenate(shades), (gums.reshape(-1, 3), grid_faces(5, 40)[:, ::-1])


@cache
def _palate() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The roof of the mouth between the upper teeth, in the frame of their row: vertices, faces, shade per vertex."""
    rows, columns = 12, 13
    total = UPPER[:, 0].sum()
    s = total * np.linspace(0.02, 1.25, rows)  # beyond the last teeth it goes on, softly
    points, outward = _arch(np.minimum(s, total))
    edge = points - PALATE_INSET * outward
    u = np.linspace(-1, 1, columns)
    far = np.clip(s / total - 1, 0, None)
    x = np.maximum(edge[:, 0], 0.02)[:, None] * u
    z = np.minimum(edge[:, 1], points[0, 1] - PALATE_INSET)[:, None] - 4.0 * far[:, None] + 0 * u
    rise = 0.95 * np.minimum(1, s / (0.45 * total)) - 1.6 * far
    y = np.interp(s, np.cumsum(UPPER[:, 0]), 0.62 * UPPER[:, 1])[:, None] + rise[:, None] * (1 - u**4)
    shade = np.broadcast_to((1.5 - 1.1 * s / s[-1])[:, None] * (1 - 0.25 * (1 - u**2)), (rows, columns))
    vertices = np.stack([x, y, z], -1).reshape(-1, 3)
    return vertices, grid_faces(rows, columns), shade.ravel()


def _tongue(front: np.ndarray, cm: float, gum: np.ndarray) -> Part:
    rows, columns = 14, 11
    t = np.linspace(0, 1, rows)[:, None]  # tip to root
    u = np.linspace(-1, 1, columns)[None]
    width = 1.75 * np.sqrt(np.clip(1 - (1 - np.minimum(t / 0.45, 1)) ** 2, 0, 1)) * (1 - 0.25 * t**2)
    x = width * np.sin(0.5 * np.pi * u)
    crown = 1.0 * np.cos(0.5 * np.pi * u) * np.minimum(1, 2.2 * t + 0.2)
    groove = 0.12 * np.exp(-((x / 0.25) ** 2)) * np.sin(np.pi * np.clip(1.1 * t, 0, 1))
    y = (
        -1.15
        + 0.30 * np.sin(np.pi * np.clip(t * 0.9, 0, 1))
        + crown
        - groove
        - 0.9 * np.clip(t - 0.55, 0, 1) ** 1.5 * 2
    )
    z = -0.55 - 4.6 * t + 0 * u
    points = np.stack(np.broadcast_arrays(x, y, z), -1).reshape(-1, 3) * cm + front
    colour = np.clip(np.array([0.88, 0.47, 0.47]) * 0.8 + 0.2 * gum, 0, 1)
    shade = np.broadcast_to(1.0 - 0.45 * t, (rows, columns)).ravel()
    return Part.of(
        points,
        grid_faces(rows, columns)[:, ::-1],
        colour,
        gloss=0.5,
        shade=shade,
        material=FLESH,
        label=MOUTH,
        bone=JAW,
    )
