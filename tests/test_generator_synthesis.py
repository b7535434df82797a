"""The generator as a whole, in its default mode, at sizes of a few milliseconds."""

from __future__ import annotations

import pytest
import torch

from generator_samples import frontal, latents, stand_in_head, tiny_config, tiny_model, two_views
from next3d.errors import InputError
from next3d.generator.config import GeneratorConfig
from next3d.generator.generator import Generator


@pytest.fixture(scope="module")
def head():
    return stand_in_head()[1:]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@torch.no_grad()
def test_shapes_and_ranges(model, head):
    out = model.synthesis(
        latents(model, 2), frontal().expand(2, -1), *(x.expand(2, -1, -1) for x in head), normals=True
    )
    assert out.image.shape == (2, 3, 64, 64)
    assert out.image_raw.shape == out.normals.shape == (2, 3, 16, 16)
    assert out.depth.shape == out.alpha.shape == (2, 1, 16, 16)
    assert 0 <= out.alpha.min() <= out.alpha.max() <= 1
    assert 2.25 <= out.depth.min() <= out.depth.max() <= 3.5
    torch.testing.assert_close(out.normals.norm(dim=1), torch.ones(2, 16, 16))
    assert all(t.isfinite().all() for t in (out.image, out.image_raw, out.depth))


