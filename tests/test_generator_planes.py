"""What the default mode promises of the planes, the mouth and the flood fill."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from generator_samples import stand_in_head, tiny_config
from next3d.generator.flood_fill import fill_holes, reach
from next3d.generator.mouth import crop, mouth_box, paste
from next3d.generator.texture_planes import TexturePlanes
from next3d.geometry.meshes import world_from_head

RESOLUTION = 256
POINTS = 6000  # scattered over each triangle


@pytest.fixture(scope="module")
def drawn():
    topology, vertices, _ = stand_in_head()
    config = tiny_config(planes={"resolution": RESOLUTION, "front_resolution": RESOLUTION})
    planes = TexturePlanes(config, topology)
    with torch.no_grad():
        return topology, vertices, planes(torch.ones(1, 8, 32, 32), vertices)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_alpha_is_the_projection_of_the_mesh_along_the_planes_axis(drawn, index):
    """Points scattered over the masked surface, projected by hand, cover what the alpha says."""
    topology, vertices, planes = drawn
    world = world_from_head(vertices)[0]
    uv = topology.uvs[topology.uv_faces]  # (F, 3, 2)
    near = (uv[..., 0] - 0.5).abs().amin(1) < 0.21
    uv, corners = uv[near], world[topology.faces[near]]  # (F, 3, 3)
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(len(corners), POINTS, 3, generator=generator).log()
    weight = weight / weight.sum(-1, keepdim=True)
    points, at = (weight @ corners).flatten(0, 1), (weight @ uv).flatten(0, 1)
    moving = F.grid_sample(topology.face_mask, 2 * at[None, None] - 1, align_corners=False)[0, 0, 0] > 0.5
    columns, rows = [("x", "y"), ("x", "z"), ("z", "y")][index]
    axes = ["xyz".index(columns), "xyz".index(rows)]
    # The face is convex, so that its front, left and right are all seen; from above, only what the forehead leaves.
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal = normal.repeat_interleave(POINTS, 0)
    turned = [normal[:, 2] > 0, normal[:, 1] > 0, torch.ones_like(normal[:, 0], dtype=torch.bool)][index]
    place = (points[moving & turned][:, axes] + 0.5) * RESOLUTION
    place = place[((place.frac() - 0.5).abs() < 0.1).all(1)]  # a pixel is decided at its centre
    pixel = place.long()
    expected = torch.zeros(RESOLUTION, RESOLUTION, dtype=torch.bool)
    expected[pixel[:, 1], pixel[:, 0]] = True
    expected = fill_holes(expected[None].float(), border=True)[0] > 0  # the mouth belongs to the moving part
    found = planes.alpha[index][0, 0] > 0.5
    overlap = (expected & found).sum() / (expected | found).sum()
    assert found.sum() > 100
    assert overlap >= 0.97, f"plane {columns}{rows}: intersection over union {overlap:.3f}"


def test_features_lie_where_the_surface_is(drawn):
    """A texture that holds u ends up at the place of u's surface on every plane."""
    topology, vertices, _ = drawn
    config = tiny_config(planes={"resolution": RESOLUTION, "front_resolution": RESOLUTION})
    texture = ((torch.arange(64) + 0.5) / 64).expand(1, 8, 64, 64)
    planes = TexturePlanes(config, topology)(texture, vertices)
    front, top, _ = planes.features
    # Longitude runs towards +x, and columns of the front plane are x; the same on the top plane's front half.
    for plane, row in ((front, 120), (top, 160)):
        values = plane[0, 0, row].detach()
        shown = values[values > 0]
        assert len(shown) > 20
        assert (shown.diff() >= -1e-4).all()


