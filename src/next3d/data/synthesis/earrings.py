"""Earrings, at the lobes."""

from __future__ import annotations

import numpy as np

from next3d.data.synthesis.anatomy import Anatomy
from next3d.data.synthesis.identity import Identity, from_hue
from next3d.data.synthesis.parts import SHINY, THINGS, Part, ellipsoid, join, tube


def earrings(face: Anatomy, who: Identity, vertices: np.ndarray) -> list[Part]:
    """A pair of earrings on a neutral head (V, 3)."""
    if who.earrings == "none":
        return []
    cm = face.unit
    pieces = []
    size = 0.75 + 0.6 * (8 * who.quantile("earrings") % 1)
    for side in (0, 1):
        lobe, _ = face.ear_points(vertices, side)
        sign = 1 - 2 * side
        at = lobe + np.array([0.10 * sign, 0.28, 0.10]) * cm
        if who.earrings == "stud":
            pieces.append(ellipsoid(at, np.full(3, 0.27 * size * cm), 8, 10))
        elif who.earrings == "hoop":
            radius = 1.15 * size * cm
            turn = np.linspace(0, 2 * np.pi, 28, endpoint=False)
            ring = (
                at
                + np.array([0.12 * sign * cm, -radius, 0])
                + radius * np.stack([0.25 * sign * np.sin(turn), np.cos(turn), np.sin(turn)], 1)
            )
            pieces.append(tube(ring, 0.11 * cm, closed=True, sides=6, up=(1, 0, 0)))
        else:
            pieces.append(ellipsoid(at, np.full(3, 0.17 * cm), 6, 8))
            pieces.append(
                ellipsoid(
                    at + np.array([0.05 * sign, -1.15 * size, 0]) * cm, np.array([0.3, 0.75, 0.3]) * size * cm, 9, 10
                )
            )
    q = who.quantile("glasses_colour")
    colour = (
        np.array([0.86, 0.70, 0.38])
        if q < 0.5
        else np.array([0.78, 0.78, 0.80])
        if q < 0.8
        else from_hue(3 * q % 1, 0.7, 0.7)
    )
    return [Part.of(*join(pieces), colour, gloss=1.0, material=SHINY, label=THINGS)]
