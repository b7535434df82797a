"""Checkpoints: a folder of safetensors and JSON each, written atomically, verified by checksum, the last few kept."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from next3d.errors import InputError
from next3d.io.files import atomic_folder, sha256

VERSION = 1
TENSORS, STATE = "state.safetensors", "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """What one checkpoint holds: every tensor by name, and everything else as JSON."""

    path: Path
    tensors: dict[str, Tensor]
    state: dict[str, Any]


def save(folder: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any], keep: int) -> Path:
    """Write ``folder/step-XXXXXXXX`` and remove all but the last ``keep`` checkpoints."""
    path = folder / f"step-{step:08d}"
    with atomic_folder(path) as temporary:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, temporary / TENSORS)
        record = {"version": VERSION, "step": step, "sha256": sha256(temporary / TENSORS), **state}
        (temporary / STATE).write_text(json.dumps(record, indent=1))
    for old in available(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def available(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-????????"))


def load(path: Path) -> Checkpoint:
    """Read one checkpoint; raise :class:`InputError` naming what is wrong with it."""
    try:
        state = json.loads((path / STATE).read_text())
        version = state["version"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"checkpoint {path} is damaged: its {STATE} cannot be read") from None
    if version != VERSION:
        raise WrongVersion(
            f"checkpoint {path} has format version {version}, this program reads version {VERSION}: "
            "resume it with the version that wrote it, or start anew with --init"
        )
    try:
        if sha256(path / TENSORS) != state["sha256"]:
            raise InputError(f"checkpoint {path} is damaged: the checksum of {TENSORS} differs")
        return Checkpoint(path, load_file(path / TENSORS), state)
    except (OSError, SafetensorError, KeyError):
        raise InputError(f"checkpoint {path} is damaged: its {TENSORS} cannot be read") from None


class WrongVersion(InputError):
    """A checkpoint of another format version: no older one of the same run would help."""


def load_newest(folder: Path) -> Checkpoint | None:
    """The newest sound checkpoint, or None if there is none; a damaged one is named and passed over."""
    paths = available(folder)
    for path in reversed(paths):
        try:
            return load(path)
        except WrongVersion:
            raise
        except InputError as error:
            print(f"next3d: {error}; going back to the one before it", file=sys.stderr)
    if paths:
        raise InputError(f"every checkpoint in {folder} is damaged: start anew in another folder, or with --init")
    return None


# Flat names for everything that a run is made of.


def module_tensors(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a module, non-persistent ones left out, under ``prefix.``."""
    return {f"{prefix}.{name}": tensor for name, tensor in module.state_dict().items()}


def load_module(prefix: str, module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """The inverse of :func:`module_tensors`; every key and shape must match."""
    own = {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}
    expected = module.state_dict()
    missing, extra = sorted(expected.keys() - own.keys()), sorted(own.keys() - expected.keys())
    shapes = [name for name in expected.keys() & own.keys() if expected[name].shape != own[name].shape]
    if missing or extra or shapes:
        problem = (
            f"missing {missing[:3]}" if missing else f"unknown {extra[:3]}" if extra else f"other shapes {shapes[:3]}"
        )
        raise InputError(f"the checkpoint's {prefix} does not fit the configured network: {problem}")
    module.load_state_dict(own)


def optimizer_tensors(prefix: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimiser as flat tensors ``prefix.<parameter number>.<entry>``."""
    return {
        f"{prefix}.{number}.{entry}": torch.as_tensor(value)
        for number, entries in optimizer.state_dict()["state"].items()
        for entry, value in entries.items()
        if value is not None
    }


def load_optimizer(prefix: str, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of :func:`optimizer_tensors`; the parameter groups stay as constructed."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(f"{prefix}."):
            number, entry = name.removeprefix(f"{prefix}.").split(".", 1)
            state.setdefault(int(number), {})[entry] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
