"""Expression, lids, gaze, jaw and camera of one picture, drawn at random and correlated with nothing.

FFHQ has the bias that people who face the camera smile (paper, B.3); ``bias`` brings it in on request.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from next3d.geometry.cameras import Camera
from next3d.heads import HeadParams
from next3d.heads.head_model import HeadModel

YAW, PITCH, ROLL = np.radians(60), np.radians(30), np.radians(20)  # the camera stays within ± these
GAZE_SIDE, GAZE_UP = np.radians(28), np.radians(17)

# Faces that people make, in ARKit's coefficients; one-sided names stand for both sides.
FACES: tuple[dict[str, float], ...] = (
    {"mouthSmile": 0.8, "cheekSquint": 0.5, "eyeSquint": 0.3},
    {
        "mouthSmile": 1.0,
        "mouthUpperUp": 0.5,
        "mouthLowerDown": 0.35,
        "cheekSquint": 0.7,
        "eyeSquint": 0.4,
        "jawOpen": 0.12,
    },
    {"mouthSmile": 0.9, "mouthUpperUp": 0.4, "jawOpen": 0.5, "cheekSquint": 0.6, "eyeSquint": 0.3, "browInnerUp": 0.3},
    {"jawOpen": 0.6, "eyeWide": 0.8, "browInnerUp": 0.8, "browOuterUp": 0.8},
    {"jawOpen": 0.9, "eyeWide": 0.4, "browOuterUp": 0.4},
    {"browDown": 0.9, "noseSneer": 0.4, "mouthPress": 0.5, "eyeSquint": 0.4},
    {"browDown": 1.0, "noseSneer": 0.8, "mouthUpperUp": 0.6, "mouthLowerDown": 0.6, "jawOpen": 0.25},
    {"mouthFrown": 0.8, "browInnerUp": 0.7, "mouthShrugLower": 0.5},
    {"mouthPucker": 0.9},
    {"mouthFunnel": 0.8, "jawOpen": 0.25},
    {"mouthStretch": 0.7, "mouthLowerDown": 0.6, "eyeWide": 0.5, "browInnerUp": 0.6},
    {"cheekPuff": 0.8, "mouthPress": 0.3},
    {"mouthUpperUp": 0.6, "mouthLowerDown": 0.7, "mouthSmile": 0.3},
    {"noseSneer": 0.9, "mouthUpperUp": 0.5, "eyeSquint": 0.5},
)
LOOSE = (
    "browDown", "browOuterUp", "browInnerUp", "eyeSquint", "eyeWide", "cheekSquint", "noseSneer", "mouthSmile",
    "mouthFrown", "mouthDimple", "mouthStretch", "mouthPress", "mouthLowerDown", "mouthUpperUp", "mouthPucker",
    "mouthFunnel", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthLeft", "mouthRight", "jawLeft",
    "jawRight", "cheekPuff",
)  # fmt: skip
SINGLE = frozenset(
    ("browInnerUp", "jawOpen", "mouthPucker", "mouthFunnel", "mouthRollLower", "mouthRollUpper", "mouthShrugLower",
     "mouthShrugUpper", "mouthLeft", "mouthRight", "jawLeft", "jawRight", "cheekPuff", "jawForward")
)  # fmt: skip


@dataclass(frozen=True)
class Pose:
    """One picture's draw; angles of the camera in radians, as in :meth:`Camera.orbit`."""

    params: HeadParams
    yaw: float
    pitch: float
    roll: float

    @property
    def camera(self) -> Camera:
        return Camera.orbit(self.yaw, self.pitch, self.roll)


def draw_pose(random: np.random.Generator, head: HeadModel, *, bias: float = 0.0, neck: float = 0.0) -> Pose:
    """Draw one.

    Args:
        bias: 0 to 1: how much smiling follows from facing the camera
        neck: standard deviation of the neck's turn in radians; by default the head's pose lives in the camera
    """
    # Every draw is made whatever the options, so that an option changes only what it names.
    yaw = random.uniform(-YAW, YAW)
    pitch = PITCH * np.clip(random.normal(0, 0.42), -1, 1)
    roll = ROLL * np.clip(random.normal(0, 0.38), -1, 1)
    coefficients = _expression(random)
    frontal = np.exp(-((yaw / np.radians(22)) ** 2))
    if bias > 0:
        for name in ("mouthSmileLeft", "mouthSmileRight", "cheekSquintLeft", "cheekSquintRight"):
            coefficients[name] = (1 - bias) * coefficients.get(name, 0.0) + bias * frontal * (
                0.9 if "Smile" in name else 0.5
            )
    driven = head.from_arkit(coefficients)
    side, up = _disc(random)
    vergence = random.uniform(0, np.radians(3))
    eyes = np.array([-up * GAZE_UP, side * GAZE_SIDE - vergence, 0, -up * GAZE_UP, side * GAZE_SIDE + vergence, 0])
    turn = random.normal(0, 1, 3) * np.array([0.6, 1.0, 0.5]) * neck
    params = HeadParams(
        expression=driven.expression, jaw=driven.jaw, eyes=torch.from_numpy(eyes), neck=torch.from_numpy(turn)
    )
    return Pose(head.clamp(params), float(yaw), float(pitch), float(roll))


def _disc(random: np.random.Generator) -> tuple[float, float]:
    """A gaze: often straight ahead, else anywhere in a disc."""
    straight = random.uniform() < 0.25
    radius, turn = np.sqrt(random.uniform()), random.uniform(0, 2 * np.pi)
    scale = 0.12 if straight else 1.0
    return scale * radius * np.cos(turn), scale * radius * np.sin(turn)


def _expression(random: np.random.Generator) -> dict[str, float]:
    """ARKit coefficients in [0, 1]."""
    kind = random.uniform()
    chosen = FACES[random.integers(len(FACES))]
    strength = random.uniform(0.35, 1.05)
    names = random.permutation(len(LOOSE))[: random.integers(2, 6)]
    amounts = random.beta(1.3, 1.8, len(LOOSE))
    slant = random.normal(0, 0.22, 64)
    jaw = random.beta(1.1, 1.9) * (random.uniform() < 0.55)
    lids = random.uniform(size=3)
    values: dict[str, float] = {}
    if kind < 0.55:
        values = {name: value * strength for name, value in chosen.items()}
        if "jawOpen" not in values and jaw > 0.35:
            values["jawOpen"] = 0.6 * jaw
    elif kind < 0.88:
        values = {LOOSE[i]: 0.9 * float(amounts[i]) for i in names}
        values["jawOpen"] = float(jaw)
    else:
        values = {"mouthSmile": 0.12 * lids[2]}
    if "mouthPucker" in values and "mouthSmile" in values:  # muscles that pull against each other
        values["mouthSmile"] *= 0.3
    result: dict[str, float] = {}
    for place, (name, value) in enumerate(values.items()):
        if name in SINGLE:
            result[name] = value
        else:
            result[f"{name}Left"] = value * (1 + slant[2 * place])
            result[f"{name}Right"] = value * (1 - slant[2 * place])
    # Far more often than people blink: lids that never stand half closed in the pictures are never learnt so.
    closed = (lids[1] ** 0.7) if lids[0] < 0.32 else 0.12 * lids[1]
    left, right = (closed, closed) if lids[0] > 0.06 else (closed, 0.1) if lids[2] < 0.5 else (0.1, closed)
    result["eyeBlinkLeft"], result["eyeBlinkRight"] = left, right
    if closed > 0.4:
        result["eyeWideLeft"] = result["eyeWideRight"] = 0.0
    return {name: float(np.clip(value, 0, 1)) for name, value in result.items()}
