"""Checking every row and picture of a dataset, and drawing its meshes over its pictures."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from tqdm import tqdm

from next3d.data.dataset import Dataset, PictureDataset, collate, decode, open_dataset
from next3d.data.format import NUMBER_COUNT, SLICES
from next3d.errors import InputError
from next3d.geometry.cameras import Camera
from next3d.geometry.meshes import world_from_head
from next3d.heads.head_model import LIMITS, HeadModel
from next3d.io.images import contact_sheet, write_image

LARGEST = 10.0  # shape and expression parameters; standard deviations, so nothing real comes near
SLACK = 1.0  # degrees beyond the anatomical limits that a fit may overshoot
ROTATION_ERROR = 1e-3  # of RᵀR − I; labels stored with four decimals pass

CHECKS = {
    "files": "every row's picture is there and can be read",
    "pictures": "PNG, RGB, decodes to the last pixel",
    "size": "square, of the dataset's resolution",
    "numbers": "camera and head parameters are whole and finite",
    "rotations": "camera rotations are orthonormal and right-handed",
    "intrinsics": "focal length and principal point make sense",
    "in view": "the camera looks at the head",
    "parameters": "shape and expression within ±10, angles within anatomy",
    "duplicates": "no file name and no picture occurs twice",
    "splits": "no identity is in two splits",
    "auxiliary": "depth, normals and parts are there and decode",
    "unlisted": "every picture in the folder has a row",
}


@dataclass
class Report:
    """What :func:`validate` found.

    Attributes:
        path: the dataset
        count: rows checked
        offenders: check → what is wrong, one line per offender
    """

    path: Path
    count: int
    offenders: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in CHECKS})

    @property
    def ok(self) -> bool:
        return not any(self.offenders.values())

    def table(self, first: int = 5) -> str:
        """The checks as a table, and under it the first offenders of each."""
        lines = [f"{self.path}: {self.count} rows", ""]
        for name, what in CHECKS.items():
            bad = len(self.offenders[name])
            lines.append(f"  {name:<12}{what:<60}{'ok' if not bad else f'{bad} bad'}")
        for name, offenders in self.offenders.items():
            if offenders:
                lines += ["", f"{name}:", *(f"  {offender}" for offender in offenders[:first])]
                if len(offenders) > first:
                    lines.append(f"  … and {len(offenders) - first} more")
        return "\n".join(lines)

    def first(self) -> str:
        """One line: how many checks failed and the first offender."""
        failed = {name: offenders for name, offenders in self.offenders.items() if offenders}
        name, offenders = next(iter(failed.items()))
        total = sum(len(found) for found in failed.values())
        problems = f"{total} problem{'s' * (total > 1)} in {len(failed)} of {len(CHECKS)} checks"
        return f"{self.path}: {problems}; the first, {name}: {offenders[0]}"


@dataclass
class _Row:
    name: str
    problems: list[tuple[str, str]]
    digest: bytes | None = None
    numbers: np.ndarray = field(default_factory=lambda: np.full(NUMBER_COUNT, np.nan, np.float32))
    identity: str | None = None
    split: str | None = None


def validate(path: str | Path, *, workers: int = 2, progress: bool = True) -> Report:
    """Check every row and every picture of a dataset folder or of packed shards.

    Args:
        path: the dataset
        workers: threads that read and decode
        progress: show a progress bar

    Raises:
        InputError: what is there is no dataset of this version, or lacks required columns
    """
    plain = open_dataset(path)
    dataset = open_dataset(path, aux=bool(plain.info.aux))
    report = Report(Path(path), len(dataset))
    with ThreadPoolExecutor(max(1, workers)) as threads:
        found = threads.map(lambda index: _examine(dataset, index), range(len(dataset)))
        rows = list(tqdm(found, "validating", len(dataset), unit=" rows", disable=not progress))
    for row in rows:
        for check, problem in row.problems:
            report.offenders[check].append(problem)
    _check_numbers(report, [row.name for row in rows], np.stack([row.numbers for row in rows]) if rows else None)
    _check_duplicates(report, rows)
    _check_splits(report, rows)
    if isinstance(dataset, Dataset):
        _check_unlisted(report, dataset)
    return report


def _examine(dataset: PictureDataset, index: int) -> _Row:
    """One row: its files, its pictures and its numbers."""
    row = _Row(dataset._name(index), [])
    if isinstance(dataset, Dataset):
        row.numbers = dataset.numbers[index]
        if not np.isfinite(row.numbers).all():
            row.problems.append(("numbers", f"{row.name}: missing or non-finite numbers"))
        row.identity, row.split = (_text(dataset.columns.get(column), index) for column in ("identity", "split"))
        try:
            data = dataset.read(row.name)
            aux = {key: dataset.read(names[index]) for key, names in dataset._aux_names.items()}
        except InputError as error:
            row.problems.append(("files", str(error)))
            return row
    else:
        try:
            row.name, data, row.numbers, columns, aux = dataset._read(index)
        except InputError as error:
            row.problems.append(("numbers" if "row of" in str(error) else "files", str(error)))
            return row
        row.identity, row.split = (None if c not in columns else str(columns[c]) for c in ("identity", "split"))
    row.digest = hashlib.blake2b(data, digest_size=16).digest()
    resolution = dataset.resolution
    try:
        with PngImageFile(io.BytesIO(data)) as image:
            if image.size != (resolution, resolution):
                size = f"{image.width}×{image.height}"
                row.problems.append(("size", f"{row.name}: {size}, expected {resolution}×{resolution}"))
            elif image.mode != "RGB":
                row.problems.append(("pictures", f"{row.name}: mode {image.mode}, expected RGB"))
            else:
                image.load()
    except Exception as error:  # Pillow raises many kinds
        row.problems.append(("pictures", f"{row.name}: {error}"))
    for key, picture in aux.items():
        try:
            decode(picture, resolution, row.name, key)
        except InputError as error:
            row.problems.append(("auxiliary", str(error)))
    return row


def _text(values, index: int) -> str | None:
    return None if values is None or values[index] is None else str(values[index])


def _check_numbers(report: Report, names: list[str], numbers: np.ndarray | None) -> None:
    if numbers is None:
        return
    whole = np.isfinite(numbers).all(1)
    values = np.where(whole[:, None], numbers, 0).astype(np.float64)

    def note(check: str, bad: np.ndarray, problem) -> None:
        for index in np.flatnonzero(bad & whole):
            report.offenders[check].append(f"{names[index]}: {problem(index)}")

    matrix = values[:, :16].reshape(-1, 4, 4)
    rotation = matrix[:, :3, :3]
    error = np.abs(rotation.transpose(0, 2, 1) @ rotation - np.eye(3)).max((1, 2))
    note("rotations", error > ROTATION_ERROR, lambda i: f"RᵀR differs from the identity by {error[i]:.3g}")
    handed = np.linalg.det(rotation) < 0
    note("rotations", handed & (error <= ROTATION_ERROR), lambda i: "left-handed: determinant −1")
    last = np.abs(matrix[:, 3] - (0, 0, 0, 1)).max(1)
    note("rotations", last > 1e-5, lambda i: f"the last row of the camera matrix is {matrix[i, 3].tolist()}")

    k = values[:, 16:25].reshape(-1, 3, 3)
    focal_bad = (k[:, [0, 1], [0, 1]] < 0.2).any(1) | (k[:, [0, 1], [0, 1]] > 100).any(1)
    note("intrinsics", focal_bad, lambda i: f"focal length {k[i, 0, 0]:.4g}, {k[i, 1, 1]:.4g} of the picture's size")
    centre_bad = (np.abs(k[:, :2, 2] - 0.5) > 1.5).any(1) | (np.abs(k[:, 2] - (0, 0, 1)).max(1) > 1e-4)
    note("intrinsics", centre_bad & ~focal_bad, lambda i: f"principal point {k[i, 0, 2]:.4g}, {k[i, 1, 2]:.4g}")

    camera = Camera.from_label(torch.from_numpy(values[:, :25]))
    place, depth = camera.project(torch.zeros(len(values), 1, 3, dtype=torch.float64))
    seen = ((place[:, 0] > -0.5) & (place[:, 0] < 1.5)).all(1).numpy() & (depth[:, 0] > 0).numpy()
    fine = (error <= ROTATION_ERROR) & ~handed & ~focal_bad
    note("in view", ~seen & fine, lambda i: "the middle of the head is behind the camera or far outside the picture")

    for name in ("shape", "expression"):
        largest = np.abs(values[:, SLICES[name]]).max(1)
        note(
            "parameters", largest > LARGEST, lambda i, n=name, v=largest: f"{n} reaches {v[i]:.3g}, beyond ±{LARGEST:g}"
        )
    for name, limits in LIMITS.items():
        low, high = np.array(limits).T
        degrees = np.rad2deg(values[:, SLICES[name]])
        excess = np.maximum(low - degrees, degrees - high).max(1)
        note("parameters", excess > SLACK, lambda i, n=name, v=excess: f"{n} is {v[i]:.0f}° beyond anatomy")


def _check_duplicates(report: Report, rows: Iterable[_Row]) -> None:
    names: set[str] = set()
    pictures: dict[bytes, str] = {}
    for row in rows:
        if row.name in names:
            report.offenders["duplicates"].append(f"{row.name}: listed twice")
        elif row.digest is not None and (twin := pictures.setdefault(row.digest, row.name)) != row.name:
            report.offenders["duplicates"].append(f"{row.name}: the same picture as {twin}")
        names.add(row.name)


def _check_splits(report: Report, rows: Iterable[_Row]) -> None:
    seen: dict[str, str] = {}
    for row in rows:
        if row.identity is not None and row.split is not None:
            before = seen.setdefault(row.identity, row.split)
            if before != row.split:
                report.offenders["splits"].append(f"{row.name}: identity {row.identity} is in {before} and {row.split}")


def _check_unlisted(report: Report, dataset: Dataset) -> None:
    listed = set(dataset.file_names)
    for path in sorted((dataset.path / "images").rglob("*")):
        name = path.relative_to(dataset.path).as_posix()
        if path.is_file() and name not in listed:
            report.offenders["unlisted"].append(f"{name}: not in metadata.parquet")


def draw_overlay(path: str | Path, out: str | Path, head: HeadModel, *, count: int = 12, cell: int = 256) -> None:
    """Write a sheet of pictures, each beside itself with the mesh of its labels drawn over it.

    Args:
        path: the dataset
        out: picture to write
        head: the model that the dataset's parameters belong to
        count: pictures, spread evenly over the dataset
        cell: pixels of each on the sheet

    Raises:
        InputError: the dataset belongs to another head model
    """
    from next3d.raster.shading import overlay, shaded

    dataset = open_dataset(path)
    check_head(dataset, head)
    chosen = np.unique(np.linspace(0, len(dataset) - 1, count).round().astype(int))
    samples = [dataset.good(int(index)) for index in chosen]
    cells: list[np.ndarray] = []
    labels: list[str] = []
    for start in range(0, len(samples), 8):
        batch = collate(samples[start : start + 8])
        with torch.no_grad():
            vertices = world_from_head(head(batch.params).vertices)
            meshes = shaded(Camera.from_label(batch.camera), vertices, head.faces, cell)
        for picture, mesh, index in zip(batch.image, meshes, batch.index.tolist()):
            photo = np.array(
                Image.fromarray(picture.permute(1, 2, 0).numpy()).resize((cell, cell), Image.Resampling.LANCZOS)
            )
            cells += [photo, overlay(photo, mesh, 0.6)]
            labels += [dataset._name(index).removeprefix("images/"), ""]
    write_image(out, contact_sheet(cells, columns=6, labels=labels))


def check_head(dataset: PictureDataset, head: HeadModel) -> None:
    """Raise :class:`InputError` if the dataset's parameters belong to another head model."""
    if dataset.info.head != head.name:
        raise InputError(
            f"{dataset.path} holds parameters of the head '{dataset.info.head}', got the head '{head.name}': "
            "give the matching one with --head"
        )
