"""Writing a dataset folder, by any number of processes, so that a killed build goes on where it was.

While a dataset is built, its folder holds ``.building/``: the settings of the build and one journal per process, to
which a line is appended when all pictures of a row have been renamed into place. A row whose line is whole is therefore
done, and a row without a line is simply made again. ``finish`` turns the journals into ``metadata.parquet`` and
``dataset.json`` and removes them.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from next3d.data.dataset import column_values, pack_numbers, read_table, table_numbers
from next3d.data.format import AUX, NUMBERS, SLICES, Info, check_resolution, encode_aux, read_info, split_of
from next3d.errors import InputError, require
from next3d.geometry.cameras import Camera
from next3d.heads.params import HeadParams
from next3d.io.files import atomic_path, check_folder, write_bytes, write_text

COMPRESSION = 4  # of zlib: pictures of heads get no smaller beyond it
_OURS = re.compile(r"\d{8}\.png")
_TEMPORARY = re.compile(r"\.\d{8}\..+")  # what io.files puts beside such a picture until it is whole


def picture_name(index: int, aux: str | None = None) -> str:
    """``images/00012/00012345.png``: a thousand pictures in a folder."""
    folder = "images" if aux is None else f"aux/{aux}"
    return f"{folder}/{index // 1000:05d}/{index:08d}.png"


def encode_png(pixels: np.ndarray) -> bytes:
    """PNG bytes of (R, R, 3) uint8, (R, R) uint8 or (R, R) uint16; the same pixels give the same bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=COMPRESSION)
    return buffer.getvalue()


