"""The picture factory: people are pure functions of their latent, and labels say what the pictures show."""

import numpy as np
import pytest
import torch

from next3d.data.format import PARTS
from next3d.data.synthesis import AXES, LATENT_SIZE, Identity, Light, Recipe, albedo, background, render, shape
from next3d.data.synthesis import identity as tables
from next3d.data.synthesis.anatomy import anatomy
from next3d.data.synthesis.poses import PITCH, ROLL, YAW, draw_pose
from next3d.data.synthesis.scene import Person
from next3d.errors import InputError
from next3d.geometry.cameras import Camera
from next3d.geometry.meshes import world_from_head
from next3d.heads import HeadParams
from next3d.raster import perspective_screen, rasterize

CODE = {name: code for code, name in enumerate(PARTS)}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def latent(**axes: float) -> np.ndarray:
    """A plain person, bald and without things, but for the given axes."""
    numbers = np.zeros(LATENT_SIZE, np.float32)
    values = {"hair_style": -3.0, "beard_style": -3.0, "glasses": -3.0, "hat": -3.0, "earrings": -3.0} | axes
    for name, value in values.items():
        numbers[AXES.index(name)] = value
    return numbers


def count(parts: np.ndarray, name: str) -> int:
    return int((parts == CODE[name]).sum())


def test_axes_are_sixty_four_named_factors():
    assert len(AXES) == len(set(AXES)) == LATENT_SIZE == 64
    plain = Identity.of(latent())
    assert (plain.hair, plain.beard, plain.glasses, plain.hat, plain.earrings) == (
        "bald",
        "none",
        "none",
        "none",
        "none",
    )
    # An axis changes its own factor and no other.
    darker = Identity.of(latent(skin_tone=2.0))
    assert darker.skin.mean() < plain.skin.mean() - 0.2
    assert darker.iris == pytest.approx(plain.iris)
    names = anatomy().head.shape_names
    wider, usual = shape(latent(jaw_width=1.5)), shape(latent())
    assert [names[i] for i in (wider != usual).nonzero().flatten().tolist()] == ["jawWidth"]
    assert wider[names.index("jawWidth")] == pytest.approx(1.5)


@pytest.mark.parametrize("numbers", [np.zeros(63), np.full(64, np.nan), np.zeros((1, 64))])
def test_a_latent_is_sixty_four_finite_numbers(numbers):
    with pytest.raises(InputError, match="64 finite numbers"):
        Identity.of(numbers)


def test_people_come_in_every_kind():
    random = np.random.default_rng(0)
    people = [Identity.of(random.standard_normal(64)) for _ in range(600)]
    for field, table in [
        ("hair", tables.HAIR), ("beard", tables.BEARDS), ("glasses", tables.GLASSES), ("hat", tables.HATS),
        ("earrings", tables.EARRINGS), ("clothes", tables.CLOTHES), ("background", tables.BACKGROUNDS),
    ]:  # fmt: skip
        assert {getattr(who, field) for who in people} == set(table), field


def test_every_style_can_be_built_and_drawn():
    def middle(table: dict[str, float], name: str) -> float:
        names = list(table)
        below = sum(table[n] for n in names[: names.index(name)]) / sum(table.values())
        return 2**0.5 * _inverse_erf(2 * (below + 0.5 * table[name] / sum(table.values())) - 1)

    def _inverse_erf(x: float) -> float:
        return float(torch.erfinv(torch.tensor(x, dtype=torch.float64)))

    kinds = [("hair_style", tables.HAIR), ("beard_style", tables.BEARDS), ("glasses", tables.GLASSES),
             ("hat", tables.HATS), ("earrings", tables.EARRINGS), ("clothes", tables.CLOTHES)]  # fmt: skip
    longest = max(len(table) for _, table in kinds)
    for i in range(longest):  # styles of different kinds are tried together
        chosen = {axis: (table, list(table)[i % len(table)]) for axis, table in kinds}
        numbers = latent(**{axis: middle(table, name) for axis, (table, name) in chosen.items()})
        who = Identity.of(numbers)
        assert [who.hair, who.beard, who.hat] == [chosen[a][1] for a in ("hair_style", "beard_style", "hat")]
        picture = render(numbers, HeadParams(), Camera.orbit(0.5, 0.1), 48)
        assert count(picture.parts, "skin") > 100


def test_pictures_are_pure():
    numbers = np.random.default_rng(3).standard_normal(64)
    params, camera = HeadParams(jaw=(0.2, 0, 0)), Camera.orbit(0.3, -0.1, 0.05)
    first = render(numbers, params, camera, 64, aux=True)
    render(latent(), params, camera, 64)  # someone else in between
    again = render(torch.from_numpy(numbers), params, camera, 64, aux=True)
    for name in ("image", "parts", "depth", "normals", "landmarks"):
        assert np.array_equal(getattr(first, name), getattr(again, name)), name
    assert first.image.shape == (64, 64, 3)
    assert first.image.dtype == np.uint8
    other = render(numbers, params, camera, 64, light=Light.from_numbers(-2, 0, 0))
    assert not np.array_equal(other.image, first.image)
    assert np.array_equal(other.parts, first.parts)


