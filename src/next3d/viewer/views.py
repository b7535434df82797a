"""What the stages of the network look like: 8-bit pictures of colour, depth, normals, alpha, mesh, planes, texture."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from next3d.generator.generator import Generator, Planes, Rendering
from next3d.geometry.cameras import Camera
from next3d.raster import perspective_screen, rasterize
from next3d.raster.shading import shaded

ACCENT = (0.24, 0.47, 0.96)
GAP = 2  # pixels between tiles of planes


@dataclass
class Colours:
    """How C features become three colours: principal components of the planes, fixed for one identity.

    Attributes:
        mean: (C,)
        axes: (C, 3), scaled so that two standard deviations fill the range
    """

    mean: Tensor
    axes: Tensor

    @staticmethod
    def of(features: list[Tensor]) -> Colours:
        """From feature pictures (1, C, H, W); pixels where nothing was drawn do not count."""
        points = torch.cat([picture[0].float().flatten(1).T for picture in features])  # (P, C)
        points = points[points.abs().amax(1) > 0]
        if len(points) < 16:
            points = torch.randn(16, features[0].shape[1])
        mean = points.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov((points - mean).T))
        axes = vectors[:, -3:].flip(1)
        axes = axes * axes.sum(0).sign().where(axes.sum(0) != 0, torch.ones(3))  # one sign for one identity
        return Colours(mean, axes / (4 * values[-3:].flip(0).clamp_min(1e-8).sqrt()))

    def __call__(self, picture: Tensor) -> np.ndarray:
        """(1, C, H, W) to uint8 (H, W, 4); transparent where nothing was drawn."""
        flat = picture[0].float().permute(1, 2, 0)  # (H, W, C)
        colour = ((flat - self.mean) @ self.axes + 0.5).clamp(0, 1)
        there = (flat.abs().amax(-1, keepdim=True) > 0).float()
        return to_bytes(torch.cat([colour, there], -1))


def to_bytes(picture: Tensor) -> np.ndarray:
    """(H, W, C) in [0, 1] to uint8."""
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def without_background(planes: Planes) -> Planes:
    """The same planes before black: what is drawn then is colour times alpha."""
    return dataclasses.replace(planes, identity=dataclasses.replace(planes.identity, background=None))


def over(colour: Tensor, alpha: Tensor, background: str) -> Tensor:
    """Colour that is already multiplied by its alpha, (H, W, 3) and (H, W, 1), over a background.

    "transparent" gives (H, W, 4), not multiplied; "#rrggbb" gives (H, W, 3).
    """
    if background == "model":
        return colour
    colour = torch.minimum(colour, alpha)  # the super-resolution may brighten what is not there
    if background == "transparent":
        return torch.cat([(colour / alpha.clamp_min(1 / 255)).clamp(0, 1), alpha], -1)
    ground = torch.tensor([int(background[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return colour + (1 - alpha) * ground


def matte(out: Rendering, size: int) -> Tensor:
    """Alpha (size, size, 1)."""
    alpha = out.alpha.float()
    if alpha.shape[-1] != size:
        alpha = F.interpolate(alpha, (size, size), mode="bilinear", align_corners=False, antialias=True)
    return alpha[0].permute(1, 2, 0).clamp(0, 1).cpu()


def picture(out: Rendering, background: str) -> np.ndarray:
    """The final picture."""
    colour = ((out.image[0].float() + 1) / 2).clamp(0, 1).permute(1, 2, 0).cpu()
    return to_bytes(over(colour, matte(out, out.image.shape[-1]), background))


def depth(out: Rendering, near: float, far: float, background: str) -> np.ndarray:
    """Near is light, far is dark."""
    alpha = matte(out, out.depth.shape[-1])
    # A head fills the middle of the volume: its nearer two thirds take the whole range.
    grey = 1 - (out.depth[0].float().permute(1, 2, 0).cpu() - near) / (0.72 * (far - near))
    return to_bytes(over(grey.clamp(0.04, 1).expand(-1, -1, 3) * alpha, alpha, background))


def normals(out: Rendering, camera: Camera, background: str) -> np.ndarray:
    """As seen from the camera: red right, green up, blue towards the camera."""
    assert out.normals is not None
    world = out.normals[0].float().permute(1, 2, 0).cpu()  # (r, r, 3)
    seen = world @ camera.cam2world[:3, :3]  # camera axes: right, down, away
    colour = (seen * torch.tensor([1.0, -1.0, -1.0]) + 1) / 2
    alpha = matte(out, colour.shape[0])
    return to_bytes(over(colour * alpha, alpha, background))


def alpha(out: Rendering) -> np.ndarray:
    return to_bytes(matte(out, out.alpha.shape[-1]).expand(-1, -1, 3))


def mesh(model: Generator, out: Rendering, vertices: Tensor, camera: Camera, size: int, background: str) -> np.ndarray:
    """The driving mesh, shaded with its edges, over the picture."""
    world = model.texture_planes.world(vertices.float()).detach().cpu()
    faces = model.texture_planes.faces.cpu()
    clay = shaded(camera, world, faces, size)[0]  # (size, size, 4)
    one = Camera(camera.cam2world[None], camera.intrinsics[None])
    seen = rasterize(perspective_screen(one, world), faces, 2 * size, cull=-1, perspective=True)
    edge = ((seen.barycentric[0].amin(-1) < 0.06) & (seen.face[0] >= 0)).float()
    edge = F.avg_pool2d(edge[None, None], 2)[0, 0, :, :, None]  # (size, size, 1)
    shown = torch.lerp(clay[..., :3], torch.tensor(ACCENT), 0.55 * edge)
    base = torch.from_numpy(picture(out, background)).float() / 255
    if base.shape[0] != size:
        base = F.interpolate(base.permute(2, 0, 1)[None], (size, size), mode="bicubic", antialias=True)[0]
        base = base.permute(1, 2, 0).clamp(0, 1)
    weight = clay[..., 3:] * 0.72
    colour = torch.lerp(base[..., :3], shown, weight)
    if base.shape[-1] == 4:
        return to_bytes(torch.cat([colour, torch.maximum(base[..., 3:], clay[..., 3:])], -1))
    return to_bytes(colour)


def tile(colours: Colours, plane: Tensor, axes: str, size: int) -> np.ndarray:
    """One plane upright: y upwards where it is the plane's second axis."""
    shown = colours(plane.flip(2) if axes[1] == "y" else plane)
    tensor = torch.from_numpy(shown).permute(2, 0, 1)[None].float()
    tensor = F.interpolate(tensor, (size, size), mode="bilinear", antialias=True)[0]
    return tensor.permute(1, 2, 0).round().byte().numpy()


