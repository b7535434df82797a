"""Released Next3D and EG3D checkpoints → generators of this package; nothing in a checkpoint is executed.

A released checkpoint is a pickle of persisted modules: their tensors, their settings, and the source text of the
classes that wrote them. Here the tensors and settings are read as data (:mod:`next3d.io.safe_pickle`), and the source
stays text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from next3d.errors import InputError
from next3d.generator.config import (
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
from next3d.generator.generator import Generator
from next3d.generator.pretrained import check_tensors
from next3d.generator.released_names import from_released_names
from next3d.geometry.meshes import HEAD_SCALE, HEAD_SHIFT, Topology
from next3d.io.safe_pickle import TORCH, Record, Vocabulary, dictionary, read_pickle

FLAME_VERTICES = 5023  # some of them belong to no face
MESH_BUFFERS = ("faces", "uvfaces", "uvcoords", "uv_face_mask")  # what the topology is made of
DEPTH = 64  # of nested modules

MODULES = r"(?:training_avatar_texture|training)(?:\.\w+)*\.(?:ImportanceRenderer|MipRayMarcher2|RaySampler|OSGDecoder)"
CONTAINERS = r"torch\.nn\.modules\.(?:container\.(?:ModuleList|Sequential)|activation\.Softplus)"


def persisted(meta: Any, *args: Any) -> Record:
    """``_reconstruct_persistent_obj``: a module as its settings, tensors and submodules; its source stays text."""
    if not isinstance(meta, Mapping) or not isinstance(meta.get("state"), Mapping):
        raise InputError("a persisted object without a state")
    return Record(str(meta.get("class_name", "")), (meta.get("module_src"),), state=meta["state"])


RELEASED = TORCH | Vocabulary(
    {
        "torch_utils.persistence._reconstruct_persistent_obj": persisted,
        "dnnlib.util.EasyDict": dictionary,
    },
    records=f"{MODULES}|{CONTAINERS}",
)


@dataclass
class Released:
    """A generator as a checkpoint holds it.

    Attributes:
        kind: "next3d" or "eg3d"
        tensors: parameters and buffers by their released names
        state: the top module's attributes
        axes: the axes of the three planes as the file's renderer samples them, or None if the file does not say
    """

    kind: str
    tensors: dict[str, Tensor]
    state: Mapping[str, Any]
    axes: tuple[str, str, str] | None


@dataclass
class Conversion:
    """A converted model with what the user should know.

    Attributes:
        model: in evaluation mode
        unused: released tensors that this network has no use for
        notes: remarks, a line each
    """

    model: Generator
    unused: list[str]
    notes: list[str] = field(default_factory=list)


def convert(path: str | Path) -> Conversion:
    """Convert a released checkpoint.

    Raises:
        InputError: no such file, a damaged one, one that names anything but the globals of a released checkpoint, or a
            network that is neither Next3D's nor EG3D's.
    """
    released = read_released(path)
    try:
        config = settings(released)
        topology = mesh_topology(released) if config.planes.enabled else None
        with torch.device("meta"):  # weights are about to be replaced: do not draw them
            model = Generator(config, topology)
        ours, unused = from_released_names(released.tensors)
        expected = model.state_dict()
        mesh = {name: tensor for name, tensor in expected.items() if name.startswith("texture_planes.")}
        if topology is not None:
            drawn = {"faces": topology.faces, "uvs": topology.uvs, "uv_faces": topology.uv_faces}
            drawn["face_mask"] = topology.face_mask
            ours |= {name: drawn[name.removeprefix("texture_planes.")] for name in mesh}
        check_tensors(expected, ours, Path(path))
    except InputError as error:
        raise InputError(f"{path} cannot be converted: {error}") from None
    model.load_state_dict({name: ours[name].to(own.dtype) for name, own in expected.items()}, assign=True)
    used = set(MESH_BUFFERS) if topology is not None else set()
    return Conversion(model.eval(), [name for name in unused if name not in used], remarks(released, config))


def read_released(path: str | Path) -> Released:
    """Read a checkpoint's generator: the averaged one (``G_ema``) if it is there."""
    content = read_pickle(path, RELEASED)
    if not isinstance(content, Mapping) or not {"G", "G_ema"} & set(content):
        raise InputError(f"{path} is not a released checkpoint: it holds no 'G_ema'")
    module = next((content[name] for name in ("G_ema", "G") if content.get(name) is not None), None)
    if not isinstance(module, Record) or not isinstance(module.state, Mapping):
        raise InputError(f"{path} is not a released checkpoint: its 'G_ema' is no module")
    tensors: dict[str, Tensor] = {}
    axes: list[tuple[str, str, str] | None] = []
    collect(module, "", tensors, axes)
    if not tensors:
        raise InputError(f"{path} holds a generator without tensors")
    kind = "next3d" if any(name.startswith("texture_backbone.") for name in tensors) else "eg3d"
    return Released(kind, tensors, module.state, next((found for found in axes if found), None))


