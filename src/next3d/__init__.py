"""Animatable, 3D-aware head avatars: neural textures drawn on a head mesh, rendered through tri-planes.

The names below are the whole public surface; they are imported on first use, so that ``import next3d`` is quick.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# On Linux, torch then puts large tensors on large memory pages, which saves a CPU frame some five per cent.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

_PUBLIC = {
    "load": "next3d.generator.model",
    "Generator": "next3d.generator.generator",
    "GeneratorConfig": "next3d.generator.config",
    "Camera": "next3d.geometry.cameras",
    "HeadParams": "next3d.heads.params",
    "Motion": "next3d.heads.params",
    "HeadModel": "next3d.heads.head_model",
    "Avatar": "next3d.avatar",
    "InputError": "next3d.errors",
}

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from next3d.avatar import Avatar as Avatar
    from next3d.errors import InputError as InputError
    from next3d.generator.config import GeneratorConfig as GeneratorConfig
    from next3d.generator.generator import Generator as Generator
    from next3d.generator.model import load as load
    from next3d.geometry.cameras import Camera as Camera
    from next3d.heads.head_model import HeadModel as HeadModel
    from next3d.heads.params import HeadParams as HeadParams
    from next3d.heads.params import Motion as Motion


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'next3d' has no attribute '{name}'")
