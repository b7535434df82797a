"""ARKit's 52 blendshape coefficients, the lingua franca of face capture, and what they mean for a head."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from next3d.errors import InputError

if TYPE_CHECKING:
    from next3d.heads.head_model import HeadModel
    from next3d.heads.params import Motion

# The order of Apple's ARFaceAnchor.BlendShapeLocation documentation.
ARKIT_NAMES = (
    "eyeBlinkLeft",
    "eyeLookDownLeft",
    "eyeLookInLeft",
    "eyeLookOutLeft",
    "eyeLookUpLeft",
    "eyeSquintLeft",
    "eyeWideLeft",
    "eyeBlinkRight",
    "eyeLookDownRight",
    "eyeLookInRight",
    "eyeLookOutRight",
    "eyeLookUpRight",
    "eyeSquintRight",
    "eyeWideRight",
    "jawForward",
    "jawLeft",
    "jawRight",
    "jawOpen",
    "mouthClose",
    "mouthFunnel",
    "mouthPucker",
    "mouthLeft",
    "mouthRight",
    "mouthSmileLeft",
    "mouthSmileRight",
    "mouthFrownLeft",
    "mouthFrownRight",
    "mouthDimpleLeft",
    "mouthDimpleRight",
    "mouthStretchLeft",
    "mouthStretchRight",
    "mouthRollLower",
    "mouthRollUpper",
    "mouthShrugLower",
    "mouthShrugUpper",
    "mouthPressLeft",
    "mouthPressRight",
    "mouthLowerDownLeft",
    "mouthLowerDownRight",
    "mouthUpperUpLeft",
    "mouthUpperUpRight",
    "browDownLeft",
    "browDownRight",
    "browInnerUp",
    "browOuterUpLeft",
    "browOuterUpRight",
    "cheekPuff",
    "cheekSquintLeft",
    "cheekSquintRight",
    "noseSneerLeft",
    "noseSneerRight",
    "tongueOut",
)

JAW_OPEN = math.radians(27.0)  # the jaw's angle at jawOpen = 1
# The eye's angle at eyeLook… = 1, about x (+ down) and y (+ to the subject's left).
LOOK_UP, LOOK_DOWN, LOOK_SIDE = math.radians(25.0), math.radians(30.0), math.radians(32.0)

JAW, LEFT_EYE, RIGHT_EYE = 50, 53, 56  # columns of the (52, 59) matrix: expression, jaw, eyes
JOINT_COLUMNS = {
    "jawOpen": (JAW, JAW_OPEN),
    "eyeLookUpLeft": (LEFT_EYE, -LOOK_UP),
    "eyeLookDownLeft": (LEFT_EYE, LOOK_DOWN),
    "eyeLookOutLeft": (LEFT_EYE + 1, LOOK_SIDE),
    "eyeLookInLeft": (LEFT_EYE + 1, -LOOK_SIDE),
    "eyeLookUpRight": (RIGHT_EYE, -LOOK_UP),
    "eyeLookDownRight": (RIGHT_EYE, LOOK_DOWN),
    "eyeLookOutRight": (RIGHT_EYE + 1, -LOOK_SIDE),
    "eyeLookInRight": (RIGHT_EYE + 1, LOOK_SIDE),
}


def arkit_from_names(expression_names: Sequence[str]) -> Tensor:
    """(52, 59): the map of a head whose expressions carry ARKit's names; jawOpen and eyeLook… turn joints.

    A head may also have an expression of a joint's name (lids that follow the gaze): then it takes the coefficient too.
    """
    matrix = torch.zeros(52, 59)
    for column, name in enumerate(expression_names):
        if name in ARKIT_NAMES:
            matrix[ARKIT_NAMES.index(name), column] = 1
    for name, (column, angle) in JOINT_COLUMNS.items():
        matrix[ARKIT_NAMES.index(name), column] = angle
    return matrix


def read_arkit_csv(path: str | Path, head: HeadModel, *, fps: float = 60.0) -> Motion:
    """A recording of ARKit coefficients as a motion of ``head``: one row a frame, as Apple's Live Link Face writes.

    The header names the coefficients. HeadPitch, HeadYaw and HeadRoll (radians) turn the neck, taken as + up, + to the
    subject's left and + towards the right shoulder. Other columns are passed over. Such recordings run at 60 frames a
    second.

    Raises:
        InputError: no such file, or no table of coefficients.
    """
    from next3d.heads.params import Motion

    path = Path(path)
    try:
        with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
            header, *rows = [row for row in csv.reader(file) if row]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} is not a readable table of ARKit coefficients: {error}") from None
    names = {name.strip().lower(): column for column, name in enumerate(header)}
    found = [name for name in ARKIT_NAMES if name.lower() in names]
    if not found or not rows:
        raise InputError(
            f"{path} holds no ARKit coefficients: its first line must name them (eyeBlinkLeft, jawOpen, …)"
        )

    def column(name: str) -> np.ndarray:
        try:
            return np.array([float(row[names[name.lower()]]) for row in rows])
        except (ValueError, IndexError):
            raise InputError(f"{path}: the column '{name}' does not hold a number in every row") from None

    turns = [column(n) if n.lower() in names else np.zeros(len(rows)) for n in ("HeadPitch", "HeadYaw", "HeadRoll")]
    params = head.from_arkit({name: column(name) for name in found})
    neck = torch.from_numpy(np.stack([-turns[0], turns[1], -turns[2]], -1)).float()
    return Motion(params.replace(neck=neck), fps)


def arkit_coefficients(given: Mapping[str, Any] | Tensor | np.ndarray | Sequence[float]) -> Tensor:
    """Coefficients as a float32 tensor (..., 52), from named values (missing ones: 0) or an array in ARKit's order."""
    if isinstance(given, Mapping):
        lower = {name.lower(): name for name in ARKIT_NAMES}
        values: dict[str, Tensor] = {}
        for name, value in given.items():
            if name == "_neutral":  # MediaPipe's 53rd: no blendshape
                continue
            key = lower.get(re.sub("_l$", "left", re.sub("_r$", "right", str(name).lower())))  # or mouthSmile_L
            if key is None:
                raise InputError(f"'{name}' is not one of ARKit's 52 blendshapes (eyeBlinkLeft, jawOpen, …)")
            values[key] = torch.as_tensor(np.asarray(value), dtype=torch.float32)
        try:
            shape = np.broadcast_shapes(*(value.shape for value in values.values()))
        except ValueError as error:
            raise InputError(f"the coefficients' shapes do not fit together: {error}") from None
        zero = torch.zeros(shape)
        result = torch.stack([values.get(name, zero).expand(shape) for name in ARKIT_NAMES], -1)
    else:
        result = torch.as_tensor(given if isinstance(given, Tensor) else np.asarray(given)).float()
        if result.ndim == 0 or result.shape[-1] != 52:
            raise InputError(
                f"ARKit coefficients are 52 numbers in the last dimension, got shape {tuple(result.shape)}"
            )
    if not torch.isfinite(result).all():
        raise InputError("ARKit coefficients hold NaN or infinity")
    return result
