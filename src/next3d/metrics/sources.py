"""Where evaluated pictures come from: a model, the picture factory (as the best there can be), or a dataset."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from next3d.errors import InputError
from next3d.generator.generator import Generator
from next3d.geometry.cameras import Camera
from next3d.heads.params import HeadParams


class PictureSource(Protocol):
    """Draws identities under given parameters and cameras.

    Attributes:
        name: for the report
        z_dim: length of an identity's latent
        resolution: of its pictures
        head: name of the head model whose parameters drive it
    """

    name: str
    z_dim: int
    resolution: int
    head: str

    def pictures(self, z: Tensor, params: HeadParams, camera: Tensor) -> Tensor:
        """(N, 3, R, R) in [−1, 1] of latents (N, z_dim), head parameters (N,) and camera labels (N, 25)."""
        ...


class ModelSource:
    """A generator.

    Args:
        model: with its head model at hand.
        truncation: of the latents; the paper evaluates without (1).
    """

    def __init__(self, model: Generator, *, truncation: float = 1.0, name: str = "model"):
        if model.head is None:
            raise InputError(f"the model needs the head '{model.config.head}' to be driven: give it with --head")
        self.model, self.truncation, self.name = model.eval(), truncation, name
        self.z_dim = model.config.mapping.z_dim
        self.resolution = model.config.superres.resolution
        self.head = model.head.name

    @torch.no_grad()
    def pictures(self, z: Tensor, params: HeadParams, camera: Tensor) -> Tensor:
        model = self.model
        z, params, camera = z.to(model.device), params.to(model.device), camera.to(model.device)
        frontal = Camera.orbit().label.to(camera).expand(len(z), 25)  # as released models are used (NETWORK.md)
        ws = model.mapping(z, frontal, truncation=self.truncation)
        shape = model.shape_of(z)
        head = model.head
        assert head is not None
        mesh = head(params if shape is None else params.replace(shape=shape))
        return model.synthesis(ws, camera, mesh.vertices, mesh.landmarks).image.float().cpu()


class FactorySource:
    """The picture factory itself: what a perfect model of its pictures would draw."""

    def __init__(self, resolution: int = 128):
        from next3d.data.synthesis import LATENT_SIZE

        self.name, self.z_dim, self.resolution, self.head = "factory", LATENT_SIZE, resolution, "builtin"

    def pictures(self, z: Tensor, params: HeadParams, camera: Tensor) -> Tensor:
        from next3d.data.synthesis import render

        drawn = [
            torch.from_numpy(
                render(z[i].numpy(), params[i], Camera.from_label(camera[i]), self.resolution).image.copy()
            )
            for i in range(len(z))
        ]
        return torch.stack(drawn).permute(0, 3, 1, 2).float() / 127.5 - 1