def test_alignment_is_learnable_and_bounded():
    topology, vertices, _ = stand_in_head()
    planes = TexturePlanes(tiny_config(), topology)
    torch.testing.assert_close(planes.world(vertices), world_from_head(vertices))
    noise = torch.randn(1, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    sum(plane.square().sum() for plane in planes(noise, vertices).features).backward()
    assert planes.alignment.grad.abs().min() > 0
    with torch.no_grad():
        planes.alignment.fill_(100.0)
        moved = planes.world(vertices) / 2.5 - vertices
    assert moved.abs().max() < 0.1


def test_mouth_hole_belongs_to_the_moving_part():
    topology, vertices, landmarks = stand_in_head()
    row, column = int(0.688 * 64), 32  # in v, roughly
    for source, expected in (("network", 1.0), ("texture", 1.0), ("static", 0.0)):
        planes = TexturePlanes(tiny_config(mouth={"source": source}), topology)
        pixel = ((planes.project(landmarks[:, 48:60], "front")[0, :, :2].mean(0) + 1) * 32).long()
        column, row = pixel.tolist()
        drawn = planes(torch.ones(1, 8, 32, 32), vertices)
        assert drawn.alpha[0][0, 0, row, column] == expected, source
        assert (drawn.features[0][0, 0, row, column] != 0) == (source == "texture"), source


def test_flood_fill_twins_agree_on_mazes():
    generator = torch.Generator().manual_seed(0)
    for density in (0.2, 0.35, 0.45):
        alpha = (torch.rand(4, 40, 40, generator=generator) < density).float()
        alpha[:, 0, 0] = 0
        alpha[0, 3, 3] = 0.5
        for border in (False, True):
            a = fill_holes(alpha, border=border, implementation="numba")
            b = fill_holes(alpha, border=border, implementation="torch")
            assert torch.equal(a, b)


def test_flood_fill_rule():
    alpha = torch.zeros(1, 6, 6)
    alpha[0, 1:5, 1:5] = 1
    alpha[0, 2:4, 2:4] = 0.25  # enclosed: becomes 1
    alpha[0, 5, 0] = 0.75  # reached: stays
    filled = fill_holes(alpha)
    assert (filled[0, 1:5, 1:5] == 1).all()
    assert filled[0, 5, 0] == 0.75
    assert filled[0, 0, 0] == 0
    alpha[0, 1, 2] = 0.99  # a path through values up to 254/255
    assert fill_holes(alpha)[0, 2, 2] == 0.25
    wall = torch.eye(5).flip(1)[None]  # a diagonal has no gap for a walk of four directions
    for walked in (fill_holes(wall) == 0, reach(wall <= 0.5)):
        assert walked[0, 0, 0]
        assert not walked[0, 4, 4]


def test_crop_and_paste_agree_with_torch_resizing():
    """Boxes of different sizes in one batch, against torch's own antialiased resizing of each."""
    generator = torch.Generator().manual_seed(0)
    plane = torch.randn(2, 3, 64, 64, generator=generator)
    box = torch.tensor([[10, 30, 7, 27], [20, 60, 3, 43]])
    for size in (16, 32):
        found = crop(plane, box, size)
        picture = torch.randn(2, 3, size, size, generator=generator)
        pasted = paste(plane, picture, box)
        for n, (top, bottom, left, right) in enumerate(box.tolist()):
            part = plane[n : n + 1, :, top:bottom, left:right]
            expected = F.interpolate(part, (size, size), mode="bilinear", antialias=True)
            torch.testing.assert_close(found[n : n + 1], expected, rtol=1e-4, atol=1e-5)
            small = F.interpolate(picture[n : n + 1], (bottom - top, right - left), mode="bilinear", antialias=True)
            reference = plane[n : n + 1].clone()
            reference[:, :, top:bottom, left:right] = small
            torch.testing.assert_close(pasted[n : n + 1], reference, rtol=1e-4, atol=1e-5)


def test_mouth_box_stays_on_the_plane():
    landmarks = torch.zeros(3, 68, 2)
    landmarks[0, 48:60, 0] = torch.linspace(0.9, 1.3, 12)  # off to the right
    landmarks[1, 48:60, 1] = torch.linspace(-3, 3, 12)  # larger than the plane
    box = mouth_box(landmarks, 64, 1.2)  # the third is a point
    assert (box >= 0).all()
    assert (box <= 64).all()
    assert ((box[:, 1] - box[:, 0]) >= 2).all()
    assert ((box[:, 3] - box[:, 2]) >= 2).all()
    assert paste(torch.zeros(3, 1, 64, 64), torch.ones(3, 1, 16, 16), box).isfinite().all()
