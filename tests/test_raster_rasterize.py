"""Rasterisation: the rule in small exact cases, and the implementations against each other."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import raster_scenes
from next3d import Camera, InputError
from next3d.raster import interpolate, perspective_screen, rasterize

IMPLEMENTATIONS = ["torch", "numba"]
QUAD = torch.tensor([[0, 1, 2], [0, 2, 3]])


def quad(depth=0.0, size=1.0):
    corners = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * size
    corners[:, 2] = depth
    return corners[None]


@pytest.fixture(params=IMPLEMENTATIONS)
def draw(request):
    def draw(*args, **options):
        return rasterize(*args, implementation=request.param, **options)

    return draw


def test_triangle_by_hand(draw):
    # Of a 4×4 picture the centres are ±0.25 and ±0.75; the slanted edge u + v = 0 passes through four of them.
    screen = torch.tensor([[[-1.0, -1, 2], [1, -1, 4], [-1, 1, 6]]])
    fragments = draw(screen, torch.tensor([[0, 1, 2]]), 4)
    assert (fragments.face[0] + 1).tolist() == [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]]
    # Row 0, column 2 is (0.25, −0.75): 5/8 of the way along u and 1/8 along v.
    assert fragments.barycentric[0, 0, 2].tolist() == [0.25, 0.625, 0.125]
    assert fragments.depth[0, 0, 2] == 0.25 * 2 + 0.625 * 4 + 0.125 * 6
    assert fragments.depth[0, 3, 3] == torch.inf


def test_pixel_centres_of_any_size(draw):
    fragments = draw(quad(), QUAD, 3, 5)
    uv = interpolate(fragments, quad(), QUAD)[0, :, :, :2]
    assert torch.allclose(uv[..., 0], ((2 * torch.arange(5) + 1) / 5 - 1).expand(3, 5), atol=1e-6)
    assert torch.allclose(uv[..., 1], ((2 * torch.arange(3) + 1) / 3 - 1)[:, None].expand(3, 5), atol=1e-6)


def test_nearest_wins_then_the_smallest_face_id(draw):
    two = torch.cat([quad(0.5), quad(-0.5, 0.5)], 1)
    faces = torch.cat([QUAD, QUAD + 4])
    fragments = draw(two, faces, 8)
    inner = torch.zeros(8, 8, dtype=torch.bool)
    inner[2:6, 2:6] = True
    assert torch.equal(fragments.face[0] >= 2, inner)
    assert torch.equal(fragments.depth[0], torch.where(inner, -0.5, 0.5))
    # The diagonal belongs to both triangles of the quad: the first has it. A copy of the mesh changes nothing.
    assert draw(quad(), QUAD, 4).face[0].diagonal().tolist() == [0] * 4
    assert draw(quad(), QUAD.flip(0), 4).face[0].diagonal().tolist() == [0] * 4
    assert torch.equal(draw(two, faces.repeat(2, 1), 8).face, fragments.face)


def test_culling_by_the_sign_of_the_area(draw):
    both = torch.cat([QUAD[:1], QUAD[1:].flip(1)])
    assert draw(quad(), both, 4).mask.all()
    positive = draw(quad(), both, 4, cull=True)
    negative = draw(quad(), both, 4, cull=-1)
    assert set(positive.face.unique().tolist()) == {-1, 0}
    assert set(negative.face.unique().tolist()) == {-1, 1}
    assert (positive.mask | negative.mask).all()


def test_closed_surfaces_have_no_cracks(draw):
    """A jittered grid of thin triangles, with many vertices exactly on pixel centres, covers every pixel."""
    generator = torch.Generator().manual_seed(0)
    side = 33
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1.1, 1.1, side)] * 2, indexing="xy"), -1)
    grid[1:-1, 1:-1] += (torch.rand(side - 2, side - 2, 2, generator=generator) - 0.5) * 0.06
    grid[1:-1:3, 1:-1] = ((grid[1:-1:3, 1:-1] + 1) * 32 - 0.5).round().add(0.5) / 32 - 1
    screen = torch.cat([grid.reshape(-1, 2), torch.zeros(side * side, 1)], 1)[None]
    index = torch.arange(side * side).view(side, side)
    a, b, c, d = (i.flatten() for i in (index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]))
    faces = torch.cat([torch.stack([a, b, c], 1), torch.stack([a, c, d], 1)])
    assert draw(screen, faces, 64).mask.all()
    assert draw(screen, faces, 101, 77).mask.all()


def test_broken_triangles_are_skipped_and_the_rest_drawn(draw):
    bad = torch.tensor(
        [[torch.nan, 0, 0], [0, torch.inf, 0], [0, 0, -torch.inf], [5.0, 5, 0], [6, 5, 0], [5, 6, 0], [1e30, 0, 0]]
    )
    screen = torch.cat([quad(), bad[None]], 1)
    broken = torch.tensor([[0, 1, 4], [0, 1, 5], [0, 1, 6], [7, 8, 9], [0, 0, 1], [0, 1, 10], [1, 1, 1]])
    fragments = draw(screen, torch.cat([broken, QUAD]), 16)
    assert set(fragments.face.unique().tolist()) == {7, 8}
    assert fragments.barycentric.isfinite().all()
    attributes = interpolate(fragments, screen, torch.cat([broken, QUAD]))
    assert attributes.isfinite().all()


def test_perspective_weights_are_linear_in_space(draw):
    """A tilted plane seen by a camera: interpolated positions are where the pixel's ray meets the plane."""
    camera = Camera.orbit(torch.tensor([0.4, -0.3]), 0.2)
    corners = torch.tensor([[[-0.6, -0.5, 0.3], [0.7, -0.5, -0.5], [0.6, 0.5, -0.2], [-0.5, 0.6, 0.6]]])
    faces = torch.tensor([[0, 2, 1]])
    screen = perspective_screen(camera, corners)
    fragments = draw(screen, faces, 24, perspective=True)
    position = interpolate(fragments, corners, faces)
    a, b, c = corners[0, faces[0]]
    normal = torch.linalg.cross(b - a, c - a)
    origins, directions = (ray.view(2, 24, 24, 3) for ray in camera.rays(24))
    distance = ((a - origins) @ normal) / (directions @ normal)
    expected = origins + distance[..., None] * directions
    assert fragments.mask.float().mean() > 0.1
    assert torch.allclose(position[fragments.mask], expected[fragments.mask], atol=1e-4)
    depth = camera.to_camera(expected.flatten(1, 2))[..., 2].view(2, 24, 24)
    assert torch.allclose(fragments.depth[fragments.mask], depth[fragments.mask], atol=1e-4)


