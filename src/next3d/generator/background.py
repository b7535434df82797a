"""What rays see that meet nothing: a small picture made of the static w, the same from every camera.

Photos fill their corners with density of the static planes, as the paper's model does. Where heads stand before a plain
or blurred background, this costs less and leaves the volume to the head.
"""

from __future__ import annotations

from torch import Tensor, nn

from next3d.generator.config import GeneratorConfig
from next3d.nn.stylegan2 import Style, SynthesisNetwork


class Background(nn.Module):
    """ws to the background (N, channels, resolution, resolution) in about [0, 1], in the picture's frame."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        c = config.background
        self.network = SynthesisNetwork(
            config.mapping.w_dim,
            c.resolution,
            config.planes.channels,
            channel_base=c.channel_base,
            channel_max=c.channel_max,
        )

    def styles(self, ws: Tensor, noise: str = "const") -> list[list[Style]]:
        return self.network.styles(ws, noise)

    def forward(self, styles: list[list[Style]]) -> Tensor:
        return self.network(styles).sigmoid() * 1.002 - 0.001
