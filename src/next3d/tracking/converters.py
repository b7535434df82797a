"""Parameter files of other tools → :class:`Motion`: DECA, SMIRK and VHAP.

All three trackers speak FLAME; a file is recognised by the names of its arrays, whatever its container (.npz, .npy
with a dictionary, .mat, .pkl, .pt), one file per clip or a folder of one per frame. Files are read as data: nothing in
them runs. Head pose becomes the camera, since a head of ours never turns as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from next3d.errors import InputError
from next3d.geometry.cameras import FOCAL, PIVOT, RADIUS, Camera
from next3d.geometry.rotations import matrix_from_axis_angle
from next3d.heads.params import LENGTHS, HeadParams, Motion
from next3d.io.safe_pickle import NUMPY, read_array, read_pickle, read_torch
from next3d.tracking.fit import camera_from_pose

# Tool: our name → the tool's names for it. "pose" is global rotation and jaw in one.
TOOLS: dict[str, dict[str, tuple[str, ...]]] = {
    "VHAP": {
        "shape": ("shape",),
        "expression": ("expr",),
        "rotation": ("rotation",),
        "neck": ("neck_pose",),
        "jaw": ("jaw_pose",),
        "eyes": ("eyes_pose",),
    },
    "SMIRK": {
        "shape": ("shape_params",),
        "expression": ("expression_params",),
        "rotation": ("pose_params",),
        "jaw": ("jaw_params",),
        "eyes": ("eye_pose_params",),
    },
    "DECA": {"shape": ("shape",), "expression": ("exp", "expression"), "pose": ("pose",)},
}
# The array that only this tool's files have.
MARKS = {"VHAP": "expr", "SMIRK": "expression_params", "DECA": "pose"}
SUFFIXES = (".npz", ".npy", ".mat", ".pkl", ".pt", ".pth")


def load_parameters(path: str | Path, *, fps: float = 25.0) -> Motion:
    """FLAME parameters written by DECA, SMIRK or VHAP as a motion.

    Args:
        path: a file, or a folder of one file per frame, taken in the order of their names.
        fps: none of the three says it.

    Raises:
        InputError: nothing readable there, or arrays that are none of the three tools'.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
        if not files:
            raise InputError(f"{path} holds no parameter files ({', '.join(SUFFIXES)})")
        motions = [motion_from_arrays(read_arrays(file), file, fps) for file in files]
        params = HeadParams.cat([motion.params for motion in motions])
        labels = [motion.camera.label for motion in motions if motion.camera is not None]
        camera = Camera.from_label(torch.cat(labels)) if len(labels) == len(motions) else None
        return Motion(params, fps, camera)
    return motion_from_arrays(read_arrays(path), path, fps)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Every numeric array of a file by name; nested dictionaries are opened."""
    if not path.is_file():
        raise InputError(f"there is no parameter file {path}")
    suffix = path.suffix.lower()
    try:
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files if file[name].dtype.kind in "fiu"}
        if suffix == ".mat":
            from scipy.io import loadmat

            return flatten({k: v for k, v in loadmat(path).items() if not k.startswith("__")})
        if suffix in (".pt", ".pth"):
            return flatten(read_torch(path))
        if suffix == ".pkl":
            return flatten(read_pickle(path, NUMPY))
        if suffix == ".npy":
            return flatten(read_array(path))
    except InputError:
        raise
    except (ValueError, OSError, KeyError, EOFError, TypeError) as error:
        raise InputError(f"{path} cannot be read as plain arrays: {str(error).splitlines()[0]}") from None
    raise InputError(f"{path}: parameter files end in {', '.join(SUFFIXES)}")


def flatten(value: Any) -> dict[str, np.ndarray]:
    """Numeric arrays of nested dictionaries, lists of dictionaries and 0-d object arrays, by their innermost name."""
    found: dict[str, list[np.ndarray]] = {}

    def visit(item: Any, name: str) -> None:
        if isinstance(item, Mapping):
            for key, inner in item.items():
                visit(inner, str(key))
        elif isinstance(item, np.ndarray) and item.dtype.kind == "O":
            for inner in item.ravel():
                visit(inner, name)
        elif isinstance(item, list | tuple) and item and isinstance(item[0], Mapping):
            for inner in item:
                visit(inner, name)
        elif isinstance(item, Tensor):
            visit(item.detach().float().numpy(), name)
        elif isinstance(item, np.ndarray | list | tuple):
            array = np.asarray(item)
            if array.dtype.kind in "fiu":
                found.setdefault(name, []).append(array)

    visit(value, "")
    return {name: arrays[0] if len(arrays) == 1 else stack(arrays) for name, arrays in found.items()}


def stack(arrays: list[np.ndarray]) -> np.ndarray:
    """Per-frame arrays (k,) or (1, k) as (T, k)."""
    return np.concatenate([array.reshape(-1, array.shape[-1] if array.ndim else 1) for array in arrays])


def motion_from_arrays(arrays: Mapping[str, np.ndarray], path: Path, fps: float) -> Motion:
    """Name a tool's arrays as ours, cut or filled to our lengths."""
    tool = next((tool for tool, mark in MARKS.items() if mark in arrays), None)
    if tool is None:
        raise InputError(
            f"{path} holds {', '.join(sorted(arrays)[:6]) or 'no arrays'}: not parameters of DECA, SMIRK or VHAP"
        )
    values: dict[str, Tensor] = {}
    for name, theirs in TOOLS[tool].items():
        key = next((key for key in theirs if key in arrays), None)
        if key is not None:
            array = np.asarray(arrays[key], np.float32)
            values[name] = torch.from_numpy(array.reshape(-1, array.shape[-1] if array.ndim else 1).copy())
    if "pose" in values:
        pose = values.pop("pose")
        if pose.shape[1] != 6:
            raise InputError(f"{path}: DECA's pose has 6 numbers (head and jaw), this one has {pose.shape[1]}")
        values["rotation"], values["jaw"] = pose[:, :3], pose[:, 3:]
    frames = max(len(value) for value in values.values())
    for name, value in values.items():
        if len(value) not in (1, frames):
            raise InputError(f"{path}: '{name}' has {len(value)} frames, the others have {frames}")
        if not torch.isfinite(value).all():
            raise InputError(f"{path}: '{name}' holds NaN or infinity")
    rotation = values.pop("rotation", None)
    fields = {name: fit_length(value, LENGTHS[name]).expand(frames, -1) for name, value in values.items()}
    camera = None if rotation is None else camera_from_head_rotation(rotation.expand(frames, 3))
    return Motion(HeadParams(**fields), fps, camera)


def fit_length(value: Tensor, length: int) -> Tensor:
    """(T, k) cut or filled with zeros to (T, length): tools use more or fewer components of the same bases."""
    value = value[:, :length]
    return torch.nn.functional.pad(value, (0, length - value.shape[1]))


def camera_from_head_rotation(rotation: Tensor) -> Camera:
    """Cameras (T,) that see a still head as a still camera sees a head turned by axis-angles (T, 3).

    The trackers' camera looks along −z at a head with y up; ours is at the usual distance from the pivot.
    """
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    world2cam = flip @ matrix_from_axis_angle(rotation)  # (T, 3, 3)
    pivot = torch.tensor(PIVOT)
    translation = torch.tensor([0.0, 0.0, RADIUS - PIVOT[2]]) - (world2cam @ pivot[:, None])[..., 0]
    return camera_from_pose(world2cam, translation, FOCAL)
