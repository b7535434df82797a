"""The UV atlas: the skin unfolded as one island with a seam down the back, and an island for each eyeball below it.

The left half of the skin is laid into a rectangle, the midline of the face on one side, by Tutte's embedding with
mean value weights (a convex outline and positive weights cannot flip a triangle); the weights are then sharpened
round by round where the atlas is too small for the surface (after Yoshizawa et al. 2004), the face asking for three
times its area. The right half mirrors it.

The atlas is FROZEN: :func:`lay_out` made it once, on the form of that day, and ``atlas.npz`` holds it, so that
positions may be refined without moving a texture. Running this module lays it out anew, for another head.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import spsolve

from next3d.raster import rasterize

from .form import Array
from .sculpt import Ints, Sculpt
from .topology import BALL_ANGLES, BALL_COUNT, BALL_SEGMENTS

TABLE = Path(__file__).with_name("atlas.npz")
SKIN_BOX = (0.5, 0.01, 0.49, 0.79)  # the left half's rectangle: u of the midline, top v, width, height
BALL_CENTRE, BALL_RADIUS = (0.75, 0.90), 0.09  # the left ball's island
CORNER_ROW = 4  # the seam turns the rectangle's corner at this row of the strip, at the back of the head
FACE_SHARE = 2.0  # how many times its area more the face asks of the atlas
ROUNDS, SHARPEN = 20, 0.35


def mean_value_weights(points: Array, triangles: Ints) -> sparse.csr_matrix:
    """(P, P) Floater's mean value weights, positive on every mesh."""
    rows, columns, values = [], [], []
    for k in range(3):
        a, b, c = triangles[:, k], triangles[:, (k + 1) % 3], triangles[:, (k + 2) % 3]
        ab, ac = points[b] - points[a], points[c] - points[a]
        lb, lc = np.linalg.norm(ab, axis=1) + 1e-9, np.linalg.norm(ac, axis=1) + 1e-9
        half = np.tan(np.arccos(np.clip((ab * ac).sum(1) / lb / lc, -0.9999, 0.9999)) / 2)
        rows += [a, a]
        columns += [b, c]
        values += [half / lb, half / lc]
    n = len(points)
    return sparse.csr_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(n, n))


def unfold(sculpt: Sculpt) -> Array:
    """(half.count, 2) the left half of the skin in the unit square: x away from the midline of the face, y up."""
    half = sculpt.half
    # The open rims of eye and mouth are closed by fans while the skin is laid out.
    eye, mouth = half.eye[-1], half.mouth[-1]
    eye_hub, mouth_hub = half.count, half.count + 1
    quads = half.quads
    triangles = np.concatenate(
        [
            quads[:, [0, 1, 2]],
            quads[:, [0, 2, 3]],
            np.stack([eye, np.roll(eye, -1), np.full(len(eye), eye_hub)], 1),
            np.stack([mouth[:-1], mouth[1:], np.full(len(mouth) - 1, mouth_hub)], 1),
        ]
    )
    points = sculpt.vertices[: half.count] * 100  # cm
    hub = points[mouth].mean(0) * [0, 1, 1]
    points = np.concatenate([points, [points[eye].mean(0), hub]])

    crown = [int(v) for v in half.crown[0, half.crown.shape[1] // 2 :]]
    seam = list(dict.fromkeys(crown + [int(v) for v in half.grid[:, -1]]))
    neck = [int(v) for v in half.grid[-1, -2::-1]]
    rim = seam + neck
    length = np.r_[0, np.cumsum(np.linalg.norm(np.diff(points[rim], axis=0), axis=1))]
    stops = [length[0], length[seam.index(int(half.grid[CORNER_ROW, -1]))], length[len(seam) - 1], length[-1]]
    corners = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], float)
    held = np.zeros((len(points), 2), bool)
    target = np.zeros((len(points), 2))
    held[rim] = True
    target[rim] = np.stack([np.interp(length, stops, corners[:, k]) for k in range(2)], 1)
    held[[*half.midline, mouth_hub], 0] = True

    weights = mean_value_weights(points, triangles)
    corner = points[triangles]
    area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1) / 2
    middle = points[mouth].mean(0) + np.array([0, 3.2, 0])  # of the face
    middle[0], middle[2] = 0, points[mouth, 2].max()
    wanted = area * (1 + FACE_SHARE * np.exp(-(((corner.mean(1) - middle) / [4.5, 5.5, 4]) ** 2).sum(1)))
    best, best_error = None, np.inf
    for _ in range(ROUNDS):
        flat = embed(weights, held, target)
        a, b, c = (flat[triangles[:, k]] for k in range(3))
        signed = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
        ratio = np.log(np.maximum(np.abs(signed), 1e-12) / wanted)
        error = float(np.sqrt(np.average((ratio - np.average(ratio, weights=wanted)) ** 2, weights=wanted)))
        if (signed > 0).all() and error < best_error:
            best, best_error = flat, error
        stretch, total = np.zeros(len(points)), np.zeros(len(points))
        for k in range(3):
            np.add.at(stretch, triangles[:, k], wanted * np.exp(-ratio / 2))
            np.add.at(total, triangles[:, k], wanted)
        stretch /= np.maximum(total, 1e-12)
        weights = weights @ sparse.diags(np.clip(stretch / np.median(stretch), 0.1, 10) ** -SHARPEN)
    assert best is not None
    return best[: half.count]


