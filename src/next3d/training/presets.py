"""Published and tested training setups, one for each generator preset."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from next3d.data.synthesis.identity import shape_latents
from next3d.discriminator import DiscriminatorConfig
from next3d.errors import InputError
from next3d.generator.presets import preset as generator_preset
from next3d.heads import load_head
from next3d.training.config import AdversarialConfig, EmaConfig, ReconstructConfig, TrainingConfig


def ffhq512() -> TrainingConfig:
    """The paper: FFHQ at 512², 64² rays, batch 32; about 4 days on 4 RTX 3090 (published)."""
    return TrainingConfig(generator=generator_preset("ffhq512"))


def ffhq256() -> TrainingConfig:
    """The paper at 256²; R1's weight follows the picture's area."""
    return TrainingConfig(
        generator=generator_preset("ffhq256"),
        discriminator=DiscriminatorConfig(resolution=256),
        adversarial=AdversarialConfig(r1_gamma=1.0),
    )


def ffhq512_light() -> TrainingConfig:
    """A quarter of the channels, for real-time use."""
    return TrainingConfig(generator=generator_preset("ffhq512-light"))


def synthetic128() -> TrainingConfig:
    """The bundled model's: pictures of ``next3d dataset synthesize --aux`` at 128², trainable on a CPU.

    Its latents are those of the picture factory's people, so they say which shape of the built-in head is theirs.
    """
    generator = generator_preset("synthetic128")
    shapes = shape_latents(load_head("builtin").shape_names)
    return TrainingConfig(
        generator=dataclasses.replace(generator, mapping=dataclasses.replace(generator.mapping, shape_latents=shapes)),
        discriminator=DiscriminatorConfig(
            resolution=128, channel_base=2048, channel_max=256, mapping_layers=2, mapping_learning_rate=1.0
        ),
        adversarial=AdversarialConfig(
            r1_gamma=1.0, blur_sigma=2.5, blur_fade_images=20_000, swap_probability_start=0.0, swap_probability=0.0
        ),
        ema=EmaConfig(half_life_images=4000),
        reconstruct=ReconstructConfig(
            learning_rate=7e-3,
            field_fraction=0.3,
            factor_steps=4000,
            factor_weight=0.2,
            factor_latents=64,
            silhouette_weight=0.2,
            texture_weight=4.0,
        ),
        total_steps=3500,
        batch=8,
        mirror=False,
        checkpoint_every=100,
        sample_every=200,
        log_every=25,
        precision="bf16-mixed",
    )


def tiny() -> TrainingConfig:
    """Seconds on one core: for tests."""
    return TrainingConfig(
        generator=generator_preset("tiny"),
        discriminator=DiscriminatorConfig(
            resolution=generator_preset("tiny").superres.resolution,
            channel_base=256,
            channel_max=16,
            minibatch_group=2,
            mapping_layers=2,
        ),
        adversarial=AdversarialConfig(density_points=64, blur_fade_images=1000, swap_fade_images=1000),
        reconstruct=ReconstructConfig(pixels=64, picture_pixels=32),
        total_steps=20,
        batch=4,
        workers=0,
        checkpoint_every=10,
        sample_every=1000,
        log_every=1,
    )


PRESETS: dict[str, Callable[[], TrainingConfig]] = {
    "ffhq512": ffhq512,
    "ffhq256": ffhq256,
    "ffhq512-light": ffhq512_light,
    "synthetic128": synthetic128,
    "tiny": tiny,
}


def preset(name: str) -> TrainingConfig:
    """The training setup of that name; an unknown one raises :class:`InputError`."""
    if name not in PRESETS:
        raise InputError(f"there is no training preset '{name}': choose one of {', '.join(PRESETS)}")
    return PRESETS[name]()
