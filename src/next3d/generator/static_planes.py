"""The static planes: hair, body and background, which no expression moves (paper, §3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from next3d.generator.config import GeneratorConfig
from next3d.nn.resample import upsample
from next3d.nn.style import StyleTree
from next3d.nn.stylegan2 import SynthesisNetwork


class StaticPlanes(nn.Module):
    """ws to three planes (N, channels, R, R), the first at the front plane's resolution."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        c = config.static
        self.channels = config.planes.channels
        self.network = SynthesisNetwork(
            config.mapping.w_dim,
            c.resolution,
            3 * self.channels,
            channel_base=c.channel_base,
            channel_max=c.channel_max,
        )
        side = config.planes.resolution if config.planes.enabled else c.resolution
        front = config.planes.front_resolution if config.planes.enabled else c.resolution
        self.resolutions = (front, side, side)
        self.through = nn.Parameter(torch.zeros(3, self.channels)) if c.shows_through else None  # 0: not at all
        self.through_learns = True  # whether gradients reach the static planes where they show through

    def styles(self, ws: Tensor, noise: str = "const") -> StyleTree:
        return self.network.styles(ws, noise)

    def forward(self, styles: StyleTree) -> tuple[Tensor, ...]:
        planes = list(self.network(styles).split(self.channels, 1))
        for i, resolution in enumerate(self.resolutions):
            while planes[i].shape[-1] < resolution:
                planes[i] = upsample(planes[i])
        return tuple(planes)

    def alpha_blend(self, dynamic: Sequence[Tensor], static: Sequence[Tensor], alpha: Sequence[Tensor]) -> list[Tensor]:
        """Blend dynamic planes over static ones (§3.3): α·dynamic + (1 − α)·static, and what shows through.

        Args:
            dynamic, static: three planes each, (N, C, R, R)
            alpha: of each plane (N, 1, R, R) in [0, 1], 1 where the dynamic plane stands

        Returns:
            three planes (N, C, R, R)
        """
        blended = []
        for i, (moving, still, share) in enumerate(zip(dynamic, static, alpha)):
            still, share = still.to(moving), share.to(moving)  # under autocast they may come in different precisions
            plane = torch.lerp(still, moving, share)
            if self.through is not None:
                seen = still if self.through_learns else still.detach()
                plane = torch.addcmul(plane, share * self.through[i, :, None, None].to(moving), seen)
            blended.append(plane)
        return blended
