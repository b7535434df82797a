"""Rotations and the head's frame."""

import math

import pytest
import torch

from next3d.geometry.meshes import head_from_world, world_from_head
from next3d.geometry.rotations import (
    axis_angle_from_matrix,
    matrix_from_axis_angle,
    matrix_from_euler,
    rotation_angle,
)


def test_a_quarter_turn_is_right_handed():
    turn = matrix_from_axis_angle(torch.tensor([0.0, math.pi / 2, 0.0]))
    assert torch.allclose(turn @ torch.tensor([0.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, 0.0]), atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-9, 1e-5, 1e-4, 1.1e-4, 1e-3, 0.1, 1.0, 3.0, math.pi - 1e-9])
def test_axis_angle_agrees_with_the_matrix_exponential_and_comes_back(scale):
    axis = torch.nn.functional.normalize(
        torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    vector = axis * scale
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    matrix = matrix_from_axis_angle(vector)
    assert torch.allclose(matrix, torch.linalg.matrix_exp(cross), atol=1e-12)
    assert torch.allclose(axis_angle_from_matrix(matrix), vector, atol=1e-8)
    assert (matrix_from_axis_angle(vector.float()) - matrix).abs().max() < 1e-6


def test_half_turns_about_every_axis_come_back():
    for vector in torch.eye(3) * math.pi:
        back = axis_angle_from_matrix(matrix_from_axis_angle(vector))
        assert torch.allclose(back.abs(), vector, atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 2e-4, 1.0])
def test_axis_angle_gradients(scale):
    vector = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * scale
    assert torch.autograd.gradcheck(matrix_from_axis_angle, vector.requires_grad_())


def test_euler_order_and_angle():
    yaw, pitch, roll = torch.tensor([0.3, -0.2, 0.1])
    about = [matrix_from_axis_angle(v) for v in torch.diag(torch.stack([pitch, yaw, roll]))]
    assert torch.allclose(matrix_from_euler(yaw, pitch, roll), about[1] @ about[0] @ about[2], atol=1e-6)
    assert rotation_angle(about[0], about[0] @ about[0]) == pytest.approx(0.2, abs=1e-6)


def test_world_and_head_frames():
    assert torch.allclose(world_from_head(torch.tensor([[0.1, 0.09, 0.11]])), torch.tensor([[0.25, 0.25, 0.25]]))
    points = torch.randn(5, 3, dtype=torch.float64)
    assert torch.allclose(head_from_world(world_from_head(points)), points)
