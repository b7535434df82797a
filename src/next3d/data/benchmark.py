"""How fast a dataset is read, against the decoding speed of Pillow on the same files.

``python -m next3d.data.benchmark DIR …`` prints it for folders and shards.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from next3d.data.dataset import PictureDataset, open_dataset


def reading_speed(
    path: str | Path, *, split: str | None = None, limit: int = 2000, rounds: int = 5
) -> dict[str, float]:
    """Samples per second of one thread, each the best of ``rounds`` interleaved passes over the same files.

    Args:
        path: a dataset folder or packed shards
        split: as for ``open_dataset``
        limit: samples per pass
        rounds: passes of each kind

    Returns:
        "decode" (Pillow opens and unpacks the PNG, from memory, so that no file access counts), "read" (``dataset[i]``:
        file, picture, labels and columns as tensors) and "share" = read / decode
    """
    dataset = open_dataset(path, split)
    indices = range(min(limit, len(dataset)))
    pictures = [dataset._read(index)[1] for index in indices]

    def decode() -> None:
        for data in pictures:
            with Image.open(io.BytesIO(data)) as image:
                image.load()

    def read() -> None:
        for index in indices:
            dataset[index]

    best = {"decode": 0.0, "read": 0.0}
    passes: list[tuple[str, Callable[[], None]]] = [("decode", decode), ("read", read)]
    for turn in range(rounds + 1):
        for name, run in passes:
            start = time.perf_counter()
            run()
            speed = len(indices) / (time.perf_counter() - start)
            if turn:  # the first pass warms the caches of the disk and of Pillow
                best[name] = max(best[name], speed)
    return best | {"share": best["read"] / best["decode"]}


def describe(dataset: PictureDataset, speed: dict[str, float]) -> str:
    size = dataset.resolution
    return (
        f"{dataset.info.layout} of {len(dataset)} pictures at {size}×{size}: {speed['read']:.0f} samples/s read, "
        f"{speed['decode']:.0f} pictures/s decoded by Pillow alone, {speed['share']:.1%}"
    )


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(describe(open_dataset(argument), reading_speed(argument)))
