"""Weights from elsewhere: another run, or a model folder (converted EG3D and Next3D models among them)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from next3d.errors import InputError
from next3d.training import checkpoints

TOPOLOGY = ("faces", "uv_faces", "uvs", "face_mask")  # buffers that belong to the head, not to what was learned


def read_weights(source: Path) -> dict[str, dict[str, Tensor]]:
    """Weights by network: of a run's newest checkpoint (averaged generator, discriminator), or of a model folder."""
    if (source / "checkpoints").is_dir():
        saved = checkpoints.load_newest(source / "checkpoints")
        if saved is None:
            raise InputError(f"--init {source}: that run has no checkpoint yet")
        names = {"generator": "ema.", "discriminator": "discriminator."}
        return {
            name: {key.removeprefix(prefix): t for key, t in saved.tensors.items() if key.startswith(prefix)}
            for name, prefix in names.items()
        }
    path = source / "model.safetensors"
    if not path.is_file():
        raise InputError(f"--init {source} is neither a run's folder (checkpoints/) nor a model's (model.safetensors)")
    try:
        return {"generator": load_file(path)}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def take(module: nn.Module, weights: dict[str, Tensor], name: str, show: bool) -> dict[str, Any]:
    """Copy every tensor whose name and shape agree; tell what was taken, what was not, and why.

    Raises:
        InputError: if nothing at all agrees.
    """
    own = {key: t for key, t in module.state_dict().items() if key.rsplit(".", 1)[-1] not in TOPOLOGY}
    weights = {key: t for key, t in weights.items() if key.rsplit(".", 1)[-1] not in TOPOLOGY}
    fits = {key for key in own.keys() & weights.keys() if own[key].shape == weights[key].shape}
    if not fits:
        raise InputError(
            f"--init: no tensor of the {name} has the name and shape of one given: another kind of network?"
        )
    with torch.no_grad():
        for key in fits:
            own[key].copy_(weights[key])
    reshaped = sorted((own.keys() & weights.keys()) - fits)
    absent = sorted(own.keys() - weights.keys())
    unused = sorted(weights.keys() - own.keys())
    parts: dict[str, list[int]] = {}
    for key in own:
        count = parts.setdefault(key.split(".")[0], [0, 0])
        count[0] += key in fits
        count[1] += 1
    if show:
        print(f"next3d: warm start of the {name}: {len(fits)} of {len(own)} tensors taken", file=sys.stderr)
        for key, (got, total) in sorted(parts.items()):
            print(f"  {key:<24}{got:>5} of {total}", file=sys.stderr)
        for what, keys in (("another shape", reshaped), ("not in the source", absent), ("not used", unused)):
            if keys:
                print(
                    f"  {what}: {', '.join(keys[:4])}{f' and {len(keys) - 4} more' if len(keys) > 4 else ''}",
                    file=sys.stderr,
                )
    return {"taken": len(fits), "of": len(own), "other_shape": reshaped, "missing": absent, "unused": unused}
