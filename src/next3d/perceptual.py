"""What of a picture people see: deep features, compared as LPIPS compares them (Zhang et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from next3d.errors import InputError
from next3d.estimators import Estimator, bundled
from next3d.io.safe_pickle import read_torch

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
    """The mean of (N, 1, h, w) under weights (N, 1, H, W), which are resized; each picture counts alike."""
    if weight is None:
        return values.mean()
    if weight.shape[-1] != values.shape[-1]:
        weight = F.interpolate(weight, values.shape[-2:], mode="bilinear", antialias=True)
    return ((values * weight).flatten(1).sum(1) / weight.flatten(1).sum(1)).mean()
