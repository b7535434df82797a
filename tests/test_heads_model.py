"""FLAME's equation against the smplx package, its landmarks, its limits, and what it says to bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from smplx.lbs import find_dynamic_lmk_idx_and_bcoords, lbs

from next3d.errors import InputError
from next3d.heads import HeadModel, HeadParams, load_head

VERTICES, FACES, UVS = 5023, 9976, 5118


def random_arrays(seed: int = 0, vertices: int = VERTICES, faces: int = FACES) -> dict[str, torch.Tensor]:
    """Arrays of FLAME's shapes and scales with random content."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * scale

    def share(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator).softmax(-1)

    def index(below: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, below, shape, generator=generator)

    bins = torch.arange(79)
    return {
        "template": normal(vertices, 3, scale=0.1),
        "shape_directions": normal(100, vertices, 3, scale=2e-3),
        "expression_directions": normal(50, vertices, 3, scale=2e-3),
        "pose_directions": normal(36, vertices, 3, scale=2e-3),
        "joint_regressor": (normal(5, vertices) * 5).softmax(-1),
        "weights": (normal(vertices, 5) * 3).softmax(-1),
        "parents": torch.tensor([-1, 0, 1, 1, 1]),
        "faces": index(vertices, faces, 3),
        "uvs": torch.rand(UVS, 2, generator=generator),
        "uv_faces": index(UVS, faces, 3),
        "face_mask": torch.rand(256, 256, generator=generator),
        "landmark_faces": index(faces, 68),
        "landmark_barycentric": share(68, 3),
        "contour_faces": index(faces, 79, 17),
        "contour_barycentric": share(79, 17, 3),
        "contour_yaws": torch.where(bins <= 39, -bins, bins - 39) * math.pi / 180,
        "iris_faces": index(faces, 2),
        "iris_barycentric": share(2, 3),
        "mediapipe_faces": index(faces, 478),
        "mediapipe_barycentric": share(478, 3),
    }


def random_params(count: int, seed: int = 1, angle: float = 0.3) -> HeadParams:
    generator = torch.Generator().manual_seed(seed)
    sizes = {"shape": 100, "expression": 50, "neck": 3, "jaw": 3, "eyes": 6}
    values = {name: torch.randn(count, size, generator=generator) for name, size in sizes.items()}
    return HeadParams(**{name: value * (1 if len(value[0]) > 6 else angle) for name, value in values.items()})


@pytest.fixture(scope="module")
def arrays() -> dict[str, torch.Tensor]:
    return random_arrays()


@pytest.fixture(scope="module")
def head(arrays) -> HeadModel:
    return HeadModel.from_arrays(arrays)


def test_agrees_with_smplx(head, arrays):
    params = random_params(8)
    mesh = head(params)
    directions = torch.cat([arrays["shape_directions"], arrays["expression_directions"]]).permute(1, 2, 0)
    pose = torch.cat([torch.zeros(8, 3), params.neck, params.jaw, params.eyes], -1)
    vertices, joints = lbs(
        torch.cat([params.shape, params.expression], -1).double(),
        pose.double(),
        arrays["template"].double(),
        directions.double(),
        arrays["pose_directions"].flatten(1).double(),
        arrays["joint_regressor"].double(),
        arrays["parents"],
        arrays["weights"].double(),
    )
    assert (mesh.vertices - vertices).abs().max() < 1e-6
    assert (mesh.joints - joints).abs().max() < 1e-6


def test_contour_agrees_with_smplx(head, arrays):
    yaw = torch.tensor([-60.0, -39.4, -12.3, -0.2, 0.0, 0.3, 7.6, 38.7, 80.0]) * math.pi / 180
    neck = torch.stack([torch.zeros(9), yaw, torch.zeros(9)], -1)
    neck[1:4] += torch.tensor([0.2, 0, 0.1])
    params = HeadParams(neck=neck)
    mesh = head(params)
    pose = torch.cat([torch.zeros(9, 3), neck, torch.zeros(9, 9)], -1)
    contour_faces, contour_barycentric = find_dynamic_lmk_idx_and_bcoords(
        mesh.vertices, pose, arrays["contour_faces"], arrays["contour_barycentric"], torch.tensor([1, 0])
    )
    corners = torch.stack([mesh.vertices[i][arrays["faces"][contour_faces[i]]] for i in range(9)])
    expected = (corners * contour_barycentric[..., None]).sum(-2)
    assert torch.allclose(mesh.landmarks[:, :17], expected, atol=1e-6)
    turned_back = head(params, yaw=torch.zeros(9)).landmarks
    assert torch.allclose(
        turned_back[:, :17], head.points(mesh.vertices, arrays["contour_faces"][0], arrays["contour_barycentric"][0])
    )
    assert torch.equal(turned_back[:, 17:], mesh.landmarks[:, 17:])


