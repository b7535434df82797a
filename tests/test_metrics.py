"""Metrics: distances against float64 references, sharding, users' weights, what a wrong input is told."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch

from next3d.data.dataset import Dataset
from next3d.data.writer import DatasetWriter
from next3d.errors import InputError
from next3d.estimators import MOTION, Estimator, EstimatorConfig, motion_targets, rotation_of
from next3d.geometry.cameras import Camera
from next3d.heads import HeadParams
from next3d.metrics import protocol
from next3d.metrics.animation import animation_distances, camera_angles, distance, identity_consistency
from next3d.metrics.arcface import TEMPLATE, ArcFace, IResNet50, align
from next3d.metrics.frechet import frechet_distance, kernel_distance
from next3d.metrics.inception import Inception, InceptionFeatures, enlarge
from next3d.metrics.protocol import Counts, Readers, Shard, draw, evaluate
from next3d.metrics.train_estimators import same_person_auc


def reference_frechet(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    mean = a.mean(0) - b.mean(0)
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(first @ second).real
    return float(mean @ mean + np.trace(first + second - 2 * root))


def test_the_frechet_distance_agrees_with_scipy_in_float64() -> None:
    g = torch.Generator().manual_seed(0)
    mix = torch.randn(24, 24, generator=g)
    a = torch.randn(900, 24, generator=g) @ mix
    b = 1.3 * torch.randn(700, 24, generator=g) @ mix + 0.4
    expected = reference_frechet(a.numpy(), b.numpy())
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(a, a.flip(0)) == pytest.approx(0, abs=1e-6 * expected)


def test_too_few_pictures_are_warned_of() -> None:
    g = torch.Generator().manual_seed(0)
    with pytest.warns(UserWarning, match="biased upwards"):
        value = frechet_distance(torch.randn(20, 64, generator=g), torch.randn(20, 64, generator=g))
    assert math.isfinite(value)
    with pytest.raises(InputError, match="at least two pictures"):
        frechet_distance(torch.randn(1, 4), torch.randn(9, 4))
    with pytest.raises(InputError, match="NaN"):
        frechet_distance(torch.full((5, 4), float("nan")), torch.randn(9, 4))


def test_the_kernel_distance_is_unbiased() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2000, 16, generator=g), torch.randn(2000, 16, generator=g)
    assert abs(kernel_distance(a, b)) < 0.02
    assert kernel_distance(a, b + 0.5) > 0.2


def test_angles_are_those_of_the_orbit() -> None:
    yaw, pitch, roll = torch.tensor([0.4, -0.3]), torch.tensor([0.2, -0.1]), torch.tensor([0.15, -0.25])
    found = camera_angles(Camera.orbit(yaw, pitch, roll, pivot=(0, 0, 0)).label)
    torch.testing.assert_close(found, torch.stack([yaw, pitch, roll], -1), atol=1e-5, rtol=0)


def test_distances_are_what_their_formulas_say() -> None:
    a, b = torch.tensor([[0.0, 1.0], [2.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    assert distance(a, b) == {"mean_absolute": 0.75, "root_mean_square": pytest.approx(math.sqrt(5 / 4))}
    camera = Camera.orbit(torch.tensor([0.1, 0.2]), torch.zeros(2), torch.tensor([0.0, 0.3]))
    level = Camera.orbit(torch.tensor([0.1, 0.2]))
    reading = {"expression": torch.zeros(2, 50), "rotation": level.cam2world[:, :3, :3]}
    result = animation_distances(reading, HeadParams(expression=torch.zeros(2, 50)), camera.label)
    assert result["AED"]["mean_absolute"] == 0
    assert result["APD*"]["mean_absolute"] < 1e-5  # only the roll differs
    assert result["APD"]["mean_absolute"] == pytest.approx(0.3 / 6, rel=1e-3)
    e = torch.nn.functional.normalize(torch.randn(6, 8), dim=-1)
    assert identity_consistency(e, e) == pytest.approx(1)


def test_auc_counts_pairs() -> None:
    e = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    assert same_person_auc(e, torch.tensor([0, 0, 1, 1])) == 1.0
    assert same_person_auc(e, torch.tensor([0, 1, 0, 1])) < 0.5


def test_an_estimator_survives_its_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Estimator(EstimatorConfig(MOTION, channels=(4, 4, 8, 8))).eval()
    path = tmp_path / "e.safetensors"
    model.save(path)
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    again = Estimator.load(path)
    torch.testing.assert_close(again(images)[0], model(images)[0], atol=5e-3, rtol=5e-3)  # kept in half precision
    assert again.embed(images).norm(dim=-1) == pytest.approx(torch.ones(2))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="not an estimator file"):
        Estimator.load(path)


def test_targets_say_the_camera_back() -> None:
    camera = Camera.orbit(torch.tensor([0.5]), torch.tensor([-0.2]), torch.tensor([0.1]))
    targets = motion_targets(HeadParams(jaw=torch.tensor([[0.2, 0, 0]])), camera.label)
    torch.testing.assert_close(rotation_of(targets[:, -3:]), camera.cam2world[:, :3, :3], atol=1e-5, rtol=0)
    assert targets[0, 50] == pytest.approx(0.2)


# ---- the protocol on a source and readers that need no network


class FlatSource:
    """Pictures whose colour is a function of the latent and the expression."""

    name, z_dim, resolution, head = "flat", 4, 16, "builtin"

    def pictures(self, z, params, camera):
        colour = torch.stack([z[:, 0].tanh(), params.expression[:, 0], camera[:, 0]], -1)
        return colour[:, :, None, None].expand(-1, 3, 16, 16)


class FlatReader:
    name, checksum, head = "flat", "", "builtin"

    def features(self, images):
        return images[:, :, 0, 0]

    def read(self, images):
        expression = torch.zeros(len(images), 50)
        expression[:, 0] = images[:, 1, 0, 0]
        return {"expression": expression, "rotation": Camera.orbit(torch.zeros(len(images))).cam2world[:, :3, :3]}

    def embed(self, images, params, camera):
        return torch.nn.functional.normalize(torch.stack([images[:, 0, 0, 0], torch.ones(len(images))], -1), dim=-1)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    writer = DatasetWriter(tmp_path / "ds", resolution=32, head="builtin")
    rng = np.random.default_rng(0)
    for i in range(24):
        expression = np.zeros(50, np.float32)
        expression[0] = rng.random()
        picture = np.full((32, 32, 3), rng.integers(0, 255), np.uint8)
        writer.add(i, picture, Camera.orbit(rng.normal() * 0.3), HeadParams(expression=expression), identity=i // 3)
    writer.finish()
    return Dataset(tmp_path / "ds")


READERS = Readers(FlatReader(), FlatReader(), FlatReader())
SMALL = Counts(pictures=30, identities=5, poses=4, pairs=6)


def test_the_result_does_not_depend_on_the_batch(dataset: Dataset) -> None:
    one = evaluate(FlatSource(), dataset, READERS, counts=SMALL, batch=7)
    other = evaluate(FlatSource(), dataset, READERS, counts=SMALL, batch=30)
    assert one["results"] == other["results"]
    assert not one["paper_protocol"]
    assert one["results"]["AED"]["mean_absolute"] < 1e-6  # the reader reads what was commanded
    assert one["results"]["ID"] == pytest.approx(1)
    assert "FID" not in one["results"]  # features of anything but Inception are never called FID
    assert set(one["definitions"]) == set(one["results"]) - {"jaw", "gaze"}
    assert evaluate(FlatSource(), dataset, READERS, counts=SMALL, seed=1)["results"] != one["results"]


def process(rank: int, world: int, folder: str, out: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{out}.rendezvous", rank=rank, world_size=world)
    result = evaluate(FlatSource(), Dataset(folder), READERS, counts=SMALL, batch=4)
    if rank == 0:
        Path(out).write_text(protocol.as_json(result))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_processes_share_the_work_and_agree(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    torch.multiprocessing.spawn(process, (2, str(dataset.path), str(out)), nprocs=2)  # type: ignore[no-untyped-call]
    assert out.read_text() == protocol.as_json(evaluate(FlatSource(), dataset, READERS, counts=SMALL, batch=9))


def test_gathering_keeps_the_order() -> None:
    assert Shard().gather({4: "b", 0: "a", 8: "c"}) == ["a", "b", "c"]


def test_a_head_keeps_its_shape_over_its_poses(dataset: Dataset) -> None:
    draws = draw(dataset, 4, 3, 5, seed=0)
    assert draws.z.shape == (15, 4)
    assert (draws.z[:5] == draws.z[0]).all()
    assert (draws.params.shape[:5] == draws.params.shape[0]).all()
    assert len(np.unique(draws.rows)) > 5


def test_features_of_a_dataset_are_kept_by_its_contents(dataset: Dataset, tmp_path: Path) -> None:
    calls = []

    class Counting(FlatReader):
        def features(self, images):
            calls.append(len(images))
            return super().features(images)

    cache = tmp_path / "cache"
    cache.mkdir()
    first = protocol.dataset_features(dataset, Counting(), 8, cache)
    seen = len(calls)
    again = protocol.dataset_features(Dataset(dataset.path), Counting(), 8, cache)
    assert len(calls) == seen
    torch.testing.assert_close(first, again)
    other = Dataset(dataset.path)
    other.numbers[0, 30] += 1
    protocol.dataset_features(other, Counting(), 8, cache)
    assert len(calls) > seen


def test_what_does_not_fit_is_named(dataset: Dataset) -> None:
    with pytest.raises(InputError, match="no metric 'fidd'"):
        evaluate(FlatSource(), dataset, READERS, metrics=["fidd"])
    with pytest.raises(InputError, match="needs an estimator of identity"):
        evaluate(FlatSource(), dataset, Readers(motion=FlatReader()), metrics=["id"])

    class Flame(FlatReader):
        head = "flame2020"

    with pytest.raises(InputError, match="cannot be compared"):
        evaluate(FlatSource(), dataset, Readers(motion=Flame()), metrics=["aed"])


# ---- users' weights


@pytest.mark.slow
def test_inception_takes_the_standard_ports_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Inception()
    # The port's file: these names and shapes, 1,008 classes, the counters of older PyTorch missing.
    state = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert len(state) == 472
    assert state["Mixed_6b.branch7x7_2.conv.weight"].shape == (128, 128, 1, 7)
    assert state["Mixed_7c.branch3x3dbl_3b.conv.weight"].shape == (384, 384, 3, 1)
    assert state["fc.weight"].shape == (1008, 2048)
    path = tmp_path / "pt_inception-2015-12-05.pth"
    torch.save(state, path)
    features = InceptionFeatures(path).features(torch.rand(1, 3, 64, 64) * 2 - 1)
    assert features.shape == (1, 2048)
    state["Mixed_5b.branch1x1.conv.weight"] = torch.zeros(1)
    torch.save(state, path)
    with pytest.raises(InputError, match=r"layer 'Mixed_5b\.branch1x1\.conv\.weight' should be \(64, 192, 1, 1\)"):
        InceptionFeatures(path)


def test_pictures_are_enlarged_as_tensorflow_did() -> None:
    """A ramp of 8 columns: output column i reads position i·8/299, the last ones the edge."""
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    row = enlarge(ramp)[0, 0, 0]
    expected = (torch.arange(299) * (8 / 299)).clamp(max=7)
    torch.testing.assert_close(row, expected, atol=1e-4, rtol=0)


def test_faces_are_aligned_onto_arcfaces_template() -> None:
    g = torch.Generator().manual_seed(0)
    angle, scale, shift = 0.4, 0.5, torch.tensor([0.55, 0.48])
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    points = ((TEMPLATE / 112 - 0.5) @ turn.T * scale + shift)[None]
    # A picture whose red and green are its own coordinates: what is read back says where it was read.
    axis = (torch.arange(256) + 0.5) / 256
    image = torch.stack([axis[None].expand(256, 256), axis[:, None].expand(256, 256), torch.zeros(256, 256)])[None]
    aligned = align(image, points)
    for row in TEMPLATE:
        u, v = row.tolist()
        read = torch.nn.functional.grid_sample(
            aligned, torch.tensor([[[[u / 56 - 1, v / 56 - 1]]]]), align_corners=False
        )[0, :2, 0, 0]
        expected = (torch.tensor([u, v]) / 112 - 0.5) @ turn.T * scale + shift
        torch.testing.assert_close(read, expected, atol=2e-3, rtol=0)
    assert torch.isfinite(torch.randn(1, generator=g)).all()


@pytest.mark.slow
def test_arcface_takes_both_kinds_of_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = IResNet50()
    torch.save(network.state_dict(), tmp_path / "backbone.pth")
    faces = torch.rand(2, 3, 112, 112) * 2 - 1
    embedding = ArcFace(tmp_path / "backbone.pth").embed(faces)
    assert embedding.shape == (2, 512)
    torch.testing.assert_close(embedding.norm(dim=-1), torch.ones(2))

    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("GlobalAveragePool", ["x"], ["p"]), helper.make_node("Flatten", ["p"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", kind, ["N", 3, 112, 112])],
        [helper.make_tensor_value_info("y", kind, ["N", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(tmp_path / "tiny.onnx"))
    expected = torch.nn.functional.normalize(faces.mean((2, 3)), dim=-1)
    torch.testing.assert_close(ArcFace(tmp_path / "tiny.onnx").embed(faces), expected, atol=1e-5, rtol=0)

    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"layer 'conv1\.weight'"):
        ArcFace(tmp_path / "other.pth")
    with pytest.raises(InputError, match="does not exist"):
        ArcFace(tmp_path / "absent.onnx")
