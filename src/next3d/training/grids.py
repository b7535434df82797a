"""Grids of pictures at fixed seeds, to see a model learn."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from next3d.generator.generator import Generator
from next3d.geometry.cameras import Camera
from next3d.heads import HeadModel, HeadParams
from next3d.training.randomness import SampleRandom

TURN = math.radians(40)


def controls(head: HeadModel) -> list[tuple[HeadParams, Camera]]:
    """What the columns show: frontal, turned both ways, open mouth, smile, closed eyes, looking aside."""
    frontal, blink = Camera.orbit(), {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}
    smile = {"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0}
    aside = math.radians(25)
    return [
        (HeadParams(), frontal),
        (HeadParams(), Camera.orbit(TURN)),
        (HeadParams(), Camera.orbit(-TURN)),
        (HeadParams(jaw=torch.tensor([math.radians(22), 0, 0])), frontal),
        (head.from_arkit(smile), frontal),
        (head.from_arkit(blink), frontal),
        (HeadParams(eyes=torch.tensor([0, aside, 0, 0, aside, 0])), frontal),
    ]


@torch.no_grad()
def control_grid(
    model: Generator,
    head: HeadModel,
    seed: int,
    rows: int = 6,
    latents: Tensor | None = None,
    shapes: Tensor | None = None,
) -> Tensor:
    """A grid (3, rows·R, 7·R) in [−1, 1]: one identity a row, one control a column.

    Args:
        latents: (rows, z_dim); drawn from ``seed`` if None.
        shapes: (rows, 100) shape parameters that go with them; the mean head if None.
    """
    device = model.device
    if latents is None:
        latents = SampleRandom(seed, "samples", 0, range(rows), device).normal(model.config.mapping.z_dim)
    frontal = Camera.orbit().label.to(device)[None]
    lines = []
    for i, z in enumerate(latents):
        ws = model.mapping(z[None].to(device), frontal)
        cells = []
        for params, camera in controls(head):
            params = params if shapes is None else params.replace(shape=shapes[i])
            mesh = head(params.reshape(1).to(device))
            cells.append(model.synthesis(ws, camera.label.to(device)[None], mesh.vertices, mesh.landmarks).image[0])
        lines.append(torch.cat(cells, 2))
    return torch.cat(lines, 1).float().clamp(-1, 1).cpu()


def stack(pictures: Tensor, columns: int) -> Tensor:
    """(N, 3, H, W) to a grid (3, rows·H, columns·W); N must be a multiple of ``columns``."""
    rows = pictures.unflatten(0, (-1, columns))
    return torch.cat([torch.cat(list(row), 2) for row in rows], 1)
