"""The built-in head drives the generator: the planes of a turned or talking head cover what they depict."""

from __future__ import annotations

import math

import pytest
import torch

from next3d.generator.flood_fill import fill_holes
from next3d.generator.generator import Generator
from next3d.generator.presets import preset
from next3d.geometry.cameras import Camera
from next3d.geometry.meshes import world_from_head
from next3d.heads import load_head
from next3d.raster import sample_texture

RESOLUTION = 128
# Columns, rows, and from where it is seen: axis and side.
PLANES = {"xy": (0, 1, [(2, 1)]), "xz": (0, 2, [(1, 1)]), "zy": (2, 1, [(0, 1), (0, -1)])}
POSES = {
    "at rest": {},
    "turned": {"neck": (0.25, 0.9, 0.2)},
    "talking": {"jawOpen": 0.8, "mouthFunnel": 0.4, "eyeBlinkLeft": 1.0, "neck": (-0.2, -0.5, 0.0)},
}


@pytest.fixture(scope="module")
def model():
    planes = {"resolution": RESOLUTION, "front_resolution": RESOLUTION}
    config = preset("tiny").replace(planes=planes, static={"resolution": RESOLUTION})
    head = load_head("builtin")
    torch.manual_seed(0)
    return Generator(config, head.topology), head


def seen(vertices, topology, columns, rows, axis, side, resolution):
    """(R, R) 1 where the nearest of the faces turned to the viewer shows the moving part: every pixel's centre tried
    against every face around it."""
    corners, uvs = vertices[topology.faces], topology.uvs[topology.uv_faces]  # (F, 3, 3), (F, 3, 2)
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    facing = side * normal[:, axis] > 1e-12
    corners, uvs = corners[facing].double(), uvs[facing].double()
    flat = (corners[..., [columns, rows]] + 0.5) * resolution  # (F, 3, 2) pixels
    low = flat.amin(1).floor()
    window = torch.arange(int((flat.amax(1) - low).max()) + 1)
    pixels = low.long()[:, None] + torch.cartesian_prod(window, window)  # (F, W·W, 2)
    edges = torch.stack([flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]], -1)  # (F, 2, 2)
    last = torch.linalg.solve(edges, (pixels + 0.5 - flat[:, :1]).mT).mT
    weights = torch.cat([1 - last.sum(-1, keepdim=True), last], -1)  # (F, W·W, 3)
    inside = (weights >= 0).all(-1)
    depth, at = side * (weights @ corners)[inside][:, axis], (weights @ uvs)[inside]
    pixel = pixels[inside][:, 1] * resolution + pixels[inside][:, 0]
    nearest = torch.full((resolution**2,), -math.inf).double().scatter_reduce(0, pixel, depth, "amax")[pixel] == depth
    picture = torch.zeros(resolution**2)
    picture[pixel[nearest]] = sample_texture(topology.face_mask, at[None, None].float())[0, 0, 0][nearest]
    return picture.view(resolution, resolution)


@pytest.mark.parametrize("pose", POSES)
@torch.no_grad()
def test_alpha_is_the_projection_of_the_built_in_head(model, pose):
    generator, head = model
    mesh = head(head.params(**POSES[pose]))
    label = Camera.orbit().label[None]
    planes = generator.synthesis(generator.mapping(torch.zeros(1, 16), label), label, *mesh[:2]).planes
    vertices = world_from_head(mesh.vertices)[0]
    for index, (name, (columns, rows, sides)) in enumerate(PLANES.items()):
        found = planes.drawn.alpha[index][0, 0] > 0.5
        views = [seen(vertices, head.topology, columns, rows, axis, side, RESOLUTION) for axis, side in sides]
        expected = torch.stack([fill_holes(view[None], border=True)[0] for view in views]).amax(0) > 0.5
        overlap = float((expected & found).sum() / (expected | found).sum())
        assert found.sum() > 150
        assert overlap >= 0.97, f"{pose}, plane {name}: intersection over union {overlap:.3f}"
