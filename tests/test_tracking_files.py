"""Tracking from files: detection on real pictures, crops, DECA, other tools' parameters, dataset building."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from next3d.cli.main import main
from next3d.data.dataset import Dataset
from next3d.errors import InputError
from next3d.geometry.cameras import Camera
from next3d.geometry.meshes import world_from_head
from next3d.geometry.rotations import axis_angle_from_matrix, rotation_angle
from next3d.heads import HeadParams, Motion, load_head
from next3d.raster.shading import shaded
from next3d.tracking import detector as detection
from next3d.tracking.build import BuildSettings, build_dataset
from next3d.tracking.converters import camera_from_head_rotation, load_parameters
from next3d.tracking.crop import Crop
from next3d.tracking.deca import CODE, DecaEncoder, load_deca
from next3d.tracking.detector import Face, choose_face, download_model, open_detector

MEDIA = Path(__file__).parents[2] / "shared" / "media"
needs_media = pytest.mark.skipif(not MEDIA.is_dir(), reason="the example portraits and clip are not here")


@pytest.fixture(scope="module")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what people's folders hold: portraits, a text called a picture, a picture without a face."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("s0.jpg", "d30.jpg"):
        (folder / name).write_bytes((MEDIA / name).read_bytes())
    (folder / "text.png").write_text("not a picture")
    Image.new("RGB", (300, 300), (120, 160, 120)).save(folder / "wall.png")
    return folder


@needs_media
@pytest.mark.slow
def test_portraits_are_tracked_and_one_bad_file_ends_nothing(
    portraits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, preview = tmp_path / "m.npz", tmp_path / "p.png"
    main(["track", str(portraits), "--out", str(out), "--preview", str(preview)])
    motion = Motion.load(out)
    assert len(motion) == 2
    assert motion.camera is not None
    assert motion.crop is not None
    assert motion.confidence is not None
    assert (motion.confidence > 0.5).all()  # a residual within 4 % of the inter-ocular distance
    error = capsys.readouterr().err
    assert "skipped text.png" in error
    assert "skipped wall.png: no face" in error
    assert Image.open(preview).width == 3 * 384 + 8
    # The woman of d30 tilts her head to her right; roll stays in the camera.
    up = motion.camera.cam2world[0, :3, 1]
    assert 8 < np.degrees(np.arctan2(abs(float(up[0])), -float(up[1]))) < 30


@needs_media
@pytest.mark.slow
def test_a_clip_is_steady_without_lag(tmp_path: Path) -> None:
    motions = []
    for smoothing in ("0", "1"):
        out = tmp_path / f"{smoothing}.npz"
        main(["track", str(MEDIA / "d0.mp4"), "--out", str(out), "--smoothing", smoothing])
        motions.append(Motion.load(out))
    raw, steady = motions
    assert len(raw) == len(steady) == 78
    assert steady.confidence is not None
    assert steady.confidence.min() > 0.5
    assert (steady.params.shape == steady.params.shape[:1]).all()  # one person, one shape …
    assert steady.params.shape.abs().max() < 3  # … that a person can have
    names = load_head("builtin").expression_names
    smile = steady.params.expression[:, [names.index("mouthSmileLeft"), names.index("mouthSmileRight")]].mean(1)
    assert smile[40] > 0.4  # he grins in the middle, and is calm at both ends
    assert smile[5] < 0.2
    assert smile[70] < 0.2

    def angles(motion: Motion) -> torch.Tensor:
        assert motion.camera is not None
        first = motion.camera.cam2world[0, :3, :3]
        return axis_angle_from_matrix(first.mT @ motion.camera.cam2world[:, :3, :3])

    jitter = [torch.diff(angles(m), n=2, dim=0).square().mean().sqrt() for m in motions]
    assert jitter[1] <= 0.5 * jitter[0]
    from test_tracking_fit import lag

    moves = angles(raw).std(0).argmax()
    assert abs(lag(angles(raw)[:, moves].numpy(), angles(steady)[:, moves].numpy())) < 0.5


@needs_media
@pytest.mark.slow
def test_a_folder_becomes_a_dataset_and_says_what_it_left_out(portraits: Path, tmp_path: Path) -> None:
    out = tmp_path / "ds"
    info, outcomes = build_dataset(portraits, out, BuildSettings(resolution=128), workers=1, progress=False)
    assert info.count == 2
    reasons = {outcome.name: outcome.reason for outcome in outcomes}
    assert reasons["s0.jpg"] == reasons["d30.jpg"] == ""
    assert reasons["wall.png"] == "no face"
    assert "not a picture" in reasons["text.png"]
    page = (out / "report.html").read_text()
    assert "2 of 4 pictures kept" in page
    assert page.count("data:image/jpeg") >= 3
    assert "http" not in page.replace("http-equiv", "")
    sample = Dataset(out)[0]
    assert sample.image.shape == (3, 128, 128)
    # The labelled mesh lies where the face is: its eyes project onto the upper middle of the picture.
    head = load_head("builtin")
    eyes = head(sample.params).landmarks[:, 36:48]
    uv, _ = Camera.from_label(sample.camera).project(world_from_head(eyes))
    assert 0.35 < uv[..., 0].mean() < 0.65
    assert 0.25 < uv[..., 1].mean() < 0.55


@needs_media
def test_faces_are_found_in_awkward_pictures(tmp_path: Path) -> None:
    from next3d.io.images import read_image

    source = Image.open(MEDIA / "s0.jpg").resize((300, 352))
    source.convert("L").save(tmp_path / "grey.png")
    source.convert("CMYK").save(tmp_path / "cmyk.jpg")
    source.convert("RGBA").save(tmp_path / "alpha.png")
    grey16 = np.asarray(source.convert("L"), np.uint16) * 257
    Image.fromarray(grey16).save(tmp_path / "deep.png")
    faces = open_detector()
    for name in ("grey.png", "cmyk.jpg", "alpha.png", "deep.png"):
        found = faces.detect(read_image(tmp_path / name))
        assert len(found) == 1, name
        assert found[0].points.shape == (478, 2)
    faces.close()


def fake_face(size: float) -> Face:
    points = np.zeros((478, 2), np.float32)
    points[0] = size
    return Face(points, points[:, 0])


def test_the_face_asked_for_is_taken() -> None:
    faces = [fake_face(100), fake_face(50)]
    assert choose_face(faces).size == 100
    assert choose_face(faces, "1").size == 50
    with pytest.raises(InputError, match=r"2 face\(s\) were found"):
        choose_face(faces, "2")
    with pytest.raises(InputError, match="no face was found"):
        choose_face([])


def test_nothing_is_downloaded_unasked_and_every_download_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXT3D_CACHE", str(tmp_path / "cache"))

    class NewMediaPipe:  # a version without the models inside
        pass

    monkeypatch.setattr(detection, "require", lambda package, extra: NewMediaPipe())
    with pytest.raises(InputError, match="--download-face-model"):
        open_detector()
    monkeypatch.undo()
    monkeypatch.setenv("NEXT3D_CACHE", str(tmp_path / "cache"))
    served = tmp_path / "served.task"
    served.write_bytes(b"something else")
    with pytest.raises(InputError, match="SHA-256 differs"):
        download_model(served.as_uri())
    assert not list((tmp_path / "cache").iterdir())


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(InputError, match=r"next3d\[tracking\]"):
        open_detector()


def test_a_crop_can_be_pasted_back() -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (20, 26, 3), np.uint8))
    image = np.asarray(noise.resize((320, 240), Image.Resampling.BICUBIC))
    crop = Crop(170.3, 110.7, 120.0)
    patch = crop.cut(image, 240)
    back = crop.paste(np.zeros_like(image), patch)
    inside = (slice(75, 145), slice(135, 205))
    assert np.abs(back[inside].astype(int) - image[inside]).mean() < 1.5
    assert back[:40].max() == 0
    points = np.array([[150.0, 100.0], [12.5, 3.0]], np.float32)
    np.testing.assert_allclose(crop.restore(crop.normalise(points)), points, atol=1e-3)


def test_a_crop_beyond_the_edge_goes_on_smoothly() -> None:
    image = np.full((100, 100, 3), 200, np.uint8)
    image[:, 50:] = 90
    picture = Crop(90.0, 50.0, 120.0).cut(image, 60)
    assert picture.shape == (60, 60, 3)
    assert picture.min() > 60  # no black border


def deca_weight(name: str, shape: list[int]) -> torch.Tensor:
    """The rule by which the golden encoder was filled: everything follows from a tensor's name."""
    normal = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(f"0:{name}".encode())))
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "weight" and len(shape) > 1:
        return normal * (2.0 / normal[0].numel()) ** 0.5
    if leaf == "weight":
        return 1.0 + 0.1 * normal
    return 1.0 + 0.1 * normal.abs() if leaf == "running_var" else 0.1 * normal


