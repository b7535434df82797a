"""What inversion compares pictures by: pixels, perceptual features, identity; and where it looks closest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from next3d.errors import InputError
from next3d.geometry.cameras import Camera
from next3d.geometry.meshes import Topology, world_from_head
from next3d.io.safe_pickle import read_torch
from next3d.metrics.consistency import face_region
from next3d.metrics.estimators import Estimator, bundled

# VGG-16 up to conv5_3 (Simonyan & Zisserman 2015): widths between poolings; each stage's last activation is compared.
VGG_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# Per channel of RGB in [−1, 1]: the mean and deviation of ImageNet's photos, as VGG and LPIPS expect.
IMAGENET_MEAN, IMAGENET_DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class Perceptual(Protocol):
    """Layers of features whose differences people see, and the weight of each layer's channels."""

    def layers(self, images: Tensor) -> list[Tensor]:
        """Pictures (N, 3, H, W) in [−1, 1] → features (N, C, h, w), unit vectors along C, times √weight."""
        ...


def unit(features: Tensor) -> Tensor:
    """(N, C, h, w) with every pixel's features scaled to length one."""
    return features / (features.square().sum(1, keepdim=True) + 1e-10).sqrt()


class Lpips(nn.Module):
    """LPIPS on VGG-16 (Zhang et al. 2018), rebuilt; without LPIPS's own weights every channel counts alike.

    Args:
        weighted: has LPIPS's learned weight per channel
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, weighted: bool = True) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        channels = 3
        for index, widths in enumerate(VGG_STAGES):
            layers: list[nn.Module] = [nn.MaxPool2d(2)] if index else []
            for width in widths:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            self.stages.append(nn.Sequential(*layers))
        self.weights = nn.ParameterList(torch.ones(widths[-1]) for widths in VGG_STAGES)
        self.weighted = weighted
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None])
        self.register_buffer("deviation", torch.tensor(IMAGENET_DEVIATION)[:, None, None])

    def layers(self, images: Tensor) -> list[Tensor]:
        x = (images - self.mean) / self.deviation
        result = []
        for stage, weight in zip(self.stages, self.weights):
            x = stage(x)
            result.append(unit(x) * weight[:, None, None].sqrt())
        return result

    @staticmethod
    def load(*paths: str | Path) -> Lpips:
        """Read VGG-16's convolutions and, where given, LPIPS's channel weights.

        Args:
            paths: torch or safetensors files that together hold ``features.N.weight`` (torchvision's VGG-16) or
                ``net.sliceK.N.weight`` (the lpips package's whole network), and perhaps ``linK.model.1.weight``
                (LPIPS's ``vgg.pth``)

        Raises:
            InputError: unreadable files, a missing tensor, or one of another shape.
        """
        names = " and ".join(str(path) for path in paths)
        tensors: dict[str, Tensor] = {}
        for path in paths:
            tensors |= {name.removeprefix("module."): value for name, value in read_tensors(Path(path)).items()}
        # Both layouts number VGG's layers alike: convolutions, activations and poolings in one row.
        convolutions = {
            name.split(".")[-2]: name
            for name in tensors
            if name.endswith(".weight") and (name.startswith("features.") or name.startswith("net.slice"))
        }
        if not convolutions:
            raise InputError(
                f"{names}: no VGG-16 in it; expected torchvision's vgg16 file (features.0.weight …) or the lpips "
                "package's network (net.slice1.0.weight …), optionally with LPIPS's vgg.pth (lin0.model.1.weight …)"
            )
        model, state = Lpips("lin0.model.1.weight" in tensors), {}
        number = 0
        for index, widths in enumerate(VGG_STAGES):
            number += bool(index)  # the pooling
            for place in range(len(widths)):
                source = convolutions.get(str(number), f"features.{number}.weight")
                target = f"stages.{index}.{2 * place + bool(index)}"
                for kind in ("weight", "bias"):
                    state[f"{target}.{kind}"] = (source.removesuffix("weight") + kind, tensors)
                number += 2
            if model.weighted:
                state[f"weights.{index}"] = (f"lin{index}.model.1.weight", tensors)
        found = {}
        for name, own in model.state_dict().items():
            if name not in state:
                continue
            source, where = state[name]
            value = where.get(source)
            if value is None or value.numel() != own.numel():
                got = "nothing" if value is None else tuple(value.shape)
                raise InputError(f"{names}: '{source}' should be of shape {tuple(own.shape)}, found {got}")
            found[name] = value.reshape(own.shape).float()
        model.load_state_dict(found, strict=False)
        for weight in model.weights:
            weight.data.clamp_min_(0)
        return model.eval().requires_grad_(False)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a torch or safetensors file, by name; nothing in it is run."""
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} is not a readable safetensors file: {error}") from None
    found = read_torch(path)
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise InputError(f"{path} holds no dictionary of tensors; a scripted model must be saved as its state_dict")
    return found


class EstimatorFeatures:
    """The features of one of our small estimators, compared as LPIPS compares VGG's."""

    def __init__(self, network: Estimator) -> None:
        self.network = network

    def layers(self, images: Tensor) -> list[Tensor]:
        x = self.network.stem(images.contiguous(memory_format=torch.channels_last))
        result = [unit(x)]
        for index, stage in enumerate(self.network.stages):
            x = stage(x)
            if index % 2:  # after each pair of blocks
                result.append(unit(x))
        return result


def open_perceptual(paths: Sequence[str | Path] = ()) -> Perceptual:
    """LPIPS or VGG from the user's files, else the features of the bundled identity estimator.

    Raises:
        InputError: the files hold no VGG-16, or none are given and no estimator is bundled.
    """
    return Lpips.load(*paths) if paths else EstimatorFeatures(bundled("identity"))


def perceptual_distance(layers: Sequence[Tensor], targets: Sequence[Tensor], weight: Tensor | None = None) -> Tensor:
    """LPIPS's distance of two pictures' layers, each (N, C, h, w): the sum over layers of mean squared differences.

    Args:
        weight: (N, 1, H, W) what each place counts; all the same if None
    """
    total = layers[0].new_zeros(())
    for own, target in zip(layers, targets):
        difference = (own - target).square().sum(1, keepdim=True)
        total = total + weighted(difference, weight)
    return total


def weighted(values: Tensor, weight: Tensor | None) -> Tensor:
    """The mean of (N, 1, h, w) under weights (N, 1, H, W), which are resized."""
    if weight is None:
        return values.mean()
    if weight.shape[-1] != values.shape[-1]:
        weight = F.interpolate(weight, values.shape[-2:], mode="bilinear", antialias=True)
    return (values * weight).sum() / weight.sum()


@torch.no_grad()
def face_weights(topology: Topology, vertices: Tensor, camera: Camera, resolution: int, strength: float) -> Tensor:
    """(N, 1, R, R): ``strength`` where the mesh shows the face, 1 elsewhere, softly between.

    Args:
        vertices: (N, V, 3) metres, head frame
        camera: (N,)
    """
    mask = face_region(topology, world_from_head(vertices), camera, resolution)[:, None].float()
    width = max(1, resolution // 32)
    soft = F.avg_pool2d(mask, 2 * width + 1, 1, width, count_include_pad=False)
    return 1 + (strength - 1) * soft


@dataclass
class PictureLoss:
    """The distance of a picture to a photo; fast to ask again for the same photo.

    Attributes:
        perceptual: features to compare, or None
        identity: the network whose embeddings are compared, or None
        pixel_weight, perceptual_weight, identity_weight: of the three terms
    """

    perceptual: Perceptual | None = None
    identity: Estimator | None = None
    pixel_weight: float = 1.0
    perceptual_weight: float = 1.0
    identity_weight: float = 0.0

    def target(self, photo: Tensor, weight: Tensor | None) -> Target:
        """What is kept of a photo (1, 3, R, R)."""
        with torch.no_grad():
            layers = self.perceptual.layers(photo) if self.perceptual else []
            who = self.identity.embed(photo) if self.identity and self.identity_weight else None
        return Target(photo, weight, layers, who)

    def __call__(self, image: Tensor, target: Target) -> Tensor:
        """A scalar; ``image`` (1, 3, R, R) in [−1, 1]."""
        pixels = (image - target.photo).square().mean(1, keepdim=True)
        total = self.pixel_weight * weighted(pixels, target.weight)
        if self.perceptual is not None and self.perceptual_weight:
            layers = self.perceptual.layers(image)
            total = total + self.perceptual_weight * perceptual_distance(layers, target.layers, target.weight)
        if target.identity is not None and self.identity is not None:
            alike = (self.identity.embed(image) * target.identity).sum(-1).mean()
            total = total + self.identity_weight * (1 - alike)
        return total


@dataclass(frozen=True)
class Target:
    """A photo (1, 3, R, R), the weights of its places (1, 1, R, R), its features and embedding."""

    photo: Tensor
    weight: Tensor | None
    layers: list[Tensor]
    identity: Tensor | None