@torch.no_grad()
def test_a_batch_equals_its_members(model, head):
    """One latent is folded into the weights, a batch scales the activations: the same pictures."""
    ws = latents(model, 2)
    cameras = two_views()[0]
    both = model.synthesis(ws, cameras, *(x.expand(2, -1, -1) for x in head))
    for n in range(2):
        one = model.synthesis(ws[n : n + 1], cameras[n : n + 1], *head)
        torch.testing.assert_close(both.image[n : n + 1], one.image, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(both.depth[n : n + 1], one.depth, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_cameras_share_planes(model, head):
    """(N, K, 25) labels render what K separate calls render, head by head."""
    ws = latents(model, 2)
    meshes = [x.expand(2, -1, -1) for x in head]
    planes = model.planes(model.identity(ws), *meshes)
    together = model.render(planes, two_views().expand(2, -1, -1))
    assert len(together.image) == 4
    for k in range(2):
        apart = model.render(planes, two_views()[:, k].expand(2, -1))
        torch.testing.assert_close(together.image[k::2], apart.image, rtol=1e-3, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("mode", ["default", "compatible"])
def test_baked_is_the_same_picture(head, mode):
    model = tiny_model(mode=mode)
    ws = latents(model)
    expected = model.synthesis(ws, frontal(), *head, normals=True)
    baked = model.bake(ws)
    found = baked.synthesis(frontal(), *head, normals=True)
    torch.testing.assert_close(found.image, expected.image, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.normals, expected.normals, rtol=1e-3, atol=1e-4)
    half = model.bake(ws, dtype=torch.bfloat16).synthesis(frontal(), *head)
    assert half.image.dtype == torch.float32
    assert (half.image - expected.image).abs().mean() < 3 / 127.5 * expected.image.std().clamp_min(1)
    several = baked.synthesis(two_views()[0], *(x.expand(2, -1, -1) for x in head))
    assert len(several.image) == 2


def test_every_parameter_learns(head):
    """No part of the network is cut off from the picture."""
    model = tiny_model(mouth={"planes": 3}, static={"shows_through": True}).train()
    ws = model.mapping(torch.randn(2, 16), frontal().expand(2, -1))
    out = model.synthesis(
        ws, two_views().expand(2, -1, -1), *(x.expand(2, -1, -1) for x in head), sampling="stochastic"
    )
    (out.image.square().mean() + out.depth.mean()).backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()]
    assert not idle


@torch.no_grad()
def test_expression_moves_only_what_it_should(model, head):
    """Another mesh changes the dynamic planes; identity parts stay."""
    vertices, landmarks = head
    identity = model.identity(latents(model))
    before = model.planes(identity, vertices, landmarks)
    after = model.planes(identity, vertices * torch.tensor([1.1, 1.0, 1.0]), landmarks)
    assert not torch.equal(before.dynamic[0], after.dynamic[0])
    corner = (..., slice(0, 4), slice(0, 4))  # far from the face: static planes alone
    assert torch.equal(before.blended[0][corner], identity.static[0][corner])
    assert torch.equal(before.blended[0][corner], after.blended[0][corner])


@torch.no_grad()
def test_static_planes_show_through_the_face(head):
    """At first a model that may show them is the one that may not; what it learns to show is the same on every mesh."""
    vertices, landmarks = head
    plain, open_ = tiny_model(), tiny_model(static={"shows_through": True})
    open_.load_state_dict(plain.state_dict(), strict=False)
    ws = latents(plain)
    same = plain.planes(plain.identity(ws), vertices, landmarks)
    planes = open_.planes(open_.identity(ws), vertices, landmarks)
    assert all(torch.equal(a, b) for a, b in zip(same.blended, planes.blended))
    open_.static_planes.through[0, 3] = 0.5
    identity = open_.identity(ws)
    for stretch in (1.0, 1.1):
        mesh = vertices * torch.tensor([1.0, stretch, 1.0])
        change = open_.planes(identity, mesh, landmarks).blended[0] - plain.planes(identity, mesh, landmarks).blended[0]
        alpha = open_.texture_planes(identity.texture, mesh).alpha[0]
        torch.testing.assert_close(change[:, 3:4], 0.5 * alpha * identity.static[0][:, 3:4])
        assert alpha.max() == 1
        assert not change[:, :3].any()


def test_what_shows_through_can_be_held():
    """Inversion seen from the static planes: gradients where they stand alone, none where they only show through."""
    planes = tiny_model(static={"shows_through": True}).static_planes
    with torch.no_grad():
        planes.through.fill_(0.5)
    still = [torch.ones(1, planes.channels, 2, 2, requires_grad=True) for _ in range(3)]
    alpha = [torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])] * 3
    for learns, inside in ((True, 0.5), (False, 0.0)):
        planes.through_learns = learns
        blended = planes.alpha_blend([torch.zeros_like(x) for x in still], still, alpha)
        (gradient,) = torch.autograd.grad(blended[0].sum(), still[0])
        assert blended[0][0, 0, 0].tolist() == [0.5, 1.0]
        assert gradient[0, 0, 0].tolist() == [inside, 1.0]


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {"static": {"enabled": False}},
        {"mouth": {"source": "static"}},
        {"mouth": {"source": "texture"}},
        {"blending": {"enabled": False}},
        {"mouth": {"planes": 3}},
        {"superres": {"channels": ()}},
        {"superres": {"resolution": 16, "channels": ()}},
        {"superres": {"resolution": 128, "channels": (8,)}},
        {"volume": {"importance_samples": 0}},
        {"mapping": {"camera_conditioning": False}},
        {"mode": "compatible"},
    ],
    ids=str,
)
def test_switches(changes, head):
    """Every variant draws, and draws something else than the full model."""
    model = tiny_model(**changes)
    out = model.synthesis(latents(model), frontal(), *head)
    size = model.config.superres.resolution
    assert out.image.shape == (1, 3, size, size)
    assert out.image.isfinite().all()
    for name in ("mouth", "static", "blending"):
        section = changes.get(name, {})
        if section.get("enabled", True) and section.get("source", "network") == "network":
            continue
        prefix = "static_planes" if name == "static" else name
        assert not any(key.startswith(prefix) for key in model.state_dict())


@torch.no_grad()
def test_static_planes_alone_need_no_mesh():
    """An EG3D network is the same generator without texture planes."""
    model = tiny_model(planes={"enabled": False, "axes": ("xy", "xz", "zx")})
    out = model.synthesis(latents(model), frontal())
    assert out.image.shape == (1, 3, 64, 64)
    assert model.topology is None
    assert model.head is None