class DatasetWriter:
    """Builds a dataset folder row by row; rows may come in any order and from several processes.

    A writer can be sent to worker processes (it pickles); each then keeps a journal of its own. One process calls
    :meth:`finish` in the end::

        writer = DatasetWriter(folder, resolution=128, head="builtin", maker={"seed": 0})
        for index in range(count):
            if index not in writer.done:
                writer.add(index, picture, camera, params, identity=7)
        writer.finish(count)

    Args:
        folder: a new or empty folder, or one that the same command was building or has built (rows are then added)
        resolution: pixels along each side
        head: ``HeadModel.name`` of the model that the parameters belong to
        aux: which auxiliary pictures every row comes with
        maker: how the dataset is made, JSON values; resuming with other values is refused

    Raises:
        InputError: the folder holds something else, or a build with other settings
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        resolution: int,
        head: str,
        aux: tuple[str, ...] = (),
        maker: Mapping[str, Any] | None = None,
    ):
        if find_spec("pyarrow") is None:  # loaded in the end only, it takes 25 MB
            require("pyarrow", "train")
        self.folder = Path(folder)
        self.resolution = check_resolution(resolution, str(folder))
        self.head = head
        self.aux = tuple(name for name in AUX if name in aux)
        self.maker = json.loads(json.dumps(dict(maker or {})))
        self._journal: int | None = None
        self._done: set[int] | None = None
        self._open()

    @property
    def _building(self) -> Path:
        return self.folder / ".building"

    def _open(self) -> None:
        check_folder(self.folder)
        settings = {"resolution": self.resolution, "head": self.head, "aux": list(self.aux), "maker": self.maker}
        if (self._building / "settings.json").exists():
            try:
                before = json.loads((self._building / "settings.json").read_text())
            except ValueError as error:
                raise InputError(f"{self._building} is damaged: remove {self.folder} and start again") from error
        elif (self.folder / "dataset.json").exists():
            info = read_info(self.folder)
            if info.layout != "folder":
                raise InputError(f"{self.folder} holds packed shards, which cannot be added to: choose another folder")
            before = {"resolution": info.resolution, "head": info.head, "aux": list(info.aux), "maker": info.maker}
        else:
            if any(not entry.name.startswith(".") for entry in self.folder.iterdir()):
                raise InputError(f"{self.folder} is not empty and is no dataset: choose a new folder")
            before = settings
        for name, now in settings.items():
            if name == "maker" and isinstance(now, dict):
                for key in sorted({*now, *before[name]}):
                    _same(self.folder, key, before[name].get(key), now.get(key))
            else:
                _same(self.folder, name, before[name], now)
        self._building.mkdir(exist_ok=True)
        if not (self._building / "settings.json").exists():
            write_text(self._building / "settings.json", json.dumps(settings))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_journal": None}

    @property
    def done(self) -> set[int]:
        """Indices of rows that are complete, pictures included. Read once; :meth:`add` of this process adds to it."""
        if self._done is None:
            finished = (
                {_index_of(name) for name in self._finished()["file_name"].to_pylist()}
                if self._is_finished()
                else set()
            )
            self._done = {index for index in finished | {i for i, _ in self._lines()} if self._present(index)}
        return self._done

    def _is_finished(self) -> bool:
        return (self.folder / "metadata.parquet").exists()

    def _finished(self):
        return read_table(self.folder / "metadata.parquet")

    def _present(self, index: int) -> bool:
        try:
            return all((self.folder / picture_name(index, aux)).stat().st_size > 0 for aux in (None, *self.aux))
        except OSError:
            return False

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Whole lines of all journals; the torn last line of a killed process is left out."""
        for path in sorted(self._building.glob("*.jsonl")):
            with open(path, "rb") as file:
                for line in file:
                    index, _, row = line.partition(b" ")
                    if line.endswith(b"}\n") and index.isdigit():
                        yield int(index), row

    def add(
        self,
        index: int,
        image: np.ndarray | bytes,
        camera: Camera | torch.Tensor | np.ndarray,
        params: HeadParams,
        *,
        aux: Mapping[str, np.ndarray] | None = None,
        **columns: Any,
    ) -> None:
        """Write one row.

        Args:
            index: 0, 1, …; names the files, and rows are sorted by it
            image: (R, R, 3) uint8 RGB, or the bytes of such a PNG
            camera: a single camera or its (25,) label
            params: a single head
            aux: for each name in ``aux``: depth (R, R), normals (R, R, 3), parts (R, R), encoded as format.py says
            columns: anything else: numbers, strings, or flat lists of numbers. ``identity`` is the index if not given;
                ``split`` follows from the identity if not given.
        """
        pictures: dict[str | None, bytes] = {None: image if isinstance(image, bytes) else self._encode(image, (3,))}
        for name in self.aux:
            if aux is None or name not in aux:
                raise InputError(f"row {index} lacks the auxiliary picture '{name}' that the dataset promises")
            pictures[name] = self._encode(encode_aux(name, aux[name]), (3,) if name == "normals" else ())
        numbers = pack_numbers(camera, params).detach().cpu().numpy()
        if numbers.ndim != 1 or not np.isfinite(numbers).all():
            raise InputError(f"row {index} needs one camera and one head of finite numbers, got shape {numbers.shape}")
        identity = columns.setdefault("identity", index)
        columns.setdefault("split", split_of(identity))
        row = {name: plain(numbers[place]) for name, place in SLICES.items()}
        row |= {name: plain(value) for name, value in columns.items()}
        for kind, data in pictures.items():
            write_bytes(self.folder / picture_name(index, kind), data)
        if self._journal is None:
            path = self._building / f"{uuid.uuid4().hex}.jsonl"
            self._journal = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o644)
        os.write(self._journal, f"{index} {json.dumps(row)}\n".encode())
        if self._done is not None:
            self._done.add(index)

    def _encode(self, pixels: np.ndarray, channels: tuple[int, ...]) -> bytes:
        expected = (self.resolution, self.resolution, *channels)
        if pixels.shape != expected or pixels.dtype not in (np.uint8, np.uint16):
            raise InputError(f"a picture is {pixels.dtype} of shape {pixels.shape}, expected uint8 of {expected}")
        return encode_png(pixels)

    def close(self) -> None:
        """Close the journal; :meth:`add` opens a new one."""
        if self._journal is not None:
            os.close(self._journal)
            self._journal = None

    def finish(self, count: int | None = None) -> Info:
        """Write ``metadata.parquet`` and ``dataset.json`` from all rows, and remove what the build left over.

        Args:
            count: rows 0 … count − 1 must all be there

        Raises:
            InputError: rows are missing (the build stays resumable), or no row was made at all
        """
        self.close()
        self._done = None
        if count is not None and (missing := sorted(set(range(count)) - self.done)):
            raise InputError(f"{self.folder} lacks {len(missing)} of {count} rows, the first is row {missing[0]}")
        if not self.done:
            raise InputError(f"{self.folder} has no rows: nothing to finish")
        indices, numbers, columns = self._collect()
        table = build_table(indices, numbers, columns, self.aux)
        parquet = require("pyarrow.parquet", "train")
        with atomic_path(self.folder / "metadata.parquet") as temporary:
            parquet.write_table(table, temporary)
        info = Info(self.resolution, self.head, len(indices), self.aux, "folder", self.maker)
        info.save(self.folder)
        shutil.rmtree(self._building)
        self._sweep(set(indices))
        return info

    def _collect(self) -> tuple[list[int], np.ndarray, dict[str, list[Any]]]:
        """All rows sorted by index: indices, (rows, 187) float32, and the other columns."""
        rows: dict[int, tuple[np.ndarray, dict[str, Any]]] = {}
        if self._is_finished():
            table = self._finished()
            extra = [name for name in table.column_names if name not in NUMBERS and not name.endswith("file_name")]
            values = {name: column_values(table[name]) for name in extra}
            for place, (name, numbers) in enumerate(zip(table["file_name"].to_pylist(), table_numbers(table))):
                rows[_index_of(name)] = (numbers, {key: plain(value[place]) for key, value in values.items()})
        for index, line in self._lines():
            row = json.loads(line)
            numbers = np.array([number for name in NUMBERS for number in row.pop(name)], np.float32)
            # Lists become arrays at once: a Python float takes eight times the room of a float32.
            rows[index] = (numbers, {k: np.array(v, np.float32) if isinstance(v, list) else v for k, v in row.items()})
        indices = sorted(rows.keys() & self.done)
        names = list(dict.fromkeys(name for index in indices for name in rows[index][1]))
        columns = {name: [rows[index][1].get(name) for index in indices] for name in names}
        return indices, np.stack([rows[index][0] for index in indices]), columns

    def _sweep(self, indices: set[int]) -> None:
        """Remove pictures without a row and temporary files, which a killed process leaves."""
        for root in ("images", "aux"):
            for path in (self.folder / root).rglob("*"):
                unfinished = _TEMPORARY.fullmatch(path.name)
                if unfinished or (_OURS.fullmatch(path.name) and int(path.stem) not in indices):
                    path.unlink(missing_ok=True)


