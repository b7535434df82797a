"""Photos and videos → :class:`Motion`: detect, crop, fit, gaze; for a clip one shape and a smooth path."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from next3d.errors import InputError
from next3d.geometry.cameras import Camera
from next3d.geometry.rotations import matrix_from_axis_angle
from next3d.heads.head_model import HeadModel
from next3d.heads.params import HeadParams, Motion
from next3d.io.images import read_image
from next3d.io.video import read_video, video_info
from next3d.tracking.crop import Crop, deca_input, ffhq_crop, inter_ocular
from next3d.tracking.deca import DecaEncoder, load_deca
from next3d.tracking.detector import LANDMARKS, Detector, Face, choose_face, open_detector
from next3d.tracking.fit import BLOCKS, SIZE, FaceFitter, Fit, block, camera_from_pose, framing, rebase
from next3d.tracking.gaze import GazeFitter
from next3d.tracking.smoothing import smooth

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
VIDEOS = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v"}
DETECT_SIZE = 1280  # a larger picture is reduced before detection
KEYFRAMES = 12  # frames of a clip that its shape is fitted on
CHUNK = 128  # frames fitted at once
MISFIT = 0.04  # residual, as a share of the inter-ocular distance, at which the confidence is one half
# Time constants of the smoother in seconds: heads turn slower than mouths and lids move.
SMOOTHING = {"rotation": 0.08, "translation": 0.08, "jaw": 0.025, "expression": 0.025}
DECA_DEVIATION = 0.03  # how far landmarks may move DECA's expression and jaw
FREE = [name for name in BLOCKS if name != "shape"]


@dataclass(frozen=True)
class Track:
    """What tracking a source gave.

    Attributes:
        motion: parameters, cameras, confidence and crops, one per frame
        points: (T, 478, 2) float16 detected landmarks in the coordinates of each frame's crop; NaN where no face was
        residual: (T,) root mean square distance of fitted landmarks, as a share of the inter-ocular distance
    """

    motion: Motion
    points: np.ndarray
    residual: Tensor


class Tracker:
    """Tracks faces with one head model; holds the detector and the fitters.

    Args:
        head: the head model to fit.
        detector: by default MediaPipe's for pictures; one opened with ``video=True`` follows a clip faster, see
            :func:`open_detector`.
        face: "largest", or the index of the face by size, as text.
    """

    def __init__(self, head: HeadModel, detector: Detector | None = None, *, face: str = "largest"):
        self.head, self.face = head, face
        self.detector = detector or open_detector()
        self.fitter = FaceFitter(head)
        self.gaze = GazeFitter(head)
        self.deca: DecaEncoder | None = None

    def use_deca(self, path: str | Path) -> None:
        """Take shape, expression and jaw from DECA's encoder; landmarks then give the camera and the gaze.

        Raises:
            InputError: the head is not FLAME's, or the file is not DECA's.
        """
        if not self.head.name.startswith("flame"):
            raise InputError(f"DECA predicts FLAME's parameters; head '{self.head.name}' has others: give --head FLAME")
        self.deca = load_deca(path)

    def expected(self, image: np.ndarray, points: np.ndarray) -> Tensor | None:
        """What DECA says of a picture, as unknowns (159,) of the fitter; None without DECA."""
        if self.deca is None:
            return None
        code = self.deca.decode(self.deca(deca_input(image, points)))
        state = torch.zeros(SIZE)
        for name, value in (("shape", code.shape), ("expression", code.expression), ("jaw", code.jaw)):
            state[block(name)] = value[0]
        return state

    def detect(self, image: np.ndarray) -> Face:
        """The chosen face of a picture (H, W, 3) uint8, in its pixels."""
        return choose_face(self.faces(image), self.face)

    def faces(self, image: np.ndarray) -> list[Face]:
        """All faces of a picture (H, W, 3) uint8, the largest first, in its pixels."""
        scale = DETECT_SIZE / max(image.shape[:2])
        small = image
        if scale < 1:
            size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
            small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
        ratio = np.array([image.shape[1] / small.shape[1], image.shape[0] / small.shape[0]], np.float32)
        found = self.detector.detect(small)
        return [Face(face.points * ratio, face.depth * ratio[0]) for face in found]

    def photo(self, image: np.ndarray, *, face: Face | None = None, shape: Tensor | None = None) -> Track:
        """Track one picture (H, W, 3) uint8.

        Args:
            face: the face, if it has been detected before.
            shape: (100,) the person's shape, if it is known.

        Raises:
            InputError: no face, or not the one asked for.
        """
        points = (face or self.detect(image)).points
        crop = ffhq_crop(points)
        fit = self.fitter.fit(torch.from_numpy(crop.normalise(points))[None], shape=shape)
        crop = reframe(crop, fit.camera)
        inside = torch.from_numpy(crop.normalise(points))[None]
        state, reference = self.fitter.start(inside[:, self.fitter.places.indices], fit.params.shape)
        for name in ("jaw", "expression"):
            state[:, block(name)] = fit.state[:, block(name)]
        expected = self.expected(image, points)
        if expected is None:
            fit = self.fitter.fit(inside, shape=shape, start=(state, reference))
        else:
            fit = self.fit_expected(inside, expected[None])
        return self.finish(fit, inside, [crop], fps=1.0)

    def fit_expected(self, points: Tensor, expected: Tensor) -> Fit:
        """Fit poses (N,) around the parameters that DECA expects (N, 159)."""
        precision = self.fitter.precision.clone()
        precision[block("jaw")] = precision[block("expression")] = 1 / DECA_DEVIATION
        return self.fitter.fit(
            points, shape=expected[:, block("shape")], prior=expected, precision=precision.expand_as(expected)
        )

    def finish(self, fit: Fit, points: Tensor, crops: list[Crop], fps: float) -> Track:
        """Gaze, confidence and everything named."""
        eyes = self.gaze.fit(points, fit.params, fit.camera)
        spacing = torch.tensor([inter_ocular(p) for p in points.numpy()])
        residual = fit.residual / spacing
        confidence = 1 / (1 + (residual / MISFIT) ** 2)
        crop = torch.tensor([[c.x, c.y, c.side] for c in crops])
        motion = Motion(fit.params.replace(eyes=eyes), fps, fit.camera, confidence, crop)
        return Track(motion, points.numpy().astype(np.float16), residual)

    def photos(self, paths: Iterable[Path], on_error: Callable[[Path, InputError], None]) -> Track:
        """Track pictures one by one, each its own person; one bad file never ends the batch."""
        tracks = []
        for path in tqdm(list(paths), desc="track", unit="photo"):
            try:
                tracks.append(self.photo(read_image(path)))
            except InputError as error:
                on_error(path, error)
        if not tracks:
            raise InputError("no picture could be tracked")
        motions = [track.motion for track in tracks]
        motion = Motion(
            HeadParams.cat([m.params for m in motions]),
            1.0,
            Camera.from_label(torch.cat([m.camera.label for m in motions])),  # type: ignore[union-attr]
            torch.cat([m.confidence for m in motions]),  # type: ignore[misc]
            torch.cat([m.crop for m in motions]),  # type: ignore[misc]
        )
        return Track(motion, np.concatenate([t.points for t in tracks]), torch.cat([t.residual for t in tracks]))

    def video(self, path: Path, *, smoothing: float = 1.0, progress: bool = True) -> Track:
        """Track a clip: one shape for all frames, and a path without jitter or lag.

        Args:
            smoothing: scales the time constants of the smoother; 0 turns it off.

        Raises:
            InputError: not a readable video, or no face in any frame.
        """
        info = video_info(path)
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile(dir=folder) as file:
            # Landmarks of an hour are some hundred megabytes: they wait on the disk, not in memory.
            count = 0
            bar = tqdm(total=info.frames or None, desc="detect", unit="frame", disable=not progress)
            times, codes = [], []
            for frame in read_video(path):
                try:
                    points = self.detect(frame.image).points
                    codes.append(self.expected(frame.image, points))
                except InputError:
                    points = np.full((LANDMARKS, 2), np.nan, np.float32)
                file.write(points.astype(np.float32).tobytes())
                times.append(frame.seconds)
                count += 1
                bar.update()
            bar.close()
            file.flush()
            landmarks = np.memmap(file, np.float32, "r", shape=(count, LANDMARKS, 2))
            known = torch.stack([c for c in codes if c is not None]) if self.deca is not None and codes else None
            track = self.clip(landmarks, fps=info.fps, smoothing=smoothing, progress=progress, expected=known)
            del landmarks
        return constant_rate(track, np.array(times), info.fps)

    def clip(
        self,
        points: np.ndarray,
        *,
        fps: float,
        smoothing: float = 1.0,
        progress: bool = False,
        expected: Tensor | None = None,
    ) -> Track:
        """Track the landmarks (T, 478, 2) of a clip in source pixels; frames of NaN are those without a face.

        Args:
            expected: what DECA says of each frame that has a face, (frames with a face, 159).
        """
        seen = np.flatnonzero(np.isfinite(points[:, 0, 0]))
        if len(seen) == 0:
            raise InputError("no face was found in any frame: use a clip in which a face is well visible")
        keys = points[seen[np.linspace(0, len(seen) - 1, min(KEYFRAMES, len(seen))).round().astype(int)]]
        crop = median_crop([ffhq_crop(p) for p in keys])
        key_fit = self.fitter.fit(torch.from_numpy(crop.normalise(keys)))
        crop = median_crop([reframe(crop, key_fit.camera[i : i + 1]) for i in range(len(keys))])
        key_points = torch.from_numpy(crop.normalise(keys))
        if expected is None:
            shape = self.fitter.merge_shapes(self.fitter.fit(key_points))
        else:
            shape = expected[:, block("shape")].mean(0)
            expected[:, block("shape")] = shape

        bar = tqdm(total=len(points), desc="fit", unit="frame", disable=not progress)
        states = torch.zeros(len(points), block("expression").stop)
        size = states.shape[1]
        scratch = tempfile.TemporaryFile()  # noqa: SIM115 — a frame's information is 14 kB: on the disk, not in memory
        information = np.memmap(scratch, np.float32, "w+", shape=(len(points), size, size))
        base: Tensor | None = None
        residual = torch.full((len(points),), float("nan"))
        eyes = torch.zeros(len(points), 6)
        for first in range(0, len(seen), CHUNK):
            index = seen[first : first + CHUNK]
            inside = torch.from_numpy(crop.normalise(points[index]))
            if expected is None:
                fit = self.fitter.fit(inside, shape=shape)
            else:
                fit = self.fit_expected(inside, expected[first : first + CHUNK])
            base = fit.reference[0] if base is None else base
            where = torch.from_numpy(index)
            states[where] = rebase(fit.state, fit.reference, base)[:, :size]
            information[index] = fit.information.numpy()
            residual[where] = fit.residual
            eyes[where] = self.gaze.fit(inside, fit.params, fit.camera)
            bar.update(len(index))
        bar.close()
        assert base is not None
        lost = torch.from_numpy(~np.isfinite(points[:, 0, 0]))
        states, eyes = fill(states, lost), fill(eyes, lost)
        if smoothing > 0:
            seconds = torch.cat([torch.full((BLOCKS[n],), SMOOTHING[n]) for n in FREE])
            states = smooth(states, information, seconds * fps * smoothing)
        del information
        scratch.close()
        if smoothing > 0:
            known = (~lost).float()[:, None, None] * torch.eye(6)
            eyes = smooth(eyes, known, torch.full((6,), 0.03 * fps * smoothing))
        params = HeadParams(
            shape=shape, expression=states[:, block("expression")], jaw=states[:, block("jaw")], eyes=eyes
        )
        rotation = base @ matrix_from_axis_angle(states[:, block("rotation")])
        camera = camera_from_pose(rotation, states[:, block("translation")], self.fitter.focal)
        spacing = torch.tensor([inter_ocular(p) for p in points]) / crop.side
        residual = residual / spacing
        confidence = torch.where(lost, torch.zeros(()), 1 / (1 + (residual / MISFIT) ** 2))
        crops = torch.tensor([[crop.x, crop.y, crop.side]]).expand(len(points), 3)
        inside = np.stack([crop.normalise(p) for p in points]).astype(np.float16)
        return Track(Motion(params, fps, camera, confidence, crops), inside, residual)


def reframe(crop: Crop, camera: Camera) -> Crop:
    """The crop that puts the head where training pictures have it, given the camera (1,) fitted to ``crop``."""
    uv, grow = framing(camera)
    x, y = crop.restore(uv[0].numpy())
    return Crop(float(x), float(y), float(crop.side * grow[0]))


def median_crop(crops: list[Crop]) -> Crop:
    """The middle of several crops."""
    x, y, side = np.median([(c.x, c.y, c.side) for c in crops], axis=0)
    return Crop(float(x), float(y), float(side))


def fill(values: Tensor, lost: Tensor) -> Tensor:
    """(T, D) with the frames of ``lost`` (T,) taken linearly from their neighbours."""
    if not bool(lost.any()):
        return values
    frames = np.arange(len(values))
    known = frames[~lost.numpy()]
    columns = [np.interp(frames, known, column[known]) for column in values.double().numpy().T]
    return torch.from_numpy(np.stack(columns, 1)).to(values.dtype)


def constant_rate(track: Track, times: np.ndarray, fps: float) -> Track:
    """A clip of variable frame rate brought to a constant one: each output frame takes the frame on show then."""
    if len(times) < 2 or np.abs(np.diff(times) - 1 / fps).max() < 0.25 / fps:
        return track
    wanted = np.arange(max(1, round((times[-1] + 1 / fps) * fps))) / fps
    index = torch.from_numpy(np.clip(np.searchsorted(times, wanted + 0.5 / fps, side="right") - 1, 0, len(times) - 1))
    motion = track.motion
    motion = replace(
        motion,
        params=motion.params[index],
        camera=None if motion.camera is None else motion.camera[index],
        confidence=None if motion.confidence is None else motion.confidence[index],
        crop=None if motion.crop is None else motion.crop[index],
    )
    return Track(motion, track.points[index.numpy()], track.residual[index])


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEOS


def find_pictures(folder: Path) -> list[Path]:
    """The pictures of a folder, sorted by name.

    Raises:
        InputError: there are none.
    """
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES)
    if not found:
        raise InputError(f"{folder} holds no pictures ({', '.join(sorted(PICTURES))})")
    return found