def test_shapes_and_batches(head):
    params = random_params(6)
    mesh = head(params)
    assert mesh.vertices.shape == (6, VERTICES, 3)
    assert mesh.landmarks.shape == (6, 68, 3)
    assert mesh.irises.shape == (6, 2, 3)
    assert mesh.joints.shape == (6, 5, 3)
    assert torch.allclose(head(params[2]).vertices[0], mesh.vertices[2], atol=1e-6)
    assert torch.allclose(head(params.reshape(2, 3)).vertices, mesh.vertices, atol=1e-6)


def test_neutral_head_is_the_template(head, arrays):
    assert torch.allclose(head(HeadParams()).vertices[0], arrays["template"], atol=1e-6)
    assert torch.equal(head.template, arrays["template"])


def test_gradients_reach_every_parameter(head):
    params = {name: value.clone().requires_grad_() for name, value in random_params(2).as_dict().items()}
    mesh = head(HeadParams(**params))
    (mesh.landmarks.square().sum() + mesh.irises.square().sum()).backward()
    for name, value in params.items():
        assert value.grad.abs().sum() > 0, name
        assert value.grad.isfinite().all(), name
    still = torch.zeros(1, 3, requires_grad=True)  # Rodrigues' formula at zero
    head(HeadParams(neck=still)).vertices.sum().backward()
    assert still.grad.isfinite().all()


def test_correctives_multiply_pairs(arrays):
    push = torch.zeros(2, VERTICES, 3)
    push[0, 5, 0], push[1, 6, 1] = 0.01, 0.02
    pairs = {"corrective_pairs": torch.tensor([[0, 0], [1, 2]]), "corrective_directions": push}
    plain, corrected = HeadModel.from_arrays(arrays), HeadModel.from_arrays(arrays | pairs)
    params = HeadParams(expression=torch.tensor([0.5, 0.5, 2.0] + [0] * 47))
    difference = (corrected(params).vertices - plain(params).vertices)[0]
    assert difference[5, 0] == pytest.approx(0.01 * 0.25, abs=1e-7)
    assert difference[6, 1] == pytest.approx(0.02 * 0.5, abs=1e-7)
    assert torch.equal(corrected.arrays()["corrective_directions"], push)


def test_save_and_load(head, arrays, tmp_path):
    head.save(tmp_path / "head.safetensors")
    again = load_head(tmp_path / "head.safetensors")
    for name, value in arrays.items():
        assert torch.equal(again.arrays()[name], value), name
    params = random_params(2)
    assert torch.equal(again(params).vertices, head(params).vertices)
    assert again.expression_names == head.expression_names


def test_places_agree_with_the_posed_mesh(head):
    places = head.at(head.mediapipe_faces[:20], head.mediapipe_barycentric[:20])
    still = random_params(3, angle=0.0)
    linear = torch.cat([still.shape, still.expression], -1)
    points, _ = places.skinned(linear, torch.eye(3).expand(3, 4, 3, 3))
    on_mesh = head.points(head(still).vertices, head.mediapipe_faces[:20], head.mediapipe_barycentric[:20])
    assert torch.allclose(points, on_mesh, atol=1e-6)


def test_mirror_swaps_sides(arrays):
    maps = {"shape_mirror": -torch.eye(100), "expression_mirror": torch.eye(50).flip(0)}
    head = HeadModel.from_arrays(arrays | maps)
    params = random_params(3)
    mirrored = head.mirror(params)
    assert torch.equal(mirrored.shape, -params.shape)
    assert torch.equal(mirrored.expression, params.expression.flip(-1))
    assert torch.equal(mirrored.neck, params.neck * torch.tensor([1.0, -1, -1]))
    assert torch.equal(mirrored.eyes[:, :3], params.eyes[:, 3:] * torch.tensor([1.0, -1, -1]))
    assert torch.allclose(head.mirror(mirrored).vector(), params.vector())
    with pytest.raises(InputError, match="mirror"):
        HeadModel.from_arrays(arrays).mirror(params)


