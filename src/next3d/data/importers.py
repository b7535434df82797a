"""Datasets of others: EG3D folders and zips, and the folder layout of the official Next3D release.

EG3D: pictures and ``dataset.json`` = {"labels": [[name, 25 numbers], …]}, in a folder or a zip. Official Next3D:
folders ``images512x512`` (with or beside ``dataset.json``), ``meshes512x512`` and ``lms512x512``, whose files have the
same names ending in .png, .obj and .txt; head parameters are fitted to the meshes, or, if those are of another
topology, to the landmarks.
"""

from __future__ import annotations

import io
import json
import re
import stat
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from next3d.data.format import Info, check_member_name, check_resolution
from next3d.data.mesh_fit import MeshFit
from next3d.data.writer import DatasetWriter
from next3d.errors import InputError
from next3d.heads.head_model import HeadModel
from next3d.heads.params import HeadParams
from next3d.io.images import MAX_PIXELS, as_rgb
from next3d.io.meshes import read_landmarks, read_obj

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
MAX_FILE = 256 << 20  # bytes of one unpacked file; no picture, mesh or label file of these layouts comes near
BATCH = 64
MISFIT = 8.0  # millimetres RMS of the median mesh beyond which unit, frame or head model must be wrong


class Source:
    """The files of a folder or a zip, by '/'-separated names that are checked to stay inside."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if self.path.is_dir():
            self._zip = None
            files = (file for file in self.path.rglob("*") if file.is_file())
            self.names = sorted(file.relative_to(self.path).as_posix() for file in files)
        elif self.path.is_file():
            try:
                self._zip = zipfile.ZipFile(self.path)
            except (zipfile.BadZipFile, OSError) as error:
                raise InputError(f"{path} is neither a folder nor a readable zip: {error}") from error
            self.names = sorted(self._checked(self._zip.infolist()))
        else:
            raise InputError(f"there is no dataset at {path}: give a folder or a zip")
        self.present = set(self.names)

    def _checked(self, entries: Iterable[zipfile.ZipInfo]) -> Iterator[str]:
        for entry in entries:
            check_member_name(entry.orig_filename.rstrip("/") or "/", str(self.path))
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise InputError(f"{self.path} holds the link {entry.filename}, which is refused; nothing was written")
            if entry.flag_bits & 1:
                raise InputError(f"{self.path} is encrypted: unpack it and give the folder")
            if not entry.is_dir():
                if entry.file_size > MAX_FILE:
                    raise InputError(f"{self.path}: {entry.filename} unpacks to {entry.file_size:,} bytes: refused")
                yield entry.filename

    def read(self, name: str) -> bytes:
        """The bytes of a file; InputError if it cannot be read."""
        try:
            if self._zip is not None:
                return self._zip.read(name)
            if (self.path / name).stat().st_size > MAX_FILE:
                raise InputError(f"{self.path / name} is larger than {MAX_FILE:,} bytes: refused")
            return (self.path / name).read_bytes()
        except (OSError, zipfile.BadZipFile, NotImplementedError, EOFError, KeyError) as error:
            raise InputError(f"{name} of {self.path} cannot be read: {error}") from error
        except Exception as error:
            if isinstance(error, InputError) or type(error).__module__ != "zlib":
                raise
            raise InputError(f"{name} of {self.path} is damaged: {error}") from error

    @contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """A file as a path: itself, or for the time of the block a temporary copy of a zip's entry."""
        if self._zip is None:
            yield self.path / name
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / PurePosixPath(name).name
            path.write_bytes(self.read(name))
            yield path


@dataclass
class ImportReport:
    """What an import did.

    Attributes:
        info: the dataset written
        skipped: names and reasons of what was left out
        notes: what a user should know
        fitted: "vertices", "landmarks" or None: what head parameters were fitted to
        error: (rows,) RMS distance in metres between fit and target, if fitted
    """

    info: Info
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fitted: str | None = None
    error: np.ndarray | None = None


@dataclass(frozen=True)
class _Entry:
    picture: str  # name inside the source
    label: list[float]
    key: str  # name without folder of the kind and suffix: what picture, mesh and landmarks share


