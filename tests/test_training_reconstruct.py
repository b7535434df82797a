"""The reconstruction warm start: what it draws, what it orders, and that it learns."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from next3d.data.synthesis.identity import AXES, LATENT_SIZE, Identity
from next3d.errors import InputError
from next3d.generator.config import GeneratorConfig, MappingConfig
from next3d.generator.mapping import Mapping
from next3d.geometry.cameras import Camera
from next3d.geometry.meshes import world_from_head
from next3d.heads import HeadParams, load_head
from next3d.training import losses
from next3d.training.factors import Factors, factors
from next3d.training.randomness import SampleRandom
from next3d.training.reconstruct import (
    ByIdentity,
    Scene,
    around_eyes,
    choose_pixels,
    shared_meshes,
    small_parts,
)
from training_run import HEAD, noise, tiny_config, trainer


def test_pixels_are_drawn_in_proportion_to_importance():
    importance = torch.tensor([[1.0, 0.0, 3.0, 0.0, 4.0]])
    pixel = choose_pixels(importance, SampleRandom(0, "p", 0, [0]).uniform(8000))
    share = torch.bincount(pixel[0], minlength=5) / 8000
    torch.testing.assert_close(share, importance[0] / 8, atol=2e-3, rtol=0)


def test_meshes_are_shared_only_where_all_identities_share_them():
    one, two, three = torch.zeros(3, 162), torch.ones(3, 162), torch.full((3, 162), 2.0)
    assert shared_meshes(torch.stack([one[0], one[0], two[0], two[0]]), 2) == 2
    assert shared_meshes(torch.stack([one[0], one[0], two[0], three[0]]), 2) == 1
    assert shared_meshes(torch.stack([one[0], one[0], two[0], two[0]]), 4) == 2
    assert shared_meshes(torch.stack([one[0]] * 4), 4) == 4


def test_pictures_of_an_identity_stay_together():
    data = noise(tiny_config(stage="reconstruct"), 12)
    ordered = ByIdentity(data, 2)
    order = ordered.order(0, 0)
    assert sorted(order) == list(range(12))
    assert (data.columns["identity"][order].reshape(-1, 2).std(1) == 0).all()
    assert not np.array_equal(order, ordered.order(0, 1))
    assert np.array_equal(order, ordered.order(0, 0))
    with pytest.raises(InputError, match="no identity with 3 pictures"):
        ByIdentity(data, 3)


def test_a_scene_knows_distances_along_rays(tmp_path: Path):
    run = trainer(tiny_config(stage="reconstruct"), tmp_path / "run")
    batch = next(run.loader)
    scene = Scene.of(batch, HEAD, 2)
    # A point at the stored distance along its pixel's ray has the stored depth along the camera's axis.
    point = scene.origins[:, :, None, None] + scene.distance * scene.directions
    local = Camera.from_label(batch.camera).to_camera(point.flatten(2).transpose(1, 2))
    solid = scene.solid.flatten(1) > 0
    torch.testing.assert_close(local[..., 2][solid], batch.aux["depth"].flatten(1)[solid])
    eyes = scene.small
    assert (eyes >= small_parts(batch.aux["parts"])).all()
    importance = scene.importance(run.config.reconstruct).view_as(eyes)
    solid = scene.solid > 0
    assert importance[(eyes > 0) & solid].mean() > 1.5 * importance[(eyes == 0) & solid].mean()
    run.loader.close()
    run.folder.close()


def test_closed_lids_count_as_much_as_open_eyes():
    """Lids are skin to the part mask; the discs around the eyes follow the head and the camera."""
    landmarks = load_head("builtin")(HeadParams()).landmarks  # (1, 68, 3)
    cameras = torch.stack([Camera.orbit(yaw, 0.1).label for yaw in (0.0, 0.4)])
    mask = around_eyes(landmarks, cameras, 128)[:, 0]
    for camera, seen in zip(cameras, mask):
        places, _ = Camera.from_label(camera).project(world_from_head(landmarks[0]))
        column, row = (places * 128).long().unbind(1)
        assert (seen[row[36:48], column[36:48]] == 1).all()  # both eyes' contours
        assert (seen[row[[8, 30, 48, 54]], column[[8, 30, 48, 54]]] == 0).all()  # chin, nose and mouth
    assert 0.02 < float(mask.mean()) < 0.06


def learned(tmp_path: Path, name: str, fraction: float, steps: int = 40, **changes) -> list[dict]:
    settings = {"field_fraction": fraction, "warm_up_steps": 5, "learning_rate": 1e-2, **changes}
    config = tiny_config(stage="reconstruct", total_steps=steps, checkpoint_every=steps, batch=4, reconstruct=settings)
    run = trainer(config, tmp_path / name)
    run.dataset.images[:] = (run.dataset.images[:1] // 64) * 64  # one picture to learn
    run.run()
    return [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]


def test_points_learn_geometry_and_colour(tmp_path: Path):
    log = learned(tmp_path, "points", 1.0)
    assert log[-1]["occupancy"] < 0.7 * log[0]["occupancy"]
    assert log[-1]["colour"] < log[0]["colour"]
    assert "image" not in log[-1]
    # Without its term the geometry does not come: what lowers it above is the term, nothing else.
    without = learned(tmp_path, "without", 1.0, occupancy_weight=0.0)
    assert without[-1]["occupancy"] > 1.2 * log[-1]["occupancy"]


def test_pictures_follow_points(tmp_path: Path):
    log = learned(tmp_path, "pictures", 0.5)
    assert "image" not in log[19]
    assert {"image", "edges", "rays", "silhouette", "depth"} <= log[20].keys()
    assert log[-1]["image"] < log[20]["image"]
    assert log[-1]["learning_rate"] < log[10]["learning_rate"]


def test_features_are_a_term_of_their_own(tmp_path: Path):
    """Weighing nothing but the estimator's features brings the pictures' features nearer."""
    only = {"image_weight": 0.0, "edge_weight": 0.0, "ray_weight": 0.0, "colour_weight": 0.0}
    log = learned(tmp_path, "features", 0.0, perceptual_weight=1.0, **only)
    assert log[-1]["features"] < 0.9 * log[0]["features"]
    assert log[0]["features"] > 0


def test_texture_is_what_pixels_miss():
    """Strands in another place have the same texture; strands blurred away have not, though each pixel is nearer."""
    one = torch.ones(1, 1, 64, 64)
    strands = (torch.arange(64) % 4 < 2).float().expand(1, 3, 64, 64) * 2 - 1
    moved, blurred = strands.roll(2, -1), torch.zeros_like(strands)
    assert losses.weighted_l1(moved, strands, one) > losses.weighted_l1(blurred, strands, one)
    assert losses.texture_l1(moved, strands, one) < 0.1 * losses.texture_l1(blurred, strands, one)
    assert losses.texture_l1(strands, strands, one) == 0
    # A line across is none along.
    line = torch.zeros(1, 3, 64, 64)
    line[..., 32, :] = -1
    assert losses.texture_l1(line.transpose(2, 3), line, one) > 0.5 * losses.texture_l1(
        torch.zeros_like(line), line, one
    )
    # Weight counts place by place.
    half = torch.cat([strands[..., :32], blurred[..., 32:]], -1)
    left = torch.cat([one[..., :24], torch.zeros(1, 1, 64, 40)], -1)
    assert losses.texture_l1(half, strands, left) < 0.1 * losses.texture_l1(blurred, strands, left)


def test_texture_is_a_term_of_its_own(tmp_path: Path):
    only = {"image_weight": 0.0, "edge_weight": 0.0, "ray_weight": 0.0, "colour_weight": 0.0}
    log = learned(tmp_path, "texture", 0.0, texture_weight=1.0, **only)
    assert log[-1]["texture"] < 0.9 * log[0]["texture"]


def test_a_discriminator_alone_leads_to_the_picture(tmp_path: Path):
    """With nothing else to learn from, the generator's pictures become as bright as the one true picture."""
    nothing = dict.fromkeys(
        ("image_weight", "edge_weight", "ray_weight", "colour_weight", "silhouette_weight", "depth_weight"), 0.0
    )

    def distance(name: str, weight: float) -> float:
        config = tiny_config(
            stage="reconstruct",
            total_steps=60,
            reconstruct={"field_fraction": 0.0, "adversarial_weight": weight, **nothing},
        )
        run = trainer(config, tmp_path / name)
        run.dataset.images[:] = 250
        run.run()
        batch = run.stage.held_out[0]
        mesh = run.stage.mesh(batch.params)
        with torch.no_grad():
            ws = run.stage.generator.mapping(batch.row["latent"].float())
            image = run.stage.generator.synthesis(ws, batch.camera, mesh.vertices, mesh.landmarks).image
        return float((image.mean((1, 2, 3)) - batch.normalized.mean((1, 2, 3))).abs().mean())

    assert distance("judged", 1.0) < 0.5 * distance("alone", 1e-9)


