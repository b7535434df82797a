"""The deformation-aware dual discriminator: pictures and a synthetic rendering in, realness out (paper, §3.5).

A StyleGAN2 residual network. "Dual" (EG3D) means that it sees the final picture beside the rays' own, so that the two
agree; "deformation-aware" that it also sees a rendering of the driving mesh, so that the picture follows the
expression.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from next3d.errors import InputError
from next3d.generator.config import LABEL_SIZE
from next3d.nn.equalized import Conv, Linear
from next3d.nn.stylegan2 import MappingNetwork, channels_at, is_power_of_two


@dataclass(frozen=True)
class DiscriminatorConfig:
    """What a discriminator is made of; the defaults are the released sizes, with the paper's synthetic rendering."""

    resolution: int = 512
    channel_base: int = 32768
    channel_max: int = 512
    synthetic_rendering: bool = True
    """three more input channels with a rendering of the mesh"""
    camera_conditioning: bool = True
    head_size: int = 0
    """numbers of a head-parameter label that is appended to the camera's; 0 for none"""
    latent_size: int = 0
    """numbers of an identity latent that is appended to the label; 0 for none"""
    label_noise: float = 0.0
    """standard deviation of noise on the labels, in units of each label's own spread over the batch"""
    minibatch_group: int = 4
    """pictures over which the minibatch's spread is measured; 0 leaves that channel out"""
    mapping_layers: int = 8
    mapping_learning_rate: float = 0.01

    def __post_init__(self) -> None:
        if not is_power_of_two(self.resolution) or self.resolution < 8:
            raise InputError(
                f"the discriminator's resolution must be a power of two of at least 8, got {self.resolution}"
            )

    @property
    def image_channels(self) -> int:
        return 9 if self.synthetic_rendering else 6

    @property
    def label_size(self) -> int:
        return (LABEL_SIZE if self.camera_conditioning else 0) + self.head_size + self.latent_size


class DiscriminatorBlock(nn.Module):
    """Halves the resolution; two convolutions beside a strided skip, added with √½ each."""

    def __init__(self, in_channels: int, channels: int, out_channels: int) -> None:
        super().__init__()
        if in_channels:
            self.from_picture = Conv(in_channels, channels, 1)
        self.conv0 = Conv(channels, channels)
        self.conv1 = Conv(channels, out_channels, down=True)
        self.skip = Conv(channels, out_channels, 1, down=True, bias=False, activate=False)
        self.first = bool(in_channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.first:
            x = self.from_picture(x)
        half = math.sqrt(0.5)
        return self.skip(x, half) + self.conv1(self.conv0(x), half)


def minibatch_spread(x: Tensor, group: int) -> Tensor:
    """(N, C, H, W) with one more channel: the deviation within groups of pictures, averaged over everything else."""
    n = len(x)
    group = min(group, n)
    while n % group:  # the last batch of an epoch may not divide
        group -= 1
    y = x.float().unflatten(0, (group, n // group))  # picture i belongs to group i mod (N / group)
    spread = (y.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))  # (N / group,)
    spread = spread.repeat(group)[:, None, None, None].expand(-1, 1, *x.shape[2:])
    return torch.cat([x, spread.to(x.dtype)], 1)


class Discriminator(nn.Module):
    """Pictures and labels to logits (N, 1); twice differentiable, as R1 needs.

    Forward:
        image: (N, 3, R, R) in [−1, 1]
        image_raw: (N, 3, r, r), resized to R² (antialiased) and stacked
        camera_label: (N, 25)
        synthetic: (N, 3, R, R) in [−1, 1], the rendering of the driving mesh, if the model takes one
        head_label: (N, head_size) if the model takes one
        latent: (N, latent_size) if the model takes one
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = c = config
        sizes = [2**i for i in range(c.resolution.bit_length() - 1, 2, -1)]  # R … 8
        width = {r: channels_at(r, c.channel_base, c.channel_max) for r in (*sizes, 4)}
        self.blocks = nn.ModuleDict(
            {
                str(r): DiscriminatorBlock(c.image_channels if r == sizes[0] else 0, width[r], width[r // 2])
                for r in sizes
            }
        )
        last = width[4]
        self.conv = Conv(last + (1 if c.minibatch_group else 0), last)
        self.fc = Linear(last * 16, last, activate=True)
        self.out = Linear(last, last if c.label_size else 1)
        if c.label_size:
            self.mapping = MappingNetwork(
                0, c.label_size, last, layers=c.mapping_layers, learning_rate=c.mapping_learning_rate
            )

    def forward(
        self,
        image: Tensor,
        image_raw: Tensor,
        camera_label: Tensor | None = None,
        *,
        synthetic: Tensor | None = None,
        head_label: Tensor | None = None,
        latent: Tensor | None = None,
    ) -> Tensor:
        x = self.stack(image, image_raw, synthetic).contiguous(memory_format=torch.channels_last)
        for block in self.blocks.values():
            x = block(x)
        if self.config.minibatch_group:
            x = minibatch_spread(x, self.config.minibatch_group)
        x = self.out(self.fc(self.conv(x).flatten(1)))
        if self.config.label_size:
            condition = self.mapping(None, self.label(camera_label, head_label, latent))  # (N, last)
            x = (x * condition.to(x.dtype)).sum(1, keepdim=True) / math.sqrt(condition.shape[1])
        return x

    def stack(self, image: Tensor, image_raw: Tensor, synthetic: Tensor | None) -> Tensor:
        """All pictures as one of 6 or 9 channels, (N, ·, R, R)."""
        size = (self.config.resolution, self.config.resolution)
        if image.shape[1:] != (3, *size):
            raise InputError(f"the discriminator takes pictures (N, 3, {size[0]}, {size[1]}), got {tuple(image.shape)}")
        if self.config.synthetic_rendering != (synthetic is not None):
            expected = "needs" if self.config.synthetic_rendering else "takes no"
            raise InputError(f"this discriminator {expected} synthetic rendering")
        pictures = [image, F.interpolate(image_raw, size, mode="bilinear", align_corners=False, antialias=True)]
        if synthetic is not None:
            if synthetic.shape != image.shape:
                raise InputError(
                    f"the synthetic rendering must have shape {tuple(image.shape)}, got {tuple(synthetic.shape)}"
                )
            pictures.append(synthetic)
        return torch.cat(pictures, 1)

    def label(self, camera_label: Tensor | None, head_label: Tensor | None, latent: Tensor | None = None) -> Tensor:
        """The conditioning label (N, label_size), with noise while training."""
        c = self.config
        parts = []
        for wanted, part, name in (
            (LABEL_SIZE * c.camera_conditioning, camera_label, "camera label"),
            (c.head_size, head_label, "head label"),
            (c.latent_size, latent, "latent"),
        ):
            if not wanted:
                continue
            if part is None or part.ndim != 2 or part.shape[1] != wanted:
                got = "none" if part is None else str(tuple(part.shape))
                raise InputError(f"this discriminator needs a {name} of shape (N, {wanted}), got {got}")
            parts.append(part)
        label = torch.cat(parts, 1)
        if c.label_noise and self.training:
            label = label + torch.randn_like(label) * label.std(0, unbiased=False) * c.label_noise
        return label
