"""The training loop, written once for every stage: data, processes, logs, samples, checkpoints, leaving in order."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from next3d.data.dataset import Batch, PictureDataset
from next3d.data.loader import make_loader
from next3d.errors import InputError, require
from next3d.heads import HeadModel
from next3d.training import checkpoints
from next3d.training.clock import Clock
from next3d.training.config import TrainingConfig
from next3d.training.run_folder import RunFolder
from next3d.training.stage import Stage


class Diverged(RuntimeError):
    """A loss became NaN or infinite; the message names the step, its seed and where its batch was saved."""


class Trainer:
    """One run of one stage.

    Args:
        config: everything about the run.
        dataset: of the generator's resolution and the head's parameters; checked before any work starts.
        head: the head model whose parameters the dataset holds.
        out: the run's folder.
        resume: go on from the newest sound checkpoint in ``out``.
        init: a model folder or a run's folder to take weights from, where names and shapes agree (warm start).
        description: free-form facts for ``run.json``, such as the dataset's path.

    Raises:
        InputError: one line for anything that does not fit together.
    """

    def __init__(
        self,
        config: TrainingConfig,
        dataset: PictureDataset,
        head: HeadModel,
        out: str | Path,
        *,
        resume: bool = False,
        init: str | Path | None = None,
        description: dict[str, Any] | None = None,
        fabric: Any = None,
    ):
        check(config, dataset, head)
        self.config = config
        self.fabric = launch(config) if fabric is None else fabric
        self.rank, self.world = self.fabric.global_rank, self.fabric.world_size
        check_batch(config, self.world)
        self.folder = RunFolder(out, writing=self.rank == 0)
        if self.folder.exists and not resume:
            raise InputError(f"{out} already holds a run: add --resume to go on with it, or choose another --out")
        self.clock = Clock(self.fabric.device)
        torch.manual_seed(config.seed)  # the same first weights in every process
        self.stage = make_stage(config, dataset, head, self.fabric, self.clock)
        self.dataset, self.head = dataset, head
        self.step, self.images = 0, 0
        self.seconds = 0.0  # wall-clock time in all launches so far
        self._sums: dict[str, list[float]] = {}  # name: sum and count since the last line of the log
        self._stop: str | None = None
        taken: dict[str, Any] = {}
        saved = checkpoints.load_newest(self.folder.checkpoints) if resume else None
        if saved is not None:
            self._restore(saved)
        else:
            taken = self.stage.warm_start(Path(init)) if init is not None else {}
            self.stage.prepare(taken)
        self.say(
            f"resuming at step {self.step}"
            if saved is not None
            else "no checkpoint yet: starting at step 0"
            if resume
            else None
        )
        self.folder.prepare(
            dataclasses.asdict(config),
            {
                **(description or {}),
                "dataset": facts_of(dataset),
                "init": str(init) if init else None,
                "taken": taken,
                "processes": self.world,
            }
            if saved is None
            else self.folder.read_json("run.json"),
        )
        self.folder.rewind(self.step)
        self.loader = make_loader(
            self.stage.dataset(dataset),
            config.batch,
            seed=config.seed,
            rank=self.rank,
            world=self.world,
            start_sample=self.images,
            workers=config.workers,
            mirror=head if self.stage.mirrors else None,
        )

    def say(self, message: str | None) -> None:
        """One line on standard error, from the first process."""
        if message and self.rank == 0:
            tqdm.write(f"next3d: {message}", file=sys.stderr)

    def run(self) -> str | None:
        """Train to ``total_steps``. Returns None, or the name of the signal that ended the run early (after saving)."""
        config = self.config
        bar = tqdm(
            total=config.total_steps * config.batch,
            initial=self.images,
            unit="img",
            unit_scale=True,
            dynamic_ncols=True,
            disable=self.rank != 0,
            file=sys.stderr,
        )
        try:
            with self._signals(), bar:
                while self.step < config.total_steps and self._stop is None:
                    metrics = self.one_step()
                    bar.update(config.batch)
                    if self.step % config.log_every == 0:
                        bar.set_postfix(
                            {
                                k: f"{v:.3g}"
                                for k, v in list(self._write_metrics(bar.format_dict["rate"] or 0.0).items())[:4]
                            }
                        )
                    del metrics
                    if self.step % config.sample_every == 0 or self.step == config.total_steps:
                        self.save_samples()
                    if self.step % config.checkpoint_every == 0:
                        self.save()
                if self.step % config.checkpoint_every:
                    self.save()
        finally:
            self.loader.close()
            self.folder.close()
        if self._stop:
            self.say(f"{self._stop}: saved step {self.step}; add --resume to go on")
        return self._stop

    def one_step(self) -> dict[str, float]:
        """One optimisation step; returns its metrics, averaged over all processes."""
        start = time.perf_counter()
        with self.clock("data"):
            batch = next(self.loader).to(self.fabric.device)
        metrics = self._agree(self.stage.step(batch, self.step, self.images))
        if not all(math.isfinite(value) for value in metrics.values()):
            self._fail(batch, metrics)
        self.step += 1
        self.images += self.config.batch
        for name, value in metrics.items():
            total = self._sums.setdefault(name, [0.0, 0])
            total[0] += value
            total[1] += 1
        self.seconds += time.perf_counter() - start
        return metrics

    def _agree(self, metrics: dict[str, Tensor]) -> dict[str, float]:
        """Average the step's metrics over the processes, and let a signal to any of them stop all."""
        values = torch.stack(
            [
                *(v.detach().double() for v in metrics.values()),
                torch.tensor(float(self._stop is not None)).double().to(self.fabric.device),
            ]
        )
        if self.world > 1:
            values = self.fabric.all_reduce(values, reduce_op="mean")
        *numbers, stop = values.tolist()
        if stop and self._stop is None:
            self._stop = "another process was told to stop"
        return dict(zip(metrics, numbers, strict=True))

    def _fail(self, batch: Batch, metrics: dict[str, float]) -> None:
        from safetensors.torch import save_file

        from next3d.io.files import atomic_folder

        path = self.folder.path / f"failure-step-{self.step:08d}-rank-{self.rank}"
        with atomic_folder(path) as folder:
            tensors = {"image": batch.image, "numbers": batch.numbers, "index": batch.index}
            tensors |= {f"row.{k}": v for k, v in batch.row.items() if isinstance(v, Tensor)}
            save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, folder / "batch.safetensors")
            record = {
                "step": self.step,
                "seed": self.config.seed,
                "first_sample": self.images,
                "metrics": {k: repr(v) for k, v in metrics.items()},
            }
            (folder / "failure.json").write_text(json.dumps(record, indent=2))
        bad = ", ".join(name for name, value in metrics.items() if not math.isfinite(value))
        raise Diverged(
            f"step {self.step} (seed {self.config.seed}): {bad} is not finite; its batch is saved in {path}. "
            "The last checkpoint is untouched: resume from it with a lower learning rate or --precision 32-true"
        )

    def _write_metrics(self, rate: float) -> dict[str, float]:
        values = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums = {}
        self.folder.log("metrics", self.step, {"images": self.images, **values})
        seconds = self.clock.take()
        self.folder.log(
            "timing", self.step, {"images_per_second": rate, **{f"seconds_{k}": v for k, v in seconds.items()}}
        )
        return values

    def save_samples(self) -> None:
        if self.rank == 0:
            with self.clock("samples"):
                self.folder.save_samples(self.step, self.stage.samples())
        self.fabric.barrier()

    # ---- checkpoints ----

    def save(self) -> None:
        """Write a checkpoint of everything that the next step depends on."""
        if self.rank == 0:
            tensors = {**self.stage.tensors(), "random.torch": torch.get_rng_state()}
            if torch.cuda.is_available():
                tensors["random.cuda"] = torch.cuda.get_rng_state()
            kind, words, position, has_gauss, gauss = np.random.get_state()  # type: ignore[misc]  # noqa: NPY002
            state = {
                "images": self.images,
                "seconds": self.seconds,
                "sums": self._sums,
                "stage": self.config.stage,
                "stage_state": self.stage.state(),
                "random": {
                    "python": random.getstate(),
                    "numpy": [kind, np.asarray(words).tolist(), position, has_gauss, gauss],
                },
            }
            checkpoints.save(self.folder.checkpoints, self.step, tensors, state, self.config.keep_checkpoints)
        self.fabric.barrier()

    def _restore(self, saved: checkpoints.Checkpoint) -> None:
        if saved.state["stage"] != self.config.stage:
            raise InputError(
                f"{saved.path} belongs to the stage '{saved.state['stage']}': start the stage '{self.config.stage}' "
                f"in another folder with --init {self.folder.path}"
            )
        self.step, self.images, self.seconds = (saved.state[name] for name in ("step", "images", "seconds"))
        self._sums = saved.state["sums"]
        self.stage.restore(saved.tensors, saved.state["stage_state"])
        torch.set_rng_state(saved.tensors["random.torch"])
        if torch.cuda.is_available() and "random.cuda" in saved.tensors:
            torch.cuda.set_rng_state(saved.tensors["random.cuda"])
        version, words, gauss_next = saved.state["random"]["python"]
        random.setstate((version, tuple(words), gauss_next))
        name, words, position, has_gauss, gauss = saved.state["random"]["numpy"]
        np.random.set_state((name, np.array(words, np.uint32), position, has_gauss, gauss))  # noqa: NPY002

    # ---- leaving ----

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C finish the step, save and leave; a second Ctrl-C leaves at once."""

        def stop(number: int, frame: Any) -> None:
            if self._stop is not None and number == signal.SIGINT:
                raise KeyboardInterrupt
            self._stop = signal.Signals(number).name

        before = {}
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                before[number] = signal.signal(number, stop)
        except ValueError:
            pass  # not the main thread: the caller looks after signals
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def make_stage(config: TrainingConfig, dataset: PictureDataset, head: HeadModel, fabric: Any, clock: Clock) -> Stage:
    """The stage that ``config.stage`` names."""
    if config.stage == "reconstruct":
        from next3d.training.reconstruct import ReconstructStage

        return ReconstructStage(config, dataset, head, fabric, clock)
    from next3d.training.adversarial import AdversarialStage

    return AdversarialStage(config, dataset, head, fabric, clock)


def launch(config: TrainingConfig) -> Any:
    """A Lightning Fabric of the configured device, processes and precision, launched."""
    fabric_package = require("lightning_fabric", "train")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this machine has no GPU that PyTorch can use; choose --device cpu")
    accelerator = {"auto": "cuda" if torch.cuda.is_available() else "cpu"}.get(config.device, config.device)
    many = config.devices * config.nodes > 1
    fabric = fabric_package.Fabric(
        accelerator=accelerator,
        devices=config.devices,
        num_nodes=config.nodes,
        strategy="ddp" if many else "auto",
        precision=config.precision,
    )
    fabric.launch()
    return fabric


def check(config: TrainingConfig, dataset: PictureDataset, head: HeadModel) -> None:
    """Raise :class:`InputError` if data, head and networks do not fit together."""
    resolution = config.generator.superres.resolution
    if len(dataset) == 0:
        raise InputError(f"{dataset.path} is empty: nothing to train on")
    if dataset.resolution != resolution:
        raise InputError(
            f"{dataset.path} has pictures of {dataset.resolution}², the generator makes {resolution}²: choose another "
            "--preset or make the dataset at that resolution"
        )
    if dataset.info.head != head.name or config.generator.head != head.name:
        raise InputError(
            f"{dataset.path} was made with the head '{dataset.info.head}', the generator is for "
            f"'{config.generator.head}' and the loaded head is '{head.name}': all three must be the same"
        )
    positive = {
        name: getattr(config, name)
        for name in (
            "batch",
            "accumulate",
            "total_steps",
            "checkpoint_every",
            "sample_every",
            "log_every",
            "keep_checkpoints",
        )
    }
    for name, value in positive.items():
        if value < 1:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1, got {value}")


def facts_of(dataset: PictureDataset) -> dict[str, Any]:
    """What ``run.json`` says about the pictures."""
    info = dataset.info
    return {
        "pictures": len(dataset),
        "resolution": info.resolution,
        "head": info.head,
        "maker": dict(info.maker),
    }


def check_batch(config: TrainingConfig, world: int) -> None:
    """Raise :class:`InputError` if the batch cannot be dealt out evenly, minibatch groups whole."""
    shares = world * config.accumulate
    if config.batch % shares:
        raise InputError(
            f"a batch of {config.batch} cannot be shared by {world} processes in {config.accumulate} rounds: "
            f"choose a multiple of {shares}"
        )
    share = config.batch // shares
    if config.stage == "adversarial":
        group = config.discriminator.minibatch_group
        if group and share % group:
            raise InputError(
                f"{share} pictures per process and round cannot be cut into the discriminator's minibatch groups "
                f"of {group}: choose a larger --batch or a smaller --discriminator.minibatch-group"
            )
    elif share % config.reconstruct.views:
        raise InputError(
            f"{share} pictures per process and round are no multiple of --reconstruct.views {config.reconstruct.views}"
        )
