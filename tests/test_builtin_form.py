"""The form of the built-in head: symmetric, closed where it should be, unfolded without overlap, as its asset says."""

import numpy as np
import pytest
import torch

from next3d.heads import HeadParams, load_head
from next3d.heads.builtin.atlas import atlas
from next3d.heads.builtin.sculpt import sculpt
from next3d.raster import rasterize

FLIP = np.array([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def form():
    return sculpt()


@pytest.fixture(scope="module")
def head():
    return load_head("builtin")


def normals(vertices, faces):
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return np.cross(b - a, c - a)


def signed_areas(points, faces):
    a, b, c = (points[faces[:, k]] for k in range(3))
    return ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2


def half_edges(faces):
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def test_the_asset_holds_what_the_code_builds(form, head):
    assert np.abs(head(HeadParams()).vertices[0].numpy() - form.vertices).max() < 1e-4
    assert (head.topology.faces.numpy() == form.faces).all()
    uvs, uv_faces, mask = atlas(form)
    assert np.abs(head.topology.uvs.numpy() - uvs).max() < 1e-6
    assert (head.topology.uv_faces.numpy() == uv_faces).all()
    assert np.abs(head.topology.face_mask.numpy() - mask).max() < 1 / 255


def test_left_and_right_mirror_each_other(form):
    assert np.abs(form.vertices[form.mirror] * FLIP - form.vertices).max() < 1e-9
    skin = form.faces[: 4 * len(form.half.quads)]
    mirrored = np.sort(form.mirror[skin], 1)
    assert {tuple(face) for face in mirrored} == {tuple(face) for face in np.sort(skin, 1)}


def test_surface_is_manifold_and_open_only_at_eyes_mouth_neck_and_behind_the_balls(form):
    edges = half_edges(form.faces)
    assert len(np.unique(edges, axis=0)) == len(edges)  # consistently oriented, no edge in three faces
    directed = {tuple(edge) for edge in edges}
    following = {a: b for b, a in directed if (a, b) not in directed}  # walks the border
    loops = []
    while following:
        start = next(iter(following))
        loop = [start]
        while (after := following.pop(loop[-1])) != start:
            loop.append(after)
        loops.append(frozenset(loop))
    assert sorted(map(len, loops)) == [24, 24, 32, 32, 44, 82]
    assert frozenset(form.mouth_rings[-1].tolist()) in loops
    assert frozenset(form.half.eye[-1].tolist()) in loops


def test_no_face_is_degenerate_or_upside_down(form):
    faces = form.faces
    normal = normals(form.vertices * 1000, faces)
    area = np.linalg.norm(normal, axis=1) / 2
    assert area.min() > 1e-3  # mm²
    normal /= 2 * area[:, None]
    edges = np.sort(half_edges(faces), 1)
    order = np.lexsort(edges.T)
    same = (edges[order][1:] == edges[order][:-1]).all(1)
    owner = np.tile(np.arange(len(faces)), 3)[order]
    a, b = owner[:-1][same], owner[1:][same]
    against = (normal[a] * normal[b]).sum(1) < -0.5
    upset = np.bincount(a[against], minlength=len(faces)) + np.bincount(b[against], minlength=len(faces))
    half = form.half
    hidden = np.zeros(len(form.vertices), bool)  # behind the lids, inside nostrils and ear canals the skin folds back
    for rings, first, cap in ((half.eye, 9, []), (half.nostril, 2, [half.nostril_cap]), (half.ear, 10, [half.ear_cap])):
        ids = np.r_[rings[first:].ravel(), np.array(cap, int)]
        hidden[ids] = hidden[form.twin[ids]] = True
    assert not ((upset >= 2) & ~hidden[faces].all(1)).any()


def test_atlas_has_no_overlaps_and_is_well_used(form):
    uvs, uv_faces, mask = atlas(form)
    assert uvs.min() > 0
    assert uvs.max() < 1
    areas = signed_areas(uvs, uv_faces)
    assert (areas < 0).all() or (areas > 0).all()
    screen = torch.from_numpy(np.c_[2 * uvs - 1, np.zeros(len(uvs))][None].astype(np.float32))
    covered = (rasterize(screen, torch.from_numpy(uv_faces), 1024).face >= 0).float().mean()
    assert covered >= 0.60
    assert abs(float(covered) - np.abs(areas).sum()) < 2e-3  # overlapping faces would add up to more
    assert 0.2 < mask.mean() < 0.5


def test_proportions_are_those_of_a_young_adult(form):
    points = {name: 1000 * at for name, at in form.anatomy().points.items()}
    skin = 1000 * form.vertices[np.setdiff1d(form.anatomy().skin, np.concatenate(form.anatomy().ears))]
    above = skin[skin[:, 1] > points["eye"][1]]
    assert 142 < np.ptp(above[:, 0]) < 158  # breadth
    assert 180 < np.ptp(above[:, 2]) < 202  # length, forehead to occiput
    assert 28 < 2 * points["eye_inner"][0] < 38
    assert 60 < 2 * points["eye"][0] < 66
    assert 30 < 2 * points["ala"][0] < 40
    assert 46 < 2 * points["lip_corner"][0] < 56


def test_profile_is_convex_where_it_should_be(form):
    """Nape, neck and chin: no roll under the occiput, a neck that leans forward, a chin in front of its fold."""
    grid = form.half.grid
    back = 1000 * form.vertices[grid[:, -1]][:, 1:]  # (rows, 2) y, z, downwards
    front = 1000 * form.vertices[grid[:, 0]][:, 1:]
    nape = back[22:34, 1]
    assert (np.diff(nape[: int(np.argmax(nape)) + 1]) > -0.05).all()  # steadily inwards to the nape's deepest point
    lean = np.degrees(np.arctan2(back[34, 1] - back[-1, 1], back[34, 0] - back[-1, 0]))
    assert 12 < lean < 35
    chin, fold = front[26:31, 1].max(), 1000 * form.vertices[form.half.mouth[0, 0], 2]
    assert chin > fold + 0.5
