"""A stand-in for released weights: every value follows from its tensor's name, so that none need to be stored.

The rule of the golden values: a standard normal seeded by the CRC-32 of "seed:name"; mapping layers ×100 (their
learning rate multiplier is 0.01), affine biases around 1, other biases, noise strengths and w averages ×0.1.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from next3d.geometry.meshes import Topology

DATA = Path(__file__).parent / "data"


def filled(name: str, shape: list[int], seed: int) -> Tensor:
    """The value of one released tensor."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
    normal = torch.randn(shape, generator=generator)
    leaf = name.split(".")[-1]
    if leaf == "weight":
        return 100 * normal if ".mapping.fc" in "." + name else normal
    if leaf == "bias":
        return 0.1 * normal + (1 if ".affine." in name else 0)
    return normal if leaf in ("const", "noise_const") else 0.1 * normal


def released_tensors(seed: int, kind: str = "generator") -> dict[str, Tensor]:
    """{released name: tensor} of the small network behind the golden values, without its constant buffers."""
    shapes = json.loads((DATA / f"{kind}_released_tensors.json").read_text())
    # A constant buffer is listed as [shape, dtype].
    return {n: filled(n, s, seed) for n, s in shapes.items() if not (s and isinstance(s[0], list))}


def golden(name: str) -> dict[str, Tensor]:
    """The golden values "generator_small", "generator_pair" or "discriminator"."""
    with np.load(DATA / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def golden_topology(values: dict[str, Tensor]) -> Topology:
    """The stand-in mesh of golden values: FLAME's 5023 vertices, a seam, a mouth hole and two eyes."""
    mask = torch.from_numpy(np.load(DATA / "generator_face_mask.npz")["face_mask"]).float()[None, None] / 255
    faces, uv_faces = values["faces"].long(), values["uv_faces"].long()
    return Topology(faces, values["uvs"], uv_faces, mask, values["vertices"].shape[1])
