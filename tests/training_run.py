"""A tiny training run for the tests of training/: in this process, or as a script in others; not a test itself."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from data_samples import tiny_head
from next3d.generator.config import build
from next3d.training.bench import NoiseDataset
from next3d.training.config import TrainingConfig
from next3d.training.presets import preset
from next3d.training.trainer import Trainer

HEAD = tiny_head()


def tiny_config(**changes: Any) -> TrainingConfig:
    """The preset "tiny" on the tiny head, with R1 and density often enough to be seen in a few steps."""
    config = preset("tiny")
    config = dataclasses.replace(config, generator=dataclasses.replace(config.generator, head=HEAD.name))
    lazy = dataclasses.replace(config.adversarial, r1_interval=4, density_interval=2)
    config = dataclasses.replace(config, adversarial=lazy, mirror=False)
    for name, value in changes.items():
        if isinstance(value, dict):
            value = dataclasses.replace(getattr(config, name), **value)
        config = dataclasses.replace(config, **{name: value})
    return config


def noise(config: TrainingConfig, count: int = 24) -> NoiseDataset:
    reconstruct = config.stage == "reconstruct"
    size = config.generator.mapping.z_dim if reconstruct else 0
    return NoiseDataset(count, config.generator.superres.resolution, HEAD.name, latent=size, views=2)


def trainer(config: TrainingConfig, out: Path, **options: Any) -> Trainer:
    return Trainer(config, noise(config), HEAD, out, **options)


def script(out: Path, die_at: int, die_rank: int) -> None:
    """Train as ``config.json`` beside ``out`` says, resuming what is there; kill this process after step ``die_at``."""
    torch.set_num_threads(1)
    import json

    config = build(TrainingConfig, json.loads((out.parent / f"{out.name}.json").read_text()), "")
    run = trainer(config, out, resume=True)
    if die_at and run.rank == die_rank:
        step = run.one_step

        def one_step() -> dict[str, float]:
            result = step()
            if run.step == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        run.one_step = one_step  # type: ignore[method-assign]
    run.run()


if __name__ == "__main__":
    script(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