def test_clamp_warns_and_names_the_angle(head):
    inside = HeadParams(jaw=(0.4, 0, 0), neck=(0.3, 0.5, 0), eyes=(0.2, -0.3, 0, 0.2, -0.3, 0))
    assert head.clamp(inside) is inside
    with pytest.warns(UserWarning, match=r"jaw turned 57° about x, beyond the anatomical range −?-?4…32°"):
        clamped = head.clamp(HeadParams(jaw=(1.0, 0, 0)))
    assert clamped.jaw[0] == pytest.approx(math.radians(32))
    with pytest.warns(UserWarning, match="eyes turned 115° right about y"):
        head.clamp(HeadParams(eyes=(0, 0, 0, 0, -2.0, 0)))
    with pytest.warns(UserWarning, match="neck"):
        assert head.clamp(HeadParams(neck=torch.tensor([[0, 0, 0], [0, 3.0, 0]]))).neck[1, 1] < 1.5


# ARKit


def test_arkit_of_a_head_with_its_names(arrays):
    names = ["mouthSmileRight", "eyeBlinkLeft", "eyeLookDownLeft", *(f"form{i}" for i in range(47))]
    head = HeadModel.from_arrays(arrays, expression_names=names)
    params = head.from_arkit({"mouthSmileRight": 0.7, "jawOpen": 1.0, "eyeLookDownLeft": 0.5, "eyeLookOutRight": 1.0})
    assert params.expression[:4].tolist() == pytest.approx([0.7, 0, 0.5, 0])
    assert 0.4 < params.jaw[0] < 0.55
    assert params.eyes[0] > 0.2  # the left eye looks down
    assert params.eyes[4] < -0.4  # the right eye turns to the subject's right
    batch = head.from_arkit(np.eye(52))
    assert batch.expression.shape == (52, 50)
    assert head.from_arkit({"browInnerUp": [0.0, 0.5, 1.0], "eyeBlink_L": [1, 1, 1]}).expression.shape == (3, 50)
    by_name = head.params(mouthSmileRight=0.7, shape3=1.5, form0=-1, neck=(0, 0.1, 0), jawOpen=0.5)
    assert by_name.shape[3] == 1.5
    assert by_name.expression[[0, 3]].tolist() == pytest.approx([0.7, -1])
    assert by_name.jaw[0] == pytest.approx(params.jaw[0].item() / 2)


def test_arkit_bad_input(head):
    with pytest.raises(InputError, match="smileALot"):
        head.from_arkit({"smileALot": 1})
    with pytest.raises(InputError, match="52"):
        head.from_arkit(np.zeros(51))
    with pytest.raises(InputError, match="NaN"):
        head.from_arkit({"jawOpen": math.nan})
    with pytest.raises(InputError, match="did you mean jawOpen"):
        head.params(jawOpne=1)


# What is wrong with a head's arrays


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": None}, "lacks 'weights'"),
        ({"colour": torch.zeros(3)}, "unknown array 'colour'"),
        ({"weights": torch.zeros(7, 5)}, r"'weights' has shape \(7, 5\), expected \(5023, 5\)"),
        ({"template": torch.full((VERTICES, 3), math.nan)}, "'template' holds NaN"),
        ({"faces": torch.full((FACES, 3), VERTICES)}, "'faces' holds an index outside"),
        ({"parents": torch.tensor([-1, 0, 4, 1, 1])}, "parents"),
        ({"contour_yaws": None}, "'contour_faces' without 'contour_yaws'"),
    ],
)
def test_bad_arrays_are_named(arrays, change, message):
    changed = {name: value for name, value in (arrays | change).items() if value is not None}
    with pytest.raises(InputError, match=message):
        HeadModel.from_arrays(changed)


def test_load_head_says_what_it_wants(tmp_path):
    with pytest.raises(InputError, match="no head model 'nothing'"):
        load_head("nothing")
    (tmp_path / "bad.safetensors").write_bytes(b"x" * 50)
    with pytest.raises(InputError, match="not a readable head file"):
        load_head(tmp_path / "bad.safetensors")
