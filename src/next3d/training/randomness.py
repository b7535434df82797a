"""Random numbers that belong to a sample, not to a process.

Every number drawn in training is a pure function of (seed, purpose, step, index of the sample in the global batch). Two
processes therefore draw what one would, a resumed run draws what the uninterrupted one would have, and there is no
generator state to lose.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_SHARED = -1  # the index of the stream that all samples of a step share


def stream_seed(*parts: int | str) -> int:
    """A 63-bit seed from integers and names, well mixed, the same on every platform."""
    state = 0x9E3779B97F4A7C15
    for part in parts:
        number = zlib.crc32(part.encode()) if isinstance(part, str) else part
        state = (state ^ (number & 0xFFFFFFFFFFFFFFFF)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ (state >> 31)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 29
    return state >> 1


class SampleRandom(TorchFunctionMode):
    """Inside ``with SampleRandom(...)``, each row of every random tensor comes from its sample's own stream.

    ``torch.rand``, ``torch.randn`` and their ``_like`` forms are caught wherever they are called, so that a network's
    noise and ray jitter need not know of it. A tensor whose first dimension is a multiple of the number of samples is
    drawn block by block, sample after sample; any other comes from a stream that all samples of the step share.

    Args:
        seed: the run's seed.
        purpose: names the place of use, so that two places draw different numbers.
        step: the training step.
        indices: the samples' places in the global batch.
        device: where the streams live; tensors asked for elsewhere are moved there.
    """

    def __init__(self, seed: int, purpose: str, step: int, indices: Sequence[int], device: torch.device | str = "cpu"):
        super().__init__()
        self.device = torch.device(device)
        self._streams = [self._stream(seed, purpose, step, index) for index in indices]
        self._shared = self._stream(seed, purpose, step, _SHARED)

    def _stream(self, *parts: int | str) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(stream_seed(*parts))

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.rand, torch.randn) and kwargs.get("generator") is None:
            size = kwargs.pop("size", None)
            if size is None:
                size = args[0] if len(args) == 1 and not isinstance(args[0], int) else args
            return self._draw(func, tuple(int(n) for n in size), kwargs)
        if func in (torch.rand_like, torch.randn_like):
            like = args[0]
            kwargs.setdefault("dtype", like.dtype)
            kwargs.setdefault("device", like.device)
            kwargs.pop("memory_format", None)
            return self._draw(torch.rand if func is torch.rand_like else torch.randn, tuple(like.shape), kwargs)
        return func(*args, **kwargs)

    def _draw(self, func, size: tuple[int, ...], kwargs: dict) -> Tensor:
        device = kwargs.pop("device", None) or torch.get_default_device()
        kwargs.pop("generator", None)
        if size and size[0] and size[0] % len(self._streams) == 0:
            own = (size[0] // len(self._streams), *size[1:])
            rows = [func(own, generator=stream, device=self.device, **kwargs) for stream in self._streams]
            return torch.cat(rows).to(device)
        return func(size, generator=self._shared, device=self.device, **kwargs).to(device)

    # Explicit draws, for code that is written for training anyway.
    def normal(self, *shape: int) -> Tensor:
        """(N, *shape) standard normal numbers, row n from sample n's stream."""
        return self._draw(torch.randn, (len(self._streams), *shape), {"device": self.device})

    def uniform(self, *shape: int) -> Tensor:
        """(N, *shape) uniform numbers in [0, 1), row n from sample n's stream."""
        return self._draw(torch.rand, (len(self._streams), *shape), {"device": self.device})
