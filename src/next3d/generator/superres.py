"""Super-resolution: the rays' feature picture to the final one, steered by the last static w (paper, §3.4)."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from next3d.generator.config import GeneratorConfig
from next3d.nn.style import StyleTree, first_style
from next3d.nn.stylegan2 import SynthesisBlock


class Superres(nn.Module):
    """Feature picture (N, C, r, r), whose first three channels are the colour → the final picture (N, 3, R, R)."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        c = config.superres
        widths = (config.planes.channels, *c.channels)
        self.resolution = c.resolution
        self.input_resolution = c.resolution >> len(c.channels)
        self.blocks = nn.ModuleList(
            SynthesisBlock(a, b, config.mapping.w_dim, self.input_resolution << (i + 1), 3, noise=False)
            for i, (a, b) in enumerate(pairwise(widths))
        )
        self.last = config.static_count - 1

    def styles(self, ws: Tensor) -> StyleTree:
        """ws (N, count, w_dim) → the styles of every block, all from the last static w."""
        w = ws[:, self.last]
        return [block.styles(iter([w, w, w]), "none") for block in self.blocks]  # type: ignore[operator]

    def forward(self, features: Tensor, styles: StyleTree) -> Tensor:
        """``features`` come in float32; the blocks compute in the precision of their styles."""
        if features.shape[-1] != self.input_resolution:
            size = (self.input_resolution, self.input_resolution)
            features = F.interpolate(features, size, mode="bilinear", align_corners=False, antialias=True)
        if (some := first_style(styles)) is not None:
            features = features.to(some.weight.dtype)
        picture = features[:, :3]
        x = features
        for block, of_block in zip(self.blocks, styles):
            x, picture = block(x, picture, of_block)
        return picture
