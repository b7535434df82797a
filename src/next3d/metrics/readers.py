"""Estimators behind one small interface: what a picture shows, and who it shows. Each is named in every result.

For synthetic pictures the bundled networks; for real faces our tracker or DECA's encoder (motion) and ArcFace
(identity), from the user's files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from next3d.errors import InputError
from next3d.estimators import bundled, checksum, rotation_of
from next3d.geometry.cameras import Camera
from next3d.geometry.meshes import world_from_head
from next3d.heads.head_model import HeadModel
from next3d.heads.params import HeadParams
from next3d.io.images import to_uint8
from next3d.metrics.arcface import ArcFace, align, five_points


class MotionReader(Protocol):
    """Reads expression (N, ≤50) and rotation (N, 3, 3) camera-to-world off pictures; NaN where it finds no face."""

    name: str
    checksum: str
    head: str

    def read(self, images: Tensor) -> dict[str, Tensor]: ...


class IdentityReader(Protocol):
    """Unit embeddings (N, F) of pictures, given what was commanded (for aligning)."""

    name: str
    checksum: str

    def embed(self, images: Tensor, params: HeadParams, camera: Tensor) -> Tensor: ...


class FeatureReader(Protocol):
    """Features (N, F) whose Gaussian statistics are compared."""

    name: str
    checksum: str

    def features(self, images: Tensor) -> Tensor: ...


class BundledMotion:
    """The bundled network for factory pictures."""

    def __init__(self) -> None:
        self.network = bundled("motion")
        self.name, self.checksum, self.head = "next3d motion estimator", checksum("motion"), self.network.config.head

    @torch.no_grad()
    def read(self, images: Tensor) -> dict[str, Tensor]:
        said = self.network.predict(images)
        return {
            "expression": said["expression"],
            "jaw": said["jaw"],
            "gaze": said["gaze"],
            "rotation": rotation_of(said["rotation"]),
        }


class BundledIdentity:
    """The bundled network for factory pictures; its embedding is the latent it predicts."""

    def __init__(self) -> None:
        self.network = bundled("identity")
        self.name, self.checksum = "next3d identity estimator", checksum("identity")

    @torch.no_grad()
    def embed(self, images: Tensor, params: HeadParams, camera: Tensor) -> Tensor:
        return self.network.embed(images)


class BundledFeatures:
    """The 256 features before the bundled motion network's output; distances on them are FD-synthetic."""

    def __init__(self) -> None:
        self.network = bundled("motion")
        self.name, self.checksum = "next3d motion estimator's features", checksum("motion")

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        return self.network.features(images)


class TrackedMotion:
    """Our tracker on every picture; with ``deca`` its encoder says the expression."""

    def __init__(self, head: HeadModel, *, deca: Path | None = None):
        from next3d.tracking.track import Tracker

        self.tracker = Tracker(head)
        self.name, self.checksum, self.head = f"next3d tracker on {head.name}", "", head.name
        if deca is not None:
            from next3d.io.files import sha256

            self.tracker.use_deca(deca)
            self.name, self.checksum = "DECA coarse encoder, pose by tracker", sha256(deca)

    def read(self, images: Tensor) -> dict[str, Tensor]:
        rows: dict[str, list[Tensor]] = {"expression": [], "jaw": [], "gaze": [], "rotation": []}
        for picture in to_uint8(images):
            try:
                motion = self.tracker.photo(np.ascontiguousarray(picture)).motion
            except InputError:  # no face found: the reading is missing, and is counted as such
                lost = torch.full((1,), float("nan"))
                rows["expression"].append(lost.expand(50))
                rows["jaw"].append(lost.expand(3))
                rows["gaze"].append(lost.expand(4))
                rows["rotation"].append(lost.expand(3, 3))
                continue
            assert motion.camera is not None
            rows["expression"].append(motion.params.expression[0])
            rows["jaw"].append(motion.params.jaw[0])
            rows["gaze"].append(motion.params.eyes[0, [0, 1, 3, 4]])
            rows["rotation"].append(motion.camera.cam2world[0, :3, :3])
        return {name: torch.stack(values) for name, values in rows.items()}


class ArcFaceIdentity:
    """ArcFace on faces aligned by the landmarks that the commanded head has."""

    def __init__(self, path: Path, head: HeadModel):
        self.network, self.head = ArcFace(path), head
        self.name, self.checksum = self.network.name, self.network.checksum

    @torch.no_grad()
    def embed(self, images: Tensor, params: HeadParams, camera: Tensor) -> Tensor:
        landmarks = world_from_head(self.head(params).landmarks)
        uv, _ = Camera.from_label(camera).project(landmarks)
        return self.network.embed(align(images, five_points(uv)))
