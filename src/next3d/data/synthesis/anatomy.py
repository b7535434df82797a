"""What the factory knows about a head model: where its features are, found by landmarks and geometry, not by index."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from scipy import ndimage

from next3d.heads import HeadParams, load_head
from next3d.heads.head_model import HeadModel
from next3d.raster import rasterize

CENTIMETRE = 0.01

# iBUG-68 landmarks
BROWS = (tuple(range(26, 21, -1)), tuple(range(17, 22)))  # left and right, from the temple to the nose
EYES = (tuple(range(42, 48)), tuple(range(36, 42)))  # left and right
OUTER_LIPS = tuple(range(48, 60))
INNER_LIPS = tuple(range(60, 68))

# The hairline: height above the eyes in centimetres by azimuth in degrees (0 in front, 180 behind), on an average head.
HAIRLINE = np.array(
    [(0, 6.2), (14, 6.3), (26, 6.1), (36, 4.9), (42, 3.6), (49, 2.4), (56, 1.2), (62, -1.2), (68, -2.6), (74, -2.4),
     (78, 0.6), (84, 1.9), (98, 1.9), (108, 0.2), (116, -3.2), (130, -6.4), (150, -7.6), (180, -8.0)]
)  # fmt: skip


@dataclass(frozen=True)
class Texels:
    """What each texel of the head's UV atlas lies on; texels outside the islands repeat their nearest neighbour.

    Attributes:
        position: (H, W, 3) metres, on the mean head
        eyeball: (H, W) 1 on the left eyeball, 2 on the right, 0 on skin
        behind_lips: (H, W) centimetres behind the lips, on the inside of the mouth
        ear: (H, W) 1 on the ears, 0 elsewhere
        inside: (H, W) bool, True on the islands
    """

    position: np.ndarray
    eyeball: np.ndarray
    behind_lips: np.ndarray
    ear: np.ndarray
    inside: np.ndarray


class Anatomy:
    """A head model with its features named; built once per process (:func:`anatomy`)."""

    def __init__(self, head: HeadModel) -> None:
        self.head = head
        mean = self.pose(HeadParams())
        self.vertices, self.landmarks, self.irises, self.joints = mean
        topology = head.topology
        faces, uv_faces = topology.faces.numpy(), topology.uv_faces.numpy()
        corners, index = np.unique(np.stack([faces.ravel(), uv_faces.ravel()], 1), axis=0, return_inverse=True)
        # The mesh as it is drawn: a vertex on a seam appears once per UV.
        self.vertex_of = corners[:, 0].astype(np.int64)  # (R,) drawn vertex → vertex of the head
        self.uv = topology.uvs.numpy()[corners[:, 1]].astype(np.float32)  # (R, 2)
        self.faces = index.reshape(-1, 3).astype(np.int64)  # (F, 3) into drawn vertices
        self.head_faces = faces.astype(np.int64)  # (F, 3) into vertices of the head

    def pose(self, params: HeadParams) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Vertices (V, 3), landmarks (68, 3), irises (2, 3) and joints (5, 3) of one head, in metres."""
        with torch.no_grad():
            mesh = self.head(HeadParams.stack([params]) if not params.batch_shape else params)
        return tuple(part[0].numpy().astype(np.float32) for part in mesh)  # type: ignore[return-value]

    @cached_property
    def eye_line(self) -> float:
        """Height of the eyes in metres."""
        return float(self.irises[:, 1].mean())

    @cached_property
    def unit(self) -> float:
        """Metres per centimetre of an average face: eyes to chin over 12.1 cm."""
        return float(self.eye_line - self.landmarks[8, 1]) / 12.1

    @cached_property
    def centre(self) -> np.ndarray:
        """(3,) the middle of the skull at the height of the eyes."""
        skull = self.vertices[self.vertices[:, 1] > self.eye_line]
        return np.array([0, self.eye_line, 0.5 * (skull[:, 2].min() + skull[:, 2].max())], np.float32)

    @cached_property
    def eyeball(self) -> np.ndarray:
        """(V,) 1 on the left eyeball, 2 on the right, 0 elsewhere: the pieces of the mesh that hold the irises."""
        count, f = len(self.vertices), self.head_faces
        piece = np.arange(count)
        while True:  # the smallest index spreads over each connected piece
            least = piece[f].min(1)
            before = piece.copy()
            np.minimum.at(piece, f.ravel(), np.repeat(least, 3))
            piece = piece[piece]
            if np.array_equal(piece, before):
                break
        used = np.zeros(count, bool)
        used[f] = True
        result = np.zeros(count, np.uint8)
        for side in (0, 1):
            distance = np.linalg.norm(self.vertices - self.irises[side], axis=1)
            own = piece[np.where(used, distance, np.inf).argmin()]
            if (piece == own).sum() < 0.3 * count:
                result[piece == own] = side + 1
        return result

    @cached_property
    def eyeball_centres(self) -> np.ndarray:
        """(2, 3) of the mean head."""
        return self.joints[3:5]

    @cached_property
    def behind_lips(self) -> np.ndarray:
        """(V,) centimetres by which skin near the mouth lies behind what is seen from the front, 0 elsewhere."""
        points, lips, cm = self.vertices, self.landmarks[list(OUTER_LIPS)], self.unit
        low, high = lips.min(0), lips.max(0)
        near = (np.abs(points[:, 0]) < high[0] + 0.6 * cm) & (points[:, 1] > low[1] - 2 * cm)
        near &= (points[:, 1] < high[1] + 1.0 * cm) & (points[:, 2] > low[2] - 4.5 * cm) & (self.eyeball == 0)
        scale = 4.0
        screen = np.stack([points[:, 0] * scale, -points[:, 1] * scale, -points[:, 2]], 1)
        front = rasterize(torch.from_numpy(screen)[None], torch.from_numpy(self.head_faces), 512).depth[0].numpy()
        column, row = ((screen[:, :2] + 1) * 256).astype(int).clip(0, 511).T
        return np.where(near, np.maximum(screen[:, 2] - front[row, column], 0) / cm, 0).astype(np.float32)

    @cached_property
    def inner_mouth(self) -> np.ndarray:
        """(V,) bool: skin near the mouth that lies more than 3 mm behind what is seen from the front."""
        return self.behind_lips > 0.3

    @cached_property
    def ear(self) -> np.ndarray:
        """(V,) 1 on the left ear, −1 on the right: what stands off the side of the skull around its widest point."""
        cm, points = self.unit, self.vertices
        side = np.abs(points[:, 0])
        band = (points[:, 1] < self.eye_line + 2.5 * cm) & (points[:, 1] > self.eye_line - 7 * cm)
        tip = points[np.where(band, side, 0).argmax()]
        box = (np.abs(points[:, 1] - self.eye_line + 2 * cm) < 4.4 * cm) & (np.abs(points[:, 2] - tip[2]) < 3.4 * cm)
        level = (np.abs(points[:, 1] - self.eye_line - 3.4 * cm) < cm) & (np.abs(points[:, 2] - tip[2]) < 2 * cm)
        skull = np.median(side[level & (side > 5 * cm)])
        return np.where(box & (side > skull + 0.12 * cm), np.sign(points[:, 0]), 0).astype(np.int8)

    def ear_points(self, vertices: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
        """The lobe's lower end and the root of the ear's top of a neutral head (V, 3); ``side`` 0 left, 1 right."""
        ids = np.flatnonzero(self.ear == (1 - 2 * side))
        height = self.vertices[ids, 1]
        outer = np.abs(self.vertices[ids, 0])
        lobe = ids[np.argsort(height - 0.5 * outer)[:4]]
        top = ids[np.argsort(-height)[:6]]
        return vertices[lobe].mean(0), vertices[top].mean(0)

    def azimuth(self, points: np.ndarray) -> np.ndarray:
        """Degrees around the skull, 0 in front and 180 behind, the same on both sides."""
        offset = points - self.centre
        return np.degrees(np.arctan2(np.abs(offset[..., 0]), offset[..., 2]))

    def above_hairline(self, points: np.ndarray, recede: float = 0.0) -> np.ndarray:
        """Centimetres by which points of the mean head lie above the hairline; ``recede`` raises its front."""
        azimuth = self.azimuth(points)
        line = np.interp(azimuth, HAIRLINE[:, 0], HAIRLINE[:, 1])
        temples = np.exp(-(((azimuth - 27) / 12) ** 2))
        line = line + recede * (0.5 + temples) * (azimuth < 60)
        return (points[..., 1] - self.eye_line) / self.unit - line

    def texels(self, resolution: int) -> Texels:
        """The texels of a square atlas."""
        topology = self.head.topology
        screen = np.concatenate([topology.uvs.numpy() * 2 - 1, np.ones((len(topology.uvs), 1))], 1).astype(np.float32)
        fragments = rasterize(torch.from_numpy(screen)[None], topology.uv_faces, resolution)
        face, weights = fragments.face[0].numpy(), fragments.barycentric[0].numpy()
        inside = face >= 0
        nearest = ndimage.distance_transform_edt(~inside, return_distances=False, return_indices=True)
        face, weights = face[tuple(nearest)], weights[tuple(nearest)]
        corners = self.head_faces[face]  # (H, W, 3)
        position = np.einsum("hwkc,hwk->hwc", self.vertices[corners], weights).astype(np.float32)
        first = corners[..., 0]
        behind = (self.behind_lips[corners] * weights).sum(-1).astype(np.float32)
        ear = (np.abs(self.ear)[corners] * weights).sum(-1).astype(np.float32)
        return Texels(position, self.eyeball[first], behind, ear, inside)


@cache
def anatomy(head: str = "builtin") -> Anatomy:
    """The anatomy of a head model by name or path (:func:`next3d.heads.load_head`)."""
    return Anatomy(load_head(head))
