"""StyleGAN2: the mapping network, modulated convolutions, and the synthesis network with skip connections.

A modulated convolution depends on its latent w only through its *style*. Every network here therefore works in two
steps: ``network.styles(ws)`` computes all styles, ``network(styles)`` runs the picture through them. For one latent the
first step folds modulation, demodulation and activation gain into plain weights, which costs no pass over the pictures;
keeping those styles is what "baking" an avatar means. For a batch of latents the activations are scaled instead
(x·s → shared convolution → ·d), so that no grouped convolution is ever needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from next3d.errors import InputError
from next3d.nn.equalized import Linear
from next3d.nn.resample import upsample
from next3d.nn.style import GAIN, Style, channels_last

NOISE_MODES = ("const", "random", "none")


def channels_at(resolution: int, base: int, maximum: int) -> int:
    """The width of a StyleGAN2 network at a resolution: min(base / resolution, maximum)."""
    return max(min(base // resolution, maximum), 1)


def is_power_of_two(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0


def normalize_second_moment(x: Tensor) -> Tensor:
    """(N, D) scaled to a mean square of one."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class MappingNetwork(nn.Module):
    """A latent z and an optional label to the intermediate latent w; (N, z_dim), (N, label_dim) → (N, w_dim).

    Attributes:
        average: (w_dim,) running mean of w, the centre of truncation
    """

    average: Tensor

    def __init__(self, z_dim: int, label_dim: int, w_dim: int, *, layers: int = 2, learning_rate: float = 0.01) -> None:
        super().__init__()
        self.z_dim, self.label_dim = z_dim, label_dim
        features = z_dim
        if label_dim:
            self.embed = Linear(label_dim, w_dim)
            features += w_dim
        sizes = [features] + [w_dim] * layers
        self.layers = nn.ModuleList(
            Linear(a, b, learning_rate=learning_rate, activate=True) for a, b in pairwise(sizes)
        )
        self.register_buffer("average", torch.zeros(w_dim))

    def forward(self, z: Tensor | None, label: Tensor | None = None) -> Tensor:
        parts = []
        if self.z_dim:
            if z is None or z.ndim != 2 or z.shape[1] != self.z_dim:
                raise InputError(f"z must have shape (N, {self.z_dim}), got {_shape(z)}")
            parts.append(normalize_second_moment(z))
        if self.label_dim:
            if label is None or label.shape[-1] != self.label_dim:
                raise InputError(f"the conditioning label must have shape (N, {self.label_dim}), got {_shape(label)}")
            parts.append(normalize_second_moment(self.embed(label)))
        w = torch.cat([part.expand(max(p.shape[0] for p in parts), -1) for part in parts], 1)
        for layer in self.layers:
            w = layer(w)
        return w

    @torch.no_grad()
    def track_average(self, w: Tensor, decay: float = 0.998) -> None:
        """Move ``average`` towards the batch's mean."""
        self.average.lerp_(w.detach().float().mean(0), 1 - decay)


def _shape(x: Tensor | None) -> str:
    return "none" if x is None else str(tuple(x.shape))


