"""``next3d.load``: a model by name, whatever kind of name it is."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from next3d.errors import InputError
from next3d.generator.generator import Generator
from next3d.generator.presets import preset
from next3d.generator.pretrained import read_folder
from next3d.heads import load_head

DEMO = Path(__file__).parent.parent / "assets" / "demo"
UNTRAINED = "untrained:"
DEMO_PRESET = "synthetic128"  # what stands in while no trained model is bundled


def load(name: str | Path = "demo", *, device: torch.device | str = "cpu", seed: int = 0) -> Generator:
    """A generator in evaluation mode, with its head model at ``.head`` where that is at hand.

    Args:
        name: "demo" (bundled), a model folder, "organisation/name" on the Hugging Face hub, or "untrained:PRESET" for
            seeded random weights on the built-in head's mesh
        device: where to put it
        seed: of an untrained model

    Raises:
        InputError: no such model, or one that is damaged
    """
    if str(name) == "demo":
        model = demo(seed)
    elif str(name).startswith(UNTRAINED):
        model = untrained(str(name).removeprefix(UNTRAINED), seed)
    elif Path(name).is_dir():
        model = read_folder(Path(name))
    else:
        if Path(name).exists():
            raise InputError(
                f"{name} is a file: a model is a folder (next3d convert makes one of a released checkpoint)"
            )
        model = Generator.from_pretrained(str(name))
    return model.to(device)


def demo(seed: int = 0) -> Generator:
    """The bundled model."""
    if DEMO.is_dir():
        return read_folder(DEMO)
    warnings.warn(
        f"no trained model is bundled with this installation: drawing with {UNTRAINED}{DEMO_PRESET}, whose weights are "
        "random, so that the pictures are not faces",
        stacklevel=3,
    )
    return untrained(DEMO_PRESET, seed)


def untrained(name: str, seed: int = 0) -> Generator:
    """A preset's model with random weights, the same for the same seed, on the built-in head's mesh."""
    config = preset(name)
    topology = load_head(config.head).topology if config.planes.enabled else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Generator(config, topology).eval()
