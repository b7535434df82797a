"""A head as a GLB file with joints and named morph targets, still or animated, for Blender, Unity and the web.

What glTF can say of FLAME's equation: the shape is baked into the mesh; each expression is a morph target; neck, jaw
and eyes are joints of a skin. What it cannot say alone, the pose correctives and the products of expressions, come as
further morph targets whose weights the animation gives, so that an animated file moves as the model does.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from next3d.errors import InputError
from next3d.geometry.rotations import matrix_from_axis_angle
from next3d.heads.head_model import JOINTS, HeadModel
from next3d.heads.params import HeadParams, Motion
from next3d.io.files import atomic_path
from next3d.raster.shading import vertex_normals

ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
TYPES = {(): "SCALAR", (2,): "VEC2", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}
COMPONENTS = {"float32": 5126, "uint32": 5125, "uint16": 5123, "uint8": 5121}
SMALLEST = 2e-5  # metres: a corrective that nowhere moves more is left out
SKIN = (0.78, 0.60, 0.50, 1.0)


class Glb:
    """A glTF tree and its binary buffer in the making."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.tree: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": "next3d"},
            "bufferViews": [],
            "accessors": [],
        }

    def add(self, values: np.ndarray, *, target: int | None = None, bounds: bool = False) -> int:
        """Append an array; returns its accessor's index."""
        values = np.ascontiguousarray(values)
        self.data += bytes(-len(self.data) % 4)
        view: dict[str, Any] = {"buffer": 0, "byteOffset": len(self.data), "byteLength": values.nbytes}
        if target is not None:
            view["target"] = target
        self.data += values.tobytes()
        accessor: dict[str, Any] = {
            "bufferView": len(self.tree["bufferViews"]),
            "componentType": COMPONENTS[values.dtype.name],
            "count": len(values),
            "type": TYPES[values.shape[1:]],
        }
        if bounds:
            flat = values.reshape(len(values), -1)
            accessor |= {"min": flat.min(0).tolist(), "max": flat.max(0).tolist()}
        self.tree["bufferViews"].append(view)
        self.tree["accessors"].append(accessor)
        return len(self.tree["accessors"]) - 1

    def write(self, path: str | Path) -> None:
        """The binary container: header, JSON chunk, binary chunk, each padded to 4 bytes."""
        self.data += bytes(-len(self.data) % 4)
        self.tree["buffers"] = [{"byteLength": len(self.data)}]
        text = json.dumps(self.tree, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            file.write(struct.pack("<4sII", b"glTF", 2, 28 + len(text) + len(self.data)))
            file.write(struct.pack("<I4s", len(text), b"JSON") + text)
            file.write(struct.pack("<I4s", len(self.data), b"BIN\0") + self.data)


@torch.no_grad()
def write_glb(
    path: str | Path, head: HeadModel, params: HeadParams | None = None, motion: Motion | None = None
) -> None:
    """Write a head with its joints and morph targets.

    Args:
        path: ends in .glb
        params: a single head: its shape is baked in, its expression and pose are how the file opens
        motion: an animation; the shape stays that of ``params``

    Units are metres, y up, +z out of the face, as glTF wants them.
    """
    path = Path(path)
    if path.suffix.lower() != ".glb":
        raise InputError(f"cannot write {path}: the name ends in .glb")
    params = HeadParams() if params is None else params
    if params.batch_shape:
        raise InputError(f"a GLB holds one head, got a batch of {tuple(params.batch_shape)}")
    head = head.to("cpu")
    arrays = head.arrays()
    topology = head.topology
    # glTF has one index for positions and UVs: a vertex on a seam is stored once for each of its UVs.
    pairs = torch.stack([topology.faces.flatten(), topology.uv_faces.flatten()], -1)
    unique, index = pairs.unique(dim=0, return_inverse=True)
    vertex, uv = unique.T

    shaped = head(HeadParams(shape=params.shape))
    rest, joints = shaped.vertices[0], shaped.joints[0]
    normals = vertex_normals(rest[None], topology.faces)[0]

    targets: list[tuple[str, Tensor]] = list(zip(head.expression_names, arrays["expression_directions"]))
    pose_rows = [row for row in range(36) if arrays["pose_directions"][row].abs().max() > SMALLEST]
    targets += [(f"pose.{JOINTS[1 + row // 9]}.{row % 9}", arrays["pose_directions"][row]) for row in pose_rows]
    products = [] if head.corrective_pairs is None else head.corrective_pairs.tolist()
    for (first, second), direction in zip(products, arrays.get("corrective_directions", [])):
        targets.append((f"product.{head.expression_names[first]}.{head.expression_names[second]}", direction))

    def weights(of: HeadParams) -> np.ndarray:
        """(T, targets) morph weights of a batch."""
        of = of.reshape(-1)
        angles = torch.cat([of.neck, of.jaw, of.eyes], -1).unflatten(-1, (4, 3))
        bends = (matrix_from_axis_angle(angles) - torch.eye(3)).flatten(1)[:, pose_rows]
        amount = of.expression.clamp(0, 1)
        both = [amount[:, first] * amount[:, second] for first, second in products]
        return torch.cat([of.expression, bends, *(column[:, None] for column in both)], -1).numpy()

    glb = Glb()
    influence = arrays["weights"][vertex]  # (P, 5); glTF takes four joints a vertex
    strongest, which = influence.topk(4, dim=1)
    strongest = strongest / strongest.sum(1, keepdim=True)
    attributes = {
        "POSITION": glb.add(rest[vertex].numpy(), target=ARRAY_BUFFER, bounds=True),
        "NORMAL": glb.add(normals[vertex].numpy(), target=ARRAY_BUFFER),
        "TEXCOORD_0": glb.add(topology.uvs[uv].float().numpy(), target=ARRAY_BUFFER),
        "JOINTS_0": glb.add(np.where(strongest > 0, which, 0).astype(np.uint8), target=ARRAY_BUFFER),
        "WEIGHTS_0": glb.add(strongest.numpy(), target=ARRAY_BUFFER),
    }
    morphs = [
        {"POSITION": glb.add(direction[vertex].numpy(), target=ARRAY_BUFFER, bounds=True)} for _, direction in targets
    ]
    primitive = {
        "attributes": attributes,
        "indices": glb.add(index.numpy().astype(np.uint32), target=ELEMENT_ARRAY_BUFFER),
        "targets": morphs,
        "material": 0,
    }
    # Nodes: 0 the mesh, 1–5 the joints, each placed relative to its parent.
    offsets = joints.clone()
    for joint, parent in enumerate(head.parents):
        if parent >= 0:
            offsets[joint] -= joints[parent]
    angles = torch.cat([torch.zeros(3), params.neck, params.jaw, params.eyes]).view(5, 3)
    nodes: list[dict[str, Any]] = [{"name": f"{head.name} head", "mesh": 0, "skin": 0}]
    for joint, name in enumerate(JOINTS):
        node: dict[str, Any] = {"name": name, "translation": offsets[joint].tolist()}
        if joint:
            node["rotation"] = quaternions(angles[joint]).tolist()
        children = [1 + child for child, parent in enumerate(head.parents) if parent == joint]
        nodes.append(node | ({"children": children} if children else {}))
    inverse = torch.eye(4).repeat(5, 1, 1)
    inverse[:, 3, :3] = -joints  # glTF stores matrices column by column
    names = [name for name, _ in targets]
    glb.tree |= {
        "scene": 0,
        "scenes": [{"nodes": [0, 1]}],
        "nodes": nodes,
        "meshes": [
            {
                "name": "head",
                "primitives": [primitive],
                "weights": weights(params)[0].tolist(),
                "extras": {"targetNames": names},
            }
        ],
        "skins": [{"joints": [1, 2, 3, 4, 5], "skeleton": 1, "inverseBindMatrices": glb.add(inverse.numpy())}],
        "materials": [
            {
                "name": "skin",
                "pbrMetallicRoughness": {"baseColorFactor": SKIN, "metallicFactor": 0.0, "roughnessFactor": 0.6},
            }
        ],
    }
    if motion is not None:
        glb.tree["animations"] = [animation(glb, motion, weights(motion.params))]
    glb.write(path)


def animation(glb: Glb, motion: Motion, weights: np.ndarray) -> dict[str, Any]:
    """One glTF animation: the morph weights, and the rotations of the joints that move."""
    times = glb.add((np.arange(len(motion)) / motion.fps).astype(np.float32), bounds=True)
    samplers = [{"input": times, "output": glb.add(weights.reshape(-1)), "interpolation": "LINEAR"}]
    channels = [{"sampler": 0, "target": {"node": 0, "path": "weights"}}]
    params = motion.params
    for joint, angles in enumerate((params.neck, params.jaw, params.eyes[:, :3], params.eyes[:, 3:]), start=1):
        output = glb.add(quaternions(angles).numpy())
        channels.append({"sampler": len(samplers), "target": {"node": 1 + joint, "path": "rotation"}})
        samplers.append({"input": times, "output": output, "interpolation": "LINEAR"})
    return {"name": "motion", "samplers": samplers, "channels": channels}


def quaternions(axis_angle: Tensor) -> Tensor:
    """Axis-angle (..., 3) to unit quaternions (..., 4) in glTF's order x, y, z, w."""
    angle = axis_angle.norm(dim=-1, keepdim=True)
    return torch.cat([axis_angle * 0.5 * torch.sinc(angle / (2 * torch.pi)), (angle / 2).cos()], -1)
