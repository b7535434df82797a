"""Photos to an avatar: pivotal tuning (paper, §4.3 and supplement C; Roich et al. 2021).

First the latent is sought whose pictures are nearest to the photos, the generator standing still. That latent is the
pivot: it lies where the generator knows faces, so that it animates. Then the generator's weights are moved a little,
until the pivot's pictures are the photos. The user's model is never touched: a copy is tuned, and the avatar keeps the
differences.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from next3d.avatar import Avatar, fingerprint
from next3d.data.synthesis.poses import draw_pose
from next3d.editing.latent_space import LatentSpace, draw_w, w_of
from next3d.editing.losses import PictureLoss, Target, face_weights
from next3d.editing.progress import Callback, Cancelled, Reporter
from next3d.errors import InputError
from next3d.estimators import Estimator
from next3d.generator.generator import Generator
from next3d.geometry.cameras import Camera
from next3d.geometry.rotations import matrix_from_axis_angle
from next3d.heads import HeadModel, HeadParams
from next3d.io.files import atomic_path
from next3d.metrics.pixels import psnr

LATENT, WEIGHTS = "latent", "weights"  # the two stages
CHECKPOINT_EVERY = 50  # steps


@dataclass(frozen=True)
class InversionSettings:
    """How photos are inverted; the step counts are the paper's."""

    latent_steps: int = 450
    """steps of the latent"""
    weight_steps: int = 500
    """steps of the generator's weights"""
    latent_rate: float = 0.05
    """step size of the latent, in standard deviations of w"""
    weight_rate: float = 1e-3
    """step size of the weights"""
    start: Literal["best", "mean"] = "best"
    """begin at the best of ``candidates`` random identities, or at the mean"""
    candidates: int = 32
    per_layer: bool = False
    """a w for every layer (w+) instead of one for each half: nearer to the photo, less animatable"""
    noise_maps: bool = False
    """also seek the per-pixel noise, as PTI does"""
    noise_weight: float = 1e2
    """keeps sought noise maps from carrying a picture: their correlation with themselves, shifted, is punished"""
    latent_noise: float = 0.2
    """random steps of the latent at the beginning, in standard deviations, falling to 0 at three quarters"""
    mean_weight: float = 1e-3
    """of the squared distance of w to its mean, in standard deviations"""
    pixel_weight: float = 1.0
    perceptual_weight: float = 1.0
    identity_weight: float = 0.0
    face_weight: float = 3.0
    """how much more the face counts than what is around it"""
    anchor_every: int = 4
    """every so many weight steps the tuned model is also held to the pivot in a random view and expression; 0: never"""
    anchor_weight: float = 1.0
    anchors: int = 16
    """how many such views there are"""
    refine_pose: bool = False
    """also seek each photo's camera and head parameters, from what the tracking says"""
    pose_rate: float = 2e-3
    """step size of these, in radians, units of expression, and world units"""
    pose_weight: float = 0.3
    """of their squared distance to the tracking"""
    patience: int = 100
    """a stage ends early when its loss has not fallen by 0.5 % for so many steps; 0: never"""
    target_psnr: float | None = None
    """the weights' stage ends early when all photos are matched to so many dB"""
    seed: int = 0

    def check(self) -> None:
        """Raise :class:`InputError` for impossible settings."""
        for name in ("latent_steps", "weight_steps", "candidates", "patience", "anchor_every", "anchors"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}: it must not be negative")
        for name in ("latent_rate", "weight_rate", "pose_rate", "face_weight"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}: it must be positive")


@dataclass
class Inversion:
    """What inversion made.

    Attributes:
        avatar: the tuned avatar
        photos: (N, 3, R, R) what was to be matched, in [−1, 1]
        pivot_pictures: (N, 3, R, R) after the latent's stage
        pictures: (N, 3, R, R) of the avatar
        cameras, params: of each photo (N,), refined if that was asked for
        curves: stage → the loss of every step
        pivot_psnr, psnr: mean over photos in dB, before and after tuning
        names: of the photos, where they came from files
    """

    avatar: Avatar
    photos: Tensor
    pivot_pictures: Tensor
    pictures: Tensor
    cameras: Camera
    params: HeadParams
    curves: dict[str, list[float]]
    pivot_psnr: float
    psnr: float
    names: list[str] = field(default_factory=list)


