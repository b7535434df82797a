"""A run's averaged generator as a model folder that ``next3d.load`` and the Hugging Face hub read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from next3d.errors import InputError
from next3d.generator.generator import Generator
from next3d.generator.pretrained import CARD
from next3d.heads import load_head
from next3d.io.files import check_folder, write_text
from next3d.training import checkpoints
from next3d.training.run_folder import RunFolder, read_config


def export(run: str | Path, folder: str | Path, *, half: bool = True) -> Path:
    """Write the averaged generator of a run's newest sound checkpoint.

    Args:
        run: the run's folder.
        folder: the model folder; a new one appears whole or not at all.
        half: store the weights in float16, which halves the file; they are read back as float32.

    Raises:
        InputError: no such run, no checkpoint in it, or a folder that cannot be written.
    """
    source, folder = RunFolder(run, writing=False), Path(folder)
    if not source.exists:
        raise InputError(f"{run} holds no run: give the --out folder of  next3d train")
    check_folder(folder.parent)
    config = read_config(run)
    saved = checkpoints.load_newest(source.checkpoints)
    if saved is None:
        raise InputError(f"{run} has no checkpoint yet: train it first")
    facts = source.read_json("run.json")
    model = Generator(config.generator, load_head(facts.get("head", "builtin")).topology)
    checkpoints.load_module("ema", model, saved.tensors)
    if half:
        for parameter in model.parameters():  # buffers stay: UVs need their precision
            parameter.data = parameter.data.half()
    model.eval().save_pretrained(folder)
    launches = source.read_json("environment.json")["launches"]
    write_text(folder / CARD, model_card(config, facts, launches, saved.state, model))
    return folder


def model_card(
    config: Any, facts: dict[str, Any], launches: list[dict[str, Any]], state: dict[str, Any], model: torch.nn.Module
) -> str:
    """What is known about a run, in the form that the Hugging Face hub shows; to be completed by who publishes it."""
    machine = launches[-1]
    seconds = state.get("seconds", 0.0)
    hardware = (
        ", ".join(machine["gpus"]) or f"{machine['cores']} cores ({machine['processor']}), {machine['threads']} threads"
    )
    size = sum(p.numel() for p in model.parameters()) / 1e6
    rows = {
        "data": json.dumps(facts.get("dataset", {"folder": facts.get("data")})),
        "stage": config.stage,
        "steps": state["step"],
        "pictures shown": state["images"],
        "batch": config.batch,
        "time": f"{seconds / 3600:.2f} hours of wall-clock time in {len(launches)} launches",
        "hardware": f"{hardware}; {machine['platform']}; PyTorch {machine['torch']}",
        "precision": config.precision,
        "parameters": f"{size:.2f} million",
        "warm start": facts.get("init") or "none",
        "next3d": f"{machine['next3d']} (git {machine['git_revision'] or 'unknown'})",
        "licence": "Apache-2.0",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return (
        "---\nlibrary_name: next3d\nlicense: apache-2.0\n---\n\n# An animatable head generator\n\n"
        'Load it with `next3d.load("folder or organisation/name")`.\n\n'
        f"| fact | value |\n| --- | --- |\n{table}\n"
    )
