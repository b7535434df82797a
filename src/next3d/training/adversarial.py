"""The adversarial stage (paper, §3.5 and §3.6): generator against discriminator, with lazy regularisation.

A step makes up to four updates, each with its own fresh latents: the generator's loss, every ``density_interval`` steps
the density regularisation, the discriminator's loss, every ``r1_interval`` steps the R1 penalty.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from next3d.data.dataset import Batch, PictureDataset
from next3d.errors import InputError
from next3d.generator.generator import Rendering
from next3d.heads import HeadModel
from next3d.training import ada, grids, losses, schedules
from next3d.training.clock import Clock
from next3d.training.config import TrainingConfig
from next3d.training.randomness import SampleRandom
from next3d.training.stage import Stage

POSE_POOL = 65_536  # cameras that camera swapping draws from, at most


class AdversarialStage(Stage):
    """Non-saturating loss with R1, density regularisation, blur fade, camera swapping, EMA, and ADA as an option."""

    def __init__(self, config: TrainingConfig, dataset: PictureDataset, head: HeadModel, fabric: Any, clock: Clock):
        super().__init__(config, dataset, head, fabric, clock)
        self.mirrors = config.mirror
        d = config.discriminator
        if d.head_size not in (0, HEAD_LABEL):
            raise InputError(
                f"--discriminator.head-size must be 0 or {HEAD_LABEL} (expression, neck, jaw, eyes), got {d.head_size}"
            )
        if d.latent_size:
            raise InputError(
                "--discriminator.latent-size must be 0: real pictures of this stage have no latent; the "
                "reconstruction stage sets it by itself"
            )
        self.cameras = pose_pool(dataset).to(self.device)
        o, a = config.optimizer, config.adversarial
        interval = a.density_interval if a.density_weight else 0
        rate, betas = schedules.lazy(o.generator_learning_rate, (o.beta1, o.beta2), interval)
        self.optimizers["generator_optimizer"] = torch.optim.Adam(self.generator.parameters(), rate, betas, o.epsilon)
        self.discriminator = self.make_discriminator(d)
        self.augment_p = config.augment.initial
        self._signs: list[float] = []

    # ---- one step ----

    def step(self, batch: Batch, step: int, images: int) -> dict[str, Tensor]:
        c = self.config.adversarial
        metrics: dict[str, Tensor] = {}
        with self.clock("head"):
            mesh = self.mesh(batch.params)
            scene = Scene(batch, mesh.vertices, mesh.landmarks, self._ray_resolution(images))
        rendering = None
        if self.correspondence is not None:
            with self.clock("rasterisation"):
                rendering = self.correspondence(scene.vertices, batch.camera)
        with self.clock("generator"):
            metrics["generator/loss"] = self._update_generator(scene, rendering, step, images)
        if c.density_weight and step % c.density_interval == 0:
            with self.clock("density"):
                metrics["generator/density"] = self._regularise_density(scene, step, images)
        with self.clock("discriminator"):
            metrics |= self._update_discriminator(scene, rendering, step, images)
        if c.r1_gamma and step % c.r1_interval == 0:
            with self.clock("r1"):
                metrics["discriminator/r1"] = self._regularise_discriminator(scene, rendering, step, images)
        with self.clock("ema"):
            self.update_average(images + self.config.batch)
        metrics["blur"] = torch.tensor(self._blur(images), device=self.device)
        if self.config.augment.enabled:
            self._adapt(metrics["discriminator/real_sign"], step)
            metrics["augment_p"] = torch.tensor(self.augment_p, device=self.device)
        return metrics

    def _update_generator(self, scene: Scene, rendering: Tensor | None, step: int, images: int) -> Tensor:
        total = torch.zeros((), device=self.device)
        self.discriminator.requires_grad_(False)
        for places, share in self._shares(scene):
            draw = self.random("generator", step, places)
            with self.fabric.autocast():
                fake, ws = self._generate(scene, share, draw, images)
                logits = self._judge(fake.image, fake.image_raw, scene, share, rendering, draw, images)
                loss = losses.generator_loss(logits.float())
            self.fabric.backward(loss / self.config.accumulate)
            self.track_average(ws)
            total += loss.detach() / self.config.accumulate
        self.discriminator.requires_grad_(True)
        self.apply(self.optimizers["generator_optimizer"], self.generator.parameters())
        return total

    def _regularise_density(self, scene: Scene, step: int, images: int) -> Tensor:
        c = self.config.adversarial
        box = self.config.generator.volume.box_size
        total = torch.zeros((), device=self.device)
        for places, share in self._shares(scene):
            draw = self.random("density", step, places)
            z = draw.normal(self.config.generator.mapping.z_dim)
            points = (draw.uniform(c.density_points, 3) - 0.5) * box  # (N, P, 3)
            near = points + draw.normal(c.density_points, 3) * c.density_distance
            near = near.clamp(-box / 2, box / 2)  # the default mode has nothing beyond it
            with self.fabric.autocast(), draw:
                ws = self.generator.mapping(z, self._conditioning(scene, share, draw, images))
                identity = self.generator.identity(ws, "random")
                planes = self.generator.planes(identity, scene.vertices[share], scene.landmarks[share])
                sigma = self.generator.density(torch.cat([points, near], 1), planes=planes).sigma
                loss = losses.density_loss(*sigma.float().chunk(2, 1))
            self.fabric.backward(loss * (c.density_weight * c.density_interval / self.config.accumulate))
            total += loss.detach() / self.config.accumulate
        self.apply(self.optimizers["generator_optimizer"], self.generator.parameters())
        return total

    def _update_discriminator(
        self, scene: Scene, rendering: Tensor | None, step: int, images: int
    ) -> dict[str, Tensor]:
        metrics = {
            f"discriminator/{name}": torch.zeros((), device=self.device) for name in ("loss", "real_sign", "fake_sign")
        }
        for places, share in self._shares(scene):
            draw = self.random("discriminator", step, places)
            with self.fabric.autocast():
                with torch.no_grad():
                    fake, _ = self._generate(scene, share, draw, images)
                fake_logits = self._judge(fake.image, fake.image_raw, scene, share, rendering, draw, images).float()
                real, real_raw = self._real(scene, share, images)
                real_logits = self._judge(real, real_raw, scene, share, rendering, draw, images, blurred=True).float()
                loss = losses.discriminator_loss(real_logits, fake_logits)
            self.fabric.backward(loss / self.config.accumulate)
            values = {"loss": loss, "real_sign": real_logits.sign().mean(), "fake_sign": fake_logits.sign().mean()}
            for name, value in values.items():
                metrics[f"discriminator/{name}"] += value.detach() / self.config.accumulate
        self.apply(self.optimizers["discriminator_optimizer"], self.discriminator.parameters())
        return metrics

    def _regularise_discriminator(self, scene: Scene, rendering: Tensor | None, step: int, images: int) -> Tensor:
        c = self.config.adversarial
        total = torch.zeros((), device=self.device)
        for places, share in self._shares(scene):
            draw = self.random("r1", step, places)
            real, real_raw = (x.detach().requires_grad_() for x in self._real(scene, share, images))
            with self.fabric.autocast():
                logits = self._judge(real, real_raw, scene, share, rendering, draw, images, blurred=True)
                penalty = losses.r1_penalty(logits.float(), real, real_raw)
            self.fabric.backward(penalty.mean() * (c.r1_gamma / 2 * c.r1_interval / self.config.accumulate))
            total += penalty.detach().mean() / self.config.accumulate
        self.apply(self.optimizers["discriminator_optimizer"], self.discriminator.parameters())
        return total

    # ---- parts of a step ----

    def _shares(self, scene: Scene) -> list[tuple[range, slice]]:
        """For each round of accumulation: the places in the global batch, and the slice of this process's batch."""
        count = len(scene.batch) // self.config.accumulate
        return [(self.places(count, k), slice(k * count, (k + 1) * count)) for k in range(self.config.accumulate)]

    def _generate(self, scene: Scene, share: slice, draw: SampleRandom, images: int) -> tuple[Rendering, Tensor]:
        z = draw.normal(self.config.generator.mapping.z_dim)
        ws = self.generator.mapping(z, self._conditioning(scene, share, draw, images))
        with draw:
            picture = self.generator.synthesis(
                ws,
                scene.batch.camera[share],
                scene.vertices[share],
                scene.landmarks[share],
                noise="random",
                sampling="stochastic",
                ray_resolution=scene.ray_resolution,
            )
        return picture, ws

    def _conditioning(self, scene: Scene, share: slice, draw: SampleRandom, images: int) -> Tensor | None:
        """The camera that the generator is told: the one rendered, or with the swap probability another picture's."""
        if not self.config.generator.mapping.camera_conditioning:
            return None
        c = self.config.adversarial
        probability = schedules.ramp(images, c.swap_probability_start, c.swap_probability, c.swap_fade_images)
        chance = draw.uniform(2)  # (N, 2): whether, and whose
        other = self.cameras[(chance[:, 1] * len(self.cameras)).long()]
        return torch.where(chance[:, :1] < probability, other, scene.batch.camera[share])

    def _real(self, scene: Scene, share: slice, images: int) -> tuple[Tensor, Tensor]:
        """The real pair: the picture, and the same at the rays' resolution, both with the current blur."""
        image = losses.blur(scene.batch.normalized[share], self._blur(images))
        size = scene.ray_resolution or self.config.generator.volume.ray_resolution
        return image, F.interpolate(image, (size, size), mode="bilinear", align_corners=False, antialias=True)

    def _judge(
        self,
        image: Tensor,
        image_raw: Tensor,
        scene: Scene,
        share: slice,
        rendering: Tensor | None,
        draw: SampleRandom,
        images: int,
        blurred: bool = False,
    ) -> Tensor:
        """Logits (N, 1) of pictures; the order of the rows is that of :func:`grouped`, which no mean can tell."""
        if not blurred:
            image = losses.blur(image.float(), self._blur(images))
        condition = None if rendering is None else rendering[share]
        if self.config.augment.enabled:
            (image, image_raw), condition = ada.augment([image, image_raw], condition, self.augment_p, draw)
        params = scene.batch.params
        head_label = torch.cat([params.expression, params.neck, params.jaw, params.eyes], -1)[share]

        def order(x: Tensor) -> Tensor:
            return grouped(x, self.config.discriminator.minibatch_group)

        with draw:
            return self.discriminator(
                order(image),
                order(image_raw),
                order(scene.batch.camera[share]),
                synthetic=None if condition is None else order(condition),
                head_label=order(head_label) if self.config.discriminator.head_size else None,
            )

    def _blur(self, images: int) -> float:
        c = self.config.adversarial
        return schedules.blur_sigma(images, c.blur_sigma, c.blur_fade_images)

    def _ray_resolution(self, images: int) -> int | None:
        c = self.config.adversarial
        if not c.ray_resolution_start:
            return None
        end = self.config.generator.volume.ray_resolution
        return schedules.ray_resolution(images, c.ray_resolution_start, end, c.ray_resolution_fade_images)

    def _adapt(self, sign: Tensor, step: int) -> None:
        """Adjust the augmentation's probability to the mean sign of D on real pictures since the last adjustment."""
        c = self.config.augment
        if self.fabric.world_size > 1:
            sign = self.fabric.all_reduce(sign, reduce_op="mean")
        self._signs.append(float(sign))
        if (step + 1) % c.interval == 0:
            mean = sum(self._signs) / len(self._signs)
            shown = self.config.batch * len(self._signs)
            self.augment_p = ada.adapt(self.augment_p, mean, c.target, shown, c.speed_images)
            self._signs = []

    # ---- samples and state ----

    def samples(self) -> Tensor:
        return grids.control_grid(self.average, self.head, self.config.seed)

    def state(self) -> dict[str, Any]:
        return {"augment_p": self.augment_p, "signs": self._signs}

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        super().restore(tensors, state)
        self.augment_p, self._signs = state["augment_p"], list(state["signs"])


HEAD_LABEL = 62  # expression 50, neck 3, jaw 3, eyes 6: what conditions the discriminator of the paper's A.1


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a step's pictures show: the batch, its meshes (N, V, 3) and (N, 68, 3), and the rays' resolution."""

    batch: Batch
    vertices: Tensor
    landmarks: Tensor
    ray_resolution: int | None


def grouped(x: Tensor, group: int) -> Tensor:
    """Rows in the order in which the discriminator's minibatch groups are runs of neighbours.

    The network puts picture i into group i mod (N / group). Reordered so, each group holds ``group`` pictures that
    follow each other in the global batch, whoever processes them, and the losses of any number of processes agree.
    """
    if group < 2 or len(x) <= group:
        return x
    return x.unflatten(0, (-1, group)).transpose(0, 1).flatten(0, 1)


def pose_pool(dataset: PictureDataset) -> Tensor:
    """(P, 25) camera labels of the dataset, evenly spaced over it."""
    numbers = getattr(dataset, "numbers", None)
    if numbers is not None:
        return torch.as_tensor(numbers)[:: max(1, len(numbers) // POSE_POOL), :25].float()
    count = min(len(dataset), 1024)
    return torch.stack([dataset.good(i * len(dataset) // count).camera for i in range(count)])
