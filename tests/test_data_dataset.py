"""The dataset format: what is written is read back, broken things are told, and the loader's order is exact."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image

from data_samples import build_noise, random_labels, render, tiny_head, write_dataset
from next3d.data import Dataset, make_loader, open_dataset, split_of
from next3d.data.format import SPLITS, decode_aux, encode_aux
from next3d.data.shards import pack
from next3d.data.transforms import flip
from next3d.data.writer import DatasetWriter, picture_name
from next3d.errors import InputError
from next3d.geometry.cameras import Camera
from next3d.heads import HeadParams


@pytest.fixture(scope="module")
def head():
    return tiny_head()


@pytest.fixture(scope="module")
def folder(head, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "folder"
    write_dataset(path, head, 40, identities=13)
    return path


@pytest.fixture(scope="module")
def shards(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "shards"
    pack(folder, path, per_shard=7)
    return path


def copy(folder: Path, target: Path) -> Path:
    import shutil

    shutil.copytree(folder, target)
    return target


# ---- round trip ----------------------------------------------------------------------------------------------------


def test_samples_come_back_exactly(folder, head):
    camera, params = random_labels(40)
    pictures = render(head, camera, params, 32)
    dataset = Dataset(folder)
    assert len(dataset) == 40
    for index in (0, 17, 39):
        sample = dataset[index]
        assert torch.equal(sample.image, torch.from_numpy(pictures[index]).permute(2, 0, 1))
        assert torch.equal(sample.camera, camera[index].label)
        assert torch.equal(sample.params.vector(), params[index].vector())
        assert sample.row["identity"] == index % 13
        assert sample.row["latent"].shape == (4,)
        assert sample.row["split"] == split_of(index % 13)


def test_shards_hold_the_same_samples(folder, shards):
    whole, packed = Dataset(folder), open_dataset(shards)
    assert len(packed) == len(whole)
    by_numbers = {sample.numbers.numpy().tobytes(): sample for sample in (whole[i] for i in range(len(whole)))}
    for i in range(len(packed)):
        sample = packed[i]
        twin = by_numbers.pop(sample.numbers.numpy().tobytes())
        assert torch.equal(sample.image, twin.image)
        assert sample.row["identity"] == twin.row["identity"]
        assert np.array_equal(sample.row["latent"], twin.row["latent"])
    assert not by_numbers


def test_packing_twice_gives_the_same_bytes(folder, shards, tmp_path):
    for path in pack(folder, tmp_path / "again", per_shard=7):
        assert path.read_bytes() == (shards / path.name).read_bytes()


def test_splits_are_disjoint_by_identity_and_cover_everything(folder, shards):
    for path in (folder, shards):
        parts = {split: open_dataset(path, split) for split in SPLITS}
        people = {split: {int(part[i].row["identity"]) for i in range(len(part))} for split, part in parts.items()}
        assert sum(len(part) for part in parts.values()) == 40
        assert set.union(*people.values()) == set(range(13))
        assert sum(len(group) for group in people.values()) == 13


def test_split_shares_are_as_promised():
    names = [split_of(identity) for identity in range(20000)]
    for split, share in SPLITS.items():
        assert names.count(split) / 20000 == pytest.approx(share, abs=0.006)
    assert split_of(5) == split_of("5")


def test_batch_has_what_the_trainer_needs(folder, shards):
    batch = next(make_loader(Dataset(folder, columns=["identity", "latent"]), 6, workers=0))
    assert batch.image.shape == (6, 3, 32, 32)
    assert batch.image.dtype == torch.uint8
    assert batch.normalized.min() >= -1
    assert batch.normalized.max() <= 1
    assert batch.camera.shape == (6, 25)
    assert batch.params.expression.shape == (6, 50)
    assert batch.row["latent"].shape == (6, 4)
    assert batch.row["identity"].dtype == torch.int64
    assert set(batch.row) == {"identity", "latent"}
    for path in (folder, shards):
        assert set(open_dataset(path, columns=["identity"])[0].row) == {"identity"}
        with pytest.raises(InputError, match=r"no column \['age'\]"):
            open_dataset(path, columns=["age"])
    same = torch.stack([Dataset(folder)[int(i)].image for i in batch.index])
    assert torch.equal(batch.image, same)


def test_auxiliary_pictures_round_trip(tmp_path, head):
    camera, params = random_labels(2)
    picture = np.zeros((32, 32, 3), np.uint8)
    generator = np.random.default_rng(0)
    depth = generator.uniform(2, 3.3, (32, 32)).astype(np.float32)
    depth[:4] = np.inf
    normals = generator.normal(size=(32, 32, 3))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    normals[:4] = 0
    parts = generator.integers(0, 7, (32, 32)).astype(np.uint8)
    writer = DatasetWriter(tmp_path / "a", resolution=32, head="tiny", aux=("depth", "normals", "parts"))
    for index in range(2):
        aux = {"depth": depth, "normals": normals, "parts": parts}
        writer.add(index, picture, camera[index], params[index], aux=aux)
    writer.finish(2)
    pack(tmp_path / "a", tmp_path / "s")
    for path in (tmp_path / "a", tmp_path / "s"):
        sample = open_dataset(path, aux=True)[1]
        assert np.abs(sample.aux["depth"][0, 4:].numpy() - depth[4:]).max() < 5e-5
        assert (sample.aux["depth"][0, :4] == 0).all()
        assert np.abs(sample.aux["normals"].permute(1, 2, 0).numpy() - normals).max() < 5e-3
        assert np.array_equal(sample.aux["parts"][0].numpy(), parts)
        assert next(make_loader(open_dataset(path, aux=True), 2, workers=0)).aux["depth"].shape == (2, 1, 32, 32)
        assert open_dataset(path)[0].aux == {}
    with pytest.raises(InputError, match="lacks the auxiliary picture 'depth'"):
        writer.add(2, picture, camera[0], params[0])


@pytest.mark.parametrize("name", ["depth", "normals"])
def test_empty_aux_pixels_stay_empty(name):
    empty = np.zeros((4, 4, 3) if name == "normals" else (4, 4))
    assert (decode_aux(name, encode_aux(name, empty)) == 0).all()


# ---- flips ---------------------------------------------------------------------------------------------------------


def test_flipped_labels_render_the_flipped_picture(tmp_path, head):
    write_dataset(tmp_path / "d", head, 4, 64)
    dataset = Dataset(tmp_path / "d")
    for index in range(4):
        flipped = flip(dataset[index], head)
        camera = Camera.from_label(flipped.camera[None])
        again = render(head, camera, HeadParams.stack([flipped.params]), 64)[0]
        difference = np.abs(again.astype(int) - flipped.image.permute(1, 2, 0).numpy().astype(int)).max(-1)
        assert (difference > 8).mean() < 0.002  # single pixels on the silhouette may fall to the other side
        plain = render(head, Camera.from_label(dataset[index].camera[None]), HeadParams.stack([flipped.params]), 64)[0]
        assert (
            np.abs(plain.astype(int) - again.astype(int)).max(-1) > 8
        ).mean() > 0.02  # the camera had to be mirrored


def test_flipping_twice_changes_nothing_and_masks_choose(folder, head):
    batch = next(make_loader(Dataset(folder), 6, workers=0))
    twice = flip(flip(batch, head), head)
    assert torch.equal(twice.image, batch.image)
    assert torch.allclose(twice.numbers, batch.numbers, atol=1e-6)
    mask = torch.tensor([True, False] * 3)
    some = flip(batch, head, mask)
    assert torch.equal(some.image[1::2], batch.image[1::2])
    assert torch.equal(some.numbers[1::2], batch.numbers[1::2])
    assert torch.equal(some.image[::2], batch.image[::2].flip(-1))
    assert not torch.equal(some.camera[::2], batch.camera[::2])


def test_normals_are_mirrored_as_vectors():
    from next3d.data.transforms import flip_aux

    normals = torch.randn(3, 4, 4)
    flipped = flip_aux("normals", normals)
    assert torch.equal(flipped[0], -normals[0].flip(-1))
    assert torch.equal(flipped[1:], normals[1:].flip(-1))


# ---- the loader ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["folder", "shards"])
@pytest.mark.parametrize("workers", [0, 3])
def test_order_does_not_depend_on_processes_or_threads(layout, workers, folder, shards, head):
    dataset = open_dataset(folder if layout == "folder" else shards)
    alone = make_loader(dataset, 6, seed=3, workers=0, mirror=head)
    ranks = [make_loader(dataset, 6, seed=3, rank=rank, world=3, workers=workers, mirror=head) for rank in range(3)]
    for _ in range(15):  # more than two epochs of 40
        batch = next(alone)
        parts = [next(loader) for loader in ranks]
        assert torch.equal(torch.cat([part.index for part in parts]), batch.index)
        assert torch.equal(torch.cat([part.numbers for part in parts]), batch.numbers)
        assert torch.equal(torch.cat([part.image for part in parts]), batch.image)


@pytest.mark.parametrize("layout", ["folder", "shards"])
def test_an_epoch_visits_every_sample_once_in_a_new_order(layout, folder, shards):
    dataset = open_dataset(folder if layout == "folder" else shards)
    loader = make_loader(dataset, 8, seed=1, workers=2)
    epochs = [torch.cat([next(loader).index for _ in range(5)]) for _ in range(3)]
    for epoch in epochs:
        assert epoch.sort().values.tolist() == list(range(40))
    assert not torch.equal(epochs[0], epochs[1])
    other = make_loader(dataset, 8, seed=2, workers=0)
    assert not torch.equal(torch.cat([next(other).index for _ in range(5)]), epochs[0])


def test_resume_is_exact(folder, head):
    dataset = Dataset(folder)
    loader = make_loader(dataset, 6, seed=5, workers=2, mirror=head)
    for _ in range(9):
        next(loader)
    state = json.loads(json.dumps(loader.state_dict()))
    assert state["start_sample"] == 54
    resumed = make_loader(Dataset(folder), 6, **state, workers=0, mirror=head)
    for _ in range(8):
        a, b = next(loader), next(resumed)
        assert torch.equal(a.index, b.index)
        assert torch.equal(a.numbers, b.numbers)
        assert torch.equal(a.image, b.image)


def test_bad_loader_arguments_are_named(folder, tmp_path, head):
    dataset = Dataset(folder)
    with pytest.raises(InputError, match="batch of 7 cannot be shared evenly by 2"):
        make_loader(dataset, 7, world=2)
    with pytest.raises(InputError, match="rank 2"):
        make_loader(dataset, 8, rank=2, world=2)
    write_dataset(tmp_path / "one", head, 2, identities=1)
    empty = next(split for split in SPLITS if split != split_of(0))
    with pytest.raises(InputError, match="no samples"):
        make_loader(Dataset(tmp_path / "one", empty), 1)


def test_streaming_shares_an_epoch_between_ranks(shards):
    dataset = open_dataset(shards)
    seen = [[sample.index for sample in dataset.stream(seed=2, rank=rank, world=3)] for rank in range(3)]
    assert sorted(index for part in seen for index in part) == list(range(40))


# ---- broken pictures and rows ---------------------------------------------------------------------------------------


def test_broken_pictures_and_rows_are_skipped_and_counted(folder, tmp_path):
    path = copy(folder, tmp_path / "d")
    (path / picture_name(3)).write_bytes((path / picture_name(3)).read_bytes()[:200])
    (path / picture_name(7)).unlink()
    Image.new("RGB", (16, 16)).save(path / picture_name(9))
    table = parquet.read_table(path / "metadata.parquet").to_pylist()
    table[11]["jaw"] = [0.0, float("nan"), 0.0]
    table[12]["shape"] = [0.0] * 99
    import pyarrow

    parquet.write_table(pyarrow.Table.from_pylist(table), path / "metadata.parquet")
    dataset = Dataset(path)
    broken = {3, 7, 9, 11, 12}
    for index in broken:
        with pytest.raises(InputError):
            dataset[index]
    loader = make_loader(dataset, 8, workers=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        batches = [next(loader) for _ in range(12)]
    assert loader.skipped == 5
    assert set(dataset.skipped) == {picture_name(index) for index in broken}
    assert sum("skipped" in str(one.message) for one in caught) == 5
    assert not broken & set(torch.cat([batch.index for batch in batches]).tolist())
    assert all(len(batch) == 8 for batch in batches)


def test_a_dataset_without_a_good_sample_says_so(head, tmp_path):
    write_dataset(tmp_path / "d", head, 2)
    for index in range(2):
        (tmp_path / "d" / picture_name(index)).write_bytes(b"no picture")
    loader = make_loader(Dataset(tmp_path / "d"), 1, workers=0)
    with pytest.warns(UserWarning, match="skipped"), pytest.raises(InputError, match="no sample that can be read"):
        next(loader)


def edit_json(path: Path, **changes) -> None:
    values = json.loads((path / "dataset.json").read_text())
    (path / "dataset.json").write_text(json.dumps(values | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "format version 2, this package reads version 1"),
        ({"format": "other"}, "not of format"),
        ({"count": 41}, "40 rows, dataset.json says 41"),
        ({"resolution": 8}, "resolution 8 is outside"),
        ({"resolution": "big"}, "damaged"),
        ({"layout": "cloud"}, "layout 'cloud'"),
    ],
)
def test_other_formats_are_refused_in_one_line(folder, tmp_path, changes, message):
    path = copy(folder, tmp_path / "d")
    edit_json(path, **changes)
    with pytest.raises(InputError, match=message) as error:
        Dataset(path)
    assert "\n" not in str(error.value)


def test_missing_columns_and_escaping_names_are_refused(folder, tmp_path):
    path = copy(folder, tmp_path / "d")
    table = parquet.read_table(path / "metadata.parquet")
    parquet.write_table(table.drop(["jaw", "eyes"]), path / "metadata.parquet")
    with pytest.raises(InputError, match=r"lacks the columns \['jaw', 'eyes'\]"):
        Dataset(path)
    rows = table.to_pylist()
    import pyarrow

    for name in ("../secret.png", "/etc/secret.png", "images\\..\\..\\secret.png", "C:/secret.png"):
        rows[5]["file_name"] = name
        parquet.write_table(pyarrow.Table.from_pylist(rows), path / "metadata.parquet")
        with pytest.raises(InputError, match="refused"):
            Dataset(path)
    (path / "metadata.parquet").write_bytes(b"not parquet")
    with pytest.raises(InputError, match="cannot be read as parquet"):
        Dataset(path)


def test_an_eg3d_folder_gets_a_hint(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": []}))
    with pytest.raises(InputError, match="dataset import"):
        Dataset(tmp_path)
    with pytest.raises(InputError, match="no dataset folder"):
        Dataset(tmp_path / "nowhere")


# ---- shards that are not what they should be ------------------------------------------------------------------------


def write_tar(path: Path, members: list) -> None:
    import io
    import tarfile

    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            if data is None:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
                tar.addfile(member)
            else:
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("00000000.png", None)], "link or device"),
        ([("../00000000.png", b"x")], "refused"),
        ([("/tmp/00000000.png", b"x")], "refused"),
        ([("00000000.png", b"x")], "samples, dataset.json says"),
    ],
)
def test_dangerous_or_damaged_shards_are_refused(shards, tmp_path, members, message):
    path = copy(shards, tmp_path / "s")
    name = "train-00000.tar"
    write_tar(path / name, members)
    dataset = open_dataset(path, "train")
    with pytest.raises(InputError, match=message):
        dataset[0]


def test_cut_and_missing_shards_are_named(shards, tmp_path):
    path = copy(shards, tmp_path / "s")
    data = (path / "train-00000.tar").read_bytes()
    (path / "train-00000.tar").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"cut short|says"):
        open_dataset(path, "train")[0]
    (path / "train-00000.tar").write_bytes(b"garbage" * 200)
    with pytest.raises(InputError, match="not a tar"):
        open_dataset(path, "train")[0]
    (path / "train-00001.tar").unlink()
    with pytest.raises(InputError, match="lacks 1 of"):
        open_dataset(path)


def test_tars_with_extended_headers_are_read(shards, tmp_path):
    """The webdataset package writes times as fractions, which puts an extended header before each file."""
    import tarfile

    path = copy(shards, tmp_path / "s")
    name = path / "train-00000.tar"
    with tarfile.open(name) as old, tarfile.open(tmp_path / "new.tar", "w", format=tarfile.PAX_FORMAT) as new:
        for member in old:
            data = old.extractfile(member)
            member.mtime = 1.5
            new.addfile(member, data)
    (tmp_path / "new.tar").replace(name)
    a, b = open_dataset(shards, "train"), open_dataset(path, "train")
    assert torch.equal(a[0].image, b[0].image)
    assert torch.equal(a[0].numbers, b[0].numbers)


def test_packing_never_replaces_a_users_folder(folder, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep me")
    for target in (tmp_path / "mine", folder):
        with pytest.raises(InputError, match="holds no shards"):
            pack(folder, target)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "keep me"


# ---- writing -------------------------------------------------------------------------------------------------------


def test_a_killed_build_resumes_without_a_bad_or_missing_row(tmp_path):
    code = "import sys, data_samples; data_samples.build_noise(sys.argv[1], 400, say=True)"
    command = [sys.executable, "-c", code, str(tmp_path / "killed")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    for lines in (3, 40):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        for _ in range(lines):
            process.stdout.readline()
        time.sleep(0.003)
        process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
        process.wait()
        process.stdout.close()
    with pytest.raises(InputError, match="unfinished"):
        Dataset(tmp_path / "killed")
    journal = max((tmp_path / "killed" / ".building").glob("*.jsonl"), key=lambda path: path.stat().st_size)
    whole = journal.read_bytes()
    journal.write_bytes(whole[: len(whole) - 100])  # a line that the kill tore
    stray = tmp_path / "killed" / "images" / "00000" / ".00000001.x.png"
    stray.write_bytes(b"torn")
    stray.with_name(".00000048.png.nfs4lwqz").write_bytes(b"")  # from asking whether a picture can be written
    build_noise(tmp_path / "killed", 400)
    build_noise(tmp_path / "straight", 400)

    def files(root: Path) -> dict[str, bytes]:
        return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}

    assert files(tmp_path / "killed") == files(tmp_path / "straight")
    assert len(Dataset(tmp_path / "killed")) == 400


def test_rows_do_not_depend_on_order_or_processes(tmp_path, head):
    camera, params = random_labels(6)
    pictures = render(head, camera, params, 32)
    for name, order in (("a", [0, 1, 2, 3, 4, 5]), ("b", [5, 2, 0, 1, 4, 3])):
        writers = [DatasetWriter(tmp_path / name, resolution=32, head="tiny") for _ in range(2)]
        for index in order:
            writers[index % 2].add(index, pictures[index], camera[index], params[index])
        writers[1].close()
        writers[0].finish(6)
    assert (tmp_path / "a" / "metadata.parquet").read_bytes() == (tmp_path / "b" / "metadata.parquet").read_bytes()


def test_rows_can_be_added_to_a_finished_dataset(tmp_path, head):
    camera, params = random_labels(6)
    pictures = render(head, camera, params, 32)
    for count in (3, 6):
        writer = DatasetWriter(tmp_path / "d", resolution=32, head="tiny", maker={"seed": 1})
        assert writer.done == set(range(3 if count == 6 else 0))
        for index in set(range(count)) - writer.done:
            writer.add(index, pictures[index], camera[index], params[index], latent=np.ones(3, np.float32) / 3)
        writer.finish(count)
    DatasetWriter(tmp_path / "w", resolution=32, head="tiny", maker={"seed": 1})
    whole = DatasetWriter(tmp_path / "w", resolution=32, head="tiny", maker={"seed": 1})
    for index in range(6):
        whole.add(index, pictures[index], camera[index], params[index], latent=np.ones(3, np.float32) / 3)
    whole.finish(6)
    assert parquet.read_table(tmp_path / "d" / "metadata.parquet").equals(
        parquet.read_table(tmp_path / "w" / "metadata.parquet")
    )


def test_the_writer_refuses_what_does_not_fit(tmp_path, head):
    camera, params = random_labels(2)
    writer = DatasetWriter(tmp_path / "d", resolution=32, head="tiny", maker={"seed": 1})
    with pytest.raises(InputError, match="expected uint8"):
        writer.add(0, np.zeros((16, 16, 3), np.uint8), camera[0], params[0])
    with pytest.raises(InputError, match="finite"):
        writer.add(0, np.zeros((32, 32, 3), np.uint8), camera[0].label * float("nan"), params[0])
    writer.add(0, np.zeros((32, 32, 3), np.uint8), camera[0], params[0])
    with pytest.raises(InputError, match="lacks 1 of 2 rows, the first is row 1"):
        writer.finish(2)
    with pytest.raises(InputError, match="seed = 1, now it is 2"):
        DatasetWriter(tmp_path / "d", resolution=32, head="tiny", maker={"seed": 2})
    with pytest.raises(InputError, match="resolution = 32, now it is 64"):
        DatasetWriter(tmp_path / "d", resolution=64, head="tiny", maker={"seed": 1})
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="not empty"):
        DatasetWriter(tmp_path / "photos", resolution=32, head="tiny")
    assert os.listdir(tmp_path / "photos") == ["me.jpg"]


# ---- Hugging Face datasets -----------------------------------------------------------------------------------------


def test_hugging_face_datasets_read_folder_and_shards(folder, shards, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    datasets = pytest.importorskip("datasets")
    ours = Dataset(folder)
    theirs = datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "a"))["train"]
    assert len(theirs) == 40
    row = theirs[4]
    assert np.array_equal(np.asarray(row["image"]), ours[4].image.permute(1, 2, 0).numpy())
    assert np.array_equal(np.float32(row["camera"]), ours[4].camera.numpy())
    assert row["identity"] == 4
    packed = datasets.load_dataset("webdataset", data_dir=str(shards), cache_dir=str(tmp_path / "b"))
    assert sum(len(part) for part in packed.values()) == 40
    sample = packed["train"][0]
    first = open_dataset(shards, "train")[0]
    assert np.array_equal(np.asarray(sample["png"]), first.image.permute(1, 2, 0).numpy())
    assert np.array_equal(np.float32(sample["npy"])[:187], first.numbers.numpy())
    assert sample["json"]["identity"] == first.row["identity"]
