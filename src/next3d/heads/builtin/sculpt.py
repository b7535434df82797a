"""The neutral head, assembled: ``sculpt()`` makes it from the numbers of :mod:`.stations` in a few seconds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import ear, eyes, lips, neck, nose, stations, touch
from .form import Array, Mirrored, Skin, resample
from .rig.anatomy import Anatomy, Eye, Mouth
from .stations import CENTRE
from .topology import (
    BALL_COUNT,
    COLUMNS,
    FRONT,
    LID_MARGIN,
    LIP_BORDER,
    LIP_CONTACT,
    NECK_ROW,
    ROWS,
    SIDE,
    Connectivity,
    ball_faces,
    connect,
)

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Sculpt:
    """The neutral head: positions, faces and where everything is.

    Attributes:
        vertices: (V, 3) metres, head frame; exactly symmetric
        quads: (Q, 4), triangles: (T, 3) the native faces, counter-clockwise seen from outside
        mirror: (V,) the index of each vertex's mirror image
        half: the left half's :class:`~.topology.Connectivity`; its numbers are vertex numbers
        twin: (half.count,) the right half's vertex for each of the left half
        balls: vertex ranges of the left and the right eyeball: pole, then rings of BALL_SEGMENTS
    """

    vertices: Array
    quads: Ints
    triangles: Ints
    mirror: Ints
    half: Connectivity
    twin: Ints
    balls: tuple[Ints, Ints]

    @property
    def faces(self) -> Ints:
        """(F, 3) all faces as triangles: the quads' two halves alternating, then the triangles.

        Quads are split along the same diagonal on both sides, so that the triangles mirror too.
        """
        q = self.quads
        n = len(self.half.quads)
        split = np.stack([q[:, [0, 1, 2]], q[:, [0, 2, 3]]], 1)
        right = q[n : 2 * n]  # reversed order: 3 2 1 0 of the left quad; its diagonal is 1–3
        split[n : 2 * n] = np.stack([right[:, [1, 2, 3]], right[:, [1, 3, 0]]], 1)
        return np.concatenate([split.reshape(-1, 3), self.triangles])

    @property
    def mouth_rings(self) -> Ints:
        """(14, 44) closed rings: 0 lower lip's midline, 11 left corner, 22 upper lip's midline, 33 right corner."""
        left = self.half.mouth
        return np.concatenate([left, self.twin[left[:, 1:-1]][:, ::-1]], 1)

    def anatomy(self) -> Anatomy:
        """What the rig needs to know."""
        h, twin = self.half, self.twin
        left = Eye(h.eye, LID_MARGIN, eyes.UPPER, 0, eyes.OUTER_CORNER, self.balls[0])
        right = Eye(twin[h.eye], LID_MARGIN, eyes.UPPER, 0, eyes.OUTER_CORNER, self.balls[1])
        ears = np.unique([*h.ear[1:].ravel(), h.ear_cap])
        nostrils = np.unique([*h.nostril[2:].ravel(), h.nostril_cap])
        return Anatomy(
            vertices=self.vertices,
            triangles=self.faces,
            mirror=self.mirror,
            eyes=(left, right),
            mouth=Mouth(self.mouth_rings, LIP_BORDER, LIP_CONTACT, left=11, right=33, upper_mid=22, lower_mid=0),
            ears=(ears, twin[ears]),
            nostrils=(nostrils, twin[nostrils]),
            neck=np.unique(np.concatenate([h.grid[ROWS], twin[h.grid[ROWS]]])),
            skin=np.arange(len(self.vertices) - 2 * BALL_COUNT),
        )


def layout(c: Connectivity, skin: Skin) -> tuple[Array, Mirrored]:
    """(count, 3) the left half's vertices of strip and crown on the skin, in millimetres; the rest still at zero."""
    position, pinned = np.zeros((c.count, 3)), np.zeros(c.count, bool)

    def pin(ids: Ints, where: Array) -> None:
        position[ids], pinned[ids] = where, True

    heights = stations.MIDLINE
    rows = np.array(list(heights))
    pin(c.grid[rows, 0], skin.lift(np.c_[0 * rows, list(heights.values())]))
    pin(c.grid[[30, 31, 32], 0], skin.project(stations.JAW[[0, 8, 13]]))
    slide = np.concatenate([c.grid[[1, 2, 3, 4, 26, 27, 28, 29, 31, 32], 0]])
    nose.place(c.grid, position, pinned, skin)
    pin(c.grid[NECK_ROW], skin.project(resample(stations.NECK_RING, COLUMNS + 1)))
    pin(c.eye[0], eyes.oval(skin))
    pin(c.mouth[0][:17], lips.oval(skin))
    pin(c.ear[0], ear.root(skin))

    # First guess for the free ones: latitude from the pinned midline in front and from even steps behind.
    free = np.zeros(c.count, bool)
    offset = position[c.grid[: NECK_ROW + 1, 0]] - CENTRE
    known = pinned[c.grid[: NECK_ROW + 1, 0]] & (c.grid[: NECK_ROW + 1, 0] >= 0)
    row = np.arange(NECK_ROW + 1)
    front = np.interp(row, row[known], np.arctan2(offset[:, 1], offset[:, 2])[known])
    back = np.linspace(np.arctan2(80, 85), np.arctan2(-73, 82), NECK_ROW + 1)
    azimuth = np.concatenate(
        [np.linspace(0, 62, FRONT + 1), np.linspace(62, 120, SIDE + 1)[1:], np.linspace(120, 180, FRONT + 1)[1:]]
    )
    for r in range(NECK_ROW + 1):
        for col in range(COLUMNS + 1):
            g = c.grid[r, col]
            if g < 0 or pinned[g]:
                continue
            t = np.clip((col - 8) / (COLUMNS - 8), 0, 1)
            t = t * t * (3 - 2 * t)
            e, a = front[r] * (1 - t) + back[r] * t, np.radians(azimuth[col])
            position[g] = CENTRE + 100 * np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])
            free[g] = True
    for j in range(1, SIDE):
        side = position[c.crown[:FRONT, 0]] * (1 - j / SIDE) + position[c.crown[:FRONT, SIDE]] * j / SIDE
        position[c.crown[:FRONT, j]] = side + np.array([0, 30, 0])
        free[c.crown[:FRONT, j]] = True
    free[slide] = True

    strip = np.zeros(c.count, bool)
    strip[c.grid[: NECK_ROW + 1][c.grid[: NECK_ROW + 1] >= 0]] = True
    strip[c.crown] = True
    base = Mirrored(c.quads[strip[c.quads].all(1)], c.count, c.midline)
    position[free] = skin.project(position[free])
    for _ in range(220):
        relaxed = base.relax(position, 0.7 * free)
        position[free] = skin.project(relaxed[free])
    for _ in range(3):
        position = base.fair(position, free, 2e-3)
        position[free] = skin.project(position[free])
    return position, base