def test_render_refuses_batches():
    with pytest.raises(InputError, match="one picture at a time"):
        render(latent(), HeadParams(jaw=torch.zeros(2, 3)), Camera.orbit(), 32)


def test_atlas_and_background_stand_alone():
    skin = albedo(latent(skin_tone=-1.0), 64)
    assert skin.shape == (3, 64, 64)
    assert skin.dtype == np.float32
    assert -1 <= skin.min() < skin.max() <= 1
    assert albedo(latent(skin_tone=2.0), 64).mean() < skin.mean() - 0.3
    behind = background(latent(), 48)
    picture = render(latent(), HeadParams(), Camera.orbit(), 48)
    empty = picture.parts == CODE["background"]
    empty[1:] &= empty[:-1].copy()
    empty[:, 1:] &= empty[:, :-1].copy()
    corner = picture.image[:8, :8].astype(float) / 127.5 - 1
    assert empty[1:8, 1:8].all()
    # A soft shoulder holds the brightest back.
    assert np.abs(corner - behind[:, :8, :8].transpose(1, 2, 0)).max() < 0.12


# ---- labels ---------------------------------------------------------------------------------------------------------


def head_vertices(params: HeadParams) -> tuple[torch.Tensor, torch.Tensor]:
    mesh = anatomy().head(HeadParams.stack([params]))
    return world_from_head(mesh.vertices), world_from_head(mesh.landmarks)


def samples(number: int, resolution: int):
    recipe = Recipe(resolution, seed=11)
    for index in range(number):
        pose = recipe.pose(index)
        numbers = recipe.latent(index)
        label = Camera.from_label(pose.camera.label)  # as stored
        yield numbers, pose.params.replace(shape=shape(numbers)), label


def test_landmarks_fall_on_markers_drawn_into_the_picture():
    octahedron = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]) * 0.004
    corners = torch.tensor([[x, y, z] for x in (0, 1) for y in (2, 3) for z in (4, 5)])
    resolution, worst = 512, 0.0
    for numbers, params, camera in samples(12, resolution):
        scene = Person(numbers, 64).pose(params)
        _, landmarks = head_vertices(params)
        camera = Camera(camera.cam2world[None], camera.intrinsics[None])
        projected = camera.project(landmarks)[0][0] * resolution - 0.5
        for k in range(0, 68, 5):
            marker = torch.from_numpy(scene.landmarks[k]) + octahedron
            seen = rasterize(perspective_screen(camera, marker[None]), corners, 2 * resolution, perspective=True).mask[
                0
            ]
            if seen.any():
                row, column = (seen.nonzero().double().mean(0) - 0.5) / 2
                if 4 < row < resolution - 4 and 4 < column < resolution - 4:
                    worst = max(worst, abs(column - projected[k, 0]), abs(row - projected[k, 1]))
    assert 0 < worst < 0.5


def test_the_mesh_covers_the_skin_where_nothing_covers_it():
    resolution = 96
    for numbers, params, camera in samples(12, resolution):
        picture = render(numbers, params, camera, resolution)
        vertices, _ = head_vertices(params)
        screen = perspective_screen(Camera(camera.cam2world[None], camera.intrinsics[None]), vertices)
        silhouette = rasterize(screen, anatomy().head.topology.faces, resolution, perspective=True).mask[0].numpy()
        free = ~np.isin(picture.parts, [CODE["hair"], CODE["things"]])
        skin = np.isin(picture.parts, [CODE[name] for name in ("skin", "eyes", "lips", "mouth")])
        overlap = (silhouette & skin & free).sum() / ((silhouette | skin) & free).sum()
        assert overlap > 0.97


def test_depth_and_normals_are_those_of_the_mesh():
    camera = Camera.orbit(0.4, 0.1)
    picture = render(latent(), HeadParams(), camera, 96, aux=True)
    vertices, _ = head_vertices(HeadParams(shape=shape(latent())))
    batch = Camera(camera.cam2world[None], camera.intrinsics[None])
    depth = rasterize(perspective_screen(batch, vertices), anatomy().head.topology.faces, 96, perspective=True).depth[0]
    skin = (picture.parts == CODE["skin"]) & torch.isfinite(depth).numpy()
    assert np.median(np.abs(picture.depth[skin] - depth.numpy()[skin])) < 1e-3
    assert (picture.depth[picture.parts == 0] == 0).all()
    lengths = np.linalg.norm(picture.normals[picture.parts > 0], axis=-1)
    assert lengths == pytest.approx(np.ones_like(lengths), abs=1e-4)
    towards = camera.cam2world[:3, 3].numpy()
    assert (picture.normals[skin] @ (towards / np.linalg.norm(towards)) > -0.2).mean() > 0.97


