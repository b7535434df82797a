"""Left-right flips that mirror the labels along with the picture (paper, B: FFHQ is augmented with flips)."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from next3d.data.dataset import Batch, Sample, pack_numbers, params_of
from next3d.data.format import SLICES
from next3d.geometry.cameras import Camera
from next3d.heads.head_model import HeadModel

AnySample = TypeVar("AnySample", Sample, Batch)


def flip(sample: AnySample, head: HeadModel, mask: Tensor | None = None) -> AnySample:
    """The mirror image of a sample or a batch: picture, camera, head parameters and auxiliary pictures.

    Rendering the flipped labels gives the flipped picture. The other columns stay as they are: a latent's mirror image
    is not known, so do not condition on latents of flipped samples.

    Args:
        sample: a :class:`Sample`, or a :class:`Batch` of N
        head: the model whose parameters these are; it knows how they mirror
        mask: (N,) bool, which members of a batch to flip; None flips all

    Raises:
        InputError: the head model holds no mirror maps
    """
    numbers = flip_numbers(sample.numbers, head)
    image = sample.image.flip(-1)
    aux = {name: flip_aux(name, picture) for name, picture in sample.aux.items()}
    if mask is not None:
        numbers = torch.where(mask[:, None], numbers, sample.numbers)
        image = torch.where(mask[:, None, None, None], image, sample.image)
        aux = {name: torch.where(mask[:, None, None, None], aux[name], old) for name, old in sample.aux.items()}
    return replace(sample, image=image, numbers=numbers, aux=aux)


def flip_numbers(numbers: Tensor, head: HeadModel) -> Tensor:
    """Mirrored camera and head parameters, (…, 187) → (…, 187)."""
    camera = Camera.from_label(numbers[..., SLICES["camera"]]).mirror()
    return pack_numbers(camera, head.mirror(params_of(numbers)))


def flip_aux(name: str, picture: Tensor) -> Tensor:
    """A mirrored auxiliary picture (…, C, H, W); the x of world normals changes its sign."""
    flipped = picture.flip(-1)
    if name == "normals":
        flipped = flipped * flipped.new_tensor([-1.0, 1.0, 1.0])[:, None, None]
    return flipped
