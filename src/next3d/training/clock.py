"""Where a training step's time goes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Adds up wall-clock seconds by phase; phases may nest, each then counts its own time alone."""

    def __init__(self, device: torch.device | None = None):
        self.seconds: dict[str, float] = defaultdict(float)
        self._cuda = device is not None and device.type == "cuda"
        self._inner = [0.0]

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        self._inner.append(0.0)
        start = self._now()
        try:
            yield
        finally:
            spent = self._now() - start
            self.seconds[phase] += spent - self._inner.pop()
            self._inner[-1] += spent

    def _now(self) -> float:
        if self._cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def take(self) -> dict[str, float]:
        """The seconds since the last call."""
        seconds, self.seconds = dict(self.seconds), defaultdict(float)
        return seconds
