"""The commands generate, interpolate, mesh, animate and head: what they write, and what they say to bad input."""

from __future__ import annotations

import csv
import json
import math
import signal

import numpy as np
import pytest
import torch

import next3d
from next3d.cli.common import parse_seeds
from next3d.cli.main import main
from next3d.errors import InputError
from next3d.heads import HeadParams, Motion, load_head
from next3d.heads.arkit import read_arkit_csv
from next3d.io.images import read_image
from next3d.io.video import read_video, video_info

TINY = ("--model", "untrained:tiny")


def write_obj(path, vertices, topology, uvs: bool = True) -> None:
    lines = [f"v {x:.7f} {y:.7f} {z:.7f}" for x, y, z in vertices.tolist()]
    if uvs:
        lines += [f"vt {u:.6f} {1 - v:.6f}" for u, v in topology.uvs.tolist()]
    for corners, places in zip((topology.faces + 1).tolist(), (topology.uv_faces + 1).tolist()):
        lines.append("f " + " ".join(f"{a}/{b}" if uvs else f"{a}" for a, b in zip(corners, places)))
    path.write_text("\n".join(lines))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A mesh of the built-in head with its landmarks, and spoilt versions of it."""
    folder = tmp_path_factory.mktemp("meshes")
    head = load_head("builtin")
    mesh = head(head.params(jawOpen=0.5))
    vertices = mesh.vertices[0]
    write_obj(folder / "head.obj", vertices, head.topology)
    np.savetxt(folder / "head.txt", mesh.landmarks[0].numpy())
    write_obj(folder / "no_uvs.obj", vertices, head.topology, uvs=False)
    nan = vertices.clone()
    nan[7, 1] = math.nan
    write_obj(folder / "nan.obj", nan, head.topology)
    write_obj(folder / "millimetres.obj", 1000 * vertices, head.topology)
    (folder / "other.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n")
    shuffled = load_head("builtin").topology
    order = torch.randperm(len(vertices), generator=torch.Generator().manual_seed(0))
    shuffled = type(shuffled)(
        order.argsort()[shuffled.faces], shuffled.uvs, shuffled.uv_faces, shuffled.face_mask, len(order)
    )
    write_obj(folder / "shuffled.obj", vertices[order], shuffled)
    np.savetxt(folder / "short.txt", mesh.landmarks[0, :60].numpy())
    return folder


def refused(capsys, arguments, *words: str) -> str:
    """Run a command that must fail: exit code 2, one line, no traceback."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    assert stopped.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("next3d: error:")]
    assert len(lines) == 1
    assert "Traceback" not in lines[0]
    for word in words:
        assert word in lines[0], lines[0]
    return lines[0]


# generate


