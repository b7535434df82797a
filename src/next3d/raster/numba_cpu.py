"""Rasterisation on the CPU, compiled by numba; rule and order of operations are those of the torch reference."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from next3d.compiled import compiled, run
from next3d.raster.rasterize import DEGENERATE, LIMIT, NEAR, RELEASED_EPSILON

BAND = 32  # fewest rows that are worth a thread of their own


def rasterize(
    screen: Tensor, faces: Tensor, height: int, width: int, keep: int, perspective: bool, released: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`next3d.raster.rasterize`; returns face, barycentric, depth without gradients.

    The pictures are cut into bands of rows, one per thread that torch may use (``torch.set_num_threads``).
    """
    device, dtype = screen.device, screen.dtype
    points = screen.to("cpu", torch.float64 if dtype == torch.float64 else torch.float32).contiguous().numpy()
    corners = faces.to("cpu").contiguous().numpy()
    count = len(points)
    face = np.empty((count, height, width), np.int64)
    barycentric = np.empty((count, height, width, 3), points.dtype)
    depth = np.empty((count, height, width), points.dtype)
    buffer = depth if depth.dtype == np.float32 else np.empty(depth.shape, np.float32)
    bands = max(1, min(-(-torch.get_num_threads() // max(count, 1)), height // BAND))
    rows = [height * i // bands for i in range(bands + 1)]
    tasks = [
        (points[n], corners, face[n], barycentric[n], depth[n], buffer[n], first, last, keep, perspective, released)
        for n in range(count)
        for first, last in pairwise(rows)
    ]
    run(_rasterize_band, tasks)
    arrays = (torch.from_numpy(array) for array in (barycentric, depth))
    barycentrics, depths = (tensor.to(device, dtype) for tensor in arrays)
    return torch.from_numpy(face).to(device), barycentrics, depths


@compiled()
def _rasterize_band(
    points, corners, face, barycentric, depth, buffer, first_row, last_row, keep, perspective, released
):
    """Fill rows first_row … last_row − 1 of one picture: visibility first, then the weights of what is visible.

    points (V, 3), corners (F, 3), face (H, W), barycentric (H, W, 3), depth (H, W), buffer (H, W) float32.
    """
    height, width = face.shape
    face[first_row:last_row] = -1
    buffer[first_row:last_row] = np.inf
    real = points.dtype.type
    half_width, half_height = 0.5 * width, 0.5 * height
    for f in range(len(corners)):
        a, b, c = corners[f, 0], corners[f, 1], corners[f, 2]
        v0, v1, v2 = np.float64(points[a, 1]), np.float64(points[b, 1]), np.float64(points[c, 1])
        # Written so that a NaN ends in `continue`: every comparison with it is false.
        low = (min(v0, v1, v2) + 1) * half_height - 0.5 - 1e-6
        high = (max(v0, v1, v2) + 1) * half_height - 0.5 + 1e-6
        if not (high >= first_row and low <= last_row - 1):
            continue
        row0, row1 = int(np.ceil(max(low, first_row))), int(np.floor(min(high, last_row - 1)))
        u0, u1, u2 = np.float64(points[a, 0]), np.float64(points[b, 0]), np.float64(points[c, 0])
        low = (min(u0, u1, u2) + 1) * half_width - 0.5 - 1e-6
        high = (max(u0, u1, u2) + 1) * half_width - 0.5 + 1e-6
        if not (high >= 0 and low <= width - 1):
            continue
        column0, column1 = int(np.ceil(max(low, 0.0))), int(np.floor(min(high, width - 1.0)))
        if row0 > row1 or column0 > column1:
            continue
        area = (u1 - u0) * (v2 - v0) - (v1 - v0) * (u2 - u0)
        if not abs(area) > DEGENERATE or area * keep < 0:
            continue
        z0, z1, z2 = np.float64(points[a, 2]), np.float64(points[b, 2]), np.float64(points[c, 2])
        if not (abs(u0) < LIMIT and abs(u1) < LIMIT and abs(u2) < LIMIT and abs(z0) < LIMIT and abs(z1) < LIMIT):
            continue
        if not (abs(v0) < LIMIT and abs(v1) < LIMIT and abs(v2) < LIMIT and abs(z2) < LIMIT):
            continue
        if perspective:
            if not (z0 > NEAR and z1 > NEAR and z2 > NEAR):
                continue
            z0, z1, z2 = 1 / z0, 1 / z1, 1 / z2
        sign = 1.0 if area > 0 else -1.0
        inverse = sign / area
        du0, du1, du2 = sign * (u2 - u1), sign * (u0 - u2), sign * (u1 - u0)
        dv0, dv1, dv2 = sign * (v2 - v1), sign * (v0 - v2), sign * (v1 - v0)
        for row in range(row0, row1 + 1):
            v = (2 * row + 1) / height - 1
            p0, p1, p2 = du0 * (v - v1), du1 * (v - v2), du2 * (v - v0)
            for column in range(column0, column1 + 1):
                u = (2 * column + 1) / width - 1
                e0 = p0 - dv0 * (u - u1)
                e1 = p1 - dv1 * (u - u2)
                e2 = p2 - dv2 * (u - u0)
                if e0 >= 0 and e1 >= 0 and e2 >= 0:
                    z = (e0 * inverse) * z0 + (e1 * inverse) * z1 + (e2 * inverse) * z2
                    near = np.float32(1 / z) if perspective else np.float32(z)
                    if near < buffer[row, column]:
                        buffer[row, column] = near
                        face[row, column] = f
    for row in range(first_row, last_row):
        v = (2 * row + 1) / height - 1
        for column in range(width):
            f = face[row, column]
            if f < 0:
                depth[row, column] = np.inf
                barycentric[row, column] = 0
                continue
            u = (2 * column + 1) / width - 1
            a, b, c = corners[f, 0], corners[f, 1], corners[f, 2]
            if released:
                w0, w1, w2 = _released_weights(
                    points[a], points[b], points[c], real(u), real(v), real(RELEASED_EPSILON)
                )
            else:
                u0, u1, u2 = np.float64(points[a, 0]), np.float64(points[b, 0]), np.float64(points[c, 0])
                v0, v1, v2 = np.float64(points[a, 1]), np.float64(points[b, 1]), np.float64(points[c, 1])
                inverse = 1 / ((u1 - u0) * (v2 - v0) - (v1 - v0) * (u2 - u0))
                w0 = ((u2 - u1) * (v - v1) - (v2 - v1) * (u - u1)) * inverse
                w1 = ((u0 - u2) * (v - v2) - (v0 - v2) * (u - u2)) * inverse
                w2 = ((u1 - u0) * (v - v0) - (v1 - v0) * (u - u0)) * inverse
            if perspective:
                w0, w1, w2 = w0 / points[a, 2], w1 / points[b, 2], w2 / points[c, 2]
                inverse = 1 / (w0 + w1 + w2)
                w0, w1, w2 = w0 * inverse, w1 * inverse, w2 * inverse
            barycentric[row, column, 0] = w0
            barycentric[row, column, 1] = w1
            barycentric[row, column, 2] = w2
            depth[row, column] = w0 * points[a, 2] + w1 * points[b, 2] + w2 * points[c, 2]


@compiled()
def _released_weights(a, b, c, u, v, epsilon):
    area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    area += epsilon if area > 0 else -epsilon
    w0 = ((c[0] - b[0]) * (v - b[1]) - (c[1] - b[1]) * (u - b[0])) / area
    w1 = ((a[0] - c[0]) * (v - c[1]) - (a[1] - c[1]) * (u - c[0])) / area
    w2 = ((b[0] - a[0]) * (v - a[1]) - (b[1] - a[1]) * (u - a[0])) / area
    return w0, w1, w2