def embed(weights: sparse.csr_matrix, held: Array, target: Array) -> Array:
    """(P, 2) every free point at the weighted mean of its neighbours."""
    system = (sparse.diags(np.asarray(weights.sum(1)).ravel()) - weights).tocsr()
    flat = target.copy()
    for k in range(2):
        free = ~held[:, k].astype(bool)
        flat[free, k] = spsolve(system[free][:, free].tocsc(), -system[free][:, ~free] @ target[~free, k])
    return flat


def atlas(sculpt: Sculpt) -> tuple[Array, Ints, Array]:
    """UVs (T, 2) with the origin at the top left, UV faces (F, 3), and the mask (256, 256) of face and eyes."""
    with np.load(TABLE) as table:
        return table["uvs"].astype(float), uv_faces(sculpt), table["face_mask"] / 255.0


def lay_out(sculpt: Sculpt) -> Array:
    """(T, 2) UVs made from the form: left half of the skin, right half, left and right eyeball."""
    middle, top, width, height = SKIN_BOX
    flat = unfold(sculpt)
    left = np.c_[middle + width * flat[:, 0], top + height * (1 - flat[:, 1])]
    angle = np.r_[0, np.repeat(BALL_ANGLES, BALL_SEGMENTS)] / BALL_ANGLES[-1] * BALL_RADIUS
    turn = np.r_[0, np.tile(2 * np.pi * np.arange(BALL_SEGMENTS) / BALL_SEGMENTS, len(BALL_ANGLES))]
    ball = np.array(BALL_CENTRE) + np.c_[angle * np.cos(turn), -angle * np.sin(turn)]
    flip, shift = np.array([-1.0, 1.0]), np.array([1.0, 0.0])
    return np.concatenate([left, left * flip + shift, ball, ball * flip + shift])


def uv_faces(sculpt: Sculpt) -> Ints:
    """(F, 3) the UVs of every face: those of its own half of the skin, or of its eyeball."""
    half, count = sculpt.half.count, len(sculpt.vertices)
    on_left, on_right = np.full(count, -1), np.full(count, -1)
    on_left[:half] = np.arange(half)
    on_right[sculpt.twin] = half + np.arange(half)
    skin_count = count - 2 * BALL_COUNT
    on_left[skin_count:] = on_right[skin_count:] = 2 * half + np.arange(2 * BALL_COUNT)
    faces = sculpt.faces
    side = np.arange(len(faces)) < 2 * len(sculpt.half.quads)
    return np.where(side[:, None], on_left[faces], on_right[faces])


def face_mask(sculpt: Sculpt, uvs: Array, uv_faces: Ints) -> Array:
    """(256, 256) 1 on face and eyes: what expressions move, from the hairline to below the jaw and up to the ears."""
    anatomy = sculpt.anatomy()
    x, y = anatomy.vertices[:, 0], anatomy.vertices[:, 1] - anatomy.points["eye"][1]
    face = ((x / 0.070) ** 4 + ((y + 0.034) / 0.105) ** 4 < 1) & (anatomy.depth > -0.012)
    face[np.concatenate([eye.ball for eye in anatomy.eyes])] = True
    face[np.concatenate(anatomy.ears)] = False
    inside = face[sculpt.faces].all(1)
    screen = np.c_[2 * uvs - 1, np.zeros(len(uvs))][None].astype(np.float32)
    found = rasterize(torch.from_numpy(screen), torch.from_numpy(uv_faces.astype(np.int64)), 256).face[0].numpy()
    return np.where(found >= 0, inside[found.clip(0)], False).astype(np.float32)


def main() -> None:
    from .sculpt import sculpt

    form = sculpt()
    uvs = lay_out(form)
    mask = face_mask(form, uvs, uv_faces(form))
    np.savez_compressed(TABLE, uvs=uvs.astype(np.float32), face_mask=(mask * 255).round().astype(np.uint8))


if __name__ == "__main__":
    main()
