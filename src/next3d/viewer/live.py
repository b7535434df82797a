"""Driving by a camera: one causal tracker per connected page, in the tracking worker's thread."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from next3d.errors import InputError
from next3d.heads import HeadModel
from next3d.io.images import decode_image
from next3d.viewer.protocol import Render
from next3d.viewer.render import Driven

MOST_BYTES = 2**20  # of one camera picture
MOST_DRIVERS = 4  # pages that may drive at once


@dataclass(frozen=True)
class Seen:
    """What one camera picture showed.

    Attributes:
        points: landmarks as whole ten-thousandths of the picture's width and height, x and y in turn; empty without a
            face
        confidence: in [0, 1]
        seconds: decode, detect, fit
    """

    points: list[int]
    confidence: float
    seconds: dict[str, float]


class LiveDriver:
    """Follows the face in the pictures of one page; nothing is kept but the latest parameters."""

    drivers = 0
    lock = threading.Lock()

    def __init__(self, head: HeadModel) -> None:
        with LiveDriver.lock:
            if LiveDriver.drivers >= MOST_DRIVERS:
                raise InputError(f"{MOST_DRIVERS} cameras are being followed already: stop one first")
            LiveDriver.drivers += 1
        self.head = head.to("cpu")
        self.tracker: Any = None
        self.detector: Any = None
        self.latest: Any = None

    def see(self, data: bytes) -> Seen:
        """Track one picture (JPEG, PNG or WebP)."""
        started = time.perf_counter()
        image = decode_image(data)
        decoded = time.perf_counter()
        if self.tracker is None:
            from next3d.tracking.detector import open_detector
            from next3d.tracking.live import LiveTracker

            self.detector = open_detector(video=True, max_faces=1)
            self.tracker = LiveTracker(self.head, self.detector)
        frame = self.tracker.update(image)
        seconds = {"decode": decoded - started}
        if frame is None:
            return Seen([], 0.0, seconds | {"detect": time.perf_counter() - decoded})
        self.latest = frame
        height, width = image.shape[:2]
        points = np.nan_to_num(frame.points / np.array([width, height])).clip(-1, 2)
        flat = np.rint(points * 10_000).astype(int).ravel().tolist()
        return Seen(flat, float(frame.confidence), seconds | frame.seconds)

    def calibrate(self) -> None:
        """Take the face now seen as the neutral one."""
        if self.tracker is None:
            raise InputError("no face has been seen yet: look into the camera, then calibrate")
        self.tracker.calibrate()

    def driven(self, request: Render) -> Driven | None:
        """What to draw of the latest face, or None before there is one."""
        frame = self.latest
        if frame is None:
            return None
        params, camera = frame.params, frame.camera
        if request.mirror:
            params, camera = self.head.mirror(params), camera.mirror()
        return Driven(params.replace(shape=np.zeros(100)), camera if request.pose else None)

    def close(self) -> None:
        """Free the tracker; called once."""
        with LiveDriver.lock:
            LiveDriver.drivers -= 1
        if self.detector is not None:
            self.detector.close()
        self.tracker = self.detector = self.latest = None
