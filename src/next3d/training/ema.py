"""The exponential moving average of the generator's weights: what is sampled, exported and evaluated."""

from __future__ import annotations

import copy

import torch
from torch import nn


class EMA:
    """A copy of a module whose parameters follow the original's, smoothed; buffers (``w_avg`` too) are copied."""

    def __init__(self, module: nn.Module):
        self.module = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, module: nn.Module, decay: float) -> None:
        """average ← decay · average + (1 − decay) · weights."""
        averages = [p.detach() for p in self.module.parameters()]
        weights = [p.detach() for p in module.parameters()]
        torch._foreach_lerp_(averages, weights, 1 - decay)
        for average, buffer in zip(self.module.buffers(), module.buffers(), strict=True):
            average.copy_(buffer)
