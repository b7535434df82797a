"""A convolution ready to be applied: its weights scaled, its latent worked in.

Networks here compute the styles of all their convolutions first and run pictures through them second. To bake a network
is to keep its styles.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from next3d.nn.resample import blur, downsample

SLOPE = 0.2  # of every leaky ReLU
GAIN = math.sqrt(2)  # keeps the variance through a leaky ReLU
HALF_LIMIT = 256.0  # magnitude that activations are clamped to in float16, and only there

StyleTree = Any  # a Style, or lists and dicts of them


@dataclass
class Style:
    """One convolution, ready to be applied.

    Attributes:
        weight: (out, in, k, k); (in, out, k, k) for the transposed convolution that doubles the resolution
        bias: (out,) or None
        input_scale: (N, in, 1, 1) or None where it is folded into ``weight``
        output_scale: (N, out, 1, 1) or None where it is folded into ``weight`` or not needed
        noise: (1, 1, H, W) to add, or None
        random_noise: strength of noise that is drawn anew at each use, or None
        resample: 1 doubles the resolution, −1 halves it, 0 keeps it
        activate: leaky ReLU; its gain is already in the other tensors, since the function is positively homogeneous
    """

    weight: Tensor
    bias: Tensor | None
    input_scale: Tensor | None = None
    output_scale: Tensor | None = None
    noise: Tensor | None = None
    random_noise: Tensor | None = None
    resample: int = 0
    activate: bool = True

    def __call__(self, x: Tensor) -> Tensor:
        """(N, in, H, W) → (N, out, H′, W′)."""
        if self.input_scale is not None:
            x = x * self.input_scale.to(x.dtype)
        weight = self.weight.to(x.dtype)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        late_bias = bias if self.output_scale is not None else None
        x = self._convolve(x, weight, None if late_bias is not None else bias)
        if self.output_scale is not None:
            x = x * self.output_scale.to(x.dtype)
        # In place from here: a picture's memory costs more to get than to write.
        if late_bias is not None:
            x += late_bias[:, None, None]
        if self.random_noise is not None:
            x += torch.randn_like(x[:, :1]) * self.random_noise.to(x.dtype)
        elif self.noise is not None:
            x += self.noise.to(x.dtype)
        if self.activate:
            x = F.leaky_relu_(x, SLOPE)
        if x.dtype == torch.float16:
            x = x.clamp(-HALF_LIMIT, HALF_LIMIT)
        return x

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding = weight.shape[-1] // 2
        if self.resample > 0:
            x = F.conv_transpose2d(x, weight, stride=2)  # (N, out, 2H + 1, 2W + 1)
            return blur(x, (1, 1), gain=4.0, bias=bias)  # (N, out, 2H, 2W)
        if self.resample == 0:
            return F.conv2d(x, weight, bias, padding=padding)
        if padding == 0:
            return F.conv2d(downsample(x), weight, bias)
        return F.conv2d(blur(x, (padding + 1, padding + 1)), weight, bias, stride=2)

    def repeat(self, times: int) -> Style:
        """The style of N latents for N·times pictures, latent by latent."""

        def each(scale: Tensor | None) -> Tensor | None:
            return None if scale is None else scale.repeat_interleave(times, 0)

        return dataclasses.replace(self, input_scale=each(self.input_scale), output_scale=each(self.output_scale))

    def to(self, *args, **kwargs) -> Style:
        """Move or convert all tensors, as ``Tensor.to``."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name, value in values.items():
            if isinstance(value, Tensor):
                values[name] = channels_last(value.to(*args, **kwargs))
        return Style(**values)


def channels_last(x: Tensor) -> Tensor:
    """``x`` with its channels side by side in memory if it has four dimensions: the layout of pictures and weights."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def map_styles(change: Callable[[Style], Style], styles: StyleTree) -> StyleTree:
    """The same lists and dicts with ``change`` applied to every style in them."""
    if isinstance(styles, Style):
        return change(styles)
    if isinstance(styles, dict):
        return {name: map_styles(change, value) for name, value in styles.items()}
    return [map_styles(change, value) for value in styles]


def first_style(styles: StyleTree) -> Style | None:
    """Any one style of the tree, to ask for its type; None if there is none."""
    if isinstance(styles, Style):
        return styles
    for value in styles.values() if isinstance(styles, dict) else styles:
        if (found := first_style(value)) is not None:
            return found
    return None
