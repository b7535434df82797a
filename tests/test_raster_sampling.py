"""Interpolation over fragments, texture sampling and projection."""

import pytest
import torch

from next3d import Camera, InputError
from next3d.raster import interpolate, perspective_screen, rasterize, sample_texture

SCREEN = torch.tensor([[[-0.9, -0.8, 0.0], [0.9, -0.7, 0.1], [0.8, 0.9, 0.2], [-0.72, 0.8, 0.3]]])
FACES = torch.tensor([[0, 1, 2], [0, 2, 3]])


def test_values_per_corner_and_per_batch():
    fragments = rasterize(SCREEN.repeat(2, 1, 1), FACES, 8)
    corners = torch.tensor([[0, 1, 2], [3, 4, 5]])  # values that belong to corners, as UVs with a seam do
    values = torch.randn(2, 6, 4)
    shared = interpolate(fragments, values[:1], corners)
    own = interpolate(fragments, values, corners)
    assert own.shape == (2, 8, 8, 4)
    assert torch.equal(shared[0], shared[1])
    assert torch.equal(own[0], shared[0])
    row, column = (int(i) for i in (fragments.face[1] == 1).nonzero()[3])
    expected = fragments.barycentric[1, row, column] @ values[1, 3:6]
    assert torch.allclose(own[1, row, column], expected, atol=1e-6)
    assert (own[~fragments.mask] == 0).all()
    with pytest.raises(InputError, match="N = 2"):
        interpolate(fragments, values.repeat(2, 1, 1), corners)


def test_values_that_are_not_finite_stay_where_they_are_seen():
    fragments = rasterize(SCREEN, FACES, 8)
    values = torch.ones(1, 4, 1)
    values[0, 3] = torch.nan
    image = interpolate(fragments, values, FACES)
    assert torch.equal(image.isnan()[..., 0], fragments.face == 1)


def test_texture_samples_are_bilinear_with_zeros_or_the_border_outside():
    texture = torch.arange(8.0).view(1, 1, 2, 4)
    centre = torch.tensor([[[[0.125, 0.25], [0.875, 0.75], [0.25, 0.25], [0.125, 0.5], [0.0, 0.25], [1.125, 0.75]]]])
    assert torch.allclose(sample_texture(texture, centre)[0, 0, 0], torch.tensor([0.0, 7, 0.5, 2, 0, 0]), atol=1e-6)
    border = sample_texture(texture, centre, padding="border")[0, 0, 0]
    assert torch.allclose(border, torch.tensor([0.0, 7, 0.5, 2, 0, 7]), atol=1e-6)
    assert sample_texture(texture, centre.repeat(3, 1, 1, 1)).shape == (3, 1, 1, 6)


def test_gradients_from_the_picture_to_texture_values_and_vertices():
    generator = torch.Generator().manual_seed(0)
    screen = SCREEN.double().clone().requires_grad_()
    values = torch.rand(1, 4, 2, dtype=torch.float64, generator=generator).requires_grad_()
    texture = torch.randn(1, 3, 5, 4, dtype=torch.float64, generator=generator).requires_grad_()

    def picture(screen, values, texture):
        fragments = rasterize(screen, FACES, 5)
        return sample_texture(texture, interpolate(fragments, values, FACES))

    assert torch.autograd.gradcheck(picture, (screen, values, texture), eps=1e-7)


def test_projection_in_numbers_and_gradients():
    screen = perspective_screen(Camera.orbit(), torch.tensor([[[0.25, 0.25, 0.2], [0.0, 0.0, 0.2]]]))
    u = 2 * 4.2647 * 0.1
    assert torch.allclose(screen, torch.tensor([[[u, -u, 2.5], [0, 0, 2.5]]]), atol=1e-5)
    assert perspective_screen(Camera.orbit(torch.zeros(3)), torch.zeros(1, 5, 3)).shape == (3, 5, 3)
    points = torch.tensor([[[0.0, 0.0, 2.7], [0.1, 0.2, 0.0]]], requires_grad=True)
    perspective_screen(Camera.orbit(), points)[:, 1].sum().backward()
    assert points.grad.isfinite().all()
    with pytest.raises(InputError, match="N, V, 3"):
        perspective_screen(Camera.orbit(), torch.zeros(5, 3))