def test_generate_one_picture(tmp_path):
    main(["generate", *TINY, "--seed", "3", "--out", str(tmp_path / "one.png")])
    assert read_image(tmp_path / "one.png").shape == (32, 32, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["one.png"]


def test_generate_a_grid_with_depth_and_normals(tmp_path):
    main(
        [
            "generate",
            *TINY,
            "--seeds",
            "0-1",
            "--yaw",
            "-20",
            "20",
            "--pitch",
            "0",
            "10",
            "--depth",
            "--normals",
            "--out",
            str(tmp_path / "sheet.png"),
        ]
    )
    sheet = read_image(tmp_path / "sheet.png")
    assert sheet.shape[1] == 6 * 36 + 4  # two yaws × picture, depth, normals
    assert sheet.shape[0] > 4 * 36  # two heads × two pitches, each with a label


def test_generate_into_a_folder(tmp_path):
    main(["generate", *TINY, "--seeds", "0,5", "--yaw", "0", "30", "--depth", "--out", str(tmp_path / "pictures")])
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert names == {f"seed{s}_yaw{y}{d}.png" for s in (0, 5) for y in (0, 30) for d in ("", "_depth")}


def test_parameters_by_name_move_the_picture(tmp_path):
    for name, extra in (("rest", []), ("open", ["--set", "jawOpen=1", "neck=0,0.4,0"])):
        main(["generate", *TINY, "--seed", "0", *extra, "--out", str(tmp_path / f"{name}.png")])
    assert (read_image(tmp_path / "rest.png") != read_image(tmp_path / "open.png")).any()


def test_generate_from_a_mesh_is_generating_from_its_parameters(tmp_path, files):
    model = next3d.load("untrained:tiny")
    main(
        [
            "generate",
            *TINY,
            "--seed",
            "0",
            "--mesh",
            str(files / "head.obj"),
            "--landmarks",
            str(files / "head.txt"),
            "--out",
            str(tmp_path / "mesh.png"),
        ]
    )
    main(["generate", *TINY, "--seed", "0", "--mesh", str(files / "head.obj"), "--out", str(tmp_path / "alone.png")])
    avatar = next3d.avatar.sample(model, 0, shape=torch.zeros(100))
    expected = avatar.render(model.head.params(jawOpen=0.5)).image
    picture = torch.from_numpy(read_image(tmp_path / "mesh.png")).movedim(-1, 0) / 127.5 - 1
    assert (picture - expected.clamp(-1, 1)).abs().max() < 0.03
    assert np.abs(read_image(tmp_path / "alone.png").astype(int) - read_image(tmp_path / "mesh.png")).max() <= 1


def test_avatars_are_saved_and_drawn_again(tmp_path):
    main(["generate", *TINY, "--seed", "4", "--save-avatar", str(tmp_path), "--out", str(tmp_path / "a.png")])
    main(["generate", *TINY, "--avatar", str(tmp_path / "seed4.avatar"), "--out", str(tmp_path / "b.png")])
    assert np.array_equal(read_image(tmp_path / "a.png"), read_image(tmp_path / "b.png"))


# interpolate, mesh, animate


def test_interpolate(tmp_path):
    main(["interpolate", *TINY, "--seeds", "0-2", "--seconds", "0.2", "--fps", "20", "--out", str(tmp_path / "a.mp4")])
    info = video_info(tmp_path / "a.mp4")
    assert (info.frames, info.width, info.height) == (12, 32, 32)


@pytest.mark.parametrize("suffix", [".glb", ".ply", ".obj"])
def test_mesh(tmp_path, suffix):
    import trimesh

    out = tmp_path / f"head{suffix}"
    main(["mesh", *TINY, "--resolution", "12", "--level", "0.5", "--set", "jawOpen=0.5", "--out", str(out)])
    mesh = trimesh.load(out, force="mesh", process=False)
    assert len(mesh.faces) > 20
    assert np.abs(mesh.vertices).max() < 0.25


def test_animate_side_by_side(tmp_path):
    main(["animate", *TINY, "--seeds", "0-2", "--clip", "blink", "--seconds", "0.4", "--out", str(tmp_path / "a.mp4")])
    info = video_info(tmp_path / "a.mp4")
    assert (info.width, info.height, info.frames) == (96, 32, 10)


def test_animate_a_motion_file_with_every_camera(tmp_path):
    jaw = torch.zeros(6, 3)
    jaw[:, 0] = torch.linspace(0, 0.4, 6)
    cameras = next3d.Camera.orbit(torch.linspace(-0.4, 0.4, 6))
    Motion(HeadParams(jaw=jaw), 12.0, cameras).save(tmp_path / "move.npz")
    for camera in ("motion", "fixed", "orbit"):
        out = tmp_path / f"{camera}.mp4"
        main(["animate", *TINY, "--motion", str(tmp_path / "move.npz"), "--camera", camera, "--out", str(out)])
        assert len(list(read_video(out))) == 6
        assert video_info(out).fps == 12
    out = tmp_path / "resampled.mp4"
    main(
        [
            "animate",
            *TINY,
            "--motion",
            str(tmp_path / "move.npz"),
            "--fps",
            "24",
            "--mirror",
            "--smooth",
            "0.1",
            "--precision",
            "bfloat16",
            "--out",
            str(out),
        ]
    )
    assert video_info(out).frames == 12


def test_animate_arkit_coefficients(tmp_path):
    head = load_head("builtin")
    with open(tmp_path / "face.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["Timecode", "BlendShapeCount", "JawOpen", "MouthSmileLeft", "HeadYaw"])
        for index in range(5):
            table.writerow([f"00:00:00:{index}", 61, index / 4, 0.5, 0.1 * index])
    motion = read_arkit_csv(tmp_path / "face.csv", head)
    assert len(motion) == 5
    assert motion.fps == 60
    assert torch.allclose(motion.params[4].jaw, head.params(jawOpen=1).jaw)
    assert motion.params.expression[2, head.expression_names.index("mouthSmileLeft")] == 0.5
    assert motion.params.neck[4, 1] == pytest.approx(0.4)
    main(["animate", *TINY, "--motion", str(tmp_path / "face.csv"), "--out", str(tmp_path / "a.mp4")])
    assert video_info(tmp_path / "a.mp4").frames == 5
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no ARKit coefficients"):
        read_arkit_csv(tmp_path / "other.csv", head)
    (tmp_path / "bad.csv").write_text("jawOpen\nwide\n")
    with pytest.raises(InputError, match="'jawOpen'"):
        read_arkit_csv(tmp_path / "bad.csv", head)


# head


@pytest.mark.parametrize("sheet", ["turntable", "closeups", "clip"])
def test_head_sheets(tmp_path, sheet):
    main(["head", "--sheet", sheet, "--size", "32", "--landmarks", "--out", str(tmp_path / "sheet.png")])
    picture = read_image(tmp_path / "sheet.png")
    assert picture.std() > 20
    rows, columns = {"turntable": (2, 4), "closeups": (2, 3), "clip": (3, 8)}[sheet]
    assert picture.shape[1] == columns * 36 + 4
    assert picture.shape[0] > rows * 36


def test_head_files(tmp_path, capsys):
    import trimesh

    main(["head", "--set", "jawOpen=0.5", "headWidth=1.5", "--clip", "blink", "--out", str(tmp_path / "head.glb")])
    assert (tmp_path / "head.glb").stat().st_size > 10**6
    main(["head", "--seed", "3", "--out", str(tmp_path / "head.ply")])
    head = load_head("builtin")
    assert len(trimesh.load(tmp_path / "head.ply", process=False).vertices) == head.topology.vertex_count
    main(["head", "--list-names"])
    assert "mouthSmileLeft" in capsys.readouterr().out


# bad input


@pytest.mark.parametrize(
    ("mesh", "landmarks", "words"),
    [
        ("no_uvs.obj", "head.txt", ["no_uvs.obj", "UVs"]),
        ("other.obj", "head.txt", ["3 vertices", "topology"]),
        ("shuffled.obj", "head.txt", ["topology"]),
        ("nan.obj", "head.txt", ["nan.obj", "not finite"]),
        ("millimetres.obj", "head.txt", ["millimetres.obj", "in metres"]),
        ("missing.obj", "head.txt", ["missing.obj"]),
        ("head.obj", "short.txt", ["short.txt", "68"]),
        ("head.obj", "missing.txt", ["missing.txt"]),
        (None, "head.txt", ["--mesh"]),
    ],
)
def test_bad_meshes(capsys, tmp_path, files, mesh, landmarks, words):
    arguments = ["generate", *TINY, "--landmarks", files / landmarks, "--out", tmp_path / "a.png"]
    refused(capsys, [*arguments, *(["--mesh", files / mesh] if mesh else [])], *words)
    assert list(tmp_path.iterdir()) == []


def test_bad_models(capsys, tmp_path):
    out = ["--out", tmp_path / "a.png"]
    refused(capsys, ["generate", "--model", tmp_path / "nowhere", *out], "nowhere")
    refused(capsys, ["generate", "--model", "untrained:huge", *out], "huge", "tiny")
    folder = tmp_path / "model"
    next3d.load("untrained:tiny").save_pretrained(folder)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(capsys, ["generate", "--model", folder, *out], "model.safetensors", "truncated")
    (folder / "model.safetensors").write_bytes(whole)
    config = json.loads((folder / "config.json").read_text())
    config["superres"]["resolution"] = 48
    (folder / "config.json").write_text(json.dumps(config))
    refused(capsys, ["generate", "--model", folder, *out], "superres.resolution", "power of two", "48")
    config["superres"]["resolution"], config["mapping"]["w_dim"] = 32, 24
    (folder / "config.json").write_text(json.dumps(config))
    refused(capsys, ["generate", "--model", folder, *out], "of another shape", "(16,", "(24,")
    (folder / "config.json").unlink()
    refused(capsys, ["generate", "--model", folder, *out], "config.json")
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("command", "name"),
    [("generate", "a.png"), ("interpolate", "a.mp4"), ("mesh", "a.glb"), ("animate", "a.mp4"), ("head", "a.png")],
)
def test_outputs_that_cannot_be_written(capsys, tmp_path, command, name):
    (tmp_path / "file").write_text("in the way")
    model = [] if command == "head" else TINY
    refused(capsys, [command, *model, "--out", tmp_path / "file" / name], "cannot write", "is a file, not a folder")
    refused(capsys, [command, *model, "--out", tmp_path / "a.xyz"], "a.xyz")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate", *TINY, "--seed", "a-b"], ["--seed 'a-b'"]),
        (["generate", *TINY, "--set", "jawOpne=1"], ["jawOpne", "jawOpen"]),
        (["generate", *TINY, "--set", "jawOpen"], ["name=value"]),
        (["generate", *TINY, "--set", "jaw=0.1,0.2"], ["'jaw' has 3 numbers"]),
        (["generate", *TINY, "--set", "jaw=nan,0,0"], ["NaN"]),
        (["generate", *TINY, "--device", "abacus"], ["--device abacus"]),
        (["generate", *TINY, "--yaw", "nan"], ["finite"]),
        (["generate", "--model", "nowhere", "--save-avatar", __file__], ["is a file, not a folder"]),
        (["generate", *TINY, "--truncation", "nan"], ["truncation"]),
        (["generate", *TINY, "--avatar", "none.avatar"], ["none.avatar"]),
        (["generate", *TINY, "--head", "nowhere"], ["nowhere"]),
        (["animate", *TINY, "--clip", "sing"], ["sing", "talk"]),
        (["animate", *TINY, "--motion", "none.npz"], ["none.npz"]),
        (["animate", *TINY, "--motion", "a.npz", "--driver", "b.mp4"], ["either"]),
        (["animate", *TINY, "--driver", "none.mp4"], ["none.mp4"]),
        (["interpolate", *TINY, "--seconds", "0"], ["--seconds"]),
        (["mesh", *TINY, "--level", "1e6", "--resolution", "8"], ["no surface"]),
        (["mesh", *TINY, "--resolution", "4"], ["8 to 1024"]),
        (["mesh", *TINY, "--seed", "0-3"], ["one head"]),
        (["head", "--head", "nowhere"], ["nowhere"]),
        (["head", "--size", "4"], ["--size"]),
        (["convert", "none.pkl", "--out", "folder"], ["none.pkl"]),
    ],
)
def test_bad_arguments(capsys, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    refused(capsys, arguments, *words)
    assert list(tmp_path.iterdir()) == []


def test_wrong_formats_of_parameter_arrays(capsys, tmp_path):
    np.savez(tmp_path / "short.npz", expression=np.zeros((4, 49)), fps=25)
    line = refused(
        capsys, ["animate", *TINY, "--motion", tmp_path / "short.npz", "--out", tmp_path / "a.mp4"], "expression"
    )
    assert "50" in line
    assert "49" in line
    np.savez(tmp_path / "nan.npz", jaw=np.full((4, 3), np.nan), fps=25)
    refused(capsys, ["animate", *TINY, "--motion", tmp_path / "nan.npz", "--out", tmp_path / "a.mp4"], "jaw", "NaN")
    assert not (tmp_path / "a.mp4").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_video_leaves_no_file(tmp_path, monkeypatch, number, code):
    from next3d.avatar import Avatar

    def broken(self, *_):
        yield from ()
        signal.raise_signal(number)

    monkeypatch.setattr(Avatar, "animate", broken)
    before = signal.getsignal(signal.SIGTERM)
    # A process started in the background ignores Ctrl-C; this test is about one in the foreground.
    ignoring = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as stopped:
            main(["animate", *TINY, "--seconds", "1", "--out", str(tmp_path / "a.mp4")])
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, ignoring)
    assert stopped.value.code == code
    assert list(tmp_path.iterdir()) == []


def test_seeds():
    assert parse_seeds("7") == [7]
    assert parse_seeds("0-3, 7") == [0, 1, 2, 3, 7]
    for wrong in ("", "x", "3-", "5-2", "0-99999999"):
        with pytest.raises(InputError, match="--seed"):
            parse_seeds(wrong)
