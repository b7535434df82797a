"""Texture-rasterised tri-planes: the mesh, wearing its neural texture, drawn onto three planes (paper, §3.1).

Four orthographic views are drawn: front, both sides, top. Left and right are added on one plane. Each plane has an
alpha, 1 where the moving part of the face (and the inside of the mouth) stands.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from next3d.errors import InputError
from next3d.generator.config import GeneratorConfig
from next3d.generator.flood_fill import fill_holes
from next3d.geometry.meshes import HEAD_SCALE, HEAD_SHIFT, Topology
from next3d.nn.sampling import PlaneSampler
from next3d.raster import interpolate, rasterize

SCALE_RANGE = 0.1  # the learned scale stays within ±10 % of 2.5
OUTSIDE = 2.0  # a texture coordinate, in [−1, 1] units, that touches no texel
SHIFT_RANGE = 0.02  # the learned shift stays within ±2 cm of the default (metres)


@dataclass(frozen=True)
class View:
    """An orthographic view: which signed axis (1 = x, 2 = y, 3 = z) is u, which is v, which points to the viewer.

    ``keep`` is the sign of the area in (u, v) that triangles turned towards the viewer have; ``shift`` (metres) is
    added to the vertices in compatible mode.
    """

    u: int
    v: int
    nearest: int
    keep: int = 1
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)


# In the default mode a view's (u, v) are the axes of the plane that it is drawn on.
ALIGNED = {
    "front": View(u=1, v=2, nearest=3),
    "right": View(u=3, v=2, nearest=1, keep=-1),
    "left": View(u=3, v=2, nearest=-1),
    "top": View(u=1, v=3, nearest=2, keep=-1),
}
# The released model draws both sides and the top as seen, and shifts after rotating (NETWORK.md, 'Texture → planes').
RELEASED = {
    "front": View(u=1, v=2, nearest=3, shift=(0.0, 0.01, 0.0)),
    "right": View(u=-3, v=2, nearest=1, shift=(0.0, 0.01, 0.0)),
    "left": View(u=3, v=2, nearest=-1, shift=(0.0, 0.01, 0.0)),
    "top": View(u=1, v=-3, nearest=2, shift=(0.0, 0.0, -0.01)),
}
VIEWS = tuple(ALIGNED)


@dataclass
class DrawnView:
    """One view of the textured mesh.

    Attributes:
        features: (N, C, R, R)
        alpha: (N, R, R) filled
        attributes: (N, R, R, 3) interpolated (2u − 1, 2v − 1, 1), zero off the mesh
        mask: (N, R, R) the face mask under each pixel; off the mesh that of the texture's centre
    """

    features: Tensor
    alpha: Tensor
    attributes: Tensor
    mask: Tensor


@dataclass
class DrawnPlanes:
    """The dynamic planes in the order in which they are sampled, each with its alpha (N, 1, R, R)."""

    features: tuple[Tensor, Tensor, Tensor]
    alpha: tuple[Tensor, Tensor, Tensor]
    views: dict[str, DrawnView]


class TexturePlanes(nn.Module):
    """Draws the texture (N, C, T, T) through the mesh (N, V, 3) onto three planes (N, C, R, R).

    Holds the topology as buffers, and in the default mode the learnable alignment of head and planes (B.1).
    """

    faces: Tensor
    uv_faces: Tensor
    uvs: Tensor
    face_mask: Tensor

    def __init__(self, config: GeneratorConfig, topology: Topology) -> None:
        super().__init__()
        self.register_buffer("faces", topology.faces.long())
        self.register_buffer("uv_faces", topology.uv_faces.long())
        self.register_buffer("uvs", topology.uvs.float())
        self.register_buffer("face_mask", topology.face_mask.float())
        self.vertex_count = topology.vertex_count
        self.compatible = config.mode == "compatible"
        self.resolutions = (config.planes.front_resolution, config.planes.resolution)
        self.box_size = config.volume.box_size
        self.mouth_source = config.mouth.source
        self.static = config.static.enabled
        if not self.compatible:
            self.alignment = nn.Parameter(torch.zeros(4))  # scale, shift x, y, z before tanh

    @property
    def topology(self) -> Topology:
        return Topology(self.faces, self.uvs, self.uv_faces, self.face_mask, self.vertex_count)

    @property
    def views(self) -> dict[str, View]:
        return RELEASED if self.compatible else ALIGNED

    def world(self, points: Tensor) -> Tensor:
        """Head coordinates in metres (N, P, 3) to world units: scale · (point + shift)."""
        shift = points.new_tensor(HEAD_SHIFT)
        if self.compatible:
            return HEAD_SCALE * (points + shift)
        bounded = self.alignment.tanh().to(points.dtype)
        return HEAD_SCALE * (1 + SCALE_RANGE * bounded[0]) * (points + shift + SHIFT_RANGE * bounded[1:])

    def project(self, points: Tensor, view: str) -> Tensor:
        """Head coordinates (N, P, 3) to a view's (u, v) in [−1, 1] and depth, (N, P, 3); rows grow with v."""
        axes = self.views[view]
        if self.compatible:
            placed = 2 * HEAD_SCALE / self.box_size * (points + points.new_tensor(axes.shift))
        else:
            placed = 2 / self.box_size * self.world(points)

        def along(axis: int) -> Tensor:
            coordinate = placed[..., abs(axis) - 1]
            return coordinate if axis > 0 else -coordinate

        return torch.stack([along(axes.u), along(axes.v), along(-axes.nearest)], -1)

    def forward(self, texture: Tensor, vertices: Tensor) -> DrawnPlanes:
        self._check(vertices)
        sampler = PlaneSampler([texture])
        mask = PlaneSampler([self.face_mask.to(vertices.dtype)])
        views = {name: self._draw(sampler, mask, vertices, name, texture.dtype) for name in VIEWS}
        if self.mouth_source != "static":
            self._fill_mouth(views)
        front, right, left, top = (views[name] for name in VIEWS)
        side = right.features + left.features
        if self.compatible:
            side_alpha = (right.alpha != 0).to(right.alpha)
        else:
            side_alpha = torch.maximum(right.alpha, left.alpha)
        # The released planes 1 and 2 hold the side and the top; the planes' axes (xz, zy) want the top and the side.
        features = (front.features, side, top.features)
        alpha = (front.alpha[:, None], side_alpha[:, None], top.alpha[:, None])
        if not self.compatible:
            features, alpha = (features[0], features[2], features[1]), (alpha[0], alpha[2], alpha[1])
        return DrawnPlanes(features, alpha, views)

    def _draw(
        self, sampler: PlaneSampler, mask_sampler: PlaneSampler, vertices: Tensor, name: str, dtype: torch.dtype
    ) -> DrawnView:
        resolution = self.resolutions[0] if name == "front" else self.resolutions[1]
        fragments = rasterize(
            self.project(vertices, name),
            self.faces,
            resolution,
            cull=self.views[name].keep,
            weights="released" if self.compatible else "exact",
        )
        corners = torch.cat([2 * self.uvs - 1, torch.ones_like(self.uvs[:, :1])], -1)  # (T, 3)
        attributes = interpolate(fragments, corners[None], self.uv_faces)  # (N, R, R, 3)
        covered, size = fragments.mask, (resolution, resolution)
        # Where no surface was hit nothing is known. The released model samples the texture's centre there, and so do we
        # where the texture has to stand in for the inside of the mouth; else a place that reads as zero.
        whole = self.compatible or self.mouth_source == "texture"
        grid = attributes[..., :2] if whole else torch.where(covered[..., None], attributes[..., :2], OUTSIDE)
        grid = grid.flatten(1, 2)  # (N, R·R, 2)
        # (N, C, R, R), stored channels-last as it is found
        features = sampler([grid]).to(dtype).unflatten(1, size).permute(0, 3, 1, 2)
        mask = self._mask(mask_sampler, grid).unflatten(1, size)
        return DrawnView(features, (covered * mask).to(dtype), attributes, mask)

    def _fill_mouth(self, views: dict[str, DrawnView]) -> None:
        """Let the moving part's alpha include the open mouth; views of one size are filled together."""
        for resolution in set(self.resolutions):
            group = [view for view in views.values() if view.alpha.shape[-1] == resolution]
            filled = fill_holes(torch.cat([view.alpha for view in group]), border=not self.compatible)
            for view, alpha in zip(group, filled.chunk(len(group))):
                view.alpha = alpha
                if self.mouth_source == "texture" and not self.compatible:
                    known = (view.attributes[..., 2] > 0) | (alpha > 0)
                    view.features = view.features * known[:, None].to(alpha)

    def _mask(self, sampler: PlaneSampler, grid: Tensor) -> Tensor:
        """The face mask (N, P) at UV grid points (N, P, 2)."""
        flat = grid.reshape(1, -1, 2)  # one mask for the whole batch
        return sampler([flat])[0, :, 0].unflatten(0, grid.shape[:2])

    def _check(self, vertices: Tensor) -> None:
        if vertices.ndim != 3 or vertices.shape[1:] != (self.vertex_count, 3):
            raise InputError(
                f"vertices must have shape (N, {self.vertex_count}, 3) for this model's topology, got "
                f"{tuple(vertices.shape)}"
            )
