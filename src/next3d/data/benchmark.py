"""How fast a dataset is read, against the decoding speed of Pillow on the same files.

``python -m next3d.data.benchmark DIR …`` prints it for folders and shards.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from next3d.data.dataset import Dataset, PictureDataset, open_dataset


def reading_speed(
    path: str | Path, *, split: str | None = None, limit: int = 1000, rounds: int = 12
) -> dict[str, float]:
    """Samples per second of one thread, from the fastest of ``rounds`` readings of each file, one kind after the other.

    Times are of the processor where the system tells them finely: what else the machine is doing does not count.

    Args:
        path: a dataset folder or packed shards
        split: as for ``open_dataset``
        limit: samples per pass
        rounds: passes of each kind

    Returns:
        "decode" (Pillow opens and unpacks the PNG: the file itself, or for shards its bytes in memory), "read"
        (``dataset[i]``: file, picture, labels and columns as tensors) and "share" = read / decode
    """
    dataset = open_dataset(path, split)
    indices = range(min(limit, len(dataset)))
    sources: list[Any]
    if isinstance(dataset, Dataset):
        sources = [dataset.path / name for name in dataset.file_names[: len(indices)]]
    else:
        sources = [io.BytesIO(dataset._read(index)[1]) for index in indices]

    def decode(index: int) -> None:
        with Image.open(sources[index]) as image:
            image.load()

    kinds: dict[str, Callable[[int], Any]] = {"decode": decode, "read": dataset.__getitem__}
    clock = time.thread_time if time.get_clock_info("thread_time").resolution < 1e-6 else time.perf_counter
    best = {name: np.full(len(indices), np.inf) for name in kinds}
    for _ in range(rounds):
        for name, run in kinds.items():
            for index in indices:
                start = clock()
                run(index)
                best[name][index] = min(best[name][index], clock() - start)
    speed = {name: float(len(indices) / times.sum()) for name, times in best.items()}
    return speed | {"share": speed["read"] / speed["decode"]}


def describe(dataset: PictureDataset, speed: dict[str, float]) -> str:
    size = dataset.resolution
    return (
        f"{dataset.info.layout} of {len(dataset)} pictures at {size}×{size}: {speed['read']:.0f} samples/s read, "
        f"{speed['decode']:.0f} pictures/s decoded by Pillow alone, {speed['share']:.1%}"
    )


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(describe(open_dataset(argument), reading_speed(argument)))
