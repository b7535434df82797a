"""Rasterisation on CUDA in Triton; the rule and the order of operations are those of the torch reference.

Without a GPU the kernels run through Triton's interpreter: set TRITON_INTERPRET=1 before this module is imported.
"""

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

from next3d.errors import InputError
from next3d.raster.rasterize import DEGENERATE, LIMIT, NEAR, RELEASED_EPSILON

BLOCK = 64  # pixels of a triangle's bounding box that are looked at together
FAR = torch.iinfo(torch.int64).max  # the key of a pixel that no triangle covers


def rasterize(
    screen: Tensor, faces: Tensor, height: int, width: int, keep: int, perspective: bool, released: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`next3d.raster.rasterize`; returns face, barycentric, depth without gradients."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if screen.device.type != "cuda" and not interpreted:
        raise InputError(
            f"the Triton rasteriser needs CUDA tensors, got {screen.device.type}: use implementation='auto'"
        )
    dtype = screen.dtype
    points = screen.to(torch.float64 if dtype == torch.float64 else torch.float32).contiguous()
    corners = faces.contiguous()
    count, vertex_count, _ = points.shape
    keys = torch.full((count, height, width), FAR, dtype=torch.int64, device=points.device)
    face = torch.empty_like(keys)
    barycentric = points.new_empty(count, height, width, 3)
    depth = points.new_empty(count, height, width)
    if count and len(corners):
        options = {"num_warps": 1} if interpreted else {"num_warps": 1, "enable_fp_fusion": False}
        visibility_kernel[(len(corners), count)](
            points, corners, keys, vertex_count, height, width,
            KEEP=keep, PERSPECTIVE=perspective, DEGENERATE=DEGENERATE, LIMIT=LIMIT, NEAR=NEAR, BLOCK=BLOCK, **options,
        )  # fmt: skip
    if keys.numel():
        weights_kernel[(triton.cdiv(keys.numel(), 256),)](
            points, corners, keys, face, barycentric, depth, keys.numel(), vertex_count, height, width,
            FAR=FAR, PERSPECTIVE=perspective, RELEASED=released, EPSILON=RELEASED_EPSILON, BLOCK=256,
        )  # fmt: skip
    return face, barycentric.to(dtype), depth.to(dtype)


@triton.jit
def load_corner(points, corners, face, corner, mask):
    """(u, v, depth) of one corner of faces, in the type of ``points``."""
    vertex = tl.load(corners + face * 3 + corner, mask=mask, other=0)
    u = tl.load(points + vertex * 3, mask=mask, other=0)
    v = tl.load(points + vertex * 3 + 1, mask=mask, other=0)
    z = tl.load(points + vertex * 3 + 2, mask=mask, other=1)
    return u, v, z


@triton.jit
def visibility_kernel(
    points,  # (N, V, 3)
    corners,  # (F, 3)
    keys,  # (N, H, W) int64: sortable float32 depth << 32 | face id, lowered atomically
    vertex_count,
    height,
    width,
    KEEP: tl.constexpr,
    PERSPECTIVE: tl.constexpr,
    DEGENERATE: tl.constexpr,
    LIMIT: tl.constexpr,
    NEAR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program per triangle and picture: walk the pixels of its bounding box."""
    face = tl.program_id(0).to(tl.int64)
    picture = tl.program_id(1).to(tl.int64)
    points += picture * vertex_count * 3
    keys += picture * height * width
    u0, v0, z0 = load_corner(points, corners, face, 0, True)
    u1, v1, z1 = load_corner(points, corners, face, 1, True)
    u2, v2, z2 = load_corner(points, corners, face, 2, True)
    u0, v0, z0 = u0.to(tl.float64), v0.to(tl.float64), z0.to(tl.float64)
    u1, v1, z1 = u1.to(tl.float64), v1.to(tl.float64), z1.to(tl.float64)
    u2, v2, z2 = u2.to(tl.float64), v2.to(tl.float64), z2.to(tl.float64)

    area = (u1 - u0) * (v2 - v0) - (v1 - v0) * (u2 - u0)
    # Every comparison with a NaN is false.
    drawn = (tl.abs(u0) < LIMIT) & (tl.abs(u1) < LIMIT) & (tl.abs(u2) < LIMIT) & (tl.abs(area) > DEGENERATE)
    drawn = drawn & (tl.abs(v0) < LIMIT) & (tl.abs(v1) < LIMIT) & (tl.abs(v2) < LIMIT)
    drawn = drawn & (tl.abs(z0) < LIMIT) & (tl.abs(z1) < LIMIT) & (tl.abs(z2) < LIMIT)
    if KEEP != 0:
        drawn = drawn & (area * KEEP > 0)
    if PERSPECTIVE:
        drawn = drawn & (z0 > NEAR) & (z1 > NEAR) & (z2 > NEAR)

    if drawn:
        column0 = (tl.minimum(tl.minimum(u0, u1), u2) + 1) * 0.5 * width - 0.5 - 1e-6
        column1 = (tl.maximum(tl.maximum(u0, u1), u2) + 1) * 0.5 * width - 0.5 + 1e-6
        row0 = (tl.minimum(tl.minimum(v0, v1), v2) + 1) * 0.5 * height - 0.5 - 1e-6
        row1 = (tl.maximum(tl.maximum(v0, v1), v2) + 1) * 0.5 * height - 0.5 + 1e-6
        # Clamped before the conversion, which overflows for far vertices; first past last where out of view.
        first_column = tl.minimum(tl.maximum(tl.ceil(column0), 0.0), width).to(tl.int32)
        last_column = tl.maximum(tl.minimum(tl.floor(column1), width - 1.0), -1.0).to(tl.int32)
        first_row = tl.minimum(tl.maximum(tl.ceil(row0), 0.0), height).to(tl.int32)
        last_row = tl.maximum(tl.minimum(tl.floor(row1), height - 1.0), -1.0).to(tl.int32)
        columns = tl.maximum(last_column - first_column + 1, 0)
        count = columns * tl.maximum(last_row - first_row + 1, 0)

        sign = tl.where(area > 0, 1.0, -1.0).to(tl.float64)
        inverse = sign / area
        if PERSPECTIVE:
            z0, z1, z2 = 1 / z0, 1 / z1, 1 / z2
        for start in range(0, count, BLOCK):
            pixel = start + tl.arange(0, BLOCK)
            column = first_column + pixel % columns
            row = first_row + pixel // columns
            u = (2 * column + 1).to(tl.float64) / width - 1
            v = (2 * row + 1).to(tl.float64) / height - 1
            e0 = sign * (u2 - u1) * (v - v1) - sign * (v2 - v1) * (u - u1)
            e1 = sign * (u0 - u2) * (v - v2) - sign * (v0 - v2) * (u - u2)
            e2 = sign * (u1 - u0) * (v - v0) - sign * (v1 - v0) * (u - u0)
            inside = (pixel < count) & (e0 >= 0) & (e1 >= 0) & (e2 >= 0)
            z = (e0 * inverse) * z0 + (e1 * inverse) * z1 + (e2 * inverse) * z2
            if PERSPECTIVE:
                z = 1 / z
            bits = (z.to(tl.float32) + 0.0).to(tl.int32, bitcast=True)
            order = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64)  # sorts as the floats do
            tl.atomic_min(keys + row * width + column, (order << 32) + face, mask=inside)


@triton.jit
def weights_kernel(
    points,  # (N, V, 3)
    corners,  # (F, 3)
    keys,  # (N, H, W)
    faces_out,  # (N, H, W) int64
    barycentric_out,  # (N, H, W, 3)
    depth_out,  # (N, H, W)
    total,
    vertex_count,
    height,
    width,
    FAR: tl.constexpr,
    PERSPECTIVE: tl.constexpr,
    RELEASED: tl.constexpr,
    EPSILON: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Face ids, weights and depth of what is visible, a block of pixels per program."""
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = index < total
    key = tl.load(keys + index, mask=valid, other=FAR)
    hit = key != FAR
    face = tl.where(hit, key & 0xFFFFFFFF, 0)
    row = (index // width) % height
    column = index % width
    points += (index // (width * height)) * vertex_count * 3
    u0, v0, z0 = load_corner(points, corners, face, 0, hit)
    u1, v1, z1 = load_corner(points, corners, face, 1, hit)
    u2, v2, z2 = load_corner(points, corners, face, 2, hit)
    u = (2 * column + 1).to(tl.float64) / width - 1
    v = (2 * row + 1).to(tl.float64) / height - 1
    if RELEASED:
        u, v = u.to(u0.dtype), v.to(u0.dtype)
    else:
        u0, v0, z0 = u0.to(tl.float64), v0.to(tl.float64), z0.to(tl.float64)
        u1, v1, z1 = u1.to(tl.float64), v1.to(tl.float64), z1.to(tl.float64)
        u2, v2, z2 = u2.to(tl.float64), v2.to(tl.float64), z2.to(tl.float64)
    area = (u1 - u0) * (v2 - v0) - (v1 - v0) * (u2 - u0)
    if RELEASED:
        area += tl.where(area > 0, EPSILON, -EPSILON)
    area = tl.where(hit, area, 1.0)
    w0 = ((u2 - u1) * (v - v1) - (v2 - v1) * (u - u1)) / area
    w1 = ((u0 - u2) * (v - v2) - (v0 - v2) * (u - u2)) / area
    w2 = ((u1 - u0) * (v - v0) - (v1 - v0) * (u - u0)) / area
    if PERSPECTIVE:
        w0, w1, w2 = w0 / z0, w1 / z1, w2 / z2
        total_weight = w0 + w1 + w2
        w0, w1, w2 = w0 / total_weight, w1 / total_weight, w2 / total_weight
    depth = tl.where(hit, w0 * z0 + w1 * z1 + w2 * z2, float("inf"))
    tl.store(faces_out + index, tl.where(hit, face, -1), mask=valid)
    tl.store(depth_out + index, depth, mask=valid)
    tl.store(barycentric_out + index * 3, tl.where(hit, w0, 0.0), mask=valid)
    tl.store(barycentric_out + index * 3 + 1, tl.where(hit, w1, 0.0), mask=valid)
    tl.store(barycentric_out + index * 3 + 2, tl.where(hit, w2, 0.0), mask=valid)
