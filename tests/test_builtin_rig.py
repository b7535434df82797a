"""The built-in head moves as promised: symmetric, closed lids, open jaw, eyes that stay round, no folded skin."""

import math

import numpy as np
import pytest
import torch

from next3d.heads import HeadParams, load_head
from next3d.heads.arkit import ARKIT_NAMES, JOINT_COLUMNS
from next3d.raster import rasterize

MIRROR = torch.tensor([-1.0, 1.0, 1.0])
BLINK = {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}


@pytest.fixture(scope="module")
def head():
    return load_head("builtin")


@pytest.fixture(scope="module")
def balls(head):
    """Vertices of the left and of the right eyeball: those that only their joint moves."""
    return [torch.nonzero(head.skin[joint] == 1).flatten() for joint in (3, 4)]


def random_params(count, seed, *, expression=0.2, jaw=30.0):
    """Heads drawn from the unit normal within ±2.5; a fifth of the expressions at random strength; jaw and gaze."""
    g = torch.Generator().manual_seed(seed)
    shape = torch.randn(count, 100, generator=g).clamp(-2.5, 2.5)
    on = torch.rand(count, 50, generator=g) < expression
    face = torch.rand(count, 50, generator=g) * on
    angle = torch.zeros(count, 3)
    angle[:, 0] = torch.rand(count, generator=g) * math.radians(jaw)
    close = load_head("builtin").expression_names.index("mouthClose")  # it closes what the jaw has opened, no more
    face[:, close] = torch.minimum(face[:, close], angle[:, 0] / math.radians(30))
    gaze = torch.zeros(count, 6)
    gaze[:, 0] = gaze[:, 3] = torch.deg2rad(torch.rand(count, generator=g) * 50 - 25)
    gaze[:, 1] = gaze[:, 4] = torch.deg2rad(torch.rand(count, generator=g) * 60 - 30)
    return HeadParams(shape=shape, expression=face, jaw=angle, eyes=gaze)


def face_normals(vertices, faces):
    """Unnormalised (N, F, 3)."""
    a, b, c = (vertices[:, faces[:, k]] for k in range(3))
    return torch.linalg.cross(b - a, c - a)


def front_view(vertices, faces, size=512, height=0.16, centre=0.01):
    screen = torch.stack([vertices[..., 0], centre - vertices[..., 1], -vertices[..., 2]], -1) / (height / 2)
    return rasterize(screen.contiguous(), faces, size)


def ball_pixels(head, params, balls):
    """(N,) eyeball pixels seen from the front, 0.16 m over 512 pixels."""
    is_ball = torch.zeros(head.topology.vertex_count, dtype=torch.bool)
    is_ball[torch.cat(balls)] = True
    on_ball = is_ball[head.topology.faces].all(1)
    vertices = head(params).vertices
    centre = float(vertices[:, balls[0], 1].mean())
    found = front_view(vertices, head.topology.faces, centre=centre)
    return ((found.face >= 0) & on_ball[found.face.clamp(min=0)]).flatten(1).sum(1)


def test_every_arkit_coefficient_has_a_place(head):
    for name in ARKIT_NAMES:
        assert name in head.expression_names or name in JOINT_COLUMNS or name == "tongueOut"
        moved = head.from_arkit({name: 1.0})
        driven = torch.cat([moved.expression, moved.jaw, moved.eyes])
        assert bool(driven.any()) == (name != "tongueOut")
    assert len(set(head.shape_names)) == 100
    assert len(set(head.expression_names)) == 50
    assert not set(head.shape_names) & {*head.expression_names, *ARKIT_NAMES}  # a name means one thing


def test_neutral_head_is_symmetric(head):
    template = head(HeadParams()).vertices[0]
    assert (template[head.mirror_vertices] * MIRROR - template).abs().max() < 1e-6


