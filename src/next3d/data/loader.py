"""Batches for training: one global order for any number of processes, resumable at any sample, read ahead."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch

from next3d.data.dataset import Batch, PictureDataset, collate
from next3d.errors import InputError

if TYPE_CHECKING:
    from next3d.heads.head_model import HeadModel


class Loader(Iterator[Batch]):
    """An endless iterator of batches over the shuffled epochs of a dataset; made by :func:`make_loader`.

    Sample p of the run is ``order(seed, p // len)[p % len]``: it depends on nothing but the seed. Pillow decodes
    outside the interpreter lock, so threads read ahead as fast as processes would, without copying pictures around.

    Attributes:
        sample: how many samples of the global order all processes together have consumed so far
        skipped: how many broken pictures or rows this process has met and replaced
    """

    def __init__(
        self,
        dataset: PictureDataset,
        batch: int,
        *,
        seed: int,
        rank: int,
        world: int,
        start_sample: int,
        workers: int,
        mirror: HeadModel | None,
    ):
        if len(dataset) == 0:
            raise InputError(f"{dataset.path} has no samples in the chosen split: nothing to train on")
        if batch < 1 or world < 1 or batch % world:
            raise InputError(
                f"a batch of {batch} cannot be shared evenly by {world} processes: choose a multiple of {world}"
            )
        if not 0 <= rank < world:
            raise InputError(f"rank {rank} is outside 0 to {world - 1}")
        if start_sample < 0:
            raise InputError(f"start_sample is {start_sample}, expected 0 or more")
        self.dataset, self.batch, self.seed, self.rank, self.world = dataset, batch, seed, rank, world
        self.mirror = mirror
        self.sample = start_sample
        self._submitted = start_sample  # first sample of the global order that no thread has been given yet
        self._epochs: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._threads = ThreadPoolExecutor(workers, "next3d-data") if workers > 0 else None
        self._ahead: deque[Future[Batch]] = deque()
        self._depth = workers + 1  # batches in flight: every thread busy and one waiting

    @property
    def skipped(self) -> int:
        return len(self.dataset.skipped)

    @property
    def epoch(self) -> float:
        """How often the dataset has been seen."""
        return self.sample / len(self.dataset)

    def state_dict(self) -> dict[str, int]:
        """What :func:`make_loader` needs to go on from here: ``make_loader(…, **state)``."""
        return {"seed": self.seed, "start_sample": self.sample}

    def __iter__(self) -> Loader:
        return self

    def __next__(self) -> Batch:
        if self._threads is None:
            result = self._load(*self._take())
        else:
            while len(self._ahead) < self._depth:
                self._ahead.append(self._threads.submit(self._load, *self._take()))
            result = self._ahead.popleft().result()
        self.sample += self.batch
        return result

    def _take(self) -> tuple[np.ndarray, np.ndarray]:
        """Indices and mirror flags, each (batch / world,), of this process's part of the next global batch."""
        share = self.batch // self.world
        places = self._submitted + self.rank * share + np.arange(share)
        self._submitted += self.batch
        epochs, offsets = np.divmod(places, len(self.dataset))
        indices, mirrored = np.empty(share, np.int64), np.empty(share, bool)
        for epoch in np.unique(epochs):
            order, flags = self._epoch(int(epoch))
            here = epochs == epoch
            indices[here], mirrored[here] = order[offsets[here]], flags[offsets[here]]
        return indices, mirrored

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        if epoch not in self._epochs:
            self._epochs = {key: value for key, value in self._epochs.items() if key >= epoch - 1}
            flags = np.random.default_rng((self.seed, epoch, 1)).random(len(self.dataset)) < 0.5
            self._epochs[epoch] = (self.dataset.order(self.seed, epoch), flags)
        return self._epochs[epoch]

    def _load(self, indices: np.ndarray, mirrored: np.ndarray) -> Batch:
        batch = collate([self.dataset.good(int(index)) for index in indices])
        if self.mirror is not None and mirrored.any():
            from next3d.data.transforms import flip

            batch = flip(batch, self.mirror, torch.from_numpy(mirrored))
        return batch

    def close(self) -> None:
        """Stop the threads. Called on deletion too."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def __del__(self) -> None:
        if getattr(self, "_threads", None) is not None and not sys.is_finalizing():
            self.close()


def make_loader(
    dataset: PictureDataset,
    batch: int,
    *,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
    start_sample: int = 0,
    workers: int = 2,
    mirror: HeadModel | None = None,
) -> Loader:
    """An endless iterator of :class:`Batch`, deterministic and resumable.

    Args:
        dataset: what ``open_dataset`` returns
        batch: the *global* batch size, divisible by ``world``; each process gets ``batch / world`` samples, and the
            batches of all ranks, one after the other, are the batch that one process would get
        seed: of the order and of the mirroring
        rank: this process, 0 to world − 1
        world: the number of processes
        start_sample: samples of the global order already consumed; the loader goes on exactly there
        workers: threads that read ahead; 0 reads when asked
        mirror: a head model switches on random left-right flips with probability ½ (paper, B), which mirror camera and
            parameters too; do not use it where the ``latent`` column is the condition, since latents are not mirrored

    Raises:
        InputError: empty dataset, batch not divisible, rank out of range
    """
    return Loader(
        dataset,
        batch,
        seed=seed,
        rank=rank,
        world=world,
        start_sample=start_sample,
        workers=workers,
        mirror=mirror,
    )
