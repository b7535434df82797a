"""Meshes: topology with UVs, and the frame that heads live in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

HEAD_SCALE = 2.5  # metres of a head model → world units; the planes span [−0.5, 0.5] (paper, B.1)
HEAD_SHIFT = (0.0, 0.01, -0.01)  # metres, added before scaling (NETWORK.md, 'Texture → planes')


@dataclass(frozen=True)
class Topology:
    """What a head mesh has whatever its pose.

    Attributes:
        faces: (F, 3) int64 vertex indices, counter-clockwise seen from outside (right-handed, y up)
        uvs: (T, 2) float in [0, 1], origin top-left of the texture image, u right, v down
        uv_faces: (F, 3) int64 indices into ``uvs``, corner by corner with ``faces``
        face_mask: (1, 1, 256, 256) float in [0, 1], 1 on the UV region that moves (face and eyes), 0 elsewhere
        vertex_count: the number of vertices
    """

    faces: Tensor
    uvs: Tensor
    uv_faces: Tensor
    face_mask: Tensor
    vertex_count: int


def world_from_head(points: Tensor) -> Tensor:
    """Head-model coordinates in metres (..., 3) to world units (..., 3): 2.5·(x, y + 0.01, z − 0.01)."""
    return HEAD_SCALE * (points + torch.tensor(HEAD_SHIFT, dtype=points.dtype, device=points.device))


def head_from_world(points: Tensor) -> Tensor:
    """The inverse of :func:`world_from_head`."""
    return points / HEAD_SCALE - torch.tensor(HEAD_SHIFT, dtype=points.dtype, device=points.device)
