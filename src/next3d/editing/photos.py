"""Files to an avatar: faces are tracked and aligned first, then inverted; several photos share one head shape."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from next3d.editing.inversion import Inversion, InversionSettings, head_of, invert
from next3d.editing.losses import PictureLoss
from next3d.editing.progress import Callback, Reporter
from next3d.errors import InputError
from next3d.estimators import Estimator, bundled
from next3d.generator.generator import Generator
from next3d.geometry.cameras import Camera
from next3d.heads import HeadParams
from next3d.io.images import from_uint8, read_image
from next3d.perceptual import EstimatorFeatures, Lpips, open_perceptual
from next3d.tracking.crop import Crop
from next3d.tracking.detector import Face, choose_face
from next3d.tracking.track import Tracker, is_video

FRAMES = 6  # of a video


@dataclass(frozen=True)
class Portraits:
    """Aligned pictures of one person.

    Attributes:
        images: (N, 3, R, R) in [−1, 1]
        cameras: (N,)
        params: (N,), of one shape
        names: where each comes from
    """

    images: Tensor
    cameras: Camera
    params: HeadParams
    names: list[str]


def read_pictures(paths: Sequence[str | Path], frames: int = FRAMES) -> Iterator[tuple[str, np.ndarray]]:
    """Name and picture (H, W, 3) uint8 of each photo, and of ``frames`` frames spread over each video."""
    from next3d.io.video import read_video, video_info

    for path in map(Path, paths):
        if not path.is_file():
            raise InputError(f"there is no photo {path}")
        if not is_video(path):
            yield path.name, read_image(path)
            continue
        seconds = video_info(path).seconds
        wanted = [(i + 0.5) / frames * seconds for i in range(frames)]
        for frame in read_video(path):
            if wanted and frame.seconds >= wanted[0]:
                wanted.pop(0)
                yield f"{path.name} at {frame.seconds:.1f} s", frame.image


def only_face(tracker: Tracker, image: np.ndarray, name: str, choice: str | None) -> Face:
    """The face of a picture; of several one must have been chosen."""
    faces = tracker.faces(image)
    if len(faces) > 1 and choice is None:
        raise InputError(
            f"{name} shows {len(faces)} faces: choose one with --face largest, or --face 0 to {len(faces) - 1} by size"
        )
    try:
        return choose_face(faces, choice or "largest")
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def align_photos(
    paths: Sequence[str | Path],
    model: Generator,
    *,
    tracker: Tracker | None = None,
    face: str | None = None,
    frames: int = FRAMES,
    callback: Callback | None = None,
) -> Portraits:
    """Track one person's photos and cut them as the model's training pictures are framed.

    Args:
        paths: pictures, or videos of which some frames are taken
        tracker: by default one of the model's own head
        face: which face where there are several: "largest" or its index by size

    Raises:
        InputError: no photo, no face, or several faces and no choice.
    """
    head = head_of(model)
    if head is None:
        raise InputError(
            "this model draws without a mesh, so that photos cannot be aligned for it; use invert() itself"
        )
    tracker = tracker or Tracker(head)
    pictures = list(read_pictures(paths, frames))
    if not pictures:
        raise InputError("no photo was given")
    report = Reporter(callback)
    faces, shapes = [], []
    for number, (name, image) in enumerate(pictures):
        faces.append(only_face(tracker, image, name, face))
        if len(pictures) > 1:  # one shape for all, then everything else again
            shapes.append(tracker.photo(image, face=faces[-1]).motion.params.shape[0])
            report("track", number + 1, 2 * len(pictures), 0.0)
    shape = torch.stack(shapes).mean(0) if shapes else None
    resolution = model.config.superres.resolution
    images, motions = [], []
    for number, ((_, image), found) in enumerate(zip(pictures, faces)):
        motion = tracker.photo(image, face=found, shape=shape).motion
        assert motion.crop is not None
        images.append(from_uint8(Crop(*motion.crop[0].tolist()).cut(image, resolution).copy()))
        motions.append(motion)
        report("track", len(shapes) + number + 1, len(shapes) + len(pictures), 0.0)
    labels = torch.cat([motion.camera.label for motion in motions if motion.camera is not None])
    params = HeadParams.cat([motion.params for motion in motions])
    return Portraits(torch.stack(images), Camera.from_label(labels), params, [name for name, _ in pictures])


def open_loss(
    settings: InversionSettings, perceptual: Sequence[str | Path] | None = (), device: torch.device | str = "cpu"
) -> tuple[PictureLoss, Estimator | None]:
    """How pictures are compared, and the bundled network that reads factory latents off pictures, if there is one.

    Args:
        perceptual: files of LPIPS or VGG-16; the bundled estimator's features if empty, none if None

    Raises:
        InputError: unreadable files, or no estimator where one is needed.
    """
    features = None
    if perceptual is not None and settings.perceptual_weight:
        features = open_perceptual(perceptual)
        if isinstance(features, EstimatorFeatures):
            features.network.to(device)
        elif isinstance(features, Lpips):
            features.to(device)
    try:
        encoder: Estimator | None = bundled("identity").to(device)
    except InputError:
        if settings.identity_weight:
            raise
        encoder = None
    return PictureLoss(features, encoder), encoder


def invert_photos(
    paths: Sequence[str | Path],
    model: Generator,
    settings: InversionSettings | None = None,
    callback: Callback | None = None,
    *,
    tracker: Tracker | None = None,
    face: str | None = None,
    frames: int = FRAMES,
    perceptual: Sequence[str | Path] | None = (),
    checkpoint: str | Path | None = None,
    name: str | None = None,
) -> Inversion:
    """Photos of one person to an animatable avatar: track, align, :func:`~next3d.editing.inversion.invert`.

    Args:
        paths, tracker, face, frames: see :func:`align_photos`
        perceptual: see :func:`open_loss`
        settings, callback, checkpoint, name: see :func:`~next3d.editing.inversion.invert`

    Raises:
        InputError: as these do.
        Cancelled: the callback returned False.
    """
    settings = settings or InversionSettings()
    settings.check()
    loss, encoder = open_loss(settings, perceptual, model.device)
    portraits = align_photos(paths, model, tracker=tracker, face=face, frames=frames, callback=callback)
    result = invert(
        portraits.images,
        portraits.cameras,
        portraits.params,
        model,
        settings,
        callback,
        loss=loss,
        encoder=encoder,
        checkpoint=checkpoint,
        name=name or Path(paths[0]).stem,
    )
    return dataclasses.replace(result, names=portraits.names)