def test_faces_towards_a_camera_have_negative_area(draw):
    front = torch.tensor([[[-0.2, -0.2, 0.0], [0.2, -0.2, 0], [0.0, 0.2, 0]]])  # counter-clockwise seen from +z
    screen = perspective_screen(Camera.orbit(), front)
    face = torch.tensor([[0, 1, 2]])
    assert draw(screen, face, 16, perspective=True, cull=-1).mask.any()
    assert not draw(screen, face, 16, perspective=True, cull=True).mask.any()


def test_triangles_behind_the_camera_are_dropped(draw):
    points = torch.tensor([[[-0.2, -0.2, 0.0], [0.2, -0.2, 0], [0, 0.2, 0], [0, 0, 2.7], [0, 0.1, 4.0]]])
    screen = perspective_screen(Camera.orbit(), points)
    assert screen.isfinite().all()
    fragments = draw(screen, torch.tensor([[0, 1, 3], [0, 1, 4], [0, 1, 2]]), 16, perspective=True)
    assert set(fragments.face.unique().tolist()) == {-1, 2}


def test_released_weights(draw):
    """edge/(area + 1e-8) in float32: a sliver's weights fall short of one by as much as the formula says."""
    height = 2e-6
    screen = torch.tensor([[[-0.9, 0.25 - height, 0.0], [0.9, 0.25 - height, 0], [0.9, 0.25 + height, 0]]])
    fragments = draw(screen, torch.tensor([[0, 1, 2]]), 4, weights="released")
    u0, v0, u1, _, _, v2 = screen[0, 0, 0], screen[0, 0, 1], screen[0, 1, 0], 0, 0, screen[0, 2, 1]
    area = (u1 - u0) * (v2 - v0)
    assert fragments.mask.any()
    total = fragments.barycentric[fragments.mask].sum(-1)
    assert torch.allclose(total, (area / (area + 1e-8)).expand_as(total), atol=2e-4)
    assert total.max() < 0.9995
    exact = draw(screen, torch.tensor([[0, 1, 2]]), 4)
    assert torch.equal(exact.face, fragments.face)
    assert torch.allclose(exact.barycentric[exact.mask].sum(-1), torch.tensor(1.0))


