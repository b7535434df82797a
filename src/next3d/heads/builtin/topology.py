"""Connectivity of the built-in head: an integer grid, four windows refilled with rings, and two eyeballs.

FROZEN: vertex order, faces and the UV atlas no longer change; trained models and pictures depend on them. Only
positions may be refined.

The left half (x ≥ 0) is a strip of 39 rows × 41 columns from the midline of the face to the midline of the nape, and
a patch of 16 × 9 on the crown: a cubed sphere without poles, whose valence-3 corners lie under the hair. Rectangles
are cut out of the strip and refilled with concentric rings of as many vertices as their outline: artists' loops
around eye, mouth, nostril and ear; the rectangles' corners become the valence-5 poles that artists place. The right
half is its mirror.

Vertices are ordered: left half with the midline, right half without it, left eyeball, right eyeball.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

ROWS, FRONT, SIDE = 39, 16, 9
COLUMNS = FRONT + SIDE + FRONT
NECK_ROW = 33  # the row where the neck begins; below it the neck, to the open edge at row ROWS
WINDOWS = {  # first row, last row, first column, last column
    "eye": (5, 13, 5, 13),
    "mouth": (19, 25, 0, 8),
    "nostril": (15, 19, 1, 5),
    "ear": (9, 18, FRONT + 2, FRONT + 7),
}
EYE_RINGS, MOUTH_RINGS, NOSTRIL_RINGS, EAR_RINGS = 11, 13, 4, 11
LID_MARGIN = 8  # ring of the outer edge of the lids' margin; the next ring is its inner edge, the rest is hidden
LIP_BORDER = 6  # ring of the vermilion border
LIP_CONTACT = 10  # ring where the closed lips meet; the rings behind line the mouth
BALL_SEGMENTS = 24
BALL_ANGLES = (0.17, 0.34, 0.515, 0.64, 0.82, 1.05, 1.35, 1.70, 2.10)  # radians from the pole; 0.515 is the iris' edge
BALL_PUPIL, BALL_IRIS = 0, 2  # indices into BALL_ANGLES


@dataclass(frozen=True)
class Connectivity:
    """The left half's vertex numbers by place, and its quads. ``-1`` marks grid places inside a window.

    Attributes:
        count: vertices of the left half, midline included
        grid: (ROWS + 1, COLUMNS + 1) strip, row 0 above the forehead, column 0 the midline of the face
        crown: (FRONT + 1, SIDE + 1) patch on top; its edges are the strip's row 0 and the midline
        eye, mouth, nostril, ear: (rings + 1, n) vertex numbers; ring 0 is the window's outline. The mouth's rings run
            from the midline of the chin (0) by the corner (11) to the midline of the upper lip (22); the others close
        ear_cap, nostril_cap: single vertices that close ear canal and nostril
        quads: (Q, 4), counter-clockwise seen from outside
        midline: sorted vertex numbers with x = 0
    """

    count: int
    grid: Ints
    crown: Ints
    eye: Ints
    mouth: Ints
    nostril: Ints
    ear: Ints
    ear_cap: int
    nostril_cap: int
    quads: Ints
    midline: Ints


def outline(window: str, start: tuple[int, int] | None = None) -> list[tuple[int, int]]:
    """Grid places around a window, counter-clockwise seen from outside, beginning at ``start``.

    The mouth's window touches the midline: its outline is open and runs from the chin to the upper lip.
    """
    top, bottom, near, far = WINDOWS[window]
    if window == "mouth":
        return (
            [(bottom, c) for c in range(near, far)]
            + [(r, far) for r in range(bottom, top, -1)]
            + [(top, c) for c in range(far, near - 1, -1)]
        )
    places = (
        [(r, near) for r in range(top, bottom)]
        + [(bottom, c) for c in range(near, far)]
        + [(r, far) for r in range(bottom, top, -1)]
        + [(top, c) for c in range(far, near, -1)]
    )
    first = places.index(start) if start else 0
    return places[first:] + places[:first]


def connect() -> Connectivity:
    """Number the left half's vertices and list its quads."""
    count = 0
    quads: list[tuple[int, int, int, int]] = []

    def new(n: int) -> Ints:
        nonlocal count
        count += n
        return np.arange(count - n, count)

    def cut(row: int, column: int) -> bool:
        return any(
            top < row < bottom and (near < column < far or (name == "mouth" and column == 0))
            for name, (top, bottom, near, far) in WINDOWS.items()
        )

    def in_window(row: int, column: int) -> bool:
        return any(top <= row < bottom and near <= column < far for top, bottom, near, far in WINDOWS.values())

    grid = np.full((ROWS + 1, COLUMNS + 1), -1)
    for r in range(ROWS + 1):
        for c in range(COLUMNS + 1):
            if not cut(r, c):
                grid[r, c] = new(1)[0]
    for r in range(ROWS):
        for c in range(COLUMNS):
            if not in_window(r, c):
                quads.append((grid[r, c], grid[r + 1, c], grid[r + 1, c + 1], grid[r, c + 1]))

    crown = np.full((FRONT + 1, SIDE + 1), -1)
    crown[:, 0] = grid[0, : FRONT + 1]
    crown[:, SIDE] = grid[0, COLUMNS : COLUMNS - FRONT - 1 : -1]
    crown[FRONT, :] = grid[0, FRONT : FRONT + SIDE + 1]
    crown[:FRONT, 1:SIDE] = new(FRONT * (SIDE - 1)).reshape(FRONT, SIDE - 1)
    for i in range(FRONT):
        for j in range(SIDE):
            quads.append((crown[i, j + 1], crown[i, j], crown[i + 1, j], crown[i + 1, j + 1]))

    def rings(outer: Ints, n: int, closed: bool) -> Ints:
        size = len(outer)
        stack = np.stack([outer, *(new(size) for _ in range(n))])
        for o, i in itertools.pairwise(stack):
            for j in range(size if closed else size - 1):
                k = (j + 1) % size
                quads.append((o[j], o[k], i[k], i[j]))
        return stack

    def on_grid(places: list[tuple[int, int]]) -> Ints:
        return np.array([grid[p] for p in places])

    def cap(ring: Ints) -> int:
        centre = int(new(1)[0])
        for j in range(0, len(ring), 2):
            quads.append((ring[j], ring[j + 1], ring[(j + 2) % len(ring)], centre))
        return centre

    eye = rings(on_grid(outline("eye", (9, 5))), EYE_RINGS, True)  # 0 at the inner corner, then along the lower lid
    mouth = rings(on_grid(outline("mouth")), MOUTH_RINGS, False)
    nostril = rings(on_grid(outline("nostril", (15, 1))), NOSTRIL_RINGS, True)
    ear = rings(on_grid(outline("ear", (9, FRONT + 2))), EAR_RINGS, True)  # 0 at the front of the ear's top
    ear_cap, nostril_cap = cap(ear[-1]), cap(nostril[-1])
    sides = np.concatenate([grid[:, 0], grid[:, COLUMNS], crown[0], mouth[:, 0], mouth[:, -1]])
    midline = np.unique(sides[sides >= 0])
    return Connectivity(
        count, grid, crown, eye, mouth, nostril, ear, ear_cap, nostril_cap, np.array(quads), midline
    )  # fmt: skip


def ball_faces() -> tuple[Ints, Ints]:
    """Triangles (T, 3) at the pole and quads (Q, 4) of one eyeball; vertex 0 is the pole, then ring by ring."""
    n = BALL_SEGMENTS
    b = np.arange(n)
    following = (b + 1) % n
    triangles = np.stack([np.zeros_like(b), 1 + b, 1 + following], 1)
    starts = 1 + n * np.arange(len(BALL_ANGLES) - 1)
    quads = np.concatenate([np.stack([o + b, o + n + b, o + n + following, o + following], 1) for o in starts])
    return triangles, quads


BALL_COUNT = 1 + BALL_SEGMENTS * len(BALL_ANGLES)
