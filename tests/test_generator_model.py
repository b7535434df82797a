"""Model folders: what is saved is what is loaded, and what is wrong is named."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

import next3d
from generator_samples import frontal, latents, stand_in_head, tiny_model
from next3d.errors import InputError
from next3d.generator import model as loading
from next3d.generator.generator import Generator
from next3d.generator.presets import PRESETS, preset


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model().save_pretrained(path)
    return path


@pytest.fixture
def copy(folder, tmp_path):
    """A copy of the folder to break."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@torch.no_grad()
def test_round_trip_draws_the_same_picture(folder):
    """The folder alone is enough: topology, UVs and face mask come with it."""
    model, loaded = tiny_model(), next3d.load(folder)
    assert not loaded.training
    assert loaded.config == model.config
    assert all(p.requires_grad for p in loaded.parameters())
    _, *head = stand_in_head()
    expected = model.synthesis(latents(model), frontal(), *head)
    found = loaded.synthesis(latents(loaded), frontal(), *head)
    assert torch.equal(found.image, expected.image)
    assert torch.equal(loaded.topology.uv_faces, model.topology.uv_faces)
    assert torch.equal(Generator.from_pretrained(folder).volume.decoder[0].weight, model.volume.decoder[0].weight)


def test_saving_into_a_used_folder_leaves_other_files(folder, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    tiny_model().save_pretrained(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_no_code_in_a_folder(folder):
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}


def change_tensors(folder, change) -> None:
    from safetensors import safe_open

    path = folder / "model.safetensors"
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    change(tensors)
    save_file(tensors, path, metadata)


def test_half_precision_weights_are_widened(copy):
    change_tensors(
        copy, lambda t: t.update({"mouth.network.fusions.4.weight": t["mouth.network.fusions.4.weight"].half()})
    )
    assert next3d.load(copy).mouth.network.fusions["4"].weight.dtype == torch.float32


def test_every_differing_tensor_is_named(copy):
    def break_(tensors):
        del tensors["volume.decoder.0.bias"]
        tensors["extra"] = torch.zeros(1)
        tensors["superres.blocks.0.conv0.weight"] = torch.zeros(2, 3)

    change_tensors(copy, break_)
    with pytest.raises(InputError) as error:
        next3d.load(copy)
    for part in (
        "missing (volume.decoder.0.bias)",
        "unexpected (extra)",
        "superres.blocks.0.conv0.weight (2, 3) instead of",
    ):
        assert part in str(error.value)


def test_damaged_folders(copy):
    weights, config = copy / "model.safetensors", copy / "config.json"
    whole, settings = weights.read_bytes(), config.read_text()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged or truncated"):
        next3d.load(copy)
    weights.unlink()
    with pytest.raises(InputError, match="there is no"):
        next3d.load(copy)
    weights.write_bytes(whole)
    config.write_text(settings[:40])
    with pytest.raises(InputError, match="not valid JSON"):
        next3d.load(copy)
    config.write_text(json.dumps(json.loads(settings) | {"colour": 1}))
    with pytest.raises(InputError, match="unknown setting 'colour'"):
        next3d.load(copy)
    config.unlink()
    with pytest.raises(InputError, match="cannot read"):
        next3d.load(copy)


def test_missing_topology_is_named(copy):
    change_tensors(copy, lambda tensors: tensors.pop("texture_planes.uvs"))
    with pytest.raises(InputError, match=r"texture_planes\.uvs"):
        next3d.load(copy)


def test_a_topology_that_points_beyond_its_mesh_is_refused(copy):
    change_tensors(copy, lambda tensors: tensors["texture_planes.uv_faces"].add_(10**6))
    with pytest.raises(InputError, match=r"texture_planes\.uv_faces"):
        next3d.load(copy)


def test_names_that_are_no_model(tmp_path):
    file = tmp_path / "network.pkl"
    file.write_bytes(b"")
    with pytest.raises(InputError, match="next3d convert"):
        next3d.load(file)
    with pytest.raises(InputError, match="no generator preset"):
        next3d.load("untrained:large")
    with pytest.raises(InputError, match="there is no model folder"):
        next3d.load(tmp_path / "absent")


def test_presets_are_valid():
    for name in PRESETS:
        config = preset(name)
        assert config.superres.resolution in (32, 64, 128, 256, 512), name
        assert type(config).from_dict(config.to_dict()) == config


@pytest.fixture
def head(monkeypatch):
    """The stand-in's topology in place of the built-in head."""

    class Head:
        name = "builtin"
        topology = stand_in_head()[0]

        def to(self, device):
            return self

    monkeypatch.setattr(loading, "load_head", lambda name: Head())
    return Head()


def test_untrained_models_follow_their_seed(head):
    a, b, c = (next3d.load("untrained:tiny", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(a.volume.decoder[0].weight, b.volume.decoder[0].weight)
    assert not torch.equal(a.volume.decoder[0].weight, c.volume.decoder[0].weight)


def test_demo_says_when_no_trained_model_is_bundled(head, monkeypatch, tmp_path, folder):
    monkeypatch.setattr(loading, "DEMO", tmp_path / "absent")
    with pytest.warns(UserWarning, match="untrained:synthetic128"):
        assert next3d.load("demo").config == preset("synthetic128")
    monkeypatch.setattr(loading, "DEMO", folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert next3d.load().config == tiny_model().config


def test_a_head_of_another_topology_is_refused(head):
    model = tiny_model()
    model.use_head(head)
    assert model.head is head
    assert not any(name.startswith("head") for name in model.state_dict())
    head.topology = type(head.topology)(
        head.topology.faces[:-1], head.topology.uvs, head.topology.uv_faces[:-1], head.topology.face_mask, 7
    )
    with pytest.raises(InputError, match="topology"):
        model.use_head(head)