def deca_state() -> dict[str, torch.Tensor]:
    state = DecaEncoder().state_dict()
    return {
        name: value if name.endswith("num_batches_tracked") else deca_weight(name, list(value.shape))
        for name, value in state.items()
    }


def test_decas_encoder_agrees_with_the_original(tmp_path: Path) -> None:
    path = tmp_path / "deca_model.tar"
    torch.save({"E_flame": deca_state(), "E_detail": {"x": torch.zeros(1)}}, path)
    encoder = load_deca(path)
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(21))
    output = encoder(images)

    expected = torch.from_numpy(np.load(Path(__file__).parent / "data" / "deca_encoder.npz")["output"])
    assert (output - expected).abs().max() <= 1e-4 * expected.std()
    code = encoder.decode(output)
    assert code.shape.shape == (2, CODE["shape"])
    assert code.jaw.shape == (2, 3)


def test_a_file_that_is_not_decas_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.tar"
    torch.save({"model": {"x": torch.zeros(1)}}, path)
    with pytest.raises(InputError, match="no entry 'E_flame'"):
        load_deca(path)
    state = deca_state()
    state["layers.2.weight"] = torch.zeros(3, 3)
    torch.save({"E_flame": state}, path)
    with pytest.raises(InputError, match=r"layers\.2\.weight"):
        load_deca(path)
    with pytest.raises(InputError, match=r"deca\.is\.tue\.mpg\.de"):
        load_deca(tmp_path / "absent.tar")


