"""The factory: a dataset of pictures of drawn people, by any number of processes, resumable at any moment."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from next3d.data.format import AUX, Info, check_resolution
from next3d.data.synthesis.anatomy import anatomy
from next3d.data.synthesis.identity import LATENT_SIZE
from next3d.data.synthesis.lighting import Light
from next3d.data.synthesis.poses import Pose, draw_pose
from next3d.data.synthesis.render import Picture, render, shape
from next3d.data.writer import DatasetWriter
from next3d.errors import InputError
from next3d.heads.head_model import HeadModel
from next3d.io.processes import end_with_parent

LOOKS = 3  # raised whenever the same recipe draws other pictures, so that a build is not resumed with two kinds of them


@dataclass(frozen=True)
class Recipe:
    """What decides every picture of a dataset; picture k needs nothing else, not even their count.

    Attributes:
        resolution: pixels along each side
        seed: of all draws
        cameras: pictures of each identity, each with its own expression and camera
        bias: 0 to 1, see :func:`next3d.data.synthesis.poses.draw_pose`
        neck: standard deviation of the neck's turn in degrees
        free_light: draw the light for each picture; by default it belongs to the identity, since whatever varies
            without being in (latent, parameters, camera) cannot be learned from them
        aux: also make depth, normals and part masks
        head: name or path of the head model
    """

    resolution: int = 128
    seed: int = 0
    cameras: int = 1
    bias: float = 0.0
    neck: float = 0.0
    free_light: bool = False
    aux: bool = False
    head: str = "builtin"

    def check(self) -> None:
        check_resolution(self.resolution, "synthesize")
        if self.cameras < 1:
            raise InputError(f"cameras is {self.cameras}: an identity needs at least one picture")
        if not 0 <= self.bias <= 1:
            raise InputError(
                f"bias is {self.bias}: it runs from 0 (none) to 1 (smiling follows from facing the camera)"
            )
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed is {self.seed}: it must be a whole number from 0")
        if not 0 <= self.neck <= 30:
            raise InputError(f"neck is {self.neck} degrees: its standard deviation runs from 0 to 30")

    def _random(self, stream: int, number: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, stream, number])))

    def latent(self, identity: int) -> np.ndarray:
        """(64,) float32: the latent of an identity number."""
        return self._random(0, identity).standard_normal(LATENT_SIZE).astype(np.float32)

    def pose(self, index: int) -> Pose:
        """The draw of picture ``index``."""
        return draw_pose(
            self._random(1, index), anatomy(self.head).head, bias=self.bias, neck=float(np.radians(self.neck))
        )

    def picture(self, index: int) -> tuple[Picture, Pose, dict]:
        """Picture ``index``, its pose with the identity's shape, and its further columns."""
        identity = index // self.cameras
        latent, pose = self.latent(identity), self.pose(index)
        columns: dict = {
            "identity": identity,
            "latent": latent,
            "yaw": pose.yaw,
            "pitch": pose.pitch,
            "roll": pose.roll,
        }
        light = None
        if self.free_light:
            numbers = self._random(2, index).standard_normal(3).astype(np.float32)
            light = Light.from_numbers(*numbers.tolist())
            columns["light"] = numbers
        picture = render(latent, pose.params, pose.camera, self.resolution, aux=self.aux, light=light, head=self.head)
        return picture, pose, columns

    def maker(self) -> dict:
        """What ``dataset.json`` says about how the dataset was made."""
        return {
            "command": "synthesize", "looks": LOOKS, "seed": self.seed, "cameras": self.cameras, "bias": self.bias,
            "neck": self.neck, "free_light": self.free_light, "head_sha256": _digest(anatomy(self.head).head),
        }  # fmt: skip


def _digest(head: HeadModel) -> str:
    """Twelve digits that change with any of the head's numbers."""
    digest = hashlib.sha256()
    for name, numbers in sorted(head.named_buffers()):
        digest.update(name.encode() + numbers.numpy().tobytes())
    return digest.hexdigest()[:12]


