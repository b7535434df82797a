"""Rotations: axis-angle vectors (radians, right-handed) and 3×3 matrices acting on column vectors."""

from __future__ import annotations

import torch
from torch import Tensor


def matrix_from_axis_angle(axis_angle: Tensor) -> Tensor:
    """Rodrigues' formula.

    Args:
        axis_angle: (..., 3), radians; the direction is the axis, the length the angle.

    Returns:
        (..., 3, 3) rotation matrices. Differentiable everywhere, the zero rotation included.
    """
    squared = (axis_angle * axis_angle).sum(-1)[..., None, None]  # (..., 1, 1)
    small = squared < 1e-8
    angle = torch.where(small, torch.ones_like(squared), squared).sqrt()
    sine = torch.where(small, 1 - squared / 6, angle.sin() / angle)
    # (1 − cos a)/a² = ½·(sin(a/2)/(a/2))², which does not cancel for small angles
    cosine = torch.where(small, 0.5 - squared / 24, 2 * ((angle / 2).sin() / angle) ** 2)
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))  # (..., 3, 3)
    identity = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    return identity + sine * cross + cosine * (cross @ cross)


def matrix_derivatives(axis_angle: Tensor) -> Tensor:
    """Derivatives of :func:`matrix_from_axis_angle`: (..., 3) to (..., 3, 3, 3), the first 3 the component.

    ∂R/∂v_k = (v_k [v]ₓ + [v × (I − R) e_k]ₓ) R / |v|² (Gallego and Yezzi 2015), and [e_k]ₓ at the zero rotation.
    """
    rotation = matrix_from_axis_angle(axis_angle)
    identity = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    squared = (axis_angle * axis_angle).sum(-1)[..., None, None]  # (..., 1, 1)
    small = squared < 1e-8
    v = axis_angle[..., None, :].expand_as(rotation)
    swung = torch.linalg.cross(v, (identity - rotation).mT)  # rows k: v × (I − R) e_k
    # v_k v + v × (I − R) e_k, then as a cross-product matrix; near zero the first order alone.
    axes = axis_angle[..., :, None] * v + swung
    axes = torch.where(small, identity.expand_as(axes), axes / torch.where(small, torch.ones_like(squared), squared))
    x, y, z = axes.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))  # (..., 3, 3, 3)
    return cross @ rotation[..., None, :, :]


def axis_angle_from_matrix(matrix: Tensor) -> Tensor:
    """The inverse of :func:`matrix_from_axis_angle`: (..., 3, 3) to (..., 3) with angles in [0, π]."""
    m = matrix
    # Four quaternion candidates, each exact where its leading component is large; the largest one is taken.
    trace = m.diagonal(dim1=-2, dim2=-1).sum(-1)
    diagonal = m.diagonal(dim1=-2, dim2=-1)
    squares = torch.cat([1 + trace[..., None], 1 + 2 * diagonal - trace[..., None]], -1).clamp_min(
        0
    )  # 4·(w², x², y², z²)
    w, x, y, z = squares.unbind(-1)
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    candidates = torch.stack(
        [
            torch.stack([w, wx, wy, wz], -1),
            torch.stack([wx, x, xy, xz], -1),
            torch.stack([wy, xy, y, yz], -1),
            torch.stack([wz, xz, yz, z], -1),
        ],
        -2,
    )  # (..., 4, 4)
    best = squares.argmax(-1)[..., None, None].expand(*squares.shape[:-1], 1, 4)
    quaternion = torch.nn.functional.normalize(candidates.gather(-2, best)[..., 0, :], dim=-1)  # (..., 4)
    quaternion = torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    vector = quaternion[..., 1:]
    sine = vector.norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(sine, quaternion[..., :1])
    return torch.where(sine > 1e-8, vector * angle / sine.clamp_min(1e-12), 2 * vector)


def matrix_from_euler(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """R = R_y(yaw) · R_x(pitch) · R_z(roll), each (...,) in radians; returns (..., 3, 3)."""
    zero = torch.zeros_like(yaw)
    turn = matrix_from_axis_angle(torch.stack([zero, yaw, zero], -1))
    nod = matrix_from_axis_angle(torch.stack([pitch, zero, zero], -1))
    tilt = matrix_from_axis_angle(torch.stack([zero, zero, roll], -1))
    return turn @ nod @ tilt


def rotation_angle(a: Tensor, b: Tensor) -> Tensor:
    """The angle in radians between rotations ``a`` and ``b``, each (..., 3, 3); returns (...,)."""
    return axis_angle_from_matrix(a.transpose(-1, -2) @ b).norm(dim=-1)