def invert(
    images: Tensor,
    cameras: Camera,
    params: HeadParams,
    model: Generator,
    settings: InversionSettings | None = None,
    callback: Callback | None = None,
    *,
    loss: PictureLoss | None = None,
    encoder: Estimator | None = None,
    checkpoint: str | Path | None = None,
    name: str = "avatar",
) -> Inversion:
    """Find the avatar that the photos show.

    Args:
        images: (N, 3, R, R) RGB in [−1, 1] at the model's resolution, aligned as the cameras say; all of one person
        cameras: (N,) or a single one
        params: (N,); the avatar's shape is the mean of theirs
        model: any generator with its head model; it stays as it is
        settings: see :class:`InversionSettings`
        callback: told after every step; False cancels
        loss: how pictures are compared; squared error alone if None
        encoder: an estimator that reads the model's own latent off a picture, as one more candidate to start from
        checkpoint: a file that keeps the state of an interrupted run; the same call goes on from it, and it is
            removed at the end
        name: of the avatar

    Raises:
        InputError: pictures of another size, counts that do not fit, a model without a head, a checkpoint of something
            else.
        Cancelled: the callback returned False; the checkpoint is removed too.
    """
    task = _Task(images, cameras, params, model, settings or InversionSettings(), loss or PictureLoss(), encoder)
    path = None if checkpoint is None else Path(checkpoint)
    try:
        return task.run(Reporter(callback), path, name)
    except Cancelled:
        if path is not None:
            path.unlink(missing_ok=True)
        raise


@dataclass
class State:
    """Everything that changes: saved whole, and enough to go on.

    Attributes:
        x: (2 or count, w_dim) whitened latents
        pose: (N, 65) changes of rotation (3), translation (3), expression (50), jaw (3), eyes (6)
        tensors: the model's tensors that may change, by name
        moments: Adam's, by name
        stage: "latent", "weights" or "done"
        step: steps done of the stage
        curves: losses so far
    """

    x: Tensor
    pose: Tensor
    tensors: dict[str, Tensor]
    stage: str = LATENT
    step: int = 0
    curves: dict[str, list[float]] = field(default_factory=lambda: {LATENT: [], WEIGHTS: []})
    moments: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