def collect(module: Record, prefix: str, tensors: dict[str, Tensor], axes: list, depth: int = 0) -> None:
    """Gather the tensors of a module and its submodules by name, and the renderer's plane axes on the way."""
    if depth > DEPTH:
        raise InputError("a checkpoint whose modules are nested without end")
    state = module.state if isinstance(module.state, Mapping) else {}
    for kind in ("_parameters", "_buffers"):
        for name, value in entries(state, kind):
            if isinstance(value, Tensor):
                tensors[f"{prefix}{name}"] = value.detach()
    if isinstance(state.get("plane_axes"), Tensor):
        axes.append(axes_of(state["plane_axes"]))
    for name, child in entries(state, "_modules"):
        if isinstance(child, Record):
            collect(child, f"{prefix}{name}.", tensors, axes, depth + 1)


def entries(state: Mapping[str, Any], name: str) -> list[tuple[str, Any]]:
    value = state.get(name)
    return [(str(key), item) for key, item in value.items()] if isinstance(value, Mapping) else []


def axes_of(planes: Tensor) -> tuple[str, str, str] | None:
    """The world axes along the columns and rows of each plane, from the released renderer's three 3×3 matrices.

    A point is projected by the inverse of a plane's matrix, of which the first two coordinates are kept.
    """
    if planes.shape != (3, 3, 3):
        return None
    names = []
    for matrix in planes.double():
        if (matrix.abs().sum(0) != 1).any() or (matrix.abs().sum(1) != 1).any():
            return None  # no permutation of the axes
        projection = matrix.T  # its inverse
        names.append("".join("xyz"[int(projection[:, column].abs().argmax())] for column in (0, 1)))
    return names[0], names[1], names[2]


def settings(released: Released) -> GeneratorConfig:
    """The generator's settings: widths from the tensors' shapes, the rest from the settings in the file."""
    tensors, state = released.tensors, released.state
    given = state.get("_init_kwargs")
    given = given if isinstance(given, Mapping) else {}
    rendering = state.get("rendering_kwargs", given.get("rendering_kwargs"))
    rendering = rendering if isinstance(rendering, Mapping) else {}

    def option(name: str, default: Any) -> Any:
        value = rendering.get(name, default)
        return type(default)(value) if isinstance(value, (int, float, np.generic)) else default

    layers = sum(re.fullmatch(r"backbone\.mapping\.fc\d+\.weight", name) is not None for name in tensors)
    conditioned = "backbone.mapping.embed.weight" in tensors
    w_dim = shape(tensors, "backbone.mapping.w_avg")[0]
    inputs = shape(tensors, "backbone.mapping.fc0.weight")[1]
    static, static_resolution = width(tensors, "backbone.synthesis.")
    # The last layer gives three planes.
    channels = shape(tensors, f"backbone.synthesis.b{static_resolution}.torgb.weight")[0] // 3
    near, far = (rendering.get(name) for name in ("ray_start", "ray_end"))
    if not all(isinstance(value, (int, float)) for value in (near, far)):
        raise InputError("its rays have no fixed start and end, which this package's need")
    config = GeneratorConfig(
        mode="compatible",
        head="flame",
        mapping=MappingConfig(
            z_dim=inputs - (w_dim if conditioned else 0),
            w_dim=w_dim,
            layers=layers,
            camera_conditioning=conditioned,
            camera_scale=0.0 if rendering.get("c_gen_conditioning_zero") else option("c_scale", 1.0),
        ),
        static=StaticConfig(*static, resolution=static_resolution),
        volume=VolumeConfig(
            ray_resolution=int(state.get("neural_rendering_resolution", 64)),
            near=float(near),  # type: ignore[arg-type]
            far=float(far),  # type: ignore[arg-type]
            samples=option("depth_resolution", 48),
            importance_samples=option("depth_resolution_importance", 48),
            box_size=option("box_warp", 1.0),
            decoder_width=shape(tensors, "decoder.net.0.weight")[0],
            decoder_learning_rate=option("decoder_lr_mul", 1.0),
        ),
        superres=superres(tensors, given),
        planes=PlanesConfig(channels=channels, enabled=False, axes=released.axes or ("xy", "xz", "zy")),
    )
    if released.kind == "eg3d":
        return config
    check_alignment(state)
    texture, texture_resolution = width(tensors, "texture_backbone.synthesis.")
    mouth, mouth_resolution = width(tensors, "mouth_backbone.synthesis.")
    blending, plane_resolution = width(tensors, "neural_blending.synthesis.")
    return config.replace(
        texture=TextureConfig(*texture, resolution=texture_resolution),
        mouth=MouthConfig(*mouth, resolution=mouth_resolution),
        blending=BlendingConfig(*blending),
        planes={"enabled": True, "resolution": plane_resolution, "front_resolution": plane_resolution},
    )


