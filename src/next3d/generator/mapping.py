"""Latents to w vectors: one mapping network, whose w is given to every layer of every other network."""

from __future__ import annotations

from torch import Tensor, nn

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
        self.network = MappingNetwork(c.z_dim, label, c.w_dim, layers=c.layers, learning_rate=c.learning_rate)
        self.camera_scale = c.camera_scale
        self.static_count = config.static_count
        self.count = config.static_count + config.texture_count

    def forward(
        self,
        z: Tensor,
        camera_label: Tensor | None = None,
        *,
        truncation: float = 1.0,
        truncation_cutoff: int | None = None,
        track_average: bool = False,
    ) -> Tensor:
        """See :meth:`next3d.generator.generator.Generator.mapping`."""
        label = None
        if self.network.label_dim and camera_label is not None:
            label = camera_label * self.camera_scale
        w = self.network(z, label)  # (N, w_dim)
        if track_average:
            self.network.track_average(w)
        ws = w[:, None].repeat(1, self.count, 1)
        if truncation != 1:
            cutoff = self.static_count if truncation_cutoff is None else truncation_cutoff
            ws[:, :cutoff] = self.network.average.lerp(ws[:, :cutoff], truncation)
        return ws
