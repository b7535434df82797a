"""Cameras: OpenCV axes (x right, y down, z forward), camera-to-world matrices, intrinsics normalised by image size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from next3d.errors import InputError
from next3d.geometry.rotations import matrix_from_axis_angle

FOCAL = 4.2647  # FFHQ labels of EG3D: focal length divided by image width
RADIUS = 2.7  # distance from the world origin of every FFHQ camera
PIVOT = (0.0, 0.0, 0.2)  # the point that orbiting cameras look at


@dataclass(frozen=True)
class Camera:
    """One camera or a batch of them.

    Convention: world is head-centred, y up, +z out of the face. ``cam2world`` maps OpenCV camera coordinates
    (x right, y down, z forward) to the world; a pixel (column u, row v) in [0, 1] of a point (x, y, z) in camera
    coordinates is u = f·x/z + 0.5, v = f·y/z + 0.5, and pixel i of an R-pixel image has its centre at (i + 0.5)/R.

    Attributes:
        cam2world: (..., 4, 4)
        intrinsics: (..., 3, 3), normalised by image size
    """

    cam2world: Tensor
    intrinsics: Tensor

    @staticmethod
    def orbit(
        yaw: float | Tensor = 0.0,
        pitch: float | Tensor = 0.0,
        roll: float | Tensor = 0.0,
        *,
        radius: float = RADIUS,
        pivot: Sequence[float] = PIVOT,
        focal: float = FOCAL,
    ) -> Camera:
        """A camera on the sphere of ``radius`` around the world origin, looking at ``pivot``; angles in radians.

        yaw > 0 moves the camera towards +x (the subject's left), pitch > 0 moves it up, roll > 0 turns it about its
        viewing direction, right-handed (the picture's content turns counter-clockwise). Angles may be tensors of one
        shape (...,), which makes a batch. yaw = pitch = roll = 0 is the frontal camera at (0, 0, radius).
        """
        y, p, r = _broadcast(yaw, pitch, roll)
        eye = radius * torch.stack([y.sin() * p.cos(), p.sin(), y.cos() * p.cos()], -1)  # (..., 3)
        camera = Camera.look_at(eye, pivot, focal=focal)
        zero = torch.zeros_like(r)
        turn = r.new_zeros(*r.shape, 4, 4)
        turn[..., :3, :3] = matrix_from_axis_angle(torch.stack([zero, zero, r], -1))
        turn[..., 3, 3] = 1
        return Camera(camera.cam2world @ turn, camera.intrinsics)

    @staticmethod
    def look_at(
        eye: Tensor | Sequence[float],
        target: Tensor | Sequence[float] = PIVOT,
        up: Tensor | Sequence[float] = (0.0, 1.0, 0.0),
        *,
        focal: float = FOCAL,
    ) -> Camera:
        """A camera at ``eye`` that looks at ``target`` with ``up`` upwards in the picture; each (..., 3), world units.

        Raises:
            InputError: if a viewing direction has no length or runs along ``up``, which leaves the picture's roll open,
                or if a number is not finite.
        """
        position, aim, upwards = _broadcast(eye, target, up)
        forward = torch.nn.functional.normalize(aim - position, dim=-1)
        right = torch.linalg.cross(forward, torch.nn.functional.normalize(upwards, dim=-1), dim=-1)
        if not (right.norm(dim=-1) >= 1e-6).all():  # NaN is not
            if not right.isfinite().all():
                raise InputError("a camera's angles and positions must be finite numbers")
            raise InputError(
                "a camera cannot look along its up direction: move the eye or the target, or give another up"
            )
        right = torch.nn.functional.normalize(right, dim=-1)
        down = torch.linalg.cross(forward, right, dim=-1)
        matrix = position.new_zeros(*position.shape[:-1], 4, 4)
        matrix[..., :3, :] = torch.stack([right, down, forward, position], -1)
        matrix[..., 3, 3] = 1
        return Camera(matrix, pinhole(focal).to(position.device).expand(*position.shape[:-1], 3, 3))

    @staticmethod
    def from_label(label: Tensor | Sequence[float]) -> Camera:
        """A camera from 25 numbers (..., 25): row-major 4×4 camera-to-world matrix, then row-major 3×3 intrinsics."""
        label = torch.as_tensor(label)
        if label.ndim == 0 or label.shape[-1] != 25:
            raise InputError(f"a camera label has 25 numbers in its last dimension, got shape {tuple(label.shape)}")
        return Camera(label[..., :16].unflatten(-1, (4, 4)), label[..., 16:].unflatten(-1, (3, 3)))

    @property
    def label(self) -> Tensor:
        """(..., 25) numbers, the inverse of :meth:`from_label`."""
        return torch.cat([self.cam2world.flatten(-2), self.intrinsics.flatten(-2)], -1)

    @property
    def batch_shape(self) -> torch.Size:
        return self.cam2world.shape[:-2]

    def __getitem__(self, index: int | slice | Tensor) -> Camera:
        return Camera(self.cam2world[index], self.intrinsics[index])

    def to(self, *args, **kwargs) -> Camera:
        """Move or convert, as ``Tensor.to``."""
        return Camera(self.cam2world.to(*args, **kwargs), self.intrinsics.to(*args, **kwargs))

    @property
    def world2cam(self) -> Tensor:
        """(..., 4, 4), the inverse of the rigid ``cam2world``."""
        rotation = self.cam2world[..., :3, :3].transpose(-1, -2)
        translation = -rotation @ self.cam2world[..., :3, 3:]
        return torch.cat([torch.cat([rotation, translation], -1), self.cam2world[..., 3:, :]], -2)

    def to_camera(self, points: Tensor) -> Tensor:
        """World points (..., P, 3) to camera coordinates (..., P, 3)."""
        world2cam = self.world2cam
        return points @ world2cam[..., :3, :3].transpose(-1, -2) + world2cam[..., None, :3, 3]

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """World points (..., P, 3) to picture coordinates (..., P, 2) in [0, 1] (u right, v down), depth (..., P)."""
        local = self.to_camera(points)
        depth = local[..., 2]
        homogeneous = local @ self.intrinsics.transpose(-1, -2)
        return homogeneous[..., :2] / depth[..., None], depth

    def rays(self, resolution: int) -> tuple[Tensor, Tensor]:
        """Rays through the pixel centres of a square picture.

        Returns:
            origins (..., R·R, 3) and unit directions (..., R·R, 3) in world space, row by row from the top left.
        """
        centres = (torch.arange(resolution, dtype=torch.float32, device=self.cam2world.device) + 0.5) / resolution
        v, u = torch.meshgrid(centres, centres, indexing="ij")
        k = self.intrinsics
        fx, fy, cx, cy, skew = (k[..., i, j, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2), (0, 1)))
        u, v = u.flatten(), v.flatten()  # (R·R,)
        y = (v - cy) / fy
        x = (u - cx - skew * y) / fx
        local = torch.stack([x, y, torch.ones_like(x)], -1)  # (..., R·R, 3)
        directions = local @ self.cam2world[..., :3, :3].transpose(-1, -2)
        directions = torch.nn.functional.normalize(directions, dim=-1)
        return self.cam2world[..., None, :3, 3].expand_as(directions), directions

    def mirror(self) -> Camera:
        """The camera that sees the mirrored world (x → −x) as the left-right flipped picture."""
        flip_world = torch.diag(self.cam2world.new_tensor([-1.0, 1.0, 1.0, 1.0]))
        intrinsics = self.intrinsics.clone()
        intrinsics[..., 0, 1] *= -1
        intrinsics[..., 0, 2] = 1 - intrinsics[..., 0, 2]
        return Camera(flip_world @ self.cam2world @ flip_world, intrinsics)


def _broadcast(*values: float | Sequence[float] | Tensor) -> tuple[Tensor, ...]:
    """float32 tensors of one shape, on the device of the first tensor among ``values``."""
    device = next((value.device for value in values if isinstance(value, Tensor)), None)
    return torch.broadcast_tensors(*(torch.as_tensor(value, dtype=torch.float32, device=device) for value in values))


def pinhole(focal: float) -> Tensor:
    """(3, 3) normalised intrinsics with the principal point in the middle of the picture."""
    return torch.tensor([[focal, 0.0, 0.5], [0.0, focal, 0.5], [0.0, 0.0, 1.0]])


def focal_from_fov(degrees: float) -> float:
    """The focal length that the released tools make of a field of view, rounded constants included (NETWORK.md)."""
    return 1 / (1.414 * math.tan(degrees * 3.14159 / 360))
