"""What the bundled estimators promise on people of the factory that they never saw."""

from __future__ import annotations

from pathlib import Path

import pytest

from next3d.data.dataset import Dataset
from next3d.data.synthesis.factory import synthesize
from next3d.estimators import BUNDLED, bundled
from next3d.metrics import protocol
from next3d.metrics.readers import BundledIdentity, BundledMotion
from next3d.metrics.sources import FactorySource

SEED = 987_654  # of people and poses that no training set draws
COUNTS = protocol.Counts(pictures=24, identities=12, poses=4, pairs=12)


def readers() -> protocol.Readers:
    return protocol.Readers(None, BundledMotion(), BundledIdentity())


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """24 people, each in two expressions and cameras."""
    folder: Path = tmp_path_factory.mktemp("people") / "data"
    synthesize(folder, 48, 128, SEED, workers=1, aux=False, cameras=2)
    return Dataset(folder, columns=("latent", "identity"))


def test_real_pictures_are_read_better_than_chance_and_people_are_told_apart(people: Dataset) -> None:
    floors = protocol.floors(people, readers(), metrics=("aed", "apd", "id"))
    value = {name: floors[name]["mean_absolute"] for name in ("AED", "APD", "AED at chance", "APD at chance")}
    assert value["AED"] < 0.88 * value["AED at chance"]
    assert value["APD"] < 0.35 * value["APD at chance"]
    assert floors["ID AUC"] >= 0.97


def test_perfect_pictures_are_at_the_estimators_own_error(people: Dataset) -> None:
    estimators = readers()
    found = protocol.evaluate(FactorySource(), people, estimators, metrics=("aed", "apd", "id"), counts=COUNTS)[
        "results"
    ]
    floors = protocol.floors(people, estimators, metrics=("aed", "apd", "id"))
    for name in ("AED", "APD"):
        assert found[name]["mean_absolute"] == pytest.approx(floors[name]["mean_absolute"], rel=0.35)
    assert found["ID"] > 0.5 + floors["ID of strangers"]


def test_their_card_says_what_they_carry() -> None:
    card = (BUNDLED / "CARD.md").read_text()
    for name in ("motion", "identity"):
        accuracy = bundled(name).config.accuracy
        assert accuracy is not None
        for measure, value in accuracy.items():
            assert f"| {measure} | {value} |" in card
    size = sum(path.stat().st_size for path in BUNDLED.glob("*.safetensors"))
    assert size < 8 * 2**20
