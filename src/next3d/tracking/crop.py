"""The square crop around a face, as FFHQ and EG3D frame it, with roll left in the picture for the camera to carry.

FFHQ's square is centred near the eyes and sized by the distances between the eyes and from eyes to mouth; EG3D's
frame is a fixed share of it. A crop remembers where it was taken, so that results can be pasted back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from next3d.tracking.detector import IRIS_LEFT, IRIS_RIGHT

MOUTH_CORNERS = (61, 291)  # MediaPipe indices: the subject's right and left corner
IBUG_BOX = (127, 356, 152, 105, 334)  # the ends of iBUG's contour, the chin and the tops of the brows
EYE_CORNERS_RIGHT = (33, 133)  # outer, inner
EYE_CORNERS_LEFT = (263, 362)


@dataclass(frozen=True)
class Crop:
    """A square in a picture: centre (column, row) and side, in pixels of the source."""

    x: float
    y: float
    side: float

    @property
    def corner(self) -> tuple[float, float]:
        return self.x - self.side / 2, self.y - self.side / 2

    def normalise(self, points: np.ndarray) -> np.ndarray:
        """Source pixels (..., 2) to crop coordinates (..., 2) in [0, 1], u right, v down."""
        return ((points - np.array(self.corner)) / self.side).astype(np.float32)

    def restore(self, points: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`normalise`."""
        return (points * self.side + np.array(self.corner)).astype(np.float32)

    def cut(self, image: np.ndarray, resolution: int) -> np.ndarray:
        """The crop of an (H, W, 3) uint8 picture at ``resolution``²; beyond its edge the picture goes on, blurred."""
        left, top = self.corner
        height, width = image.shape[:2]
        pad = int(np.ceil(max(0, -left, -top, left + self.side - width, top + self.side - height)))
        if pad:
            image = _extend(image, left, top, self.side)
            left, top = left - np.floor(left), top - np.floor(top)
        box = (left, top, left + self.side, top + self.side)
        scale = self.side / resolution
        reduced = Image.fromarray(image).resize(
            (resolution, resolution), Image.Resampling.LANCZOS if scale > 1 else Image.Resampling.BICUBIC, box=box
        )
        return np.asarray(reduced)

    def paste(self, image: np.ndarray, patch: np.ndarray, feather: float = 0.05) -> np.ndarray:
        """``image`` (H, W, 3) uint8 with ``patch`` (R, R, 3) laid where the crop was taken, its border feathered."""
        height, width = image.shape[:2]
        left, top = self.corner
        x0, y0 = max(0, int(np.floor(left))), max(0, int(np.floor(top)))
        x1, y1 = min(width, int(np.ceil(left + self.side))), min(height, int(np.ceil(top + self.side)))
        if x1 <= x0 or y1 <= y0:
            return image.copy()
        scale = len(patch) / self.side
        source = Image.fromarray(patch)
        if scale > 1:  # the patch is finer than the picture: reduce it first, or it would alias
            size = max(1, round(self.side))
            source, scale = source.resize((size, size), Image.Resampling.LANCZOS), size / self.side
        inverse = (scale, 0, (x0 - left) * scale, 0, scale, (y0 - top) * scale)
        laid = source.transform((x1 - x0, y1 - y0), Image.Transform.AFFINE, inverse, Image.Resampling.BICUBIC)
        across = np.arange(x0, x1) + 0.5 - left
        down = np.arange(y0, y1) + 0.5 - top
        edge = np.minimum(
            np.minimum(across, self.side - across)[None], np.minimum(down, self.side - down)[:, None]
        )  # (y1 − y0, x1 − x0) pixels to the crop's border
        weight = np.clip(edge / max(feather * self.side, 1), 0, 1)[..., None]
        result = image.copy()
        region = result[y0:y1, x0:x1].astype(np.float32)
        region += weight * (np.asarray(laid, np.float32) - region)
        result[y0:y1, x0:x1] = region.round().clip(0, 255)
        return result


def _extend(image: np.ndarray, left: float, top: float, side: float) -> np.ndarray:
    """A square (left, top, side) that reaches beyond the picture: edges mirrored, then blurred with distance."""
    height, width = image.shape[:2]
    size = int(np.ceil(side)) + 1
    columns = np.arange(size) + int(np.floor(left))
    rows = np.arange(size) + int(np.floor(top))

    def fold(index: np.ndarray, length: int) -> np.ndarray:
        index = np.mod(index, 2 * length)
        return np.where(index < length, index, 2 * length - 1 - index)

    square = image[fold(rows, height)][:, fold(columns, width)]
    small = max(8, size // 24)
    soft = Image.fromarray(square).resize((small, small), Image.Resampling.BOX)
    soft = soft.resize((size, size), Image.Resampling.BICUBIC)
    beyond_x = np.maximum(np.maximum(-columns, columns - width + 1), 0) / size
    beyond_y = np.maximum(np.maximum(-rows, rows - height + 1), 0) / size
    weight = np.clip(np.maximum(beyond_x[None], beyond_y[:, None]) * 12, 0, 1)[..., None]
    return (square * (1 - weight) + np.asarray(soft) * weight).round().astype(np.uint8)


def ffhq_crop(points: np.ndarray, scale: float = 1.0) -> Crop:
    """The FFHQ square of a face, without its rotation.

    The half side is the larger of twice the distance between the eyes and 1.8 times that from eyes to mouth; the
    centre lies a tenth of the latter below the middle of the eyes (Karras et al. 2019, data preparation).

    Args:
        points: (478, 2) MediaPipe landmarks in pixels.
        scale: enlarges the square.
    """
    right = points[list(EYE_CORNERS_RIGHT)].mean(0)
    left = points[list(EYE_CORNERS_LEFT)].mean(0)
    mouth = points[list(MOUTH_CORNERS)].mean(0)
    eyes = (left + right) / 2
    eye_to_mouth = mouth - eyes
    half = max(np.hypot(*(left - right)) * 2.0, np.hypot(*eye_to_mouth) * 1.8)
    x, y = eyes + eye_to_mouth * 0.1
    return Crop(float(x), float(y), float(2 * half * scale))


def deca_input(image: np.ndarray, points: np.ndarray) -> Tensor:
    """The (1, 3, 224, 224) RGB crop in [0, 1] that DECA's encoder expects of a picture (H, W, 3) uint8.

    Its square is 1.25 times the mean side of the landmarks' box, around the box's centre.
    """
    inner = points[list(IBUG_BOX)]
    low, high = inner.min(0), inner.max(0)
    x, y = (low + high) / 2
    crop = Crop(float(x), float(y), float((high - low).mean() * 1.25))
    return torch.from_numpy(crop.cut(image, 224).copy()).permute(2, 0, 1)[None].float() / 255


def inter_ocular(points: np.ndarray) -> float:
    """The distance between the outer eye corners (..., 478, 2), in the units of the points."""
    return float(np.linalg.norm(points[..., EYE_CORNERS_LEFT[0], :] - points[..., EYE_CORNERS_RIGHT[0], :], axis=-1))


def iris_centres(points: np.ndarray) -> np.ndarray:
    """(2, 2): the left then the right iris centre of (478, 2) landmarks."""
    return np.stack([points[IRIS_LEFT].mean(0), points[IRIS_RIGHT].mean(0)])
