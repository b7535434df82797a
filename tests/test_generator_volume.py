"""Volume rendering against fields whose answer is known."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from generator_samples import tiny_config, two_views
from next3d.generator.volume import FieldSample, Volume, composite, composite_weights, rays, surface_normals
from next3d.geometry.cameras import Camera


def volume(**settings) -> Volume:
    return Volume(tiny_config(volume={"samples": 64, "importance_samples": 64} | settings))


def straight() -> tuple[torch.Tensor, torch.Tensor]:
    """One ray down −z from (0, 0, 2.7)."""
    return torch.tensor([[[0.0, 0.0, 2.7]]]), torch.tensor([[[0.0, 0.0, -1.0]]])


def test_a_slab_absorbs_as_beer_and_lambert_say():
    density, thickness = 3.0, 0.4
    sigma = torch.tensor(density).expm1().log() + 1  # softplus(sigma − 1) = density

    def slab(points):
        inside = points[..., 2:].abs() < thickness / 2
        return FieldSample(torch.where(inside, sigma, -30.0), torch.ones(*points.shape[:-1], 8))

    for mode in ("deterministic", "stochastic"):
        picture = volume(samples=256)(slab, *straight(), mode)
        expected = 1 - torch.exp(torch.tensor(-density * thickness))
        torch.testing.assert_close(picture.alpha[0, 0, 0], expected, rtol=0.02, atol=0)
        torch.testing.assert_close(picture.features[0, 0, 0], 2 * expected - 1, rtol=0, atol=0.03)


def sphere(points: torch.Tensor) -> FieldSample:
    """Opaque within 0.3 of the origin."""
    sigma = (0.3 - points.norm(dim=-1, keepdim=True)) * 2e5
    return FieldSample(sigma, torch.zeros(*points.shape[:-1], 8))


@pytest.mark.parametrize("importance", [0, 64])
def test_depth_and_normals_of_a_sphere(importance):
    origins, directions = rays(two_views(), 8)
    renderer = volume(samples=128, importance_samples=importance)
    picture = renderer(sphere, origins, directions)
    # Where the ray's closest approach to the origin lies well inside, it must stop at the sphere.
    along = -(origins * directions).sum(-1)
    distance = (origins + along[..., None] * directions).norm(dim=-1)
    hit = distance < 0.2
    expected = along - (0.09 - distance.square()).clamp_min(0).sqrt()
    assert hit.sum() > 20
    assert (picture.alpha[..., 0][hit] > 0.99).all()
    assert (picture.alpha[..., 0][distance > 0.35] < 0.01).all()
    tolerance = 0.01 if importance == 0 else 0.006
    assert (picture.depth[..., 0] - expected)[hit].abs().max() < tolerance


def test_normals_of_a_sphere_point_from_its_middle_and_face_the_camera():
    size = 64
    for camera in (Camera.orbit(0.0), Camera.orbit(0.8, 0.3)):
        origins, directions = rays(camera.label[None, None], size)
        along = -(origins * directions).sum(-1)
        distance = (origins + along[..., None] * directions).norm(dim=-1)
        depth = along - (0.09 - distance.square()).clamp_min(0).sqrt()
        points = (origins + depth[..., None] * directions).transpose(1, 2).unflatten(2, (size, size))
        truth = torch.nn.functional.normalize(points, dim=1)
        inside = (distance < 0.25).view(1, size, size)
        assert (surface_normals(points) * truth).sum(1)[inside].min() > 0.99


def test_importance_samples_go_where_the_surface_is():
    renderer = volume(samples=48, importance_samples=200)
    depths = renderer.stratified_depths(straight()[0], stochastic=False)
    points = straight()[0][:, :, None] + depths[..., None] * straight()[1][:, :, None]
    weights = composite_weights(sphere(points).sigma[..., 0], depths)
    more = renderer.importance_depths(depths, weights, stochastic=True)
    assert more.shape == (1, 1, 200)
    assert ((more - 2.4).abs() < 0.1).float().mean() > 0.8  # the surface stands at 2.4
    assert more.max() > 2.9  # a few look elsewhere


def test_compositing_does_not_depend_on_the_order_of_samples():
    generator = torch.Generator().manual_seed(0)
    depths = 2.3 + torch.rand(1, 5, 12, generator=generator)
    sample = FieldSample(
        torch.randn(1, 5, 12, 1, generator=generator) * 4, torch.rand(1, 5, 12, 8, generator=generator)
    )
    order = depths.argsort(-1)
    ordered = FieldSample(*(t.gather(2, order[..., None].expand_as(t)) for t in (sample.sigma, sample.rgb)))
    a, b = composite(sample, depths), composite(ordered, depths.gather(-1, order))
    torch.testing.assert_close(a.features, b.features)
    torch.testing.assert_close(a.depth, b.depth)
    # and equals the plain sum over intervals
    weights = composite_weights(ordered.sigma[..., 0], depths.gather(-1, order))
    middle = 0.5 * (ordered.rgb[..., 1:, :] + ordered.rgb[..., :-1, :])
    torch.testing.assert_close(a.features, 2 * (weights[..., None] * middle).sum(-2) - 1)


def test_empty_rays_have_finite_values_and_gradients():
    sigma = torch.full((1, 1, 12, 1), -60.0, requires_grad=True)
    picture = composite(FieldSample(sigma, torch.zeros(1, 1, 12, 8)), torch.linspace(2.3, 3.3, 12)[None, None])
    assert picture.depth.isfinite().all()
    (picture.depth.sum() + picture.features.sum()).backward()
    assert sigma.grad.isfinite().all()


def test_nothing_is_seen_outside_the_box_but_by_the_released_network():
    points = torch.tensor([[[0.1, 0.1, 0.4], [0.1, 0.1, 0.6], [0.1, -0.51, 0.1]]])
    planes = [torch.ones(1, tiny_config().planes.channels, 4, 4)] * 3
    for mode, seen in (("default", [True, False, False]), ("compatible", [True, True, True])):
        sigma = Volume(dataclasses.replace(tiny_config(), mode=mode)).field(planes)(points).sigma[0, :, 0]
        assert (sigma > -50).tolist() == seen
