"""The one entry to rasterisation: it checks the input, chooses an implementation and makes the result differentiable.

The rule, shared by all implementations
- Pixel (column i, row j) of a W×H picture is decided at its centre, u = (2i + 1)/W − 1, v = (2j + 1)/H − 1.
- A triangle covers a centre if none of its three edge functions has the sign opposite to its area: centres on an edge
  belong to both neighbours, so a closed mesh has no cracks. Edge functions are evaluated in float64, where those of
  float32 vertices are practically exact; that is why the implementations agree.
- The smallest depth, rounded to float32, wins; among equals the smallest face id.
- Triangles that are degenerate or hold a NaN or a number beyond ``LIMIT`` are skipped, and so are, with
  ``perspective``, those with a vertex nearer than ``NEAR`` (dropped whole, not clipped). Everything else is drawn.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from next3d.errors import InputError

NEAR = 1e-3  # depth, in the units of the screen's third coordinate, at which perspective triangles are dropped
DEGENERATE = 1e-10  # doubled area in [−1, 1] units below which a triangle is skipped; a pixel of 512² has 1.5e-5
LIMIT = 1e9  # coordinates that large are treated as not finite: their products overflow float32
RELEASED_EPSILON = 1e-8  # what the released rasteriser adds to the doubled area (NETWORK.md, 'Texture → planes')

Implementation = Literal["auto", "torch", "numba", "triton"]
Weights = Literal["exact", "released"]


@dataclass(frozen=True)
class Fragments:
    """What each pixel of N pictures sees.

    Attributes:
        face: (N, H, W) int64, the face id, −1 where no face was hit
        barycentric: (N, H, W, 3) weights of the face's three vertices, 0 where empty
        depth: (N, H, W) depth of the surface, inf where empty
    """

    face: Tensor
    barycentric: Tensor
    depth: Tensor

    @property
    def mask(self) -> Tensor:
        """(N, H, W) bool: True where a face was hit."""
        return self.face >= 0


def rasterize(
    screen: Tensor,
    faces: Tensor,
    height: int,
    width: int | None = None,
    *,
    cull: bool | int = False,
    perspective: bool = False,
    weights: Weights = "exact",
    implementation: Implementation = "auto",
) -> Fragments:
    """Find the nearest face at every pixel centre.

    Args:
        screen: (N, V, 3) vertices as (u right, v down, depth); the picture spans [−1, 1]², smaller depth is nearer.
        faces: (F, 3) integer vertex indices, shared by the batch.
        height: rows of the picture.
        width: columns of the picture; ``height`` if omitted.
        cull: False or 0 draws every triangle; True or 1 keeps those of positive signed area
            (u₁−u₀)(v₂−v₀) − (v₁−v₀)(u₂−u₀); −1 keeps those of negative area, which is what faces a camera in pictures
            made with :func:`~next3d.raster.perspective_screen` (there v points down).
        perspective: weights linear in space rather than on the screen; depth must then be the distance along the axis.
        weights: "exact" sums to one; "released" is the released model's edge/(area + 1e-8), not renormalised.
        implementation: "auto" takes Triton for CUDA tensors if it is installed, else torch; numba for all others.

    Returns:
        :class:`Fragments` on the device and in the floating type of ``screen``. If ``screen`` requires gradients, then
        ``barycentric`` and ``depth`` are differentiable with respect to it (visibility itself is piecewise constant).

    Raises:
        InputError: for wrong shapes or types, or face indices outside the vertices (CPU only; not checked on CUDA).

    Source: paper section 3.1; the compatible weights follow the released rasteriser.
    """
    width = height if width is None else width
    _check(screen, faces, height, width, perspective, weights)
    faces = faces.to(device=screen.device, dtype=torch.int64)
    keep = int(cull)
    detached = screen.detach()
    chosen = _choose(implementation, screen.device)
    if chosen == "numba":
        from next3d.raster import numba_cpu

        fragments = numba_cpu.rasterize(detached, faces, height, width, keep, perspective, weights == "released")
    elif chosen == "triton":
        from next3d.raster import triton_cuda

        fragments = triton_cuda.rasterize(detached, faces, height, width, keep, perspective, weights == "released")
    else:
        from next3d.raster import torch_reference

        fragments = torch_reference.rasterize(detached, faces, height, width, keep, perspective, weights == "released")
    face, barycentric, depth = fragments
    if screen.requires_grad and torch.is_grad_enabled():
        from next3d.raster.torch_reference import barycentrics

        barycentric, depth = barycentrics(screen, faces, face, perspective, weights == "released")
    return Fragments(face, barycentric, depth)


def _choose(implementation: str, device: torch.device) -> str:
    if implementation == "auto":
        if device.type != "cuda":
            return "numba"
        return "triton" if _has_triton() else "torch"
    if implementation not in ("torch", "numba", "triton"):
        raise InputError(f"unknown rasteriser '{implementation}': expected auto, torch, numba or triton")
    return implementation


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _check(screen: Tensor, faces: Tensor, height: int, width: int, perspective: bool, weights: str) -> None:
    if screen.ndim != 3 or screen.shape[-1] != 3 or not screen.is_floating_point():
        raise InputError(f"screen vertices are floats of shape (N, V, 3), got {screen.dtype} {tuple(screen.shape)}")
    if faces.ndim != 2 or faces.shape[-1] != 3 or faces.is_floating_point():
        raise InputError(f"faces are integers of shape (F, 3), got {faces.dtype} {tuple(faces.shape)}")
    if height < 1 or width < 1:
        raise InputError(f"a picture needs at least one pixel, got {height}×{width}")
    if weights not in ("exact", "released"):
        raise InputError(f"unknown weights '{weights}': expected exact or released")
    if perspective and weights == "released":
        raise InputError("released weights are affine: use weights='exact' with perspective=True")
    if faces.device.type == "cpu" and len(faces):
        low, high = (int(i) for i in faces.aminmax())
        if low < 0 or high >= screen.shape[1]:
            raise InputError(f"face indices run from {low} to {high}, but there are {screen.shape[1]} vertices")
