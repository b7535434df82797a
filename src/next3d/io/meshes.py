"""Mesh files: OBJ in, OBJ, PLY and GLB with vertex colours out; and text files of landmarks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from next3d.errors import InputError
from next3d.io.files import atomic_path

SUFFIXES = (".obj", ".ply", ".glb")


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh on its own, as files hold it.

    Attributes:
        vertices: (V, 3) float32
        faces: (F, 3) int64 vertex indices, counter-clockwise seen from outside
        colors: (V, 3) float in [0, 1], sRGB, or None
        uvs: (T, 2) float32 in [0, 1], origin top-left of the texture image, u right, v down, or None
        uv_faces: (F, 3) int64 indices into ``uvs``, or None
    """

    vertices: Tensor
    faces: Tensor
    colors: Tensor | None = None
    uvs: Tensor | None = None
    uv_faces: Tensor | None = None

    def export(self, path: str | Path) -> None:
        """Write the mesh; see :func:`write_mesh`."""
        write_mesh(path, self)


def read_obj(path: str | Path, *, require_uvs: bool = False) -> Mesh:
    """Read vertices, faces and UVs of a Wavefront OBJ file; vertex order is kept, polygons become fans of triangles.

    Groups, materials, normals and every other statement are passed over. A file in which only some faces have UVs
    counts as one without.

    Raises:
        InputError: for a file that cannot be read, a statement that makes no sense (with its line), vertices that are
            not finite, indices out of range, no faces, or, with ``require_uvs``, no UVs.
    """
    path = Path(path)
    vertices: list[list[float]] = []
    uvs: list[list[float]] = []
    faces: list[tuple[int, int, int]] = []
    uv_faces: list[tuple[int, int, int]] = []
    textured = True
    try:
        # Only the first fields are read, and they are ASCII; names in other encodings must not stop the reading.
        with open(path, encoding="ascii", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                fields = line.split()
                if not fields or fields[0] not in ("v", "vt", "f"):
                    continue
                try:
                    if fields[0] == "v":
                        x, y, z = fields[1:4]
                        vertices.append([float(x), float(y), float(z)])
                    elif fields[0] == "vt":
                        u, v = fields[1:3]
                        uvs.append([float(u), 1 - float(v)])  # OBJ counts v from the bottom of the image
                    else:
                        corners = [corner.split("/") for corner in fields[1:]]
                        fan = _fan([_index(corner[0], len(vertices)) for corner in corners])
                        faces += fan
                        if textured and all(len(corner) > 1 and corner[1] for corner in corners):
                            uv_faces += _fan([_index(corner[1], len(uvs)) for corner in corners])
                        else:
                            textured = False
                except ValueError:
                    raise InputError(
                        f"{path}, line {number}: cannot read '{line.strip()[:60]}' as an OBJ statement"
                    ) from None
    except OSError as error:
        raise InputError(f"cannot read the mesh {path}: {error.strerror or error}") from error
    if not faces:
        raise InputError(f"{path} holds {len(vertices)} vertices and no faces: expected a Wavefront OBJ mesh")
    if require_uvs and not textured:
        raise InputError(f"{path} has faces without UVs (f v/vt …): export the mesh with texture coordinates")
    mesh = Mesh(*_checked(path, "vertex", vertices, faces))
    return replace(mesh, **dict(zip(("uvs", "uv_faces"), _checked(path, "UV", uvs, uv_faces)))) if textured else mesh


def _index(field: str, count: int) -> int:
    """An OBJ index (from 1, or negative from the latest) as one from 0; what is out of range stays out of range."""
    index = int(field)
    if index == 0:
        raise ValueError
    return index - 1 if index > 0 else max(count + index, -1)


def _fan(polygon: list[int]) -> list[tuple[int, int, int]]:
    if len(polygon) < 3:
        raise ValueError
    return [(polygon[0], second, third) for second, third in pairwise(polygon[1:])]


def _checked(path: Path, what: str, values: list, faces: list) -> tuple[Tensor, Tensor]:
    """Values and the triangles that index them as tensors, if every index exists and every value is finite."""
    table, index = torch.tensor(values), torch.tensor(faces)
    missing = ((index < 0) | (index >= len(values))).any(1).nonzero()
    if len(missing):
        raise InputError(
            f"{path}: triangle {int(missing[0]) + 1} names a {what} that does not exist (of {len(values)})"
        )
    infinite = (~table.isfinite()).any(1).nonzero()
    if len(infinite):
        raise InputError(f"{path}: {what} {int(infinite[0]) + 1} is not finite")
    return table, index


def read_landmarks(path: str | Path, count: int = 68) -> Tensor:
    """Read a text file of 3D landmarks: three numbers a line, separated by spaces or commas; ``#`` starts a comment.

    Returns:
        (count, 3) float32, in the file's own frame: metres, head frame, for a mesh of a head model.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"cannot read the landmarks {path}: {error.strerror or error}") from error
    rows = [line.partition("#")[0].replace(",", " ").split() for line in text.splitlines()]
    try:
        landmarks = np.array([[float(field) for field in row] for row in rows if row], np.float32)
    except ValueError:
        raise InputError(f"{path} is no list of landmarks: expected {count} lines of three numbers") from None
    if landmarks.shape != (count, 3):
        raise InputError(f"{path} holds numbers of shape {landmarks.shape}: expected {count} lines of three numbers")
    if not np.isfinite(landmarks).all():
        raise InputError(f"{path} holds landmarks that are not finite")
    return torch.from_numpy(landmarks)


def write_mesh(path: str | Path, mesh: Mesh) -> None:
    """Write OBJ, PLY or GLB, chosen by the suffix, with vertex colours if the mesh has any. UVs are not written.

    OBJ and PLY hold sRGB colours. glTF colours are linear by its specification and are converted; the material is
    unlit, so that a viewer shows the colours themselves.
    """
    import trimesh

    path = check_mesh_suffix(path)
    colors = None if mesh.colors is None else mesh.colors.detach().cpu().double().clamp(0, 1).numpy()
    if colors is not None and path.suffix.lower() == ".glb":
        colors = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    exported = trimesh.Trimesh(
        mesh.vertices.detach().cpu().numpy(),
        mesh.faces.detach().cpu().numpy(),
        vertex_colors=None if colors is None else np.rint(colors * 255).astype(np.uint8),
        process=False,  # keep every vertex and its order
    )
    kind = path.suffix.lower()[1:]
    options: dict[str, Any] = {"tree_postprocessor": _unlit} if kind == "glb" and colors is not None else {}
    data: Any = exported.export(file_type=kind, **options)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def check_mesh_suffix(path: str | Path) -> Path:
    """Return ``path`` if :func:`write_mesh` knows its suffix; raise :class:`InputError` if not."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"cannot write a mesh as '{path.name}': give a name that ends in {', '.join(SUFFIXES)}")
    return path


def _unlit(tree: dict[str, Any]) -> None:
    """Give every part of a glTF file one material without lighting."""
    material = {"pbrMetallicRoughness": {"metallicFactor": 0, "roughnessFactor": 1}}
    tree["materials"] = [{**material, "extensions": {"KHR_materials_unlit": {}}}]
    tree["extensionsUsed"] = sorted({*tree.get("extensionsUsed", []), "KHR_materials_unlit"})
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            primitive["material"] = 0
