"""``next3d ablate``: the paper's Table 2 on your data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path


def ablate(
    data: Path,
    out: Path,
    steps: int,
    preset: str = "synthetic128",
    stage: str = "adversarial",
    variants: str = "",
    init: Path | None = None,
    batch: int | None = None,
    seed: int = 0,
    metrics: str = "fid,kid,aed,apd,id",
    pictures: int = 2_000,
    identities: int = 50,
    poses: int = 10,
    pairs: int = 100,
    head: str = "builtin",
) -> None:
    """Train the variants of the paper's Table 2 alike, evaluate them alike, and write the table.

    Interrupted, it goes on where it was when run again. A small budget says little about the paper's ordering; the
    table states the budget.

    Args:
        data: a dataset with a test split.
        out: the folder for runs, models, table.md, results.json, curves.png and grid.png.
        steps: training steps of each variant.
        preset: the full model's settings.
        stage: "adversarial", or "reconstruct" (the discriminator's variants then equal the full model).
        variants: some of full, no-static, mouth-static, mouth-texture, no-rendering, parameters, separated by commas;
            all by default.
        init: start every variant from these weights, where they fit.
        batch: pictures per step; the preset's by default.
        seed: of training and evaluation.
        metrics: which, separated by commas.
        pictures: generated pictures for FID and KID.
        identities: heads for AED and APD.
        poses: expressions and cameras of each.
        pairs: identities whose two pictures ID compares.
        head: "builtin", or a FLAME file or folder.
    """
    from next3d.errors import InputError
    from next3d.metrics import protocol, readers
    from next3d.metrics.ablation import ablate as run
    from next3d.metrics.ablation import chosen
    from next3d.training.presets import preset as training_preset

    if stage not in ("adversarial", "reconstruct"):
        raise InputError(f"--stage is adversarial or reconstruct, got '{stage}'")
    config = training_preset(preset)
    config = replace(
        config,
        total_steps=steps,
        seed=seed,
        stage=stage,  # type: ignore[arg-type]
        batch=batch or config.batch,
        checkpoint_every=min(config.checkpoint_every, max(1, steps // 4)),
        sample_every=max(1, steps),
        log_every=max(1, min(config.log_every, steps // 10)),
    )
    estimators = protocol.Readers(readers.BundledFeatures(), readers.BundledMotion(), readers.BundledIdentity())
    run(
        config,
        data,
        out,
        estimators,
        variants=chosen([name.strip() for name in variants.split(",") if name.strip()]),
        counts=protocol.Counts(pictures, identities, poses, pairs),
        metrics=[name.strip() for name in metrics.split(",") if name.strip()],
        head=head,
        init=init,
        seed=seed,
    )
    print((out / "table.md").read_text())
    print(f"{out / 'table.md'}\n{out / 'curves.png'}\n{out / 'grid.png'}")
