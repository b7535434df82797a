"""Schedules, randomness, losses, augmentation, the synthetic rendering: each part of training on its own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from data_samples import tiny_head
from next3d.geometry.cameras import Camera
from next3d.geometry.meshes import world_from_head
from next3d.heads import HeadParams
from next3d.training import ada, losses, schedules
from next3d.training.adversarial import grouped
from next3d.training.conditioning import CorrespondenceImage, template_of
from next3d.training.ema import EMA
from next3d.training.randomness import SampleRandom

HEAD = tiny_head()


def test_schedules_reach_their_ends():
    assert schedules.ramp(0, 1, 0.5, 100) == 1
    assert schedules.ramp(50, 1, 0.5, 100) == 0.75
    assert schedules.ramp(1000, 1, 0.5, 100) == 0.5
    assert schedules.blur_sigma(0, 10, 200_000) == 10
    assert schedules.blur_sigma(200_000, 10, 200_000) == 0
    assert schedules.ray_resolution(0, 32, 64, 100) == 32
    assert schedules.ray_resolution(60, 32, 64, 100) == 48
    assert schedules.ray_resolution(200, 32, 64, 100) == 64


def test_lazy_regularisation_keeps_the_optimisers_speed():
    rate, betas = schedules.lazy(2e-3, (0.0, 0.99), 16)
    assert rate == pytest.approx(2e-3 * 16 / 17)
    # Over 17 updates in 16 steps the second moment decays as over 16 updates without regularisation.
    assert betas[1] ** 17 == pytest.approx(0.99**16)


def test_ema_has_its_half_life_and_ramps_up():
    assert schedules.ema_decay(10**9, 32, 10_000, 0.05) ** (10_000 / 32) == pytest.approx(0.5)
    assert schedules.ema_decay(0, 32, 10_000, 0.05) == pytest.approx(0, abs=1e-6)  # the first average is the weights
    assert schedules.ema_decay(1000, 32, 10_000, None) > schedules.ema_decay(1000, 32, 10_000, 0.05)


def test_ema_follows_weights_and_copies_buffers():
    module = nn.BatchNorm1d(2)
    average = EMA(module)
    with torch.no_grad():
        module.weight += 1
        module.running_mean += 3
    average.update(module, 0.75)
    torch.testing.assert_close(average.module.weight, torch.full((2,), 1.25))
    torch.testing.assert_close(average.module.running_mean, module.running_mean)
    assert not average.module.weight.requires_grad


def draws(indices: range, step: int = 3) -> torch.Tensor:
    with SampleRandom(0, "test", step, indices):
        n = len(indices)
        return torch.cat(
            [torch.randn(n, 2, 5).flatten(1), torch.randn_like(torch.zeros(n, 3)), torch.rand(n * 4, 2).view(n, -1)], 1
        )


def test_random_numbers_belong_to_samples():
    whole = draws(range(6))
    assert torch.equal(whole, torch.cat([draws(range(2)), draws(range(2, 6))]))
    assert torch.equal(whole, draws(range(6)))
    assert not torch.equal(whole, draws(range(6), step=4))
    assert len(whole.flatten().unique()) == whole.numel()
    outside = torch.randn(4)
    assert outside.shape == (4,)  # and outside the block torch's own generator is at work again


def test_minibatch_groups_are_neighbours():
    order = grouped(torch.arange(12), 4)
    groups = order.view(4, 3).t()  # the discriminator puts picture i into group i mod 3
    assert groups.sort(1).values.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_adversarial_losses_point_the_right_way():
    logits = torch.zeros(4, 1, requires_grad=True)
    losses.generator_loss(logits).backward()
    assert (logits.grad < 0).all()  # the generator wants its logits larger
    real, fake = torch.zeros(4, 1, requires_grad=True), torch.zeros(4, 1, requires_grad=True)
    losses.discriminator_loss(real, fake).backward()
    assert (real.grad < 0).all()
    assert (fake.grad > 0).all()
    assert losses.generator_loss(torch.zeros(1, 1)).item() == pytest.approx(math.log(2))


def test_r1_is_the_squared_gradient_of_both_pictures():
    image, raw = torch.randn(3, 3, 4, 4, requires_grad=True), torch.randn(3, 3, 2, 2, requires_grad=True)
    scale = torch.tensor(2.0, requires_grad=True)
    logits = (scale * image).sum((1, 2, 3)) + 3 * raw.sum((1, 2, 3))
    penalty = losses.r1_penalty(logits, image, raw)
    torch.testing.assert_close(penalty, torch.full((3,), 4.0 * 48 + 9.0 * 12))
    penalty.mean().backward()
    assert scale.grad.item() == pytest.approx(2 * 2 * 48)  # differentiable: it can be minimised


def test_density_loss_is_zero_for_a_smooth_field_only():
    sigma = torch.randn(2, 10, 1)
    assert losses.density_loss(sigma, sigma) == 0
    assert losses.density_loss(sigma, sigma + 0.5).item() == pytest.approx(0.5)


def test_blur_is_a_normalised_gaussian():
    picture = torch.zeros(1, 1, 33, 33)
    picture[..., 16, 16] = 1
    blurred = losses.blur(picture, 2.0)
    assert blurred.sum().item() == pytest.approx(1, abs=1e-5)
    x = torch.arange(33) - 16.0
    assert (blurred[0, 0].sum(0) * x.square()).sum().item() == pytest.approx(4.0, rel=0.05)  # variance σ²
    assert losses.blur(picture, 0.0) is picture
    assert torch.allclose(losses.blur(torch.ones(1, 3, 8, 8), 10.0), torch.ones(1, 3, 8, 8))


def test_reconstruction_losses_normalise_by_picture():
    # A loss must not depend on which pictures share a process, or distributed runs would differ.
    a, b = torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8, 8)
    weight = torch.rand(4, 1, 8, 8)
    for loss in (losses.weighted_l1, losses.gradient_l1):
        whole = loss(a, b, weight)
        halves = (loss(a[:2], b[:2], weight[:2]) + loss(a[2:], b[2:], weight[2:])) / 2
        torch.testing.assert_close(whole, halves)
        assert loss(a, a, weight) == 0


def test_augmentation_moves_pictures_and_condition_together():
    count = 64
    picture = torch.linspace(-0.9, 0.9, 16).expand(count, 3, 16, 16).contiguous()
    condition = picture.clone()
    assert ada.augment([picture], condition, 0.0, SampleRandom(0, "a", 0, range(count)))[0][0] is picture
    warp = ada.geometric_matrices(1.0, SampleRandom(0, "a", 0, range(count)))
    assert (warp.det() > 0).all()  # no flips: they would need mirrored cameras
    moved = ada._warp(condition, warp, "zeros")
    (augmented,), seen = ada.augment([picture], condition, 1.0, SampleRandom(0, "a", 0, range(count)))
    torch.testing.assert_close(seen, moved)  # the condition is warped as the picture is, its colours untouched
    assert not torch.allclose(augmented, picture)
    some = ada.geometric_matrices(0.2, SampleRandom(1, "a", 0, range(2000)))
    untouched = (some - torch.eye(3)).abs().amax((1, 2)) < 1e-6
    assert untouched.float().mean().item() == pytest.approx(0.8**5, abs=0.04)  # shift, scale, turn, stretch, shift


def test_augmentation_adapts_towards_its_target():
    assert ada.adapt(0.2, 0.9, 0.6, 1000, 10_000) == pytest.approx(0.3)
    assert ada.adapt(0.2, 0.1, 0.6, 1000, 10_000) == pytest.approx(0.1)
    assert ada.adapt(0.0, 0.1, 0.6, 1000, 10_000) == 0


@pytest.mark.parametrize("coordinates", ["template", "uv"])
def test_synthetic_rendering_colours_points_by_their_place(coordinates: str):
    template = template_of(HEAD)
    draw = CorrespondenceImage(HEAD.topology, template, 64, coordinates)
    params = HeadParams(jaw=torch.tensor([[0.2, 0, 0], [0.0, 0, 0]]), shape=torch.randn(2, 100))
    camera = Camera.orbit(torch.tensor([0.3, -0.2]), 0.1)
    vertices = HEAD(params).vertices
    picture = draw(vertices, camera.label)
    assert picture.shape == (2, 3, 64, 64)
    place, _ = camera.project(world_from_head(vertices))
    empty = picture.abs().sum(1) == 0
    assert 0.3 < empty.float().mean() < 0.95  # background zero
    if coordinates == "uv":
        assert torch.equal(picture[:, 2] > 0, ~empty)
        return
    # Where a vertex that faces the camera lands, the picture holds its template coordinate, whatever the expression.
    low, high = template.amin(0), template.amax(0)
    front = (template[:, 2] > 0.06).nonzero()[:, 0]
    for n in range(2):
        column, row = (place[n, front] * 64).long().unbind(-1)
        seen = picture[n, :, row, column].t()
        expected = ((template - low) / (high - low))[front]
        assert (seen - expected).abs().median() < 0.05
