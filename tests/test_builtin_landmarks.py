"""Landmarks of the built-in head lie on the features, which are found here anew, by geometry alone.

On the mean head and on random shapes, within 1.5 mm: the nose tip is the foremost point between eyes and mouth; the
corners of the eyes are the extremes of the lids' rim, the first crease that the skin comes to on its way into the
socket; the corners of the mouth are the extremes of what is seen to gape when the jaw drops.
"""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from next3d.heads import HeadParams, load_head
from next3d.raster import rasterize

TOLERANCE = 1.5e-3
EYES = ((3, 42, 45), (4, 39, 36))  # joint, landmarks of the inner and of the outer corner
CREASE = 0.1  # mean bend of a rim; 1 − the length of the mean normal of the faces around a vertex


@pytest.fixture(scope="module")
def head():
    return load_head("builtin")


@pytest.fixture(scope="module")
def shapes():
    """The mean head and twelve others."""
    shape = torch.randn(13, 100, generator=torch.Generator().manual_seed(5)).clamp(-2.5, 2.5)
    shape[0] = 0
    return shape


def skin_faces(head):
    ball = (head.skin[3] == 1) | (head.skin[4] == 1)
    faces = head.topology.faces
    return faces[~ball[faces].any(1)]


def bend(vertices, faces):
    """(V,) how far the faces around each vertex (V, 3) are from lying in a plane: 0 flat."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normals = np.cross(b - a, c - a)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    total, count = np.zeros((len(vertices), 3)), np.zeros(len(vertices))
    for k in range(3):
        np.add.at(total, faces[:, k], normals)
        np.add.at(count, faces[:, k], 1)
    return 1 - np.linalg.norm(total, axis=1) / np.maximum(count, 1)


def lid_rim(vertices, faces, centre):
    """Vertices of the rim: the outermost creased ring of those around the open edge behind the lids."""
    edges = {tuple(edge) for pair in ([0, 1], [1, 2], [2, 0]) for edge in faces[:, pair].tolist()}
    border = np.array([a for a, b in edges if (b, a) not in edges])
    ring = border[np.linalg.norm(vertices[border] - centre, axis=1) < 0.02]
    sharp, seen, rings = bend(vertices, faces), set(ring.tolist()), []
    for _ in range(8):  # outwards, past the lids
        rings.append(ring)
        following = set(faces[np.isin(faces, ring).any(1)].ravel().tolist()) - seen
        seen |= following
        ring = np.array(sorted(following))
    return [ring for ring in rings if sharp[ring].mean() > CREASE][-1]


def test_nose_tip(head, shapes):
    mesh = head(HeadParams(shape=shapes))
    for vertices, landmarks, joints in zip(mesh.vertices, mesh.landmarks, mesh.joints):
        eyes = joints[3:, 1].mean()
        mouth = landmarks[[62, 66], 1].mean()
        nose = (vertices[:, 1] < eyes) & (vertices[:, 1] > 0.7 * mouth + 0.3 * eyes) & (vertices[:, 0].abs() < 0.02)
        tip = vertices[nose][vertices[nose, 2].argmax()]
        assert (tip - landmarks[30]).norm() < TOLERANCE


def test_eye_corners(head, shapes):
    mesh = head(HeadParams(shape=shapes))
    faces = skin_faces(head).numpy()
    for joint, inner, outer in EYES:
        rim = lid_rim(mesh.vertices[0].numpy(), faces, mesh.joints[0, joint].numpy())
        points = mesh.vertices[:, rim]
        side = points[0, :, 0].mean().sign()
        for landmark, sign in ((inner, -side), (outer, side)):
            extreme = (sign * points[:, :, 0]).argmax(1)
            corner = points[torch.arange(len(points)), extreme]
            assert (corner - mesh.landmarks[:, landmark]).norm(dim=1).max() < TOLERANCE


def test_lip_corners(head, shapes):
    """From the front, with the jaw dropped by 20°: what lies a millimetre and more behind the lips around is open."""
    jaw = torch.tensor([math.radians(20), 0, 0]).expand(len(shapes), 3)
    mesh = head(HeadParams(shape=shapes, jaw=jaw))
    half, size = 0.04, 384
    for vertices, landmarks in zip(mesh.vertices, mesh.landmarks):
        centre = landmarks[[62, 66]].mean(0)
        offset = (vertices - centre) / half
        screen = torch.stack([offset[:, 0], -offset[:, 1], -offset[:, 2]], -1)
        depth = half * rasterize(screen[None].contiguous(), head.topology.faces, size).depth[0].numpy()
        gaping = depth - ndimage.grey_opening(depth, size=(121, 121)) > 1e-3
        parts, _ = ndimage.label(gaping)
        assert parts[size // 2, size // 2]
        rows, columns = np.nonzero(parts == parts[size // 2, size // 2])
        for landmark, extreme in ((54, columns.max()), (48, columns.min())):
            row = rows[columns == extreme].mean()
            place = np.array([2 * (extreme + 0.5) / size - 1, 1 - 2 * (row + 0.5) / size]) * half + centre[:2].numpy()
            assert np.linalg.norm(place - landmarks[landmark, :2].numpy()) < TOLERANCE
