"""What tracking saw, as pictures: the crop with its landmarks, the fitted head alone, and the head over the crop."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from next3d.geometry.meshes import world_from_head
from next3d.heads.head_model import HeadModel
from next3d.heads.params import Motion
from next3d.io.images import read_image
from next3d.io.video import VideoWriter, read_video
from next3d.raster.shading import overlay, shaded
from next3d.tracking.crop import Crop
from next3d.tracking.detector import IRIS_LEFT, IRIS_RIGHT, LANDMARKS
from next3d.tracking.track import Track, is_video

FACE, IRIS, EDGE = (64, 224, 208), (255, 210, 60), (30, 30, 34)
BATCH = 16


def draw_points(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
    """A copy of a picture (R, R, 3) uint8 with landmarks (478, 2) in [0, 1] as small dots, irises in yellow."""
    result = picture.copy()
    size = len(picture)
    colours = np.array([FACE] * LANDMARKS, np.uint8)
    colours[IRIS_LEFT] = colours[IRIS_RIGHT] = IRIS
    pixel = np.floor(points * size).astype(int)
    inside = np.isfinite(points).all(1) & (pixel >= 0).all(1) & (pixel < size - 1).all(1)
    for offset in ((0, 0), (0, 1), (1, 0), (1, 1)) if size >= 384 else ((0, 0),):
        rows, columns = pixel[inside, 1] + offset[0], pixel[inside, 0] + offset[1]
        result[rows, columns] = colours[inside]
    return result


def panels(head: HeadModel, motion: Motion, pictures: list[np.ndarray], points: np.ndarray) -> Iterator[np.ndarray]:
    """Crops with landmarks, heads, and heads over crops, side by side; (R, 3·R, 3) uint8 per frame.

    Args:
        pictures: crops (R, R, 3) uint8, one per frame of ``motion``.
        points: (T, 478, 2) landmarks in crop coordinates.
    """
    assert motion.camera is not None
    for first in range(0, len(motion), BATCH):
        part = slice(first, first + BATCH)
        vertices = world_from_head(head(motion.params[part]).vertices)
        resolution = len(pictures[first])
        meshes = shaded(motion.camera[part], vertices, head.faces, resolution)
        for mesh, picture, dots in zip(meshes, pictures[part], points[part].astype(np.float32)):
            ground = np.full_like(picture, EDGE)
            yield np.concatenate(
                [draw_points(picture, dots), overlay(ground, mesh, 1.0), overlay(picture, mesh, 0.55)], axis=1
            )


def write_video_preview(source: Path, track: Track, head: HeadModel, out: Path, *, resolution: int = 384) -> None:
    """Write the panels of a tracked video as a video, its sound kept; frames stream, memory stays small."""
    motion = track.motion
    assert motion.crop is not None
    with VideoWriter(out, motion.fps, audio=source) as video:
        waiting: list[np.ndarray] = []
        done = 0

        def flush() -> None:
            nonlocal done
            part = slice(done, done + len(waiting))
            for panel in panels(head, motion[part], waiting, track.points[part]):
                video.write(panel)
            done += len(waiting)
            waiting.clear()

        for index, image in enumerate(tqdm(shown_frames(source, motion.fps, len(motion)), "preview", len(motion))):
            x, y, side = motion.crop[index].tolist()
            waiting.append(Crop(x, y, side).cut(image, resolution))
            if len(waiting) == BATCH:
                flush()
        if waiting:
            flush()


def shown_frames(source: Path, fps: float, count: int) -> Iterator[np.ndarray]:
    """The frame on show at each of ``count`` instants of a constant frame rate."""
    index = 0
    latest: np.ndarray | None = None
    for frame in read_video(source):
        while latest is not None and index < count and frame.seconds > (index + 0.5) / fps:
            yield latest
            index += 1
        latest = frame.image
    while latest is not None and index < count:
        yield latest
        index += 1


def driver_crops(source: Path, fps: float, crops: torch.Tensor, resolution: int) -> Iterator[np.ndarray]:
    """What the driver's camera sees at each of T instants: crops (T, 3) of a video or photo, (R, R, 3) uint8."""
    images = shown_frames(source, fps, len(crops)) if is_video(source) else repeat(read_image(source), len(crops))
    for image, (x, y, side) in zip(images, crops.tolist()):
        yield Crop(x, y, side).cut(image, resolution)


def photo_panels(track: Track, head: HeadModel, images: list[np.ndarray], *, resolution: int = 384) -> list[np.ndarray]:
    """The panels of tracked photos, given the photos themselves."""
    motion = track.motion
    assert motion.crop is not None
    crops = [Crop(*row).cut(image, resolution) for row, image in zip(motion.crop.tolist(), images)]
    with torch.no_grad():
        return list(panels(head, motion, crops, track.points))
