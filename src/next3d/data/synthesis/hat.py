"""Hats: a dome over the skull with a cuff, a visor, a brim; or only a band."""

from __future__ import annotations

import numpy as np

from next3d.data.synthesis.anatomy import Anatomy
from next3d.data.synthesis.identity import Identity, from_hue
from next3d.data.synthesis.locks import Hull
from next3d.data.synthesis.parts import MATTE, THINGS, Part, grid_faces, join, tube, unit


def hat(face: Anatomy, who: Identity, hull: Hull) -> list[Part]:
    """The hat of a person, over the ``hull`` of the neutral head."""
    if who.hat == "none":
        return []
    cm = face.unit
    q = who.quantile("hat_hue")
    colour = from_hue((q * 1.7) % 1, 0.62 if q < 0.8 else 0.08, 0.30 + 0.5 * ((q * 7) % 1))
    columns, rows = 64, 16
    turn = np.linspace(0, 2 * np.pi, columns, endpoint=False)
    azimuth = np.degrees(np.abs((turn + np.pi) % (2 * np.pi) - np.pi))

    def rim_at(front: float, side: float, back: float) -> np.ndarray:
        """Height of the rim above the eyes by direction, metres."""
        return (
            np.interp(
                azimuth, [0, 35, 80, 130, 180], [front, 0.6 * front + 0.4 * side, side, 0.5 * (side + back), back]
            )
            * cm
        )

    def around(height: np.ndarray, clearance: float, flat: float = 0.0) -> np.ndarray:
        """Points (columns, 3) outside the skull at given heights above the eyes."""
        # Follow the ray at that height: iterate the elevation until the surface point has it.
        horizontal = np.stack([np.sin(turn), np.cos(turn)], 1)
        reach = np.full(columns, 8.0 * cm)
        for _ in range(6):
            point = hull.centre + np.stack([horizontal[:, 0] * reach, height, horizontal[:, 1] * reach], 1)
            surface = hull.push_out(point * 0 + hull.centre + unit(point - hull.centre) * 1e-3, clearance)
            scale = np.linalg.norm(surface - hull.centre, axis=1) / np.linalg.norm(point - hull.centre, axis=1)
            reach = reach * np.clip(scale, 0.6, 1.4)
        return hull.centre + np.stack([horizontal[:, 0] * reach, height, horizontal[:, 1] * reach], 1)

    if who.hat == "band":
        low = rim_at(6.0, 4.5, -2.5)
        ring = around(low, 0.55 * cm)
        vertices, faces = tube(ring, (0.16 * cm, 0.75 * cm), closed=True, sides=8, up=(0.0, 0.25, 1.0))
        height = np.repeat(np.linspace(-1, 1, 5), columns)
        rise = around(low + 0.8 * cm, 0.45 * cm)
        drop = around(low - 0.8 * cm, 0.45 * cm)
        grid = np.stack(
            [
                drop,
                0.5 * (drop + ring) + unit(ring - hull.centre) * 0.1 * cm,
                ring,
                0.5 * (rise + ring) + unit(ring - hull.centre) * 0.1 * cm,
                rise,
            ]
        )
        del vertices, faces, height
        return [
            Part.of(grid.reshape(-1, 3), grid_faces(5, columns, True), colour, gloss=0.15, material=MATTE, label=THINGS)
        ]

    clearance = 0.95 * cm
    rim = rim_at(*{"beanie": (5.2, 1.6, -2.6), "cap": (5.6, 3.2, 0.2), "brim": (5.6, 3.4, 1.2)}[who.hat])
    base = around(rim, clearance)
    crown = np.array(
        [
            0,
            hull.radius(hull.centre + np.array([[0, 1.0, 0]]))[0] + clearance * (1.6 if who.hat == "beanie" else 1.2),
            -0.5 * cm,
        ]
    )
    if who.hat == "brim":
        crown[1] += 1.0 * cm
    t = np.linspace(0, 1, rows)[:, None, None]
    angle = 0.5 * np.pi * t
    dome = (
        hull.centre
        + crown
        + (base - hull.centre - crown) * np.array([1, 0, 1]) * np.cos(angle) ** (0.75 if who.hat == "brim" else 0.9)
    )
    dome[..., 1] = base[None, :, 1] + (hull.centre[1] + crown[1] - base[None, :, 1]) * np.sin(angle[..., 0]) ** (
        0.62 if who.hat == "brim" else 0.85
    )
    dome = hull.push_out(dome, 0.8 * cm)
    shade = np.ones((rows, columns))
    if who.hat == "beanie":
        shade *= 0.82 + 0.18 * np.cos(turn * 32)[None] ** 2
        dome += unit(dome - hull.centre) * (0.05 * cm * np.cos(turn * 32))[None, :, None]
    else:
        shade *= 1 - 0.12 * np.exp(-((np.sin(3 * turn) / 0.06) ** 2))[None]
    parts = [
        Part.of(
            dome.reshape(-1, 3),
            grid_faces(rows, columns, True)[:, ::-1],
            colour,
            gloss=0.12,
            shade=shade.ravel(),
            material=MATTE,
            label=THINGS,
        )
    ]
    if who.hat == "beanie":
        out = unit((base - hull.centre) * [1, 0, 1])
        cuff = np.stack(
            [
                base + out * a * cm + np.array([0, b * cm, 0])
                for a, b in ((-0.1, -0.05), (0.35, -0.1), (0.5, 0.5), (0.5, 1.7), (0.35, 2.3), (-0.3, 2.4))
            ]
        )
        tone = np.broadcast_to(0.80 + 0.20 * np.cos(turn * 32) ** 2, cuff.shape[:2]).ravel()
        other = colour if q < 0.5 else np.clip(colour * 0.55 + 0.35, 0, 1)
        parts.append(
            Part.of(
                cuff.reshape(-1, 3),
                grid_faces(6, columns, True)[:, ::-1],
                other,
                gloss=0.12,
                shade=tone,
                material=MATTE,
                label=THINGS,
            )
        )
    elif who.hat == "cap":
        sweep = np.linspace(-1, 1, 25)
        ids = np.rint(sweep * 0.155 * columns).astype(int) % columns
        inner = base[ids] + np.array([0, 0.15, -0.3]) * cm
        reach = (5.6 * np.sqrt(np.clip(1 - sweep**2, 0, 1)) ** 0.9)[:, None] * cm
        outer = inner + reach * np.array([0, -0.20, 1.0]) - np.array([0, 0.6, 0]) * cm * (sweep**2)[:, None]
        visor = np.stack(
            [
                inner + (outer - inner) * s + np.array([0, 0.35 * np.sin(np.pi * s), 0]) * cm
                for s in np.linspace(0, 1, 6)
            ]
        )
        top = visor.reshape(-1, 3)
        both = join([(top, grid_faces(6, 25)), (top - [0, 0.18 * cm, 0], grid_faces(6, 25)[:, ::-1])])
        parts.append(
            Part.of(*both, np.clip(colour * (0.7 if q < 0.6 else 1), 0, 1), gloss=0.15, material=MATTE, label=THINGS)
        )
    else:
        out = unit((base - hull.centre) * [1, 0, 1])
        curl = 0.9 * np.abs(np.sin(turn)) ** 2
        rings = [
            base + out * a * cm + np.array([0, 1.0, 0]) * (b + curl[:, None] * (a / 5.5) ** 2 * 2) * cm
            for a, b in (
                (-0.3, 0.3),
                (0.2, 0.05),
                (2.0, -0.2),
                (4.0, -0.3),
                (5.5, -0.2),
                (5.6, -0.35),
                (4.0, -0.5),
                (0.0, -0.2),
            )
        ]
        parts.append(
            Part.of(
                np.stack(rings).reshape(-1, 3),
                grid_faces(8, columns, True),
                colour,
                gloss=0.12,
                material=MATTE,
                label=THINGS,
            )
        )
        band = np.stack(
            [dome[0] + out * 0.12 * cm + [0, 0.2 * cm, 0], dome[2] + unit(dome[2] - hull.centre) * 0.12 * cm]
        )
        parts.append(
            Part.of(
                band.reshape(-1, 3),
                grid_faces(2, columns, True)[:, ::-1],
                colour * 0.35,
                gloss=0.25,
                material=MATTE,
                label=THINGS,
            )
        )
    return parts
