"""Videos through PyAV: H.264 MP4 written atomically with progress, and frames read one by one with their times."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from torch import Tensor
from tqdm import tqdm

from next3d.errors import InputError
from next3d.io.files import atomic_path
from next3d.io.images import MAX_PIXELS, to_uint8

WRITE_SUFFIXES = (".mp4", ".mov", ".mkv")


@dataclass(frozen=True)
class VideoInfo:
    """What a video's header says.

    Attributes:
        width, height: of the upright picture, in pixels
        fps: mean frames per second
        frames: number of frames, 0 where the file does not say; an estimate for some containers
        seconds: duration, 0 where the file does not say
        rotation: clockwise degrees by which stored frames are turned to stand upright: 0, 90, 180 or 270
        has_audio: whether there is a sound track
    """

    width: int
    height: int
    fps: float
    frames: int
    seconds: float
    rotation: int
    has_audio: bool


@dataclass(frozen=True)
class VideoFrame:
    """One upright frame: uint8 RGB (H, W, 3), and its time in seconds from the first frame."""

    image: np.ndarray
    seconds: float
    index: int


def open_video(path: str | Path) -> Any:
    """An open PyAV container with a video stream, or :class:`InputError`."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no video {path}")
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise InputError(f"{path} is not a video that can be read: {error}") from None
    if not container.streams.video:
        container.close()
        raise InputError(f"{path} holds no video stream")
    stream = container.streams.video[0]
    if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
        container.close()
        raise InputError(f"{path} has frames of more than {MAX_PIXELS:,} pixels: make it smaller")
    return container


def video_info(path: str | Path) -> VideoInfo:
    """Read a video's header (and its first frame, which carries the rotation of phone videos)."""
    with open_video(path) as container:
        stream = container.streams.video[0]
        fps = float(stream.average_rate or stream.guessed_rate or 25)
        if stream.duration and stream.time_base:
            seconds = float(stream.duration * stream.time_base)
        else:
            seconds = (container.duration or 0) / av.time_base
        rotation = 0
        with contextlib.suppress(av.error.FFmpegError, StopIteration):
            rotation = upright_turn(next(container.decode(stream)))
        width, height = stream.codec_context.width, stream.codec_context.height
        if rotation in (90, 270):
            width, height = height, width
        frames = stream.frames or round(seconds * fps)
        return VideoInfo(width, height, fps, frames, seconds, rotation, bool(container.streams.audio))


def upright_turn(frame: Any) -> int:
    """Clockwise degrees that bring a decoded frame upright (the display matrix says counter-clockwise)."""
    return round(-float(getattr(frame, "rotation", 0) or 0) / 90) * 90 % 360


