"""What a generator is made of: one frozen tree of settings; each default is written here and nowhere else.

The defaults are the released FFHQ-512 network's sizes. ``to_dict`` and ``from_dict`` go through plain JSON types.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from next3d.errors import InputError
from next3d.nn.stylegan2 import is_power_of_two

LABEL_SIZE = 25  # numbers of a camera label


@dataclass(frozen=True)
class MappingConfig:
    """Latent z and camera to w (one network; its w vectors drive everything)."""

    z_dim: int = 512
    """numbers of a latent z"""
    w_dim: int = 512
    """numbers of an intermediate latent w"""
    layers: int = 2
    learning_rate: float = 0.01
    """multiplier of these layers' learning rate: 0.01 for adversarial training, about 1 for a supervised warm start"""
    camera_conditioning: bool = True
    """show the network the camera, so that pose and looks may correlate as in the photos"""
    camera_scale: float = 1.0
    """multiplies the camera label before it is embedded"""
    waves: int = 0
    """frequencies in which the network also sees each latent number's quantile, as sine and cosine: what depends on a
    latent in steps or in circles (a hair style, a hue) is then within its reach; the released model has none"""
    shape_latents: tuple[int, ...] = ()
    """for each of the head's 100 shape parameters the number of the latent that sets it, −1 for none, where a model was
    trained with identities whose latent says their shape (the picture factory's do); empty where it does not"""


@dataclass(frozen=True)
class NetworkConfig:
    """The width of a StyleGAN2 network: min(channel_base / resolution, channel_max) channels."""

    channel_base: int = 32768
    channel_max: int = 512


@dataclass(frozen=True)
class TextureConfig(NetworkConfig):
    """The neural texture (paper, §3.1)."""

    resolution: int = 256


@dataclass(frozen=True)
class StaticConfig(NetworkConfig):
    """The static planes (§3.3)."""

    enabled: bool = True
    """False is 'w/o T_static' of Table 2"""
    resolution: int = 256
    shows_through: bool = False
    """let the static planes be seen through the face, each channel as far as it learns to, instead of ending where the
    face begins: what stands before it (glasses) then keeps to the head while lids and lips move; not in the paper"""


@dataclass(frozen=True)
class PlanesConfig:
    """The three planes that the mesh is drawn on (§3.1)."""

    channels: int = 32
    """features of a texel of the texture and of a pixel of a plane"""
    resolution: int = 256
    """of the side and the top plane"""
    front_resolution: int = 256
    """of the front plane: an eye covers few texels, so small models spend more here"""
    enabled: bool = True
    """False leaves texture, mouth and mesh out: an EG3D network of static planes alone"""
    axes: tuple[str, str, str] = ("xy", "xz", "zy")
    """the world axes that run along the columns and rows of each plane"""


@dataclass(frozen=True)
class MouthConfig(NetworkConfig):
    """The mouth network (§3.2, B.2)."""

    source: Literal["network", "static", "texture"] = "network"
    """where the inside of the mouth comes from; "static" and "texture" are the ablations of Table 2"""
    planes: int = 1
    """1: the front plane alone (released); 3: all three stacked (paper)"""
    crop: int = 64
    """resolution of the crop that comes in"""
    final: int = 4
    """where the UNet turns around"""
    resolution: int = 256
    """of the UNet's result, which is shrunk into the box again"""
    margin: float = 1.2
    """side of the box in units of the lips' larger extent"""


@dataclass(frozen=True)
class BlendingConfig(NetworkConfig):
    """The shallow UNet that runs over the front plane after the mouth is pasted (§3.2)."""

    enabled: bool = True
    final: int = 32


@dataclass(frozen=True)
class VolumeConfig:
    """Rays through the planes (§3.4). Distances in world units."""

    ray_resolution: int = 64
    near: float = 2.25
    far: float = 3.3
    samples: int = 48
    importance_samples: int = 48
    """drawn where the first samples found something; 0 leaves the second pass out"""
    box_size: float = 1.0
    """side of the cube that the planes span"""
    decoder_width: int = 64
    decoder_learning_rate: float = 1.0


