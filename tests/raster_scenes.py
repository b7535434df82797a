"""Scenes for the rasteriser's tests; as a script, the comparison that runs inside Triton's interpreter."""

import torch

from next3d.raster import rasterize


def wild(seed: int, perspective: bool):
    """Two pictures of random triangles, large and small, with everything that must be survived."""
    generator = torch.Generator().manual_seed(seed)
    screen = torch.randn(2, 40, 3, generator=generator)
    if perspective:
        screen[..., 2] = screen[..., 2].abs() * 2 + 0.1
    screen[0, 3] = torch.nan
    screen[1, 5, 0] = torch.inf
    screen[1, 6, 2] = -torch.inf
    screen[0, 7, 2] = -5  # behind the camera
    screen[0, 8, :2] = 1e30
    screen[1, 9, :2] = 1e6  # far out of view, and drawn
    screen[0, 10] = screen[0, 11]  # degenerate
    faces = torch.randint(0, 40, (60, 3), generator=generator)
    faces[5] = faces[4]  # the same surface twice
    return screen, faces


def near_an_edge(screen, faces, face, height, width):
    """(N, H, W) bool: pixel centres within 1e-6 of an edge of the face given there."""
    count = len(screen)
    v, u = torch.meshgrid(
        (2 * torch.arange(height).double() + 1) / height - 1,
        (2 * torch.arange(width).double() + 1) / width - 1,
        indexing="ij",
    )
    point = torch.stack([u, v], -1)[None, :, :, None]
    corner = screen.double()[torch.arange(count)[:, None, None, None], faces[face.clamp_min(0)], :2]  # (N, H, W, 3, 2)
    edge = corner.roll(-1, 3) - corner
    along = (((point - corner) * edge).sum(-1) / (edge * edge).sum(-1)).clamp(0, 1)[..., None]
    distance = (corner + along * edge - point).norm(dim=-1).amin(-1)
    return (distance < 1e-6) & (face >= 0)


def assert_agreement(a, b, screen, faces):
    """The same faces but for centres on edges; where they agree, the same weights and depth."""
    height, width = a.face.shape[1:]
    edge = near_an_edge(screen, faces, a.face, height, width) | near_an_edge(screen, faces, b.face, height, width)
    same = a.face == b.face
    assert bool((same | edge).all()), f"{int((~(same | edge)).sum())} pixels differ away from edges"
    assert a.face.dtype == b.face.dtype == torch.int64
    assert a.depth.dtype == b.depth.dtype == screen.dtype
    hit = same & a.mask
    assert (a.barycentric - b.barycentric)[hit].abs().max() < 2e-5  # released weights are computed in float32
    assert torch.allclose(a.depth[hit], b.depth[hit], rtol=1e-4, atol=1e-4)
    empty = same & ~a.mask
    for fragments in (a, b):
        assert bool((fragments.barycentric[empty] == 0).all())
        assert bool(fragments.depth[empty].isposinf().all())


def compare(implementation):
    for number, (cull, perspective, weights) in enumerate(
        [(0, False, "exact"), (1, False, "released"), (0, True, "exact"), (-1, True, "exact")]
    ):
        screen, faces = wild(number, perspective)
        options = {"cull": cull, "perspective": perspective, "weights": weights}
        a = rasterize(screen, faces, 23, 37, implementation="torch", **options)
        b = rasterize(screen, faces, 23, 37, implementation=implementation, **options)
        assert 0.3 < a.mask.float().mean() < 1
        assert_agreement(a, b, screen, faces)
    empty = rasterize(torch.zeros(2, 0, 3), torch.zeros(0, 3, dtype=torch.long), 4, 5, implementation=implementation)
    assert not empty.mask.any()
    assert empty.face.shape == (2, 4, 5)
    assert rasterize(torch.zeros(0, 3, 3), faces[:0], 4, implementation=implementation).face.shape == (0, 4, 4)


if __name__ == "__main__":
    compare("triton")
    print("agreed")
