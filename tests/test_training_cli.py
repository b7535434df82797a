"""``next3d train`` and ``next3d bench train`` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import next3d
from next3d.cli.main import main
from next3d.data.writer import DatasetWriter
from next3d.errors import InputError
from next3d.generator.config import build
from next3d.geometry.cameras import Camera
from next3d.heads import HeadParams
from next3d.training.config import TrainingConfig
from next3d.training.presets import PRESETS, preset
from next3d.training.run_folder import read_config


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "noise"
    writer = DatasetWriter(folder, resolution=32, head="builtin")
    for index in range(8):
        picture = np.random.default_rng(index).integers(0, 255, (32, 32, 3)).astype(np.uint8)
        writer.add(index, picture, Camera.orbit(0.1 * index), HeadParams(), split="train")
    writer.finish(8)
    return folder


def refused(arguments: list[str], capsys: pytest.CaptureFixture) -> str:
    with pytest.raises(SystemExit) as ending:
        main(arguments)
    assert ending.value.code == 2
    return capsys.readouterr().err + capsys.readouterr().out


def test_train_resume_export_and_load(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    out = str(tmp_path / "run")
    tiny = ["--preset", "tiny", "--data", str(dataset), "--out", out, "--generator.volume.samples", "5"]
    main(["train", *tiny, "--total-steps", "2", "--checkpoint-every", "1"])
    config = read_config(out)
    assert (config.total_steps, config.generator.volume.samples) == (2, 5)
    assert "img/s" in capsys.readouterr().err  # the live line
    main(["train", "--out", out, "--resume", "--total-steps", "3"])  # its own settings and data, but for one
    assert read_config(out).generator.volume.samples == 5
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]
    main(["train", "--out", out, "--export", str(tmp_path / "model")])
    model = next3d.load(tmp_path / "model")
    assert model.config.volume.samples == 5
    card = (tmp_path / "model" / "README.md").read_text()
    assert "| steps | 3 |" in card
    assert "Apache-2.0" in card


def test_bad_input_is_one_line_before_any_work(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    base = ["train", "--preset", "tiny", "--data", str(dataset), "--out", str(tmp_path / "run")]
    cases = {
        "there is no training preset 'huge'": ["train", "--preset", "huge", "--out", "x"],
        "--data is needed": ["train", "--preset", "tiny", "--out", str(tmp_path / "run")],
        "32²": ["train", "--preset", "synthetic128", "--data", str(dataset), "--out", str(tmp_path / "run")],
        "minibatch groups": [*base, "--batch", "3"],
        "no auxiliary pictures": [*base, "--stage", "reconstruct"],
        "neither a run's folder": [*base, "--init", str(tmp_path)],
        "holds no run": ["train", "--out", str(tmp_path / "none"), "--export", str(tmp_path / "model")],
    }
    for message, arguments in cases.items():
        told = refused(arguments, capsys)
        assert message in told, told
        assert "Traceback" not in told
        assert not (tmp_path / "run" / "config.json").exists()
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert "cannot write" in refused([*base[:-1], str(blocked)], capsys)
    assert "bogus" in refused([*base, "--bogus", "1"], capsys)


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_round_trip_through_json(name: str):
    import dataclasses

    config = preset(name)
    values = json.loads(json.dumps(dataclasses.asdict(config)))
    assert build(TrainingConfig, values, "") == config
    values["optimizer"]["momentum"] = 0.9
    with pytest.raises(InputError, match=r"unknown setting 'optimizer.momentum'"):
        build(TrainingConfig, values, "")


def test_every_constant_says_where_it_comes_from():
    import inspect

    from next3d.training import config as module

    source = inspect.getsource(module)
    for section in ("OptimizerConfig", "AdversarialConfig", "AugmentConfig", "EmaConfig"):
        body = source.split(f"class {section}")[1].split("@dataclass")[0]
        fields = [
            line for line in body.splitlines() if ": " in line and " = " in line and not line.strip().startswith('"')
        ]
        assert len(fields) <= body.count("Source:") + body.count("the same"), section


def test_bench_train_prints_phases(tmp_path: Path, capsys: pytest.CaptureFixture):
    main(["bench", "train", "--preset", "tiny", "--steps", "4", "--json", str(tmp_path / "bench.json")])
    told = capsys.readouterr().out
    for phase in (
        "generator",
        "discriminator",
        "r1",
        "density",
        "rasterisation",
        "data",
        "peak memory",
        "images a second",
    ):
        assert phase in told
    figures = json.loads((tmp_path / "bench.json").read_text())
    assert 0.5 < sum(v for k, v in figures.items() if k.startswith("share_")) <= 1.01
