"""FLAME (Li et al. 2017) from a user's own files, 2019 to 2023; nothing in them is executed.

FLAME's files are behind a licence form at https://flame.is.tue.mpg.de (register, then Download). A folder holds:

* the model: ``flame2023.pkl``, ``generic_model.pkl`` (FLAME 2019 and 2020) or an ``.npz`` with the same arrays;
* UVs: ``FLAME_texture.npz`` ("Texture space"), or a template OBJ with UVs such as ``head_template_mesh.obj``;
* the moving region: ``FLAME_masks.pkl`` ("Vertex masks"), or DECA's ``uv_face_eye_mask.png``;
* landmarks: ``flame_static_embedding.pkl`` with ``flame_dynamic_embedding.npy``, or DECA's ``landmark_embedding.npy``;
* optionally ``mediapipe_landmark_embedding.npz`` ("MediaPipe landmark embedding").

They may also lie in subfolders, as archives unpack them.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from next3d.errors import InputError
from next3d.heads.head_model import HeadModel
from next3d.heads.params import HeadParams
from next3d.io.images import read_image
from next3d.io.meshes import read_obj
from next3d.io.safe_pickle import (
    NUMPY,
    Global,
    Record,
    Vocabulary,
    as_array,
    checked_key,
    dictionary,
    read_array,
    read_array_stream,
    read_pickle,
)
from next3d.raster import interpolate, rasterize

PAGE = "https://flame.is.tue.mpg.de"
MODEL_FILES = ("flame2023.pkl", "flame2023_no_jaw.pkl", "generic_model.pkl", "FLAME_NEUTRAL.pkl")
SHAPES, EXPRESSIONS = 100, 50  # of FLAME's 300 and 100, the leading ones, as DECA and Next3D use them

# Models of the same family, by their number of joints.
FAMILY = {16: "MANO, a hand", 24: "SMPL, a body", 35: "SMAL, an animal", 52: "SMPL+H, a body", 55: "SMPL-X, a body"}


def set_of(values: Sequence[Any] = ()) -> set:
    return {checked_key(value) for value in values}


def empty_bytes() -> bytes:
    return b""


def reconstruct(kind: Any, *args: Any) -> Record:
    """``copyreg._reconstructor`` and ``copyreg.__newobj__``: an object of ``kind`` whose state follows."""
    if not isinstance(kind, Global):
        raise InputError("an object of no class")
    return Record(kind.name, args)


# Python 2 wrote chumpy arrays and scipy matrices; everything of those packages becomes an inert record.
FLAME = NUMPY | Vocabulary(
    {
        **{
            f"{module}.{name}": reconstruct
            for module in ("copy_reg", "copyreg")
            for name in ("_reconstructor", "__newobj__")
        },
        **{f"{module}.object": None for module in ("__builtin__", "builtins")},
        **{f"{module}.set": set_of for module in ("__builtin__", "builtins")},
        **{f"{module}.bytes": empty_bytes for module in ("__builtin__", "builtins")},
        "collections.OrderedDict": dictionary,
    },
    records=r"(chumpy|scipy\.sparse)(\.\w+)+",
)


def load_flame(path: str | Path) -> HeadModel:
    """A FLAME head from its model file or the folder with all files (see this module's text).

    Raises:
        InputError: a missing file (named, with its use and the page it comes from), a damaged one, one that asks for
            anything but data, or a file of another model (SMPL, SMPL-X, …).
    """
    path = Path(path)
    model, folder = (find_model(path), path) if path.is_dir() else (path, path.parent)
    arrays = read_model(model)
    faces = arrays["faces"]
    uvs, uv_faces = read_uvs(folder, faces)
    arrays |= {"uvs": uvs, "uv_faces": uv_faces, "face_mask": read_face_mask(folder, faces, uvs, uv_faces)}
    arrays |= read_landmark_embedding(folder)
    arrays |= iris_embedding(arrays)
    arrays |= read_mediapipe_embedding(folder)
    arrays |= mirror_maps(arrays)
    head = HeadModel.from_arrays(arrays, name=version_name(model))
    arrays["arkit"] = fit_arkit(head)
    return HeadModel.from_arrays(arrays, name=head.name)


def find_model(folder: Path) -> Path:
    for name in MODEL_FILES:
        found = find(folder, name)
        if found:
            return found
    candidates = sorted(
        file for pattern in ("*FLAME*.npz", "*flame*.npz", "generic_model.npz") for file in folder.rglob(pattern)
    )
    candidates = [file for file in candidates if "texture" not in file.name.lower()]
    if candidates:
        return candidates[0]
    raise missing(folder, "generic_model.pkl (or flame2023.pkl)", "the head model itself", "FLAME 2020 or 2023")


def find(folder: Path, *names: str) -> Path | None:
    """The first of ``names`` in the folder or below it."""
    for name in names:
        direct = folder / name
        if direct.is_file():
            return direct
        below = sorted(folder.rglob(name))
        if below:
            return below[0]
    return None


def missing(folder: Path, name: str, purpose: str, download: str) -> InputError:
    return InputError(
        f"{folder} lacks {name}, which gives {purpose}: download '{download}' at {PAGE} and put the file there"
    )


def version_name(model: Path) -> str:
    """ "flame2020" and its like, by the names of the file and its folder."""
    year = re.search(r"20(19|20|23)", model.name) or re.search(r"20(19|20|23)", model.parent.name)
    return f"flame{year[0]}" if year else "flame"


def read_npz(path: Path) -> dict[str, Any]:
    """The arrays of an ``.npz``, object arrays through the restricted reader."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > 2**31:
                raise InputError("it unfolds to more than 2 GiB")
            return {
                name.removesuffix(".npy"): read_array_stream(io.BytesIO(archive.read(name)), FLAME)
                for name in archive.namelist()
            }
    except (zipfile.BadZipFile, InputError, OSError, EOFError, NotImplementedError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def read_model(path: Path) -> dict[str, Any]:
    """The arrays of FLAME's equation under the names of :mod:`next3d.heads.head_model`."""
    if path.suffix == ".npz":
        content = read_npz(path)
    else:
        content = read_pickle(path, FLAME)
    if not isinstance(content, Mapping):
        raise InputError(f"{path} is not a FLAME model: it holds no dictionary")

    def numbers(name: str) -> np.ndarray:
        try:
            array = as_array(content[name], name)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        if not np.isfinite(array).all():
            raise InputError(f"{path} is damaged: '{name}' holds NaN or infinity")
        return array

    tree = numbers("kintree_table") if content.get("kintree_table") is not None else np.zeros(0)
    joints = tree.shape[-1] if tree.ndim == 2 else 0
    if joints != 5:
        what = f"{FAMILY.get(joints, f'a model with {joints} joints')}" if joints else "something else"
        raise InputError(f"{path} is not a FLAME model but {what}: a FLAME head has 5 joints; get it at {PAGE}")
    arrays: dict[str, np.ndarray] = {}
    for name in ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "f"):
        if name not in content:
            raise InputError(f"{path} is not a whole FLAME model: it lacks '{name}'")
        arrays[name] = numbers(name)
    count = arrays["v_template"].size // 3
    expected: dict[str, tuple[int, ...]] = {
        "v_template": (count, 3),
        "posedirs": (count, 3, 36),
        "J_regressor": (5, count),
        "weights": (count, 5),
    }
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise InputError(f"{path} is damaged: '{name}' has shape {arrays[name].shape}, expected {shape}")
    shapes = arrays["shapedirs"]
    if shapes.ndim != 3 or shapes.shape[:2] != (count, 3) or shapes.shape[2] < 300 + EXPRESSIONS:
        raise InputError(
            f"{path}: 'shapedirs' has shape {shapes.shape}, expected ({count}, 3, 400): 300 shapes and 100 expressions"
        )
    faces = arrays["f"]
    if faces.ndim != 2 or faces.shape[1] != 3 or not faces.size or faces.min() < 0 or faces.max() >= count:
        raise InputError(f"{path} is damaged: 'f' does not hold triangles of its {count} vertices")
    parents = tree[0].astype(np.int64)
    parents[0] = -1  # FLAME stores 2³² − 1
    return {
        "template": arrays["v_template"],
        "shape_directions": np.moveaxis(shapes[..., :SHAPES], 2, 0),
        "expression_directions": np.moveaxis(shapes[..., 300 : 300 + EXPRESSIONS], 2, 0),
        "pose_directions": np.moveaxis(arrays["posedirs"], 2, 0),
        "joint_regressor": arrays["J_regressor"],
        "weights": arrays["weights"],
        "parents": parents,
        "faces": faces.astype(np.int64),
    }


def read_uvs(folder: Path, faces: np.ndarray) -> tuple[Any, Any]:
    """UVs (T, 2), origin top-left, and the faces' indices into them."""
    texture = find(folder, "FLAME_texture.npz", "FLAME_albedo_from_BFM.npz")
    if texture:
        content = read_npz(texture)
        if "vt" in content and "ft" in content:
            uvs = as_array(content["vt"], "vt").astype(np.float32)
            return np.stack([uvs[:, 0], 1 - uvs[:, 1]], -1), as_array(content["ft"], "ft").astype(np.int64)
    for pattern in ("head_template_mesh.obj", "head_template.obj", "*template*.obj", "*.obj"):
        for file in sorted(folder.rglob(pattern)):
            mesh = read_obj(file)
            if mesh.uvs is not None and mesh.faces.shape == faces.shape and np.array_equal(mesh.faces.numpy(), faces):
                return mesh.uvs, mesh.uv_faces
    raise missing(folder, "FLAME_texture.npz (or a template OBJ with UVs)", "the UVs of the mesh", "Texture space")


def read_face_mask(folder: Path, faces: np.ndarray, uvs: Any, uv_faces: Any) -> Tensor:
    """(256, 256), 1 on the UV region of face and eyes."""
    picture = find(folder, "uv_face_eye_mask.png")
    if picture:
        mask = torch.from_numpy(read_image(picture)[..., 0].astype(np.float32)) / 255
        if mask.shape != (256, 256):
            mask = torch.nn.functional.interpolate(mask[None, None], (256, 256), mode="area")[0, 0]
        return mask
    regions = find(folder, "FLAME_masks.pkl")
    if regions is None:
        raise missing(
            folder, "FLAME_masks.pkl (or uv_face_eye_mask.png)", "the region that moves: face and eyes", "Vertex masks"
        )
    content = read_pickle(regions, FLAME)
    names = ("face", "left_eyeball", "right_eyeball", "eye_region")
    if not isinstance(content, Mapping) or "face" not in content:
        raise InputError(f"{regions} is not FLAME's file of vertex masks: it names no region 'face'")
    inside = torch.zeros(int(faces.max()) + 1, 1)
    for name in names:
        if name in content:
            inside[torch.from_numpy(as_array(content[name], name).astype(np.int64))] = 1
    screen = torch.as_tensor(uvs).float() * 2 - 1
    screen = torch.cat([screen, torch.zeros(len(screen), 1)], -1)[None]
    fragments = rasterize(screen, torch.as_tensor(uv_faces), 256)
    return (interpolate(fragments, inside[None], torch.as_tensor(faces))[0, ..., 0] > 0.5).float()


def read_landmark_embedding(folder: Path) -> dict[str, Any]:
    """Places of the 51 inner landmarks and of the contour for each of 79 yaws."""
    together = find(folder, "landmark_embedding.npy", "landmark_embedding_with_eyes.npy")
    if together:
        content = read_array(together)
        keys = [f"{kind}_lmk_{what}" for kind in ("static", "dynamic") for what in ("faces_idx", "bary_coords")]
    else:
        static = find(folder, "flame_static_embedding.pkl", "flame_static_embedding_68.pkl")
        if static is None:
            raise missing(
                folder,
                "flame_static_embedding.pkl (or landmark_embedding.npy)",
                "the places of the landmarks",
                "Landmarks",
            )
        dynamic = find(folder, "flame_dynamic_embedding.npy")
        if dynamic is None:
            raise missing(folder, "flame_dynamic_embedding.npy", "the landmarks of the face contour", "Landmarks")
        parts = read_pickle(static, FLAME), read_array(dynamic)
        content, together = {}, static
        for kind, part in zip(("static", "dynamic"), parts):
            if isinstance(part, Mapping):
                content |= {f"{kind}.{key}": value for key, value in part.items()}
        keys = [f"{kind}.{key}" for kind in ("static", "dynamic") for key in ("lmk_face_idx", "lmk_b_coords")]
    absent = [key for key in keys if not isinstance(content, Mapping) or key not in content]
    if absent:
        raise InputError(f"{together} is not a landmark embedding of FLAME: it lacks '{absent[0]}'")
    faces, barycentric, contour_faces, contour_barycentric = (stacked(content[key], key) for key in keys)
    if faces.size < 51 or contour_faces.ndim != 2 or contour_faces.shape[1] != 17:
        raise InputError(f"{together} is not a landmark embedding of FLAME: {faces.shape}, {contour_faces.shape}")
    faces, barycentric = faces.reshape(-1)[-51:], barycentric.reshape(-1, 3)[-51:]
    # Bin b of FLAME's contour is a turn of −b degrees up to 39, then of b − 39 degrees.
    bins = np.arange(len(contour_faces))
    return {
        "landmark_faces": np.concatenate([contour_faces[0], faces]).astype(np.int64),
        "landmark_barycentric": np.concatenate([contour_barycentric[0], barycentric]),
        "contour_faces": contour_faces.astype(np.int64),
        "contour_barycentric": contour_barycentric,
        "contour_yaws": np.where(bins <= 39, -bins, bins - 39) * (math.pi / 180),
    }


def stacked(value: Any, name: str) -> np.ndarray:
    """An array, or a list of arrays of one shape, as one array."""
    if isinstance(value, np.ndarray) and value.dtype == object:
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return np.stack([stacked(part, name) for part in value])
    return as_array(value, name)


def iris_embedding(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The iris's centre is the foremost vertex that belongs to an eye's joint alone."""
    faces, places, barycentric = arrays["faces"], [], []
    for joint in (3, 4):
        ball = np.flatnonzero(arrays["weights"][:, joint] > 0.99)
        if not len(ball):
            raise InputError(f"a FLAME model whose joint {joint} moves no vertex: it should be an eyeball")
        centre = ball[arrays["template"][ball, 2].argmax()]
        face, corner = np.argwhere(faces == centre)[0]
        places.append(face)
        barycentric.append(np.eye(3)[corner])
    return {"iris_faces": np.array(places), "iris_barycentric": np.stack(barycentric)}


def read_mediapipe_embedding(folder: Path) -> dict[str, Any]:
    """Places of MediaPipe's landmarks; FLAME's authors give 105 of the 478."""
    path = find(folder, "mediapipe_landmark_embedding.npz")
    if path is None:
        return {}
    content = read_npz(path)
    keys = ("landmark_indices", "lmk_face_idx", "lmk_b_coords")
    if not set(keys) <= set(content):
        raise InputError(f"{path} is not a MediaPipe embedding of FLAME: expected {', '.join(keys)}")
    index, faces, barycentric = (as_array(content[key], key) for key in keys)
    all_faces, all_barycentric = np.full(478, -1), np.zeros((478, 3))
    all_faces[index.astype(np.int64)] = faces
    all_barycentric[index.astype(np.int64)] = barycentric
    return {"mediapipe_faces": all_faces, "mediapipe_barycentric": all_barycentric}


def mirror_maps(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Mirrored parameters by least squares: each vertex's mirror image is the vertex nearest to its place.

    FLAME's mesh is symmetric but its statistics are not, so a mirrored head is only nearly in its space.
    """
    from scipy.spatial import cKDTree

    flip = np.array([-1.0, 1.0, 1.0])
    template = np.asarray(arrays["template"], np.float64)
    image = cKDTree(template).query(template * flip)[1]
    maps = {}
    for kind in ("shape", "expression"):
        basis = np.asarray(arrays[f"{kind}_directions"], np.float64)  # (K, V, 3)
        mirrored = basis[:, image] * flip
        flat = basis.reshape(len(basis), -1).T
        maps[f"{kind}_mirror"] = np.linalg.lstsq(flat, mirrored.reshape(len(basis), -1).T, rcond=1e-6)[0]
    return {"mirror_vertices": image, **maps}


def fit_arkit(head: HeadModel, *, precision: float = 1e-3, prior: float = 0.3) -> Tensor:
    """(52, 59): ARKit's blendshapes for a FLAME head, from the built-in head's.

    For each blendshape the landmarks of the built-in head move, brought to this head's size; FLAME's expressions (and
    for jawLeft and jawRight its jaw) follow in the least-squares sense.

    Args:
        precision: metres, the error that weighs as much as a coefficient of ``prior⁻¹`` standard deviations
        prior: pulls coefficients to zero
    """
    from next3d.heads import load_head
    from next3d.heads.arkit import ARKIT_NAMES, JAW, JOINT_COLUMNS

    builtin = load_head("builtin")
    matrix = builtin.arkit.clone()
    matrix[:, :JAW] = 0

    def landmarks(model: HeadModel, params: HeadParams) -> Tensor:
        vertices = model(params).vertices
        points = [model.points(vertices, model.landmark_faces, model.landmark_barycentric)]
        if model.mediapipe and builtin.mediapipe and head.mediapipe:
            known = (head.mediapipe[0] >= 0) & (builtin.mediapipe[0] >= 0)
            points.append(model.points(vertices, model.mediapipe[0][known], model.mediapipe[1][known]))
        return torch.cat(points, 1)

    def moves(model: HeadModel, params: HeadParams) -> Tensor:
        """(K, P·3) displacements in units of the distance between the outer eye corners."""
        rest = landmarks(model, HeadParams())
        width = (rest[0, 36] - rest[0, 45]).norm()
        return ((landmarks(model, params) - rest) / width).flatten(1)

    # Only expressions move here: jaw and eyes are joints in both heads.
    asked = moves(builtin, HeadParams(expression=builtin.arkit[:, :JAW]))  # (52, P·3)
    possible = moves(head, HeadParams(expression=torch.eye(EXPRESSIONS)))  # (50, P·3)
    rest = landmarks(head, HeadParams())[0]
    tolerance = precision / float((rest[36] - rest[45]).norm())
    system = torch.cat([possible.T / tolerance, prior * math.sqrt(len(rest)) * torch.eye(EXPRESSIONS)]).double()
    target = torch.cat([asked.T / tolerance, torch.zeros(EXPRESSIONS, len(asked))]).double()
    matrix[:, :JAW] = torch.linalg.lstsq(system, target).solution.T.float()
    matrix[[ARKIT_NAMES.index(name) for name in JOINT_COLUMNS], :JAW] = 0
    for name, sign in (("jawLeft", 1.0), ("jawRight", -1.0)):  # the jaw's joint can do these itself
        matrix[ARKIT_NAMES.index(name)] = 0
        matrix[ARKIT_NAMES.index(name), JAW + 1] = sign * math.radians(7)
    return matrix
