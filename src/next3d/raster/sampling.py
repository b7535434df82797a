"""What is read through fragments, interpolated values and texture samples, and the projection that precedes them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from next3d.errors import InputError
from next3d.geometry.cameras import Camera
from next3d.raster.rasterize import NEAR, Fragments


def perspective_screen(camera: Camera, points: Tensor) -> Tensor:
    """Project world points for ``rasterize(..., perspective=True)``.

    Args:
        camera: one camera, or a batch of N.
        points: (N, V, 3) or (1, V, 3), world units.

    Returns:
        (N, V, 3): u right and v down in [−1, 1] across the picture, and the depth along the viewing axis, world units.
        Points at or behind the camera keep their depth, which makes ``rasterize`` drop their triangles.
    """
    if points.ndim != 3 or points.shape[-1] != 3:
        raise InputError(f"points have the shape (N, V, 3), got {tuple(points.shape)}")
    local = camera.to(points).to_camera(points)  # (N, V, 3)
    depth = local[..., 2:]
    divisor = torch.where(depth.abs() < NEAR, NEAR, depth)  # finite values and gradients for points that are dropped
    uv = (local @ camera.intrinsics.to(points).transpose(-1, -2))[..., :2] / divisor
    return torch.cat([2 * uv - 1, depth], -1)


def interpolate(fragments: Fragments, values: Tensor, value_faces: Tensor) -> Tensor:
    """Interpolate values given at the corners of faces.

    Args:
        fragments: from :func:`~next3d.raster.rasterize`.
        values: (N, P, C), or (1, P, C) shared by the batch: vertex positions, normals, UVs, colours …
        value_faces: (F, 3) indices into the P values, corner by corner with the rasterised faces.

    Returns:
        (N, H, W, C), 0 where empty. Differentiable with respect to ``values`` and the barycentric weights.
    """
    if values.ndim != 3 or values.shape[0] not in (1, len(fragments.face)):
        raise InputError(
            f"values have the shape (N or 1, P, C) with N = {len(fragments.face)}, got {tuple(values.shape)}"
        )
    batch, row, column = fragments.mask.nonzero(as_tuple=True)  # (Q,) each
    index = value_faces.to(fragments.face)[fragments.face[batch, row, column]]  # (Q, 3)
    corner = values[batch[:, None] if len(values) > 1 else 0, index]  # (Q, 3, C)
    result = (fragments.barycentric[batch, row, column][:, None] @ corner.to(fragments.barycentric.dtype))[
        :, 0
    ]  # (Q, C)
    empty = result.new_zeros(*fragments.face.shape, values.shape[-1])
    return empty.index_put((batch, row, column), result)


def sample_texture(texture: Tensor, uv: Tensor, padding: Literal["zeros", "border"] = "zeros") -> Tensor:
    """Sample textures bilinearly.

    Args:
        texture: (N, C, h, w), or (1, C, h, w) shared by the batch.
        uv: (N, H, W, 2) in [0, 1], origin top-left of the texture image, u right, v down; texel i of w has its
            centre at (i + 0.5)/w.
        padding: what lies outside of the texture, also between its rim and the last texel centres.

    Returns:
        (N, C, H, W), differentiable with respect to both.
    """
    if len(texture) == 1 and len(uv) > 1:
        texture = texture.expand(len(uv), -1, -1, -1)
    grid = (2 * uv - 1).to(texture.dtype)
    return torch.nn.functional.grid_sample(texture, grid, mode="bilinear", padding_mode=padding, align_corners=False)
