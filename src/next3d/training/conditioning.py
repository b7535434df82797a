"""The synthetic rendering that the discriminator sees beside pictures (paper, §3.5): each pixel's place on the head."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from next3d.geometry.cameras import Camera
from next3d.geometry.meshes import Topology, world_from_head
from next3d.raster import interpolate, perspective_screen, rasterize


class CorrespondenceImage(nn.Module):
    """Draws a head mesh with every visible point coloured by its place on the template, zero where there is no head.

    Args:
        topology: the mesh's faces and UVs.
        template: (V, 3), the neutral mean head in metres: the colours of ``coordinates="template"``, each axis scaled
            to [0, 1] over the head (the normalised coordinate code of the paper's reference [35]).
        resolution: height and width of the picture.
        coordinates: "template", or "uv" for (u, v, 1).
    """

    faces: Tensor
    colours: Tensor
    colour_faces: Tensor

    def __init__(
        self, topology: Topology, template: Tensor, resolution: int, coordinates: Literal["template", "uv"] = "template"
    ):
        super().__init__()
        self.resolution = resolution
        if coordinates == "uv":
            colours = torch.cat([topology.uvs, torch.ones_like(topology.uvs[:, :1])], 1)
            colour_faces = topology.uv_faces
        else:
            low, high = template.amin(0), template.amax(0)
            colours = (template - low) / (high - low).clamp_min(1e-8)
            colour_faces = topology.faces
        self.register_buffer("faces", topology.faces.clone(), persistent=False)
        self.register_buffer("colours", colours.clone(), persistent=False)
        self.register_buffer("colour_faces", colour_faces.clone(), persistent=False)

    @torch.no_grad()
    def forward(self, vertices: Tensor, camera_label: Tensor) -> Tensor:
        """Vertices (N, V, 3) in metres, head frame, and camera labels (N, 25) to pictures (N, 3, R, R) in [0, 1]."""
        screen = perspective_screen(Camera.from_label(camera_label), world_from_head(vertices))  # (N, V, 3)
        fragments = rasterize(screen, self.faces, self.resolution, cull=-1, perspective=True)
        picture = interpolate(fragments, self.colours[None], self.colour_faces)  # (N, R, R, 3)
        return picture.movedim(-1, 1)


def template_of(head: nn.Module) -> Tensor:
    """(V, 3): the neutral mean head of a head model, in metres."""
    from next3d.heads import HeadParams

    with torch.no_grad():
        return head(HeadParams().reshape(1)).vertices[0]
