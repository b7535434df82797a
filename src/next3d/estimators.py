"""Our small estimators for synthetic pictures: what a picture shows, read off its pixels.

Two networks of one kind, trained on factory pictures (``next3d train-estimators``): one reads expression, jaw, gaze and
head rotation, one reads the 64-number identity latent, whose prediction is the identity embedding. Each predicts a mean
and a spread per number, so that what cannot be seen (closed eyes' gaze) weighs little.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from next3d.errors import InputError
from next3d.geometry.cameras import Camera
from next3d.geometry.rotations import axis_angle_from_matrix, matrix_from_axis_angle
from next3d.heads.params import HeadParams
from next3d.io.files import atomic_path, sha256

RESOLUTION = 128
BUNDLED = Path(__file__).parent / "assets" / "estimators"
# What the motion estimator predicts, in order: name and how many numbers.
MOTION = {"expression": 50, "jaw": 3, "gaze": 4, "rotation": 3}
IDENTITY = {"latent": 64}
FRONTAL = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # camera-to-world rotation of the frontal camera


@dataclass(frozen=True)
class EstimatorConfig:
    """Shape and meaning of an estimator.

    Attributes:
        outputs: name → how many numbers
        head: the head model whose parameters it predicts
        channels: of the four stages
        accuracy: measured on held-out identities, as the card states it
    """

    outputs: dict[str, int]
    head: str = "builtin"
    channels: tuple[int, int, int, int] = (16, 32, 72, 144)
    accuracy: dict[str, float] | None = None


class Residual(nn.Module):
    """Two 3×3 convolutions and a shortcut; the first carries the stride."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.second = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.shortcut = None
        if stride > 1 or channels_in != channels_out:
            self.shortcut = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.second(silu(self.norm1(self.first(x)))))
        return silu(y + (x if self.shortcut is None else self.shortcut(x)))


class Estimator(nn.Module):
    """A small residual network: pictures in, standardised numbers and features out."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: EstimatorConfig):
        super().__init__()
        self.config = config
        a, b, c, d = config.channels
        count = sum(config.outputs.values())
        self.stem = nn.Sequential(nn.Conv2d(3, a, 5, 2, 2, bias=False), nn.BatchNorm2d(a), nn.SiLU())
        self.stages = nn.Sequential(
            *(Residual(a, b, 2), Residual(b, b, 1)),
            *(Residual(b, c, 2), Residual(c, c, 1)),
            *(Residual(c, d, 2), Residual(d, d, 1)),
        )
        self.squeeze = nn.Conv2d(d, 32, 1)  # keeps coarse places: a lid is a matter of where
        self.hidden = nn.Linear(32 * (RESOLUTION // 16) ** 2 + d, 256)
        self.out = nn.Linear(256, 2 * count)
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("deviation", torch.ones(count))

    def features(self, images: Tensor) -> Tensor:
        """(N, 256) features of pictures (N, 3, H, W) in [−1, 1] of any size."""
        if images.shape[-1] != RESOLUTION:
            images = interpolate(images, size=(RESOLUTION, RESOLUTION), mode="bilinear", antialias=True)
        x = self.stages(self.stem(images.contiguous(memory_format=torch.channels_last)))
        places = self.squeeze(x).flatten(1)
        return silu(self.hidden(torch.cat([places, x.mean((2, 3))], 1)))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised means and log-spreads, each (N, count)."""
        mean, spread = self.out(self.features(images)).chunk(2, -1)
        return mean, spread.clamp(-5, 3)

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        """Name → (N, k) predictions in the units of the labels."""
        mean, _ = self(images)
        numbers = mean.float() * self.deviation + self.mean
        return dict(zip(self.config.outputs, numbers.split(list(self.config.outputs.values()), -1)))

    def embed(self, images: Tensor) -> Tensor:
        """(N, count) unit vectors for comparing by cosine: predictions weighed by how surely they are seen."""
        mean, spread = self(images)
        return torch.nn.functional.normalize(mean.float() * torch.exp(-0.5 * spread.float()), dim=-1)

    def save(self, path: str | Path) -> None:
        """One safetensors file in half precision, the configuration in its header."""
        from safetensors.torch import save_file

        state = {
            name: value.half().contiguous() if value.is_floating_point() else value
            for name, value in self.state_dict().items()
        }
        with atomic_path(path) as temporary:
            save_file(state, temporary, {"estimator": json.dumps(asdict(self.config))})

    @staticmethod
    def load(path: str | Path) -> Estimator:
        """Read what :meth:`save` wrote, in evaluation mode.

        Raises:
            InputError: no such file, or not an estimator of ours.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise InputError(f"there is no estimator {path}: train it with  next3d train-estimators")
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {})["estimator"])
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, OSError, ValueError) as error:
            raise InputError(f"{path} is not an estimator file of next3d: {error}") from None
        header["channels"] = tuple(header["channels"])
        model = Estimator(EstimatorConfig(**header))
        wanted = model.state_dict()
        for name, tensor in wanted.items():
            if name not in state or state[name].shape != tensor.shape:
                found = tuple(state[name].shape) if name in state else "nothing"
                raise InputError(f"{path}: '{name}' should be {tuple(tensor.shape)}, the file has {found}")
        model.load_state_dict({name: state[name].to(tensor.dtype) for name, tensor in wanted.items()})
        return model.eval().requires_grad_(False)


def bundled(name: str) -> Estimator:
    """The estimator that comes with the package: "motion" or "identity"."""
    return Estimator.load(BUNDLED / f"{name}.safetensors")


def checksum(name: str) -> str:
    """SHA-256 of a bundled estimator's file."""
    return sha256(BUNDLED / f"{name}.safetensors")


def motion_targets(params: HeadParams, camera: Tensor) -> Tensor:
    """(N, 60) what the motion estimator should say: expression, jaw, gaze (pitch and yaw of the left, then of the right
    eye), and the head's rotation against the camera as axis-angle, zero for the frontal camera."""
    rotation = Camera.from_label(camera).cam2world[..., :3, :3]
    turn = axis_angle_from_matrix(FRONTAL.to(rotation).mT @ rotation)
    gaze = params.eyes[..., [0, 1, 3, 4]]
    return torch.cat([params.expression, params.jaw, gaze, turn], -1)


def rotation_of(prediction: Tensor) -> Tensor:
    """(N, 3, 3) camera-to-world rotations of predicted axis-angles (N, 3); the inverse of the target's."""
    return FRONTAL.to(prediction) @ matrix_from_axis_angle(prediction)