def test_mirrored_parameters_give_the_mirrored_mesh(head):
    params = random_params(8, seed=0)
    g = torch.Generator().manual_seed(1)
    params = params.replace(
        neck=0.5 * torch.randn(8, 3, generator=g), jaw=params.jaw + 0.08 * torch.randn(8, 3, generator=g)
    )
    here, there = head(params), head(head.mirror(params))
    assert (here.vertices[:, head.mirror_vertices] * MIRROR - there.vertices).abs().max() < 1e-6
    assert (here.irises.flip(1) * MIRROR - there.irises).abs().max() < 1e-5


def test_eyes_stay_spheres_that_turn_about_their_centres(head, balls):
    vertices = head(random_params(64, seed=2)).vertices.double()
    joints = head(random_params(64, seed=2)).joints
    for joint, ball in zip((3, 4), balls):
        distance = (vertices[:, ball] - joints[:, joint, None].double()).norm(dim=-1)
        assert (distance.amax(1) - distance.amin(1)).max() < 2e-5
        assert (distance.mean(1) - 0.012).abs().max() < 0.002


def test_closed_lids_hide_the_eyes(head, balls):
    params = random_params(40, seed=3, expression=0.0, jaw=0.0)
    params = params.replace(expression=head.params(**BLINK).expression.expand(40, 50))
    assert ball_pixels(head, params, balls).max() == 0
    neutral = head.params(**BLINK)
    assert ball_pixels(head, neutral, balls).max() == 0
    assert ball_pixels(head, HeadParams(), balls).min() > 200


def test_lids_close_steadily_and_stay_in_front_of_the_ball(head, balls):
    amounts = torch.linspace(0, 1, 9)
    params = HeadParams(expression=amounts[:, None] * head.params(**BLINK).expression)
    seen = ball_pixels(head, params, balls)
    assert (seen[1:] <= seen[:-1]).all()
    mesh = head(params).vertices
    moving = (mesh[-1] - mesh[0]).norm(dim=-1) > 0.004  # the upper lids
    for ball in balls:
        centre = mesh[0, ball].mean(0)
        centre = head(HeadParams()).joints[0, 3 if centre[0] > 0 else 4]
        near = moving & ((mesh[0] - centre).norm(dim=-1) > 0.0130) & ((mesh[0, :, 0] * centre[0]) > 0)
        assert (mesh[:, near] - centre).norm(dim=-1).min() > 0.0122


def folded(vertices, rest, faces, pairs):
    """(N, F) faces upside down between their neighbours, or all but vanished, where the neutral head's are not."""
    now, before = face_normals(vertices, faces), face_normals(rest, faces)
    area = now.norm(dim=-1) / before.norm(dim=-1)
    now, before = torch.nn.functional.normalize(now, dim=-1), torch.nn.functional.normalize(before, dim=-1)
    a, b = pairs.T
    upset = (now[:, a] * now[:, b]).sum(-1) < -0.5
    upset &= (before[:, a] * before[:, b]).sum(-1) > -0.1
    count = torch.zeros(area.shape).index_add(1, a, upset.float()).index_add(1, b, upset.float())
    return (count >= 2) | (area < 0.02)


def edge_neighbours(faces):
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).sort(dim=1).values
    owner = torch.arange(len(faces)).repeat(3)
    order = torch.argsort(edges[:, 0] * (faces.max() + 1) + edges[:, 1])
    same = (edges[order][1:] == edges[order][:-1]).all(1)
    return torch.stack([owner[order][:-1][same], owner[order][1:][same]], 1)


@pytest.mark.parametrize(("expression", "jaw"), [(0.0, 0.0), (0.2, 30.0)])
def test_thousand_random_heads_have_no_flipped_or_degenerate_faces(head, expression, jaw):
    faces = head.topology.faces
    pairs, rest = edge_neighbours(faces), head(HeadParams()).vertices
    bad = 0
    for seed in range(20):
        params = random_params(50, seed=100 + seed, expression=expression, jaw=jaw)
        bad += int(folded(head(params).vertices, rest, faces, pairs).sum())
    assert bad == 0