def plane_rows(planes: Planes) -> dict[str, tuple[Tensor, ...]]:
    """The stages of the tri-planes that a model has: drawn from the texture, static, blended."""
    rows: dict[str, tuple[Tensor, ...]] = {}
    if planes.drawn is not None:
        rows["drawn"] = planes.drawn.features
    if planes.identity.static is not None:
        rows["static"] = planes.identity.static
    rows["blended"] = planes.blended
    return rows


def plane_grid(planes: Planes, texture: Colours, others: Colours, axes: tuple[str, ...], size: int) -> np.ndarray:
    """Rows :func:`plane_rows`, columns the three planes; uint8 (H, W, 4). What is drawn has the texture's colours."""
    rows = plane_rows(planes)
    step = size + GAP
    grid = np.zeros((len(rows) * step - GAP, 3 * step - GAP, 4), np.uint8)
    for i, (name, row) in enumerate(rows.items()):
        colours = texture if name == "drawn" else others
        for j, (plane, pair) in enumerate(zip(row, axes)):
            grid[i * step : i * step + size, j * step : j * step + size] = tile(colours, plane, pair, size)
    return grid


def lay(image: np.ndarray, background: str) -> np.ndarray:
    """uint8 (H, W, 4) over a background colour; "model" is a neutral dark grey."""
    if background == "transparent" or image.shape[-1] == 3:
        return image
    ground = "#17181c" if background == "model" else background
    values = torch.from_numpy(image).float() / 255
    return to_bytes(over(values[..., :3] * values[..., 3:], values[..., 3:], ground))
