"""One-shot avatars: pictures are recovered, the model stays, runs resume exactly, photos become avatars."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

import next3d
from next3d import perceptual
from next3d.avatar import Avatar, fingerprint
from next3d.cli.main import main
from next3d.editing import recovery
from next3d.editing.inversion import Inversion, InversionSettings, invert, noise_correlation, stalled
from next3d.editing.latent_space import LatentSpace, draw_w
from next3d.editing.losses import PictureLoss, face_weights
from next3d.editing.photos import align_photos
from next3d.editing.preview import curves, inversion_sheet
from next3d.editing.progress import Cancelled, Progress
from next3d.errors import InputError
from next3d.estimators import IDENTITY, Estimator, EstimatorConfig
from next3d.generator.generator import Generator
from next3d.geometry.cameras import Camera
from next3d.geometry.meshes import world_from_head
from next3d.heads import HeadParams
from next3d.io.images import to_uint8
from next3d.metrics.pixels import psnr
from next3d.perceptual import EstimatorFeatures, Lpips, perceptual_distance
from next3d.tracking.detector import Face
from next3d.tracking.track import Tracker

POSES = HeadParams(expression=torch.zeros(2, 50), jaw=[[0.1, 0, 0], [0.25, 0, 0]])
CAMERAS = Camera.orbit(torch.tensor([0.3, -0.2]), torch.tensor([0.1, 0.0]))
SHORT = InversionSettings(latent_steps=60, weight_steps=40, candidates=4, weight_rate=3e-3, anchors=2)


@pytest.fixture(scope="module")
def model() -> Generator:
    return next3d.load("untrained:tiny")


@pytest.fixture(scope="module")
def person(model: Generator) -> Avatar:
    return model.sample(seed=5, truncation=1.0)


@pytest.fixture(scope="module")
def estimator() -> Estimator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Estimator(EstimatorConfig(IDENTITY, channels=(4, 4, 8, 8))).eval().requires_grad_(False)


def photos(person: Avatar) -> torch.Tensor:
    return torch.stack([person.render(POSES[i], CAMERAS[i]).image for i in range(2)])


def params(person: Avatar) -> HeadParams:
    return POSES.replace(shape=person.shape.expand(2, 100))


@pytest.fixture(scope="module")
def result(model: Generator, person: Avatar, estimator: Estimator) -> Inversion:
    """Two photos, with perceptual features."""
    loss = PictureLoss(EstimatorFeatures(estimator), estimator)
    return invert(photos(person), CAMERAS, params(person), model, SHORT, loss=loss)


def test_own_pictures_are_recovered_and_animate(model: Generator, person: Avatar, result: Inversion) -> None:
    mean = Avatar(model, model.mapping.average.expand(1, model.mapping.count, -1), person.shape)
    start = psnr(mean.render(POSES[0], CAMERAS[0]).image, result.photos[0])
    assert result.pivot_psnr > start + 3
    assert result.psnr > result.pivot_psnr + 2
    held_out, camera = HeadParams(jaw=(0.3, 0, 0), eyes=[0, 0.2, 0, 0, 0.2, 0]), Camera.orbit(-0.4, -0.1)
    true, mine = (one.render(held_out, camera).image for one in (person, result.avatar))
    assert psnr(mine, true) > psnr(mean.render(held_out, camera).image, true) + 3
    assert result.avatar.shape.allclose(person.shape)


def test_the_model_stays_and_the_file_is_small(model: Generator, result: Inversion, tmp_path: Path) -> None:
    assert fingerprint(model) == fingerprint(next3d.load("untrained:tiny"))
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    tuned = result.avatar.tuned
    assert tuned
    assert not any(name.startswith(("mapping", "texture_planes")) for name in tuned)
    result.avatar.save(tmp_path / "a.avatar")
    assert (tmp_path / "a.avatar").stat().st_size < 2.2 * sum(v.numel() for v in tuned.values()) + 20_000
    again = Avatar.load(tmp_path / "a.avatar", model)
    assert (again.render(POSES[0]).image - result.avatar.render(POSES[0]).image).abs().max() < 1e-4


class Interrupter:
    """Stops a run after a number of steps of a stage, as Ctrl-C does."""

    def __init__(self, stage: str, step: int) -> None:
        self.stage, self.step = stage, step

    def __call__(self, news: Progress) -> None:
        if (news.stage, news.step) == (self.stage, self.step):
            raise KeyboardInterrupt


def test_runs_agree_and_resume_exactly(model: Generator, person: Avatar, tmp_path: Path) -> None:
    def run(callback=None, checkpoint=None, settings=SHORT) -> Inversion:
        return invert(photos(person), CAMERAS, params(person), model, settings, callback, checkpoint=checkpoint)

    whole, checkpoint = run(), tmp_path / "a.resume"
    for stage, step in (("latent", 17), ("weights", 13)):
        with pytest.raises(KeyboardInterrupt):
            run(Interrupter(stage, step), checkpoint)
        assert checkpoint.is_file()
    with pytest.raises(InputError, match="other photos, another model or other settings"):
        run(None, checkpoint, InversionSettings(seed=1))
    seen: list[Progress] = []
    resumed = run(lambda news: seen.append(news), checkpoint)
    assert (seen[0].stage, seen[0].step) == ("weights", 14)
    assert seen[-1].picture is not None
    assert not checkpoint.exists()
    assert torch.equal(resumed.avatar.ws, whole.avatar.ws)
    assert resumed.curves == whole.curves
    assert all(torch.equal(value, whole.avatar.tuned[name]) for name, value in resumed.avatar.tuned.items())


def test_a_callback_cancels_and_leaves_nothing(model: Generator, person: Avatar, tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        invert(
            photos(person), CAMERAS, params(person), model, SHORT,
            lambda news: news.stage != "weights", checkpoint=tmp_path / "a.resume",
        )  # fmt: skip
    assert not any(tmp_path.iterdir())


def test_poses_are_refined_on_request(model: Generator, person: Avatar) -> None:
    wrong = Camera(CAMERAS.cam2world.clone(), CAMERAS.intrinsics)
    wrong.cam2world[:, 0, 3] += 0.03  # two pixels at this size
    settings = InversionSettings(latent_steps=60, weight_steps=0, candidates=8, pose_rate=3e-3, pose_weight=0.01)
    refined = InversionSettings(**{**vars(settings), "refine_pose": True})
    kept, moved = (invert(photos(person), wrong, params(person), model, s) for s in (settings, refined))
    assert moved.pivot_psnr > kept.pivot_psnr
    assert torch.equal(kept.cameras.cam2world, wrong.cam2world)
    assert not torch.equal(moved.cameras.cam2world, wrong.cam2world)
    assert not kept.avatar.tuned


def test_latents_by_layer_and_noise_maps(model: Generator, person: Avatar) -> None:
    short = {"latent_steps": 6, "weight_steps": 2, "start": "mean"}
    halves = invert(photos(person)[:1], CAMERAS[:1], params(person)[:1], model, InversionSettings(**short)).avatar
    static = model.mapping.static_count
    assert (halves.ws[0, :static] == halves.ws[0, 0]).all()
    assert (halves.ws[0, static:] == halves.ws[0, -1]).all()
    assert not torch.equal(halves.ws[0, 0], halves.ws[0, -1])
    more = InversionSettings(**short, per_layer=True, noise_maps=True)
    layered = invert(photos(person)[:1], CAMERAS[:1], params(person)[:1], model, more).avatar
    assert not torch.equal(layered.ws[0, 0], layered.ws[0, 1])
    smooth = torch.linspace(-1, 1, 32).expand(32, 32)
    assert noise_correlation(smooth) > 10 * noise_correlation(torch.randn(32, 32))


def test_stages_end_early(model: Generator, person: Avatar) -> None:
    settings = InversionSettings(latent_steps=0, weight_steps=200, target_psnr=10.0, start="mean")
    done = invert(photos(person)[:1], CAMERAS[:1], params(person)[:1], model, settings)
    assert len(done.curves["weights"]) < 20
    falling = [1 / (i + 1) for i in range(40)]
    assert not stalled(falling, 10, 1)
    assert stalled(falling + [0.025] * 20, 10, 1)


def test_bad_input(model: Generator, person: Avatar, tmp_path: Path) -> None:
    good = photos(person)
    with pytest.raises(InputError, match="32²"):
        invert(good[..., :16], CAMERAS, params(person), model)
    with pytest.raises(InputError, match="2 images need 2 cameras"):
        invert(good, CAMERAS[:1], params(person), model)
    with pytest.raises(InputError, match="must not be negative"):
        invert(good, CAMERAS, params(person), model, InversionSettings(weight_steps=-1))
    (tmp_path / "broken").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="not a checkpoint"):
        invert(good, CAMERAS, params(person), model, SHORT, checkpoint=tmp_path / "broken")


def test_whitened_latents(model: Generator) -> None:
    space = LatentSpace.of(model)
    w = draw_w(model, 2000, 9)
    x = space.whiten(w)
    assert torch.allclose(space.w(x), w, atol=1e-4)
    assert x.mean(0).abs().max() < 0.15
    assert 0.5 < x.square().mean() < 1.2


def test_the_face_counts_more(model: Generator, person: Avatar) -> None:
    assert model.topology is not None
    assert model.head is not None
    vertices = model.head(params(person)).vertices
    weight = face_weights(model.topology, vertices, CAMERAS, 64, 4.0)
    assert weight.shape == (2, 1, 64, 64)
    assert weight[:, 0, 32, 32].min() > 3
    assert weight[:, 0, 0].max() == 1


def test_lpips_in_the_layouts_that_people_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptual, "VGG_STAGES", ((4, 4), (6, 6), (8, 8, 8), (8, 8, 8), (8, 8, 8)))
    g = torch.Generator().manual_seed(0)
    places = [(0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)]  # torchvision's numbering
    vgg, channels = {}, 3
    for stage, row in enumerate(places):
        width = perceptual.VGG_STAGES[stage][0]
        for place in row:
            vgg[f"{place}.weight"] = torch.randn(width, channels, 3, 3, generator=g) * (2 / channels / 9) ** 0.5
            vgg[f"{place}.bias"] = 0.1 * torch.randn(width, generator=g)
            channels = width
    lins = {
        f"lin{i}.model.1.weight": torch.rand(1, row[-1], 1, 1, generator=g)
        for i, row in enumerate(perceptual.VGG_STAGES)
    }
    torch.save(
        {f"features.{name}": value for name, value in vgg.items()} | {"classifier.0.weight": torch.zeros(2, 2)},
        tmp_path / "vgg16.pth",
    )
    torch.save(lins, tmp_path / "vgg.pth")
    slices = {int(place): stage + 1 for stage, row in enumerate(places) for place in row}
    save_file(
        lins | {f"net.slice{slices[int(n.split('.')[0])]}.{n}": v for n, v in vgg.items()},
        tmp_path / "lpips.safetensors",
    )
    first, second = torch.rand(2, 1, 3, 64, 64, generator=g).mul(2).sub(1)

    def by_hand(lin: bool) -> torch.Tensor:
        total = torch.zeros(())
        pair = (torch.cat([first, second]) - torch.tensor([-0.030, -0.088, -0.188])[:, None, None]) / torch.tensor(
            [0.458, 0.448, 0.450]
        )[:, None, None]
        for stage, row in enumerate(places):
            pair = F.max_pool2d(pair, 2) if stage else pair
            for place in row:
                pair = F.relu(F.conv2d(pair, vgg[f"{place}.weight"], vgg[f"{place}.bias"], padding=1))
            normal = pair / pair.norm(dim=1, keepdim=True).clamp_min(1e-5)
            scale = lins[f"lin{stage}.model.1.weight"][0] if lin else 1.0
            total = total + ((normal[0] - normal[1]).square() * scale).sum(0).mean()
        return total

    def distance(*paths: Path) -> torch.Tensor:
        network = Lpips.load(*paths)
        return perceptual_distance(network.layers(first), network.layers(second))

    assert distance(tmp_path / "vgg16.pth", tmp_path / "vgg.pth").item() == pytest.approx(
        by_hand(True).item(), rel=1e-4
    )
    assert distance(tmp_path / "lpips.safetensors").item() == pytest.approx(by_hand(True).item(), rel=1e-4)
    assert distance(tmp_path / "vgg16.pth").item() == pytest.approx(by_hand(False).item(), rel=1e-4)
    with pytest.raises(InputError, match="no VGG-16 in it"):
        Lpips.load(tmp_path / "vgg.pth")
    vgg.pop("28.bias")
    torch.save({f"features.{name}": value for name, value in vgg.items()}, tmp_path / "less.pth")
    with pytest.raises(InputError, match=r"'features.28.bias' should be of shape \(8,\), found nothing"):
        Lpips.load(tmp_path / "less.pth")


def test_sheet_and_curves(result: Inversion) -> None:
    sheet = inversion_sheet(result)
    assert sheet.shape[1] == 5 * 196 + 4
    assert sheet.shape[0] > 4 * 192
    drawn = curves(result.curves)
    assert drawn.shape == (300, 720, 3)
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 50
    assert curves({"latent": [], "weights": [0.1]}).shape == (300, 720, 3)


class Landmarks:
    """A detector that finds as many faces as it is told, where the avatar's head is."""

    def __init__(self, model: Generator, shape: torch.Tensor, count: int = 1) -> None:
        self.model, self.shape, self.count = model, shape, count

    def detect(self, image: np.ndarray) -> list[Face]:
        head = self.model.head
        assert head is not None
        assert head.mediapipe is not None
        points = head.points(head(HeadParams(shape=self.shape[None])).vertices, *head.mediapipe)
        uv, _ = Camera.orbit(0.2).project(world_from_head(points)[0])
        pixels = (uv * image.shape[0]).numpy().astype(np.float32)
        return [Face(pixels, np.zeros(len(pixels), np.float32))] * self.count

    def close(self) -> None: ...


