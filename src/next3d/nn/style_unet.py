"""The style UNet: an encoder of plain convolutions whose features steer a StyleGAN2 decoder (paper, §3.2 and B.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from next3d.nn.equalized import Conv
from next3d.nn.resample import downsample
from next3d.nn.style import Style, StyleTree, channels_last
from next3d.nn.stylegan2 import SynthesisBlock, block_styles, channels_at


class EncoderBlock(nn.Module):
    """Looks at the (shrunken) input picture, adds the features so far, and halves the resolution."""

    def __init__(self, picture_channels: int, channels: int, out_channels: int) -> None:
        super().__init__()
        self.from_picture = Conv(picture_channels, channels, 1, bias=False, activate=False)
        self.conv0 = Conv(channels, channels)
        self.conv1 = Conv(channels, out_channels, down=True)

    def styles(self) -> list[Style]:
        return [self.from_picture.style(), self.conv0.style(), self.conv1.style()]

    def forward(self, picture: Tensor, x: Tensor | None, styles: Sequence[Style]) -> Tensor:
        """Picture (N, C, r, r) and features (N, channels, r, r) or None → features (N, out_channels, r/2, r/2)."""
        look, conv0, conv1 = styles
        seen = look(picture)
        return conv1(conv0(seen if x is None else x + seen))


class StyleUNet(nn.Module):
    """A picture and w vectors to a picture; (N, in, input, input) → (N, out, resolution, resolution).

    Args:
        resolution: of the result
        input_resolution: of the picture that comes in
        final_resolution: where the encoder ends and the decoder starts
    """

    def __init__(
        self,
        w_dim: int,
        in_channels: int,
        out_channels: int,
        *,
        resolution: int,
        input_resolution: int,
        final_resolution: int,
        channel_base: int,
        channel_max: int,
    ) -> None:
        super().__init__()

        def width(r: int) -> int:
            return channels_at(r, channel_base, channel_max)

        encoded = []
        size = input_resolution
        while size > final_resolution:
            encoded.append(size)
            size //= 2
        self.encoder = nn.ModuleList(EncoderBlock(in_channels, width(r), width(r // 2)) for r in encoded)
        # Blocks run from 2·final upwards; a fusion stands before every block whose input the encoder has seen.
        decoded = [2**i for i in range(final_resolution.bit_length(), resolution.bit_length())]
        self.blocks = nn.ModuleDict(
            {str(r): SynthesisBlock(width(r // 2), width(r), w_dim, r, out_channels) for r in decoded}
        )
        self.fusions = nn.ModuleDict(
            {
                str(r // 2): Conv(width(r // 2) * (1 if r == decoded[0] else 2), width(r // 2), activate=False)
                for r in decoded
                if r // 2 < input_resolution
            }
        )
        self.w_count = 2 * (resolution.bit_length() - 2)

    def styles(self, ws: Tensor, noise: str = "const") -> dict[str, StyleTree]:
        """ws (N, w_count, w_dim) → the styles of all convolutions; those of the encoder do not depend on ws."""
        return {
            "encoder": [block.styles() for block in self.encoder],  # type: ignore[operator]
            "fusions": {name: fusion.style() for name, fusion in self.fusions.items()},  # type: ignore[operator]
            "blocks": block_styles(self.blocks, ws, noise),
        }

    def forward(self, picture: Tensor, styles: dict[str, StyleTree]) -> Tensor:
        picture = channels_last(picture)
        seen: dict[int, Tensor] = {}  # the encoder's features by resolution
        x: Tensor | None = None
        for i, (block, of_block) in enumerate(zip(self.encoder, styles["encoder"])):
            if i:
                picture = downsample(picture)
            x = block(picture, x, of_block)
            seen[x.shape[-1]] = x
        assert x is not None
        result = None
        for (name, block), of_block in zip(self.blocks.items(), styles["blocks"]):
            below = str(int(name) // 2)
            if below in self.fusions:
                joined = x if result is None else torch.cat([x, seen[int(below)]], 1)
                x = styles["fusions"][below](joined)
            x, result = block(x, result, of_block)
        assert result is not None
        return result
