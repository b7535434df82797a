"""A plain shaded picture of a mesh, for overlays and contact sheets: three soft lights, no network."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from next3d.geometry.cameras import Camera
from next3d.raster.rasterize import rasterize
from next3d.raster.sampling import interpolate, perspective_screen

CLAY = (0.78, 0.75, 0.72)
# Direction (camera coordinates: x right, y down, z away) and strength of key, fill and rim light.
LIGHTS = (((-0.5, -0.6, -0.65), 0.62), ((0.7, -0.1, -0.6), 0.26), ((0.2, -0.8, 0.5), 0.2))
AMBIENT = 0.16


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit outward normals (N, V, 3) of vertices (N, V, 3), each the mean of its faces' weighted by area."""
    a, b, c = vertices[:, faces].unbind(2)  # (N, F, 3)
    area = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(vertices).index_add(1, faces.flatten(), area.repeat_interleave(3, 1))
    return normalize(total, dim=-1)


@torch.no_grad()
def shaded(
    camera: Camera,
    vertices: Tensor,
    faces: Tensor,
    resolution: int,
    *,
    colours: Tensor | None = None,
    supersample: int = 2,
) -> Tensor:
    """Pictures of N meshes under N cameras.

    Args:
        camera: batch shape (N,), or () for one camera over all meshes.
        vertices: (N, V, 3), world units.
        faces: (F, 3), counter-clockwise seen from outside; back faces are not drawn.
        resolution: side of the square picture.
        colours: (V, 3) or (N, V, 3) in [0, 1]; clay by default.

    Returns:
        (N, R, R, 4) float in [0, 1]: RGB not multiplied by the alpha, and alpha.
    """
    count = len(vertices)
    if not camera.batch_shape:
        camera = Camera(camera.cam2world.expand(count, 4, 4), camera.intrinsics.expand(count, 3, 3))
    size = resolution * supersample
    fragments = rasterize(perspective_screen(camera, vertices), faces, size, cull=-1, perspective=True)
    normals = vertex_normals(camera.to_camera(vertices), faces)
    normals = normalize(interpolate(fragments, normals, faces), dim=-1)  # (N, S, S, 3)
    light = torch.full(normals.shape[:-1], AMBIENT)
    for direction, strength in LIGHTS:
        toward = normalize(torch.tensor(direction), dim=0)
        light = light + strength * (0.15 + 0.85 * (normals @ toward)).clamp_min(0)
    if colours is None:
        colour = torch.tensor(CLAY)
    else:
        colour = interpolate(fragments, colours.expand(count, *colours.shape[-2:]), faces)
    alpha = fragments.mask[..., None].float()
    colour = (colour * light[..., None]).clamp(0, 1) * alpha
    both = torch.cat([colour, alpha], -1).movedim(-1, 1)  # (N, 4, S, S)
    both = torch.nn.functional.avg_pool2d(both, supersample).movedim(1, -1)
    return torch.cat([both[..., :3] / both[..., 3:].clamp_min(1e-6), both[..., 3:]], -1)


def overlay(picture: np.ndarray, mesh: Tensor, strength: float = 0.6) -> np.ndarray:
    """A shaded mesh (R, R, 4) laid over a picture (R, R, 3) uint8; returns uint8."""
    weight = mesh[..., 3:].numpy() * strength
    mixed = picture * (1 - weight) + 255 * mesh[..., :3].numpy() * weight
    return np.rint(mixed).clip(0, 255).astype(np.uint8)
