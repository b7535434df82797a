"""The reconstruction warm start: with identity latents known, learn to reproduce the pictures by plain regression.

The paper warm-starts from a trained EG3D. A dataset whose maker knows each picture's latent, depth and part mask allows
a shorter way. First points alone are supervised: space before the true surface is empty, a thin layer behind it is
opaque and has the picture's colour there. That trains texture, planes and decoder at a fraction of the cost of rays,
and without the fog that volume rendering starts from. Then whole pictures are rendered, the super-resolution with them.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from next3d.data.dataset import Batch, Dataset, PictureDataset, collate
from next3d.data.format import PARTS
from next3d.data.synthesis.identity import LATENT_SIZE
from next3d.discriminator import Discriminator
from next3d.errors import InputError
from next3d.estimators import bundled
from next3d.generator.generator import Identity, Planes, Rendering
from next3d.generator.volume import rays
from next3d.geometry.cameras import Camera
from next3d.geometry.meshes import world_from_head
from next3d.heads import HeadModel
from next3d.nn.style import map_styles
from next3d.nn.stylegan2 import SynthesisBlock
from next3d.perceptual import EstimatorFeatures, Perceptual, perceptual_distance
from next3d.training import grids, losses, schedules
from next3d.training.clock import Clock
from next3d.training.config import TrainingConfig
from next3d.training.factors import Factors
from next3d.training.stage import Stage

SMALL_PARTS = ("eyes", "lips", "mouth")
EYE_LANDMARKS = ((36, 42), (42, 48))  # of the 68: each eye's contour
EYE_REACH = 0.8  # radius around an eye's middle, in its width, that holds the lids and the rims of glasses
EDGE_DEPTH = 0.06  # world units: a pixel whose neighbours' depths differ by more holds two surfaces' colours
HELD_OUT = 16  # pictures of the sample grid


class ReconstructStage(Stage):
    """Regression of pictures from (latent, parameters, camera), with the factory's depth and parts as supervision."""

    def __init__(self, config: TrainingConfig, dataset: PictureDataset, head: HeadModel, fabric: Any, clock: Clock):
        check_dataset(config, dataset)
        super().__init__(config, dataset, head, fabric, clock)
        if config.generator.planes.enabled and config.generator.mode == "default":
            self.generator.texture_planes.alignment.requires_grad_(False)  # the factory's meshes are exact
        with torch.no_grad():  # the super-resolution starts by merely enlarging the rays' picture
            for block in self.generator.superres.blocks:
                assert isinstance(block, SynthesisBlock)
                block.to_picture.weight.zero_()
        self.ema.module.load_state_dict(self.generator.state_dict())
        c = config.reconstruct
        mapping = list(self.generator.mapping.parameters())
        others = [p for n, p in self.generator.named_parameters() if not n.startswith("mapping.") and p.requires_grad]
        faster = c.mapping_multiplier / config.generator.mapping.learning_rate
        groups = [{"params": others, "relative": 1.0}, {"params": mapping, "relative": faster}]
        self.factors = None
        if c.factor_weight:
            self.factors = Factors(config.generator.mapping.w_dim, config.seed).to(self.device)
            self.extra_modules["factors"] = self.factors
            groups.append({"params": list(self.factors.parameters()), "relative": 1.0})
        o = config.optimizer
        self.optimizers["generator_optimizer"] = torch.optim.Adam(
            groups, c.learning_rate, (c.beta1, o.beta2), o.epsilon
        )
        self.perceptual: Perceptual | None = None
        if c.perceptual_weight:
            self.perceptual = EstimatorFeatures(bundled("motion").to(self.device))
        self.discriminator: Discriminator | None = None
        if c.adversarial_weight:
            self.discriminator = self.make_discriminator(
                dataclasses.replace(
                    config.discriminator, latent_size=config.generator.mapping.w_dim, head_size=0, minibatch_group=0
                )
            )
        self.held_out = held_out(dataset, HELD_OUT)

    def prepare(self, warm: dict[str, Any]) -> None:
        """Teach a mapping that does not come from elsewhere what latents mean, before any picture is looked at."""
        steps = self.config.reconstruct.factor_steps
        own = {f"mapping.{name}" for name, _ in self.generator.mapping.named_parameters()}
        report = warm.get("generator", {"missing": list(own), "other_shape": []})
        if self.factors is not None and steps and own & {*report["missing"], *report["other_shape"]}:
            self.factors.teach(self.generator.mapping, steps, self.config.seed, self.fabric.global_rank == 0)
            self.ema.module.load_state_dict(self.generator.state_dict())

    def dataset(self, dataset: PictureDataset) -> PictureDataset:
        return ByIdentity(dataset, self.config.reconstruct.views)  # type: ignore[return-value]

    # ---- one step ----

    def step(self, batch: Batch, step: int, images: int) -> dict[str, Tensor]:
        c = self.config.reconstruct
        optimizer = self.optimizers["generator_optimizer"]
        rate = c.learning_rate * min(1.0, (step + 1) / max(c.warm_up_steps, 1))
        rate *= schedules.cosine(step / self.config.total_steps, 1.0, c.final_fraction)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["relative"]
        pictures = step >= c.field_fraction * self.config.total_steps
        metrics: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self.device))
        for share, places in self.rounds(batch):
            draw = self.random("reconstruct", step, places)
            with self.clock("head"):
                scene = Scene.of(share, self.head, c.views)
            with self.fabric.autocast(), self.clock("planes"):
                ws = self.generator.mapping(share.row["latent"].float()[:: c.views])
                identity = self.generator.identity(ws)
                planes = self.generator.planes(
                    spread(identity, scene.meshes // len(ws)), scene.vertices, scene.landmarks
                )
            with self.fabric.autocast(), self.clock("points"):
                terms = self.point_terms(planes, scene, draw, c.picture_pixels if pictures else c.pixels)
            if pictures:
                with draw, self.fabric.autocast(), self.clock("rays"):
                    out = self.generator.render(planes, scene.camera.view(scene.meshes, -1, 25), sampling="stochastic")
                    terms |= self.picture_terms(out, scene)
                if self.discriminator is not None:
                    with self.clock("discriminator"):
                        condition = self.condition(scene, ws)
                        terms["adversarial"] = (c.adversarial_weight, self.realness(out, condition))
            if self.factors is not None:
                chance = draw.uniform(c.factor_latents)
                terms["factors"] = (c.factor_weight, self.factors(self.generator.mapping, chance))
            loss = sum(weight * value for weight, value in terms.values())
            assert isinstance(loss, Tensor)
            with self.clock("backward"):
                self.fabric.backward(loss / self.config.accumulate)
            self.track_average(ws)
            if pictures and self.discriminator is not None:
                with self.clock("discriminator"):
                    for name, value in self.teach_discriminator(out, scene, condition, step).items():
                        metrics[name] += value / self.config.accumulate
            for name, (_, value) in {**terms, "loss": (1.0, loss)}.items():
                metrics[name] += value.detach() / self.config.accumulate
        with self.clock("optimizer"):
            owned = [p for group in optimizer.param_groups for p in group["params"]]
            norm = self.apply(optimizer, owned, c.gradient_clip)
            if norm is not None:
                metrics["gradient_norm"] = norm
            if pictures and self.discriminator is not None:
                self.apply(self.optimizers["discriminator_optimizer"], self.discriminator.parameters())
            self.update_average(images + self.config.batch)
        metrics["learning_rate"] = torch.tensor(rate, device=self.device)
        return dict(metrics)

    def point_terms(self, planes: Planes, scene: Scene, draw: Any, count: int) -> dict[str, tuple[float, Tensor]]:
        """Losses on points along the rays of ``count`` pixels of each picture; name → (weight, value)."""
        c, volume = self.config.reconstruct, self.config.generator.volume
        pixel = choose_pixels(scene.importance(c), draw.uniform(count))  # (N, Q)
        take = lambda values: values.flatten(2).gather(2, pixel[:, None].expand(-1, values.shape[1], -1))  # noqa: E731
        colour = take(scene.image)  # (N, 3, Q) in [−1, 1]
        solid = take(scene.solid)[:, 0]  # (N, Q)
        sharp = take(scene.sharp)[:, 0]
        surface = take(scene.distance)[:, 0]
        chance = draw.uniform(3, count)  # (N, 3, Q)
        # One point in free space, half of the time close to the surface, and one just behind the surface. Where there
        # is no surface both are anywhere along the ray.
        near, far = volume.near, volume.far
        end = torch.where(solid > 0, surface - c.free_margin, far)
        close = (chance[:, 0] < 0.5) & (solid > 0)
        free = torch.where(close, end + 0.04 * chance[:, 1].clamp_min(1e-6).log(), near + chance[:, 1] * (end - near))
        behind = torch.where(solid > 0, surface + chance[:, 2] * c.surface_depth, near + chance[:, 2] * (far - near))
        depths = torch.stack([free.clamp_min(near), behind], -1)  # (N, Q, 2)
        points = scene.origins[:, None, None] + depths[..., None] * take(scene.directions).transpose(1, 2)[:, :, None]
        meshes = scene.meshes
        field = self.generator.volume.field(planes.blended)(points.reshape(meshes, -1, 3))
        sigma = field.sigma.float().view(*depths.shape)  # (N, Q, 2)
        rgb = field.rgb.float().view(*depths.shape, -1)[:, :, 1, :3] * 2 - 1  # (N, Q, 3)
        density = F.softplus(sigma - 1)
        # What a ray crosses before its surface must let light through: density times the way is −log of the light lost,
        # and its logarithm bounds the pull of points that a blurred surface wrongly covers. Close to the surface, and
        # for the layer behind it, the way is a thin layer's.
        way = torch.where(close, c.surface_depth, (end - near).clamp_min(0))
        empty = torch.log1p(density[..., 0] * way)
        layer = density[..., 1] * torch.where(solid > 0, c.surface_depth, far - near)
        opaque = -torch.log(-torch.expm1(-layer) + 1e-6)
        occupancy = (empty + torch.where(solid > 0, opaque, torch.log1p(layer))).mean() / 2
        error = (rgb - colour.transpose(1, 2)).abs().mean(-1)  # (N, Q)
        terms = {
            "colour": (c.colour_weight, losses.weighted_mean(error, solid * sharp)),
            "occupancy": (c.occupancy_weight, occupancy),
        }
        if planes.identity.background is not None:
            size = scene.image.shape[-1]
            place = torch.stack([pixel % size, pixel // size], -1)[:, :, None] * (2 / size) + (1 / size - 1)
            background = planes.identity.background[:, :3].float()
            background = background.repeat_interleave(len(pixel) // len(background), 0)
            seen = F.grid_sample(background, place, align_corners=False, padding_mode="border")[..., 0] * 2 - 1
            error = (seen - colour).abs().mean(1)  # (N, Q)
            terms["background"] = (c.colour_weight, losses.weighted_mean(error, 1 - solid))
        return terms

    def picture_terms(self, out: Rendering, scene: Scene) -> dict[str, tuple[float, Tensor]]:
        """Losses on rendered pictures; name → (weight, value)."""
        c = self.config.reconstruct
        image, raw, alpha = out.image.float(), out.image_raw.float(), out.alpha.float()
        size = raw.shape[-1]

        def shrink(x: Tensor) -> Tensor:
            return F.interpolate(x, (size, size), mode="area")

        weight = scene.weight(c.small_part_weight)
        solid = shrink(scene.solid)
        inside = (solid > 0.99).float() * (shrink(scene.sharp) > 0.99).float()
        terms = {
            "image": (c.image_weight, losses.weighted_l1(image, scene.image, weight)),
            "edges": (c.edge_weight, losses.gradient_l1(image, scene.image, weight)),
            "rays": (c.ray_weight, losses.weighted_l1(raw, shrink(scene.image), shrink(weight))),
            "silhouette": (c.silhouette_weight, losses.silhouette_loss(alpha, solid)),
            "depth": (c.depth_weight, losses.depth_l1(out.depth.float(), shrink(scene.distance), inside)),
        }
        if c.texture_weight:
            terms["texture"] = (c.texture_weight, losses.texture_l1(image, scene.image, weight))
        if self.perceptual is not None:
            with torch.autocast(image.device.type, enabled=False):
                layers, targets = self.perceptual.layers(image), self.perceptual.layers(scene.image)
                terms["features"] = (c.perceptual_weight, perceptual_distance(layers, targets, weight))
        return terms

    # ---- the discriminator ----

    def condition(self, scene: Scene, ws: Tensor) -> dict[str, Tensor | None]:
        """What the discriminator is told about each picture: camera, who it is, and the head mesh as seen."""
        drawn = None
        if self.correspondence is not None:
            vertices = scene.vertices.repeat_interleave(len(scene.image) // scene.meshes, 0)
            drawn = self.correspondence(vertices, scene.camera)
        latent = ws[:, 0].detach().repeat_interleave(len(scene.image) // len(ws), 0)
        return {"camera_label": scene.camera, "latent": latent, "synthetic": drawn}

    def realness(self, out: Rendering, condition: dict[str, Tensor | None]) -> Tensor:
        """The generator's loss: regression alone blurs whatever it cannot place to the pixel."""
        assert self.discriminator is not None
        self.discriminator.requires_grad_(False)
        with self.fabric.autocast():
            logits = self.discriminator(out.image, out.image_raw, **condition)
        self.discriminator.requires_grad_(True)
        return losses.generator_loss(logits.float())

    def teach_discriminator(
        self, out: Rendering, scene: Scene, condition: dict[str, Tensor | None], step: int
    ) -> dict[str, Tensor]:
        """Leave the discriminator's gradients on the same pictures, generated and true, with lazy R1."""
        assert self.discriminator is not None
        a = self.config.adversarial
        regularise = bool(a.r1_gamma) and step % a.r1_interval == 0
        size = out.image_raw.shape[-1]
        real, real_raw = scene.image.clone(), F.interpolate(scene.image, (size, size), mode="area")
        if regularise:
            real, real_raw = real.requires_grad_(), real_raw.requires_grad_()
        with self.fabric.autocast():
            fake_logits = self.discriminator(out.image.detach(), out.image_raw.detach(), **condition).float()
            real_logits = self.discriminator(real, real_raw, **condition).float()
            loss = losses.discriminator_loss(real_logits, fake_logits)
            metrics = {
                "discriminator/loss": loss.detach(),
                "discriminator/real_sign": real_logits.detach().sign().mean(),
                "discriminator/fake_sign": fake_logits.detach().sign().mean(),
            }
            if regularise:
                penalty = losses.r1_penalty(real_logits, real, real_raw).mean()
                loss = loss + penalty * (a.r1_gamma / 2 * a.r1_interval)
                metrics["discriminator/r1"] = penalty.detach()
        self.fabric.backward(loss / self.config.accumulate)
        return metrics

    # ---- samples ----

    @torch.no_grad()
    def samples(self) -> Tensor:
        """Held-out truth and prediction in turn, then the controls of unseen identities."""
        model = self.average
        lines, columns = [], HELD_OUT // 2
        for first in range(0, HELD_OUT, columns):
            batch = self.held_out[first // columns].to(self.device)
            mesh = self.mesh(batch.params)
            ws = model.mapping(batch.row["latent"].float())
            out = model.synthesis(ws, batch.camera, mesh.vertices, mesh.landmarks)
            lines += [grids.stack(batch.normalized, columns), grids.stack(out.image.float().clamp(-1, 1), columns)]
        truth = torch.cat(lines, 1).cpu()
        batch = self.held_out[0]
        table = grids.control_grid(
            model, self.head, self.config.seed, 4, batch.row["latent"][:4].float(), batch.params.shape[:4]
        )
        table = F.pad(table, (0, max(0, truth.shape[2] - table.shape[2])), value=1.0)
        truth = F.pad(truth, (0, max(0, table.shape[2] - truth.shape[2])), value=1.0)
        return torch.cat([truth, table], 1)


@dataclasses.dataclass(frozen=True)
class Scene:
    """The pictures of one round with what is known about each pixel; N pictures of M meshes, mesh by mesh.

    Attributes:
        image: (N, 3, R, R) in [−1, 1]
        small: (N, 1, R, R) 1 on eyes with their lids, lips and the inside of the mouth
        solid: (N, 1, R, R) 1 where a surface is seen
        sharp: (N, 1, R, R) 1 where the pixel shows one surface
        distance: (N, 1, R, R) to the surface along the pixel's ray, world units
        origins: (N, 3) the rays' common origin
        directions: (N, 3, R, R) of the rays, unit
        camera: (N, 25)
        vertices, landmarks: (M, V, 3), (M, 68, 3)
    """

    image: Tensor
    small: Tensor
    solid: Tensor
    sharp: Tensor
    distance: Tensor
    origins: Tensor
    directions: Tensor
    camera: Tensor
    vertices: Tensor
    landmarks: Tensor

    @property
    def meshes(self) -> int:
        return len(self.vertices)

    @staticmethod
    def of(batch: Batch, head: HeadModel, views: int) -> Scene:
        """Pictures that share a head's parameters share its mesh and planes, if all identities do so alike."""
        image = batch.normalized
        size = image.shape[-1]
        depth = batch.aux["depth"]  # (N, 1, R, R) along the camera's z
        origins, directions = rays(batch.camera[:, None], size)  # (N, R·R, 3)
        forward = Camera.from_label(batch.camera).cam2world[:, :3, 2]  # (N, 3)
        slant = (directions @ forward[:, :, None])[..., 0].view(len(image), 1, size, size)
        directions = directions.transpose(1, 2).unflatten(2, (size, size))
        solid = (depth > 0).float()
        high = F.max_pool2d(depth, 3, 1, 1)
        low = -F.max_pool2d(-torch.where(depth > 0, depth, -1e3), 3, 1, 1)
        sharp = (high - low < EDGE_DEPTH).float()
        together = shared_meshes(batch.numbers[:, 25:], views)
        with torch.no_grad():
            mesh = head(batch.params[::together])
        return Scene(
            image,
            small_parts(batch.aux["parts"]).maximum(around_eyes(mesh.landmarks, batch.camera, size)),
            solid,
            sharp,
            depth / slant,
            origins[:, 0],
            directions,
            batch.camera,
            mesh.vertices,
            mesh.landmarks,
        )

    def weight(self, small: float) -> Tensor:
        """(N, 1, R, R): how much each pixel counts."""
        return 1 + (small - 1) * self.small

    def importance(self, config: Any) -> Tensor:
        """(N, R·R): how likely each pixel is drawn, relative to the others."""
        grey = self.image.mean(1, keepdim=True)
        contrast = F.max_pool2d(grey, 3, 1, 1) + F.max_pool2d(-grey, 3, 1, 1)
        background = 0.5 + 0.5 * self.solid  # there is little to learn outside the head
        return ((self.weight(config.small_part_weight) + config.edge_bias * contrast) * background).flatten(1)


def small_parts(parts: Tensor) -> Tensor:
    """1 on eyes, lips and the inside of the mouth."""
    return sum((parts == PARTS.index(name)).float() for name in SMALL_PARTS)  # type: ignore[return-value]


def around_eyes(landmarks: Tensor, cameras: Tensor, size: int) -> Tensor:
    """(N, 1, R, R): 1 in a disc around each eye: closed lids are skin to the part mask, and matter like open eyes.

    Args:
        landmarks: (M, 68, 3) metres, head frame; M divides N
        cameras: (N, 25)
    """
    points = world_from_head(landmarks).repeat_interleave(len(cameras) // len(landmarks), 0)
    places, _ = Camera.from_label(cameras).project(points)  # (N, 68, 2)
    centres = (torch.arange(size, device=cameras.device) + 0.5) / size
    mask = cameras.new_zeros(len(cameras), 1, size, size)
    for first, last in EYE_LANDMARKS:
        eye = places[:, first:last]  # (N, 6, 2)
        middle = eye.mean(1)
        radius = EYE_REACH * (eye[:, :, None] - eye[:, None]).square().sum(-1).flatten(1).amax(1).sqrt()  # (N,)
        across = (centres - middle[:, :1]).square()[:, None, :]  # (N, 1, R)
        down = (centres - middle[:, 1:]).square()[:, :, None]  # (N, R, 1)
        mask = mask.maximum((across + down <= radius.square()[:, None, None])[:, None].float())
    return mask


def choose_pixels(importance: Tensor, chance: Tensor) -> Tensor:
    """Draw pixels in proportion to importance (N, P), one in each of Q equal shares; chance (N, Q) → (N, Q)."""
    total = importance.double().cumsum(1)
    count = chance.shape[1]
    place = (torch.arange(count, device=chance.device) + chance) / count * total[:, -1:]
    return torch.searchsorted(total, place).clamp_max(importance.shape[1] - 1)


def shared_meshes(numbers: Tensor, views: int) -> int:
    """How many neighbouring pictures share their parameters (N, 162), if all identities do so alike; else 1."""
    for together in range(views, 1, -1):
        if views % together == 0:
            runs = numbers.unflatten(0, (-1, together))
            if bool((runs == runs[:, :1]).all()):
                return together
    return 1


def spread(identity: Identity, times: int) -> Identity:
    """The identities of N latents for N·times meshes, latent by latent."""
    if times == 1:
        return identity

    def rows(x: Tensor) -> Tensor:
        return x.repeat_interleave(times, 0)

    def styles(tree: Any) -> Any:
        return None if tree is None else map_styles(lambda style: style.repeat(times), tree)

    return dataclasses.replace(
        identity,
        texture=None if identity.texture is None else rows(identity.texture),
        static=None if identity.static is None else tuple(rows(p) for p in identity.static),
        mouth=styles(identity.mouth),
        blending=styles(identity.blending),
        superres=styles(identity.superres),
        background=None if identity.background is None else rows(identity.background),
    )


class ByIdentity:
    """A dataset in an order that keeps ``views`` pictures of one identity together."""

    def __init__(self, dataset: PictureDataset, views: int):
        self._dataset = dataset
        self._views = views
        groups: dict[Any, list[int]] = defaultdict(list)
        for index, identity in enumerate(np.asarray(dataset.columns["identity"]).tolist()):  # type: ignore[attr-defined]
            groups[identity].append(index)
        runs = [places[i : i + views] for places in groups.values() for i in range(0, len(places) - views + 1, views)]
        if not runs:
            raise InputError(
                f"{dataset.path} has no identity with {views} pictures: make it with more pictures per identity, or "
                "lower --reconstruct.views"
            )
        self._runs = np.array(runs)  # (runs, views)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def __len__(self) -> int:
        return self._runs.size

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """(len,) indices of the dataset: a pure function of seed and epoch."""
        return self._runs[np.random.default_rng((seed, epoch)).permutation(len(self._runs))].reshape(-1)


def held_out(dataset: PictureDataset, count: int) -> list[Batch]:
    """Two batches of pictures of the validation split, or of the dataset itself if it has none."""
    source: PictureDataset = dataset
    if isinstance(dataset, Dataset):
        try:
            other = Dataset(dataset.path, "validation", aux=True, columns=tuple(dataset.columns))
            source = other if len(other) else dataset
        except InputError:
            pass
    samples = [source.good(i * len(source) // count) for i in range(count)]
    return [collate(samples[: count // 2]), collate(samples[count // 2 :])]


def check_dataset(config: TrainingConfig, dataset: PictureDataset) -> None:
    """Raise :class:`InputError` unless the dataset knows what this stage learns from."""
    columns = getattr(dataset, "columns", {})
    missing = [name for name in ("latent", "identity") if name not in columns]
    if missing or not {"depth", "parts"} <= set(dataset.aux):
        what = f"columns {missing}" if missing else "auxiliary depth and parts"
        raise InputError(
            f"--stage reconstruct needs the {what} in {dataset.path}: make the dataset with "
            "next3d dataset synthesize --aux, and not from photos"
        )
    if config.reconstruct.factor_weight and config.generator.mapping.z_dim != LATENT_SIZE:
        raise InputError(
            f"--reconstruct.factor-weight is for the factory's latents of {LATENT_SIZE} numbers: set it to 0"
        )
    size = len(columns["latent"][0])
    if size != config.generator.mapping.z_dim:
        raise InputError(
            f"{dataset.path} has latents of {size} numbers, the generator takes {config.generator.mapping.z_dim}: "
            f"set --generator.mapping.z-dim {size}"
        )
    if config.generator.mapping.camera_conditioning:
        raise InputError(
            "--stage reconstruct needs --no-generator.mapping.camera-conditioning: its latents hold no camera"
        )
