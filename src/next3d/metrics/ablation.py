"""The paper's ablations (§4.2, Table 2; A.1): train the variants alike, evaluate them alike, write the table.

Each variant differs from the full model in one setting alone; data, seed, steps and everything else are the same.
Numbers are reported as they come out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from next3d.data.dataset import Dataset, open_dataset
from next3d.errors import InputError
from next3d.generator.model import load
from next3d.geometry.cameras import Camera
from next3d.heads import load_head
from next3d.io.files import check_folder, write_text
from next3d.io.images import contact_sheet, to_uint8, write_image
from next3d.metrics import protocol, report
from next3d.metrics.sources import ModelSource
from next3d.training.adversarial import HEAD_LABEL
from next3d.training.config import TrainingConfig

LABEL_NOISE = 0.5  # on the head parameters shown to the discriminator, after GNARF (paper, A.1)


def without_static(config: TrainingConfig) -> TrainingConfig:
    return replace(config, generator=config.generator.replace(static={"enabled": False}))


def mouth_from_static(config: TrainingConfig) -> TrainingConfig:
    return replace(config, generator=config.generator.replace(mouth={"source": "static"}))


def mouth_from_texture(config: TrainingConfig) -> TrainingConfig:
    return replace(config, generator=config.generator.replace(mouth={"source": "texture"}))


def without_rendering(config: TrainingConfig) -> TrainingConfig:
    return replace(config, discriminator=replace(config.discriminator, synthetic_rendering=False))


def conditioned_on_parameters(config: TrainingConfig) -> TrainingConfig:
    discriminator = replace(
        config.discriminator, synthetic_rendering=False, head_size=HEAD_LABEL, label_noise=LABEL_NOISE
    )
    return replace(config, discriminator=discriminator)


@dataclass(frozen=True)
class Variant:
    """One row of the table: its folder's name, what it is, and how its settings differ from the full model's."""

    name: str
    title: str
    change: Callable[[TrainingConfig], TrainingConfig]


VARIANTS = (
    Variant("full", "full model", lambda config: config),
    Variant("no-static", "w/o static planes", without_static),
    Variant("mouth-static", "mouth from the static planes", mouth_from_static),
    Variant("mouth-texture", "mouth from the neural texture", mouth_from_texture),
    Variant("no-rendering", "w/o synthetic rendering", without_rendering),
    Variant("parameters", "discriminator sees head parameters instead (A.1)", conditioned_on_parameters),
)


def chosen(names: Sequence[str]) -> list[Variant]:
    """Variants by name; all of them for none."""
    known = {variant.name: variant for variant in VARIANTS}
    for name in names:
        if name not in known:
            raise InputError(f"there is no variant '{name}': choose from {', '.join(known)}")
    return [known[name] for name in names] or list(VARIANTS)


def ablate(
    config: TrainingConfig,
    data: Path,
    out: Path,
    readers: protocol.Readers,
    *,
    variants: Sequence[Variant] = VARIANTS,
    counts: protocol.Counts = protocol.PAPER,
    metrics: Sequence[str] = protocol.METRICS,
    head: str = "builtin",
    init: Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Train every variant, or go on where an interrupted call was, and compare them.

    Args:
        config: of the full model; its ``total_steps`` is each variant's budget.
        out: gets a run's folder and a model folder per variant, table.md, results.json, curves.png and grid.png.
        init: weights to start every variant from, where they fit (a warm start).

    Returns:
        results.json's value: variant → report.
    """
    from next3d.training.export import export
    from next3d.training.trainer import Trainer

    check_folder(out)
    for variant in variants:
        run, model = out / variant.name, out / f"{variant.name}-model"
        if model.is_dir():
            continue
        reconstruct = config.stage == "reconstruct"
        columns = ("latent", "identity") if reconstruct else ()
        trainer = Trainer(
            variant.change(config),
            open_dataset(data, "train", aux=reconstruct, columns=columns),
            load_head(head),
            run,
            resume=(run / "config.json").is_file(),
            init=init,
            description={"data": str(data), "variant": variant.title, "head": head},
        )
        stopped = trainer.run()
        if stopped is not None:
            raise KeyboardInterrupt
        export(run, model)

    results: dict[str, Any] = {}
    dataset = Dataset(data, "test")
    for variant in variants:
        path = out / f"{variant.name}-report.json"
        if path.is_file():
            results[variant.name] = json.loads(path.read_text())
            continue
        network = load(out / f"{variant.name}-model")
        if head != "builtin":
            network.use_head(load_head(head))
        source = ModelSource(network, name=variant.title)
        results[variant.name] = protocol.evaluate(
            source, dataset, readers, metrics=metrics, counts=counts, seed=seed, cache=check_folder(out / "cache")
        )
        write_text(path, protocol.as_json(results[variant.name]))
    floors = protocol.floors(dataset, readers, metrics=metrics)
    write_text(out / "results.json", protocol.as_json({"variants": results, "real pictures": floors}))
    write_text(out / "table.md", table(config, variants, results, floors))
    write_image(out / "curves.png", curves(out, variants))
    write_image(out / "grid.png", grid(out, variants, head))
    return results


