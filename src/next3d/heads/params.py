"""What drives a head: :class:`HeadParams` (one pose or a batch of them) and :class:`Motion` (poses over time)."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from dataclasses import replace as dataclass_replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from next3d.errors import InputError
from next3d.geometry.cameras import Camera
from next3d.geometry.rotations import axis_angle_from_matrix, matrix_from_axis_angle
from next3d.io.files import atomic_path

if TYPE_CHECKING:
    from next3d.heads.head_model import HeadModel

LENGTHS = {"shape": 100, "expression": 50, "neck": 3, "jaw": 3, "eyes": 6}
MOTION_FORMAT = 1


@dataclass(frozen=True, eq=False)
class HeadParams:
    """Parameters of a head in FLAME's order and units; what is not given is zero.

    Each field takes a tensor, an array or a sequence of numbers and is kept as a float32 tensor (..., length). The
    leading dimensions are broadcast to a common :attr:`batch_shape`, so that one shape may meet many expressions.

    Attributes:
        shape: (..., 100) identity, in standard deviations
        expression: (..., 50); the built-in head names them (``HeadModel.expression_names``), 1 is the full expression
        neck: (..., 3) axis-angle in radians; +x nods down, +y turns to the subject's left
        jaw: (..., 3) axis-angle in radians; +x opens
        eyes: (..., 6) axis-angle in radians, left eye then right eye; +x looks down, +y to the subject's left

    Raises:
        InputError: a field of the wrong length, a value that is no finite number, or batches that do not fit together.
    """

    shape: Tensor = None  # type: ignore[assignment]
    expression: Tensor = None  # type: ignore[assignment]
    neck: Tensor = None  # type: ignore[assignment]
    jaw: Tensor = None  # type: ignore[assignment]
    eyes: Tensor = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        given = {name: as_field(name, getattr(self, name)) for name in LENGTHS if getattr(self, name) is not None}
        device = next((value.device for value in given.values()), None)
        try:
            # NumPy's: torch's imports sympy, 35 MB
            batch = np.broadcast_shapes(*(value.shape[:-1] for value in given.values()))
        except ValueError:
            found = ", ".join(f"{name} {tuple(value.shape)}" for name, value in given.items())
            raise InputError(f"head parameters have leading dimensions that do not fit together: {found}") from None
        for name, length in LENGTHS.items():
            value = given.get(name)
            value = torch.zeros(length, device=device) if value is None else value
            object.__setattr__(self, name, value.expand(*batch, length))

    @property
    def batch_shape(self) -> torch.Size:
        """The leading dimensions that all fields share; () for a single head."""
        return self.shape.shape[:-1]

    def __len__(self) -> int:
        if not self.batch_shape:
            raise TypeError("a single HeadParams has no length; stack several with HeadParams.stack")
        return self.batch_shape[0]

    def __getitem__(self, index: Any) -> HeadParams:
        """Index the leading dimensions."""
        if not self.batch_shape:
            raise IndexError("a single HeadParams cannot be indexed")
        index = index if isinstance(index, tuple) else (index,)
        if len(index) > len(self.batch_shape):
            raise IndexError(f"{len(index)} indices for leading dimensions {tuple(self.batch_shape)}")
        return HeadParams(**{name: value[index] for name, value in self.as_dict().items()})

    def to(self, *args: Any, **kwargs: Any) -> HeadParams:
        """Move to a device, as ``Tensor.to``."""
        return HeadParams(**{name: value.to(*args, **kwargs) for name, value in self.as_dict().items()})

    def replace(self, **changes: Any) -> HeadParams:
        """A copy with some fields changed: ``params.replace(jaw=(0.2, 0, 0))``."""
        unknown = set(changes) - set(LENGTHS)
        if unknown:
            raise InputError(f"head parameters have no '{sorted(unknown)[0]}'; they have {', '.join(LENGTHS)}")
        return dataclass_replace(self, **changes)

    def reshape(self, *batch: int) -> HeadParams:
        """The same parameters with other leading dimensions."""
        return HeadParams(**{name: value.reshape(*batch, LENGTHS[name]) for name, value in self.as_dict().items()})

    def as_dict(self) -> dict[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def vector(self) -> Tensor:
        """(..., 162): all fields in order, concatenated. :meth:`from_vector` is the inverse."""
        return torch.cat(list(self.as_dict().values()), -1)

    @staticmethod
    def from_vector(vector: Tensor) -> HeadParams:
        """Parameters from (..., 162) numbers."""
        if vector.shape[-1] != sum(LENGTHS.values()):
            raise InputError(f"head parameters are {sum(LENGTHS.values())} numbers, got {vector.shape[-1]}")
        return HeadParams(**dict(zip(LENGTHS, vector.split(list(LENGTHS.values()), -1))))

    @staticmethod
    def stack(many: Iterable[HeadParams]) -> HeadParams:
        """Join parameters of one batch shape along a new first dimension."""
        many = list(many)
        if not many:
            raise InputError("cannot stack an empty list of head parameters")
        return HeadParams(**{name: torch.stack([getattr(one, name) for one in many]) for name in LENGTHS})

    @staticmethod
    def cat(many: Iterable[HeadParams]) -> HeadParams:
        """Join batches of parameters along their first dimension."""
        many = list(many)
        return HeadParams(**{name: torch.cat([getattr(one, name) for one in many]) for name in LENGTHS})


def as_field(name: str, value: Any) -> Tensor:
    """One field of :class:`HeadParams` as a checked float32 tensor (..., length)."""
    length = LENGTHS[name]
    try:
        tensor = torch.as_tensor(value) if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
        tensor = tensor.float()
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"head parameter '{name}' must be {length} numbers, got {value!r:.80}") from None
    if tensor.ndim == 0 or tensor.shape[-1] != length:
        got = tensor.shape[-1] if tensor.ndim else "a single number"
        raise InputError(f"head parameter '{name}' has {length} numbers in its last dimension, got {got}")
    # Reading a value back from a GPU would stall it, so only the CPU's tensors are checked.
    if tensor.device.type == "cpu" and not torch.isfinite(tensor.detach()).all():
        raise InputError(f"head parameter '{name}' holds NaN or infinity; every value must be a finite number")
    return tensor


@dataclass(frozen=True, eq=False)
class Motion:
    """Head parameters over time, at a constant frame rate.

    Attributes:
        params: :class:`HeadParams` of batch shape (T,), T ≥ 1
        fps: frames per second
        camera: a :class:`Camera` of batch shape (T,), or None: the viewer's choice
        confidence: (T,) in [0, 1], how far a tracker trusts each frame, or None
        crop: (T, 3) centre column, centre row and side in source pixels of the square that the camera sees, so that
            results can be pasted back; or None
    """

    params: HeadParams
    fps: float = 25.0
    camera: Camera | None = None
    confidence: Tensor | None = None
    crop: Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.params.batch_shape) != 1 or self.params.batch_shape[0] < 1:
            raise InputError(
                "a motion needs head parameters of shape (frames, length), "
                f"got leading dimensions {tuple(self.params.batch_shape)}"
            )
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise InputError(f"a motion's fps must be a positive number, got {self.fps}")
        frames = len(self)
        if self.camera is not None and tuple(self.camera.batch_shape) != (frames,):
            raise InputError(
                f"a motion of {frames} frames needs {frames} cameras, got {tuple(self.camera.batch_shape)}"
            )
        if self.confidence is not None and tuple(self.confidence.shape) != (frames,):
            raise InputError(
                f"a motion of {frames} frames needs {frames} confidences, got {tuple(self.confidence.shape)}"
            )
        if self.crop is not None and tuple(self.crop.shape) != (frames, 3):
            raise InputError(
                f"a motion of {frames} frames needs crops of shape ({frames}, 3), got {tuple(self.crop.shape)}"
            )

    def __len__(self) -> int:
        return self.params.batch_shape[0]

    @property
    def seconds(self) -> float:
        """Duration: frames / fps."""
        return len(self) / self.fps

    def __getitem__(self, index: slice) -> Motion:
        """A part of the motion: ``motion[25:75]``."""
        if not isinstance(index, slice):
            raise TypeError("a motion is sliced: motion[a:b]; one frame's parameters are motion.params[i]")
        return Motion(
            self.params[index],
            self.fps / abs(index.step or 1),
            None if self.camera is None else self.camera[index],
            None if self.confidence is None else self.confidence[index],
            None if self.crop is None else self.crop[index],
        )

    def save(self, path: str | Path) -> None:
        """Write an ``.npz`` of named arrays: the five fields, fps, units; camera (T, 25), confidence (T,) if any."""
        arrays = {name: value.detach().cpu().numpy() for name, value in self.params.as_dict().items()}
        if self.camera is not None:
            arrays["camera"] = self.camera.label.detach().cpu().numpy()
        if self.confidence is not None:
            arrays["confidence"] = self.confidence.detach().cpu().numpy()
        if self.crop is not None:
            arrays["crop"] = self.crop.detach().cpu().numpy()
        units = (
            "shape: standard deviations; expression: 1 is full; neck, jaw, eyes (left, right): axis-angle in radians"
        )
        with atomic_path(Path(path).with_suffix(".npz")) as temporary:
            np.savez_compressed(
                temporary,
                format=np.int64(MOTION_FORMAT),
                fps=np.float64(self.fps),
                units=np.array(units),
                **arrays,
            )

    @staticmethod
    def load(path: str | Path) -> Motion:
        """Read what :meth:`save` wrote; fields that the file lacks are zero.

        Raises:
            InputError: no such file, not a motion file, or arrays of the wrong shape.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"there is no motion file {path}")
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is not a readable motion file (.npz of plain arrays): {error}") from None
        known = {*LENGTHS, "fps", "camera", "confidence", "crop", "format", "units"}
        unknown = sorted(set(arrays) - known)
        if unknown or "fps" not in arrays or not set(LENGTHS) & set(arrays):
            what = f"it holds '{unknown[0]}'" if unknown else "it lacks fps or every parameter"
            raise InputError(f"{path} is not a motion file: {what}; expected fps and some of {', '.join(LENGTHS)}")
        if int(arrays.get("format", 1)) > MOTION_FORMAT:
            raise InputError(
                f"{path} was written by a newer next3d (motion format {int(arrays['format'])}): update next3d"
            )
        try:
            camera = Camera.from_label(arrays["camera"]).to(torch.float32) if "camera" in arrays else None
            confidence = torch.as_tensor(arrays["confidence"]).float() if "confidence" in arrays else None
            params = HeadParams(**{name: arrays[name] for name in LENGTHS if name in arrays})
            crop = torch.as_tensor(arrays["crop"]).float() if "crop" in arrays else None
            return Motion(params, float(arrays["fps"]), camera, confidence, crop)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    def resample(self, fps: float) -> Motion:
        """The same motion at another frame rate, linear between frames (cameras turn at constant speed)."""
        if not (math.isfinite(fps) and fps > 0):
            raise InputError(f"fps must be a positive number, got {fps}")
        count = max(1, round(len(self) * fps / self.fps))
        time = torch.arange(count, dtype=torch.float64) * (self.fps / fps)
        first = time.floor().long().clamp(max=len(self) - 1)
        second = (first + 1).clamp(max=len(self) - 1)
        weight = (time - first).clamp(0, 1).float()
        vector = self.params.vector()
        params = HeadParams.from_vector(torch.lerp(vector[first], vector[second], weight[:, None]))
        camera = None if self.camera is None else blend_cameras(self.camera[first], self.camera[second], weight)
        confidence = self.confidence
        if confidence is not None:
            confidence = torch.lerp(confidence[first], confidence[second], weight)
        crop = None if self.crop is None else torch.lerp(self.crop[first], self.crop[second], weight[:, None])
        return Motion(params, fps, camera, confidence, crop)

    def smooth(self, seconds: float = 0.08) -> Motion:
        """Remove jitter with a Gaussian of the given standard deviation in time; a frame weighs as its confidence."""
        sigma = seconds * self.fps
        if sigma <= 0:
            return self
        frames = torch.arange(len(self), dtype=torch.float32)
        weights = torch.exp(-0.5 * ((frames[:, None] - frames) / sigma) ** 2)
        if self.confidence is not None:
            weights = weights * self.confidence.clamp_min(1e-3)
        weights = weights / weights.sum(1, keepdim=True)
        camera = None
        if self.camera is not None:
            left, _, right = torch.linalg.svd(
                (weights @ self.camera.cam2world[:, :3, :3].flatten(1)).unflatten(1, (3, 3))
            )
            cam2world = self.camera.cam2world.clone()
            cam2world[:, :3, :3] = left @ right  # the rotation nearest to the mean matrix
            cam2world[:, :3, 3] = weights @ self.camera.cam2world[:, :3, 3]
            camera = Camera(cam2world, (weights @ self.camera.intrinsics.flatten(1)).unflatten(1, (3, 3)))
        params = HeadParams.from_vector(weights @ self.params.vector())
        return Motion(params, self.fps, camera, self.confidence, self.crop)

    def mirror(self, head: HeadModel) -> Motion:
        """Left and right exchanged, as ``head`` mirrors its parameters; cameras too."""
        camera = None if self.camera is None else self.camera.mirror()
        return Motion(head.mirror(self.params), self.fps, camera, self.confidence)

    def retarget(self, shape: Tensor | Sequence[float] | HeadParams) -> Motion:
        """The motion on another identity: every frame takes ``shape`` (100), an avatar's own."""
        shape = shape.shape if isinstance(shape, HeadParams) else shape
        if as_field("shape", shape).ndim != 1:
            raise InputError("retargeting needs one shape of 100 numbers")
        return dataclass_replace(self, params=self.params.replace(shape=shape))

    @staticmethod
    def concatenate(motions: Sequence[Motion], *, blend: float = 0.0) -> Motion:
        """Motions one after another at the first one's frame rate, cross-faded over ``blend`` seconds.

        Cameras and confidences are kept where every motion has them.
        """
        if not motions:
            raise InputError("cannot concatenate an empty list of motions")
        fps = motions[0].fps
        result, *rest = (motion if motion.fps == fps else motion.resample(fps) for motion in motions)
        for motion in rest:
            overlap = min(round(blend * fps), len(result), len(motion))
            weight = smoothstep((torch.arange(overlap) + 1.0) / (overlap + 1))
            cut = len(result) - overlap

            def join(a: Tensor, b: Tensor, cut: int = cut, overlap: int = overlap, weight: Tensor = weight) -> Tensor:
                between = torch.lerp(a[cut:], b[:overlap], weight.view(-1, *[1] * (a.ndim - 1)))
                return torch.cat([a[:cut], between, b[overlap:]])

            camera = confidence = None
            if result.camera is not None and motion.camera is not None:
                between = blend_cameras(result.camera[cut:], motion.camera[:overlap], weight)
                parts = [result.camera[:cut].label, between.label, motion.camera[overlap:].label]
                camera = Camera.from_label(torch.cat(parts))
            if result.confidence is not None and motion.confidence is not None:
                confidence = join(result.confidence, motion.confidence)
            params = HeadParams.from_vector(join(result.params.vector(), motion.params.vector()))
            result = Motion(params, fps, camera, confidence)
        return result

    @staticmethod
    def clip(name: str, head: HeadModel, *, seconds: float | None = None, fps: float = 25.0, seed: int = 0) -> Motion:
        """A built-in clip made by formulas: one of :data:`next3d.heads.motions.CLIPS`."""
        from next3d.heads.motions import make_clip

        return make_clip(name, head, seconds=seconds, fps=fps, seed=seed)


def smoothstep(t: Tensor) -> Tensor:
    """3t² − 2t³ on [0, 1], clamped outside."""
    t = t.clamp(0, 1)
    return t * t * (3 - 2 * t)


def blend_cameras(a: Camera, b: Camera, weight: Tensor) -> Camera:
    """Cameras between ``a`` and ``b`` (each (T,)): rotations turn along the shortest arc, the rest is linear."""
    rotation_a, rotation_b = a.cam2world[:, :3, :3], b.cam2world[:, :3, :3]
    arc = axis_angle_from_matrix(rotation_a.transpose(-1, -2) @ rotation_b)
    cam2world = torch.lerp(a.cam2world, b.cam2world, weight[:, None, None])
    cam2world[:, :3, :3] = rotation_a @ matrix_from_axis_angle(arc * weight[:, None])
    return Camera(cam2world, torch.lerp(a.intrinsics, b.intrinsics, weight[:, None, None]))
