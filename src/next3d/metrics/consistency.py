"""What the paper shows in pictures only: is a head the same from view to view, and do its still parts stay still?"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from next3d.avatar import Frame
from next3d.data.dataset import Dataset
from next3d.generator.generator import Generator
from next3d.geometry.cameras import Camera
from next3d.geometry.meshes import Topology, world_from_head
from next3d.heads.head_model import HeadModel
from next3d.heads.params import HeadParams
from next3d.raster import interpolate as raster_interpolate
from next3d.raster import perspective_screen, rasterize

YAWS = (-0.4, -0.2, 0.2, 0.4)  # radians, compared with the frontal view
DEPTH_TOLERANCE = 0.03  # world units by which two depths may differ and still be one surface


def reproject(picture: Tensor, depth: Tensor, source: Camera, points: Tensor) -> tuple[Tensor, Tensor]:
    """Colours that a picture shows at world points, and whether each point is its visible surface.

    Args:
        picture: (3, R, R); depth: (1, r, r) distance along each ray; source: their camera.
        points: (P, 3) world units.

    Returns:
        colours (P, 3) and visibility (P,) bool.
    """
    uv, _ = source.project(points)
    grid = (uv * 2 - 1)[None, None]  # (1, 1, P, 2)
    colour = grid_sample(picture[None], grid, align_corners=False)[0, :, 0].T
    seen = grid_sample(depth[None], grid, align_corners=False)[0, 0, 0]
    distance = (points - source.cam2world[:3, 3]).norm(dim=-1)
    inside = ((uv > 0.01) & (uv < 0.99)).all(-1)
    return colour, inside & ((distance - seen).abs() < DEPTH_TOLERANCE)


@torch.no_grad()
def face_region(topology: Topology, vertices: Tensor, camera: Camera, resolution: int) -> Tensor:
    """(N, R, R) bool: pixels where a mesh (N, V, 3), world units, shows the region that moves, through cameras (N,)."""
    screen = perspective_screen(camera, vertices)
    fragments = rasterize(screen, topology.faces.to(screen.device), resolution, cull=-1, perspective=True)
    uv = raster_interpolate(fragments, topology.uvs[None].to(screen), topology.uv_faces)  # (N, R, R, 2)
    mask = topology.face_mask.to(screen).expand(len(uv), -1, -1, -1)
    return fragments.mask & (grid_sample(mask, uv * 2 - 1, align_corners=False)[:, 0] > 0.5)


class Drawn(Protocol):
    """A head that can be drawn: an avatar, or a person of the picture factory."""

    @property
    def head(self) -> HeadModel | None: ...

    @property
    def shape(self) -> Tensor:
        """(100,)"""
        ...

    def render(self, params: HeadParams, camera: Camera) -> Frame: ...


def skin_mask(avatar: Drawn, params: HeadParams, camera: Camera, resolution: int) -> Tensor:
    """(r, r) bool: pixels that show the moving region of the face, by the mesh."""
    head = avatar.head
    assert head is not None
    params = params.replace(shape=avatar.shape.cpu()).to(head.template.device)
    vertices = world_from_head(head(params).vertices).cpu()
    camera = Camera(camera.cam2world[None], camera.intrinsics[None])
    return face_region(head.topology, vertices, camera, resolution)[0]


@torch.no_grad()
def view_consistency(avatar: Drawn, params: HeadParams | None = None) -> float:
    """Mean absolute colour error, of 255, on visible skin: the frontal view carried into turned views by its depth.

    Every pixel of the frontal view that shows the face becomes a world point by the frontal depth; where a turned view
    sees that point as its surface, both views' colours are compared.
    """
    params = params or HeadParams()
    front = Camera.orbit()
    frame = avatar.render(params, front)
    size = frame.depth.shape[-1]
    origins, directions = front.rays(size)
    points = origins + directions * frame.depth.cpu().flatten()[:, None]
    small = interpolate(frame.image[None].cpu(), size=(size, size), mode="bilinear", antialias=True)[0]
    colours = small.flatten(1).T
    skin = skin_mask(avatar, params, front, size).flatten()
    errors = []
    for yaw in YAWS:
        camera = Camera.orbit(yaw)
        turned = avatar.render(params, camera)
        view = interpolate(turned.image[None].cpu(), size=(size, size), mode="bilinear", antialias=True)[0]
        seen, visible = reproject(view, turned.depth.cpu(), camera, points[skin])
        if bool(visible.any()):
            errors.append((seen - colours[skin])[visible].abs().mean() * 127.5)
    return float(torch.stack(errors).mean()) if errors else float("nan")


@torch.no_grad()
def static_stability(avatar: Drawn, poses: HeadParams) -> float:
    """Mean standard deviation over time, of 255, of pixels that no pose moves: hair, body and background.

    A pixel counts as still if it lies outside the face region of every pose.

    Args:
        poses: (T,) expressions of one head, seen from the front.
    """
    camera = Camera.orbit()
    frames, moving = [], None
    for i in range(len(poses)):
        frame = avatar.render(poses[i], camera)
        frames.append(frame.image.cpu())
        mask = skin_mask(avatar, poses[i], camera, frame.image.shape[-1])
        moving = mask if moving is None else moving | mask
    assert moving is not None
    spread = torch.stack(frames).std(0).mean(0) * 127.5  # (R, R)
    return float(spread[~moving].mean())


def measure_consistency(model: Generator, dataset: Dataset, count: int, seed: int = 0) -> dict[str, float]:
    """Both measures, the mean over ``count`` identities with expressions from a dataset."""
    numbers = torch.from_numpy(dataset.numbers)
    views, still = [], []
    for i in range(count):
        avatar = model.sample(seed + i)
        rows = torch.randperm(len(numbers), generator=torch.Generator().manual_seed(seed + i))[:8]
        views.append(view_consistency(avatar))
        still.append(static_stability(avatar, HeadParams.from_vector(numbers[rows, 25:]).replace(neck=torch.zeros(3))))
    return {
        "view consistency": float(torch.tensor(views).nanmean()),
        "still parts": float(torch.tensor(still).nanmean()),
    }
