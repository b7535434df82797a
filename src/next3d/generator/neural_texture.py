"""The generative neural texture: texture w to a feature picture in UV space (paper, §3.1)."""

from __future__ import annotations

from torch import Tensor, nn

from next3d.generator.config import GeneratorConfig
from next3d.nn.style import StyleTree
from next3d.nn.stylegan2 import SynthesisNetwork


class NeuralTexture(nn.Module):
    """ws to the texture (N, channels, resolution, resolution); rows follow v downwards."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        c = config.texture
        self.network = SynthesisNetwork(
            config.mapping.w_dim,
            c.resolution,
            config.planes.channels,
            channel_base=c.channel_base,
            channel_max=c.channel_max,
        )
        self.first = config.static_count

    def styles(self, ws: Tensor, noise: str = "const") -> StyleTree:
        return self.network.styles(ws[:, self.first :], noise)

    def forward(self, styles: StyleTree) -> Tensor:
        return self.network(styles)
