"""The causal tracker for live use: one frame in, one pose out, steady at rest and quick in motion."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from next3d.errors import InputError
from next3d.geometry.cameras import Camera
from next3d.geometry.rotations import matrix_from_axis_angle
from next3d.heads.head_model import HeadModel
from next3d.heads.params import HeadParams
from next3d.tracking.crop import Crop, ffhq_crop
from next3d.tracking.detector import Detector, open_detector
from next3d.tracking.fit import SIZE, block, camera_from_pose, rebase
from next3d.tracking.smoothing import OneEuro
from next3d.tracking.track import MISFIT, Tracker, inter_ocular, median_crop, reframe

CALIBRATION_FRAMES = 6  # frames whose shapes are merged before the shape is held
STEP = {"rotation": 0.35, "translation": 0.3, "jaw": 0.5, "expression": 0.8}  # prior: change from frame to frame


@dataclass(frozen=True)
class LiveFrame:
    """One tracked frame.

    Attributes:
        params: one :class:`HeadParams`
        camera: one :class:`Camera`, of ``crop``
        crop: the square of the picture that the camera sees
        points: (478, 2) detected landmarks in pixels of the picture
        confidence: in [0, 1]
        seconds: {"detect", "fit"} time that each stage took
    """

    params: HeadParams
    camera: Camera
    crop: Crop
    points: np.ndarray
    confidence: float
    seconds: dict[str, float]


class LiveTracker:
    """Follows the largest face of a stream of pictures.

    The first frames also learn the person's shape, which is held afterwards; :meth:`calibrate` takes the present face
    as the neutral one, and later parameters are relative to it.
    """

    def __init__(self, head: HeadModel, detector: Detector | None = None):
        self.tracker = Tracker(head, detector or open_detector(video=True, max_faces=1))
        self.fitter = self.tracker.fitter
        self.neutral: HeadParams | None = None
        self.reset()

    def reset(self) -> None:
        """Forget the person."""
        self.crop: Crop | None = None
        self.shapes: list[Tensor] = []
        self.state: Tensor | None = None
        self.reference = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # the frontal camera
        self.filter = OneEuro(cutoff=2.0, speed=10.0)
        self.latest: LiveFrame | None = None
        self.clock: float | None = None

    def update(self, image: np.ndarray, seconds: float | None = None) -> LiveFrame | None:
        """Track the next picture (H, W, 3) uint8; None where no face is visible.

        Args:
            seconds: the picture's time; the wall clock by default.
        """
        started = time.perf_counter()
        now = started if seconds is None else seconds
        try:
            points = self.tracker.detect(image).points
        except InputError:
            self.state, self.clock = None, None
            return None
        detected = time.perf_counter()
        params, camera, residual = self.fit(points, now)
        assert self.crop is not None
        misfit = residual / (inter_ocular(points) / self.crop.side)
        frame = LiveFrame(
            params,
            camera,
            self.crop,
            points,
            1 / (1 + (misfit / MISFIT) ** 2),
            {"detect": detected - started, "fit": time.perf_counter() - detected},
        )
        self.latest = frame
        return frame if self.neutral is None else relative(frame, self.neutral)

    def fit(self, points: np.ndarray, now: float) -> tuple[HeadParams, Camera, float]:
        """One frame's fit, started from the frame before and filtered."""
        if len(self.shapes) < CALIBRATION_FRAMES:
            self.learn(points)
        assert self.crop is not None
        inside = torch.from_numpy(self.crop.normalise(points))[None]
        shape = torch.stack(self.shapes).mean(0)
        if self.state is None:
            found = self.fitter.fit(inside, shape=shape)
        else:
            previous = self.state.clone()
            previous[:, block("shape")] = shape
            step = torch.full((SIZE,), float("inf"))
            for name, size in STEP.items():
                step[block(name)] = size
            own = self.fitter.precision
            precision = (own**2 + step**-2).sqrt()
            prior = previous * step**-2 / (precision**2).clamp_min(1e-9)  # the mean of both priors
            found = self.fitter.fit(
                inside,
                shape=shape,
                start=(previous, self.reference[None]),
                prior=prior,
                precision=precision[None],
                iterations=2,  # the frame before is near
            )
        self.state = rebase(found.state, found.reference, self.reference)
        eyes = self.tracker.gaze.fit(inside, found.params, found.camera, iterations=2)
        elapsed = 0.0 if self.clock is None else now - self.clock
        self.clock = now
        steady = self.filter(torch.cat([self.state[0], eyes[0]]), elapsed)
        state, eyes = steady[None, :SIZE], steady[SIZE:]
        camera = camera_from_pose(
            self.reference @ matrix_from_axis_angle(state[:, block("rotation")]),
            state[:, block("translation")],
            self.fitter.focal,
        )
        params = HeadParams(
            shape=shape, expression=state[0, block("expression")], jaw=state[0, block("jaw")], eyes=eyes
        )
        return params, camera[0], float(found.residual)

    def learn(self, points: np.ndarray) -> None:
        """Add what this frame says about shape and framing."""
        crop = self.crop or ffhq_crop(points)
        found = self.fitter.fit(torch.from_numpy(crop.normalise(points))[None])
        self.crop = median_crop([crop, reframe(crop, found.camera)]) if self.crop else reframe(crop, found.camera)
        self.shapes.append(found.params.shape[0])
        self.state = None  # the crop moved: start afresh

    def calibrate(self) -> None:
        """Take the latest frame as the neutral face.

        Raises:
            InputError: no face has been seen yet.
        """
        if self.latest is None:
            raise InputError("no face has been seen yet: look into the camera, then calibrate")
        self.neutral = self.latest.params


def relative(frame: LiveFrame, neutral: HeadParams) -> LiveFrame:
    """``frame`` with expression, jaw and eyes relative to ``neutral``."""
    params = frame.params.replace(
        expression=frame.params.expression - neutral.expression,
        jaw=frame.params.jaw - neutral.jaw,
        eyes=frame.params.eyes - neutral.eyes,
    )
    return LiveFrame(params, frame.camera, frame.crop, frame.points, frame.confidence, frame.seconds)
