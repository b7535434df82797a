"""Builds the built-in head's asset from formulas:  ``python -m next3d.heads.builtin.build``  (some minutes).

Sculpt (:mod:`.sculpt`), UVs (:mod:`.atlas`) and rig (:mod:`.rig`) become ``head.safetensors`` beside this file.
Directions are stored in half precision, good to some micrometres.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from next3d.heads import BUILTIN
from next3d.heads.head_model import HeadModel
from next3d.io.files import atomic_path

from . import rig
from .atlas import atlas
from .sculpt import sculpt


def build() -> dict[str, Any]:
    """All arrays of the head, as :mod:`next3d.heads.head_model` lists them."""
    form = sculpt()
    uvs, uv_faces, mask = atlas(form)
    arrays = rig.build(form.anatomy())
    return arrays | {
        "uvs": uvs.astype(np.float32),
        "uv_faces": uv_faces.astype(np.int32),
        "face_mask": (mask * 255).round().astype(np.uint8),
    }


def main() -> None:
    arrays = build()
    HeadModel.from_arrays(arrays, name="builtin")  # checks names, shapes and indices
    for key in arrays:
        if key.endswith("_directions"):
            arrays[key] = arrays[key].astype(np.float16)
    metadata = {
        "name": "builtin",
        "shape_names": json.dumps(rig.SHAPE_NAMES),
        "expression_names": json.dumps(rig.EXPRESSION_NAMES),
    }
    with atomic_path(BUILTIN) as temporary:
        save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, temporary, metadata)
    print(f"wrote {BUILTIN.name}: {len(arrays['template'])} vertices, {len(arrays['faces'])} faces")


if __name__ == "__main__":
    main()