def import_dataset(
    source: str | Path,
    out: str | Path,
    head: HeadModel,
    *,
    resolution: int | None = None,
    limit: int | None = None,
    workers: int = 2,
) -> ImportReport:
    """Write another layout as a dataset folder; interrupted, it resumes.

    The headers of all pictures are checked before anything is written. Mirrored pairs (``x.png``, ``x_mirror.png``)
    count as one identity, so that no person is in two splits.

    Args:
        source: EG3D folder or zip, or official Next3D folder or zip
        out: new folder, or one that this import was building
        head: the head model that parameters are fitted on
        resolution: of the result; larger pictures are made smaller. Default: the size of the pictures
        limit: take only the first so many pictures
        workers: threads that decode

    Raises:
        InputError: unknown layout, unsafe names, bad labels, pictures that are not square or are too small, meshes that
            do not fit the head model
    """
    files = Source(source)
    layout = _find_layout(files)
    report = ImportReport(Info(0, head.name, 0))
    entries = _read_labels(files, layout, report)[:limit]
    resolution = _check_pictures(files, entries, resolution, report)
    if not entries:
        raise InputError(f"{source}: none of the pictures that dataset.json names can be read")
    fit = _prepare_fit(files, layout, entries, head, report)
    kind = report.fitted
    maker = {"import": files.path.name, "fitted": kind, "limit": limit}
    writer = DatasetWriter(out, resolution=resolution, head=head.name, maker=maker)
    errors: list[np.ndarray] = []
    with (
        ThreadPoolExecutor(max(1, workers)) as threads,
        tqdm(total=len(entries), desc="importing", unit=" pictures") as bar,
    ):
        for start in range(0, len(entries), BATCH):
            indices = [i for i in range(start, min(start + BATCH, len(entries))) if i not in writer.done]
            chosen = [entries[i] for i in indices]
            targets = _gather(threads.map(lambda entry: _target(files, layout, entry, head, kind), chosen), report)
            good = [i for i, target in enumerate(targets) if target is not None]
            columns: dict[str, Any] = {}
            params = HeadParams(shape=torch.zeros(len(good), 100))
            if fit is not None and good:
                params, error = fit(torch.stack([targets[i] for i in good]))  # type: ignore[misc]
                errors.append(error.numpy())
                columns["fit_error"] = error.tolist()
            pictures = _gather(
                threads.map(lambda entry: _picture(files, entry.picture, resolution), [chosen[i] for i in good]), report
            )
            for place, (i, picture) in enumerate(zip(good, pictures)):
                if picture is not None:
                    entry = chosen[i]
                    writer.add(
                        indices[i],
                        picture,
                        torch.tensor(entry.label),
                        params[place],
                        identity=re.sub(r"_mirror$", "", PurePosixPath(entry.key).name),
                        confidence=1.0 if kind else 0.0,
                        source=entry.picture,
                        **{name: values[place] for name, values in columns.items()},
                    )
            bar.update(min(start + BATCH, len(entries)) - start)
    report.info = writer.finish()
    report.error = np.concatenate(errors) if errors else None
    return report


def _gather(results: Iterator, report: ImportReport) -> list:
    """Results in order; each InputError becomes None and a line of the report."""
    found: list[Any] = []
    for result in results:
        if isinstance(result, InputError):
            report.skipped.append(str(result))
            found.append(None)
        else:
            found.append(result)
    return found


@dataclass(frozen=True)
class _Layout:
    labels: str  # name of dataset.json
    images: str  # prefixes, '' or ending in '/'
    meshes: str | None
    landmarks: str | None


def _find_layout(files: Source) -> _Layout:
    """Where labels, pictures, meshes and landmarks are; folders may lie inside one enclosing folder."""
    labels = sorted(
        (name for name in files.names if PurePosixPath(name).name == "dataset.json"), key=lambda n: n.count("/")
    )
    if not labels:
        raise InputError(
            f"{files.path} has no dataset.json with camera labels: expected an EG3D folder or zip, or images512x512, "
            "meshes512x512 and lms512x512"
        )
    folders = {"/".join(name.split("/")[: depth + 1]) + "/" for name in files.names for depth in range(name.count("/"))}

    def folder(kind: str) -> str | None:
        found = [name for name in folders if re.fullmatch(rf"{kind}(\d+x\d+)?", name.rstrip("/").rpartition("/")[2])]
        return min(found, key=lambda name: (name.count("/"), name)) if found else None

    images = folder("images")
    if images is None or not any(name.startswith(images) for name in files.names):
        images = labels[0].rpartition("/")[0]
        images = f"{images}/" if images else ""
    inside = [name for name in labels if name.startswith(images)]
    return _Layout((inside or labels)[0], images, folder("meshes"), folder("lms"))