def test_the_discriminator_is_told_who_it_sees(tmp_path: Path):
    config = tiny_config(stage="reconstruct", reconstruct={"adversarial_weight": 0.1})
    run = trainer(config, tmp_path / "run")
    stage = run.stage
    scene = Scene.of(next(run.loader), HEAD, 2)
    ws = stage.generator.mapping(torch.randn(2, config.generator.mapping.z_dim))
    condition = stage.condition(scene, ws)
    assert torch.equal(condition["latent"], ws[:, 0].detach().repeat_interleave(2, 0))
    assert not condition["latent"].requires_grad  # w is not to become what the discriminator likes to hear
    raw = scene.image[..., ::2, ::2]
    own = stage.discriminator(scene.image, raw, **condition)
    for name in ("latent", "synthetic", "camera_label"):
        other = stage.discriminator(scene.image, raw, **{**condition, name: condition[name].roll(2, 0) + 0.1})
        assert not torch.allclose(own, other), f"{name} is ignored"
    run.loader.close()
    run.folder.close()


def test_factors_are_what_the_latent_means():
    latent = np.zeros(LATENT_SIZE, np.float32)
    latent[AXES.index("glasses")] = 3.0
    values = factors(latent)
    assert np.isfinite(values).all()
    who = Identity.of(latent)
    assert who.glasses == "sun"
    np.testing.assert_allclose(values[:3], who.skin, atol=1e-6)
    task = Factors(8, 0)

    class Mapping(torch.nn.Module):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return z.new_zeros(len(z), 2, 8)

    assert task(Mapping(), torch.rand(4, 64)).item() == pytest.approx(1, abs=0.5)  # nothing known: all of the variance


