"""What every stage of training shares: the generator, its average, distributed steps, warm start, sample grids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from next3d.data.dataset import Batch, PictureDataset
from next3d.discriminator import Discriminator, DiscriminatorConfig
from next3d.errors import InputError
from next3d.generator.generator import Generator
from next3d.heads import HeadMesh, HeadModel, HeadParams
from next3d.training import checkpoints
from next3d.training.clock import Clock
from next3d.training.conditioning import CorrespondenceImage, template_of
from next3d.training.config import TrainingConfig
from next3d.training.ema import EMA
from next3d.training.randomness import SampleRandom
from next3d.training.schedules import ema_decay, lazy
from next3d.training.warm_start import read_weights, take


class Stage:
    """One objective: builds its networks, makes steps, and knows everything that a checkpoint must hold.

    A subclass fills ``optimizers`` and ``extra_modules`` and writes ``step`` and ``samples``.
    """

    mirrors = False  # whether the loader may mirror pictures

    def __init__(self, config: TrainingConfig, dataset: PictureDataset, head: HeadModel, fabric: Any, clock: Clock):
        self.config, self.fabric, self.clock = config, fabric, clock
        self.device: torch.device = fabric.device
        self.head = head.to(self.device)
        self.generator = Generator(config.generator, head.topology).to(self.device)
        self.ema = EMA(self.generator)
        self.extra_modules: dict[str, nn.Module] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.correspondence: CorrespondenceImage | None = None

    def dataset(self, dataset: PictureDataset) -> PictureDataset:
        """The dataset as this stage wants it ordered."""
        return dataset

    def prepare(self, warm: dict[str, Any]) -> None:
        """What a fresh run does before its first step; ``warm`` is the warm start's report, empty without one."""

    def step(self, batch: Batch, step: int, images: int) -> dict[str, Tensor]:
        """One optimisation step on this process's part of the batch; returns scalars to log."""
        raise NotImplementedError

    def samples(self) -> Tensor:
        """A grid (3, H, W) in [−1, 1] of the averaged generator."""
        raise NotImplementedError

    # ---- for subclasses ----

    def make_discriminator(self, config: DiscriminatorConfig) -> Discriminator:
        """A discriminator of this stage's pictures, with its optimiser and what draws its synthetic rendering.

        Raises:
            InputError: it sees pictures of another resolution than the generator makes.
        """
        made = self.config.generator.superres.resolution
        if config.resolution != made:
            raise InputError(
                f"the discriminator sees {config.resolution}², the generator makes {made}²: "
                "--discriminator.resolution and --generator.superres.resolution must be the same"
            )
        discriminator = Discriminator(config).to(self.device)
        self.extra_modules["discriminator"] = discriminator
        o, a = self.config.optimizer, self.config.adversarial
        interval = a.r1_interval if a.r1_gamma else 0
        rate, betas = lazy(o.discriminator_learning_rate, (o.beta1, o.beta2), interval)
        self.optimizers["discriminator_optimizer"] = torch.optim.Adam(
            discriminator.parameters(), rate, betas, o.epsilon
        )
        if config.synthetic_rendering:
            self.correspondence = CorrespondenceImage(
                self.head.topology, template_of(self.head), config.resolution, a.synthetic_rendering
            ).to(self.device)
        return discriminator

    def mesh(self, params: HeadParams) -> HeadMesh:
        """Meshes of a batch of head parameters, without gradients."""
        with torch.no_grad():
            return self.head(params)

    def places(self, count: int, round_: int = 0) -> range:
        """The places in the global batch of the ``count`` pictures that this process handles in one round."""
        share = self.config.batch // self.fabric.world_size
        first = self.fabric.global_rank * share + round_ * count
        return range(first, first + count)

    def random(self, purpose: str, step: int, places: Sequence[int]) -> SampleRandom:
        return SampleRandom(self.config.seed, purpose, step, places, self.device)

    def rounds(self, batch: Batch) -> list[tuple[Batch, range]]:
        """The batch cut into the rounds of gradient accumulation, each with its places in the global batch."""
        count = len(batch) // self.config.accumulate
        return [(part(batch, k * count, count), self.places(count, k)) for k in range(self.config.accumulate)]

    def apply(
        self, optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter], clip: float = 0.0
    ) -> Tensor | None:
        """Average the gradients over the processes, mend them, clip them and make the optimiser's step."""
        owners = [p for p in parameters if p.grad is not None]
        gradients = torch.cat([p.grad.flatten() for p in owners if p.grad is not None])
        if self.fabric.world_size > 1:
            gradients = self.fabric.all_reduce(gradients, reduce_op="mean")
        bound = self.config.optimizer.gradient_bound
        gradients = gradients.nan_to_num(nan=0.0, posinf=bound, neginf=-bound)
        norm = None
        if clip:
            norm = gradients.norm()
            gradients = gradients * (clip / norm.clamp_min(clip))
        for parameter, piece in zip(owners, gradients.split([p.numel() for p in owners]), strict=True):
            parameter.grad = piece.view_as(parameter)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return norm

    def track_average(self, ws: Tensor) -> None:
        """Move the mapping's running mean of w towards the global batch's mean."""
        mean = ws.detach().float().mean(0, keepdim=True)
        if self.fabric.world_size > 1:
            mean = self.fabric.all_reduce(mean, reduce_op="mean")
        self.generator.mapping.track_average(mean)

    def update_average(self, images: int) -> None:
        """Let the averaged generator follow."""
        ema = self.config.ema
        half_life = ema.half_life_images * self.config.batch / ema.half_life_batch
        self.ema.update(self.generator, ema_decay(images, self.config.batch, half_life, ema.ramp_up or None))

    @property
    def average(self) -> Generator:
        """The averaged generator, which is sampled and exported."""
        return cast(Generator, self.ema.module)

    # ---- checkpoints ----

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "ema": self.ema.module, **self.extra_modules}

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that the next step depends on."""
        result: dict[str, Tensor] = {}
        for name, module in self.modules.items():
            result |= checkpoints.module_tensors(name, module)
        for name, optimizer in self.optimizers.items():
            result |= checkpoints.optimizer_tensors(name, optimizer)
        return result

    def state(self) -> dict[str, Any]:
        """Everything else, as JSON."""
        return {}

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """The inverse of :meth:`tensors` and :meth:`state`."""
        for name, module in self.modules.items():
            checkpoints.load_module(name, module, tensors)
        for name, optimizer in self.optimizers.items():
            checkpoints.load_optimizer(name, optimizer, tensors)

    def warm_start(self, source: Path) -> dict[str, Any]:
        """Take weights of a model folder or a run where names and shapes agree; returns and prints what was taken."""
        weights = read_weights(source)
        report = {}
        for name, module in self.modules.items():
            own = weights.get("generator" if name == "ema" else name)
            if own:
                report[name] = take(module, own, name, self.fabric.global_rank == 0 and name != "ema")
        return report


def part(batch: Batch, first: int, count: int) -> Batch:
    """Samples ``first`` to ``first + count`` of a batch."""
    if first == 0 and count == len(batch):
        return batch

    def cut(values: Any) -> Any:
        return {k: v[first : first + count] for k, v in values.items()}

    return Batch(
        batch.image[first : first + count],
        batch.numbers[first : first + count],
        cut(batch.row),
        cut(batch.aux),
        batch.index[first : first + count],
    )