def _read_labels(files: Source, layout: _Layout, report: ImportReport) -> list[_Entry]:
    where = f"{layout.labels} of {files.path}"
    try:
        values = json.loads(files.read(layout.labels))
        labels = values["labels"]
        pairs = list(labels.items()) if isinstance(labels, dict) else [(name, label) for name, label in labels]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{where} holds no labels ({type(error).__name__} {error}): expected {{'labels': [[name, 25 numbers], …]}}"
        ) from error
    entries, absent = [], []
    for name, label in sorted(pairs, key=lambda pair: str(pair[0])):
        name = check_member_name(str(name).replace("\\", "/"), where)
        try:
            numbers = np.array(label, np.float64)
        except (ValueError, TypeError):
            numbers = np.zeros(0)
        if numbers.shape != (25,) or not np.isfinite(numbers).all():
            raise InputError(f"{where}: the label of {name} is not 25 finite numbers")
        picture = next((p for p in (f"{layout.images}{name}", name) if p in files.present), None)
        if picture is None:
            absent.append(name)
        else:
            key = picture.removeprefix(layout.images).rpartition(".")[0]
            entries.append(_Entry(picture, numbers.tolist(), key))
    if not entries:
        raise InputError(f"{where} names {len(absent)} pictures and none is there, the first is {(absent or ['-'])[0]}")
    if absent:
        report.notes.append(
            f"{len(absent)} labelled pictures are not there and were left out, the first is {absent[0]}"
        )
    return entries


def _check_pictures(files: Source, entries: list[_Entry], resolution: int | None, report: ImportReport) -> int:
    """Check all headers; drop from ``entries`` what is no picture; return the resolution of the result."""
    smallest, largest = (1 << 30, ""), (0, "")
    for entry in tqdm(list(entries), desc="checking", unit=" pictures"):
        try:
            width, height = _size(files, entry.picture)
        except InputError as error:
            report.skipped.append(str(error))
            entries.remove(entry)
            continue
        if width != height:
            raise InputError(
                f"{entry.picture} of {files.path} is {width}×{height}: pictures must be square; nothing was written"
            )
        if width * height > MAX_PIXELS:
            raise InputError(
                f"{entry.picture} of {files.path} has more than {MAX_PIXELS:,} pixels: refused; nothing was written"
            )
        smallest, largest = min(smallest, (width, entry.picture)), max(largest, (width, entry.picture))
    if resolution is None:
        if smallest[0] != largest[0]:
            raise InputError(
                f"the pictures of {files.path} differ in size: {smallest[1]} has {smallest[0]} pixels, {largest[1]} "
                f"{largest[0]}; choose one with --resolution"
            )
        resolution = smallest[0]
    check_resolution(resolution, str(files.path))
    if smallest[0] < resolution:
        raise InputError(
            f"{smallest[1]} of {files.path} is {smallest[0]}×{smallest[0]}, smaller than {resolution}×{resolution}: "
            f"choose --resolution {smallest[0]} or less; nothing was written"
        )
    return resolution