def build_table(indices: list[int], numbers: np.ndarray, columns: Mapping[str, list[Any]], aux: tuple[str, ...]):
    """The pyarrow table of ``metadata.parquet``."""
    arrow = require("pyarrow", "train")
    names = {"file_name": None} | {f"{name}_file_name": name for name in aux}
    arrays: dict[str, Any] = {
        column: _arrow([picture_name(index, name) for index in indices]) for column, name in names.items()
    }
    for name, place in SLICES.items():
        arrays[name] = arrow.FixedSizeListArray.from_arrays(_arrow(numbers[:, place].reshape(-1)), NUMBERS[name])
    for name, values in columns.items():
        try:
            arrays[name] = _arrow(values)
        except (arrow.ArrowException, TypeError) as error:
            raise InputError(f"column '{name}' mixes kinds of values: {str(error).splitlines()[0]}") from error
    return arrow.table(arrays)


def _arrow(values: np.ndarray | list[Any]):
    """The pyarrow array of a column: of numbers, of strings, of float32 lists, or of whatever pyarrow makes of it.

    The usual columns are handed over as buffers: ``pyarrow.array`` would import pandas, which takes 50 MB.
    """
    arrow = require("pyarrow", "train")
    kinds = {type(value) for value in values} if isinstance(values, list) else set()
    if kinds == {int} or kinds == {float}:
        values = np.array(values)
    if isinstance(values, np.ndarray) and values.dtype in (np.int64, np.float64, np.float32):
        buffer = arrow.py_buffer(np.ascontiguousarray(values))
        return arrow.Array.from_buffers(arrow.from_numpy_dtype(values.dtype), len(values), [None, buffer])
    if kinds == {str} or kinds == {np.ndarray}:
        pieces = [value.encode() for value in values] if kinds == {str} else values
        offsets = np.cumsum([0, *map(len, pieces)])
        if offsets[-1] < 2**31:
            ends = arrow.py_buffer(offsets.astype(np.int32))
            if kinds == {str}:
                buffers = [None, ends, arrow.py_buffer(b"".join(pieces))]
                return arrow.Array.from_buffers(arrow.string(), len(pieces), buffers)
            flat = _arrow(np.concatenate(pieces).astype(np.float32))
            kind = arrow.list_(arrow.float32())
            return arrow.Array.from_buffers(kind, len(pieces), [None, ends], children=[flat])
    first = next((value for value in values if value is not None), None)
    return arrow.array(values, type=arrow.list_(arrow.float32()) if isinstance(first, np.ndarray | list) else None)


def plain(value: Any) -> Any:
    """A JSON value; float32 numbers keep nine digits, which is what they need to come back exactly."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.ndim:
        return [plain(item) for item in value.tolist()] if value.dtype != np.float32 else short(value)
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.item())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def short(values: np.ndarray) -> list[float]:
    """float32 numbers as the shortest Python floats that become the same float32 again."""
    return [float(f"{value:.9g}") for value in values.tolist()]


def _index_of(file_name: str) -> int:
    stem = Path(file_name).stem
    if not stem.isdigit():
        raise InputError(
            f"the picture {file_name} does not carry its row's number: rows cannot be added to this dataset"
        )
    return int(stem)


def _same(folder: Path, name: str, before: Any, now: Any) -> None:
    if before != now:
        raise InputError(f"{folder} was begun with {name} = {before!r}, now it is {now!r}: choose another folder")
