"""How faithfully a picture shows what was asked for: AED, APD, APD* (paper §4.1), each as formulas.

For M pictures with estimated ê and commanded e of K numbers each,

    mean absolute   (1/MK) Σ |ê − e|            root mean square   √( (1/MK) Σ (ê − e)² )

AED takes the expression parameters, APD the head's rotation against the camera as yaw, pitch and roll in radians, APD*
yaw and pitch alone. The paper does not say which of the two means it reports, nor its unit; both are recorded.
"""

from __future__ import annotations

import torch
from torch import Tensor

from next3d.errors import InputError
from next3d.geometry.cameras import Camera
from next3d.heads.params import HeadParams


def distance(estimated: Tensor, commanded: Tensor) -> dict[str, float]:
    """Mean absolute and root mean square distance of (M, K) numbers."""
    if estimated.shape != commanded.shape or not len(estimated):
        raise InputError(f"distances need two equal, filled tables, got {estimated.shape} and {commanded.shape}")
    difference = (estimated - commanded).double()
    return {
        "mean_absolute": float(difference.abs().mean()),
        "root_mean_square": float(difference.square().mean().sqrt()),
    }


def angles(rotation: Tensor) -> Tensor:
    """Camera-to-world rotations (N, 3, 3) to (N, 3) radians: yaw and pitch of the viewing direction, and roll.

    As :meth:`Camera.orbit` counts them, but about the camera itself: 0, 0, 0 looks straight at the face.
    """
    forward = rotation[:, :, 2]  # (N, 3) where the camera looks
    yaw = torch.atan2(-forward[:, 0], -forward[:, 2])
    pitch = torch.asin((-forward[:, 1]).clamp(-1, 1))
    zero = torch.zeros_like(yaw)
    level_right = torch.stack([yaw.cos(), zero, -yaw.sin()], -1)
    level_down = torch.linalg.cross(forward, level_right, dim=-1)
    right = rotation[:, :, 0]
    roll = torch.atan2((right * level_down).sum(-1), (right * level_right).sum(-1))
    return torch.stack([yaw, pitch, roll], -1)


def camera_angles(label: Tensor) -> Tensor:
    """(N, 3) angles of camera labels (N, 25)."""
    return angles(Camera.from_label(label).cam2world[..., :3, :3])


def animation_distances(reading: dict[str, Tensor], params: HeadParams, camera: Tensor) -> dict[str, dict[str, float]]:
    """AED, APD, APD*, and the distances of jaw and gaze where the estimator reads them.

    Args:
        reading: expression (M, ≤50), rotation (M, 3, 3) camera-to-world, optionally jaw (M, 3) and gaze (M, 4).
        params, camera: what was commanded.
    """
    expression = reading["expression"]
    turned, wanted = angles(reading["rotation"]), camera_angles(camera)
    difference = torch.remainder(turned - wanted + torch.pi, 2 * torch.pi) - torch.pi
    result = {
        "AED": distance(expression, params.expression[:, : expression.shape[1]]),
        "APD": distance(difference, torch.zeros_like(difference)),
        "APD*": distance(difference[:, :2], torch.zeros_like(difference[:, :2])),
    }
    if "jaw" in reading:
        result["jaw"] = distance(reading["jaw"], params.jaw)
    if "gaze" in reading:
        result["gaze"] = distance(reading["gaze"], params.eyes[:, [0, 1, 3, 4]])
    return result


def identity_consistency(first: Tensor, second: Tensor) -> float:
    """ID: mean cosine of paired embeddings (P, F), two pictures of each identity."""
    cosine = torch.nn.functional.cosine_similarity(first.double(), second.double(), dim=-1)
    return float(cosine.mean())
