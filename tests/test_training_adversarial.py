"""The adversarial stage: each regulariser and each schedule acts, and vanishes when it is switched off."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from next3d.training.adversarial import AdversarialStage
from next3d.training.warm_start import take
from training_run import HEAD, noise, tiny_config, trainer


def stage_of(run) -> AdversarialStage:
    assert isinstance(run.stage, AdversarialStage)
    return run.stage


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def trained(tmp_path: Path, name: str, steps: int = 6, **changes) -> tuple[torch.Tensor, torch.Tensor, list[dict]]:
    """Generator's and discriminator's weights after some steps, and the log."""
    run = trainer(tiny_config(total_steps=steps, checkpoint_every=steps, **changes), tmp_path / name)
    run.run()
    lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
    return weights(run.stage.generator), weights(stage_of(run).discriminator), [json.loads(line) for line in lines]


def test_r1_lowers_the_discriminators_gradient(tmp_path: Path):
    # Removing the penalty must show: with it the squared gradient falls, without it there is no such update.
    strong = {"r1_gamma": 200.0, "r1_interval": 1, "density_weight": 0.0}
    _, _, log = trained(tmp_path, "with", 12, adversarial=strong)
    penalty = [line["discriminator/r1"] for line in log]
    run = trainer(
        tiny_config(total_steps=12, checkpoint_every=12, adversarial={**strong, "r1_gamma": 1e-6}), tmp_path / "free"
    )
    run.run()
    free = [
        json.loads(line)["discriminator/r1"] for line in (tmp_path / "free" / "metrics.jsonl").read_text().splitlines()
    ]
    assert penalty[-1] < 0.5 * free[-1]
    _, _, without = trained(tmp_path, "without", 2, adversarial={**strong, "r1_gamma": 0.0})
    assert all("discriminator/r1" not in line for line in without)


def test_r1_is_lazy(tmp_path: Path):
    _, _, log = trained(tmp_path, "run", adversarial={"r1_interval": 4})
    assert [i for i, line in enumerate(log) if "discriminator/r1" in line] == [0, 4]


def test_density_regularisation_smooths_the_field(tmp_path: Path):
    strong = {"density_weight": 50.0, "density_interval": 1, "density_distance": 0.05}
    _, _, log = trained(tmp_path, "with", 12, adversarial=strong)
    _, _, free = trained(tmp_path, "free", 12, adversarial={**strong, "density_weight": 1e-9})
    assert log[-1]["generator/density"] < 0.6 * free[-1]["generator/density"]
    _, _, without = trained(tmp_path, "without", 2, adversarial={**strong, "density_weight": 0.0})
    assert all("generator/density" not in line for line in without)


def test_blur_fades_and_touches_both_pictures(tmp_path: Path):
    run = trainer(tiny_config(adversarial={"blur_sigma": 3.0, "blur_fade_images": 100}), tmp_path / "run")
    stage = stage_of(run)
    batch = next(run.loader)
    scene = dataclasses.make_dataclass("S", ["batch", "ray_resolution"])(batch, None)

    def roughness(images: int) -> tuple[float, float]:
        image, raw = stage._real(scene, slice(None), images)
        return float(image.diff(dim=-1).abs().mean()), float(raw.diff(dim=-1).abs().mean())

    start, middle, end = roughness(0), roughness(50), roughness(100)
    assert start[0] < middle[0] < end[0]
    assert start[1] < end[1]
    torch.testing.assert_close(stage._real(scene, slice(None), 100)[0], batch.normalized)
    run.folder.close()


def test_camera_swapping_follows_its_probability(tmp_path: Path):
    config = tiny_config(
        adversarial={"swap_probability_start": 1.0, "swap_probability": 0.5, "swap_fade_images": 1000},
        generator={"mapping": dataclasses.replace(tiny_config().generator.mapping, camera_conditioning=True)},
    )
    run = trainer(config, tmp_path / "run")
    stage = stage_of(run)
    batch = next(run.loader)
    scene = dataclasses.make_dataclass("S", ["batch"])(batch)

    def swapped(images: int) -> float:
        own = 0
        for step in range(200):
            told = stage._conditioning(scene, slice(None), stage.random("x", step, range(4)), images)
            own += int((told == batch.camera).all(1).sum())
        return 1 - own / 800

    assert swapped(0) > 0.9  # of 24 cameras one is a picture's own
    assert swapped(1000) == pytest.approx(0.5 * 23 / 24, abs=0.06)
    run.folder.close()


def test_conditions_of_the_discriminator(tmp_path: Path):
    # The paper's synthetic rendering, the ablation without it, and head parameters instead (A.1).
    for name, changes in {
        "rendering": {"synthetic_rendering": True},
        "none": {"synthetic_rendering": False},
        "parameters": {"synthetic_rendering": False, "head_size": 62, "label_noise": 0.1},
    }.items():
        _, _, log = trained(tmp_path, name, 2, discriminator=changes)
        assert len(log) == 2


def test_discriminator_depends_on_the_synthetic_rendering(tmp_path: Path):
    run = trainer(tiny_config(), tmp_path / "run")
    stage = stage_of(run)
    batch = next(run.loader)
    image = batch.normalized
    mesh = stage.mesh(batch.params)
    assert stage.correspondence is not None
    seen = stage.correspondence(mesh.vertices, batch.camera)
    raw = torch.nn.functional.interpolate(image, (16, 16))
    one = stage.discriminator(image, raw, batch.camera, synthetic=seen)
    other = stage.discriminator(image, raw, batch.camera, synthetic=seen.roll(1, 0))
    assert not torch.allclose(one, other)
    run.folder.close()


def test_average_follows_the_generator(tmp_path: Path):
    run = trainer(tiny_config(ema={"half_life_images": 8.0, "half_life_batch": 4, "ramp_up": 0.0}), tmp_path / "run")
    before = weights(run.stage.ema.module)
    run.one_step()
    now = weights(run.stage.generator)
    expected = before + (1 - 0.5 ** (4 / 8)) * (now - before)
    torch.testing.assert_close(weights(run.stage.ema.module), expected, atol=1e-6, rtol=1e-5)
    assert run.stage.generator.mapping.average.abs().sum() > 0  # the truncation centre is tracked
    run.loader.close()
    run.folder.close()


def test_ray_resolution_can_grow(tmp_path: Path):
    run = trainer(
        tiny_config(adversarial={"ray_resolution_start": 8, "ray_resolution_fade_images": 8}), tmp_path / "run"
    )
    stage = stage_of(run)
    assert (stage._ray_resolution(0), stage._ray_resolution(8)) == (8, 16)
    run.one_step()
    run.loader.close()
    run.folder.close()


def test_warm_start_takes_what_fits(tmp_path: Path, capsys: pytest.CaptureFixture):
    reconstruct = trainer(tiny_config(stage="reconstruct", total_steps=2, checkpoint_every=2), tmp_path / "first")
    reconstruct.run()
    wider = tiny_config(generator={"superres": dataclasses.replace(tiny_config().generator.superres, channels=(12,))})
    run = trainer(wider, tmp_path / "second", init=tmp_path / "first")
    told = capsys.readouterr().err
    assert "warm start of the generator" in told
    assert "another shape" in told
    source, taken = reconstruct.stage.ema.module.state_dict(), run.stage.generator.state_dict()
    assert torch.equal(taken["volume.decoder.0.weight"], source["volume.decoder.0.weight"])
    assert torch.equal(run.stage.ema.module.state_dict()["volume.decoder.0.weight"], taken["volume.decoder.0.weight"])
    record = json.loads((tmp_path / "second" / "run.json").read_text())
    assert 0 < record["taken"]["generator"]["taken"] < record["taken"]["generator"]["of"]
    run.folder.close()
    with pytest.raises(ValueError, match="no tensor"):
        take(torch.nn.Linear(2, 2), {"other": torch.zeros(1)}, "generator", False)


def test_a_runs_folder_tells_everything(tmp_path: Path):
    config = tiny_config(total_steps=2, sample_every=1)
    trainer(config, tmp_path / "run").run()
    from PIL import Image

    from next3d.training.run_folder import read_config

    assert read_config(tmp_path / "run") == config
    launch = json.loads((tmp_path / "run" / "environment.json").read_text())["launches"][0]
    assert {"next3d", "torch", "python", "git_revision", "command", "cores"} <= launch.keys()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["dataset"]["pictures"] == len(noise(config))
    grid = Image.open(tmp_path / "run" / "samples" / "step-00000002.png")
    assert grid.size == (7 * 32, 6 * 32)
    assert HEAD.name == read_config(tmp_path / "run").generator.head
