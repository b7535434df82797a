"""Controls read off pictures: every measure follows the truth on factory pictures, and nothing follows by chance."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from next3d.cli.main import main
from next3d.data.format import split_of
from next3d.data.synthesis import render
from next3d.data.writer import DatasetWriter
from next3d.errors import InputError
from next3d.estimators import IDENTITY, Estimator, EstimatorConfig
from next3d.generator.config import MappingConfig, SuperresConfig
from next3d.generator.generator import Generator
from next3d.generator.presets import preset
from next3d.geometry.cameras import Camera
from next3d.heads import HeadParams, load_head
from next3d.io.images import from_uint8
from next3d.metrics import controls
from next3d.metrics.controls import FactoryPerson, Readout, balanced_accuracy, correlation, sweeps
from next3d.metrics.pixels import Regions, eye_openness, gaze_side, mouth_opening, psnr, tongue_or_teeth
from next3d.metrics.train_estimators import likeness

PEOPLE = 4
STEPS = 5
HEAD = load_head("builtin")
SWEEPS = {sweep.name: sweep for sweep in sweeps(HEAD, STEPS)}


@pytest.fixture(scope="module")
def people() -> list[FactoryPerson]:
    z = torch.randn(PEOPLE, 64, generator=torch.Generator().manual_seed(5))
    return [FactoryPerson(one, 128, HEAD) for one in z]


@pytest.fixture(scope="module")
def swept(people) -> dict[str, list[torch.Tensor]]:
    """Sweep → the factory's pictures (T, 3, 128, 128) of each person."""
    drawn: dict[str, list[torch.Tensor]] = {name: [] for name in SWEEPS}
    for person in people:  # one after the other: the factory remembers the last few only
        for name, sweep in SWEEPS.items():
            drawn[name].append(person.pictures(sweep.params))
    return drawn


@pytest.mark.parametrize("name", list(SWEEPS))
def test_a_reading_follows_its_command_and_no_other(name: str, people, swept) -> None:
    sweep = SWEEPS[name]

    def read(pictures: str) -> torch.Tensor:
        return torch.stack([sweep.read(images, who.regions) for images, who in zip(swept[pictures], people)])

    found = correlation(sweep.values, read(name))
    assert found["pooled"] > (0.93 if name == "eyelid closure" else 0.97)  # how white eyes are against skin differs
    assert found["mean"] > 0.97
    assert abs(found["shuffled"]) < 0.2

    def moved(readings: torch.Tensor) -> float:
        return float((readings - readings.mean(1, keepdim=True)).square().mean().sqrt())

    # Closed lids hide the irises, so gaze cannot be told while they close.
    others = [other for other in SWEEPS if other != name and (name, other) != ("gaze", "eyelid closure")]
    for other in others:
        assert moved(read(other)) < 0.25 * moved(read(name)), f"{name} is read off a sweep of {other}"


def test_readings_do_not_follow_commands_that_a_picture_ignores(people, swept) -> None:
    frozen = torch.stack([swept["jaw"][0][:1].expand(STEPS, -1, -1, -1)])[0]
    regions = people[0].regions
    for sweep in SWEEPS.values():
        found = correlation(sweep.values, sweep.read(frozen, regions)[None])
        assert found["pooled"] == found["mean"] == pytest.approx(0, abs=1e-6)


def test_lids_behind_glasses_are_told_apart(people) -> None:
    """Somebody whose glasses hide the lids lowers the pooled correlation, and not that of those without."""
    bare, hidden = people[0], FactoryPerson(torch.from_numpy(people[1].z), 128, HEAD)
    hidden.pictures = lambda params, camera=None: people[1].pictures(params.replace(expression=torch.zeros(50)), camera)
    found = controls.sweep_people(
        iter([bare, hidden]), 2, sweeps(HEAD, 3), HeadParams(expression=torch.zeros(2, controls.EXPRESSIONS, 50)), None,
        np.array([True, False]), "people",
    )["eyelid closure"]  # fmt: skip
    assert found["without glasses"] > 0.95 > found["pooled"]


def test_tongue_and_teeth_are_told_from_a_dark_mouth(people, swept) -> None:
    for person, images in zip(people, swept["jaw"]):
        picture = render(person.z, SWEEPS["jaw"].params[-1], Camera.orbit(), 128)
        dark = picture.image.copy()
        dark[picture.parts == 4] = (38, 18, 18)  # the cavity's colour
        readings = tongue_or_teeth(torch.stack([images[0], images[-1], from_uint8(dark)]), person.regions)
        assert readings[1] > 2 * controls.VISIBLE
        assert readings[2] < controls.VISIBLE


def test_view_consistency_of_the_factory_is_within_the_limit(people) -> None:
    person = people[0]
    assert 0 < person.consistency() < controls.LIMITS["view consistency"]
    flat = FactoryPerson(torch.from_numpy(person.z), 128, HEAD)
    render_true = flat.render

    def shifted(params: HeadParams, camera: Camera):  # as if painted on a screen: the same picture from everywhere
        return dataclasses.replace(render_true(params, camera), image=render_true(params, Camera.orbit()).image)

    flat.render = shifted  # type: ignore[method-assign]
    assert flat.consistency() > 1.5 * person.consistency()


def test_regions_need_pixels() -> None:
    landmarks = torch.rand(68, 2)
    with pytest.raises(InputError, match="32² pictures"):
        Regions.of(landmarks, 32)


