"""An identity whose unchanging part is computed once: texture, static planes and every folded convolution weight.

Per frame there remain drawing the mesh, the mouth and blending networks, the rays and the super-resolution. A baked
identity runs through the same code as any other: it only keeps what :meth:`Generator.identity` returns.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from next3d.errors import InputError
from next3d.nn.style import channels_last, map_styles

if TYPE_CHECKING:
    from next3d.generator.generator import Generator, Identity, Planes, Rendering


class Baked:
    """One identity of a generator, ready to be drawn again and again.

    Args:
        model: stays as it is, and is used for what depends on the frame
        ws: (1, count, w_dim)
        dtype: of planes, features and weights; drawing the mesh and compositing stay in float32
        noise: "const" or "none"

    Attributes:
        identity: texture, static planes and folded weights
    """

    def __init__(self, model: Generator, ws: Tensor, dtype: torch.dtype = torch.float32, noise: str = "const") -> None:
        if len(ws) != 1:
            raise InputError(f"one identity is baked at a time: ws must have shape (1, ·, ·), got {tuple(ws.shape)}")
        if noise == "random":
            raise InputError("random noise cannot be baked: choose const or none")
        self.model = model
        self.dtype = dtype
        with torch.no_grad():
            self.identity = convert(model.identity(ws, noise), dtype)

    @torch.no_grad()
    def planes(self, vertices: Tensor | None, landmarks: Tensor | None) -> Planes:
        """The blended planes of this identity on N meshes; see :meth:`Generator.planes`."""
        return self.model.planes(self.identity, vertices, landmarks)

    @torch.no_grad()
    def synthesis(
        self,
        camera_label: Tensor,
        vertices: Tensor | None = None,
        landmarks: Tensor | None = None,
        *,
        sampling: str = "deterministic",
        normals: bool = False,
    ) -> Rendering:
        """The picture that :meth:`Generator.synthesis` would make of the same ws.

        Args:
            camera_label: (N, 25), or (N, K, 25)
            vertices: (N, V, 3), metres, head frame
            landmarks: (N, 68, 3), the same frame
        """
        planes = self.planes(vertices, landmarks)
        return self.model.render(planes, camera_label, sampling=sampling, normals=normals)


def convert(identity: Identity, dtype: torch.dtype) -> Identity:
    """The identity with all of its tensors in ``dtype``."""

    def tensor(x: Tensor) -> Tensor:
        return channels_last(x.to(dtype))

    return dataclasses.replace(
        identity,
        texture=None if identity.texture is None else tensor(identity.texture),
        static=None if identity.static is None else tuple(tensor(plane) for plane in identity.static),
        background=None if identity.background is None else tensor(identity.background),
        **{
            name: map_styles(lambda style: style.to(dtype), styles)
            for name in ("mouth", "blending", "superres")
            if (styles := getattr(identity, name)) is not None
        },
    )