class _Task:
    """One inversion; the pieces of :func:`invert`."""

    def __init__(
        self,
        images: Tensor,
        cameras: Camera,
        params: HeadParams,
        model: Generator,
        settings: InversionSettings,
        loss: PictureLoss,
        encoder: Estimator | None,
    ) -> None:
        settings.check()
        resolution = model.config.superres.resolution
        if images.ndim != 4 or images.shape[1:] != (3, resolution, resolution) or not len(images):
            raise InputError(
                f"the model draws pictures of {resolution}²: images must be (N, 3, {resolution}, {resolution}), got "
                f"{tuple(images.shape)}"
            )
        if not images.isfinite().all():
            raise InputError("images contain numbers that are not finite (NaN or infinity)")
        count, device = len(images), model.device
        label = cameras.label.to(device)
        label = label.expand(count, 25) if label.ndim == 1 else label
        params = HeadParams.stack([params] * count) if not params.batch_shape else params
        if len(label) != count or tuple(params.batch_shape) != (count,):
            raise InputError(f"{count} images need {count} cameras and parameters, got {len(label)} and {len(params)}")
        self.settings, self.base, self.encoder = settings, model, encoder
        self.head = head_of(model)
        self.loss = dataclasses.replace(
            loss,
            pixel_weight=settings.pixel_weight,
            perceptual_weight=settings.perceptual_weight,
            identity_weight=settings.identity_weight,
        )
        self.photos, self.cameras = images.to(device).float(), Camera.from_label(label)
        self.shape = params.shape.to(device).mean(0)
        self.params = params.to(device).replace(shape=self.shape.expand(count, 100))
        if self.head is not None:
            self.params = self.head.clamp(self.params)
        self.vertices: Tensor | None = None
        self.landmarks: Tensor | None = None
        weights = None
        if self.head is not None:
            with torch.no_grad():
                mesh = self.head(self.params)
            self.vertices, self.landmarks = mesh.vertices, mesh.landmarks
            assert model.topology is not None
            weights = face_weights(model.topology, mesh.vertices, self.cameras, resolution, settings.face_weight)
        self.targets: list[Target] = [
            self.loss.target(photo[None], None if weights is None else weights[i, None])
            for i, photo in enumerate(self.photos)
        ]
        self.space = LatentSpace.of(model, settings.seed)
        # Separate from the user's model, whose tensors and gradient flags stay as they are.
        self.model = copy.deepcopy(model, {id(model._head): model._head}).eval().requires_grad_(False)

    def ws(self, x: Tensor) -> Tensor:
        """Whitened latents → ws (1, count, w_dim)."""
        mapping = self.base.mapping
        w = self.space.w(x)
        if len(w) == 2:
            w = w.repeat_interleave(torch.tensor([mapping.static_count, mapping.count - mapping.static_count]), 0)
        return w[None]

    def view(self, index: int, pose: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Camera label, vertices and landmarks of a photo, moved by ``pose`` (N, 65) where poses are refined."""
        camera = self.cameras[index : index + 1]
        if not self.settings.refine_pose:
            if self.vertices is None or self.landmarks is None:
                return camera.label, None, None
            return camera.label, self.vertices[index, None], self.landmarks[index, None]
        camera, params = moved(camera, self.params[index : index + 1], pose[index, None])
        assert self.head is not None
        mesh = self.head(params)
        return camera.label, mesh.vertices, mesh.landmarks

    def picture(self, ws: Tensor, index: int, pose: Tensor) -> Tensor:
        """(1, 3, R, R)"""
        label, vertices, landmarks = self.view(index, pose)
        return self.model.synthesis(ws, label, vertices, landmarks).image

    @torch.no_grad()
    def pictures(self, ws: Tensor, pose: Tensor) -> Tensor:
        """(N, 3, R, R)"""
        return torch.cat([self.picture(ws, index, pose) for index in range(len(self.photos))])

    def run(self, report: Reporter, path: Path | None, name: str) -> Inversion:
        state, s = self.restore(path), self.settings
        if state is None:
            state = State(self.start(report), torch.zeros(len(self.photos), 65, device=self.base.device), {})
            if s.noise_maps:
                buffers = {n: b for n, b in self.model.named_buffers() if n.endswith("noise_const")}
                state.tensors = {n: b.clone() for n, b in buffers.items()}
        for tensor_name, value in state.tensors.items():
            set_tensor(self.model, tensor_name, value)
        if state.stage == LATENT:
            wanted = {"x": state.x, **state.tensors} | ({"pose": state.pose} if s.refine_pose else {})
            for _ in self.descend(state, wanted, s.latent_steps, self.latent_loss, report, path):
                pass
            state.stage, state.step, state.moments = WEIGHTS, 0, {}
            for tensor_name, tensor in list(self.model.named_parameters()):
                if is_tuned(tensor_name):
                    state.tensors[tensor_name] = tensor.detach().clone()
                    set_tensor(self.model, tensor_name, state.tensors[tensor_name])
        with torch.no_grad():
            ws = self.ws(state.x)
        tuned = {n: value for n, value in state.tensors.items() if is_tuned(n)}
        frozen = self.frozen(state)
        pivot = self.with_model(frozen, ws, state.pose)
        anchors = self.anchors(frozen, ws) if s.anchor_every and s.weight_steps else []
        best = [float("-inf")] * len(self.photos)

        def weight_loss(state: State, step: int) -> tuple[Tensor, Tensor, Tensor]:
            index = step % len(self.photos)
            picture = self.picture(ws, index, state.pose)
            total = apart = self.loss(picture, self.targets[index])
            best[index] = float(psnr(picture.detach()[0], self.photos[index]))
            if anchors and step % s.anchor_every == 0:
                label, vertices, landmarks, target = anchors[step // s.anchor_every % len(anchors)]
                again = self.model.synthesis(ws, label, vertices, landmarks).image
                total = apart + s.anchor_weight * (again - target).square().mean()
            return total, apart, picture

        # A photo shows one expression: what it shows of the face belongs on the texture, which moves. On static planes
        # that show through it would stay behind as a trace.
        if self.model.config.static.enabled:
            self.model.static_planes.through_learns = False
        if state.stage == WEIGHTS:
            for _ in self.descend(state, tuned, s.weight_steps, weight_loss, report, path):
                if s.target_psnr is not None and min(best) >= s.target_psnr:
                    break
        own = self.base.state_dict()
        differences = {n: (value.detach() - own[n]).half() for n, value in state.tensors.items()}
        changed = {n: own[n] + change.to(own[n]) for n, change in differences.items() if change.any()}
        avatar = Avatar(self.base, ws, self.shape, tuned=changed, name=name)
        cameras, params = self.cameras, self.params
        if s.refine_pose:
            cameras, params = moved(cameras, params, state.pose.detach())
        made = self.with_model(avatar.model, ws, state.pose)
        photos = self.photos.cpu()
        result = Inversion(
            avatar,
            photos,
            pivot,
            made,
            cameras,
            params,
            state.curves,
            mean_psnr(pivot, photos),
            mean_psnr(made, photos),
        )
        if path is not None:
            path.unlink(missing_ok=True)
        return result

    def frozen(self, state: State) -> Generator:
        """The model before its weights were tuned, with the noise that was found."""
        noise = {n: value for n, value in state.tensors.items() if not is_tuned(n)}
        frozen = copy.deepcopy(self.base, {id(self.base._head): self.base._head}).eval().requires_grad_(False)
        for tensor_name, value in noise.items():
            set_tensor(frozen, tensor_name, value.detach())
        return frozen

    def with_model(self, model: Generator, ws: Tensor, pose: Tensor) -> Tensor:
        """(N, 3, R, R) on the CPU: the photos' views drawn by another model."""
        own, self.model = self.model, model
        try:
            return self.pictures(ws, pose).cpu()
        finally:
            self.model = own

    @torch.no_grad()
    def start(self, report: Reporter) -> Tensor:
        """Whitened latents (2 or count, w_dim) to begin with."""
        s, mapping = self.settings, self.base.mapping
        rows = mapping.count if s.per_layer else (2 if mapping.count > mapping.static_count else 1)
        still = torch.zeros(rows, len(self.space.mean), device=self.base.device)
        if s.start == "mean" or not s.candidates:
            return still
        guesses = [still[0]]
        if self.encoder is not None and self.encoder.config.outputs.get("latent") == self.base.config.mapping.z_dim:
            z = self.encoder.predict(self.photos)["latent"].mean(0, keepdim=True)
            guesses.append(self.space.whiten(w_of(self.base, z))[0])
        guesses += list(self.space.whiten(draw_w(self.base, s.candidates, s.seed + 1)))
        pose = torch.zeros(len(self.photos), 65, device=self.base.device)
        best, lowest = still, float("inf")
        for number, guess in enumerate(guesses):
            x = guess.expand(rows, -1)
            pictures = self.pictures(self.ws(x), pose)
            found = float(sum(self.loss(one[None], target) for one, target in zip(pictures, self.targets)))
            if found < lowest:
                best, lowest = x, found
            report("start", number + 1, len(guesses), found / len(pictures), pictures[0])
        return best.clone()

    def latent_loss(self, state: State, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Distance to a photo plus what keeps latent, noise and pose where they belong; the same; the picture."""
        s = self.settings
        index = step % len(self.photos)
        strength = s.latent_noise * max(0.0, 1 - step / (0.75 * max(s.latent_steps, 1))) ** 2
        random = torch.Generator().manual_seed(s.seed * 1_000_003 + step)
        x = state.x + strength * torch.randn(state.x.shape, generator=random).to(state.x)
        picture = self.picture(self.ws(x), index, state.pose)
        total = self.loss(picture, self.targets[index]) + s.mean_weight * state.x.square().mean()
        if state.tensors:
            total = total + s.noise_weight * sum(noise_correlation(value) for value in state.tensors.values())
        if s.refine_pose:
            total = total + s.pose_weight * state.pose[index].square().sum()
        return total, total, picture

    @torch.no_grad()
    def anchors(self, model: Generator, ws: Tensor) -> list[tuple[Tensor, Tensor | None, Tensor | None, Tensor]]:
        """Views and expressions in which the tuned model should stay what the pivot was: pictures of it there."""
        s = self.settings
        random = np.random.default_rng(s.seed)
        identity, result = model.identity(ws), []
        for _ in range(min(s.anchors, -(-s.weight_steps // s.anchor_every))):
            vertices = landmarks = None
            if self.head is None:
                camera = Camera.orbit(random.uniform(-0.7, 0.7), random.uniform(-0.3, 0.3))
            else:
                pose = draw_pose(random, self.head)
                camera = pose.camera
                mesh = self.head(self.head.clamp(pose.params.to(self.base.device).replace(shape=self.shape[None])))
                vertices, landmarks = mesh.vertices, mesh.landmarks
            label = camera.label[None].to(self.base.device)
            planes = model.planes(identity, vertices, landmarks)
            result.append((label, vertices, landmarks, model.render(planes, label).image))
        return result

    def descend(
        self, state: State, wanted: dict[str, Tensor], total: int, loss: Any, report: Reporter, path: Path | None
    ) -> Iterator[int]:
        """Adam on ``wanted`` until the steps are done or nothing is gained; yields after each step.

        ``loss`` gives what is descended, what is shown of it, and the picture.
        """
        s, stage = self.settings, state.stage
        for value in wanted.values():
            value.requires_grad_(True)
        optimizer = torch.optim.Adam(
            [{"params": [value], "base": self.rate(name)} for name, value in wanted.items()], betas=(0.9, 0.99)
        )
        for name, moments in state.moments.items():
            optimizer.state[wanted[name]] = {
                "step": torch.tensor(float(state.step)),
                "exp_avg": moments[0],
                "exp_avg_sq": moments[1],
            }
        curve = state.curves[stage]
        try:
            while state.step < total:
                for group in optimizer.param_groups:
                    group["lr"] = group["base"] * ramp(state.step / total)
                value, shown, picture = loss(state, state.step)
                gradients = torch.autograd.grad(value, list(wanted.values()), allow_unused=True)
                for tensor, gradient in zip(wanted.values(), gradients):
                    tensor.grad = torch.zeros_like(tensor) if gradient is None else gradient
                optimizer.step()
                state.step += 1
                curve.append(float(shown.detach()))
                report(stage, state.step, total, curve[-1], picture[0])
                if path is not None and state.step % CHECKPOINT_EVERY == 0 and state.step < total:
                    self.keep(state, wanted, optimizer, path)
                yield state.step
                if stalled(curve, s.patience, len(self.photos)):
                    break
        except KeyboardInterrupt:
            if path is not None:
                self.keep(state, wanted, optimizer, path)
            raise
        finally:
            for value in wanted.values():
                value.requires_grad_(False)
                value.grad = None

    def rate(self, name: str) -> float:
        s = self.settings
        if name == "pose":
            return s.pose_rate
        return s.latent_rate if name == "x" or name.endswith("noise_const") else s.weight_rate

    @property
    def key(self) -> str:
        """What a checkpoint must belong to."""
        digest = hashlib.sha256(fingerprint(self.base).encode())
        digest.update(json.dumps(dataclasses.asdict(self.settings), sort_keys=True).encode())
        for tensor in (self.photos, self.cameras.label, self.params.vector()):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def keep(self, state: State, wanted: dict[str, Tensor], optimizer: torch.optim.Optimizer, path: Path) -> None:
        """Write the state; a run that is interrupted goes on from the last one."""
        moments = {
            name: (optimizer.state[value]["exp_avg"], optimizer.state[value]["exp_avg_sq"])
            for name, value in wanted.items()
            if value in optimizer.state
        }
        values = {
            "key": self.key,
            "x": state.x.detach(),
            "pose": state.pose.detach(),
            "tensors": {name: value.detach() for name, value in state.tensors.items()},
            "moments": moments,
            "stage": state.stage,
            "step": state.step,
            "curves": state.curves,
        }
        with atomic_path(path) as temporary:
            torch.save(values, temporary)

    def restore(self, path: Path | None) -> State | None:
        """The state of an interrupted run of the same inversion, or None where there is none."""
        if path is None or not path.is_file():
            return None
        try:
            values = torch.load(path, map_location=self.base.device, weights_only=True)
            same = values.pop("key") == self.key
        except Exception as error:  # whatever torch stumbles over
            raise InputError(f"{path} is not a checkpoint of an inversion ({error}): remove it to begin anew") from None
        if not same:
            raise InputError(
                f"{path} belongs to an inversion of other photos, another model or other settings: give the same, or "
                "remove it to begin anew"
            )
        return State(**values)


def head_of(model: Generator) -> HeadModel | None:
    """The head that drives a model; None only if it needs none."""
    if not model.config.planes.enabled:
        return None
    if model.head is None:
        raise InputError(
            f"this model is driven by '{model.config.head}', which is not at hand: give your FLAME folder (--head; in "
            "Python model.use_head)"
        )
    return model.head


def is_tuned(name: str) -> bool:
    """Whether pivotal tuning moves a tensor: all of synthesis but the geometry of the planes.

    The matrices that make styles of w are left out: for the one pivot, moving their biases does the same.
    """
    fixed = name.startswith(("mapping.", "texture_planes.", "static_planes.through"))
    fixed = fixed or name.endswith(("affine.weight", "noise_const"))
    return not fixed


def set_tensor(model: Generator, name: str, value: Tensor) -> None:
    """Put ``value`` itself where the model has a parameter or buffer of that name, so that it can be optimised."""
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    module._parameters.pop(leaf, None)
    module._buffers.pop(leaf, None)
    module.register_buffer(leaf, value)


def moved(camera: Camera, params: HeadParams, pose: Tensor) -> tuple[Camera, HeadParams]:
    """Cameras and parameters (N,) changed by pose (N, 65): rotation (3), translation (3), expression, jaw, eyes."""
    turn, shift, expression, jaw, eyes = pose.split([3, 3, 50, 3, 6], -1)
    matrix = torch.eye(4, device=pose.device).repeat(len(pose), 1, 1)
    matrix = torch.cat(
        [torch.cat([matrix_from_axis_angle(turn), shift[..., None]], -1), matrix[:, 3:]], 1
    )  # in the camera's own axes
    changed = params.replace(expression=params.expression + expression, jaw=params.jaw + jaw, eyes=params.eyes + eyes)
    return Camera(camera.cam2world @ matrix, camera.intrinsics), changed


def noise_correlation(noise: Tensor) -> Tensor:
    """How much a noise map (R, R) resembles itself shifted by one texel, at every scale (Karras et al. 2020)."""
    total = noise.new_zeros(())
    noise = noise[None, None]
    while True:
        total = total + (noise * noise.roll(1, 3)).mean().square() + (noise * noise.roll(1, 2)).mean().square()
        if noise.shape[-1] <= 8:
            return total
        noise = torch.nn.functional.avg_pool2d(noise, 2) * 2


def ramp(share: float) -> float:
    """The step size over a stage: up in a twentieth, down to a tenth along a cosine in the last half."""
    rise = min(1.0, share / 0.05 + 0.05)
    fall = min(1.0, (1 - share) / 0.5)
    return rise * (0.1 + 0.9 * (0.5 - 0.5 * float(np.cos(np.pi * fall))))


def stalled(curve: list[float], patience: int, photos: int) -> bool:
    """Whether the mean loss of the last ``patience`` steps is no 0.5 % below that of those before."""
    patience -= patience % photos if patience > photos else 0
    if not patience or len(curve) < 2 * patience:
        return False
    now, before = (float(np.mean(part)) for part in (curve[-patience:], curve[-2 * patience : -patience]))
    return now > 0.995 * before


def mean_psnr(pictures: Tensor, photos: Tensor) -> float:
    """Mean over pictures (N, 3, R, R) of their PSNR in dB."""
    return float(psnr(pictures, photos).mean())