def shape(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    if name not in tensors:
        raise InputError(f"it is neither a Next3D nor an EG3D generator: it has no tensor '{name}'")
    return tuple(tensors[name].shape)


def width(tensors: Mapping[str, Tensor], prefix: str) -> tuple[tuple[int, int], int]:
    """(channel_base, channel_max) and the resolution of a StyleGAN2 synthesis network."""
    channels = {
        int(match[1]): len(tensor)
        for name, tensor in tensors.items()
        if (match := re.fullmatch(rf"{re.escape(prefix)}b(\d+)\.conv1\.weight", name))
    }
    if not channels:
        raise InputError(f"it is neither a Next3D nor an EG3D generator: it has no '{prefix}b…'")
    top = max(channels)
    return (channels[top] * top, max(channels.values())), top


def superres(tensors: Mapping[str, Tensor], given: Mapping[str, Any]) -> SuperresConfig:
    """The super-resolution's two blocks, each of which doubles the picture."""
    blocks = [shape(tensors, f"superresolution.block{i}.conv1.weight")[0] for i in range(2)]
    resolution = given.get("img_resolution")
    if not isinstance(resolution, int):
        resolution = shape(tensors, "superresolution.block1.conv1.noise_const")[0]
    doubling = shape(tensors, "superresolution.block1.conv1.noise_const")[0]
    first = shape(tensors, "superresolution.block0.conv1.noise_const")[0]
    if doubling != resolution or first * 2 != resolution:
        raise InputError(
            f"its super-resolution works at {first}² and {doubling}² for pictures of {resolution}²; only one that "
            "doubles twice up to the picture (as for 512²) can be converted"
        )
    return SuperresConfig(resolution, tuple(blocks))


def check_alignment(state: Mapping[str, Any]) -> None:
    """The released projection's scale and shift must be those of the compatible mode."""
    expected = {"orth_scale": np.array([2 * HEAD_SCALE]), "orth_shift": np.array([0.0, -HEAD_SHIFT[1], HEAD_SHIFT[2]])}
    for name, value in expected.items():
        if name not in state:
            continue
        found = state[name]
        found = found.detach().cpu().numpy() if isinstance(found, Tensor) else np.asarray(found, dtype=object)
        try:
            same = np.allclose(found.astype(float).reshape(-1), value, atol=1e-6)
        except (TypeError, ValueError):
            same = False
        if not same:
            raise InputError(f"its {name} is {state[name]!r:.60}, where the released models have {value.tolist()}")


def mesh_topology(released: Released) -> Topology:
    """Faces, UVs and face mask out of the checkpoint's own buffers."""
    tensors = released.tensors
    faces, uv_faces = (tensors_of(tensors, name)[0].long() for name in ("faces", "uvfaces"))
    uvs = (tensors_of(tensors, "uvcoords")[0, :, :2].float() + 1) / 2  # stored as (2u − 1, 1 − 2v, 1)
    mask = released.state.get("uv_face_mask", tensors.get("uv_face_mask"))
    if not isinstance(mask, Tensor) or mask.numel() != 256 * 256:
        raise InputError("it holds no 'uv_face_mask' of 256² pixels")
    count = max(int(faces.max()) + 1, FLAME_VERTICES)
    return Topology(faces, uvs, uv_faces, mask.detach().float().reshape(1, 1, 256, 256), count)


def tensors_of(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors or tensors[name].ndim != 3:
        raise InputError(f"it holds no mesh buffer '{name}'")
    return tensors[name]


def remarks(released: Released, config: GeneratorConfig) -> list[str]:
    """What a user should know about the converted model."""
    kind = {"next3d": "Next3D", "eg3d": "EG3D"}[released.kind]
    lines = [
        f"{kind} generator: pictures of {config.superres.resolution}², rays of {config.volume.ray_resolution}², "
        f"{config.volume.samples} + {config.volume.importance_samples} samples"
    ]
    source = "as its renderer says" if released.axes else "as released: the file does not say"
    lines.append(f"planes sampled along {', '.join(config.planes.axes)} ({source})")
    if released.kind == "next3d":
        lines.append("driven by FLAME's vertices: give --mesh and --landmarks, or a FLAME folder as --head")
    return lines