def test_jaw_opens_the_mouth(head):
    landmarks = head(HeadParams(jaw=(math.radians(30), 0, 0))).landmarks[0]
    assert landmarks[62, 1] - landmarks[66, 1] > 0.012
    closed = head(HeadParams()).landmarks[0]
    assert (closed[62] - closed[66]).norm() < 0.002


@pytest.mark.parametrize(
    ("name", "landmark", "axis", "sign"),
    [
        ("mouthSmile", 54, 1, 1),
        ("mouthFrown", 54, 1, -1),
        ("mouthPucker", 54, 0, -1),
        ("mouthStretch", 54, 0, 1),
        ("browDown", 22, 1, -1),
        ("browInnerUp", 22, 1, 1),
        ("browOuterUp", 25, 1, 1),
        ("mouthUpperUp", 52, 1, 1),
        ("mouthLowerDown", 56, 1, -1),
        ("jawForward", 8, 2, 1),
        ("eyeBlink", 44, 1, -1),
        ("eyeWide", 44, 1, 1),
    ],
)
def test_expressions_move_their_landmarks(head, name, landmark, axis, sign):
    names = [name] if name in head.expression_names else [name + "Left", name + "Right"]
    moved = head(head.params(**dict.fromkeys(names, 1.0))).landmarks - head(HeadParams()).landmarks
    assert sign * moved[0, landmark, axis] > 0.0012


def test_gaze_turns_the_irises_and_the_lids_follow(head):
    up = head(head.from_arkit({"eyeLookUpLeft": 1, "eyeLookUpRight": 1}))
    down = head(head.from_arkit({"eyeLookDownLeft": 1, "eyeLookDownRight": 1}))
    left = head(head.from_arkit({"eyeLookOutLeft": 1, "eyeLookInRight": 1}))
    rest = head(HeadParams())
    assert (up.irises - rest.irises)[0, :, 1].min() > 0.004
    assert (left.irises - rest.irises)[0, :, 0].min() > 0.004
    assert up.landmarks[0, 44, 1] > rest.landmarks[0, 44, 1] + 0.001 > down.landmarks[0, 44, 1] + 0.003


def test_landmarks_are_symmetric_and_ordered(head):
    points = head(HeadParams()).landmarks[0]
    pairs = [(i, 16 - i) for i in range(8)] + [(17 + i, 26 - i) for i in range(5)] + [(31, 35), (32, 34)]
    pairs += [
        (36, 45),
        (37, 44),
        (38, 43),
        (39, 42),
        (40, 47),
        (41, 46),
        (48, 54),
        (49, 53),
        (50, 52),
        (59, 55),
        (58, 56),
    ]
    pairs += [(60, 64), (61, 63), (67, 65)]
    for i, j in pairs:
        assert (points[i] * MIRROR - points[j]).norm() < 2e-4, (i, j)
    assert (np.diff(points[:17, 0]) > 0).all()


def test_mediapipe_places_follow_the_lids_and_lips(head):
    faces, weights = head.mediapipe
    assert (faces >= 0).all()
    assert torch.allclose(weights.sum(1), torch.ones(478), atol=1e-5)
    points = head.points(head(HeadParams()).vertices, faces, weights)[0]
    landmarks = head(HeadParams()).landmarks[0]
    for number, landmark in ((33, 36), (133, 39), (362, 42), (263, 45), (61, 48), (291, 54), (1, 30)):
        assert (points[number] - landmarks[landmark]).norm() < 1e-3
    for path in ((33, 246, 161, 160, 159, 158, 157, 173, 133), (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)):
        assert (np.diff(points[list(path), 0]) > 0).all()
    assert (points[[473, 468]] - head(HeadParams()).irises[0]).norm(dim=-1).max() < 2e-4
