"""Driving avatars by whatever says how a face moves: a video, a photo, recorded or tracked parameters (Fig. 1)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from next3d.errors import InputError
from next3d.geometry.cameras import Camera
from next3d.geometry.rotations import rotation_angle
from next3d.heads.arkit import read_arkit_csv
from next3d.heads.head_model import HeadModel
from next3d.heads.params import Motion
from next3d.io.images import read_image
from next3d.tracking.converters import SUFFIXES, load_parameters
from next3d.tracking.detector import open_detector
from next3d.tracking.track import PICTURES, VIDEOS, Tracker

STILL_SECONDS = 2.0  # a photo drives for so long
FPS = 25.0


def read_motion(path: Path, head: HeadModel) -> Motion:
    """A motion file of ours (.npz), ARKit coefficients (.csv), or parameters written by DECA, SMIRK or VHAP.

    Raises:
        InputError: nothing readable there; parameters of FLAME for another head.
    """
    if path.suffix.lower() == ".csv":
        return read_arkit_csv(path, head)
    if path.suffix.lower() == ".npz":
        try:
            return Motion.load(path)
        except InputError as error:
            if "not a motion file" not in str(error):
                raise
    elif not path.is_dir() and path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: a motion is .npz, .csv, or a file of DECA, SMIRK or VHAP ({', '.join(SUFFIXES)})")
    motion = load_parameters(path)
    if not head.name.startswith("flame"):
        raise InputError(f"{path} holds FLAME's parameters, the model is driven by head '{head.name}'")
    return motion


def track_driver(path: Path, head: HeadModel, *, face: str = "largest") -> Motion:
    """The motion of a video, or the pose of a photo held still.

    Raises:
        InputError: neither a picture nor a video, or no face in it.
    """
    if path.suffix.lower() in PICTURES:
        still = Tracker(head, face=face).photo(read_image(path)).motion
        index = torch.zeros(round(STILL_SECONDS * FPS), dtype=torch.int64)
        assert still.camera is not None
        return Motion(
            still.params[index], FPS, still.camera[index], crop=None if still.crop is None else still.crop[index]
        )
    if path.suffix.lower() not in VIDEOS:
        raise InputError(f"--driver {path}: give a video ({', '.join(sorted(VIDEOS))}) or a picture")
    return Tracker(head, open_detector(video=True), face=face).video(path).motion


def neutral_frame(motion: Motion) -> int:
    """The index of the frame that looks most like a face at rest: little expression, mouth closed, facing as usual."""
    params = motion.params
    strain = params.expression.square().sum(-1) + 4 * params.jaw.square().sum(-1) + params.eyes.square().sum(-1)
    if motion.camera is not None:
        rotation = motion.camera.cam2world[:, :3, :3]
        usual = rotation[int(spread(rotation).argmin())]
        strain = strain + rotation_angle(rotation, usual.expand_as(rotation)).square()
    if motion.confidence is not None:
        strain = strain + 4 * (1 - motion.confidence)
    return int(strain.argmin())


def spread(rotation: Tensor) -> Tensor:
    """(T,) how far each of some rotations (T, 3, 3) is from the others, summed; at most 200 others are asked."""
    others = rotation[torch.linspace(0, len(rotation) - 1, min(len(rotation), 200)).round().long()]
    return torch.stack([rotation_angle(rotation, other.expand_as(rotation)) for other in others]).sum(0)


def relative_motion(motion: Motion, neutral: int | None = None, rest: Camera | None = None) -> Motion:
    """The motion as departures from the driver's neutral frame, so that an avatar keeps its own face at rest.

    Args:
        neutral: the frame that shows the driver at rest; chosen by :func:`neutral_frame` if None.
        rest: the camera that the neutral frame's becomes; the frontal one by default.

    Raises:
        InputError: a frame outside the motion.
    """
    index = neutral_frame(motion) if neutral is None else neutral
    if not 0 <= index < len(motion):
        raise InputError(f"--neutral {index}: the motion has frames 0 to {len(motion) - 1}")
    at_rest = motion.params[index]
    params = motion.params.replace(
        expression=motion.params.expression - at_rest.expression,
        jaw=motion.params.jaw - at_rest.jaw,
        eyes=motion.params.eyes - at_rest.eyes,
        neck=motion.params.neck - at_rest.neck,
    )
    camera = motion.camera
    if camera is not None:
        rest = Camera.orbit() if rest is None else rest
        # The driver's head moves in camera space from its neutral pose; the avatar's moves so from its own.
        moved = camera.world2cam @ camera.cam2world[index] @ rest.world2cam  # (T, 4, 4) world to camera
        inverse = Camera(moved, camera.intrinsics).world2cam
        camera = Camera(inverse, rest.intrinsics.expand_as(camera.intrinsics))
    return replace(motion, params=params, camera=camera)
