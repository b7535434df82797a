"""Layers with an equalised learning rate: weights are stored at unit variance and scaled when used (StyleGAN2)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from next3d.nn.style import GAIN, SLOPE, Style, channels_last


class Linear(nn.Module):
    """y = act(x · Wᵀ · lr/√in + b · lr), (…, in) → (…, out).

    Args:
        bias: initial value of the bias
        learning_rate: multiplier of the layer's effective learning rate
        activate: apply √2 · leaky ReLU
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: float = 0.0,
        learning_rate: float = 1.0,
        activate: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / learning_rate)
        self.bias = nn.Parameter(torch.full((out_features,), bias / learning_rate))
        self.weight_gain = learning_rate / math.sqrt(in_features)
        self.bias_gain = learning_rate
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, (self.weight * self.weight_gain).to(x.dtype), (self.bias * self.bias_gain).to(x.dtype))
        return F.leaky_relu(y, SLOPE) * GAIN if self.activate else y


class Conv(nn.Module):
    """A k×k convolution that keeps the size, or halves it after a [1,3,3,1] blur; (N, in, H, W) → (N, out, H′, W′).

    Args:
        down: halve the resolution
        activate: apply √2 · leaky ReLU
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        *,
        down: bool = False,
        bias: bool = True,
        activate: bool = True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.gain = 1 / math.sqrt(in_channels * kernel**2)
        self.down, self.activate = down, activate

    def style(self, scale: float = 1.0) -> Style:
        """The convolution with its weights scaled; ``scale`` multiplies the result (residual branches use √½)."""
        gain = scale * (GAIN if self.activate else 1.0)
        return Style(
            channels_last(self.weight * (self.gain * gain)),
            None if self.bias is None else self.bias * gain,
            resample=-1 if self.down else 0,
            activate=self.activate,
        )

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return self.style(scale)(x)
