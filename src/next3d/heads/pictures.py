"""Plainly shaded contact sheets of a head model: all around, its expressions, its shapes, a clip."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from next3d.errors import InputError
from next3d.geometry.cameras import RADIUS, Camera
from next3d.geometry.meshes import HEAD_SCALE, world_from_head
from next3d.heads.head_model import HeadModel
from next3d.heads.params import HeadParams, Motion
from next3d.io.images import contact_sheet
from next3d.raster.shading import shaded

WHITE, IRIS, PUPIL = (0.90, 0.89, 0.87), (0.30, 0.42, 0.48), (0.05, 0.05, 0.06)
CLAY, INSIDE = (0.78, 0.72, 0.67), (0.25, 0.12, 0.11)
IRIS_RADIUS, PUPIL_RADIUS = 0.0059, 0.0024  # metres
TURNTABLE = ((0, 0), (30, 0), (60, 0), (90, 0), (180, 0), (-90, 0), (-40, 20), (40, -20))
# What is looked at closely: landmarks and how far in metres from their middle it lies, yaw in degrees, width in metres.
CLOSEUPS: dict[str, tuple[tuple[int, ...], tuple[float, float, float], float, float]] = {
    "eyes": ((36, 39, 42, 45), (0, 0, 0), 0, 0.12),
    "eye": ((42, 45), (0, 0, 0), 25, 0.05),
    "nose": ((27, 30, 33), (0, 0, 0), 40, 0.085),
    "mouth": ((48, 54), (0, 0, 0), 10, 0.085),
    "ear": ((16,), (0, -0.015, -0.03), 75, 0.09),
    "profile": ((8, 16, 27, 30), (0, 0, -0.02), 90, 0.22),
}
FRAMES = 24  # of a clip's sheet
FOCAL = 3.9  # wider than the generator's cameras: the whole head stays in view from all sides


def colours_of(head: HeadModel) -> Tensor:
    """(V, 3): clay, white eyeballs with irises and pupils, told from the skinning weights."""
    weights, template = head.skin.T.cpu(), head.template.cpu()
    colours = torch.tensor(CLAY).repeat(len(template), 1)
    irises = head(HeadParams()).irises[0].cpu()
    for eye, centre in zip((3, 4), irises):
        ball = weights[:, eye] > 0.9
        colours[ball] = torch.tensor(WHITE)
        distance = (template - centre).norm(dim=-1)
        colours[ball & (distance < IRIS_RADIUS)] = torch.tensor(IRIS)
        colours[ball & (distance < PUPIL_RADIUS)] = torch.tensor(PUPIL)
    return colours


@torch.no_grad()
def draw(
    head: HeadModel, params: HeadParams, camera: Camera, size: int, *, landmarks: bool = False, progress: bool = False
) -> np.ndarray:
    """Pictures (N, size, size, 3) uint8 on white of N heads, under one camera or N."""
    params = params.reshape(-1)
    colours = colours_of(head)
    pictures = []
    for index in tqdm(range(len(params)), unit="picture", disable=not progress):
        mesh = head(params[index])
        view = camera[index] if camera.batch_shape else camera
        points = world_from_head(mesh.vertices)
        drawn = shaded(view, points, head.topology.faces, size, colours=colours)[0]
        # Where the mesh is seen from behind it is the mouth's inside, or the neck's.
        behind = shaded(view, points, head.topology.faces.flip(1), size)[0, ..., 3:]
        on_white = torch.tensor(INSIDE) * behind + (1 - behind)
        on_white = drawn[..., :3] * drawn[..., 3:] + on_white * (1 - drawn[..., 3:])
        picture = (on_white * 255).round().to(torch.uint8).numpy()
        if landmarks:
            place, _ = view.project(world_from_head(torch.cat([mesh.landmarks[0], mesh.irises[0]])))
            for number, (column, row) in enumerate((place * size).long().tolist()):
                dot = (220, 40, 40) if number < 68 else (40, 90, 220)
                picture[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = dot
        pictures.append(picture)
    return np.stack(pictures)


def contact_sheet_of(
    head: HeadModel,
    kind: str,
    params: HeadParams | None = None,
    *,
    motion: Motion | None = None,
    size: int = 256,
    yaw: float = 0.0,
    pitch: float = 0.0,
    landmarks: bool = False,
) -> np.ndarray:
    """A labelled sheet, uint8 (H, W, 3).

    Args:
        kind: "turntable", "closeups" (eyes, nose, mouth, ear, profile), "expressions" (each at 1, with what ARKit calls
            it), "shapes" (the first 20 at ±2) or "clip"
        params: the head that is varied, at rest if None
        motion: what a clip's sheet shows
        yaw, pitch: degrees, for all but the turntable and the close-ups
    """
    params = HeadParams() if params is None else params
    low, high = world_from_head(head.template.cpu()).aminmax(dim=0)
    # The middle of the head without most of its neck.
    centre = torch.tensor([0.0, (0.62 * high[1] + 0.38 * low[1]).item(), ((low[2] + high[2]) / 2).item()])

    def seen(yaw: float | Tensor, pitch: float | Tensor) -> Camera:
        return Camera.orbit(yaw, pitch, pivot=centre.tolist(), focal=FOCAL)

    camera = seen(math.radians(yaw), math.radians(pitch))
    if kind == "turntable":
        angles = torch.deg2rad(torch.tensor(TURNTABLE, dtype=torch.float32))
        many = HeadParams.stack([params] * len(TURNTABLE))
        pictures = draw(head, many, seen(angles[:, 0], angles[:, 1]), size, landmarks=landmarks, progress=True)
        return contact_sheet(list(pictures), columns=4, labels=[f"yaw {y}°, pitch {p}°" for y, p in TURNTABLE])
    if kind == "closeups":
        points = world_from_head(head(params).landmarks[0].cpu())
        views = []
        for about, offset, angle, width in tqdm(CLOSEUPS.values(), unit="picture"):
            place = points[list(about)].mean(0) + HEAD_SCALE * torch.tensor(offset)
            towards = torch.tensor([math.sin(math.radians(angle)), 0.0, math.cos(math.radians(angle))])
            camera = Camera.look_at(place + RADIUS * towards, place, focal=RADIUS / (HEAD_SCALE * width))
            views.append(draw(head, params, camera, size, landmarks=landmarks)[0])
        return contact_sheet(views, columns=3, labels=list(CLOSEUPS))
    if kind == "expressions":
        labels = ["rest", "jawOpen", *head.expression_names]
        poses = [params, params.replace(jaw=head.from_arkit({"jawOpen": 1}).jaw)]
        poses += [params.replace(expression=params.expression + row) for row in torch.eye(50)]
        columns = 9
    elif kind == "shapes":
        labels = [f"{name} {sign}2" for name in head.shape_names[:20] for sign in "−+"]
        poses = [params.replace(shape=params.shape + s * row) for row in torch.eye(100)[:20] for s in (-2, 2)]
        columns = 8
    elif kind == "clip" and motion is not None:
        index = np.linspace(0, len(motion) - 1, min(FRAMES, len(motion))).round().astype(int)
        labels = [f"{i / motion.fps:.2f} s" for i in index]
        poses = [motion.params[int(i)].replace(shape=params.shape) for i in index]
        columns = 8
    else:
        raise InputError(f"there is no sheet '{kind}': choose turntable, closeups, expressions, shapes or clip")
    pictures = draw(head, HeadParams.stack(poses), camera, size, landmarks=landmarks, progress=True)
    return contact_sheet(list(pictures), columns=columns, labels=labels)
