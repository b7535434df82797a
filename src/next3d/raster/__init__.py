"""Triangles to pixels: face ids, barycentric weights and depth, and what is read through them.

Three implementations share one rule and one signature: ``torch_reference``, ``numba_cpu`` and ``triton_cuda``.
"""

from next3d.raster.rasterize import Fragments, rasterize
from next3d.raster.sampling import interpolate, perspective_screen, sample_texture

__all__ = ["Fragments", "interpolate", "perspective_screen", "rasterize", "sample_texture"]