def test_parameters_of_other_tools_become_motions(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rotation = 0.2 * rng.standard_normal((5, 3)).astype(np.float32)
    jaw = np.abs(0.1 * rng.standard_normal((5, 3)).astype(np.float32))
    vhap = tmp_path / "tracked_flame_params.npz"
    np.savez(
        vhap, shape=rng.standard_normal(300), expr=rng.standard_normal((5, 100)), rotation=rotation, jaw_pose=jaw,
        neck_pose=np.zeros((5, 3)), eyes_pose=np.zeros((5, 6)), translation=np.zeros((5, 3)),
    )  # fmt: skip
    motion = load_parameters(vhap, fps=30)
    assert len(motion) == 5
    assert motion.fps == 30
    np.testing.assert_allclose(motion.params.jaw, jaw, rtol=1e-6)
    assert (motion.params.shape == motion.params.shape[0]).all()

    folder = tmp_path / "deca"
    folder.mkdir()
    for i in range(3):
        np.save(
            folder / f"{i:03d}.npy",
            {"shape": rng.standard_normal((1, 100)), "exp": rng.standard_normal((1, 50)),
             "pose": np.concatenate([rotation[i], jaw[i]])[None]},
        )  # fmt: skip
    motion = load_parameters(folder)
    np.testing.assert_allclose(motion.params.jaw, jaw[:3], rtol=1e-6)
    assert motion.camera is not None

    smirk = tmp_path / "smirk.pt"
    turn, opening = torch.from_numpy(rotation), torch.from_numpy(jaw)
    frames = [{"pose_params": turn[i : i + 1], "jaw_params": opening[i : i + 1],
               "shape_params": torch.zeros(1, 300), "expression_params": torch.zeros(1, 50)}
              for i in range(4)]  # fmt: skip
    torch.save(frames, smirk)
    np.testing.assert_allclose(load_parameters(smirk).params.jaw, jaw[:4], rtol=1e-6)

    other = tmp_path / "other.npz"
    np.savez(other, weights=np.zeros(3))
    with pytest.raises(InputError, match="not parameters of DECA, SMIRK or VHAP"):
        load_parameters(other)


def test_a_turned_head_becomes_a_turned_camera() -> None:
    """A head turned to its left by 0.3 before a still camera looks as from a camera that went to its right."""
    camera = camera_from_head_rotation(torch.tensor([[0.0, 0.3, 0.0]]))
    point = torch.tensor([[[0.0, 0.1, 0.2], [0.0, -0.1, 0.2]]])
    uv, depth = camera.project(point)
    assert camera.cam2world[0, 0, 3] < 0
    assert uv[0, 0, 1] < uv[0, 1, 1]
    assert (depth > 2).all()
    still = camera_from_head_rotation(torch.zeros(1, 3))
    assert rotation_angle(still.cam2world[:, :3, :3], Camera.orbit().cam2world[None, :3, :3]).max() < 1e-3


def test_bad_sources_get_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty, video, wall = tmp_path / "empty", tmp_path / "v.mp4", tmp_path / "wall.png"
    empty.mkdir()
    video.write_bytes(b"")
    Image.new("RGB", (64, 64)).save(wall)
    out = ["--out", str(tmp_path / "m.npz")]
    for arguments, expected in (
        ([str(tmp_path / "no.jpg"), *out], "does not exist"),
        ([str(empty), *out], "holds no pictures"),
        ([str(video), *out], "v.mp4"),
        ([str(wall), *out], "no face was found"),
        ([str(wall), "--out", str(tmp_path / "m.txt")], "ends in .npz"),
        ([str(wall), *out, "--head", str(tmp_path / "no.pkl")], "no.pkl"),
        ([str(wall), *out, "--deca", str(tmp_path / "no.tar")], "DECA predicts FLAME"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["track", *arguments])
        assert stop.value.code == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("next3d: error:")
        assert expected in error, error
    assert not (tmp_path / "m.npz").exists()


def test_shading_shows_the_head_where_the_camera_sees_it() -> None:
    head = load_head("builtin")
    vertices = world_from_head(head(HeadParams()).vertices)
    picture = shaded(Camera.orbit(), vertices, head.faces, 64)[0]
    uv, _ = Camera.orbit().project(vertices)
    centre = picture[28:36, 28:36]
    assert (centre[..., 3] == 1).all()
    assert centre[..., :3].std() > 0.005  # it is shaded, not flat
    assert picture[2, 2, 3] == 0
    assert uv.min() < 1


def test_outcomes_of_a_torn_run_are_read(tmp_path: Path) -> None:
    from next3d.tracking.build import Outcome, read_outcomes

    path = tmp_path / "outcomes.txt"
    row = {"index": 1, "name": "a", "reason": "no face", "thumbnail": ""}
    path.write_text(json.dumps(row) + "\n" + '{"index": 2, "na')
    assert list(read_outcomes(path)) == [Outcome(**row)]