def sculpt() -> Sculpt:
    """Build the neutral head. Deterministic; takes a few seconds."""
    c, skin = connect(), Skin()
    position, _ = layout(c, skin)
    neck.shape(c.grid, position)
    eyes.shape(c.eye, position, skin)
    lips.shape(c.mouth, position, skin)
    nose.nostrils(c.nostril, c.nostril_cap, position, skin)
    ear.shape(c.ear, c.ear_cap, position, skin)
    graph = Mirrored(c.quads, c.count, c.midline)
    position = touch.finish(position, c, graph)
    return assemble(c, position)


def assemble(c: Connectivity, position: Array) -> Sculpt:
    """Mirror the left half (millimetres), add the eyeballs, and go to metres and the head frame."""
    position = position.copy()
    position[c.midline, 0] = 0
    off = np.setdiff1d(np.arange(c.count), c.midline)
    twin = np.arange(c.count)
    twin[off] = c.count + np.arange(len(off))
    skin_count = c.count + len(off)
    ball = eyes.ball()
    left = skin_count + np.arange(BALL_COUNT)
    right = left + BALL_COUNT
    flip = np.array([-1.0, 1.0, 1.0])
    vertices = np.concatenate([position, position[off] * flip, ball, ball * flip])
    mirror = np.arange(len(vertices))
    mirror[off], mirror[twin[off]], mirror[left], mirror[right] = twin[off], off, right, left
    pole, rim = ball_faces()
    quads = np.concatenate([c.quads, twin[c.quads][:, ::-1], left[rim], right[rim][:, ::-1]])
    triangles = np.concatenate([left[pole], right[pole][:, ::-1]])
    return Sculpt(
        (vertices - stations.ORIGIN) / 1000, quads, triangles, mirror, c, twin, (left, right)
    )  # fmt: skip
