"""Where MediaPipe's 478 face landmarks lie on the head: triangle and barycentric weights of each.

The places are found by registering MediaPipe's canonical face (468 vertices, one per landmark) onto the sculpted head:
lid margins and lips go onto the head's own rings in order, tips and corners onto theirs, the rest follows a thin-plate
warp and ends on the nearest skin. The result is a small table of our own numbers beside this file, which ``build``
reads. Run it again when the form has changed:

    python -m next3d.heads.builtin.rig.mediapipe path/to/canonical_face_model.obj
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from scipy.interpolate import RBFInterpolator

from .anatomy import MIRROR, MM, Anatomy, Array, Index
from .landmarks import Places, lid_paths, lip_paths, nearest_places, vertex_places

TABLE = Path(__file__).with_name("mediapipe.npz")
IRIS = 5.9  # mm, radius of the visible iris

# Contours of the subject's left side run from the inner to the outer corner of the eye, and from the right to the left
# corner of the mouth; numbers are MediaPipe's.
LEFT_LIDS = ((362, 398, 384, 385, 386, 387, 388, 466, 263), (362, 382, 381, 380, 374, 373, 390, 249, 263))
RIGHT_LIDS = ((133, 173, 157, 158, 159, 160, 161, 246, 33), (133, 155, 154, 153, 145, 144, 163, 7, 33))
LIPS = (  # border, two lines on the red, the line of contact: upper, lower
    ((61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291), (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)),
    ((76, 184, 74, 73, 72, 11, 302, 303, 304, 408, 306), (76, 77, 90, 180, 85, 16, 315, 404, 320, 307, 306)),
    ((62, 183, 42, 41, 38, 12, 268, 271, 272, 407, 292), (62, 96, 89, 179, 86, 15, 316, 403, 319, 325, 292)),
    ((78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308), (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)),
)
IRIS_RINGS = ((473, 474, 475, 476, 477), (468, 469, 470, 471, 472))  # left, right: centre, then four on the rim
NOSE_TIP, SUBNASALE, SELLION, CHIN, LEFT_ALA = 1, 2, 168, 199, 358


def read_vertices(path: str | Path) -> Array:
    """(V, 3) the vertices of an OBJ file."""
    lines = Path(path).read_text().splitlines()
    return np.array([[float(word) for word in line.split()[1:4]] for line in lines if line.startswith("v ")])


def fractions(points: Array) -> Array:
    """Length along a polyline, 0 … 1, at each of its points."""
    s = np.r_[0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))]
    return s / s[-1]


def along_path(anatomy: Anatomy, path: Index, where: Array) -> Places:
    """Places at fractions of the length of a vertex path."""
    return vertex_places(anatomy, path, np.interp(where, fractions(anatomy.vertices[path]), np.arange(len(path))))


def contours(anatomy: Anatomy, canonical: Array) -> dict[int, tuple[int, Array]]:
    """Landmarks that lie on rings of the head: number → (face, barycentric)."""
    found: dict[int, tuple[int, Array]] = {}

    def keep(numbers: tuple[int, ...], places: Places) -> None:
        for number, face, weight in zip(numbers, places.faces, places.barycentric):
            found[number] = (int(face), weight)

    def lay(numbers: tuple[int, ...], path: Index) -> None:
        keep(numbers, along_path(anatomy, path, fractions(canonical[list(numbers)])))

    for side, lids in enumerate((LEFT_LIDS, RIGHT_LIDS)):
        for path, numbers in zip(lid_paths(anatomy, side), lids):
            lay(numbers, path)
    mouth = anatomy.mouth
    rings = np.round(np.linspace(mouth.border, mouth.contact, 4)).astype(int)
    for ring, lips in zip(rings, LIPS):
        for path, line in zip(lip_paths(anatomy, int(ring)), lips):
            lay(line, path)
    for ball, (centre, radius), rim_numbers in zip((0, 1), anatomy.spheres, IRIS_RINGS):
        member = np.zeros(anatomy.count, bool)
        member[anatomy.eyes[ball].ball] = True
        ids = np.flatnonzero(member[anatomy.triangles].all(1))
        rim = np.sin(IRIS * MM / radius) * radius
        # MediaPipe's order on the rim: towards the subject's left, up, right, down.
        offsets = np.array([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]]) * rim
        points = centre + np.c_[offsets, np.sqrt(radius**2 - (offsets**2).sum(1))]
        keep(rim_numbers, nearest_places(anatomy, points, ids))
    return found


def register(anatomy: Anatomy, canonical: Array) -> Places:
    """Places of all 478 landmarks; ``canonical`` (468, 3) in centimetres."""
    source = canonical[:468] * 1e-2
    fixed = contours(anatomy, source)
    p, x = anatomy.points, anatomy.vertices
    targets = {k: (x[anatomy.triangles[f]] * w[:, None]).sum(0) for k, (f, w) in fixed.items() if k < 468}
    targets |= {NOSE_TIP: p["nose_tip"], SUBNASALE: p["subnasale"], SELLION: p["sellion"], CHIN: p["chin"]}
    mirror = mirror_numbers(source)
    targets |= {LEFT_ALA: p["ala"], int(mirror[LEFT_ALA]): p["ala"] * MIRROR}
    skin = anatomy.is_skin.copy()
    skin[
        np.concatenate([*anatomy.ears, *anatomy.nostrils, anatomy.mouth.rings[anatomy.mouth.border + 1 :].ravel()])
    ] = False
    for eye in anatomy.eyes:
        skin[eye.rings[eye.margin + 1 :].ravel()] = False
    ids = np.flatnonzero(skin[anatomy.triangles].all(1))
    free = np.array([k for k in range(468) if k not in fixed])
    moved = source.copy()
    anchors = dict(targets)
    for stiffness in (3e-4, 1e-4, 3e-5):
        keys = np.array(list(anchors))
        weight = np.array([0.0 if k in targets else stiffness for k in keys])
        warp = RBFInterpolator(source[keys], np.array(list(anchors.values())) - source[keys], smoothing=weight)
        moved = source + warp(source)
        moved = (moved + moved[mirror] * MIRROR) / 2
        places = nearest_places(anatomy, moved[free], ids)
        on_skin = places.points(x, anatomy.triangles)
        anchors = dict(targets)
        anchors |= {int(k): point for k, point in zip(free, on_skin) if k not in targets}
    # Left and right alike.
    point_of = dict(zip(free.tolist(), on_skin))
    final = np.array([(point_of[k] + point_of[int(mirror[k])] * MIRROR) / 2 for k in free.tolist()])
    places = nearest_places(anatomy, final, ids)
    faces, barycentric = np.zeros(478, int), np.zeros((478, 3))
    faces[free], barycentric[free] = places.faces, places.barycentric
    for k, (face, weight_) in fixed.items():
        faces[k], barycentric[k] = face, weight_
    return Places(faces, barycentric)


def mirror_numbers(source: Array) -> Array:
    """(468,) the number of each landmark's mirror image."""
    return np.argmin(((source[:, None] - (source * MIRROR)[None]) ** 2).sum(-1), axis=1)


def load() -> Places | None:
    """The stored table, or nothing when it has not been made."""
    if not TABLE.exists():
        return None
    with np.load(TABLE) as table:
        return Places(table["faces"].astype(int), table["barycentric"].astype(float))


def main(path: str) -> None:
    from next3d.heads.builtin.sculpt import sculpt

    places = register(sculpt().anatomy(), read_vertices(path))
    np.savez_compressed(TABLE, faces=places.faces.astype(np.int32), barycentric=places.barycentric.astype(np.float32))
    print(f"wrote the places of {len(places.faces)} landmarks to {TABLE.name}")


if __name__ == "__main__":
    main(sys.argv[1])