def _size(files: Source, name: str) -> tuple[int, int]:
    if not name.lower().endswith(PICTURES):
        raise InputError(f"{name} of {files.path} is no picture: expected {', '.join(PICTURES)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the caller's bound is what counts
            with Image.open(files.path / name if files._zip is None else io.BytesIO(files.read(name))) as image:
                return image.size
    except InputError:
        raise
    except Image.DecompressionBombError:
        return MAX_PIXELS, MAX_PIXELS  # so many that Pillow does not even tell
    except Exception as error:  # Pillow raises many kinds
        raise InputError(f"{name} of {files.path} cannot be decoded: {error}") from error


def _picture(files: Source, name: str, resolution: int) -> bytes | np.ndarray | InputError:
    """PNG bytes as they are if they fit, else pixels (R, R, 3) uint8; InputError is returned, not raised."""
    try:
        data = files.read(name)
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            if (
                image.format == "PNG"
                and image.mode == "RGB"
                and image.width == resolution
                and "transparency" not in image.info
            ):
                return data
            pixels = Image.fromarray(as_rgb(image, (255, 255, 255)))
            if pixels.width != resolution:
                pixels = pixels.resize((resolution, resolution), Image.Resampling.LANCZOS)
            return np.array(pixels)
    except InputError as error:
        return error
    except Exception as error:  # Pillow raises many kinds
        return InputError(f"{name} of {files.path} cannot be decoded: {error}")


def _prepare_fit(
    files: Source, layout: _Layout, entries: list[_Entry], head: HeadModel, report: ImportReport
) -> MeshFit | None:
    """What to fit, meshes of the head's topology, else landmarks, else nothing; tried on the first few."""
    if layout.meshes is not None:
        first = next((entry for entry in entries if _mesh_name(layout, entry) in files.present), None)
        if first is None:
            raise InputError(f"{files.path} has a folder {layout.meshes} without a mesh for any picture")
        count, expected = len(read_vertices(files, _mesh_name(layout, first))), head.topology.vertex_count
        if count == expected:
            report.fitted = "vertices"
        elif layout.landmarks is None:
            raise InputError(
                f"the meshes of {files.path} have {count} vertices, the head '{head.name}' has {expected}: give the "
                "model that they were made with (--head; FLAME has 5023), or the landmarks (lms512x512)"
            )
        else:
            report.notes.append(
                f"the meshes have {count} vertices, the head '{head.name}' has {expected}: parameters were fitted "
                "to the 68 landmarks, which say less; --head with the model of the meshes is exact"
            )
    if report.fitted is None and layout.landmarks is not None:
        report.fitted = "landmarks"
    if report.fitted is None:
        report.notes.append(
            "there are no meshes: every row got the neutral head with confidence 0. The cameras are right; to train "
            "an animatable model, run  next3d dataset build  on the pictures"
        )
        return None
    fit = MeshFit(head, report.fitted)
    targets = [_target(files, layout, entry, head, report.fitted) for entry in entries[:8]]
    good = [target for target in targets if isinstance(target, Tensor)]
    if good and (error := 1000 * float(fit(torch.stack(good))[1].median())) > MISFIT:
        raise InputError(
            f"the {report.fitted} of {files.path} do not fit the head '{head.name}' ({error:.0f} mm off): they belong "
            "to another head model (--head), or are not in metres in the head's frame"
        )
    return fit


def _mesh_name(layout: _Layout, entry: _Entry) -> str:
    return f"{layout.meshes}{entry.key}.obj"


def _target(files: Source, layout: _Layout, entry: _Entry, head: HeadModel, kind: str | None) -> Tensor | InputError:
    """What to fit for one picture; InputError is returned, not raised."""
    try:
        if kind == "vertices":
            name = _mesh_name(layout, entry)
            vertices = read_vertices(files, name)
            if len(vertices) != head.topology.vertex_count:
                raise InputError(
                    f"{name} of {files.path} has {len(vertices)} vertices, the head {head.topology.vertex_count}"
                )
            return vertices
        if kind == "landmarks":
            with files.file(f"{layout.landmarks}{entry.key}.txt") as path:
                return read_landmarks(path)
        return torch.zeros(0)
    except InputError as error:
        return error


def read_vertices(files: Source, name: str) -> Tensor:
    """The vertices (V, 3) of an OBJ file, without its faces: a tenth of the time, and meshes come by the thousand."""
    lines = files.read(name).split(b"\n")
    try:
        vertices = np.array([line.split()[1:4] for line in lines if line.startswith(b"v ")], np.float32)
    except ValueError:
        vertices = np.zeros(0, np.float32)
    if vertices.ndim != 2 or vertices.shape[1:] != (3,) or not np.isfinite(vertices).all():
        with files.file(name) as path:
            return read_obj(path).vertices  # names the line that makes no sense
    return torch.from_numpy(vertices)