def test_numba_agrees_with_the_reference():
    raster_scenes.compare("numba")


def test_numba_agrees_with_the_reference_in_float64_and_half_precision():
    screen, faces = raster_scenes.wild(3, perspective=False)
    for dtype in (torch.float64, torch.bfloat16):
        a, b = (rasterize(screen.to(dtype), faces, 20, implementation=name) for name in IMPLEMENTATIONS)
        raster_scenes.assert_agreement(a, b, screen.to(dtype), faces)


def test_threads_do_not_change_the_picture():
    screen, faces = raster_scenes.wild(5, perspective=False)
    threads = torch.get_num_threads()
    pictures = []
    try:
        for count in (1, 2, 3, 8):
            torch.set_num_threads(count)
            pictures.append(rasterize(screen, faces, 200, 50, implementation="numba"))
    finally:
        torch.set_num_threads(threads)
    for picture in pictures[1:]:
        assert torch.equal(picture.face, pictures[0].face)
        assert torch.equal(picture.barycentric, pictures[0].barycentric)


def test_triton_agrees_with_the_reference_in_the_interpreter():
    pytest.importorskip("triton", reason="Triton is not installed on this platform")
    result = subprocess.run(
        [sys.executable, "-W", "ignore", raster_scenes.__file__],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout == "agreed\n"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_triton_agrees_with_the_reference_on_a_gpu():
    pytest.importorskip("triton")
    screen, faces = raster_scenes.wild(2, perspective=True)
    a = rasterize(screen, faces, 123, perspective=True, implementation="torch")
    b = rasterize(screen.cuda(), faces, 123, perspective=True)
    moved = type(b)(b.face.cpu(), b.barycentric.cpu(), b.depth.cpu())
    raster_scenes.assert_agreement(a, moved, screen, faces)


def test_triton_is_not_imported_unless_asked_for():
    code = (
        "import sys, torch; from next3d.raster import rasterize\n"
        "rasterize(torch.zeros(1, 3, 3), torch.tensor([[0, 1, 2]]), 2)\n"
        "print('triton' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.stdout.strip() == "False", result.stderr


def test_triton_refuses_tensors_that_are_not_on_a_gpu(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(InputError, match="CUDA"):
        rasterize(quad(), QUAD, 4, implementation="triton")


@pytest.mark.parametrize("perspective", [False, True])
def test_gradients_of_weights_and_depth(draw, perspective):
    generator = torch.Generator().manual_seed(0)
    screen = torch.rand(2, 9, 3, dtype=torch.float64, generator=generator) * 2 - 1
    screen[..., 2] += 3
    faces = torch.randint(0, 9, (5, 3), generator=generator)
    screen[0, 8] = torch.nan
    faces[0, 2] = 8

    def weights(points):
        fragments = draw(points, faces, 6, 5, perspective=perspective)
        return fragments.barycentric, fragments.depth[fragments.mask]

    plain = draw(screen, faces, 6, 5, perspective=perspective)
    recomputed = weights(screen.requires_grad_())
    assert plain.mask.any()
    assert torch.allclose(plain.barycentric, recomputed[0], atol=1e-12)
    sum(output.sum() for output in recomputed).backward()
    assert screen.grad.isfinite().all()
    safe = torch.where(screen.detach().isnan(), 2e9, screen.detach()).requires_grad_()  # skipped, but finite
    assert torch.autograd.gradcheck(weights, safe, eps=1e-7)


def test_a_batch_is_its_members(draw):
    screen, faces = raster_scenes.wild(7, perspective=False)
    both = draw(screen, faces, 19)
    for n in range(2):
        one = draw(screen[n : n + 1], faces.int(), 19)
        assert torch.equal(one.face[0], both.face[n])
        assert torch.equal(one.depth[0], both.depth[n])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"screen": torch.zeros(4, 3)}, "N, V, 3"),
        ({"screen": torch.zeros(1, 4, 2)}, "N, V, 3"),
        ({"screen": torch.zeros(1, 4, 3, dtype=torch.long)}, "floats"),
        ({"faces": torch.zeros(2, 4, dtype=torch.long)}, "F, 3"),
        ({"faces": torch.zeros(2, 3)}, "integers"),
        ({"faces": torch.tensor([[0, 1, 4]])}, "4 vertices"),
        ({"faces": torch.tensor([[0, 1, -1]])}, "-1"),
        ({"height": 0}, "pixel"),
        ({"weights": "other"}, "weights"),
        ({"weights": "released", "perspective": True}, "affine"),
        ({"implementation": "opengl"}, "opengl"),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = {"screen": quad(), "faces": QUAD, "height": 4, **change}
    with pytest.raises(InputError, match=message):
        rasterize(**arguments)


GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"


@pytest.mark.parametrize("name", ["small", "pair"])
def test_four_views_of_the_released_rasteriser(draw, name):
    """Coverage and interpolated UVs of the released model's views (NETWORK.md, 'Texture → planes')."""
    if not GOLDEN.exists():
        pytest.skip(f"golden values are not at {GOLDEN}")
    from PIL import Image

    from next3d.io.meshes import read_obj
    from next3d.raster import sample_texture

    golden = np.load(GOLDEN / f"{name}.npz")
    mesh = read_obj(GOLDEN / ("mesh.obj" if name == "small" else f"{name}_mesh.obj"), require_uvs=True)
    mask = torch.from_numpy(np.array(Image.open(GOLDEN / "eye_mask.png").convert("L"))).float()[None, None] / 255
    attributes = torch.cat([mesh.uvs, torch.ones(len(mesh.uvs), 1)], 1)[None]
    x, y, z = torch.from_numpy(golden["vertices"]).unbind(-1)
    views = [
        (5 * x, 5 * (y + 0.01), -z),
        (-5 * z, 5 * (y + 0.01), -x),
        (5 * z, 5 * (y + 0.01), x),
        (5 * x, -5 * (z - 0.01), -y),
    ]
    images = []
    for view in views:
        fragments = draw(torch.stack(view, -1), mesh.faces, 256, cull=True, weights="released")
        centred = interpolate(
            fragments, attributes * torch.tensor([2.0, 2.0, 1.0]) - torch.tensor([1.0, 1.0, 0.0]), mesh.uv_faces
        )
        images.append(centred.movedim(-1, 1) * sample_texture(mask, (centred[..., :2] + 1) / 2))
    mine = torch.stack(images, 1).flatten()[torch.from_numpy(golden["uvimg.index"]).long()].numpy()
    reference = golden["uvimg.value"]
    assert np.array_equal(mine != 0, reference != 0)
    assert np.abs(mine - reference).max() < 1e-4 * reference.std()
