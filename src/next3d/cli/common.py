"""What several commands share: models, devices, seeds, driving meshes and named parameters."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from next3d.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from next3d.avatar import Avatar
    from next3d.generator.generator import Generator
    from next3d.heads import HeadModel, HeadParams

Seeds = Annotated[str, tyro.conf.arg(aliases=["--seeds"], metavar="SEEDS")]
Precision = Literal["float32", "bfloat16"]


def show_warnings() -> None:
    """Warnings as one line on standard error, once each."""
    warnings.simplefilter("default")
    warnings.showwarning = lambda message, *_, **__: print_line(f"next3d: warning: {message}")


def print_line(text: str) -> None:
    from tqdm import tqdm

    tqdm.write(text, file=sys.stderr)


def parse_seeds(text: str) -> list[int]:
    """ "7", "0-3" or "0-3,7,12" as numbers."""
    seeds: list[int] = []
    for part in text.replace(" ", "").split(","):
        span = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part)
        first, last = (int(span[1]), int(span[2] or span[1])) if span else (1, 0)
        if not 0 <= last - first < 10_000:
            raise InputError(f"--seed '{text}' is no list of seeds: give 7, 0-3 or 0-3,7,12")
        seeds += range(first, last + 1)
    return seeds


def open_device(name: str) -> torch.device:
    """ "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", …"""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"--device {name}: there is no such kind of device; give auto, cpu or cuda") from None
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name} cannot be used here ({reason}): give auto, cpu or cuda") from None
    return device


def use_threads(count: int | None) -> None:
    """Let torch and the loops of this package use ``count`` processor cores; None leaves the choice to torch."""
    import torch

    if count is not None:
        if count < 1:
            raise InputError(f"--threads {count}: at least one thread is needed")
        torch.set_num_threads(count)


def open_model(name: str, device: str = "auto", head: Path | None = None) -> Generator:
    """A generator on its device, driven by a FLAME head of the user's if ``head`` is given."""
    from next3d.generator.model import load

    show_warnings()
    model = load(name, device=open_device(device))
    if head is not None:
        from next3d.heads import load_head

        model.use_head(load_head(head))
    return model


def given_mesh(model: Generator, mesh: Path | None, landmarks: Path | None) -> tuple[Tensor, Tensor] | None:
    """Vertices (V, 3) and landmarks (68, 3) from the files of --mesh and --landmarks, or None without --mesh.

    Raises:
        InputError: landmarks without a mesh, a mesh without UVs, of another topology than the model's, or in another
            unit, or one without landmarks where the model's head cannot place them.
    """
    from next3d.io.meshes import read_landmarks, read_obj

    if mesh is None:
        if landmarks is not None:
            raise InputError("--landmarks belong to a mesh: give --mesh too")
        return None
    topology = model.topology
    if topology is None:
        raise InputError("this model draws without a mesh: leave --mesh away")
    found = read_obj(mesh, require_uvs=True)
    if len(found.vertices) != topology.vertex_count:
        raise InputError(
            f"{mesh} has {len(found.vertices)} vertices and the model is driven by meshes of {topology.vertex_count}: "
            f"its topology is another; the model expects '{model.config.head}' meshes"
        )

    def corners(faces: Tensor) -> set[tuple[int, ...]]:
        return set(map(tuple, faces.sort(1).values.tolist()))

    own = corners(topology.faces.cpu())
    if len(own & corners(found.faces)) < 0.5 * len(own):
        raise InputError(
            f"{mesh} connects its vertices otherwise than the model's meshes ('{model.config.head}'): its topology is "
            "another, or its vertices were reordered when it was exported"
        )
    extent = float((found.vertices.amax(0) - found.vertices.amin(0)).max())
    if not 0.1 < extent < 1:
        raise InputError(f"{mesh} is {extent:.3g} across, and a head about 0.3: its vertices must be in metres")
    if landmarks is not None:
        return found.vertices, read_landmarks(landmarks)
    if model.head is None:
        raise InputError(f"--mesh {mesh} needs --landmarks: a text file of 68 lines of three numbers, the mesh's frame")
    vertices = found.vertices[None].to(model.device)
    import torch

    return found.vertices, model.head.landmarks(vertices, torch.zeros(1, device=model.device))[0].cpu()


def named_params(head: HeadModel | None, settings: Sequence[str]) -> HeadParams:
    """Head parameters from "name=value" settings: ``jawOpen=0.5``, ``mouthSmileLeft=1``, ``jaw=0.2,0,0``."""
    from next3d.heads import HeadParams

    if not settings:
        return HeadParams()
    if head is None:
        raise InputError("--set needs a head model, and this model is driven by a mesh alone")
    values: dict[str, float | list[float]] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        try:
            numbers = [float(part) for part in text.split(",")]
        except ValueError:
            numbers = []
        if not (name and equals and numbers):
            raise InputError(f"--set {setting}: expected name=value, such as jawOpen=0.5 or neck=0,0.2,0")
        values[name] = numbers if len(numbers) > 1 else numbers[0]
    return head.params(**values)


def dtype_of(precision: Precision) -> torch.dtype:
    """The arithmetic that a baked avatar is kept in."""
    import torch

    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]


def open_avatars(
    model: Generator, files: Sequence[Path], seeds: str, truncation: float, precision: Precision
) -> list[Avatar]:
    """Saved avatars if any are named, else those of the seeds."""
    from next3d.avatar import Avatar, sample

    dtype = dtype_of(precision)
    if files:
        return [Avatar.load(file, model, dtype=dtype) for file in files]
    return [sample(model, seed, truncation=truncation, dtype=dtype) for seed in parse_seeds(seeds)]


def check_suffix(path: Path, suffixes: Sequence[str], what: str) -> Path:
    """``path`` if its name ends in one of ``suffixes``, and a file can be written there."""
    from next3d.io.files import check_writable

    if path.suffix.lower() not in suffixes:
        raise InputError(f"--out {path}: {what} ends in {', '.join(suffixes)}")
    return check_writable(path)
