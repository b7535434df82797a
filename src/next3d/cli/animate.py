"""``next3d animate``: avatars that move."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from next3d.cli.common import Precision, Seeds

if TYPE_CHECKING:
    from next3d.heads import HeadModel, Motion


def animate(
    out: Path = Path("animation.mp4"),
    model: str = "demo",
    seed: Seeds = "0",
    avatar: tuple[Path, ...] = (),
    clip: str = "talk",
    motion: Path | None = None,
    driver: Path | None = None,
    relative: bool = False,
    neutral: int | None = None,
    beside: bool = True,
    face: str = "largest",
    seconds: float | None = None,
    fps: float | None = None,
    truncation: float = 0.7,
    camera: Literal["motion", "fixed", "orbit"] = "motion",
    yaw: float = 0.0,
    pitch: float = 0.0,
    swing: float = 25.0,
    mirror: bool = False,
    smooth: float = 0.0,
    head: Path | None = None,
    precision: Precision = "float32",
    device: str = "auto",
) -> None:
    """Drive avatars by a built-in clip, a motion file or a video, and write a video of them side by side.

    next3d animate --seeds 0-3 --clip talk

    next3d animate --avatar anna.avatar --driver me.mp4 --out anna.mp4

    next3d animate --seeds 3 --driver me.mp4 --relative --camera fixed

    next3d animate --motion face.csv --camera orbit

    Args:
        out: the video (.mp4, .mov, .mkv).
        model: "demo", a model folder, a name on the Hugging Face hub, or untrained:PRESET.
        seed: which heads, side by side: 7, 0-3 or 0-3,7.
        avatar: saved avatars instead of seeds.
        clip: talk, expressions, blink, gaze or turn, where neither --motion nor --driver is given.
        motion: a motion file (.npz, as next3d track writes), ARKit coefficients (.csv, as Live Link Face records), or
            parameters written by DECA, SMIRK or VHAP.
        driver: a video of a face to follow, its sound is kept; or a photo.
        relative: take the motion as departures from the driver's face at rest, so that the avatar keeps its own.
        neutral: the frame that shows the driver at rest, for --relative; chosen automatically by default.
        beside: show the driver beside the avatars.
        face: which face of the driver to follow: "largest", or its index by size.
        seconds: length of a built-in clip, or the most that is taken of a motion.
        fps: frames per second; a motion is resampled.
        truncation: 1 keeps the full variety, 0 gives the mean.
        camera: the motion's own where it has one; "fixed" at --yaw and --pitch; "orbit", swinging around them.
        yaw: degrees, + towards the subject's left.
        pitch: degrees above the horizon.
        swing: how many degrees an orbiting camera swings to both sides.
        mirror: exchange left and right.
        smooth: remove jitter of the motion: standard deviation in seconds, such as 0.08.
        head: your FLAME folder, for a model that FLAME drives.
        precision: bfloat16 is faster on most machines.
        device: auto, cpu or cuda.
    """
    import math

    import numpy as np
    import torch

    from next3d.cli.common import check_suffix, open_avatars, open_model
    from next3d.errors import InputError
    from next3d.geometry.cameras import Camera
    from next3d.io.images import to_uint8
    from next3d.io.video import WRITE_SUFFIXES, write_video

    check_suffix(out, WRITE_SUFFIXES, "a video's name")
    if motion is not None and driver is not None:
        raise InputError("give either --motion or --driver, not both")
    generator = open_model(model, device, head)
    if generator.head is None:
        raise InputError(f"this model is driven by '{generator.config.head}': give your FLAME folder as --head")
    moving = driving_motion(generator.head, clip, motion, driver, seconds, fps, face)
    if neutral is not None and not relative:
        raise InputError("--neutral says what --relative is relative to: give both")
    crops = moving.crop
    if relative:
        from next3d.tracking.reenact import relative_motion

        moving = relative_motion(moving, neutral)
    if mirror:
        moving = moving.mirror(generator.head)
    if smooth:
        moving = moving.smooth(smooth)
    view: Camera | None = None
    if camera == "fixed" or (camera == "motion" and moving.camera is None):
        view = Camera.orbit(math.radians(yaw), math.radians(pitch))
    elif camera == "orbit":
        time = torch.arange(len(moving)) / moving.fps
        turn = math.radians(swing) * torch.sin(
            2 * math.pi * time / max(4.0, moving.seconds / round(moving.seconds / 5 + 0.5))
        )
        view = Camera.orbit(math.radians(yaw) + turn, torch.full_like(turn, math.radians(pitch)))
    avatars = open_avatars(generator, avatar, seed, truncation, precision)
    runs = [one.animate(moving, view) for one in avatars]
    frames = (np.concatenate([to_uint8(frame.image) for frame in shown], 1) for shown in zip(*runs))
    sound = None
    if driver is not None:
        from next3d.tracking.preview import driver_crops
        from next3d.tracking.track import is_video

        sound = driver if is_video(driver) else None
        if beside and crops is not None:
            shown = driver_crops(driver, moving.fps, crops, generator.config.superres.resolution)
            frames = (np.concatenate([left, right], 1) for left, right in zip(shown, frames))
    write_video(out, frames, moving.fps, total=len(moving), audio=sound)
    print(out)


def driving_motion(
    head: HeadModel,
    clip: str,
    file: Path | None,
    driver: Path | None,
    seconds: float | None,
    fps: float | None,
    face: str,
) -> Motion:
    """The motion that the command line asks for: of a video or photo, of a file, or a built-in clip."""
    from next3d.errors import InputError
    from next3d.heads import Motion
    from next3d.tracking.reenact import read_motion, track_driver

    if driver is not None:
        motion = track_driver(driver, head, face=face)
    elif file is None:
        return Motion.clip(clip, head, seconds=seconds, fps=25.0 if fps is None else fps)
    else:
        motion = read_motion(file, head)
    if seconds is not None:
        if not seconds > 0:
            raise InputError(f"--seconds must be positive, got {seconds}")
        motion = motion[: max(1, round(seconds * motion.fps))]
    return motion if fps is None or fps == motion.fps else motion.resample(fps)
