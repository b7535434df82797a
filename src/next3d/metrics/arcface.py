"""ArcFace identity embeddings (Deng et al. 2019): IResNet-50 from the user's ``.pth`` or ``.onnx`` file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from next3d.errors import InputError, require
from next3d.io.files import sha256
from next3d.metrics.inception import load_weights

SIZE = 112
# Where ArcFace expects eyes (right, left), nose tip and mouth corners (right, left), in pixels of its 112² picture.
TEMPLATE = torch.tensor(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)


class Block(nn.Module):
    """Batch norm, 3×3, batch norm, PReLU, 3×3 with the stride, batch norm; plus the shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs, eps=1e-5)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs, eps=1e-5)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs, eps=1e-5)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs, eps=1e-5)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return y + (x if self.downsample is None else self.downsample(x))


class IResNet50(nn.Module):
    """``network(images (N, 3, 112, 112) RGB in [−1, 1]) → (N, 512)``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64, eps=1e-5)
        self.prelu = nn.PReLU(64)
        inputs = 64
        for index, (blocks, outputs) in enumerate([(3, 64), (4, 128), (14, 256), (3, 512)], 1):
            layers = [Block(inputs if i == 0 else outputs, outputs, 2 if i == 0 else 1) for i in range(blocks)]
            self.add_module(f"layer{index}", nn.Sequential(*layers))
            inputs = outputs
        self.bn2 = nn.BatchNorm2d(512, eps=1e-5)
        self.fc = nn.Linear(512 * 7 * 7, 512)
        self.features = nn.BatchNorm1d(512, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(x)))
        for index in range(1, 5):
            x = self.get_submodule(f"layer{index}")(x)
        return self.features(self.fc(self.bn2(x).flatten(1)))


class ArcFace:
    """Identity embeddings of aligned faces.

    Raises:
        InputError: no such file, or not an ArcFace IResNet-50.
    """

    def __init__(self, path: str | Path):
        path = Path(path)
        self.name = "ArcFace IResNet-50"
        self.session = None
        if path.suffix == ".onnx":
            if not path.is_file():
                raise InputError(f"{path} does not exist: give an ArcFace IResNet-50 (.pth or .onnx)")
            runtime = require("onnxruntime", "metrics")
            try:
                self.session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            except Exception as error:  # onnxruntime raises types of its own
                raise InputError(
                    f"{path} is not an ONNX network that can be run: {str(error).splitlines()[0]}"
                ) from None
            shape = self.session.get_inputs()[0].shape
            if list(shape[1:]) != [3, SIZE, SIZE]:
                raise InputError(f"{path} takes pictures of shape {shape}, ArcFace takes (N, 3, {SIZE}, {SIZE})")
        else:
            self.network = load_weights(IResNet50(), path, hint="an ArcFace IResNet-50 (.pth or .onnx)")
        self.checksum = sha256(path)

    @torch.no_grad()
    def embed(self, aligned: Tensor) -> Tensor:
        """(N, 512) unit vectors of aligned faces (N, 3, 112, 112) RGB in [−1, 1]."""
        if self.session is None:
            embedding = self.network(aligned)
        else:
            name = self.session.get_inputs()[0].name
            rows = [self.session.run(None, {name: face[None].numpy().astype(np.float32)})[0] for face in aligned]
            embedding = torch.from_numpy(np.concatenate(rows))
        return torch.nn.functional.normalize(embedding, dim=-1)


def align(images: Tensor, points: Tensor) -> Tensor:
    """Faces turned, scaled and shifted onto ArcFace's template.

    Args:
        images: (N, 3, R, R) in [−1, 1].
        points: (N, 5, 2) right eye, left eye, nose tip, right and left mouth corner, in [0, 1] (u right, v down).

    Returns:
        (N, 3, 112, 112)
    """
    target = (TEMPLATE / SIZE).to(points).expand(len(points), 5, 2)
    centre, middle = points.mean(1, keepdim=True), target.mean(1, keepdim=True)
    a, b = points - centre, target - middle
    # The least-squares similarity b → a in complex numbers: scale and turn in one.
    ca, cb = torch.view_as_complex(a.contiguous()), torch.view_as_complex(b.contiguous())
    factor = (cb.conj() * ca).sum(1) / (cb.abs() ** 2).sum(1)  # (N,)
    steps = (torch.arange(SIZE, device=points.device) + 0.5) / SIZE
    v, u = torch.meshgrid(steps, steps, indexing="ij")
    grid = torch.stack([u, v], -1).to(points) - middle[:, :, None]  # (N, 112, 112, 2)
    turned = torch.view_as_real(torch.view_as_complex(grid.contiguous()) * factor[:, None, None])
    where = (turned + centre[:, :, None]) * 2 - 1
    return torch.nn.functional.grid_sample(images, where, padding_mode="border", align_corners=False)


def five_points(landmarks: Tensor) -> Tensor:
    """ArcFace's five points (N, 5, 2) of projected iBUG-68 landmarks (N, 68, 2)."""
    right, left = landmarks[:, 36:42].mean(1), landmarks[:, 42:48].mean(1)
    return torch.stack([right, left, landmarks[:, 30], landmarks[:, 48], landmarks[:, 54]], 1)
