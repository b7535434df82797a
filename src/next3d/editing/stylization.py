"""A sentence or an example picture turns the generator into another style (paper, §4.3, A.2 and C).

StyleGAN-NADA (Gal et al. 2022) in three dimensions: a copy of the generator is moved until, in CLIP's space, its
pictures differ from the source's in the direction in which the sentences differ. Every step sees another identity,
camera and expression. What keeps the heads consistent and drivable stays frozen: mapping, decoder, super-resolution,
and all ToRGB layers but the last one of each network.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from next3d.avatar import Avatar, fingerprint
from next3d.data.synthesis.poses import draw_pose
from next3d.editing.clip import Clip
from next3d.editing.inversion import head_of
from next3d.editing.progress import Callback, Reporter
from next3d.errors import InputError
from next3d.estimators import Estimator
from next3d.generator.generator import Generator
from next3d.geometry.cameras import Camera
from next3d.heads import HeadModel, HeadParams

Strategy = Literal["last", "none"]
# The networks that may move, by the names of the paper's G_uv, G_static and G_teeth, and further ones.
NETWORKS = {
    "texture": "neural_texture",
    "static": "static_planes",
    "mouth": "mouth",
    "blending": "blending",
    "background": "background",
    "superres": "superres",
}
SOURCE = "a photo of a face"


@dataclass(frozen=True)
class StylizationSettings:
    """How a generator is stylised."""

    steps: int = 300
    rate: float = 2e-3
    """step size of the weights"""
    batch: int = 2
    """heads in each step"""
    strategy: Strategy = "last"
    """which ToRGB layers move (Fig. 10): the "last" one of each network, or "none" of them, as in StyleGAN-NADA"""
    networks: tuple[str, ...] = ("texture", "static", "mouth")
    """what moves: texture, static, mouth (the paper's three), blending, background, superres"""
    layers: int = 0
    """move only so many layers, those whose w the loss asks most of, chosen anew now and then; 0 moves all"""
    layers_every: int = 20
    """steps between choices of layers"""
    identity_weight: float = 0.0
    """of the bundled estimator's likeness to the source"""
    truncation: float = 0.7
    """of the identities that are drawn"""
    seed: int = 0

    def check(self) -> None:
        """Raise :class:`InputError` for impossible settings."""
        if self.steps < 1 or self.batch < 1:
            raise InputError(f"steps and batch must be at least 1, got {self.steps} and {self.batch}")
        if self.layers < 0 or self.layers_every < 1:
            raise InputError(f"layers must not be negative and layers_every positive, got {self.layers}")
        if not self.rate > 0:
            raise InputError(f"rate must be positive, got {self.rate}")
        if self.strategy not in ("last", "none"):
            raise InputError(f"strategy must be 'last' or 'none', got '{self.strategy}'")
        unknown = set(self.networks) - set(NETWORKS)
        if unknown or not self.networks:
            what = f"there is no network '{sorted(unknown)[0]}'" if unknown else "no network is selected"
            raise InputError(f"{what}: choose among {', '.join(NETWORKS)}")


@dataclass
class Stylization:
    """What stylisation made.

    Attributes:
        model: a generator like the source, with other weights
        source: fingerprint of the source's weights
        settings, prompt, source_text, clips: the recipe
        curve: the loss of every step
        moved: names of the tensors that were changed
    """

    model: Generator
    source: str
    settings: StylizationSettings
    prompt: str
    source_text: str
    clips: list[str]
    curve: list[float]
    moved: list[str] = field(default_factory=list)

    def recipe(self) -> dict[str, Any]:
        """Plain JSON types: how to make this model again."""
        return {
            "prompt": self.prompt,
            "source": self.source_text,
            "clips": self.clips,
            "source_model": self.source,
            "settings": dataclasses.asdict(self.settings),
            "loss": {"first": self.curve[0], "last": float(np.mean(self.curve[-10:]))},
            "moved": self.moved,
        }


@dataclass(frozen=True)
class Heads:
    """Random heads to look at: ws (N, count, w_dim), camera labels (N, 25), meshes or None."""

    ws: Tensor
    label: Tensor
    vertices: Tensor | None
    landmarks: Tensor | None

    def draw(self, model: Generator, ws: Tensor | None = None) -> Tensor:
        """(N, 3, R, R)"""
        return model.synthesis(self.ws if ws is None else ws, self.label, self.vertices, self.landmarks).image


@torch.no_grad()
def random_heads(model: Generator, head: HeadModel | None, count: int, truncation: float, seed: int) -> Heads:
    """Identities, cameras and expressions drawn independently."""
    random, g = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    z = torch.randn(count, model.config.mapping.z_dim, generator=g)
    noise = torch.randn(count, 100, generator=g)
    frontal = Camera.orbit().label.expand(count, 25).to(model.device)
    ws = model.mapping(z.to(model.device), frontal, truncation=truncation)
    if head is None:
        angles = random.uniform((-0.7, -0.3), (0.7, 0.3), (count, 2))
        cameras = Camera.orbit(*torch.from_numpy(angles).float().T)
        return Heads(ws, cameras.label.to(model.device), None, None)
    poses = [draw_pose(random, head) for _ in range(count)]
    own = model.shape_of(z)
    shape = truncation * (noise if own is None else own)
    params = HeadParams.stack([pose.params for pose in poses]).replace(shape=shape)
    mesh = head(head.clamp(params.to(model.device)))
    label = torch.stack([pose.camera.label for pose in poses]).to(model.device)
    return Heads(ws, label, mesh.vertices, mesh.landmarks)


def movable(model: Generator, settings: StylizationSettings) -> dict[str, nn.Parameter]:
    """The parameters that a strategy lets move, by name.

    Raises:
        InputError: a network that this model does not have.
    """
    result: dict[str, nn.Parameter] = {}
    for network in settings.networks:
        module = getattr(model, NETWORKS[network], None)
        if module is None or not list(module.parameters()):
            if network in StylizationSettings.networks:  # the defaults, some of which a variant leaves out
                continue
            raise InputError(f"this model has no network '{network}': leave it out of --networks")
        prefix = NETWORKS[network] + "."
        names = [name for name, _ in module.named_parameters()]
        pictures = [name for name in names if ".to_picture." in name]
        last = pictures[-1].split(".to_picture.")[0] if pictures else ""
        for name, parameter in module.named_parameters():
            frozen = ".to_picture." in name and not (
                settings.strategy == "last" and name.startswith(last + ".to_picture.")
            )
            if not frozen:
                result[prefix + name] = parameter
    if not result:
        raise InputError("nothing of this model would move: select other --networks")
    return result


def layer_of(name: str, model: Generator) -> int | None:
    """Which w vector drives a parameter's layer; None for one that no w drives (the encoders of the UNets)."""
    if name.endswith("network.const"):
        return model.mapping.static_count if name.startswith("neural_texture.") else 0
    if name.startswith("superres."):
        return model.mapping.static_count - 1
    parts = name.split(".")
    if "blocks" not in parts:
        return None
    resolution = int(parts[parts.index("blocks") + 1])
    start = max(2 * (resolution.bit_length() - 1) - 5, 0)
    convolution = {"conv0": 0, "conv1": 1, "to_picture": 2}[parts[parts.index("blocks") + 2]]
    first = resolution == 4 and not name.startswith(("mouth.", "blending."))
    index = start + convolution - (1 if first else 0)
    return index + (model.mapping.static_count if name.startswith("neural_texture.") else 0)


class Direction:
    """Where the styled pictures should go from the source's, in each CLIP model's space.

    Args:
        clips: the models
        targets: a unit vector for each
    """

    def __init__(self, clips: Sequence[Clip], targets: Sequence[Tensor]) -> None:
        self.clips, self.targets = clips, targets

    @staticmethod
    def of_text(clips: Sequence[Clip], prompt: str, source: str) -> Direction:
        """From one sentence to the other."""
        return Direction(clips, [unit(clip.text(prompt) - clip.text(source), prompt) for clip in clips])

    @staticmethod
    @torch.no_grad()
    def of_pictures(clips: Sequence[Clip], examples: Tensor, pictures: Tensor) -> Direction:
        """From the source's ``pictures`` (N, 3, R, R) to the ``examples`` (M, 3, H, W), both in [−1, 1]."""
        ends = [(clip.image(examples).mean(0), clip.image(pictures).mean(0)) for clip in clips]
        return Direction(clips, [unit(to - origin, "the example picture") for to, origin in ends])

    def __call__(self, styled: Tensor, source: Tensor) -> Tensor:
        """Mean over models of 1 − cos between the pictures' change and the target."""
        total = styled.new_zeros(())
        for clip, target in zip(self.clips, self.targets):
            with torch.no_grad():
                before = clip.image(source)
            # At the first step nothing has changed yet: a tiny change has no direction, but a gradient.
            change = clip.image(styled) - before
            change = change / (change.norm(dim=-1, keepdim=True) + 1e-4)
            total = total + (1 - change @ target).mean()
        return total / len(self.clips)


def unit(vector: Tensor, what: str) -> Tensor:
    """A direction; sentences that mean the same have none."""
    if float(vector.norm()) < 1e-5:
        raise InputError(f"'{what}' is the same as the source to CLIP: there is no direction to move in")
    return F.normalize(vector, dim=0)


def stylize(
    model: Generator,
    clips: Sequence[Clip],
    prompt: str = "",
    source: str = SOURCE,
    settings: StylizationSettings | None = None,
    callback: Callback | None = None,
    *,
    examples: Tensor | None = None,
    identity: Estimator | None = None,
) -> Stylization:
    """Turn a generator into another style.

    Args:
        model: the source; it stays as it is
        clips: one or more CLIP models; the paper uses two
        prompt: what the heads should look like, unless ``examples`` show it
        source: what they look like now
        settings: see :class:`StylizationSettings`
        callback: told after every step; False cancels
        examples: (M, 3, H, W) pictures in [−1, 1] of the style, instead of a prompt
        identity: an estimator whose embeddings are to stay, if ``settings.identity_weight`` is not 0

    Raises:
        InputError: an empty prompt without examples, impossible settings, or a model without its head.
        Cancelled: the callback returned False.
    """
    s = settings or StylizationSettings()
    s.check()
    if s.identity_weight and identity is None:
        raise InputError("keeping the identity needs an estimator: give one, or identity_weight 0")
    head, report = head_of(model), Reporter(callback)
    if examples is None:
        direction = Direction.of_text(clips, prompt, source)
    else:
        pictures = [
            random_heads(model, head, 4, s.truncation, s.seed + 7919 * (i + 1)).draw(model).detach() for i in range(4)
        ]
        direction = Direction.of_pictures(clips, examples.to(model.device), torch.cat(pictures))
    styled = copy.deepcopy(model, {id(model._head): model._head}).eval().requires_grad_(False)
    wanted = movable(styled, s)
    for parameter in wanted.values():
        parameter.requires_grad_(True)
    layers = {name: layer_of(name, styled) for name in wanted}
    optimizer = torch.optim.Adam(list(wanted.values()), s.rate, betas=(0.0, 0.99))
    curve: list[float] = []
    chosen: set[int] | None = None
    for step in range(s.steps):
        heads = random_heads(model, head, s.batch, s.truncation, s.seed * 1_000_003 + step)
        with torch.no_grad():
            before = heads.draw(model)
        if s.layers and step % s.layers_every == 0:
            chosen = choose_layers(styled, heads, before, direction, s.layers)
        picture = heads.draw(styled)
        loss = apart = direction(picture, before)
        if identity is not None and s.identity_weight:
            with torch.no_grad():
                who = identity.embed(before)
            loss = apart + s.identity_weight * (1 - (identity.embed(picture) * who).sum(-1)).mean()
        moving = {name: p for name, p in wanted.items() if chosen is None or layers[name] in chosen}
        optimizer.zero_grad()
        gradients = torch.autograd.grad(loss, list(moving.values()), allow_unused=True)
        for parameter, gradient in zip(moving.values(), gradients):
            parameter.grad = gradient
        optimizer.step()
        curve.append(float(apart.detach()))
        report("style", step + 1, s.steps, curve[-1], picture[0])
    styled.requires_grad_(True)
    own = model.state_dict()
    moved = [name for name, value in styled.state_dict().items() if not torch.equal(value, own[name])]
    return Stylization(
        styled,
        fingerprint(model),
        s,
        prompt if examples is None else f"{len(examples)} example picture(s)",
        source if examples is None else "the source model's pictures",
        [clip.name for clip in clips],
        curve,
        moved,
    )


def choose_layers(model: Generator, heads: Heads, before: Tensor, direction: Direction, count: int) -> set[int]:
    """The w vectors that the loss asks most of, as StyleGAN-NADA chooses layers, here by the gradient of one step."""
    ws = heads.ws.detach().clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(direction(heads.draw(model, ws), before), ws)
    size = gradient.norm(dim=-1).mean(0)  # (count,)
    return set(size.topk(min(count, len(size))).indices.tolist())


def carry_over(avatar: Avatar, styled: Generator) -> Avatar:
    """An avatar of the source model in the styled one: its latents, and its own changes on top of the style's.

    Raises:
        InputError: the styled model is of another architecture.
    """
    own, new = avatar.base.state_dict(), styled.state_dict()
    if {n: v.shape for n, v in own.items()} != {n: v.shape for n, v in new.items()}:
        raise InputError("the avatar's model and the styled one are built differently: style the avatar's own model")
    tuned = {name: new[name] + (value.to(own[name]) - own[name]).to(new[name]) for name, value in avatar.tuned.items()}
    return Avatar(styled, avatar.ws, avatar.shape, tuned=tuned, name=avatar.name, dtype=avatar.dtype)


@torch.no_grad()
def comparison(source: Generator, styled: Generator, count: int = 5, truncation: float = 0.7) -> tuple[list, list[str]]:
    """Source and styled pictures of some seeds, then one head in five views: pictures (3, R, R) and labels."""
    pairs = [(source.sample(i, truncation=truncation), styled.sample(i, truncation=truncation)) for i in range(count)]
    pictures = [one.render().image.cpu() for one, _ in pairs] + [other.render().image.cpu() for _, other in pairs]
    labels = [f"seed {i}" for i in range(count)] + [f"seed {i}, styled" for i in range(count)]
    for yaw in np.linspace(-40, 40, count):
        pictures.append(pairs[0][1].render(None, Camera.orbit(math.radians(yaw))).image.cpu())
        labels.append(f"{yaw:+.0f}°")
    return pictures, labels
