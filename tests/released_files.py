"""Writes checkpoints in the released format; the modules that they name are forged, none of them needs to exist."""

from __future__ import annotations

import pickle
import sys
import types
from collections import OrderedDict
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from released_fill import golden, golden_topology, released_tensors

PACKAGE = "training_avatar_texture"
RENDERER = f"{PACKAGE}.volumetric_rendering.renderer"
MARCHER = f"{PACKAGE}.volumetric_rendering.ray_marcher"
SAMPLER = f"{PACKAGE}.volumetric_rendering.ray_sampler"
DECODER = f"{PACKAGE}.triplane_v13_neural_blending"

# The planes as the released renderer holds them: (x, y), (x, z), (z, y).
PLANE_AXES = torch.tensor(
    [[[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 1], [0, 1, 0]], [[0, 0, 1], [0, 1, 0], [1, 0, 0]]]
).float()

RENDERING = {
    "depth_resolution": 12,
    "depth_resolution_importance": 12,
    "ray_start": 2.25,
    "ray_end": 3.3,
    "box_warp": 1,
    "white_back": False,
    "c_scale": 1.0,
    "c_gen_conditioning_zero": False,
    "decoder_lr_mul": 1.0,
    "superresolution_module": "training_avatar_texture.superresolution.SuperresolutionHybrid8XDC",
    "avg_camera_pivot": [0, 0, 0.2],
}


@contextmanager
def forged():
    """While this is open, the released code's modules seem to exist, so that objects can be pickled by their names."""
    names = [PACKAGE, f"{PACKAGE}.volumetric_rendering", RENDERER, MARCHER, SAMPLER, DECODER]
    names += ["torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util"]
    modules = {name: types.ModuleType(name) for name in names}

    def kind(module: str, name: str, *bases: type) -> type:
        made = type(name, bases, {"__module__": module, "__qualname__": name})
        setattr(modules[module], name, made)
        return made

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("nothing of a checkpoint may run")

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    modules["torch_utils.persistence"]._reconstruct_persistent_obj = _reconstruct_persistent_obj
    forge = types.SimpleNamespace(
        EasyDict=kind("dnnlib.util", "EasyDict", dict),
        ImportanceRenderer=kind(RENDERER, "ImportanceRenderer"),
        MipRayMarcher2=kind(MARCHER, "MipRayMarcher2"),
        RaySampler=kind(SAMPLER, "RaySampler"),
        OSGDecoder=kind(DECODER, "OSGDecoder"),
        reconstruct=_reconstruct_persistent_obj,
    )
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield forge
    finally:
        for name, old in before.items():
            if old is None:
                del sys.modules[name]
            else:
                sys.modules[name] = old


class Persisted:
    """Pickles as the released persistence decorator does."""

    def __init__(self, forge: Any, class_name: str, state: dict) -> None:
        meta = {"type": "class", "version": 6, "module_src": "raise SystemExit('never run')", "class_name": class_name}
        self.reduced = forge.reconstruct, (forge.EasyDict(meta | {"state": state}),)

    def __reduce__(self):
        return self.reduced


def plain(kind: type, **state: Any) -> Any:
    """An object of ``kind`` with that state, its constructor not called."""
    made = kind.__new__(kind)
    made.__dict__.update(state)
    return made


def module_state(tensors: dict[str, Tensor], children: OrderedDict, **attributes: Any) -> dict:
    """A torch module's __dict__ with these tensors."""
    is_buffer = {name: not value.is_floating_point() or name in BUFFERS for name, value in tensors.items()}
    return {
        "training": False,
        "_parameters": OrderedDict(
            (name, torch.nn.Parameter(value)) for name, value in tensors.items() if not is_buffer[name]
        ),
        "_buffers": OrderedDict((name, value) for name, value in tensors.items() if is_buffer[name]),
        "_modules": children,
        "_backward_hooks": OrderedDict(),
        **attributes,
    }


BUFFERS = ("noise_const", "w_avg", "resample_filter", "raw_uvcoords", "uvcoords", "face_uvcoords", "uv_face_mask")