@torch.no_grad()
def test_density_is_what_is_rendered(model, head):
    ws = latents(model)
    points = torch.rand(1, 50, 3) - 0.5
    planes = model.planes(model.identity(ws), *head)
    direct = model.density(points, ws, *head)
    streamed = model.density(points, planes=planes)
    assert direct.sigma.shape == (1, 50, 1)
    assert direct.rgb.shape == (1, 50, 8)
    torch.testing.assert_close(direct.sigma, streamed.sigma)


@torch.no_grad()
def test_truncation_and_cutoff(model):
    z = torch.randn(3, 16)
    model.mapping.track_average(torch.randn(4, 16))
    full, half = model.mapping(z, frontal().expand(3, -1)), model.mapping(z, frontal().expand(3, -1), 0.5)
    static, average = model.config.static_count, model.mapping.average
    torch.testing.assert_close(half[:, :static], 0.5 * full[:, :static] + 0.5 * average)
    assert torch.equal(half[:, static:], full[:, static:])
    mean = model.mapping(z, frontal().expand(3, -1), 0.0, model.mapping.count)
    torch.testing.assert_close(mean, average.expand_as(mean))
    model.mapping.network.average.zero_()


@torch.no_grad()
def test_noise_and_sampling_modes(model, head):
    ws = latents(model)

    def draw(**options):
        return model.synthesis(ws, frontal(), *head, **options).image

    assert torch.equal(draw(), draw())
    assert not torch.equal(draw(noise="random"), draw(noise="random"))
    assert not torch.equal(draw(noise="none"), draw())
    assert not torch.equal(draw(sampling="stochastic"), draw(sampling="stochastic"))
    for options, message in (({"noise": "some"}, "noise"), ({"sampling": "some"}, "sampling")):
        with pytest.raises(InputError, match=message):
            draw(**options)


def test_wrong_inputs_are_named(model, head):
    ws = latents(model)
    for arguments, message in (
        ((ws[:, :-1], frontal(), *head), "ws must have shape"),
        ((ws, frontal()[:, :-1], *head), "25"),
        ((ws, frontal(), head[0][:, :-1], head[1]), "vertices must have shape"),
        ((ws, frontal(), head[0], head[1][:, :-1]), "landmarks must have shape"),
        ((ws, frontal(), head[0] * float("inf"), head[1]), "not finite"),
        ((ws, frontal(), None, None), "driven by a mesh"),
    ):
        with pytest.raises(InputError, match=message):
            model.synthesis(*arguments)
    with pytest.raises(InputError, match=r"z must have shape \(N, 16\)"):
        model.mapping(torch.zeros(1, 12), frontal())
    with pytest.raises(InputError, match="topology"):
        Generator(tiny_config())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"volume": {"ray_resolution": 48}}, "power of two"),
        ({"superres": {"resolution": 96}}, "power of two"),
        ({"texture": {"resolutions": 64}}, "unknown setting 'texture.resolutions'"),
        ({"texture": {"resolution": "64"}}, "type int"),
        ({"mode": "released"}, "one of default, compatible"),
        ({"mouth": {"planes": 2}}, "1 or 3"),
        ({"planes": {"enabled": False}, "static": {"enabled": False}}, "cannot both be false"),
        ({"static": {"enabled": False}, "mouth": {"source": "static"}}, "needs static planes"),
        ({"volume": {"near": 3.5}}, "near"),
    ],
)
def test_wrong_settings_are_named(values, message):
    with pytest.raises(InputError, match=message):
        GeneratorConfig.from_dict(values)


def test_config_round_trip():
    import json

    config = tiny_config(superres={"channels": (4,)}, mode="compatible")
    assert GeneratorConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert GeneratorConfig.from_dict({}) == GeneratorConfig()
