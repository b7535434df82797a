"""Where on a head each detected landmark lies, and how far each is to be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from next3d.heads.head_model import HeadModel
from next3d.heads.params import HeadParams
from next3d.raster.shading import vertex_normals
from next3d.tracking.detector import LANDMARKS

# MediaPipe's number for each of the iBUG-68 landmarks 17–67: brows, nose, eyes, lips. The contour is left out, since
# neither scheme has it on fixed places of the skin.
IBUG_FROM_MEDIAPIPE = (
    *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),
    *(168, 197, 5, 4, 75, 97, 2, 326, 305),
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),
    *(78, 82, 13, 312, 308, 317, 14, 87),
)
# MediaPipe's rings, from its published face mesh topology: what moves most and matters most.
EYELIDS = (
    *(33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    *(263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
)
LIPS = (
    *(61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185),
    *(78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191),
)
OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)


@dataclass(frozen=True)
class Correspondence:
    """P pairs of a detected landmark and a place on the head; irises are left to the gaze.

    Attributes:
        count: how many landmarks the detector gives
        indices: (P,) which of them
        faces, barycentric: (P,), (P, 3) their places on the head
        normals: (P, 3) outward normals there, on the mean head
        weights: (P,) trust, 1 for an ordinary landmark
    """

    count: int
    indices: Tensor
    faces: Tensor
    barycentric: Tensor
    normals: Tensor
    weights: Tensor


def find_correspondence(head: HeadModel) -> Correspondence:
    """MediaPipe's landmarks where the head knows their places, else its iBUG-68 subset."""
    trust = torch.ones(LANDMARKS)
    trust[list(EYELIDS)] = 4.0
    trust[list(LIPS)] = 3.0
    trust[list(OVAL)] = 0.3  # they slide along the outline
    if head.mediapipe is not None:
        faces, barycentric = head.mediapipe
        indices = torch.nonzero(faces[: LANDMARKS - 10] >= 0)[:, 0]
        faces, barycentric = faces[indices], barycentric[indices]
    else:
        indices = torch.tensor(IBUG_FROM_MEDIAPIPE)
        faces, barycentric = head.landmark_faces[17:], head.landmark_barycentric[17:]
        # So few points must all tell the pose: none weighs less, and each stands for its neighbours.
        trust = torch.full((LANDMARKS,), (LANDMARKS / len(indices)) ** 0.5)
    normals = vertex_normals(head(HeadParams()).vertices, head.faces)[0]
    corners = normals[head.faces[faces]]  # (P, 3, 3)
    normals = torch.nn.functional.normalize((corners * barycentric[..., None]).sum(1), dim=-1)
    return Correspondence(LANDMARKS, indices, faces, barycentric, normals, trust[indices])
