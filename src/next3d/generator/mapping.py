"""Latents to w vectors: one mapping network, whose w is given to every layer of every other network."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from next3d.errors import InputError
from next3d.generator.config import LABEL_SIZE, GeneratorConfig
from next3d.nn.stylegan2 import MappingNetwork


class Mapping(nn.Module):
    """z (N, z_dim) and the camera label (N, 25) to ws (N, static_count + texture_count, w_dim).

    The first ``static_count`` vectors drive static planes, mouth, blending and super-resolution; the others, the
    texture.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        c = config.mapping
        label = LABEL_SIZE if c.camera_conditioning else 0
        self.z_dim, self.waves, self.learning_rate = c.z_dim, c.waves, c.learning_rate
        features = c.z_dim * (1 + 2 * c.waves)
        self.network = MappingNetwork(features, label, c.w_dim, layers=c.layers, learning_rate=c.learning_rate)
        self.camera_scale = c.camera_scale
        self.static_count = config.static_count
        self.count = config.static_count + config.texture_count

    def forward(
        self,
        z: Tensor,
        camera_label: Tensor | None = None,
        truncation: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Tensor:
        """Latents to w vectors.

        Args:
            z: (N, z_dim), standard normal
            camera_label: (N, 25), the camera that looks and pose are correlated with; the frontal one for stable
                identities. Ignored if the model is not conditioned on cameras.
            truncation: 1 leaves w alone, 0 gives the mean face
            truncation_cutoff: how many of the first w vectors are truncated; the static half if None (14 of 28 in the
                released model)

        Returns:
            ws (N, count, w_dim). Mixing styles is mixing along dim 1.
        """
        if not math.isfinite(truncation):
            raise InputError(f"truncation must be a finite number, such as 0.7; got {truncation}")
        label = None
        if self.network.label_dim and camera_label is not None:
            label = camera_label * self.camera_scale
        ws = self.network(self.features(z), label)[:, None].repeat(1, self.count, 1)
        if truncation != 1:
            cutoff = self.static_count if truncation_cutoff is None else truncation_cutoff
            ws = torch.cat([self.network.average.lerp(ws[:, :cutoff], truncation), ws[:, cutoff:]], 1)
        return ws

    def features(self, z: Tensor) -> Tensor:
        """What the network sees of z (N, z_dim): itself and waves of its quantiles, (N, z_dim · (1 + 2 · waves)).

        Raises:
            InputError: z has another shape.
        """
        if not self.waves:
            return z
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise InputError(f"z must have shape (N, {self.z_dim}), got {tuple(z.shape)}")
        turn = 2 * math.pi * torch.special.ndtr(z)  # a quantile in [0, 1] as an angle
        waves = [math.sqrt(2) * wave(k * turn) for k in range(1, self.waves + 1) for wave in (torch.sin, torch.cos)]
        return torch.cat([z, *waves], 1)  # each of unit variance

    @property
    def average(self) -> Tensor:
        """(w_dim,) the running mean of w."""
        return self.network.average

    def track_average(self, ws: Tensor, decay: float = 0.998) -> None:
        """Move the running mean of w towards the mean of ws (…, w_dim)."""
        self.network.track_average(ws.flatten(0, -2), decay)
