"""DECA's coarse encoder (Feng et al. 2021): a 224² face crop to FLAME parameters, from the user's own weights.

A ResNet-50 and two linear layers give 236 numbers. Only the network is rebuilt here; the weights are the user's
``deca_model.tar``, read as tensors alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from next3d.errors import InputError
from next3d.io.safe_pickle import read_torch

# What the 236 numbers are, in order.
CODE = {"shape": 100, "texture": 50, "expression": 50, "pose": 6, "camera": 3, "light": 27}
CROP_SIZE = 224


@dataclass(frozen=True)
class DecaCode:
    """DECA's parameters: shape (N, 100), expression (N, 50), global rotation (N, 3) and jaw (N, 3) in axis-angle
    radians, weak-perspective camera (N, 3) as scale, x, y in crop units."""

    shape: Tensor
    expression: Tensor
    rotation: Tensor
    jaw: Tensor
    camera: Tensor


class Bottleneck(nn.Module):
    """1×1, 3×3 (carries the stride), 1×1 convolutions with batch norm, and a shortcut."""

    def __init__(self, channels_in: int, width: int, stride: int):
        super().__init__()
        channels_out = width * 4
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels_in != channels_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.conv2(x)).relu()
        return (self.bn3(self.conv3(x)) + shortcut).relu()


class ResNet50(nn.Module):
    """The trunk of ResNet-50: (N, 3, H, W) to (N, 2048), averaged over space."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for index, (blocks, width, stride) in enumerate([(3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2)], 1):
            layers = []
            for block in range(blocks):
                layers.append(Bottleneck(channels, width, stride if block == 0 else 1))
                channels = width * 4
            self.add_module(f"layer{index}", nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        x = nn.functional.max_pool2d(x, 3, 2, 1)
        for index in range(1, 5):
            x = self.get_submodule(f"layer{index}")(x)
        return x.mean((2, 3))


class DecaEncoder(nn.Module):
    """``encoder(images (N, 3, 224, 224) RGB in [0, 1]) → (N, 236)``; :meth:`decode` names the numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ResNet50()
        self.layers = nn.Sequential(nn.Linear(2048, 1024), nn.ReLU(), nn.Linear(1024, sum(CODE.values())))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(self.encoder(images))

    @staticmethod
    def decode(code: Tensor) -> DecaCode:
        """Split (N, 236) into its named parts."""
        parts = dict(zip(CODE, code.split(list(CODE.values()), dim=-1), strict=True))
        pose = parts["pose"]
        return DecaCode(parts["shape"], parts["expression"], pose[..., :3], pose[..., 3:], parts["camera"])


def load_deca(path: str | Path) -> DecaEncoder:
    """The encoder with the weights of the user's ``deca_model.tar``, in evaluation mode.

    Raises:
        InputError: the file is missing or damaged, holds anything but tensors, or is not DECA's.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path} does not exist: give the deca_model.tar that DECA's authors offer at deca.is.tue.mpg.de"
        )
    content = read_torch(path)
    state = content.get("E_flame") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise InputError(f"{path} is not DECA's: it has no entry 'E_flame'")
    encoder = DecaEncoder()
    wanted = encoder.state_dict()
    for name, tensor in wanted.items():
        found = state.get(name)
        if not isinstance(found, Tensor) or found.shape != tensor.shape:
            has = tuple(found.shape) if isinstance(found, Tensor) else "nothing"
            raise InputError(f"{path}: '{name}' should be {tuple(tensor.shape)}, the file has {has}")
    encoder.load_state_dict({name: state[name] for name in wanted})
    return encoder.eval().requires_grad_(False)
