"""Shoulders and clothes: lofted around the neck, fixed to the ground while the head turns."""

from __future__ import annotations

import numpy as np

from next3d.data.synthesis.anatomy import Anatomy
from next3d.data.synthesis.identity import Identity, from_hue
from next3d.data.synthesis.noise import value_noise
from next3d.data.synthesis.parts import FLESH, MATTE, ROOT, THINGS, Part, grid_faces, tube

COLUMNS = 72
# The torso below the neckline: height under the neckline, half-widths across and in depth, forward shift; centimetres.
TORSO = np.array(
    [
        (0.0, 0.0, 0.0, 0.0),
        (0.5, 1.6, 0.9, 0.0),
        (1.3, 4.8, 1.9, 0.2),
        (2.3, 8.4, 2.9, 0.4),
        (3.8, 11.6, 3.9, 0.7),
        (6.2, 13.4, 4.8, 1.0),
        (10.0, 14.0, 5.6, 1.4),
        (16.0, 13.4, 6.2, 1.6),
        (24.0, 12.6, 6.4, 1.2),
    ]
)


def clothes(face: Anatomy, who: Identity, vertices: np.ndarray) -> list[Part]:
    """Torso, garment and collar for a neutral head (V, 3)."""
    cm = face.unit
    turn = np.linspace(0, 2 * np.pi, COLUMNS, endpoint=False)  # 0 in front, towards the subject's left
    azimuth = np.degrees(np.abs((turn + np.pi) % (2 * np.pi) - np.pi))
    front, back = np.cos(turn).clip(0, 1), (-np.cos(turn)).clip(0, 1)

    def neck(height: float) -> tuple[np.ndarray, float, float]:
        """Centre and half-axes of the neck at a height under the eyes."""
        y = face.eye_line - height * cm
        ring = vertices[(np.abs(vertices[:, 1] - y) < 1.2 * cm) & (vertices[:, 2] < face.centre[2] + 5.5 * cm)]
        if len(ring) < 8:
            ring = vertices[np.argsort(vertices[:, 1])[:80]]
        low, high = ring.min(0), ring.max(0)
        return np.array([0, y, 0.5 * (low[2] + high[2])]), 0.5 * (high[0] - low[0]), 0.5 * (high[2] - low[2])

    centre, across, deep = neck(18.2)

    def loop(drop: np.ndarray, wide: float, long: float, forward: float = 0.0) -> np.ndarray:
        """Points (COLUMNS, 3) around the neck, ``drop`` centimetres under its reference height."""
        x = np.sin(turn) * (across + wide * cm)
        z = np.cos(turn) * (deep + long * cm) + centre[2] + forward * cm
        return np.stack([x, centre[1] - drop * cm, z], 1)

    hue, light = who.quantile("clothes_hue"), who.quantile("clothes_lightness")
    colour = from_hue((hue * 1.3) % 1, 0.55 if hue < 0.77 else 0.06, 0.16 + 0.70 * light)
    second = np.clip(0.45 * colour + 0.5 * (1 - colour.mean()), 0, 1)
    # Neckline: lower in front than behind
    dip = {"crew": 1.3, "turtleneck": 0.6, "shirt": 2.6, "hoodie": 2.0, "vneck": 2.2}[who.clothes]
    neckline = 0.7 * front - 1.5 * back + dip * front**2
    if who.clothes in ("vneck", "shirt"):
        neckline = neckline + (5.5 if who.clothes == "vneck" else 3.6) * np.clip(1 - azimuth / 38, 0, 1)
    parts = []
    # Skin under the garment; in the part mask, skin is the head's alone
    skin_rows = [loop(0.7 * front - 1.5 * back - 2.0 + 0 * turn, -0.3, -0.3)]
    body = 0.7 * front - 1.5 * back
    for fall, wide, long, shift in TORSO[:8]:
        skin_rows.append(loop(body + 0.9 + fall, wide - 0.3, long - 0.5, shift))
    skin = np.stack(skin_rows)
    parts.append(
        Part.of(
            skin.reshape(-1, 3),
            grid_faces(len(skin_rows), COLUMNS, True),
            who.skin,
            gloss=0.2,
            material=FLESH,
            label=THINGS,
            bone=ROOT,
        )
    )
    rows = []
    for fall, wide, long, shift in TORSO:
        keep = max(0.0, 1 - fall / 9.0)
        base = (0.7 * front - 1.5 * back) * (1 - keep) + neckline * keep
        # As the neckline drops in front, so the cloth there lies further out on the chest.
        lower = np.clip(neckline - 0.7 * front, 0, None) * keep
        widen = np.interp(lower, TORSO[:, 0], TORSO[:, 1])
        deepen = np.interp(lower, TORSO[:, 0], TORSO[:, 2])
        x = np.sin(turn) * (across + (0.55 + np.maximum(wide, widen * 0.6)) * cm)
        z = (
            np.cos(turn) * (deep + (0.5 + np.maximum(long, deepen)) * cm)
            + centre[2]
            + max(shift, 0) * cm
            + 0.35 * lower * cm * front
        )
        rows.append(np.stack([x, centre[1] - (base + fall) * cm, z], 1))
    cloth = np.stack(rows)
    fold = value_noise(np.stack([cloth[..., 0], cloth[..., 1]], -1) / (3.2 * cm) + 40, 5)
    shade = 0.9 + 0.16 * fold
    if who.clothes == "crew" and light > 0.55:  # stripes
        stripe = np.sin(cloth[..., 1] / cm * 2.4) > 0.1
        shade = shade * np.where(stripe, 1.0, 0.45)
    parts.append(
        Part.of(
            cloth.reshape(-1, 3),
            grid_faces(len(rows), COLUMNS, True),
            colour,
            gloss=0.08,
            shade=shade.ravel(),
            material=MATTE,
            label=THINGS,
            bone=ROOT,
        )
    )

    def add(shape: tuple[np.ndarray, np.ndarray], srgb: np.ndarray) -> None:
        parts.append(Part.of(*shape, srgb, gloss=0.08, material=MATTE, label=THINGS, bone=ROOT))

    if who.clothes in ("crew", "vneck"):
        add(
            tube(cloth[0], (0.28 * cm, 0.45 * cm), closed=True, sides=8, up=(0, 1, 0)),
            second if light < 0.4 else colour * 0.8,
        )
    elif who.clothes == "turtleneck":
        profile = (
            (2.2, 2.6),
            (0.9, 1.0),
            (0.5, 0.55),
            (-1.0, 0.42),
            (-2.6, 0.40),
            (-3.4, 0.48),
            (-3.7, 0.62),
            (-3.5, 0.85),
            (-2.0, 0.95),
            (-1.2, 0.85),
            (-1.1, 0.5),
        )
        rings = np.stack(
            [loop(0.7 * front - 1.5 * back + 0.5 * h * 0 + h * (1 - 0.15 * back), w, w) for h, w in profile]
        )
        ribs = 0.84 + 0.16 * np.cos(turn * 36) ** 2
        vertices_ = rings.reshape(-1, 3)
        parts.append(
            Part.of(
                vertices_,
                grid_faces(len(profile), COLUMNS, True)[:, ::-1],
                colour,
                gloss=0.08,
                shade=np.tile(ribs, len(profile)),
                material=MATTE,
                label=THINGS,
                bone=ROOT,
            )
        )
    elif who.clothes == "shirt":
        half = np.linspace(0, 1, 26)
        for side in (1, -1):
            angle = side * (np.pi * (1 - half) * 0.92 + 0.08 * np.pi + 0.02)
            a = np.degrees(np.abs(angle))
            f, b = np.cos(angle).clip(0, 1), (-np.cos(angle)).clip(0, 1)
            foot = 0.7 * f - 1.5 * b + 2.0 * f**2
            point = np.exp(-(((a - 20) / 16) ** 2))
            rows_ = []
            for rise, out, drop in (
                (0.2, 0.35, 0),
                (2.0, 0.45, 0),
                (2.7, 0.75, 0),
                (2.4, 1.15, 0),
                (0.4, 1.75, 1.0),
                (-0.5, 2.0, 2.0),
            ):
                x = np.sin(angle) * (across + out * cm)
                z = np.cos(angle) * (deep + out * cm) + centre[2] + 0.4 * drop * point * cm
                rows_.append(np.stack([x, centre[1] - (foot - rise + 1.1 * drop * point) * cm, z], 1))
            flap = np.stack(rows_)
            add((flap.reshape(-1, 3), grid_faces(len(rows_), 26)), np.clip(colour * 1.08 + 0.03, 0, 1))
    elif who.clothes == "hoodie":
        ring = loop(neckline - 0.4 - 0.9 * back, 1.5, 1.3)
        thick = (0.75 + 0.95 * (1 - front)) * cm
        add(tube(ring, thick, closed=True, sides=10, up=(0, 1, 0)), colour * 0.92)
        for side in (1, -1):
            start = (
                ring[np.argmin(np.abs(turn - (0.35 if side > 0 else 2 * np.pi - 0.35)))] + np.array([0, -0.3, 0.8]) * cm
            )
            t = np.linspace(0, 1, 8)[:, None]
            add(tube(start + t * np.array([0.2 * side, -7.0, 1.5]) * cm, 0.14 * cm, sides=5), np.full(3, 0.88))
    return parts