@dataclass(frozen=True)
class BackgroundConfig(NetworkConfig):
    """A picture behind the head instead of density in the volume; not in the paper, for data with such backgrounds."""

    enabled: bool = False
    resolution: int = 32


@dataclass(frozen=True)
class SuperresConfig:
    """From the rays' picture to the final one (§3.4)."""

    resolution: int = 512
    channels: tuple[int, ...] = (256, 128)
    """one StyleGAN2 block for each, the last at the output's resolution; none: the rays' picture is merely resized"""


@dataclass(frozen=True)
class GeneratorConfig:
    """Everything that shapes a generator.

    ``mode`` "compatible" is the released network to the digit; "default" follows the paper where the two differ: every
    view is drawn on the plane it depicts, both side views make the side's alpha, one rigid alignment with learnable
    scale and shift, exact barycentric weights.
    """

    mode: Literal["default", "compatible"] = "default"
    head: str = "builtin"
    """name of the head model whose meshes drive the generator"""
    mapping: MappingConfig = field(default_factory=MappingConfig)
    texture: TextureConfig = field(default_factory=TextureConfig)
    planes: PlanesConfig = field(default_factory=PlanesConfig)
    mouth: MouthConfig = field(default_factory=MouthConfig)
    blending: BlendingConfig = field(default_factory=BlendingConfig)
    static: StaticConfig = field(default_factory=StaticConfig)
    background: BackgroundConfig = field(default_factory=BackgroundConfig)
    volume: VolumeConfig = field(default_factory=VolumeConfig)
    superres: SuperresConfig = field(default_factory=SuperresConfig)

    def __post_init__(self) -> None:
        check(self)

    @property
    def static_count(self) -> int:
        """w vectors of the static half: static planes, mouth, blending and super-resolution."""
        sizes = [4]
        if self.static.enabled:
            sizes.append(self.static.resolution)
        if self.has_mouth_network:
            sizes.append(self.mouth.resolution)
        if self.has_blending_network:
            sizes.append(self.planes.front_resolution)
        if self.background.enabled:
            sizes.append(self.background.resolution)
        return 2 * (max(sizes).bit_length() - 2)

    @property
    def texture_count(self) -> int:
        """w vectors of the texture half."""
        return 2 * (self.texture.resolution.bit_length() - 2) if self.planes.enabled else 0

    @property
    def has_mouth_network(self) -> bool:
        return self.planes.enabled and self.mouth.source == "network"

    @property
    def has_blending_network(self) -> bool:
        return self.has_mouth_network and self.blending.enabled

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, section by section."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> GeneratorConfig:
        """The inverse of :meth:`to_dict`; missing keys take their defaults, an unknown one raises InputError."""
        return build(GeneratorConfig, values, "")

    def replace(self, **sections: Any) -> GeneratorConfig:
        """A copy with changes; a section may be a dict of its changed keys: ``replace(volume={"samples": 24})``."""
        changed = {
            name: dataclasses.replace(getattr(self, name), **value) if isinstance(value, dict) else value
            for name, value in sections.items()
        }
        return dataclasses.replace(self, **changed)


def build(kind: type, values: Any, where: str) -> Any:
    """A dataclass from a dict, checking every key and type."""
    if not isinstance(values, dict):
        section = where.removesuffix(".")
        raise InputError(f"the setting '{section}' must be a section with keys, got {values!r}")
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]
    for key in values:
        if key not in names:
            raise InputError(f"unknown setting '{where}{key}': expected one of {', '.join(names)}")
    return kind(**{key: convert(hints[key], value, where + key) for key, value in values.items()})


