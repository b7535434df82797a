"""A head-like mesh made by formulas, and configurations small enough for tests."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from next3d.generator.config import GeneratorConfig
from next3d.generator.generator import Generator
from next3d.geometry.cameras import Camera
from next3d.geometry.meshes import Topology

ROWS, COLUMNS = 24, 48


def stand_in_head() -> tuple[Topology, Tensor, Tensor]:
    """An ellipsoid the size of a head with a hole for a mouth; topology, vertices (1, V, 3), landmarks (1, 68, 3).

    Longitude 0 looks along +z and runs towards +x; the UV seam is at the back. The face mask covers the front.
    """
    row, column = torch.meshgrid(torch.arange(ROWS + 1), torch.arange(COLUMNS + 1), indexing="ij")
    u, v = column / COLUMNS, row / ROWS  # (rows + 1, columns + 1); v runs from the crown to the chin
    vertices = on_ellipsoid(u, v).reshape(-1, 3)
    uvs = torch.stack([u, v], -1).reshape(-1, 2).float()
    corner = (row * (COLUMNS + 1) + column)[:-1, :-1]
    below = corner + COLUMNS + 1
    quads = torch.stack([corner, below, below + 1, corner + 1], -1)  # counter-clockwise from outside
    mouth = (row[:-1, :-1] == 16) & ((column[:-1, :-1] - COLUMNS // 2 + 0.5).abs() < 3)
    quads = quads[~mouth]
    faces = torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    size = (torch.arange(256) + 0.5) / 256
    mask = ((size[None] - 0.5).abs() < 0.2) & ((size[:, None] - 0.55).abs() < 0.25)
    topology = Topology(faces, uvs, faces.clone(), mask[None, None].float(), len(vertices))
    lips = torch.arange(12) / 12 * 2 * math.pi
    landmarks = torch.zeros(68, 3)
    landmarks[48:60] = on_ellipsoid(0.5 - 0.065 * lips.cos(), 0.688 - 0.03 * lips.sin())
    return topology, vertices[None], landmarks[None]


def on_ellipsoid(u: Tensor, v: Tensor) -> Tensor:
    longitude, latitude = (u - 0.5) * 2 * math.pi, (0.5 - v) * math.pi
    x = 0.07 * longitude.sin() * latitude.cos()
    y = 0.10 * latitude.sin()
    z = 0.085 * longitude.cos() * latitude.cos()
    return torch.stack([x, y, z], -1)


def tiny_config(**sections) -> GeneratorConfig:
    """Every part of the network, small, with different sizes where sizes may differ; with changes."""
    width = {"channel_base": 256, "channel_max": 16}
    small = GeneratorConfig().replace(
        mapping={"z_dim": 16, "w_dim": 16},
        texture=width | {"resolution": 32},
        planes={"channels": 8, "resolution": 32, "front_resolution": 64},
        mouth=width | {"crop": 16, "resolution": 32},
        blending=width | {"final": 16},
        static=width | {"resolution": 32},
        volume={"ray_resolution": 16, "samples": 8, "importance_samples": 8, "decoder_width": 16},
        superres={"resolution": 64, "channels": (16, 8)},
    )
    return small.replace(**sections)


def frontal() -> Tensor:
    """(1, 25)"""
    return Camera.orbit().label[None]


def two_views() -> Tensor:
    """(1, 2, 25)"""
    return Camera.orbit(yaw=torch.tensor([-0.4, 0.5])).label[None]


def tiny_model(**sections) -> Generator:
    """Seeded, with noise strengths that are not zero, so that noise matters."""
    config = tiny_config(**sections)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Generator(config, stand_in_head()[0] if config.planes.enabled else None).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("noise_strength"):
                    parameter.fill_(0.1)
    return model


def latents(model: Generator, count: int = 1, seed: int = 1) -> Tensor:
    """(count, w count, w_dim)"""
    z = torch.randn(count, model.config.mapping.z_dim, generator=torch.Generator().manual_seed(seed))
    return model.mapping(z, frontal().expand(count, -1)).detach()
