"""Cameras: conventions with worked numbers, and round trips."""

import math

import pytest
import torch

from next3d import Camera, InputError
from next3d.geometry.cameras import FOCAL, PIVOT, RADIUS, focal_from_fov


def random_cameras(count=7):
    generator = torch.Generator().manual_seed(0)
    yaw, pitch, roll = (torch.rand(3, count, generator=generator) - 0.5) * 2
    return Camera.orbit(yaw, pitch, roll)


def test_frontal_camera_in_numbers():
    camera = Camera.orbit()
    expected = torch.tensor([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, RADIUS], [0, 0, 0, 1]])
    assert torch.allclose(camera.cam2world, expected, atol=1e-6)
    assert camera.label.shape == (25,)
    # A point a quarter unit to the subject's left (+x) and up (+y) appears right of and above the middle.
    uv, depth = camera.project(torch.tensor([[0.25, 0.25, 0.2], [0.0, 0.0, 0.2]]))
    assert torch.allclose(depth, torch.tensor([2.5, 2.5]))
    assert torch.allclose(uv, torch.tensor([[0.5 + FOCAL * 0.1, 0.5 - FOCAL * 0.1], [0.5, 0.5]]), atol=1e-5)


def test_orbit_directions():
    assert torch.allclose(Camera.orbit(yaw=math.pi / 2).cam2world[:3, 3], torch.tensor([RADIUS, 0, 0]), atol=1e-6)
    up = Camera.orbit(pitch=0.5).cam2world[:3, 3]
    assert torch.allclose(up, RADIUS * torch.tensor([0, math.sin(0.5), math.cos(0.5)]))
    # Roll > 0 turns the content counter-clockwise: a point on the right moves up.
    uv, _ = Camera.orbit(roll=math.pi / 2).project(torch.tensor([[0.1, 0.0, 0.2]]))
    assert uv[0, 0] == pytest.approx(0.5, abs=1e-5)
    assert uv[0, 1] < 0.5


def test_orbit_looks_at_the_pivot_from_the_sphere():
    cameras = random_cameras()
    assert torch.allclose(cameras.cam2world[:, :3, 3].norm(dim=-1), torch.tensor(RADIUS))
    uv, _ = cameras.project(torch.tensor(PIVOT).expand(7, 1, 3))
    assert torch.allclose(uv, torch.tensor(0.5), atol=1e-5)
    rotation = cameras.cam2world[:, :3, :3]
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3).expand(7, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(7))


def test_label_round_trip_and_batches():
    cameras = random_cameras()
    again = Camera.from_label(cameras.label)
    assert torch.equal(again.cam2world, cameras.cam2world)
    assert torch.equal(again.intrinsics, cameras.intrinsics)
    assert cameras.batch_shape == (7,)
    assert torch.equal(cameras[3].label, cameras.label[3])
    assert Camera.from_label([0.0] * 25).batch_shape == ()
    assert cameras.to(torch.float64).label.dtype == torch.float64
    with pytest.raises(InputError, match="25"):
        Camera.from_label(torch.zeros(3, 24))


def test_world2cam_is_the_inverse():
    cameras = random_cameras()
    assert torch.allclose(cameras.world2cam @ cameras.cam2world, torch.eye(4).expand(7, 4, 4), atol=1e-5)


def test_rays_pass_through_pixel_centres():
    cameras = random_cameras()
    skewed = cameras.intrinsics.clone()
    skewed[:, 0, 1], skewed[:, 0, 2], skewed[:, 1, 1] = 0.1, 0.45, 3.9
    cameras = Camera(cameras.cam2world, skewed)
    origins, directions = cameras.rays(5)
    assert origins.shape == directions.shape == (7, 25, 3)
    assert torch.allclose(directions.norm(dim=-1), torch.ones(7, 25))
    uv, _ = cameras.project(origins + 2.3 * directions)
    centre = (torch.arange(5) + 0.5) / 5
    assert torch.allclose(uv.view(7, 5, 5, 2)[..., 0], centre.expand(7, 5, 5), atol=1e-5)  # columns
    assert torch.allclose(uv.view(7, 5, 5, 2)[..., 1], centre[:, None].expand(7, 5, 5), atol=1e-5)  # rows


def test_mirror_sees_the_flipped_picture_of_the_mirrored_world():
    cameras = random_cameras()
    skewed = cameras.intrinsics.clone()
    skewed[:, 0, 1], skewed[:, 0, 2] = 0.2, 0.4
    cameras = Camera(cameras.cam2world, skewed)
    points = torch.randn(7, 11, 3, generator=torch.Generator().manual_seed(1)) * 0.2
    uv, depth = cameras.project(points)
    mirrored, mirrored_depth = cameras.mirror().project(points * torch.tensor([-1.0, 1, 1]))
    assert torch.allclose(mirrored[..., 0], 1 - uv[..., 0], atol=1e-5)
    assert torch.allclose(mirrored[..., 1], uv[..., 1], atol=1e-5)
    assert torch.allclose(mirrored_depth, depth)
    assert torch.allclose(cameras.mirror().mirror().label, cameras.label)


def test_projection_gradients():
    camera = Camera.orbit(0.3, 0.2, 0.1).to(torch.float64)
    points = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 0.2
    label = camera.label.requires_grad_()
    assert torch.autograd.gradcheck(lambda p, c: Camera.from_label(c).project(p), (points.requires_grad_(), label))


def test_released_focal_length():
    assert focal_from_fov(18.837) == pytest.approx(4.263391, abs=1e-6)


def test_a_camera_that_looks_along_up_is_refused():
    with pytest.raises(InputError, match="up"):
        Camera.look_at((0.0, 2.0, 0.0), (0.0, 0.0, 0.0))
    with pytest.raises(InputError, match="up"):
        Camera.look_at((1.0, 2.0, 0.0), (1.0, 2.0, 0.0))
    assert Camera.look_at((0.0, 2.0, 0.0), (0.0, 0.0, 0.0), up=(0.0, 0.0, -1.0)).label.isfinite().all()
    for angle in (math.nan, math.inf):
        with pytest.raises(InputError, match="finite"):
            Camera.orbit(angle)
