"""What inversion compares pictures by: pixels, perceptual features, identity; and where it looks closest."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from next3d.estimators import Estimator
from next3d.geometry.cameras import Camera
from next3d.geometry.meshes import Topology, world_from_head
from next3d.metrics.consistency import face_region
from next3d.perceptual import Perceptual, perceptual_distance, weighted


@torch.no_grad()
def face_weights(topology: Topology, vertices: Tensor, camera: Camera, resolution: int, strength: float) -> Tensor:
    """(N, 1, R, R): ``strength`` where the mesh shows the face, 1 elsewhere, softly between.

    Args:
        vertices: (N, V, 3) metres, head frame
        camera: (N,)
    """
    mask = face_region(topology, world_from_head(vertices), camera, resolution)[:, None].float()
    width = max(1, resolution // 32)
    soft = F.avg_pool2d(mask, 2 * width + 1, 1, width, count_include_pad=False)
    return 1 + (strength - 1) * soft


@dataclass
class PictureLoss:
    """The distance of a picture to a photo; fast to ask again for the same photo.

    Attributes:
        perceptual: features to compare, or None
        identity: the network whose embeddings are compared, or None
        pixel_weight, perceptual_weight, identity_weight: of the three terms
    """

    perceptual: Perceptual | None = None
    identity: Estimator | None = None
    pixel_weight: float = 1.0
    perceptual_weight: float = 1.0
    identity_weight: float = 0.0

    def target(self, photo: Tensor, weight: Tensor | None) -> Target:
        """What is kept of a photo (1, 3, R, R)."""
        with torch.no_grad():
            layers = self.perceptual.layers(photo) if self.perceptual else []
            who = self.identity.embed(photo) if self.identity and self.identity_weight else None
        return Target(photo, weight, layers, who)

    def __call__(self, image: Tensor, target: Target) -> Tensor:
        """A scalar; ``image`` (1, 3, R, R) in [−1, 1]."""
        pixels = (image - target.photo).square().mean(1, keepdim=True)
        total = self.pixel_weight * weighted(pixels, target.weight)
        if self.perceptual is not None and self.perceptual_weight:
            layers = self.perceptual.layers(image)
            total = total + self.perceptual_weight * perceptual_distance(layers, target.layers, target.weight)
        if target.identity is not None and self.identity is not None:
            alike = (self.identity.embed(image) * target.identity).sum(-1).mean()
            total = total + self.identity_weight * (1 - alike)
        return total


@dataclass(frozen=True)
class Target:
    """A photo (1, 3, R, R), the weights of its places (1, 1, R, R), its features and embedding."""

    photo: Tensor
    weight: Tensor | None
    layers: list[Tensor]
    identity: Tensor | None