def tree(forge: Any, tensors: dict[str, Tensor], name: str = "", **attributes: Any) -> Any:
    """Nested modules out of dotted tensor names, each of the class that the released code has there."""
    own = {key: value for key, value in tensors.items() if "." not in key}
    groups: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if "." in key:
            first, rest = key.split(".", 1)
            groups.setdefault(first, {})[rest] = value
    children = OrderedDict((key, tree(forge, group, f"{name}.{key}")) for key, group in groups.items())
    if not name:
        children["renderer"] = plain(
            forge.ImportanceRenderer,
            **module_state({}, OrderedDict(ray_marcher=plain(forge.MipRayMarcher2, **module_state({}, OrderedDict())))),
            plane_axes=PLANE_AXES,
        )
        children["ray_sampler"] = plain(forge.RaySampler, **module_state({}, OrderedDict()), ray_origins_h=None)
    if name == ".decoder":
        return plain(forge.OSGDecoder, **module_state(own, children), hidden_dim=64)
    if name == ".decoder.net":
        children = OrderedDict((("0", children["0"]), ("1", torch.nn.Softplus()), ("2", children["2"])))
        return plain(torch.nn.Sequential, **module_state(own, children))
    if name.endswith((".encoder", ".fusion")):
        return plain(torch.nn.ModuleList, **module_state(own, children))
    return Persisted(forge, "Module" + name.title().replace(".", ""), module_state(own, children, **attributes))


def released_state(seed: int = 0) -> tuple[dict[str, Tensor], Tensor]:
    """All tensors of the small released generator, mesh buffers and filters included, and its face mask."""
    tensors = released_tensors(seed)
    topology = golden_topology(golden("generator_small"))
    flipped = torch.stack([topology.uvs[:, 0], 1 - topology.uvs[:, 1]], -1)[None]
    stored = torch.cat([topology.uvs * 2 - 1, torch.ones(len(topology.uvs), 1)], -1)[None]
    tensors |= {
        "dense_faces": torch.zeros(1, 5, 3, dtype=torch.int64),
        "faces": topology.faces[None],
        "uvfaces": topology.uv_faces[None],
        "raw_uvcoords": flipped,
        "uvcoords": stored,
        "face_uvcoords": stored[0][topology.uv_faces][None],
    }
    for name in [name for name in tensors if name.endswith(".conv1.weight")]:
        tensors[name.replace("weight", "resample_filter")] = torch.full((4, 4), 1 / 16)
    return tensors, topology.face_mask


def write_released(
    path: Path, tensors: dict[str, Tensor], *, only_g: bool = False, rendering: dict | None = None, **attributes: Any
) -> None:
    """A checkpoint in the released format."""
    with forged() as forge:
        rendering = RENDERING | (rendering or {})
        generator = tree(
            forge,
            tensors,
            rendering_kwargs=forge.EasyDict(rendering),
            neural_rendering_resolution=64,
            _init_kwargs={
                "z_dim": 512,
                "c_dim": 25,
                "w_dim": 512,
                "img_resolution": 512,
                "img_channels": 3,
                "channel_base": 2048,
                "channel_max": 32,
                "mapping_kwargs": {"num_layers": 2},
                "rendering_kwargs": rendering,
                "sr_kwargs": forge.EasyDict(
                    channel_base=32768, channel_max=512, fused_modconv_default="inference_only"
                ),
            },
            **attributes,
        )
        content = {
            "G": generator if only_g else None,
            "D": None,
            "G_ema": None if only_g else generator,
            "augment_pipe": None,
            "training_set_kwargs": forge.EasyDict(class_name="training.dataset.ImageFolderDataset", resolution=512),
        }
        path.write_bytes(pickle.dumps(content, 4))


def write_next3d(path: Path, seed: int = 0, **options: Any) -> None:
    """The small Next3D generator of the golden values."""
    tensors, mask = released_state(seed)
    write_released(
        path,
        tensors,
        **{"uv_face_mask": mask, "orth_scale": torch.tensor([[5.0]]), "orth_shift": torch.tensor([[0, -0.01, -0.01]])}
        | options,
    )
