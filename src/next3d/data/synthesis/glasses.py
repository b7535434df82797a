"""Glasses: tubes around the lenses, a bridge on the nose, temples to the ears. They never move on the head."""

from __future__ import annotations

import numpy as np

from next3d.data.synthesis.anatomy import Anatomy
from next3d.data.synthesis.identity import Identity, from_hue
from next3d.data.synthesis.locks import Hull
from next3d.data.synthesis.parts import GLASS, SHINY, THINGS, Part, join, tube


def _outline(kind: str, width: float, height: float, count: int = 40) -> np.ndarray:
    """A lens (K, 2) around its middle, x outwards, in units of its half-axes."""
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
    power = {"round": 2.0, "square": 4.2, "cat": 2.8, "sun": 3.2}[kind]
    c, s = np.cos(turn), np.sin(turn)
    x, y = np.sign(c) * np.abs(c) ** (2 / power), np.sign(s) * np.abs(s) ** (2 / power)
    if kind == "cat":
        y = y + 0.42 * np.clip(x, 0, 1) ** 2 * (y > -0.2) * np.clip(y + 0.2, 0, 1)
    if kind in ("square", "sun"):
        x = x * (1 + 0.10 * y)  # wider at the top
        y = y - (0.10 if kind == "sun" else 0) * np.clip(x, 0, 1) * (y < 0)
    return np.stack([x * width, y * height], 1)


def glasses(
    face: Anatomy, who: Identity, vertices: np.ndarray, landmarks: np.ndarray, joints: np.ndarray
) -> list[Part]:
    """Frame and lenses on a neutral head."""
    if who.glasses == "none":
        return []
    cm = face.unit
    size = 1 + 0.10 * np.tanh(who.axis["glasses_shape"])
    half = 0.5 * abs(joints[3, 0] - joints[4, 0]) + 0.12 * cm
    width = min(2.35 * cm * size, half - 0.55 * cm)
    height = {"round": 2.05, "square": 1.75, "cat": 1.75, "sun": 2.05}[who.glasses] * cm * size
    if who.glasses == "round":
        height = min(height, 1.02 * width)
    eye = 0.5 * (joints[3] + joints[4])
    middle = np.array([0, eye[1] - 0.22 * cm, 0])
    wrap = 0.020 / cm  # the frame bends back around the face
    # In front of lashes and cheeks, on the nose
    region = (np.abs(np.abs(vertices[:, 0]) - half) < 0.95 * width) & (
        np.abs(vertices[:, 1] - middle[1]) < 0.75 * height
    )
    near = vertices[region]
    room = (near[:, 2] + wrap * near[:, 0] ** 2).max() + 0.42 * cm  # lids, lashes and cheeks move
    depth = max(float(room), float(landmarks[27, 2]) + 0.02 * cm)
    metal = who.quantile("glasses_colour") > 0.7 and who.glasses != "sun"
    thick = (0.075 if metal else 0.15 + 0.05 * np.tanh(who.axis["glasses_shape"])) * cm
    outline = _outline(who.glasses, width, height)
    hull = Hull(vertices[face.eyeball == 0], np.array([0, eye[1], face.centre[2]], np.float64), 0.3)
    pieces, lenses = [], []
    for side in (1, -1):
        x = side * (half + outline[:, 0])
        z = depth - wrap * x**2
        ring = np.stack([x, middle[1] + outline[:, 1], z], 1)
        pieces.append(tube(ring, (thick, 1.15 * thick), closed=True, sides=8))
        centre = np.array([[side * half, middle[1], ring[:, 2].mean() + 0.12 * cm]])
        inner = 0.5 * (ring + centre) + [0, 0, 0.05 * cm]
        ids = np.arange(len(ring))
        after = np.roll(ids, -1)
        fan = np.stack([ids + len(ids), after + len(ids), np.full(len(ids), 2 * len(ids))], 1)
        band = np.concatenate(
            [np.stack([ids, after, after + len(ids)], 1), np.stack([ids, after + len(ids), ids + len(ids)], 1)]
        )
        lenses.append((np.concatenate([ring, inner, centre]), np.concatenate([fan, band])))
        # temple: from the outer upper corner along the side of the head to above the ear
        _, top = face.ear_points(vertices, 0 if side > 0 else 1)
        start = ring[np.argmax(side * ring[:, 0] + 0.6 * ring[:, 1])]
        ear = np.array([top[0], min(top[1], start[1] + 0.5 * cm), top[2] + 0.2 * cm])
        t = np.linspace(0, 1, 9)[:, None]
        path = start * (1 - t) + ear * t
        # One smooth bow, wide enough to clear the head everywhere
        clear = side * (hull.push_out(path, 0.22 * cm)[:, 0] - path[:, 0])
        bow = np.sin(0.5 * np.pi * t[:, 0]) ** 0.7
        path[:, 0] += side * bow * max(0.0, (clear[1:] / bow[1:]).max())
        end = path[-1] + np.array([-0.25 * side, -1.5, -1.3]) * cm
        path = np.concatenate([path, [0.5 * (path[-1] + end) + np.array([0, 0.35, -0.2]) * cm, end]])
        pieces.append(tube(path, (0.7 * thick, 1.2 * thick), sides=6, up=(1, 0, 0)))
    inner = half - width
    t = np.linspace(-1, 1, 9)
    bridge = np.stack(
        [t * inner * 1.02, middle[1] + 0.25 * height + 0.18 * cm * (1 - t**2), depth + 0.10 * cm * (1 - t**2)], 1
    )
    pieces.append(tube(bridge, (thick, thick), sides=6))
    vertices_, faces = join(pieces)
    q = who.quantile("glasses_colour")
    if metal:
        colour = np.array([0.80, 0.66, 0.40]) if q > 0.85 else np.array([0.62, 0.63, 0.66])
    elif q < 0.35:
        colour = np.full(3, 0.06)
    elif q < 0.52:
        colour = np.array([0.32, 0.18, 0.09])
    else:
        colour = from_hue((5 * q) % 1, 0.65, 0.55)
    parts = [Part.of(vertices_, faces, colour, gloss=0.8, material=SHINY, label=THINGS)]
    points, fan = join(lenses)
    if who.glasses == "sun":
        tint, opacity = np.array([0.05, 0.05, 0.06]) + 0.06 * from_hue(who.quantile("lens_tint"), 0.8, 1), 0.86
    else:
        tint, opacity = np.array([0.75, 0.82, 0.88]), 0.06 + 0.05 * who.quantile("lens_tint")
    # For a lens, gloss is its opacity
    parts.append(Part.of(points, fan, tint, gloss=opacity, material=GLASS, label=THINGS))
    return parts
