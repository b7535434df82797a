"""Table 2's variants: each differs in one thing; all are trained, evaluated, tabled, drawn; interrupted runs go on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from next3d.data.dataset import Dataset
from next3d.data.writer import DatasetWriter
from next3d.errors import InputError
from next3d.geometry.cameras import Camera
from next3d.heads import HeadParams
from next3d.metrics.ablation import VARIANTS, ablate, chosen
from next3d.metrics.protocol import Counts, Readers
from next3d.training.presets import preset
from test_metrics import FlatReader


def test_every_variant_changes_one_thing() -> None:
    config = preset("tiny")
    changed = {variant.name: variant.change(config) for variant in VARIANTS}
    assert changed["full"] == config
    assert not changed["no-static"].generator.static.enabled
    assert changed["mouth-static"].generator.mouth.source == "static"
    assert changed["mouth-texture"].generator.mouth.source == "texture"
    assert changed["no-rendering"].discriminator.image_channels == 6
    assert changed["parameters"].discriminator.label_size == 25 + 62
    for name in ("no-static", "mouth-static", "mouth-texture"):
        assert changed[name].discriminator == config.discriminator
    for name in ("no-rendering", "parameters"):
        assert changed[name].generator == config.generator
    with pytest.raises(InputError, match="no variant 'teeth'"):
        chosen(["teeth"])


@pytest.mark.slow
def test_variants_are_trained_compared_and_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    config = preset("tiny")
    size = config.generator.superres.resolution
    writer = DatasetWriter(tmp_path / "ds", resolution=size, head="builtin")
    rng = np.random.default_rng(0)
    for i in range(40):
        picture = rng.integers(0, 255, (size, size, 3), np.uint8)
        writer.add(i, picture, Camera.orbit(0.2 * rng.normal()), HeadParams(), split="test" if i % 4 == 0 else "train")
    writer.finish()
    assert len(Dataset(tmp_path / "ds", "test")) == 10

    from dataclasses import replace

    config = replace(config, total_steps=2, batch=4, checkpoint_every=1)
    readers = Readers(FlatReader(), FlatReader(), FlatReader())
    variants = chosen(["full", "no-static", "parameters"])
    counts = Counts(pictures=6, identities=2, poses=2, pairs=2)
    out = tmp_path / "out"
    results = ablate(config, tmp_path / "ds", out, readers, variants=variants, counts=counts)
    assert set(results) == {"full", "no-static", "parameters"}
    table = (out / "table.md").read_text()
    assert "w/o static planes" in table
    assert "2 steps of 4 pictures" in table
    assert (out / "curves.png").stat().st_size > 1000
    assert (out / "grid.png").stat().st_size > 1000

    # Called again, nothing is trained anew: the second call must not need a trainer.
    monkeypatch.setattr("next3d.training.trainer.Trainer.run", lambda self: pytest.fail("trained again"))
    again = ablate(config, tmp_path / "ds", out, readers, variants=variants, counts=counts)
    assert again == results
