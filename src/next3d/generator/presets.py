"""Generators by name: sizes that were published, or trained with this package."""

from __future__ import annotations

from collections.abc import Callable

from next3d.errors import InputError
from next3d.generator.config import (
    BackgroundConfig,
    BlendingConfig,
    GeneratorConfig,
    MappingConfig,
    MouthConfig,
    PlanesConfig,
    StaticConfig,
    SuperresConfig,
    TextureConfig,
    VolumeConfig,
)


def ffhq512() -> GeneratorConfig:
    """The paper's: 512² pictures, 64² rays."""
    return GeneratorConfig()


def ffhq256() -> GeneratorConfig:
    """The same networks with the super-resolution's last block at 256²."""
    return GeneratorConfig(superres=SuperresConfig(256, (256, 128)))


def ffhq512_light() -> GeneratorConfig:
    """A quarter of the channels, for real-time use."""
    return GeneratorConfig(
        texture=TextureConfig(8192, 128),
        static=StaticConfig(8192, 128),
        mouth=MouthConfig(8192, 128),
        blending=BlendingConfig(8192, 128),
        volume=VolumeConfig(samples=24, importance_samples=24),
        superres=SuperresConfig(512, (64, 32)),
    )


def synthetic128() -> GeneratorConfig:
    """The bundled model's: 128² pictures of the built-in head, trainable and interactive on a CPU.

    A fine front plane and no blending network, since that would pass the face on at half its resolution; a picture
    behind the head, since the training pictures have one.
    """
    return GeneratorConfig(
        mapping=MappingConfig(z_dim=64, w_dim=256, waves=4, camera_conditioning=False),
        texture=TextureConfig(4096, 128, resolution=128),
        static=StaticConfig(4096, 128, resolution=128, shows_through=True),
        planes=PlanesConfig(channels=16, resolution=128, front_resolution=256),
        mouth=MouthConfig(1024, 64, crop=64, resolution=64),
        blending=BlendingConfig(enabled=False),
        background=BackgroundConfig(512, 64, enabled=True, resolution=32),
        volume=VolumeConfig(ray_resolution=64, near=2.38, far=3.05, samples=12, importance_samples=8, decoder_width=32),
        superres=SuperresConfig(128, (32,)),
    )


def tiny() -> GeneratorConfig:
    """Milliseconds on one core, for tests."""
    return GeneratorConfig(
        mapping=MappingConfig(z_dim=16, w_dim=16, camera_conditioning=False),
        texture=TextureConfig(256, 16, resolution=16),
        static=StaticConfig(256, 16, resolution=16),
        planes=PlanesConfig(channels=8, resolution=16, front_resolution=16),
        mouth=MouthConfig(128, 16, crop=8, resolution=8),
        blending=BlendingConfig(128, 16, final=8),
        volume=VolumeConfig(ray_resolution=16, samples=6, importance_samples=4, decoder_width=16),
        superres=SuperresConfig(32, (8,)),
    )


PRESETS: dict[str, Callable[[], GeneratorConfig]] = {
    "ffhq512": ffhq512,
    "ffhq256": ffhq256,
    "ffhq512-light": ffhq512_light,
    "synthetic128": synthetic128,
    "tiny": tiny,
}


def preset(name: str) -> GeneratorConfig:
    """The generator's settings of that name; an unknown one raises :class:`InputError`."""
    if name not in PRESETS:
        raise InputError(f"there is no generator preset '{name}': choose one of {', '.join(PRESETS)}")
    return PRESETS[name]()