def table(config: TrainingConfig, variants: Sequence[Variant], results: dict[str, Any], floors: dict[str, Any]) -> str:
    """Markdown: a row per variant, a column per metric, the budget above, the floors below."""
    names = list(next(iter(results.values()))["results"])
    counts = next(iter(results.values()))["counts"]
    lines = [
        f"Each variant: stage {config.stage}, {config.total_steps:,} steps of {config.batch} pictures, "
        f"seed {config.seed}; "
        f"evaluated with {counts['pictures']:,} pictures, {counts['identities']} × {counts['poses']} poses, "
        f"{counts['pairs']} pairs.",
        "",
        "| variant | " + " | ".join(names) + " |",
        "| --- |" + " --- |" * len(names),
    ]
    for variant in variants:
        values = results[variant.name]["results"]
        lines.append(f"| {variant.title} | " + " | ".join(report.text(values[name]) for name in names) + " |")
    lines.append("| *real pictures* | " + " | ".join(report.text(floors.get(name)) for name in names) + " |")
    return "\n".join(lines) + "\n"


COLOURS = ((34, 87, 160), (200, 80, 40), (60, 140, 70), (150, 80, 160), (120, 110, 40), (40, 140, 150))


def curves(out: Path, variants: Sequence[Variant], size: tuple[int, int] = (900, 420)) -> np.ndarray:
    """The first loss that all runs log, over the steps, one line per variant; uint8 (H, W, 3)."""
    logs = {}
    for variant in variants:
        lines = (out / variant.name / "metrics.jsonl").read_text().splitlines()
        logs[variant.name] = [json.loads(line) for line in lines]
    shared = set.intersection(*(set().union(*log) for log in logs.values() if log)) - {
        "step",
        "images",
        "learning_rate",
    }
    name = next(
        (n for n in ("loss", "discriminator_loss", "generator_loss") if n in shared), min(shared, default="loss")
    )
    series = {
        key: [(row["step"], row[name]) for row in log if np.isfinite(row.get(name, np.nan))]
        for key, log in logs.items()
    }
    width, height = size
    image = Image.new("RGB", size, (255, 255, 255))
    draw = ImageDraw.Draw(image)
    every = [point for points in series.values() for point in points]
    if not every:
        return np.asarray(image)
    right = max(step for step, _ in every)
    low, high = min(v for _, v in every), max(v for _, v in every)
    frame = (60, 30, width - 20, height - 40)

    def place(step: float, value: float) -> tuple[float, float]:
        x = frame[0] + (frame[2] - frame[0]) * step / max(right, 1)
        y = frame[3] - (frame[3] - frame[1]) * (value - low) / max(high - low, 1e-9)
        return x, y

    draw.rectangle(frame, outline=(200, 200, 200))
    draw.text((frame[0], 8), f"{name} over steps", fill=(0, 0, 0))
    draw.text((8, frame[1]), f"{high:.3g}", fill=(90, 90, 90))
    draw.text((8, frame[3] - 12), f"{low:.3g}", fill=(90, 90, 90))
    draw.text((frame[2] - 60, frame[3] + 6), f"{right:,}", fill=(90, 90, 90))
    for index, variant in enumerate(variants):
        colour = COLOURS[index % len(COLOURS)]
        points = [place(*point) for point in series[variant.name]]
        if len(points) > 1:
            draw.line(points, fill=colour, width=2)
        draw.text((frame[2] - 330, frame[1] + 8 + 16 * index), variant.title, fill=colour)
    return np.asarray(image)


@torch.no_grad()
def grid(out: Path, variants: Sequence[Variant], head: str, seeds: Sequence[int] = (0, 1, 2)) -> np.ndarray:
    """The same seeds at rest, turned, with an open mouth and with closed eyes, a row per variant."""
    pictures: list[np.ndarray] = []
    labels: list[str] = []
    for variant in variants:
        model = load(out / f"{variant.name}-model")
        driver = load_head(head)
        model.use_head(driver)
        for seed in seeds:
            avatar = model.sample(seed)
            for params, yaw in (
                ({}, 0.0),
                ({}, 0.6),
                ({"jawOpen": 0.8}, 0.0),
                ({"eyeBlinkLeft": 1, "eyeBlinkRight": 1}, 0.0),
            ):
                frame = avatar.render(driver.params(**params), Camera.orbit(yaw))
                pictures.append(to_uint8(frame.image))
                labels.append(variant.name if len(labels) % (4 * len(seeds)) == 0 else "")
    return contact_sheet(pictures, columns=4 * len(seeds), labels=labels)
