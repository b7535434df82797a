"""Avatars: baked identities that are drawn, driven, meshed, saved, and know their model."""

from __future__ import annotations

import math

import pytest
import torch

import next3d
from generator_samples import stand_in_head, tiny_config
from next3d.avatar import Avatar, fingerprint, latents, morph, sample
from next3d.errors import InputError
from next3d.generator.generator import Generator
from next3d.generator.volume import FieldSample
from next3d.geometry.cameras import Camera
from next3d.geometry.meshes import world_from_head
from next3d.heads import HeadParams, Motion


@pytest.fixture(scope="module")
def model() -> Generator:
    return next3d.load("untrained:tiny")


@pytest.fixture(scope="module")
def avatar(model) -> Avatar:
    return model.sample(seed=7, truncation=0.7)


def test_seeds_are_identities(model, avatar):
    again = model.sample(seed=7)
    assert torch.equal(again.ws, avatar.ws)
    assert torch.equal(again.shape, avatar.shape)
    other = model.sample(seed=8)
    assert not torch.equal(other.ws, avatar.ws)
    assert not torch.equal(other.shape, avatar.shape)
    mean = model.sample(seed=7, truncation=0.0)
    assert mean.shape.abs().max() == 0
    assert torch.allclose(latents(model, [7, 8]), torch.cat([avatar.ws, other.ws]), atol=1e-5)
    assert torch.equal(sample(model, 7, shape=torch.ones(100)).shape, torch.ones(100))


def test_a_frame_is_what_the_generator_draws(model, avatar):
    params, camera = HeadParams(jaw=(0.25, 0, 0)), Camera.orbit(yaw=0.4)
    frame = avatar.render(params, camera, normals=True)
    mesh = model.head(params.replace(shape=avatar.shape))
    with torch.no_grad():
        out = model.synthesis(avatar.ws, camera.label[None], mesh.vertices, mesh.landmarks, normals=True)
    assert torch.allclose(frame.image, out.image[0], atol=1e-4)
    assert torch.allclose(frame.depth, out.depth[0], atol=1e-4)
    assert torch.allclose(frame.alpha, out.alpha[0], atol=1e-4)
    assert frame.normals.shape == out.normals[0].shape
    assert frame.image.shape == (3, 32, 32)


def test_the_shape_is_the_avatars_own(avatar):
    plain = avatar.render(HeadParams())
    assert torch.equal(avatar.render(HeadParams(shape=torch.ones(100))).image, plain.image)
    assert not torch.equal(avatar.render(HeadParams(neck=(0, 0.5, 0))).image, plain.image)


def test_animation_draws_every_frame(model, avatar):
    motion = Motion.clip("talk", model.head, seconds=0.4)
    frames = list(avatar.animate(motion))
    assert len(frames) == len(motion) == 10
    assert torch.allclose(frames[6].image, avatar.render(motion.params[6]).image, atol=1e-5)
    assert torch.equal(frames[6].params.jaw, motion.params[6].jaw)
    cameras = Camera.orbit(torch.linspace(-0.3, 0.3, 10))
    moving = list(avatar.animate(motion, cameras))
    assert torch.allclose(moving[9].image, avatar.render(motion.params[9], cameras[9]).image, atol=1e-5)
    own = Motion(motion.params, motion.fps, cameras)
    assert torch.equal(next(avatar.animate(own)).image, moving[0].image)
    with pytest.raises(InputError, match="as many"):
        next(avatar.animate(motion, Camera.orbit(torch.zeros(3))))


def test_angles_beyond_limits_are_clamped(avatar):
    with pytest.warns(UserWarning, match="jaw turned"):
        wide = avatar.render(HeadParams(jaw=(2.0, 0, 0)))
    assert torch.equal(wide.image, avatar.render(HeadParams(jaw=(math.radians(32), 0, 0))).image)
    with pytest.raises(InputError, match="one head"):
        avatar.render(HeadParams(jaw=torch.zeros(2, 3)))


def test_save_and_load(model, avatar, tmp_path):
    avatar.save(tmp_path / "seven.avatar")
    assert (tmp_path / "seven.avatar").stat().st_size < 2**20
    again = Avatar.load(tmp_path / "seven.avatar", model)
    assert torch.equal(again.ws, avatar.ws)
    assert torch.equal(again.shape, avatar.shape)
    assert again.name == "seed 7"
    assert torch.equal(again.render().image, avatar.render().image)


def test_an_avatar_knows_its_model(model, avatar, tmp_path):
    avatar.save(tmp_path / "seven.avatar")
    other = next3d.load("untrained:tiny", seed=1)
    assert fingerprint(other) != fingerprint(model)
    assert fingerprint(next3d.load("untrained:tiny")) == fingerprint(model)
    with pytest.raises(InputError, match="belongs to another model"):
        Avatar.load(tmp_path / "seven.avatar", other)


