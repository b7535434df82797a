"""Rasterisation in plain torch: the reference for the fast implementations, on any device with float64."""

from __future__ import annotations

import torch
from torch import Tensor

from next3d.raster.rasterize import DEGENERATE, LIMIT, NEAR, RELEASED_EPSILON

CHUNK = 1 << 21  # (triangle, pixel) pairs that are looked at together


def rasterize(
    screen: Tensor, faces: Tensor, height: int, width: int, keep: int, perspective: bool, released: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`next3d.raster.rasterize`; returns face, barycentric, depth without gradients."""
    keys = torch.full((screen.shape[0], height * width), torch.iinfo(torch.int64).max, device=screen.device)
    for vertices, key in zip(screen.double(), keys):
        _draw(vertices[faces], key, height, width, keep, perspective)
    face = torch.where(keys == torch.iinfo(torch.int64).max, -1, keys & 0xFFFFFFFF).view(len(screen), height, width)
    return face, *barycentrics(screen, faces, face, perspective, released)


def _draw(triangles: Tensor, keys: Tensor, height: int, width: int, keep: int, perspective: bool) -> None:
    """Lower ``keys`` (H·W,), each (depth, face id) in one sortable int64, by the triangles (F, 3, 3)."""
    area = doubled_area(triangles)
    drawn = (triangles.abs().flatten(1) < LIMIT).all(1) & (area.abs() > DEGENERATE)
    if keep:
        drawn &= area * keep > 0
    if perspective:
        drawn &= (triangles[:, :, 2] > NEAR).all(1)

    # The pixel centres inside each bounding box: a range of columns and a range of rows, a little generous.
    size = triangles.new_tensor([width, height])
    low = ((triangles[:, :, :2].amin(1) + 1) * size - 1) / 2 - 1e-6  # (F, 2)
    high = ((triangles[:, :, :2].amax(1) + 1) * size - 1) / 2 + 1e-6
    first = low.ceil().nan_to_num().clamp(torch.zeros_like(size), size).long()
    last = high.floor().nan_to_num().clamp(-torch.ones_like(size), size - 1).long()
    extent = (last - first + 1).clamp_min(0) * drawn[:, None]  # (F, 2) columns, rows
    count = extent.prod(1)  # (F,)

    ends = count.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    for start in range(0, total, CHUNK):
        pair = torch.arange(start, min(start + CHUNK, total), device=keys.device)  # (P,)
        face = torch.searchsorted(ends, pair, right=True)
        within = pair - (ends - count)[face]
        column = first[face, 0] + within % extent[face, 0]
        row = first[face, 1] + torch.div(within, extent[face, 0], rounding_mode="floor")
        u = (2 * column + 1).double() / width - 1
        v = (2 * row + 1).double() / height - 1
        corner = triangles[face]  # (P, 3, 3)
        edge = edge_functions(corner, u, v)  # (P, 3)
        inside = (edge * area[face].sign()[:, None] >= 0).all(1)
        face, edge, corner = face[inside], edge[inside], corner[inside]
        pixel = row[inside] * width + column[inside]
        depth = _interpolated_depth(edge / area[face][:, None], corner[..., 2], perspective)
        keys.scatter_reduce_(0, pixel, _sortable(depth.float()) * (1 << 32) + face, "amin")


def barycentrics(
    screen: Tensor, faces: Tensor, face: Tensor, perspective: bool, released: bool
) -> tuple[Tensor, Tensor]:
    """Weights (N, H, W, 3) and depth (N, H, W) of known face ids (N, H, W), differentiable in ``screen``."""
    count, height, width = face.shape
    hit, row, column = (face >= 0).nonzero(as_tuple=True)  # (P,) each
    # The released rasteriser computed in float32, which shows on slivers; MPS has nothing wider.
    wide = screen.dtype if released or screen.device.type == "mps" else torch.float64
    corner = screen[hit[:, None], faces[face[hit, row, column]]].to(wide)  # (P, 3, 3)
    u = (2 * column + 1).to(wide) / width - 1
    v = (2 * row + 1).to(wide) / height - 1
    area = doubled_area(corner)[:, None]
    weight = edge_functions(corner, u, v) / (area + RELEASED_EPSILON * area.sign() if released else area)  # (P, 3)
    if perspective:
        weight = weight / corner[..., 2]
        weight = weight / weight.sum(-1, keepdim=True)
    depth = (weight * corner[..., 2]).sum(-1)
    barycentric = screen.new_zeros(count, height, width, 3).index_put((hit, row, column), weight.to(screen.dtype))
    full = screen.new_full((count, height, width), torch.inf)
    return barycentric, full.index_put((hit, row, column), depth.to(screen.dtype))


def doubled_area(triangles: Tensor) -> Tensor:
    """Doubled signed areas (...,) of (..., 3, ≥2) triangles in (u, v)."""
    (u0, v0), (u1, v1), (u2, v2) = (triangles[..., i, :2].unbind(-1) for i in range(3))
    return (u1 - u0) * (v2 - v0) - (v1 - v0) * (u2 - u0)


def edge_functions(triangles: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """(..., 3): for each vertex, the doubled signed area of the point (u, v) with the opposite edge."""
    (u0, v0), (u1, v1), (u2, v2) = (triangles[..., i, :2].unbind(-1) for i in range(3))
    return torch.stack(
        [
            (u2 - u1) * (v - v1) - (v2 - v1) * (u - u1),
            (u0 - u2) * (v - v2) - (v0 - v2) * (u - u2),
            (u1 - u0) * (v - v0) - (v1 - v0) * (u - u0),
        ],
        -1,
    )


def _interpolated_depth(weight: Tensor, depth: Tensor, perspective: bool) -> Tensor:
    """Depth (P,) at affine weights (P, 3) of vertices at ``depth`` (P, 3)."""
    return 1 / (weight / depth).sum(-1) if perspective else (weight * depth).sum(-1)


def _sortable(depth: Tensor) -> Tensor:
    """float32 to int64 in [−2³¹, 2³¹) with the same order."""
    bits = (depth + 0.0).view(torch.int32)  # + 0.0 makes one zero of two
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()
