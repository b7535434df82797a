"""Gaze (paper, B.1): yaw and pitch of each eye from the five landmarks of its iris, by reprojection error."""

from __future__ import annotations

import torch
from torch import Tensor

from next3d.geometry.cameras import Camera
from next3d.geometry.meshes import world_from_head
from next3d.geometry.rotations import matrix_from_axis_angle
from next3d.heads.head_model import HeadModel
from next3d.heads.params import HeadParams
from next3d.tracking.detector import IRIS_LEFT, IRIS_RIGHT, LANDMARKS
from next3d.tracking.least_squares import solve

NOISE = 1.0 / 512  # of an iris landmark, as a share of the crop
DEVIATION = 0.35  # radians, prior of each angle; some 20°
VERGENCE = 0.06  # radians, how far the two eyes may disagree: yaw; pitch half of it
CLOSED = 0.6  # eyelids closed beyond this share hide the iris


class GazeFitter:
    """Solves for eye rotations with everything else fixed.

    The iris places come from the head's MediaPipe correspondence; a head that has none offers its two iris centres.
    """

    def __init__(self, head: HeadModel):
        self.head = head
        left, right = range(LANDMARKS)[IRIS_LEFT], range(LANDMARKS)[IRIS_RIGHT]
        known = head.mediapipe is not None and bool((head.mediapipe[0][[*left, *right]] >= 0).all())
        if known:
            indices = torch.tensor([*left, *right])
            faces, barycentric = head.mediapipe[0][indices], head.mediapipe[1][indices]  # type: ignore[index]
            self.pool = torch.eye(len(indices))
        else:
            faces, barycentric = head.iris_faces, head.iris_barycentric
            indices = torch.tensor([*left, *right])
            self.pool = torch.zeros(2, len(indices))  # the detector's five points average to the centre
            self.pool[0, : len(left)], self.pool[1, len(left) :] = 1 / len(left), 1 / len(right)
        self.indices = indices
        self.points = head.at(faces, barycentric)
        blink = [name.startswith("eyeBlink") for name in head.expression_names]
        self.blink = torch.tensor(blink)

    @torch.no_grad()
    def fit(self, points: Tensor, params: HeadParams, camera: Camera, *, iterations: int = 6) -> Tensor:
        """Eye rotations (N, 6), axis-angle, left then right, for params and cameras fitted before.

        Args:
            points: (N, 478, 2) MediaPipe landmarks in crop coordinates.
        """
        observed = self.pool @ points[:, self.indices]  # (N, P, 2)
        linear = torch.cat([params.shape, params.expression], -1)
        still, jaw = torch.zeros_like(params.jaw), params.jaw
        closed = params.expression[:, self.blink].amax(1) if bool(self.blink.any()) else params.jaw.new_zeros(len(jaw))
        trust = (1 - closed / CLOSED).clamp(0.02, 1)[:, None, None]

        def landmarks(x: Tensor) -> Tensor:
            zero = torch.zeros_like(x[:, 0])
            left, right = torch.stack([x[:, 0], x[:, 1], zero], -1), torch.stack([x[:, 2], x[:, 3], zero], -1)
            rotations = matrix_from_axis_angle(torch.stack([still, jaw, left, right], 1))
            posed, _ = self.points.skinned(linear, rotations)
            return camera.project(world_from_head(posed))[0]

        def residual(x: Tensor) -> Tensor:
            data = (landmarks(x) - observed) * trust / NOISE
            agree = (x[:, :2] - x[:, 2:]) * x.new_tensor([2 / VERGENCE, 1 / VERGENCE])
            return torch.cat([data.flatten(1), x / DEVIATION, agree], 1)

        x = solve(residual, points.new_zeros(len(points), 4), iterations=iterations).x.clamp(-0.7, 0.7)
        zero = torch.zeros_like(x[:, :1])
        return torch.cat([x[:, :2], zero, x[:, 2:], zero], -1)
