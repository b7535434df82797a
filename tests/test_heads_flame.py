"""FLAME files of every age load without chumpy, agree with smplx, and say what is missing or wrong."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import scipy.sparse
import torch
from smplx.lbs import lbs

import next3d.heads
from flame_files import flame_arrays, write_flame_folder, write_flame_pickle
from next3d.errors import InputError
from next3d.heads import HeadModel, HeadParams, load_head
from next3d.heads.arkit import ARKIT_NAMES
from next3d.heads.flame import read_model


@pytest.fixture(scope="module")
def arrays():
    return flame_arrays()


@pytest.fixture(scope="module")
def folder(arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("flame") / "FLAME2020"
    write_flame_folder(path, arrays)
    return path


def smplx_vertices(arrays, params: HeadParams) -> torch.Tensor:
    """What the smplx package computes from the same arrays, in float64."""
    double = {name: torch.from_numpy(np.asarray(value, np.float64)) for name, value in arrays.items()}
    count = len(params)
    betas = torch.zeros(count, 400, dtype=torch.float64)
    betas[:, :100], betas[:, 300:350] = params.shape, params.expression
    pose = torch.cat([torch.zeros(count, 3), params.neck, params.jaw, params.eyes], -1).double()
    posedirs = double["posedirs"].reshape(-1, 36).T
    vertices, _ = lbs(
        betas,
        pose,
        double["v_template"],
        double["shapedirs"],
        posedirs,
        double["J_regressor"],
        torch.tensor([-1, 0, 1, 1, 1]),
        double["weights"],
    )
    return vertices


def random_params(count: int = 6) -> HeadParams:
    generator = torch.Generator().manual_seed(3)
    angles = {
        name: 0.3 * torch.randn(count, size, generator=generator)
        for name, size in (("neck", 3), ("jaw", 3), ("eyes", 6))
    }
    return HeadParams(
        torch.randn(count, 100, generator=generator), torch.randn(count, 50, generator=generator), **angles
    )


def test_a_flame_folder_agrees_with_smplx(folder, arrays):
    head = load_head(folder)
    assert head.name == "flame2020"
    params = random_params()
    mesh = head(params)
    assert (mesh.vertices - smplx_vertices(arrays, params)).abs().max() < 1e-6
    assert mesh.landmarks.shape == (6, 68, 3)
    assert (head.mediapipe[0] >= 0).sum() == 105
    assert torch.equal(load_head(folder / "generic_model.pkl").template, head.template)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_pickles_of_every_protocol(arrays, tmp_path, protocol):
    write_flame_pickle(tmp_path / "flame.pkl", arrays, protocol)
    read = read_model(tmp_path / "flame.pkl")
    assert np.array_equal(read["template"], arrays["v_template"])
    assert np.array_equal(read["joint_regressor"], arrays["J_regressor"])
    assert np.array_equal(read["shape_directions"][7], arrays["shapedirs"][..., 7])
    assert np.array_equal(read["expression_directions"][2], arrays["shapedirs"][..., 302])
    assert read["parents"].tolist() == [-1, 0, 1, 1, 1]


def test_npz_and_decas_companions(arrays, tmp_path, folder):
    write_flame_folder(tmp_path / "plain", arrays, deca=True, name="FLAME_2023.npz")
    head = load_head(tmp_path / "plain")
    assert head.name == "flame2023"
    params = random_params(2)
    assert torch.allclose(head(params).vertices, load_head(folder)(params).vertices, atol=1e-7)
    assert torch.allclose(head(params).landmarks, load_head(folder)(params).landmarks, atol=1e-7)
    assert torch.allclose(head.topology.uvs, load_head(folder).topology.uvs, atol=1e-6)
    assert torch.equal(head.topology.uv_faces, load_head(folder).topology.uv_faces)
    mask = head.topology.face_mask[0, 0]
    assert (mask[:, :128] == 0).all()
    assert (mask[:, 128:] == 1).all()


def test_face_mask_from_vertex_masks(folder):
    mask = load_head(folder).topology.face_mask[0, 0]
    assert mask[128, 128] == 1  # the middle of the face
    assert mask[0, 0] == 0
    assert 0.1 < mask.mean() < 0.6


def test_irises_lie_on_the_front_of_the_eyeballs(folder):
    irises = load_head(folder)(HeadParams()).irises[0]
    assert irises[0, 0] > 0.02  # left is +x
    assert irises[1, 0] < -0.02
    assert torch.allclose(irises[:, 2], torch.full((2,), 0.092), atol=1e-3)


def test_mirror_is_exact_where_the_space_is_symmetric(tmp_path):
    write_flame_folder(tmp_path, flame_arrays(symmetric=True))
    head = load_head(tmp_path)
    params = random_params(3).replace(neck=torch.zeros(3), jaw=torch.zeros(3), eyes=torch.zeros(6))
    flipped = head(params).vertices[:, head.mirror_vertices] * torch.tensor([-1.0, 1, 1])
    assert torch.allclose(head(head.mirror(params)).vertices, flipped, atol=1e-6)


def test_arkit_moves_what_flame_can_move(folder):
    head = load_head(folder)
    params = head.from_arkit({"jawOpen": 1, "eyeLookUpLeft": 1})
    assert params.jaw[0] > 0.4
    assert params.eyes[0] < -0.3
    assert params.expression.abs().max() == 0
    jaw_left = head.from_arkit({"jawLeft": 1}).jaw
    assert jaw_left[1] > 0.05
    moving = [name for name in ARKIT_NAMES if head.from_arkit({name: 1}).vector().abs().sum() > 0]
    assert {"mouthSmileLeft", "browInnerUp", "eyeBlinkRight", "mouthPucker"} <= set(moving)


def test_the_landmark_fit_finds_expressions_that_it_knows(folder, monkeypatch):
    """Where FLAME's space holds the built-in head's expressions, the fit recovers them."""
    flame = load_head(folder)
    names = ["mouthSmileLeft", "browInnerUp", *(f"form{i}" for i in range(48))]
    arrays = {name: value for name, value in flame.arrays().items() if name != "arkit"}
    twin = HeadModel.from_arrays(arrays, expression_names=names)
    monkeypatch.setattr(next3d.heads, "load_head", lambda name: twin)
    from next3d.heads.flame import fit_arkit

    fitted = fit_arkit(flame, prior=1e-3)
    smile = fitted[ARKIT_NAMES.index("mouthSmileLeft"), :50]
    assert smile[0] == pytest.approx(1, abs=0.05)
    assert smile[1:].abs().max() < 0.05


# What is missing or wrong


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("generic_model.pkl", ["head model itself"]),
        ("FLAME_texture.npz", ["UVs"]),
        ("FLAME_masks.pkl", ["face and eyes"]),
        ("flame_static_embedding.pkl", ["landmarks"]),
        ("flame_dynamic_embedding.npy", ["contour"]),
    ],
)
def test_a_missing_file_is_named_with_its_use_and_page(arrays, tmp_path, name, words):
    write_flame_folder(tmp_path, arrays)
    (tmp_path / name).unlink()
    with pytest.raises(InputError) as error:
        load_head(tmp_path)
    for word in [name, "https://flame.is.tue.mpg.de", *words]:
        assert word in str(error.value)


def test_the_mediapipe_embedding_is_optional(arrays, tmp_path):
    write_flame_folder(tmp_path, arrays)
    (tmp_path / "mediapipe_landmark_embedding.npz").unlink()
    assert load_head(tmp_path).mediapipe is None


@pytest.mark.parametrize(
    ("joints", "name"), [(24, "SMPL"), (55, "SMPL-X"), (52, r"SMPL\+H"), (16, "MANO"), (7, "7 joints")]
)
def test_other_models_are_named(tmp_path, joints, name):
    content = {
        "v_template": np.zeros((40, 3)),
        "kintree_table": np.zeros((2, joints), np.int64),
        "J_regressor": scipy.sparse.csc_matrix(np.zeros((joints, 40))),
        "f": np.zeros((5, 3), np.uint32),
    }
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(content, 2))
    with pytest.raises(InputError, match=f"not a FLAME model but.*{name}"):
        load_head(tmp_path / "model.pkl")
    np.savez(tmp_path / "model.npz", **{key: content[key] for key in ("v_template", "kintree_table", "f")})
    with pytest.raises(InputError, match=f"not a FLAME model but.*{name}"):
        load_head(tmp_path / "model.npz")


class Attack:
    def __reduce__(self):
        return os.system, ("true",)


def test_damaged_and_hostile_files(arrays, tmp_path):
    write_flame_pickle(tmp_path / "whole.pkl", arrays)
    whole = (tmp_path / "whole.pkl").read_bytes()
    (tmp_path / "half.pkl").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"half\.pkl"):
        load_head(tmp_path / "half.pkl")
    (tmp_path / "text.pkl").write_text("no pickle")
    with pytest.raises(InputError, match=r"text\.pkl"):
        load_head(tmp_path / "text.pkl")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"v_template": Attack()}, 2))
    with pytest.raises(InputError, match=r"(posix|nt)\.system"):
        load_head(tmp_path / "evil.pkl")
    np.savez(tmp_path / "evil.npz", v_template=np.array(Attack(), dtype=object))
    with pytest.raises(InputError, match=r"(posix|nt)\.system"):
        load_head(tmp_path / "evil.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(InputError, match=r"text\.npz"):
        load_head(tmp_path / "text.npz")
    for junk in (b"g5\n.", b"\x80\x04h\x05.", b"0.", b"(d.", b""):
        (tmp_path / "junk.pkl").write_bytes(junk)
        with pytest.raises(InputError, match=r"junk\.pkl (cannot be read: it is|is not a FLAME model)") as refused:
            load_head(tmp_path / "junk.pkl")
        assert "Error" not in str(refused.value)
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([1, 2], 2))
    with pytest.raises(InputError, match="holds no dictionary"):
        load_head(tmp_path / "list.pkl")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"posedirs": np.zeros((3, 3, 36))}, "'posedirs' has shape"),
        ({"shapedirs": np.zeros((482, 3, 10))}, "300 shapes and 100 expressions"),
        ({"weights": "text"}, "'weights' is not an array"),
        ({"f": np.full((9, 3), 10**6)}, "'f' does not hold triangles"),
        ({"v_template": None}, "lacks 'v_template'"),
        ({"v_template": 3.0}, "'v_template' has shape"),
        ({"v_template": np.full((482, 3), np.nan)}, "'v_template' holds NaN"),
        ({"kintree_table": 1}, "something else"),
        ({"kintree_table": None}, "something else"),
        ({"f": np.zeros((0, 3), int)}, "'f' does not hold triangles"),
    ],
)
def test_wrong_contents_are_named(arrays, tmp_path, change, message):
    write_flame_folder(tmp_path, arrays)
    content = {key: value for key, value in (arrays | change).items() if value is not None}
    (tmp_path / "generic_model.pkl").write_bytes(pickle.dumps(content, 2))
    with pytest.raises(InputError, match=message):
        load_head(tmp_path)