def read_video(path: str | Path, *, start: float = 0.0, end: float = math.inf) -> Iterator[VideoFrame]:
    """Yield a video's frames one by one, upright, with their own times (a variable frame rate keeps its times).

    Args:
        start, end: seconds; frames outside are skipped

    Raises:
        InputError: no such file, no video, or a file without one frame that decodes. A file that breaks off yields the
            frames before the break.
    """
    with open_video(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        first: float | None = None
        index = -1
        frames = container.decode(stream)
        while True:
            try:
                frame = next(frames, None)
            except (av.error.FFmpegError, OSError, ValueError) as error:
                if index < 0:
                    raise InputError(f"{path} is a damaged video: {error}") from None
                return
            if frame is None:
                break
            index += 1
            time = index / rate if frame.time is None else float(frame.time)
            first = time if first is None else first
            if time - first > end:
                return
            if time - first >= start:
                image = np.rot90(frame.to_ndarray(format="rgb24"), -upright_turn(frame) // 90)
                yield VideoFrame(np.ascontiguousarray(image), time - first, index)
        if index < 0:
            raise InputError(f"{path} is a damaged video: not one frame can be read")


class VideoWriter:
    """Write an H.264 video frame by frame; the file appears, complete, when the block ends without an error.

    ``with VideoWriter("out.mp4", fps=25) as video: video.write(frame)``; a frame is uint8 RGB (H, W, 3) or a float
    tensor (3, H, W) in [−1, 1]. Odd sizes are padded by one pixel, which H.264's colour subsampling needs.

    Args:
        path: ends in .mp4, .mov or .mkv
        fps: frames per second
        quality: constant rate factor, 0 (lossless) to 51; 17 looks lossless
        audio: a file whose sound track is copied, cut at the video's end
    """

    def __init__(self, path: str | Path, fps: float, *, quality: int = 17, audio: str | Path | None = None) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in WRITE_SUFFIXES:
            raise InputError(f"cannot write {self.path}: a video's name ends in {', '.join(WRITE_SUFFIXES)}")
        if not (math.isfinite(fps) and 0 < fps <= 1000):
            raise InputError(f"a video's fps must be a positive number, got {fps}")
        if audio is not None and not Path(audio).is_file():
            raise InputError(f"there is no sound file {audio}")
        self.fps, self.quality, self.audio = Fraction(fps).limit_denominator(1001), quality, audio
        self.frames = 0
        self.size: tuple[int, ...] | None = None
        self.sound: Any = None

    def __enter__(self) -> VideoWriter:
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self.path))
            options = {"movflags": "+faststart"} if self.path.suffix.lower() != ".mkv" else {}
            self.container = stack.enter_context(av.open(str(temporary), "w", options=options))
            self.stream = self.container.add_stream("libx264", rate=self.fps)
            self.stack = stack.pop_all()
        self.stream.options = {"crf": str(self.quality), "preset": "medium"}
        self.stream.pix_fmt = "yuv420p"
        return self

    def write(self, frame: np.ndarray | Tensor) -> None:
        """Append one frame."""
        picture = to_uint8(frame) if isinstance(frame, Tensor) and frame.is_floating_point() else np.asarray(frame)
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise InputError(f"a video frame is uint8 (H, W, 3), got {picture.dtype} {picture.shape}")
        picture = np.pad(picture, ((0, picture.shape[0] % 2), (0, picture.shape[1] % 2), (0, 0)), mode="edge")
        if self.size is None:
            self.size = picture.shape
            self.stream.height, self.stream.width = picture.shape[:2]
            if self.audio is not None:
                self.begin_audio()
        if picture.shape != self.size:
            raise InputError(f"a video's frames have one size; the first was {self.size}, now {picture.shape}")
        video_frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        video_frame.pts, video_frame.time_base = self.frames, 1 / self.fps
        self.container.mux(self.stream.encode(video_frame))
        self.frames += 1

    def begin_audio(self) -> None:
        """Open the sound file and announce its track, before the header is written."""
        self.source = self.stack.enter_context(av.open(str(self.audio)))
        if self.source.streams.audio:
            self.sound = self.container.add_stream_from_template(self.source.streams.audio[0])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.stack.__exit__(kind, error, trace)
            return
        with self.stack:
            if not self.frames:
                raise InputError(f"cannot write {self.path}: a video needs at least one frame")
            self.container.mux(self.stream.encode(None))
            if self.sound is not None:
                self.copy_audio()

    def copy_audio(self) -> None:
        """Copy sound packets as they are, up to the last frame."""
        end = float(self.frames / self.fps)
        for packet in self.source.demux(self.source.streams.audio[0]):
            if packet.pts is not None and packet.time_base and float(packet.pts * packet.time_base) < end:
                packet.stream = self.sound
                self.container.mux(packet)


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray | Tensor],
    fps: float,
    *,
    total: int | None = None,
    quality: int = 17,
    audio: str | Path | None = None,
    progress: bool = True,
) -> int:
    """Write frames to a video with a progress bar that shows frames per second and the time left; returns their number.

    See :class:`VideoWriter` for the arguments; ``total`` is the number of frames where ``frames`` has no length.
    """
    total = len(frames) if total is None and isinstance(frames, Sequence) else total
    with VideoWriter(path, fps, quality=quality, audio=audio) as video:
        for frame in tqdm(frames, total=total, unit="frame", desc=Path(path).name, disable=not progress):
            video.write(frame)
    return video.frames