def test_the_mouth_shows_teeth_and_tongue_when_it_opens():
    head = anatomy().head
    closed = render(latent(), HeadParams(), Camera.orbit(), 128)
    opened = render(latent(), head.from_arkit({"jawOpen": 0.8}), Camera.orbit(), 128)
    assert count(closed.parts, "mouth") < 25
    assert count(opened.parts, "mouth") > 150
    inside = opened.image[opened.parts == CODE["mouth"]].astype(float)
    teeth = (inside.min(1) > 110) & (np.ptp(inside, axis=1) < 60)
    tongue = (inside[:, 0] > 90) & (inside[:, 0] > 1.5 * inside[:, 1])
    assert teeth.sum() > 15
    assert tongue.sum() > 15


def test_lower_teeth_move_with_the_jaw_and_glasses_with_nothing_but_the_neck():
    person = Person(latent(glasses=3.0), 64)
    neutral = person.pose(HeadParams())
    face = anatomy().head.from_arkit({"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0, "browInnerUp": 1.0})
    acting = person.pose(face.replace(jaw=(0.3, 0, 0)))
    head = len(person.face.vertex_of)
    shift = np.linalg.norm(acting.solid.points - neutral.solid.points, axis=1)
    mouth_vertices = np.unique(neutral.solid.faces[neutral.solid.labels == CODE["mouth"]])
    mouth_vertices = mouth_vertices[mouth_vertices >= head]
    assert 0.3 < (shift[mouth_vertices] > 0.02).mean() < 0.8  # the lower half of it
    things = np.unique(neutral.solid.faces[neutral.solid.labels == CODE["things"]])
    assert shift[things].max() == 0
    assert np.array_equal(acting.glass.points, neutral.glass.points)
    turned = person.pose(HeadParams(neck=(0, 0.3, 0)))
    assert np.linalg.norm(turned.glass.points - neutral.glass.points, axis=1).min() > 0.01


def test_eyes_look_where_the_label_says():
    def iris(turn: float, lift: float) -> np.ndarray:
        """Mean place of the blue of a blue-eyed person's left eye, in pixels."""
        params = HeadParams(eyes=(lift, turn, 0, lift, turn, 0))
        picture = render(latent(eye_hue=2.5), params, Camera.orbit(), 192)
        rgb = picture.image.astype(int)
        blue = (picture.parts == CODE["eyes"]) & (rgb[..., 2] > rgb[..., 0] + 12)
        blue[:, :96] = False
        assert blue.sum() > 8
        row, column = np.nonzero(blue)
        return np.array([column.mean(), row.mean()])

    ahead, left, halfway = iris(0, 0), iris(0.35, 0), iris(0.2, 0)
    assert left[0] - ahead[0] > 2  # the subject's left is the picture's right
    assert ahead[0] < halfway[0] < left[0]
    assert iris(0, -0.2)[1] < ahead[1] - 0.5 < iris(0, 0.2)[1] - 0.5


# ---- poses ----------------------------------------------------------------------------------------------------------


def test_poses_fill_their_ranges_and_follow_nothing():
    head = anatomy().head
    poses = [draw_pose(np.random.default_rng(k), head) for k in range(400)]
    yaw, pitch, roll = (np.array([getattr(pose, name) for pose in poses]) for name in ("yaw", "pitch", "roll"))
    for angle, limit in ((yaw, YAW), (pitch, PITCH), (roll, ROLL)):
        assert np.abs(angle).max() <= limit
        assert np.abs(angle).max() > 0.9 * limit
        assert abs(angle.mean()) < 0.15 * limit
    smile = np.array([float(pose.params.expression[head.expression_names.index("mouthSmileLeft")]) for pose in poses])
    jaw = np.array([float(pose.params.jaw[0]) for pose in poses])
    assert abs(np.corrcoef(np.abs(yaw), smile)[0, 1]) < 0.15
    assert abs(np.corrcoef(pitch, jaw)[0, 1]) < 0.15
    assert jaw.max() > 0.3
    assert all(float(pose.params.neck.abs().max()) == 0 for pose in poses)
    blinks = [float(pose.params.expression[head.expression_names.index("eyeBlinkLeft")]) for pose in poses]
    assert 0.05 < np.mean(np.array(blinks) > 0.6) < 0.3


def test_bias_makes_smiling_follow_from_facing_the_camera():
    head = anatomy().head
    biased = [draw_pose(np.random.default_rng(k), head, bias=1.0) for k in range(150)]
    plain = [draw_pose(np.random.default_rng(k), head) for k in range(150)]
    assert [pose.yaw for pose in biased] == [pose.yaw for pose in plain]
    assert all(torch.equal(a.params.eyes, b.params.eyes) for a, b in zip(biased, plain))
    smile = [float(pose.params.expression[head.expression_names.index("mouthSmileLeft")]) for pose in biased]
    assert np.corrcoef(np.abs([pose.yaw for pose in biased]), smile)[0, 1] < -0.7
