"""Validate, show, import and the dataset commands: what a user sees, and that bad input writes nothing."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image

from data_samples import random_labels, render, tiny_head, write_dataset
from next3d.cli.main import main
from next3d.data import Dataset, open_dataset
from next3d.data.importers import import_dataset
from next3d.data.mesh_fit import MeshFit
from next3d.data.shards import pack
from next3d.data.show import nice_range, show, statistics
from next3d.data.validate import draw_overlay, validate
from next3d.data.writer import DatasetWriter, picture_name
from next3d.errors import InputError
from next3d.geometry.cameras import Camera
from next3d.heads import HeadParams


@pytest.fixture(scope="module")
def head():
    return tiny_head()


@pytest.fixture(scope="module")
def head_file(head, tmp_path_factory):
    path = tmp_path_factory.mktemp("head") / "tiny.safetensors"
    head.save(path)
    return path


def calm_labels(count: int) -> tuple[Camera, HeadParams]:
    """Random labels within anatomy."""
    camera, params = random_labels(count)
    return camera, params.replace(jaw=params.jaw.abs() * torch.tensor([1.0, 0.2, 0.2]), eyes=params.eyes * 0.3)


@pytest.fixture
def folder(head, tmp_path):
    camera, params = calm_labels(24)
    pictures = render(head, camera, params, 32)
    writer = DatasetWriter(tmp_path / "data", resolution=32, head=head.name)
    for index in range(24):
        writer.add(index, pictures[index], camera[index], params[index], identity=index % 9)
    writer.finish(24)
    return tmp_path / "data"


def change_rows(folder: Path, change) -> None:
    rows = parquet.read_table(folder / "metadata.parquet").to_pylist()
    change(rows)
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "metadata.parquet")


# ---- validate ------------------------------------------------------------------------------------------------------


def test_a_good_dataset_passes_in_both_layouts(folder, tmp_path):
    pack(folder, tmp_path / "shards", per_shard=5)
    for path in (folder, tmp_path / "shards"):
        report = validate(path, progress=False)
        assert report.ok, report.table()
        assert report.count == 24


def test_every_kind_of_offender_is_found_and_named(folder):
    def spoil(rows):
        rows[0]["camera"][0] *= 1.1
        rows[1]["camera"][16] = 0.01
        rows[2]["shape"][3] = 50.0
        rows[3]["jaw"][0] = 1.5
        rows[4]["eyes"][2] = float("inf")
        rows[5]["file_name"] = rows[6]["file_name"]
        rows[7]["split"] = "test" if rows[7]["split"] != "test" else "train"
        for k in (0, 1, 2, 4, 5, 6, 8, 9, 10):  # a reflection: orthonormal, but left-handed
            rows[8]["camera"][k] *= -1
        turned = np.array(rows[15]["camera"][:16]).reshape(4, 4) @ np.diag([-1, 1, -1, 1])
        rows[15]["camera"][:16] = turned.flatten().tolist()

    change_rows(folder, spoil)
    names = {index: picture_name(index) for index in range(24)}
    (folder / names[9]).unlink()
    (folder / names[10]).write_bytes((folder / names[10]).read_bytes()[:-40])
    Image.new("RGB", (32, 16)).save(folder / names[11])
    Image.new("L", (32, 32)).save(folder / names[12])
    (folder / names[13]).write_bytes((folder / names[14]).read_bytes())
    Image.new("RGB", (32, 32)).save(folder / "images" / "00000" / "stranger.png")
    offenders = validate(folder, progress=False).offenders

    def found(check: str) -> set[str]:
        return {re.split(r"[: ]", line.removeprefix("picture "))[0] for line in offenders[check]}

    assert found("files") == {names[9]}
    assert found("pictures") == {names[10], names[12]}
    assert found("size") == {names[11]}
    assert found("numbers") == {names[4]}
    assert found("rotations") == {names[0], names[8]}
    assert found("intrinsics") == {names[1]}
    assert found("in view") == {names[15]}
    assert found("parameters") == {names[2], names[3]}
    assert names[14] in found("duplicates")
    assert names[6] in found("duplicates")
    assert "identity 7" in offenders["splits"][0]
    assert found("unlisted") >= {"images/00000/stranger.png"}


def test_the_validate_command_exits_with_2_and_names_the_offender(folder, head_file, tmp_path, capsys):
    overlay = tmp_path / "overlay.png"
    main(["dataset", "validate", str(folder), "--overlay", str(overlay), "--head", str(head_file)])
    assert "24 rows" in capsys.readouterr().out
    assert Image.open(overlay).width > 1000
    change_rows(folder, lambda rows: rows[2]["shape"].__setitem__(3, 50.0))
    with pytest.raises(SystemExit) as stop:
        main(["dataset", "validate", str(folder)])
    assert stop.value.code == 2
    out = capsys.readouterr()
    assert "00000002.png" in out.err
    assert "shape reaches 50" in out.out


def test_the_overlay_lies_on_the_head_in_the_picture(head, tmp_path):
    """Where the mesh is drawn over the picture is where the head was rendered in it."""
    camera, params = random_labels(1)
    picture = render(head, camera, params, 256)
    writer = DatasetWriter(tmp_path / "d", resolution=256, head=head.name)
    writer.add(0, picture[0], camera[0], params[0])
    writer.finish(1)
    draw_overlay(tmp_path / "d", tmp_path / "o.png", head, count=1, cell=256)
    sheet = np.array(Image.open(tmp_path / "o.png")).astype(int)
    top = sheet.shape[0] - 4 - 256
    plain, over = sheet[top : top + 256, 4:260], sheet[top : top + 256, 264:520]
    covered = np.abs(over - plain).max(-1) > 0
    drawn = (picture[0] != picture[0][0, 0]).any(-1) & (np.abs(plain - (51, 76, 102)).max(-1) > 2)
    assert (covered & drawn).sum() / (covered | drawn).sum() > 0.97


def test_the_overlay_refuses_another_head(folder, head, tmp_path):
    info = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(info | {"head": "flame2020"}))
    with pytest.raises(InputError, match="head 'flame2020'"):
        draw_overlay(folder, tmp_path / "o.png", head)
    assert not (tmp_path / "o.png").exists()


# ---- show ----------------------------------------------------------------------------------------------------------


def test_statistics_give_back_the_angles_of_orbit_cameras():
    yaw, pitch, roll = torch.tensor([[0.5, -0.9, 0.0], [0.2, -0.3, 0.0], [0.1, -0.3, 0.25]])
    numbers = torch.zeros(3, 187)
    numbers[:, :25] = Camera.orbit(yaw, pitch, roll).label
    numbers[:, 178] = 0.3
    numbers[1, 125:129] = 0.5
    found = statistics(numbers.numpy())
    for name, angles in (("yaw", yaw), ("pitch", pitch), ("roll", roll)):
        assert np.allclose(found[name], torch.rad2deg(angles).numpy(), atol=1e-3), name
    assert np.allclose(found["jaw"], np.rad2deg(0.3))
    assert np.allclose(found["expression energy"], [0, 1, 0])


def test_show_writes_a_page_for_both_layouts(folder, tmp_path, capsys):
    pack(folder, tmp_path / "shards", per_shard=10)
    for path in (folder, tmp_path / "shards"):
        main(["dataset", "show", str(path), "--out", str(tmp_path / "page.png"), "--count", "6"])
        page = np.array(Image.open(tmp_path / "page.png"))
        assert page.shape[1] >= 1000
        assert page.std() > 20
    assert "page.png" in capsys.readouterr().out


def test_show_takes_datasets_of_one_row(head, tmp_path):
    write_dataset(tmp_path / "d", head, 1)
    show(tmp_path / "d", tmp_path / "page.png")
    assert (tmp_path / "page.png").exists()


@pytest.mark.parametrize(("low", "high"), [(0, 0), (-60, 58), (3.1, 9.7), (-1e-9, 1e-9), (0, 25), (-3, 40)])
def test_histogram_ranges_hold_the_values(low, high):
    bottom, top = nice_range(low, high)
    assert bottom <= low <= high <= top
    assert bottom < top


# ---- fitting -------------------------------------------------------------------------------------------------------


def test_parameters_come_back_from_vertices(head):
    _, params = random_labels(5)
    params = params.replace(jaw=params.jaw + torch.tensor([0.3, 0, 0]))  # 17° open: far from linear
    found, error = MeshFit(head)(head(params).vertices)
    assert error.max() < 1e-5
    assert torch.allclose(found.vector()[:, :156], params.vector()[:, :156], atol=2e-3)  # its eyes hardly show


def test_landmarks_are_fitted_within_a_millimetre(head):
    _, params = random_labels(5)
    found, error = MeshFit(head, "landmarks")(head(params).landmarks)
    assert error.max() < 1e-3
    assert found.shape.abs().max() < 5


def test_a_single_gauss_newton_refinement_reaches_what_the_fixed_derivative_misses(head):
    _, params = random_labels(1)
    params = params.replace(jaw=torch.tensor([[0.9, 0.0, 0.0]]), expression=params.expression * 0)
    found, error = MeshFit(head)(head(params).vertices, iterations=2)
    assert error.max() < 1e-5
    assert found.jaw[0, 0] == pytest.approx(0.9, abs=1e-3)


# ---- import --------------------------------------------------------------------------------------------------------


def eg3d_folder(root: Path, head, count: int = 6, size: int = 48) -> tuple[Camera, HeadParams, np.ndarray]:
    camera, params = calm_labels(count)
    pictures = render(head, camera, params, size)
    labels = []
    for index in range(count):
        name = f"0000{index % 2}/img{index:08d}.png"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pictures[index]).save(root / name)
        labels.append([name, camera[index].label.tolist()])
    (root / "dataset.json").write_text(json.dumps({"labels": labels}))
    return camera, params, pictures


def official_folder(root: Path, head, count: int = 6) -> tuple[Camera, HeadParams, np.ndarray]:
    camera, params, pictures = eg3d_folder(root / "images512x512", head, count)
    mesh = head(params)
    for index in range(count):
        stem = f"0000{index % 2}/img{index:08d}"
        for kind in ("meshes512x512", "lms512x512"):
            (root / kind / stem).parent.mkdir(parents=True, exist_ok=True)
        lines = ["# made by hand", *(f"v {x:.8f} {y:.8f} {z:.8f}" for x, y, z in mesh.vertices[index].tolist())]
        lines += [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in head.topology.faces.tolist()]
        (root / "meshes512x512" / f"{stem}.obj").write_text("\n".join(lines))
        np.savetxt(root / "lms512x512" / f"{stem}.txt", mesh.landmarks[index].numpy())
    return camera, params, pictures


def zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder).as_posix())
    return path


def by_source(path: Path) -> dict[str, int]:
    return {name.rpartition("/")[2]: index for index, name in enumerate(Dataset(path).columns["source"])}


@pytest.mark.parametrize("packed", [False, True])
def test_eg3d_labels_and_pictures_are_kept(packed, head, tmp_path):
    camera, _, pictures = eg3d_folder(tmp_path / "eg3d", head)
    source = zipped(tmp_path / "eg3d", tmp_path / "eg3d.zip") if packed else tmp_path / "eg3d"
    report = import_dataset(source, tmp_path / "out", head)
    assert report.info.count == 6
    assert any("neutral head" in note for note in report.notes)
    dataset, places = Dataset(tmp_path / "out"), by_source(tmp_path / "out")
    for index in range(6):
        sample = dataset[places[f"img{index:08d}.png"]]
        assert torch.equal(sample.image.permute(1, 2, 0), torch.from_numpy(pictures[index]))
        assert torch.allclose(sample.camera, camera[index].label)
        assert sample.row["confidence"] == 0
    assert validate(tmp_path / "out", progress=False).ok


@pytest.mark.parametrize("packed", [False, True])
def test_official_meshes_become_parameters(packed, head, head_file, tmp_path, capsys):
    _, params, _ = official_folder(tmp_path / "official", head)
    source = zipped(tmp_path / "official", tmp_path / "official.zip") if packed else tmp_path / "official"
    main(["dataset", "import", str(source), "--out", str(tmp_path / "out"), "--head", str(head_file)])
    assert "fit to the vertices: median 0.000 mm" in capsys.readouterr().out
    dataset, places = Dataset(tmp_path / "out"), by_source(tmp_path / "out")
    found = HeadParams.stack([dataset[places[f"img{index:08d}.png"]].params for index in range(6)])
    assert (head(found).vertices - head(params).vertices).norm(dim=-1).max() < 1e-5
    assert max(dataset.columns["fit_error"]) < 1e-5
    assert set(dataset.columns["confidence"]) == {1.0}


def test_landmarks_serve_where_the_topology_differs(head, tmp_path):
    official_folder(tmp_path / "official", head)
    for mesh in (tmp_path / "official" / "meshes512x512").rglob("*.obj"):
        mesh.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    report = import_dataset(tmp_path / "official", tmp_path / "out", head)
    assert report.fitted == "landmarks"
    assert report.error.max() < 1e-3
    assert any("have 3 vertices" in note for note in report.notes)


def test_mirrored_pictures_share_identity_and_split(head, tmp_path):
    eg3d_folder(tmp_path / "eg3d", head, 4)
    labels = json.loads((tmp_path / "eg3d" / "dataset.json").read_text())["labels"]
    for name, label in list(labels):
        twin = name.replace(".png", "_mirror.png")
        Image.open(tmp_path / "eg3d" / name).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "eg3d" / twin)
        labels.append([twin, Camera.from_label(torch.tensor(label)).mirror().label.tolist()])
    (tmp_path / "eg3d" / "dataset.json").write_text(json.dumps({"labels": labels}))
    import_dataset(tmp_path / "eg3d", tmp_path / "out", head)
    identities = Dataset(tmp_path / "out").columns["identity"]
    assert len(identities) == 8
    assert sorted(set(identities)) == [f"img{index:08d}" for index in range(4)]


def test_pictures_are_made_smaller_on_request_and_converted(head, tmp_path):
    eg3d_folder(tmp_path / "eg3d", head)
    path = tmp_path / "eg3d" / "00000" / "img00000000.png"
    Image.open(path).convert("RGBA").resize((96, 96)).save(path)
    with pytest.raises(InputError, match=r"differ in size: .* has 48 pixels, .*img00000000.png 96; choose"):
        import_dataset(tmp_path / "eg3d", tmp_path / "out", head)
    assert not (tmp_path / "out").exists()
    import_dataset(tmp_path / "eg3d", tmp_path / "out", head, resolution=24)
    assert open_dataset(tmp_path / "out")[0].image.shape == (3, 24, 24)


def test_an_import_skips_broken_pictures_and_resumes(head, tmp_path):
    official_folder(tmp_path / "official", head)
    images = tmp_path / "official" / "images512x512"
    broken = images / "00000" / "img00000002.png"
    broken.write_bytes(broken.read_bytes()[:-60])
    (images / "00001" / "img00000003.png").write_bytes(b"no picture at all")
    (tmp_path / "official" / "meshes512x512" / "00001" / "img00000005.obj").write_text("v 0 0 zero\n")
    report = import_dataset(tmp_path / "official", tmp_path / "out", head)
    assert report.info.count == 3
    assert len(report.skipped) == 3
    assert all(any(name in line for line in report.skipped) for name in ("img00000002", "img00000003", "img00000005"))
    again = import_dataset(tmp_path / "official", tmp_path / "out", head)
    assert again.info.count == 3


def refused(source: Path, out: Path, head, message: str) -> None:
    before = sorted(path for path in out.parent.rglob("*"))
    with pytest.raises(InputError, match=message) as error:
        import_dataset(source, out, head)
    assert "\n" not in str(error.value)
    assert sorted(path for path in out.parent.rglob("*")) == before


@pytest.mark.parametrize("name", ["../evil.png", "/tmp/evil.png", "a/../../evil.png", "..\\evil.png", "C:/evil.png"])
def test_zip_entries_that_lead_outside_are_refused(name, head, tmp_path):
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("dataset.json", json.dumps({"labels": []}))
        archive.writestr(name, b"x")
    refused(path, tmp_path / "out", head, "refused")


def test_links_and_bombs_in_zips_are_refused(head, tmp_path):
    link = zipfile.ZipInfo("00000/img.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    refused(tmp_path / "link.zip", tmp_path / "out", head, "holds the link")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("00000/img.png", bytes(300 << 20))
    refused(tmp_path / "bomb.zip", tmp_path / "out", head, "unpacks to")


def test_pictures_that_cannot_be_used_are_refused_before_anything_is_written(head, tmp_path):
    eg3d_folder(tmp_path / "eg3d", head)
    path = tmp_path / "eg3d" / "00001" / "img00000003.png"
    Image.new("RGB", (48, 40)).save(path)
    refused(tmp_path / "eg3d", tmp_path / "out", head, "48×40: pictures must be square")
    for size, message in ((8, "resolution 8 is outside|differ in size"), (11000, "more than 100,000,000 pixels")):
        Image.new("1", (size, size)).save(path)
        refused(tmp_path / "eg3d", tmp_path / "out", head, message)
    Image.new("RGB", (32, 32)).save(path)
    with pytest.raises(InputError, match="smaller than 48×48"):
        import_dataset(tmp_path / "eg3d", tmp_path / "out", head, resolution=48)


def test_bad_labels_and_unknown_layouts_are_named(head, tmp_path):
    eg3d_folder(tmp_path / "eg3d", head)
    labels = tmp_path / "eg3d" / "dataset.json"
    whole = json.loads(labels.read_text())["labels"]
    for values, message in (
        ({"labels": None}, "holds no labels"),
        ({"labels": [[whole[0][0], whole[0][1][:24]]]}, "not 25 finite numbers"),
        ({"labels": [["gone.png", whole[0][1]]]}, "none is there"),
        ({"labels": [["../../etc/passwd", whole[0][1]]]}, "refused"),
    ):
        labels.write_text(json.dumps(values))
        refused(tmp_path / "eg3d", tmp_path / "out", head, message)
    labels.unlink()
    refused(tmp_path / "eg3d", tmp_path / "out", head, r"no dataset\.json")
    refused(tmp_path / "nowhere", tmp_path / "out", head, "there is no dataset")


def test_meshes_of_another_head_or_unit_are_refused(head, tmp_path):
    official_folder(tmp_path / "official", head)
    import shutil

    for mesh in (tmp_path / "official" / "meshes512x512").rglob("*.obj"):
        lines = [line.split() for line in mesh.read_text().splitlines()]
        scaled = [f"v {' '.join(str(1000 * float(c)) for c in f[1:])}" if f[0] == "v" else " ".join(f) for f in lines]
        mesh.write_text("\n".join(scaled))
    refused(tmp_path / "official", tmp_path / "out", head, "do not fit the head 'tiny'")
    shutil.rmtree(tmp_path / "official" / "lms512x512")
    refused(tmp_path / "official", tmp_path / "out", tiny_head(rings=6), r"192 vertices, the head 'tiny' has 96")


# ---- the command line ----------------------------------------------------------------------------------------------


def test_commands_say_what_is_wrong_in_one_line(folder, tmp_path, capsys):
    for arguments in (
        ["pack", str(folder), "--out", str(folder)],
        ["pack", str(tmp_path / "nowhere"), "--out", str(tmp_path / "s")],
        ["show", str(tmp_path / "nowhere")],
        ["validate", str(tmp_path / "nowhere")],
        ["import", str(tmp_path / "nowhere"), "--out", str(tmp_path / "o")],
        ["validate", str(folder), "--overlay", str(folder)],
    ):
        with pytest.raises(SystemExit) as stop:
            main(["dataset", *arguments])
        assert stop.value.code == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("next3d: error:"), error


def test_pack_command(folder, tmp_path, capsys):
    main(["dataset", "pack", str(folder), "--out", str(tmp_path / "s"), "--per-shard", "10"])
    assert "shards" in capsys.readouterr().out
    assert len(open_dataset(tmp_path / "s")) == 24


def test_reading_speed_is_measured_for_both_layouts(folder, tmp_path, capsys):
    from next3d.data.benchmark import describe, reading_speed

    pack(folder, tmp_path / "s")
    for path in (folder, tmp_path / "s"):
        speed = reading_speed(path, rounds=2)
        assert speed["share"] == pytest.approx(speed["read"] / speed["decode"])
        assert "32×32" in describe(open_dataset(path), speed)


def test_large_pictures_are_copied_piece_by_piece_without_loss():
    from next3d.data.dataset import PIECE, pixels

    picture = np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)
    assert picture.shape[0] * picture.shape[1] > PIECE  # so that several pieces, the last one short, are needed
    copied = pixels(Image.fromarray(picture))
    assert np.array_equal(copied, picture)
    assert copied.flags.writeable


def test_synthesize_command_writes_a_valid_dataset(tmp_path, capsys):
    out = tmp_path / "people"
    main(["dataset", "synthesize", "--out", str(out), "--count", "2", "--resolution", "32", "--workers", "1", "--aux"])
    assert "2 pictures of 32×32" in capsys.readouterr().out
    assert validate(out, progress=False).ok
    assert open_dataset(out, aux=True)[1].aux["parts"].shape == (1, 32, 32)
