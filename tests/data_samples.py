"""A tiny head and small datasets for the tests of data/; not a test itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from next3d.data.writer import DatasetWriter
from next3d.geometry.cameras import Camera
from next3d.geometry.meshes import world_from_head
from next3d.heads import HeadModel, HeadParams
from next3d.raster import interpolate, perspective_screen, rasterize


def tiny_head(seed: int = 0, rings: int = 12, around: int = 16) -> HeadModel:
    """A symmetric egg with random, mirror-consistent directions: all that a head model has, in some 200 vertices."""
    generator = torch.Generator().manual_seed(seed)
    polar = torch.linspace(0.05, torch.pi - 0.05, rings)
    azimuth = torch.arange(around) * 2 * torch.pi / around
    phi, theta = torch.meshgrid(polar, azimuth, indexing="ij")
    template = torch.stack(
        [0.075 * phi.sin() * theta.sin(), 0.11 * phi.cos(), 0.09 * phi.sin() * theta.cos()], -1
    ).reshape(-1, 3)
    template = torch.where(template.abs() < 1e-6, 0.0, template)  # exactly symmetric, the middle plane included
    count = len(template)
    ids = torch.arange(count).view(rings, around)
    right = ids.roll(-1, 1)
    quads = torch.stack([ids[:-1], ids[1:], right[1:], right[:-1]], -1).reshape(-1, 4)
    left_half = (template[quads].mean(1)[:, :1] > 0).expand(-1, 3)  # mirrored quads are cut along mirrored diagonals
    first = torch.where(left_half, quads[:, [0, 1, 2]], quads[:, [0, 1, 3]])
    faces = torch.cat([first, torch.where(left_half, quads[:, [0, 2, 3]], quads[:, [1, 2, 3]])])
    mirror = ids[:, (-torch.arange(around)) % around].reshape(-1)
    flip = torch.tensor([-1.0, 1.0, 1.0])

    def directions(number: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Directions in mirrored pairs (2k, 2k + 1), and the matrix that exchanges each pair."""
        half = scale * torch.randn(number // 2, count, 3, generator=generator)
        pairs = torch.stack([half, half[:, mirror] * flip], 1).flatten(0, 1)
        matrix = torch.zeros(number, number)
        even = torch.arange(0, number, 2)
        matrix[even, even + 1] = matrix[even + 1, even] = 1
        return pairs, matrix

    shape, shape_mirror = directions(100, 3e-4)
    expression, expression_mirror = directions(50, 6e-4)
    weights = torch.zeros(count, 5)
    low = (template[:, 1] < -0.03) & (template[:, 2] > 0)
    left = (template - torch.tensor([0.03, 0.03, 0.07])).norm(dim=1) < 0.025
    weights[:, 1] = 1
    for joint, mask in ((2, low), (3, left), (4, left[mirror])):
        weights[mask] = torch.eye(5)[joint]
    weights[template[:, 1] < -0.09] = torch.eye(5)[0]
    regressor = torch.zeros(5, count)
    for joint, mask in enumerate((template[:, 1] < -0.09, template[:, 1] < -0.05, low, left, left[mirror])):
        regressor[joint, mask] = 1 / mask.sum()
    front = torch.nonzero(template[faces].mean(1)[:, 2] > 0.02)[:, 0]
    chosen = front[torch.arange(68) % len(front)]
    third = torch.full((68, 3), 1 / 3)
    return HeadModel.from_arrays(
        {
            "template": template,
            "shape_directions": shape,
            "expression_directions": expression,
            "pose_directions": torch.zeros(36, count, 3),
            "joint_regressor": regressor,
            "weights": weights,
            "parents": torch.tensor([-1, 0, 1, 1, 1]),
            "faces": faces,
            "uvs": torch.stack([theta / (2 * torch.pi), phi / torch.pi], -1).reshape(-1, 2),
            "uv_faces": faces.clone(),
            "face_mask": torch.ones(256, 256),
            "landmark_faces": chosen,
            "landmark_barycentric": third,
            "iris_faces": front[:2],
            "iris_barycentric": third[:2],
            "mirror_vertices": mirror,
            "shape_mirror": shape_mirror,
            "expression_mirror": expression_mirror,
        },
        name="tiny",
    )


def random_labels(count: int, seed: int = 0) -> tuple[Camera, HeadParams]:
    generator = torch.Generator().manual_seed(seed)

    def draw(width: int, scale: float) -> torch.Tensor:
        return scale * torch.randn(count, width, generator=generator)

    camera = Camera.orbit(draw(1, 0.3)[:, 0], draw(1, 0.2)[:, 0], draw(1, 0.1)[:, 0])
    params = HeadParams(
        shape=draw(100, 1.0), expression=draw(50, 1.0), neck=draw(3, 0.1), jaw=draw(3, 0.1), eyes=draw(6, 0.1)
    )
    return camera, params


def render(head: HeadModel, camera: Camera, params: HeadParams, resolution: int) -> np.ndarray:
    """Pictures (N, R, R, 3) uint8 of heads coloured by a symmetric pattern, on a flat background."""
    vertices = world_from_head(head(params).vertices)
    screen = perspective_screen(camera, vertices)
    fragments = rasterize(screen, head.topology.faces, resolution, perspective=True)
    template = head.template
    colours = torch.stack([template[:, 0].abs() * 10, template[:, 1] * 4 + 0.5, template[:, 2] * 4 + 0.5], -1)
    pixels = interpolate(fragments, colours[None].clamp(0, 1), head.topology.faces)
    pixels = torch.where((fragments.face >= 0)[..., None], pixels, torch.tensor([0.2, 0.3, 0.4]))
    return (pixels * 255).round().to(torch.uint8).numpy()


def write_dataset(
    folder: Path, head: HeadModel, count: int = 12, resolution: int = 32, *, identities: int = 5, seed: int = 0
) -> tuple[Camera, HeadParams]:
    """A finished dataset of rendered tiny heads; returns the labels that were stored."""
    camera, params = random_labels(count, seed)
    pictures = render(head, camera, params, resolution)
    writer = DatasetWriter(folder, resolution=resolution, head=head.name, maker={"seed": seed})
    latents = np.random.default_rng(seed).normal(size=(identities, 4)).astype(np.float32)
    for index in range(count):
        identity = index % identities
        writer.add(index, pictures[index], camera[index], params[index], identity=identity, latent=latents[identity])
    writer.finish(count)
    return camera, params


def build_noise(folder: Path, count: int, *, say: bool = False) -> None:
    """Build, or go on building, a dataset of noise pictures; ``say`` prints each row when it is done."""
    camera, params = random_labels(count)
    writer = DatasetWriter(folder, resolution=32, head="tiny", maker={"seed": 0})
    for index in range(count):
        if index not in writer.done:
            picture = np.random.default_rng(index).integers(0, 255, (32, 32, 3)).astype(np.uint8)
            writer.add(index, picture, camera[index], params[index], identity=index // 3)
            if say:
                print(index, flush=True)
    writer.finish(count)
