"""Parametric heads: the built-in one and FLAME's, their parameters, and motions."""

from __future__ import annotations

from pathlib import Path

from next3d.errors import InputError
from next3d.heads.head_model import HeadMesh, HeadModel
from next3d.heads.params import HeadParams, Motion

__all__ = ["HeadMesh", "HeadModel", "HeadParams", "Motion", "load_head"]

BUILTIN = Path(__file__).parent / "builtin" / "head.safetensors"


def load_head(name: str | Path = "builtin") -> HeadModel:
    """A head model: ``"builtin"``, a head file (``.safetensors``), or a FLAME file or folder.

    Raises:
        InputError: nothing of that name, or a file that is no head.
    """
    if str(name) == "builtin":
        return HeadModel.load(BUILTIN)
    path = Path(name)
    if not path.exists():
        raise InputError(f"there is no head model '{name}': give 'builtin' or a FLAME file or folder")
    if path.suffix == ".safetensors":
        return HeadModel.load(path)
    from next3d.heads.flame import load_flame

    return load_flame(path)
