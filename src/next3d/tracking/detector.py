"""MediaPipe's 478 face landmarks, irises included, behind one small interface.

Two backends give the same points: the 'solutions' of the 0.10.21 wheels, which carry their models and work offline,
and the 'tasks' of later wheels, which need a model file — given by path, or fetched once when asked, with a checksum.
"""

from __future__ import annotations

import os
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from next3d.errors import InputError, require
from next3d.io.files import check_folder, sha256

LANDMARKS = 478
IRIS_LEFT = slice(473, 478)  # centre and four points around it, of the subject's left eye
IRIS_RIGHT = slice(468, 473)
MODEL_URL = (
    "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task"
)
MODEL_SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"


@dataclass(frozen=True)
class Face:
    """One detected face.

    Attributes:
        points: (478, 2) float32, pixel coordinates (column, row; a pixel's centre is at i + 0.5)
        depth: (478,) float32, MediaPipe's relative depth in pixels, smaller is nearer
    """

    points: np.ndarray
    depth: np.ndarray

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the landmarks in pixels."""
        low, high = self.points.min(0), self.points.max(0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    @property
    def size(self) -> float:
        """The larger side of :attr:`box` in pixels."""
        left, top, right, bottom = self.box
        return max(right - left, bottom - top)


class Detector(Protocol):
    """Finds faces in an RGB picture (H, W, 3) uint8; the largest face comes first."""

    def detect(self, image: np.ndarray) -> list[Face]: ...

    def close(self) -> None: ...


def open_detector(*, model: str | Path | None = None, video: bool = False, max_faces: int = 5) -> Detector:
    """The detector of the installed MediaPipe.

    Args:
        model: a ``face_landmarker.task`` file; needed by MediaPipe 1.x, optional before.
        video: follow faces from frame to frame (faster, steadier) instead of treating each picture alone.
        max_faces: how many faces to look for.

    Raises:
        InputError: MediaPipe is not installed (names the extra), or needs a model file that is not there.
    """
    with quiet():
        mediapipe = require("mediapipe", "tracking")
    path = Path(model) if model is not None else cached_model_path()
    if model is None and hasattr(mediapipe, "solutions"):
        return SolutionsDetector(mediapipe, video, max_faces)
    if not path.is_file():
        raise InputError(
            f"this version of MediaPipe needs its model file, and {path} does not exist: give it with "
            "--face-model face_landmarker.task, or fetch it once with --download-face-model"
        )
    return TasksDetector(path, video, max_faces)


def cached_model_path() -> Path:
    """Where a fetched model file lives in the user's cache."""
    cache = Path(os.environ.get("NEXT3D_CACHE") or Path.home() / ".cache" / "next3d")
    return cache / "face_landmarker.task"


def download_model(url: str = MODEL_URL, digest: str = MODEL_SHA256) -> Path:
    """Fetch MediaPipe's model file into the user's cache and check it; only ever called on request.

    Raises:
        InputError: the file cannot be fetched, or is not the expected one (nothing is kept then).
    """
    path = cached_model_path()
    if path.is_file() and sha256(path) == digest:
        return path
    check_folder(path.parent)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file, urllib.request.urlopen(url, timeout=30) as response:
            while chunk := response.read(1 << 16):
                file.write(chunk)
                if file.tell() > 64 << 20:
                    raise InputError(f"{url} sent more than 64 MiB: this is not the face model")
        if sha256(name) != digest:
            raise InputError(f"what {url} sent is not the expected file (SHA-256 differs): nothing was kept")
        os.replace(name, path)
    except OSError as error:
        raise InputError(f"cannot fetch {url}: {error}") from error
    finally:
        Path(name).unlink(missing_ok=True)
    return path


@contextmanager
def quiet() -> Iterator[None]:
    """Keep MediaPipe's C++ from writing to standard error: it warns of its own internals, past every log level."""
    try:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:
        yield
        return
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class SolutionsDetector:
    """MediaPipe's Face Mesh with refined irises (wheels up to 0.10.21, models inside)."""

    def __init__(self, mediapipe, video: bool, max_faces: int):
        with quiet():
            self._mesh = mediapipe.solutions.face_mesh.FaceMesh(
                static_image_mode=not video,
                max_num_faces=max_faces,
                refine_landmarks=True,
                min_detection_confidence=0.5,
                min_tracking_confidence=0.5,
            )
            self._mesh.process(np.zeros((64, 64, 3), np.uint8))
        self._warned = False

    def detect(self, image: np.ndarray) -> list[Face]:
        with nullcontext() if self._warned else quiet():
            found = self._mesh.process(np.ascontiguousarray(image)).multi_face_landmarks or []
        self._warned |= bool(found)  # each of its networks warns once, when the first face reaches it
        return _faces([face.landmark for face in found], image.shape)

    def close(self) -> None:
        self._mesh.close()


class TasksDetector:
    """MediaPipe's Face Landmarker task (wheels from 0.10.5 on, model file needed)."""

    def __init__(self, model: Path, video: bool, max_faces: int):
        vision = require("mediapipe.tasks.python.vision", "tracking")
        base = require("mediapipe.tasks.python", "tracking").BaseOptions
        self._mediapipe = require("mediapipe", "tracking")
        self._video, self._frame = video, 0
        mode = vision.RunningMode.VIDEO if video else vision.RunningMode.IMAGE
        try:
            options = vision.FaceLandmarkerOptions(
                base_options=base(model_asset_buffer=model.read_bytes()), running_mode=mode, num_faces=max_faces
            )
            self._landmarker = vision.FaceLandmarker.create_from_options(options)
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{model} is not a face landmarker model that MediaPipe can read: {reason}") from error

    def detect(self, image: np.ndarray) -> list[Face]:
        picture = self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image))
        if self._video:
            result = self._landmarker.detect_for_video(picture, self._frame * 40)  # only the order of the times matters
            self._frame += 1
        else:
            result = self._landmarker.detect(picture)
        return _faces(result.face_landmarks, image.shape)

    def close(self) -> None:
        self._landmarker.close()


def _faces(found: Sequence, shape: tuple[int, ...]) -> list[Face]:
    """MediaPipe's normalised landmarks as :class:`Face` objects, the largest first."""
    height, width = shape[:2]
    faces = []
    for landmarks in found:
        values = np.array([(p.x * width, p.y * height, p.z * width) for p in landmarks], np.float32)
        if len(values) == LANDMARKS and np.isfinite(values).all():
            faces.append(Face(values[:, :2], values[:, 2]))
    return sorted(faces, key=lambda face: -face.size)


def choose_face(faces: list[Face], choice: str = "largest") -> Face:
    """One face of several.

    Args:
        choice: ``"largest"``, or the index as text, ``"0"`` being the largest.

    Raises:
        InputError: no face was found, or the index is beyond the number of faces.
    """
    if not faces:
        raise InputError("no face was found: use a picture in which a face is well visible")
    if choice == "largest":
        return faces[0]
    if not choice.isdigit() or int(choice) >= len(faces):
        raise InputError(f"--face {choice}: {len(faces)} face(s) were found; give 'largest' or 0 to {len(faces) - 1}")
    return faces[int(choice)]