def test_readings_of_uniform_pictures_are_finite(people) -> None:
    images = torch.stack([torch.full((3, 128, 128), value) for value in (-1.0, 0.0, 1.0)])
    for reading in (mouth_opening, eye_openness, gaze_side, tongue_or_teeth):
        assert reading(images, people[0].regions).isfinite().all()


def test_a_readout_weighs_rare_classes_like_common_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    names = np.array(["none"] * 180 + ["sun"] * 20)
    features = torch.randn(200, 8, generator=generator)
    features[180:, 0] += 4
    readout = Readout(features, names)
    assert balanced_accuracy(readout(features), names) > 0.9
    assert balanced_accuracy(np.array(["none"] * 200), names) == 0.5
    unrelated = torch.randn(200, 8, generator=generator)
    assert balanced_accuracy(readout(unrelated), names) < 0.7


def test_psnr_within_a_mask() -> None:
    a, b = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    b[..., :2] = 0.2  # 0.1 of the range: 20 dB
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[..., :2] = True
    assert float(psnr(a, b, mask)) == pytest.approx(20, abs=1e-4)
    assert float(psnr(a, b)) == pytest.approx(20 + 10 * np.log10(2), abs=1e-4)


def test_identity_is_kept_where_embeddings_agree() -> None:
    e = torch.nn.functional.normalize(torch.randn(5, 1, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    found = likeness(e.expand(5, 3, 16).flatten(0, 1), torch.arange(5).repeat_interleave(3))
    assert found["same"] == pytest.approx(1, abs=1e-5)
    assert found["AUC"] == 1
    assert found["others"] < 0.5


# ---- the whole measurement, on a small untrained model


def small_model(z_dim: int = 64) -> Generator:
    config = dataclasses.replace(
        preset("tiny"),
        mapping=MappingConfig(z_dim=z_dim, w_dim=16, camera_conditioning=False),
        superres=SuperresConfig(64, (8, 8)),
    )
    torch.manual_seed(0)
    return Generator(config, HEAD.topology).eval()


def write_dataset(folder: Path, resolution: int = 64, latent: bool = True) -> Path:
    writer = DatasetWriter(folder, resolution=resolution, head="builtin")
    rng = np.random.default_rng(0)
    wanted = [i for i in range(400) if split_of(i) == "test"][:3] + [i for i in range(400) if split_of(i) == "train"][
        :6
    ]
    for index, identity in enumerate(wanted):
        columns = {"latent": rng.standard_normal(64).astype(np.float32)} if latent else {}
        picture = rng.integers(0, 255, (resolution, resolution, 3)).astype(np.uint8)
        writer.add(index, picture, Camera.orbit(0.1), HeadParams(), identity=identity, **columns)
    writer.finish()
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("measure")
    small_model().save_pretrained(root / "model")
    write_dataset(root / "ds")
    torch.manual_seed(0)
    Estimator(EstimatorConfig(IDENTITY, channels=(4, 4, 8, 8))).eval().save(root / "identity.safetensors")
    return root


def test_the_command_writes_every_measure(folders: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    main(
        ["measure-model", str(folders / "model"), "--data", str(folders / "ds"), "--out", str(out), "--identities", "2",
         "--factory", "0", "--steps", "3", "--estimators", str(folders), "--device", "cpu"]
    )  # fmt: skip
    result = json.loads((out / "measures.json").read_text())
    assert set(result["measures"]) == set(controls.DEFINITIONS)
    assert not result["left_out"]
    assert result["counts"]["identities"] == 2
    assert len(result["model"]) == 64
    page = (out / "measures.md").read_text()
    for name, measure in result["measures"].items():
        assert measure["definition"] in page
        assert all(np.isfinite(value) for value in measure["model"].values()), name
    assert result["measures"]["readable"]["factory"].keys() == set(controls.THINGS)
    assert (out / "controls.png").stat().st_size > 1000
    assert "measures.json" in capsys.readouterr().out


def test_without_an_estimator_it_says_what_is_left_out(folders: Path) -> None:
    result = controls.measure(small_model(), folders / "ds", identities=2, factory=0, steps=3)
    assert set(result["left_out"]) == {"identity", "readable"}
    assert "Left out" in controls.page(result)
    again = controls.measure(small_model(), folders / "ds", identities=2, factory=0, steps=3, batch=1)
    assert again["measures"]["jaw"] == result["measures"]["jaw"]


def test_bad_input_is_one_line_before_any_work(folders: Path, tmp_path: Path) -> None:
    model = small_model()
    cases = [
        ("no column 'latent'", lambda: controls.measure(model, write_dataset(tmp_path / "a", latent=False))),
        ("has 32²", lambda: controls.measure(model, write_dataset(tmp_path / "b", 32))),
        ("latents have 16 numbers", lambda: controls.measure(small_model(16), folders / "ds")),
        ("too few to compare", lambda: controls.measure(model, folders / "ds", identities=1)),
        ("3 or more", lambda: controls.measure(model, folders / "ds", identities=2, steps=2)),
        ("no dataset folder", lambda: controls.measure(model, tmp_path / "missing")),
    ]
    for message, call in cases:
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_the_command_refuses_a_missing_estimator(folders: Path, tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["measure-model", "demo", "--data", str(folders / "ds"), "--out", str(tmp_path / "o"), "--estimators",
              str(tmp_path)])  # fmt: skip
    assert caught.value.code == 2
    assert "there is no estimator" in capsys.readouterr().err