def synthesize(
    folder: str | Path,
    count: int,
    resolution: int = 128,
    seed: int = 0,
    *,
    workers: int | None = None,
    aux: bool = False,
    cameras: int = 1,
    bias: float = 0.0,
    neck: float = 0.0,
    free_light: bool = False,
    head: str = "builtin",
    progress: bool = True,
) -> Info:
    """Make a dataset of drawn people, or go on with one that was interrupted.

    Args:
        folder: a new or empty folder, or one that the same call was building; a larger count adds rows to it
        count: pictures
        resolution, seed, cameras, bias, neck, free_light, aux, head: see :class:`Recipe`
        workers: processes; all cores if not given. Pictures and rows do not depend on it
        progress: a bar on standard error

    Raises:
        InputError: impossible options, or a folder that holds something else.
    """
    recipe = Recipe(resolution, seed, cameras, bias, neck, free_light, aux, head)
    recipe.check()
    if count < 1:
        raise InputError(f"count is {count}: a dataset has at least one picture")
    workers = os.cpu_count() or 1 if workers is None else workers
    if workers < 1:
        raise InputError(f"workers is {workers}: at least one process is needed")
    writer = DatasetWriter(
        folder, resolution=resolution, head=anatomy(head).head.name, aux=AUX if aux else (), maker=recipe.maker()
    )
    todo = sorted(set(range(count)) - writer.done)
    with tqdm(
        total=count, initial=count - len(todo), unit=" pictures", disable=not progress, dynamic_ncols=True
    ) as bar:
        for made in _run(recipe, writer, todo, workers):
            bar.update(made)
    return writer.finish(count)


def _run(recipe: Recipe, writer: DatasetWriter, todo: list[int], workers: int) -> Iterator[int]:
    """Make the pictures of ``todo``; yields how many more are done."""
    # Pieces of about a second, and enough of them for every process
    size = min(1024 * 1024 // recipe.resolution**2, len(todo) // (4 * workers))
    batches = _batches(todo, recipe.cameras, max(1, size))
    if workers == 1 or len(batches) < 2:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # one order of summation, whatever the machine: the same bytes everywhere
        _return_memory()
        try:
            for index in todo:
                _make(recipe, writer, index)
                yield 1
        finally:
            torch.set_num_threads(threads)
            writer.close()
        return
    context = get_context("spawn")  # forking a process that runs threads can hang it
    with ProcessPoolExecutor(min(workers, len(batches)), context, _start, (recipe, writer)) as pool:
        try:
            for future in as_completed([pool.submit(_work, batch) for batch in batches]):
                yield future.result()
        except BrokenProcessPool as error:
            raise InputError(
                "a worker process died, perhaps for want of memory: run the command once more, it resumes"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _batches(todo: list[int], cameras: int, size: int) -> list[list[int]]:
    """Cut the work into pieces that keep an identity's pictures together."""
    batches: list[list[int]] = []
    for index in todo:
        if batches and (len(batches[-1]) < size or index // cameras == batches[-1][-1] // cameras):
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def _return_memory() -> None:
    """Let glibc hand the memory of freed pictures back at once."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(-3, 1 << 18)


_job: tuple[Recipe, DatasetWriter] | None = None


def _start(recipe: Recipe, writer: DatasetWriter) -> None:
    global _job
    torch.set_num_threads(1)
    _return_memory()
    end_with_parent()
    _job = recipe, writer


def _work(batch: list[int]) -> int:
    assert _job is not None
    for index in batch:
        _make(*_job, index)
    return len(batch)


def _make(recipe: Recipe, writer: DatasetWriter, index: int) -> None:
    picture, pose, columns = recipe.picture(index)
    params = pose.params.replace(shape=shape(columns["latent"], recipe.head))
    aux = None
    if picture.depth is not None and picture.normals is not None:
        aux = {"depth": picture.depth, "normals": picture.normals, "parts": picture.parts}
    writer.add(index, picture.image, pose.camera, params, aux=aux, **columns)
