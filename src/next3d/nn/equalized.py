"""Layers with an equalised learning rate: weights are stored at unit variance and scaled when used (StyleGAN2)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from next3d.nn.resample import blur, downsample

SLOPE = 0.2  # of every leaky ReLU
GAIN = math.sqrt(2)  # keeps the variance through a leaky ReLU


def leaky_relu(x: Tensor) -> Tensor:
    """√2 · leaky ReLU with slope 0.2."""
    return F.leaky_relu(x, SLOPE) * GAIN


class Linear(nn.Module):
    """y = act(x · Wᵀ · lr/√in + b · lr), (…, in) → (…, out).

    Args:
        learning_rate: multiplier of the layer's effective learning rate
        activate: apply √2 · leaky ReLU
        bias: initial value of the bias
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
        return leaky_relu(y) if self.activate else y


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
        self.padding = kernel // 2
        self.down = down
        self.activate = activate

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        """``scale`` multiplies the result (residual branches use √½)."""
        # A leaky ReLU is positively homogeneous: its gain goes into weight and bias, where it costs nothing.
        gain = scale * (GAIN if self.activate else 1.0)
        weight = (self.weight * (self.gain * gain)).to(x.dtype).contiguous(memory_format=torch.channels_last)
        bias = None if self.bias is None else (self.bias * gain).to(x.dtype)
        if not self.down:
            x = F.conv2d(x, weight, bias, padding=self.padding)
        elif self.padding == 0:
            x = F.conv2d(downsample(x), weight, bias)
        else:
            x = F.conv2d(blur(x, (self.padding + 1, self.padding + 1)), weight, bias, stride=2)
        return F.leaky_relu(x, SLOPE) if self.activate else x
