"""Styles by a sentence or a picture, with tiny random CLIP models in transformers' own files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import next3d
from next3d.avatar import Avatar, fingerprint
from next3d.cli.main import main
from next3d.editing.clip import Clip
from next3d.editing.progress import Cancelled
from next3d.editing.stylization import (
    Direction,
    StylizationSettings,
    carry_over,
    layer_of,
    movable,
    random_heads,
    stylize,
)
from next3d.errors import InputError
from next3d.estimators import IDENTITY, Estimator, EstimatorConfig
from next3d.generator.generator import Generator
from next3d.metrics.controls import ModelPerson, correlation, sweeps

transformers = pytest.importorskip("transformers", reason="the extra 'stylize' is not installed")


def write_clip(folder: Path, seed: int, patch: int) -> Path:
    """A CLIP of a few thousand random weights: configuration, safetensors, and a vocabulary of bytes."""
    vision = {"image_size": 32, "patch_size": patch, "hidden_size": 16, "intermediate_size": 32}
    text = {"vocab_size": 514, "max_position_embeddings": 40, "hidden_size": 16, "intermediate_size": 32}
    shared = {"num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = transformers.CLIPConfig(text_config=text | shared, vision_config=vision | shared, projection_dim=8)
        transformers.CLIPModel(config).save_pretrained(folder)
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that stand for themselves
    letters = [chr(byte) for byte in plain] + [chr(256 + i) for i in range(256 - len(plain))]
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [write_clip(tmp_path_factory.mktemp(f"clip{i}"), i, patch) for i, patch in enumerate((8, 16))]


@pytest.fixture(scope="module")
def clips(folders: list[Path]) -> list[Clip]:
    return [Clip(folder) for folder in folders]


@pytest.fixture(scope="module")
def model() -> Generator:
    return next3d.load("untrained:tiny")


QUICK = StylizationSettings(steps=12, batch=1, rate=5e-3)


def test_clip_embeds_as_transformers_does(folders: list[Path], clips: list[Clip]) -> None:
    reference = transformers.CLIPModel.from_pretrained(folders[0]).eval()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pictures = [Image.fromarray(((one + 1) * 127.5).round().byte().movedim(0, -1).numpy()) for one in images]
    pixels = processor(pictures, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        wanted = reference.visual_projection(reference.vision_model(pixel_values=pixels).pooler_output)
    wanted = torch.nn.functional.normalize(wanted, dim=-1)
    assert torch.allclose(clips[0].image(images), wanted, atol=0.02)
    assert clips[0].text("a bust").norm().item() == pytest.approx(1, abs=1e-5)
    assert not torch.allclose(clips[0].text("a bust"), clips[0].text("a rose"), atol=1e-3)


def test_a_sentence_lowers_the_loss_and_leaves_the_source(model: Generator, clips: list[Clip]) -> None:
    made = stylize(model, clips, "a marble bust", settings=StylizationSettings(steps=30, batch=2, rate=5e-3))
    assert np.mean(made.curve[-5:]) < np.mean(made.curve[:3]) - 0.1
    assert fingerprint(model) == fingerprint(next3d.load("untrained:tiny")) == made.source
    assert all(parameter.grad is None for parameter in model.parameters())
    head = model.head
    heads = random_heads(model, head, 4, 0.7, 99)  # heads that no step has seen
    direction = Direction.of_text(clips, "a marble bust", "a photo of a face")
    with torch.no_grad():
        assert direction(heads.draw(made.model), heads.draw(model)) < 0.9


@pytest.mark.parametrize("strategy", ["last", "none"])
def test_only_what_the_strategy_allows_moves(model: Generator, clips: list[Clip], strategy: str) -> None:
    made = stylize(model, clips[:1], "a rose", settings=StylizationSettings(4, batch=1, strategy=strategy))  # type: ignore[arg-type]
    own, now = model.state_dict(), made.model.state_dict()
    last = {
        f"{network}.network.blocks.{size}.to_picture."
        for network, size in (("neural_texture", 16), ("static_planes", 16), ("mouth", 8))
    }
    networks = ("neural_texture.", "static_planes.", "mouth.")
    moved = set()
    for name, value in own.items():
        allowed = name.startswith(networks) and "noise_const" not in name
        if ".to_picture." in name:
            allowed = strategy == "last" and name.startswith(tuple(last))
        same = torch.equal(value, now[name])
        assert same or allowed, f"{name} moved"
        if not same:
            moved.add(name)
    assert set(made.moved) == moved
    for network in networks:
        assert any(name.startswith(network) and "conv" in name for name in moved)
    assert any(name.startswith(tuple(last)) for name in moved) == (strategy == "last")


def test_layers_are_chosen_by_their_w(model: Generator, clips: list[Clip]) -> None:
    ws = model.mapping(torch.randn(1, 16), None)
    for name, parameter in movable(model, QUICK).items():  # which w's gradient meets which layer
        if not name.endswith("affine.bias"):
            continue
        index = layer_of(name, model)
        assert index is not None
        part = model.get_submodule(name.removesuffix(".affine.bias"))
        seen = ws.detach().clone().requires_grad_(True)
        taken: list[torch.Tensor] = []
        hook = part.affine.register_forward_pre_hook(lambda _, inputs, to=taken: to.append(inputs[0]))
        model.identity(seen)
        hook.remove()
        (gradient,) = torch.autograd.grad(taken[0].sum(), seen)
        assert gradient[0].abs().sum(-1).nonzero().flatten().tolist() == [index], name
        assert parameter.requires_grad
    few = stylize(model, clips[:1], "a rose", settings=StylizationSettings(3, batch=1, layers=2))
    assert 1 <= len({layer_of(name, model) for name in few.moved}) <= 2


def test_example_pictures_identity_and_cancelling(model: Generator, clips: list[Clip]) -> None:
    examples = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3)) * 2 - 1
    with torch.random.fork_rng():
        torch.manual_seed(0)
        estimator = Estimator(EstimatorConfig(IDENTITY, channels=(4, 4, 8, 8))).eval().requires_grad_(False)
    kept = StylizationSettings(steps=6, batch=1, identity_weight=1.0)
    made = stylize(model, clips, settings=kept, examples=examples, identity=estimator)
    assert made.recipe()["prompt"] == "1 example picture(s)"
    again = stylize(model, clips, settings=kept, examples=examples, identity=estimator)
    assert made.curve == again.curve
    assert fingerprint(made.model) == fingerprint(again.model)
    with pytest.raises(Cancelled):
        stylize(model, clips, "a rose", settings=QUICK, callback=lambda news: news.step < 2)


@pytest.mark.slow
def test_a_style_keeps_views_and_controls(clips: list[Clip]) -> None:
    """The bundled model, moved towards an example picture for a short while, still turns, opens its jaw and blinks."""
    source = next3d.load("demo")
    grey = source.sample(5).render().image.float().mean(0)
    example = torch.stack([0.6 * grey + 0.3, 0.2 * grey - 0.3, -0.5 * grey])[None]  # its colours replaced
    settings = StylizationSettings(steps=20, batch=1, rate=0.008)
    styled = stylize(source, clips, settings=settings, examples=example).model
    latents = torch.randn(3, source.config.mapping.z_dim, generator=torch.Generator().manual_seed(0))

    def measures(model: Generator) -> dict[str, float]:
        people = [ModelPerson(model, z, truncation=0.7) for z in latents]
        found = {"view": float(np.mean([person.consistency() for person in people]))}
        for sweep in sweeps(model.head, 4):
            readings = [sweep.read(person.pictures(sweep.params), person.regions) for person in people]
            found[sweep.name] = correlation(sweep.values, torch.stack(readings))["pooled"]
        return found

    before, after = measures(source), measures(styled)
    moved = (source.sample(1).render().image - styled.sample(1).render().image).abs().mean()
    assert moved > 0.01
    assert after.pop("view") < 1.1 * before.pop("view")
    assert min(before.values()) > 0.8
    for name, value in before.items():
        assert after[name] > 0.9 * value, name


def test_avatars_come_along(model: Generator, clips: list[Clip]) -> None:
    name = "neural_texture.network.blocks.16.conv1.bias"
    own = model.state_dict()[name]
    avatar = Avatar(model, model.sample(3).ws, tuned={name: own + 0.5}, name="anna")
    styled = stylize(model, clips[:1], "a rose", settings=QUICK).model
    carried = carry_over(avatar, styled)
    assert carried.name == "anna"
    assert torch.allclose(carried.tuned[name], styled.state_dict()[name] + 0.5, atol=1e-6)
    assert not torch.equal(carried.render().image, avatar.render().image)


def test_on_the_command_line(folders: list[Path], model: Generator, tmp_path: Path, capsys) -> None:
    avatar, out = tmp_path / "anna.avatar", tmp_path / "marble"
    model.sample(3).save(avatar)
    common = ["--model", "untrained:tiny", "--out", str(out), "--steps", "3", "--batch", "1"]
    clip = ["--clip", *map(str, folders)]
    main(["stylize", "--prompt", "a marble bust", "--avatar", str(avatar), *common, *clip])
    assert "tensors moved" in capsys.readouterr().out
    styled = next3d.load(out)
    assert json.loads((out / "recipe.json").read_text())["prompt"] == "a marble bust"
    assert Image.open(out / "comparison.png").height > 3 * 192
    assert Avatar.load(out / "anna.avatar", styled).name == "seed 3"
    with pytest.raises(InputError, match="belongs to another model"):
        Avatar.load(avatar, styled)


def test_bad_input(folders: list[Path], clips: list[Clip], model: Generator, tmp_path: Path, capsys) -> None:
    with pytest.raises(InputError, match="the prompt is empty"):
        stylize(model, clips, "  ")
    with pytest.raises(InputError, match="tokens long"):
        stylize(model, clips, "a very long sentence " * 9)
    with pytest.raises(InputError, match="same as the source"):
        stylize(model, clips, "a photo of a face")
    with pytest.raises(InputError, match="no network 'hair'"):
        stylize(model, clips, "a rose", settings=StylizationSettings(networks=("hair",)))
    with pytest.raises(InputError, match="has no network 'background'"):
        stylize(model, clips, "a rose", settings=StylizationSettings(networks=("background",)))
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "siglip"}')
    with pytest.raises(InputError, match="layout 'siglip', not CLIP's"):
        Clip(other)
    with pytest.raises(InputError, match="no CLIP model 'nobody/nothing' in your cache: give --download"):
        Clip("nobody/nothing")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for name in ("config.json", "vocab.json", "merges.txt"):
        (damaged / name).write_bytes((folders[0] / name).read_bytes())
    (damaged / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read"):
        Clip(damaged)
    from safetensors.torch import load_file, save_file

    tensors = load_file(folders[0] / "model.safetensors")
    tensors.pop("text_projection.weight")
    save_file(tensors, damaged / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 of CLIP's tensors, such as 'text_projection\.weight'"):
        Clip(damaged)
    with pytest.raises(SystemExit):
        main(["stylize", "--model", "untrained:tiny", "--out", str(tmp_path / "x")])
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "x").exists()
