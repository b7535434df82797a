"""How well inversion recovers known heads: ``python -m next3d.editing.recovery --out recovery.json``.

Two questions. Pictures that the model made itself: is the photo matched, and does the avatar, driven by expressions and
views that inversion never saw, look like the true identity? And pictures of the factory, whose people the model never
saw: the same, with the likeness of identity. Every head is reported.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from next3d.avatar import Avatar
from next3d.bench import peak_memory
from next3d.data.synthesis.factory import Recipe
from next3d.data.synthesis.poses import Pose, draw_pose
from next3d.data.synthesis.render import render, shape
from next3d.editing.inversion import InversionSettings, head_of, invert
from next3d.editing.photos import open_loss
from next3d.editing.preview import sheet
from next3d.errors import InputError
from next3d.generator.generator import Generator
from next3d.io.files import check_writable, write_text
from next3d.io.images import from_uint8, write_image
from next3d.metrics.pixels import psnr

FACTORY_SEED = 424_242  # of people and poses that no training set draws


@dataclass(frozen=True)
class Case:
    """A person with one photo and held-out pictures.

    Attributes:
        name: of the person
        shape: (100,)
        photo: (3, R, R) in [−1, 1], and its pose
        held_out: pictures of the same person, with their poses
    """

    name: str
    shape: Tensor
    photo: tuple[Tensor, Pose]
    held_out: list[tuple[Tensor, Pose]]


def own_cases(model: Generator, numbers: Sequence[int], views: int, truncation: float = 0.7) -> list[Case]:
    """The model's own heads, by seed."""
    head = head_of(model)
    if head is None:
        raise InputError("this measure drives heads, and the model has none")
    cases = []
    for seed in numbers:
        avatar, random = model.sample(seed, truncation=truncation), np.random.default_rng(seed)
        poses = [draw_pose(random, head) for _ in range(views + 1)]
        shown = [(avatar.render(pose.params, pose.camera).image.cpu(), pose) for pose in poses]
        cases.append(Case(f"seed {seed}", avatar.shape.cpu(), shown[0], shown[1:]))
    return cases


def factory_cases(model: Generator, numbers: Sequence[int], views: int) -> list[Case]:
    """People of the picture factory that no training picture shows, by number."""
    head, recipe, cases = head_of(model), Recipe(seed=FACTORY_SEED), []
    if head is None or model.config.head != "builtin":
        raise InputError("the factory draws the built-in head, and this model is driven by another")
    for number in numbers:
        latent, random = recipe.latent(number), np.random.default_rng((FACTORY_SEED, number))
        shown = []
        for _ in range(views + 1):
            pose = draw_pose(random, head)
            picture = render(latent, pose.params, pose.camera, model.config.superres.resolution)
            shown.append((from_uint8(picture.image), pose))
        cases.append(Case(f"person {number}", shape(latent), shown[0], shown[1:]))
    return cases


def measure(
    model: Generator, case: Case, settings: InversionSettings, pixels_only: bool = False
) -> tuple[dict[str, Any], list[Tensor]]:
    """One case: PSNR of photo and held-out pictures by pivot and tuned avatar, likeness, time; and pictures."""
    loss, encoder = open_loss(settings, None if pixels_only else (), model.device)
    photo, pose = case.photo
    began, processor = time.monotonic(), time.process_time()
    params = pose.params.replace(shape=case.shape)
    result = invert(photo[None], pose.camera, params, model, settings, loss=loss, encoder=encoder)
    taken, processor = time.monotonic() - began, time.process_time() - processor
    pivot = Avatar(model, result.avatar.ws, result.avatar.shape)
    rows: dict[str, list[float]] = {"pivot": [], "tuned": [], "likeness": []}
    shown = [photo, result.pivot_pictures[0], result.pictures[0]]
    for true, other in case.held_out:
        for name, avatar in (("pivot", pivot), ("tuned", result.avatar)):
            mine = avatar.render(other.params, other.camera).image.cpu()
            rows[name].append(float(psnr(mine, true)))
        if encoder is not None:
            both = encoder.embed(torch.stack([mine, true]).to(model.device))
            rows["likeness"].append(float(both[0] @ both[1]))
    shown += [case.held_out[-1][0], mine]
    numbers: dict[str, Any] = {
        "name": case.name,
        "photo_pivot_db": result.pivot_psnr,
        "photo_tuned_db": result.psnr,
        "held_out_pivot_db": float(np.mean(rows["pivot"])),
        "held_out_tuned_db": float(np.mean(rows["tuned"])),
        "steps": {stage: len(curve) for stage, curve in result.curves.items()},
        "seconds": taken,
        "processor_seconds": processor,
    }
    if encoder is not None:
        tuned = encoder.embed(torch.stack([result.pictures[0], photo]).to(model.device))
        numbers["photo_likeness"] = float(tuned[0] @ tuned[1])
        numbers["held_out_likeness"] = float(np.mean(rows["likeness"]))
    return numbers, shown