def test_a_mapping_with_waves_learns_what_latents_mean():
    config = GeneratorConfig(mapping=MappingConfig(z_dim=LATENT_SIZE, w_dim=160, waves=3, camera_conditioning=False))
    torch.manual_seed(0)
    mapping, task = Mapping(config), Factors(160, 0)
    features = mapping.features(task.latents[:2000])
    assert features.shape[1] == 7 * LATENT_SIZE
    torch.testing.assert_close(features.var(), torch.tensor(1.0), atol=0.05, rtol=0)
    chance = torch.rand(512, generator=torch.Generator().manual_seed(1))
    before = task(mapping, chance).item()
    task.teach(mapping, 150, 0, show=False)
    after = task(mapping, chance).item()
    assert after < 0.7 < 1 < before
    torch.testing.assert_close(mapping.average, mapping(task.latents)[:, 0].mean(0))


def test_only_a_mapping_from_elsewhere_is_not_taught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    taught = []
    monkeypatch.setattr(Factors, "teach", lambda self, *rest: taught.append(rest[1]))
    config = tiny_config(stage="reconstruct", reconstruct={"factor_weight": 0.1, "factor_steps": 3}, batch=4)
    generator = dataclasses.replace(
        config.generator, mapping=dataclasses.replace(config.generator.mapping, z_dim=LATENT_SIZE)
    )
    config = dataclasses.replace(config, generator=generator, total_steps=1, checkpoint_every=1)
    first = trainer(config, tmp_path / "first")
    first.run()
    assert taught == [3]
    trainer(config, tmp_path / "second", init=tmp_path / "first")
    assert taught == [3]
    waves = dataclasses.replace(generator, mapping=dataclasses.replace(generator.mapping, waves=2))
    trainer(dataclasses.replace(config, generator=waves), tmp_path / "third", init=tmp_path / "first")
    assert taught == [3, 3]


def test_what_the_stage_cannot_learn_from_is_refused(tmp_path: Path):
    for changes, message in (
        ({"reconstruct": {"factor_weight": 0.1}}, "latents of 64"),
        ({"reconstruct": {"views": 3}, "batch": 6}, "no identity with 3"),
    ):
        with pytest.raises(InputError, match=message):
            trainer(tiny_config(stage="reconstruct", **changes), tmp_path / "run")