def convert(hint: Any, value: Any, where: str) -> Any:
    """One setting's value in its declared type."""
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, where + ".")
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value in arguments:
            return value
        raise InputError(f"the setting '{where}' must be one of {', '.join(map(str, arguments))}, got {value!r}")
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(convert(arguments[0], item, where) for item in value)
    if hint is float and type(value) is int:
        return float(value)
    if origin in (typing.Union, types.UnionType) and value is None:
        return None
    if type(value) is not hint:
        raise InputError(f"the setting '{where}' must be of type {getattr(hint, '__name__', hint)}, got {value!r}")
    return value


def check(config: GeneratorConfig) -> None:
    """Raise :class:`InputError` for sizes that do not fit together."""
    c = config
    powers: dict[str, int] = {
        "texture.resolution": c.texture.resolution,
        "planes.resolution": c.planes.resolution,
        "planes.front_resolution": c.planes.front_resolution,
        "static.resolution": c.static.resolution,
        "background.resolution": c.background.resolution,
        "mouth.crop": c.mouth.crop,
        "mouth.final": c.mouth.final,
        "mouth.resolution": c.mouth.resolution,
        "blending.final": c.blending.final,
        "volume.ray_resolution": c.volume.ray_resolution,
        "superres.resolution": c.superres.resolution,
    }
    for name, value in powers.items():
        if not is_power_of_two(value) or value < 4:
            raise InputError(f"the setting '{name}' must be a power of two of at least 4, got {value}")
    sections = [("texture", c.texture), ("static", c.static), ("mouth", c.mouth), ("blending", c.blending)]
    sections.append(("background", c.background))
    positive: dict[str, float] = {
        "mapping.w_dim": c.mapping.w_dim,
        "mapping.layers": c.mapping.layers,
        "mapping.learning_rate": c.mapping.learning_rate,
        "planes.channels": c.planes.channels,
        "volume.decoder_width": c.volume.decoder_width,
        "volume.box_size": c.volume.box_size,
        "mouth.margin": c.mouth.margin,
        **{f"{name}.{key}": getattr(s, key) for name, s in sections for key in ("channel_base", "channel_max")},
        **{f"superres.channels[{i}]": n for i, n in enumerate(c.superres.channels)},
    }
    for name, number in positive.items():
        if number <= 0:
            raise InputError(f"the setting '{name}' must be positive, got {number}")
    wrong = {
        "mapping.z_dim must be positive, or zero with camera conditioning": c.mapping.z_dim < 0
        or (c.mapping.z_dim == 0 and not c.mapping.camera_conditioning),
        "planes.channels must be at least 3: the first three are the colour": c.planes.channels < 3,
        "planes.axes must be three pairs of x, y and z": len(c.planes.axes) != 3
        or any(len(a) != 2 or not set(a) <= set("xyz") for a in c.planes.axes),
        "static.enabled and planes.enabled cannot both be false": not (c.static.enabled or c.planes.enabled),
        "mouth.final must be smaller than mouth.crop and mouth.resolution": c.mouth.final
        >= min(c.mouth.crop, c.mouth.resolution),
        "mouth.planes must be 1 or 3": c.mouth.planes not in (1, 3),
        "mouth.planes must be 1 in compatible mode": c.mode == "compatible" and c.mouth.planes != 1,
        "mouth.source 'static' needs static planes": c.mouth.source == "static" and not c.static.enabled,
        "blending.final must be smaller than planes.front_resolution": c.has_blending_network
        and c.blending.final >= c.planes.front_resolution,
        "static.resolution must not exceed the planes' resolutions": c.static.enabled
        and c.planes.enabled
        and c.static.resolution > min(c.planes.resolution, c.planes.front_resolution),
        "volume.near must be positive and smaller than volume.far": not 0 < c.volume.near < c.volume.far,
        "volume.samples must be at least 4": c.volume.samples < 4,
        "volume.importance_samples must not be negative": c.volume.importance_samples < 0,
        "superres.channels has too many blocks for superres.resolution": c.superres.resolution
        < 4 * 2 ** len(c.superres.channels),
    }
    for message, applies in wrong.items():
        if applies:
            raise InputError(f"the generator's settings do not fit together: {message}")