def report(
    model: Generator,
    kinds: Sequence[str],
    numbers: Sequence[int],
    views: int,
    settings: InversionSettings,
    pixels_only: bool = False,
) -> tuple[dict[str, Any], dict[str, list[Tensor]]]:
    """All cases of each kind ("own", "factory") with their means; and pictures by kind."""
    found: dict[str, Any] = {"settings": dataclasses.asdict(settings), "views": views, "pixels_only": pixels_only}
    pictures: dict[str, list[Tensor]] = {}
    for kind in kinds:
        cases = own_cases(model, numbers, views) if kind == "own" else factory_cases(model, numbers, views)
        rows = []
        for case in tqdm(cases, desc=kind, unit="head"):
            row, shown = measure(model, case, settings, pixels_only)
            rows.append(row)
            pictures.setdefault(kind, []).extend(shown)
        columns = [key for key, value in rows[0].items() if isinstance(value, float)]
        found[kind] = {"mean": {key: float(np.mean([row[key] for row in rows])) for key in columns}, "heads": rows}
    peak = peak_memory(model.device)
    found["peak_memory_mib"] = None if peak is None else round(peak * 1024)
    return found, pictures


def main(
    out: Path = Path("recovery.json"),
    model: str = "demo",
    kinds: tuple[str, ...] = ("own", "factory"),
    identities: int = 20,
    first: int = 0,
    views: int = 8,
    steps: tuple[int, int] = (450, 500),
    stop_at: float | None = None,
    pixels_only: bool = False,
    device: str = "auto",
    threads: int | None = None,
) -> None:
    """Invert one picture of each of some heads, and compare what was not shown.

    Args:
        out: the numbers (.json); pictures go beside it (photo, inversion, tuned, held-out truth, held-out tuned).
        model: the generator.
        kinds: own: the model's own heads; factory: people of the picture factory that it never saw.
        identities: heads of each kind.
        first: number of the first of them, so that processes can share the work.
        views: held-out expressions and views of each.
        steps: of the latent, and of the weights.
        stop_at: stop tuning when the photo is matched to so many dB.
        pixels_only: compare without perceptual features.
        device: auto, cpu or cuda.
        threads: processor cores to use.
    """
    from next3d.cli.common import open_model, use_threads

    check_writable(out)
    if set(kinds) - {"own", "factory"}:
        raise InputError("--kinds are own and factory")
    use_threads(threads)
    settings = InversionSettings(latent_steps=steps[0], weight_steps=steps[1], target_psnr=stop_at)
    numbers = range(first, first + identities)
    found, pictures = report(open_model(model, device), kinds, numbers, views, settings, pixels_only)
    write_text(out, json.dumps({"model": model, **found}, indent=2) + "\n")
    for kind, shown in pictures.items():
        labels = ["photo", "inversion", "tuned", "held out", "tuned there"] * (len(shown) // 5)
        write_image(out.with_name(f"{out.stem}.{kind}.png"), sheet(shown, labels))
        print(kind, json.dumps({key: round(value, 2) for key, value in found[kind]["mean"].items()}))


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