class ModulatedConv(nn.Module):
    """A convolution whose input channels are scaled by a style made of w, and whose output is normalised again.

    Args:
        resolution: of the output; sets the size of the constant noise
        up: double the resolution
        noise: per-pixel noise with a learned strength
        demodulate: divide by the norm of the modulated weights; without it the style is scaled by 1/√(in·k²)
    """

    noise_const: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        *,
        kernel: int = 3,
        up: bool = False,
        noise: bool = True,
        demodulate: bool = True,
        activate: bool = True,
    ) -> None:
        super().__init__()
        self.affine = Linear(w_dim, in_channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.resolution, self.up, self.noise = resolution, up, noise
        self.demodulate, self.activate = demodulate, activate
        if noise:
            self.noise_strength = nn.Parameter(torch.zeros(()))
            self.register_buffer("noise_const", torch.randn(resolution, resolution))

    def style(self, w: Tensor, noise: str = "const") -> Style:
        """w (N, w_dim) → the convolution that this latent makes; ``noise`` is "const", "random" or "none"."""
        if noise not in NOISE_MODES:
            raise InputError(f"noise must be one of {', '.join(NOISE_MODES)}, got '{noise}'")
        gain = GAIN if self.activate else 1.0
        weight: Tensor = self.weight
        scale = self.affine(w)  # (N, in)
        if not self.demodulate:
            scale = scale / math.sqrt(weight[0].numel())
        norm = None
        if self.demodulate:
            squares = torch.linalg.vector_norm(weight, dim=(2, 3)).square()  # (out, in)
            norm = (scale.square() @ squares.t() + 1e-8).rsqrt() * gain  # (N, out)
        folded = len(w) == 1
        if folded:
            factor = scale if norm is None else norm[0, :, None] * scale  # (1 or out, in)
            weight = weight * factor[..., None, None]
        if self.up:
            weight = weight.transpose(0, 1)
        style = Style(
            channels_last(weight),
            self.bias * gain,
            input_scale=None if folded else scale[..., None, None],
            output_scale=None if folded or norm is None else norm[..., None, None],
            resample=1 if self.up else 0,
            activate=self.activate,
        )
        if self.noise and noise == "const":
            style.noise = (self.noise_const * self.noise_strength * gain)[None, None]
        elif self.noise and noise == "random":
            style.random_noise = self.noise_strength * gain
        return style

    def forward(self, x: Tensor, w: Tensor, noise: str = "const") -> Tensor:
        return self.style(w, noise)(x)


class SynthesisBlock(nn.Module):
    """Doubles the resolution of the features (unless it is the first) and adds its share to the picture."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        picture_channels: int,
        *,
        first: bool = False,
        noise: bool = True,
    ) -> None:
        super().__init__()
        if not first:
            self.conv0 = ModulatedConv(in_channels, out_channels, w_dim, resolution, up=True, noise=noise)
        self.conv1 = ModulatedConv(out_channels, out_channels, w_dim, resolution, noise=noise)
        self.to_picture = ModulatedConv(
            out_channels,
            picture_channels,
            w_dim,
            resolution,
            kernel=1,
            noise=False,
            demodulate=False,
            activate=False,
        )
        self.first = first

    def styles(self, ws: Iterator[Tensor], noise: str) -> list[Style]:
        """One style for each convolution; the last latent is shared with the next block's first."""
        return [layer.style(w, noise) for layer, w in zip(self.convolutions, ws)]

    @property
    def convolutions(self) -> list[ModulatedConv]:
        return [self.conv1, self.to_picture] if self.first else [self.conv0, self.conv1, self.to_picture]

    def forward(self, x: Tensor, picture: Tensor | None, styles: Sequence[Style]) -> tuple[Tensor, Tensor]:
        """Features (N, in, H, W) and the picture so far to features (N, out, 2H, 2W) and the picture at that size."""
        for style in styles[:-1]:
            x = style(x)
        share = styles[-1](x)
        return x, share if picture is None else share + upsample(picture)


class SynthesisNetwork(nn.Module):
    """w vectors to a picture of any number of channels; the skip architecture of StyleGAN2.

    Args:
        resolution: of the picture, a power of two
        channels: of the picture
        channel_base, channel_max: width at resolution r is min(channel_base / r, channel_max)
    """

    def __init__(self, w_dim: int, resolution: int, channels: int, *, channel_base: int, channel_max: int) -> None:
        super().__init__()
        resolutions = [2**i for i in range(2, resolution.bit_length())]
        width = {r: channels_at(r, channel_base, channel_max) for r in resolutions}
        self.const = nn.Parameter(torch.randn(width[4], 4, 4))
        self.blocks = nn.ModuleDict(
            {
                str(r): SynthesisBlock(width.get(r // 2, 0), width[r], w_dim, r, channels, first=r == 4)
                for r in resolutions
            }
        )
        self.w_count = 2 * len(resolutions)

    def styles(self, ws: Tensor, noise: str = "const") -> list[list[Style]]:
        """ws (N, w_count, w_dim) → the styles of every block."""
        return block_styles(self.blocks, ws, noise)

    def forward(self, styles: Sequence[Sequence[Style]]) -> Tensor:
        """The picture (N, channels, resolution, resolution)."""
        batch = max(1 if s.input_scale is None else len(s.input_scale) for s in styles[0])
        x = channels_last(self.const[None].expand(batch, -1, -1, -1).to(styles[0][0].weight.dtype))
        picture = None
        for block, of_block in zip(self.blocks.values(), styles):
            x, picture = block(x, picture, of_block)
        assert picture is not None
        return picture


def block_styles(blocks: nn.ModuleDict, ws: Tensor, noise: str) -> list[list[Style]]:
    """Hand each block its latents: the block at resolution r starts at 2·log2(r) − 5, the one at 4 at 0."""
    result = []
    for name, block in blocks.items():
        start = max(2 * (int(name).bit_length() - 1) - 5, 0)
        assert isinstance(block, SynthesisBlock)
        result.append(block.styles(iter(ws[:, start:].unbind(1)), noise))
    return result