def test_photos_become_an_avatar_on_the_command_line(
    model: Generator,
    person: Avatar,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    photo, out = tmp_path / "photo.jpg", tmp_path / "anna.avatar"
    picture = Image.fromarray(to_uint8(person.render(None, Camera.orbit(0.2)).image)).resize((256, 256))
    picture.save(photo)
    aligned = align_photos([photo], model, tracker=Tracker(model.head, Landmarks(model, person.shape)))  # type: ignore[arg-type]
    turned = aligned.cameras.cam2world[0, :3, 3]
    assert 0.1 < float(torch.atan2(turned[0], turned[2])) < 0.3
    assert psnr(aligned.images[0], torch.from_numpy(np.array(picture.resize((32, 32)))).movedim(-1, 0) / 127.5 - 1) > 20

    monkeypatch.setattr("next3d.tracking.track.open_detector", lambda: Landmarks(model, person.shape))
    command = ["invert", str(photo), "--out", str(out), "--model", "untrained:tiny", "--pixels-only"]
    main([*command, "--steps", "4", "4", "--candidates", "2"])
    assert "dB tuned" in capsys.readouterr().out
    made = ["anna.avatar", "anna.curves.png", "anna.png", "photo.jpg"]
    assert sorted(p.name for p in tmp_path.iterdir()) == made
    assert Avatar.load(out, model).name == "photo"


@pytest.mark.parametrize(("faces", "said"), [(0, "no face was found"), (3, "shows 3 faces: choose one with --face")])
def test_photos_of_no_one_or_of_many(
    model: Generator, person: Avatar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faces: int, said: str, capsys
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "p.png")
    monkeypatch.setattr("next3d.tracking.track.open_detector", lambda: Landmarks(model, person.shape, faces))
    with pytest.raises(SystemExit) as stop:
        main(
            [
                "invert",
                str(tmp_path / "p.png"),
                "--out",
                str(tmp_path / "a.avatar"),
                "--model",
                "untrained:tiny",
                "--pixels-only",
            ]
        )
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_recovery_reports_every_head(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recovery.main(
        tmp_path / "r.json", "untrained:tiny", ("own",), identities=2, first=1, views=2, steps=(3, 2), pixels_only=True
    )
    found = json.loads((tmp_path / "r.json").read_text())
    assert [head["name"] for head in found["own"]["heads"]] == ["seed 1", "seed 2"]
    assert found["peak_memory_mib"] > 100
    mean = np.mean([head["held_out_tuned_db"] for head in found["own"]["heads"]])
    assert found["own"]["mean"]["held_out_tuned_db"] == pytest.approx(mean)
    assert (tmp_path / "r.own.png").is_file()
