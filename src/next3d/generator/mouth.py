"""The inside of the mouth: a style UNet on a crop of the front plane, and one that blends it in (paper, §3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from next3d.generator.config import GeneratorConfig
from next3d.nn.style import StyleTree, channels_last
from next3d.nn.style_unet import StyleUNet

LIPS = slice(48, 60)  # the outer lip's landmarks in iBUG-68 order
LEFT_CORNER, RIGHT_CORNER = 48, 54


def mouth_box(landmarks: Tensor, resolution: int, margin: float) -> Tensor:
    """The square around the lips.

    Args:
        landmarks: (N, 68, 2) projected onto a plane, (u, v) in [−1, 1]
        resolution: of the plane
        margin: side of the box in units of the lips' larger extent

    Returns:
        (N, 4) int64: first row, last row + 1, first column, last column + 1. Order and truncation as released.
    """
    half = resolution / 2
    pixels = landmarks.detach() * half + half  # (N, 68, 2) column, row
    lips = pixels[:, LIPS]
    extent = (lips.amax(1) - lips.amin(1)).amax(1)  # (N,)
    side = (margin * extent).long().clamp(2, resolution)
    centre = (pixels[:, LEFT_CORNER] + pixels[:, RIGHT_CORNER]) / 2
    reach = torch.div(side, 2, rounding_mode="floor")[:, None]  # (N, 1)
    low, high = (centre - reach).long(), (centre + reach).long()
    low = low.clamp(0, resolution - 2)  # a box that leaves the plane is cut
    high = torch.maximum(high.clamp(max=resolution), low + 2)
    return torch.stack([low[:, 1], high[:, 1], low[:, 0], high[:, 0]], 1)


def shrink_matrix(low: Tensor, high: Tensor, size: int, outputs: int) -> Tensor:
    """(N, outputs, size): resizes the pixels [low, high) of a row of ``size`` to ``outputs``, linearly, antialiased.

    As a matrix, a batch of boxes of different sizes is one product, on any device and without waiting for it.
    """
    target = torch.arange(outputs, device=low.device) + 0.5
    source = torch.arange(size, device=low.device)
    low, high = low[:, None, None], high[:, None, None]
    scale = (high - low).float() / outputs  # source pixels per target pixel
    distance = (source - low + 0.5) - scale * target[:, None]
    weight = (1 - distance.abs() / scale.clamp_min(1)).clamp_min(0)
    weight = weight * ((source >= low) & (source < high))
    return weight / weight.sum(-1, keepdim=True)


def spread_matrix(low: Tensor, high: Tensor, size: int, inputs: int) -> Tensor:
    """(N, size, inputs): resizes a row of ``inputs`` pixels into [low, high) of a row of ``size``, zero elsewhere."""
    target = torch.arange(size, device=low.device)[:, None]
    source = torch.arange(inputs, device=low.device) + 0.5
    low, high = low[:, None, None], high[:, None, None]
    scale = inputs / (high - low).float()
    distance = source - scale * (target - low + 0.5)
    weight = (1 - distance.abs() / scale.clamp_min(1)).clamp_min(0)
    inside = (target >= low) & (target < high)
    return weight / weight.sum(-1, keepdim=True).clamp_min(1e-8) * inside


def resize(picture: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(N, C, H, W) with row matrices (N, H′, H) and column matrices (N, W′, W) to (N, C, H′, W′), channels-last."""
    rows, columns = rows.to(picture.dtype), columns.to(picture.dtype)
    n, channels, height, width = picture.shape
    x = picture.permute(0, 2, 3, 1).reshape(n, height, width * channels)
    x = (rows @ x).view(n, -1, width, channels).transpose(1, 2)  # (N, W, H′, C)
    x = columns @ x.reshape(n, width, -1)  # (N, W′, H′·C): two products of large matrices
    return channels_last(x.unflatten(2, (-1, channels)).permute(0, 3, 2, 1))  # (N, C, H′, W′)


def crop(plane: Tensor, box: Tensor, resolution: int) -> Tensor:
    """The box (N, 4) of a plane (N, C, R, R), resized to (N, C, resolution, resolution)."""
    size = plane.shape[-1]
    rows = shrink_matrix(box[:, 0], box[:, 1], size, resolution)
    return resize(plane, rows, shrink_matrix(box[:, 2], box[:, 3], size, resolution))


def paste(plane: Tensor, picture: Tensor, box: Tensor) -> Tensor:
    """``plane`` (N, C, R, R) with ``picture`` (N, C, P, P) resized into its box (N, 4)."""
    size = plane.shape[-1]
    rows = spread_matrix(box[:, 0], box[:, 1], size, picture.shape[-1])  # (N, R, P)
    columns = spread_matrix(box[:, 2], box[:, 3], size, picture.shape[-1])
    inside = (rows.sum(-1) > 0)[:, :, None] & (columns.sum(-1) > 0)[:, None]  # (N, R, R)
    return torch.where(inside[:, None], resize(picture, rows, columns), plane)


class Mouth(nn.Module):
    """Replaces the mouth's box on the first ``config.mouth.planes`` planes by what the UNet makes of it."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        c = config.mouth
        channels = config.planes.channels * c.planes
        self.network = StyleUNet(
            config.mapping.w_dim,
            channels,
            channels,
            resolution=c.resolution,
            input_resolution=c.crop,
            final_resolution=c.final,
            channel_base=c.channel_base,
            channel_max=c.channel_max,
        )
        self.crop_resolution = c.crop
        self.planes = c.planes

    def styles(self, ws: Tensor, noise: str = "const") -> StyleTree:
        return self.network.styles(ws, noise)

    def forward(
        self, planes: Sequence[Tensor], boxes: Sequence[Tensor], styles: StyleTree
    ) -> tuple[list[Tensor], Tensor]:
        """Planes (N, C, R, R) and a box (N, 4) for each → the planes with the mouth, and the UNet's picture."""
        crops = [crop(plane, box, self.crop_resolution) for plane, box in zip(planes, boxes)]
        mouth = self.network(torch.cat(crops, 1), styles)
        parts = mouth.chunk(len(crops), 1)
        return [paste(plane, part, box) for plane, part, box in zip(planes, parts, boxes)], mouth


class Blending(nn.Module):
    """Runs over the whole front plane (N, C, R, R) and replaces it."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        c, resolution = config.blending, config.planes.front_resolution
        self.network = StyleUNet(
            config.mapping.w_dim,
            config.planes.channels,
            config.planes.channels,
            resolution=resolution,
            input_resolution=resolution,
            final_resolution=c.final,
            channel_base=c.channel_base,
            channel_max=c.channel_max,
        )

    def styles(self, ws: Tensor, noise: str = "const") -> StyleTree:
        return self.network.styles(ws, noise)

    def forward(self, front: Tensor, styles: StyleTree) -> Tensor:
        return self.network(front, styles)