def test_tuned_avatars_change_a_copy(model, avatar, tmp_path):
    before = fingerprint(model)
    name, weight = next((n, p) for n, p in model.named_parameters() if n.startswith("neural_texture"))
    tuned = Avatar(model, avatar.ws, avatar.shape, tuned={name: weight.detach() * 1.5})
    assert not torch.equal(tuned.render().image, avatar.render().image)
    assert fingerprint(model) == before
    assert tuned.model.volume.decoder[0].weight is model.volume.decoder[0].weight  # what is not tuned is shared
    tuned.save(tmp_path / "tuned.avatar")
    again = Avatar.load(tmp_path / "tuned.avatar", model)
    assert (again.render().image - tuned.render().image).abs().max() < 2 / 255  # differences are kept in half precision
    with pytest.raises(InputError, match="no such tensor"):
        Avatar(model, avatar.ws, tuned={"nothing": torch.zeros(1)})


def test_bad_files(model, tmp_path):
    with pytest.raises(InputError, match="no avatar"):
        Avatar.load(tmp_path / "none.avatar", model)
    (tmp_path / "text.avatar").write_text("hello there, this is no avatar")
    with pytest.raises(InputError, match="not a readable avatar"):
        Avatar.load(tmp_path / "text.avatar", model)
    model.head.save(tmp_path / "head.avatar")
    with pytest.raises(InputError, match="not an avatar file"):
        Avatar.load(tmp_path / "head.avatar", model)
    with pytest.raises(InputError, match="ws must have shape"):
        Avatar(model, torch.zeros(1, 3, 16))


def test_a_model_without_its_head_says_what_it_needs():
    topology, vertices, landmarks = stand_in_head()
    model = Generator(tiny_config().replace(head="flame"), topology).eval()
    one = sample(model, 0)
    with pytest.raises(InputError, match="--head"):
        one.render()
    frame = one.render(mesh=(vertices[0], landmarks[0]))
    assert frame.params is None
    assert frame.image.shape[0] == 3


def test_a_model_without_meshes_needs_none():
    model = Generator(tiny_config(planes={"channels": 8, "enabled": False}), None).eval()
    one = sample(model, 0)
    assert one.render().image.shape == (3, 64, 64)
    motion = Motion(HeadParams(jaw=torch.zeros(2, 3)))
    assert len(list(one.animate(motion))) == 2


# Meshes


class Ball:
    """Stands in for a generator's field: a ball with a colour that says where it is."""

    def __init__(self, model, radius: float, centre):
        self.config, self.device, self.radius, self.centre = model.config, model.device, radius, torch.tensor(centre)
        self.asked = 0

    def density(self, points, planes):
        self.asked = max(self.asked, points.shape[1])
        sigma = 40 * (self.radius - (points - self.centre).norm(dim=-1, keepdim=True)) + 10
        return FieldSample(sigma, points + 0.5)


def test_marching_cubes_finds_the_surface_where_it_is(model):
    from next3d.avatar import surface

    ball = Ball(model, 0.3, (0.05, -0.02, 0.08))
    mesh = surface(ball, None, 48, 10.0, False)
    world = world_from_head(mesh.vertices)
    distance = (world - ball.centre).norm(dim=-1)
    assert (distance - 0.3).abs().max() < 2e-3
    assert torch.allclose(mesh.colors, world + 0.5, atol=1e-4)
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    volume = (torch.linalg.cross(a, b) * c).sum() / 6
    assert volume == pytest.approx(4 / 3 * math.pi * (0.3 / 2.5) ** 3, rel=0.02)  # positive: faces look outward
    assert ball.asked <= 2**16  # samples are streamed
    with pytest.raises(InputError, match="no surface at density 1000"):
        surface(ball, None, 16, 1000.0, False)
    with pytest.raises(InputError, match="8 to 1024"):
        surface(ball, None, 4, 10.0, False)


def test_a_surface_that_leaves_the_cube_is_closed(model):
    import trimesh

    from next3d.avatar import surface

    mesh = surface(Ball(model, 0.6, (0.0, 0.0, 0.0)), None, 24, 10.0, False)
    assert trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy()).is_watertight


def test_an_avatars_mesh(avatar):
    field = avatar.model.density(
        torch.rand(1, 500, 3) - 0.5,
        planes=avatar.model.planes(avatar.model.identity(avatar.ws), *avatar.mesh_of(HeadParams())),
    )
    level = float(field.sigma.detach().median())
    mesh = avatar.mesh(resolution=16, level=level)
    assert mesh.vertices.abs().max() < 0.25  # metres
    assert mesh.colors.min() >= 0
    assert mesh.colors.max() <= 1


def test_morphs_are_closed_and_pass_through_their_seeds(model):
    pictures = list(morph(model, [0, 1, 2], 6, swing=0.0))
    assert len(pictures) == 6
    for index in range(3):
        assert torch.allclose(pictures[2 * index], model.sample(index).render().image, atol=2e-3)
    step = max((a - b).abs().mean() for a, b in zip(pictures, [*pictures[1:], pictures[0]]))
    assert (pictures[5] - pictures[0]).abs().mean() <= step
