"""Where the time of a training step goes, on this machine, for a preset."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from next3d.bench import peak_memory
from next3d.data.dataset import PictureDataset, Sample, pack_numbers
from next3d.data.format import PARTS, Info
from next3d.errors import InputError
from next3d.geometry.cameras import Camera
from next3d.heads import HeadParams, load_head
from next3d.training.config import TrainingConfig
from next3d.training.trainer import Trainer


class NoiseDataset(PictureDataset):
    """Random pictures with random labels, in memory: what a benchmark or a test trains on."""

    def __init__(
        self, count: int, resolution: int, head: str = "builtin", *, latent: int = 0, views: int = 1, seed: int = 0
    ):
        super().__init__("(noise)", Info(resolution, head, count), aux=False)
        random = np.random.default_rng(seed)
        self.images = torch.from_numpy(random.integers(0, 256, (count, 3, resolution, resolution), np.uint8))
        angle = torch.from_numpy(random.uniform(-0.5, 0.5, (2, count))).float()
        params = HeadParams(
            shape=torch.from_numpy(random.normal(size=(count, 100))).float(),
            jaw=torch.from_numpy(random.uniform(0, 0.2, (count, 1)) * [[1.0, 0, 0]]).float(),
        )
        self.numbers = pack_numbers(Camera.orbit(angle[0], angle[1] / 2), params).numpy()
        self.columns: dict[str, Any] = {}
        if latent:
            self.aux = ("depth", "parts")
            identity = np.arange(count) // views
            latents = random.normal(size=(count, latent)).astype(np.float32)
            self.columns = {"identity": identity, "latent": latents[identity]}
            square = torch.zeros(1, resolution, resolution)
            square[:, resolution // 4 : -resolution // 4, resolution // 4 : -resolution // 4] = 1
            small = square.clone()
            small[:, resolution // 3 :] = 0
            self.depth = 2.6 * square
            self.parts = (square * PARTS.index("skin") + small * (PARTS.index("eyes") - PARTS.index("skin"))).byte()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        row: Mapping[str, Any] = {name: values[index] for name, values in self.columns.items()}
        aux = {"depth": self.depth, "parts": self.parts} if self.aux else {}
        return Sample(self.images[index], torch.from_numpy(self.numbers[index]), row, aux, index)


def measure(config: TrainingConfig, steps: int = 16, warm_up: int = 2) -> dict[str, float]:
    """Train a preset on noise for some steps and time its phases.

    Returns:
        images_per_second, seconds_per_step, peak_memory_mib, and share_<phase> of a step's time for each phase; a
        regulariser counts as often as its interval says, since ``steps`` is a multiple of the intervals.
    """
    if steps < 1 or warm_up < 0:
        raise InputError(f"--steps must be at least 1, got {steps}")
    resolution = config.generator.superres.resolution
    reconstruct = config.stage == "reconstruct"
    count = max(2 * config.batch, 64)
    views = config.reconstruct.views
    data = NoiseDataset(
        count,
        resolution,
        config.generator.head,
        latent=config.generator.mapping.z_dim if reconstruct else 0,
        views=views,
    )
    config = dataclasses.replace(config, total_steps=max(config.total_steps, steps + warm_up))
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, data, load_head(config.generator.head), Path(folder) / "run")
        for _ in range(warm_up):
            trainer.one_step()
        trainer.step = 0  # lazy regularisers start anew, so that whole intervals are timed
        trainer.clock.take()
        start = time.perf_counter()
        for _ in range(steps):
            trainer.one_step()
        seconds = time.perf_counter() - start
        phases = trainer.clock.take()
        trainer.loader.close()
        trainer.folder.close()
        peak = peak_memory(trainer.fabric.device)
    result = {"images_per_second": steps * config.batch / seconds, "seconds_per_step": seconds / steps}
    if peak is not None:
        result["peak_memory_mib"] = peak * 1024
    for name, spent in sorted(phases.items(), key=lambda item: -item[1]):
        result[f"share_{name}"] = spent / seconds
    return result


def table(result: Mapping[str, float]) -> str:
    """The figures of :func:`measure` as lines to print."""
    memory = f"{result['peak_memory_mib']:.0f} MiB" if "peak_memory_mib" in result else "unknown"
    lines = [
        f"{result['images_per_second']:.2f} images a second, {result['seconds_per_step'] * 1e3:.0f} ms a step, "
        f"peak memory {memory}",
        f"{'phase':<20}{'ms a step':>10}{'share':>8}",
    ]
    for name, value in result.items():
        if name.startswith("share_"):
            milliseconds = value * result["seconds_per_step"] * 1e3
            lines.append(f"{name.removeprefix('share_'):<20}{milliseconds:>10.1f}{value:>8.1%}")
    return "\n".join(lines)
