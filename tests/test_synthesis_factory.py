"""Datasets of drawn people: the same bytes whatever the workers, and nothing lost when the build is killed."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from next3d.data import Dataset
from next3d.data.shards import pack
from next3d.data.synthesis import Recipe, factory, shape, synthesize
from next3d.data.synthesis.anatomy import anatomy
from next3d.errors import InputError


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.png"))
    }


def rows(folder: Path) -> list[dict]:
    import pyarrow.parquet as parquet

    return parquet.read_table(folder / "metadata.parquet").to_pylist()


COUNT = 12


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("synthesis") / "people"
    synthesize(folder, COUNT, 32, seed=5, workers=1, cameras=2, aux=True, progress=False)
    assert len(contents(folder)) == COUNT * 4
    return folder


def test_a_picture_does_not_depend_on_the_count(dataset, tmp_path):
    synthesize(tmp_path / "few", 3, 32, seed=5, workers=1, cameras=2, aux=True, progress=False)
    assert contents(tmp_path / "few").items() <= contents(dataset).items()
    assert rows(tmp_path / "few") == rows(dataset)[:3]
    synthesize(tmp_path / "few", COUNT, 32, seed=5, workers=1, cameras=2, aux=True, progress=False)  # and it grows
    assert contents(tmp_path / "few") == contents(dataset)
    assert rows(tmp_path / "few") == rows(dataset)


def test_rows_say_what_was_drawn(dataset):
    samples, table = Dataset(dataset), rows(dataset)
    assert len(samples) == COUNT
    recipe = Recipe(32, seed=5, cameras=2)
    for index in (0, 1, COUNT - 1):
        row = table[index]
        assert row["identity"] == index // 2
        assert np.array_equal(np.float32(row["latent"]), recipe.latent(index // 2))
        assert np.array_equal(np.float32(row["shape"]), shape(recipe.latent(index // 2)).numpy())
        pose = recipe.pose(index)
        assert np.array_equal(np.float32(row["expression"]), pose.params.expression.numpy())
        assert np.array_equal(np.float32(row["camera"]), pose.camera.label.numpy())
        assert np.array_equal(samples[index].image.numpy().transpose(1, 2, 0), recipe.picture(index)[0].image)
    assert table[0]["latent"] == table[1]["latent"] != table[2]["latent"]
    assert table[0]["split"] == table[1]["split"]
    assert table[0]["expression"] != table[1]["expression"]


def test_seeds_and_options_differ(tmp_path):
    assert not np.array_equal(Recipe(32, seed=1).latent(0), Recipe(32, seed=2).latent(0))
    lit = Recipe(32, seed=5, cameras=2, free_light=True).picture(1)
    plain = Recipe(32, seed=5, cameras=2).picture(1)
    assert np.array_equal(lit[0].parts, plain[0].parts)
    assert not np.array_equal(lit[0].image, plain[0].image)
    assert len(lit[2]["light"]) == 3
    assert float(Recipe(32, seed=5, neck=10).pose(0).params.neck.abs().max()) > 0


def children(process: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []  # another operating system


@pytest.mark.slow
def test_workers_change_no_byte_and_a_killed_build_leaves_none_and_goes_on_where_it_was(dataset, tmp_path):
    """Two processes make the first rows, 0 and 8 onwards, and are killed; one process makes what is missing."""
    folder = tmp_path / "killed"
    code = (
        "import sys; from next3d.data.synthesis import synthesize\n"
        f"if __name__ == '__main__': synthesize({str(folder)!r}, 60, 32, seed=5, workers=2, cameras=2, aux=True)"
    )
    (tmp_path / "build.py").write_text(code)
    process = subprocess.Popen([sys.executable, str(tmp_path / "build.py")], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None and len(list(folder.rglob("images/*/0*.png"))) < 9:
        time.sleep(0.005)
    workers = children(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(list(folder.rglob("images/*/0*.png"))) >= 9
    while time.monotonic() < deadline and any(Path(f"/proc/{worker}/cwd").exists() for worker in workers):
        time.sleep(0.05)
    assert not any(Path(f"/proc/{worker}/cwd").exists() for worker in workers)  # a zombie has no cwd
    synthesize(folder, COUNT, 32, seed=5, workers=1, cameras=2, aux=True, progress=False)
    made = contents(folder)
    assert {name: made[name] for name in contents(dataset)} == contents(dataset)
    assert rows(folder)[:COUNT] == rows(dataset)


def test_a_build_is_not_resumed_with_other_looks_or_another_head(dataset, monkeypatch):
    again = {"count": COUNT, "resolution": 32, "seed": 5, "workers": 1, "cameras": 2, "aux": True, "progress": False}
    before = contents(dataset), (dataset / "dataset.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(factory, "LOOKS", factory.LOOKS + 1)
        with pytest.raises(InputError, match=rf"looks = {factory.LOOKS - 1}, now it is {factory.LOOKS}"):
            synthesize(dataset, **again)
    numbers = dict(anatomy("builtin").head.named_buffers())["base"]
    kept = numbers.clone()
    numbers[100] += 0.001
    with pytest.raises(InputError, match="head_sha256"):
        synthesize(dataset, **again)
    numbers.copy_(kept)
    assert before == (contents(dataset), (dataset / "dataset.json").read_bytes())


def test_hugging_face_datasets_read_drawn_people_and_their_auxiliary_pictures(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    datasets = pytest.importorskip("datasets")
    ours = Dataset(dataset)
    theirs = datasets.load_dataset("imagefolder", data_dir=str(dataset), cache_dir=str(tmp_path / "a"))["train"]
    assert len(theirs) == COUNT  # auxiliary pictures are columns of their pictures' rows, not rows
    assert np.array_equal(np.asarray(theirs[3]["image"]), ours[3].image.permute(1, 2, 0).numpy())
    assert np.array_equal(np.asarray(theirs[3]["parts"]), Recipe(32, seed=5, cameras=2).picture(3)[0].parts)
    assert np.array_equal(np.float32(theirs[3]["latent"]), ours[3].row["latent"])
    pack(dataset, tmp_path / "shards")
    packed = datasets.load_dataset("webdataset", data_dir=str(tmp_path / "shards"), cache_dir=str(tmp_path / "b"))
    samples = {sample["__key__"]: sample for part in packed.values() for sample in part}
    assert len(samples) == COUNT
    third = next(sample for key, sample in samples.items() if int(key) == 3)
    assert np.array_equal(np.asarray(third["png"]), np.asarray(theirs[3]["image"]))
    assert np.array_equal(np.asarray(third["parts.png"]), np.asarray(theirs[3]["parts"]))
    assert np.array_equal(np.asarray(third["depth.png"]), np.asarray(theirs[3]["depth"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "at least one picture"),
        ({"resolution": 4}, "outside 16 to 4096"),
        ({"cameras": 0}, "at least one picture"),
        ({"bias": 1.5}, "from 0"),
        ({"workers": 0}, "at least one process"),
        ({"seed": -1}, "whole number"),
        ({"neck": 90.0}, "0 to 30"),
    ],
)
def test_impossible_options_are_refused_before_work(tmp_path, options, message):
    arguments = {"count": 2, "resolution": 32, "progress": False} | options
    with pytest.raises(InputError, match=message):
        synthesize(tmp_path / "no", **arguments)
    assert not (tmp_path / "no").exists()
