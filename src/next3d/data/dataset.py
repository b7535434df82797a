"""Reading datasets: samples, batches and the map-style reader of folders. The format itself is in format.py."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from torch import Tensor

from next3d.data.format import AUX, NUMBERS, SLICES, SPLITS, Info, check_member_name, decode_aux, read_info
from next3d.errors import InputError, require
from next3d.geometry.cameras import Camera
from next3d.heads.params import HeadParams


@dataclass(frozen=True)
class Sample:
    """One picture with its labels.

    Attributes:
        image: (3, R, R) uint8, RGB
        numbers: (187,) float32: camera, shape, expression, neck, jaw, eyes, one after the other (format.NUMBERS)
        row: every other column: identity, split, latent, confidence, …
        aux: depth (1, R, R) float32 world units along the camera's z, normals (3, R, R) float32 unit vectors in world
            axes, parts (1, R, R) uint8 indices into format.PARTS; depth and normals are 0 where there is no surface
        index: place in the dataset that gave it
    """

    image: Tensor
    numbers: Tensor
    row: Mapping[str, Any] = field(default_factory=dict)
    aux: Mapping[str, Tensor] = field(default_factory=dict)
    index: int = -1

    @property
    def camera(self) -> Tensor:
        """(25,) camera label, see :meth:`next3d.Camera.from_label`."""
        return self.numbers[..., SLICES["camera"]]

    @property
    def params(self) -> HeadParams:
        """Head parameters."""
        return params_of(self.numbers)


@dataclass(frozen=True)
class Batch:
    """Samples stacked: the attributes of :class:`Sample` with a leading N.

    Attributes:
        image: (N, 3, R, R) uint8, RGB, stored channels-last
        numbers: (N, 187) float32
        row: column name → (N, …) tensor for numbers, list of N for anything else
        aux: name → (N, C, R, R)
        index: (N,) int64, places in the dataset
    """

    image: Tensor
    numbers: Tensor
    row: Mapping[str, Any] = field(default_factory=dict)
    aux: Mapping[str, Tensor] = field(default_factory=dict)
    index: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    def __len__(self) -> int:
        return self.image.shape[0]

    @property
    def camera(self) -> Tensor:
        """(N, 25) camera labels."""
        return self.numbers[..., SLICES["camera"]]

    @property
    def params(self) -> HeadParams:
        """Head parameters, batched (N,)."""
        return params_of(self.numbers)

    @property
    def normalized(self) -> Tensor:
        """(N, 3, R, R) float32 in [−1, 1], what the networks take."""
        return self.image.to(torch.float32).mul_(1 / 127.5).sub_(1)

    def _map(self, function) -> Batch:
        def each(values: Mapping[str, Any]) -> dict[str, Any]:
            return {name: function(value) if isinstance(value, Tensor) else value for name, value in values.items()}

        return Batch(function(self.image), function(self.numbers), each(self.row), each(self.aux), function(self.index))

    def to(self, *args, **kwargs) -> Batch:
        """Move to a device, as ``Tensor.to``; pass a device, not a dtype."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self) -> Batch:
        """Page-locked copies, so that ``.to(device, non_blocking=True)`` overlaps with computing."""
        return self._map(lambda tensor: tensor.pin_memory())


def params_of(numbers: Tensor) -> HeadParams:
    """The head parameters inside ``numbers`` (…, 187)."""
    return HeadParams.from_vector(numbers[..., SLICES["camera"].stop :])


def pack_numbers(camera: Camera | Tensor | Sequence[float] | np.ndarray, params: HeadParams) -> Tensor:
    """``numbers`` (…, 187) of a camera (or its 25-number label) and head parameters of the same batch shape."""
    label = camera.label if isinstance(camera, Camera) else torch.as_tensor(camera, dtype=torch.float32)
    return torch.cat([label.float(), params.vector()], -1)


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples of one dataset into a batch."""
    if not samples:
        raise InputError("a batch needs at least one sample, got none")
    first = samples[0]
    images = torch.stack([sample.image.permute(1, 2, 0) for sample in samples])  # (N, R, R, 3): plain copies of rows
    row: dict[str, Any] = {}
    for name, value in first.row.items():
        values = [sample.row[name] for sample in samples]
        if isinstance(value, np.ndarray):
            row[name] = torch.from_numpy(np.stack(values))
        elif isinstance(value, bool | int | float | np.number | np.bool_):
            row[name] = torch.from_numpy(np.asarray(values))
        else:
            row[name] = values
    return Batch(
        image=images.permute(0, 3, 1, 2),
        numbers=torch.stack([sample.numbers for sample in samples]),
        row=row,
        aux={name: torch.stack([sample.aux[name] for sample in samples]) for name in first.aux},
        index=torch.tensor([sample.index for sample in samples]),
    )


class PictureDataset(torch.utils.data.Dataset):
    """What folders and shards share: decoding, skipping what is broken, and the order of an epoch.

    A subclass gives ``__len__``, ``_read(index)`` and, if reading far apart is dear, its own ``order``.
    ``dataset[i]`` raises :class:`InputError` for a broken picture or row; :meth:`good` takes the next good one instead,
    and ``skipped`` tells which were left out and why.

    Attributes:
        info: what dataset.json says
        resolution: pixels along each side
        skipped: file name → reason, for each broken picture or row met so far
    """

    def __init__(self, path: str | Path, info: Info, aux: bool):
        self.path = Path(path)
        self.info = info
        self.resolution = info.resolution
        if aux and not info.aux:
            raise InputError(f"{path} has no auxiliary pictures: make them with  next3d dataset synthesize --aux")
        self.aux: tuple[str, ...] = tuple(name for name in AUX if name in info.aux) if aux else ()
        self.skipped: dict[str, str] = {}

    def __len__(self) -> int:
        raise NotImplementedError

    def _read(self, index: int) -> tuple[str, bytes, np.ndarray, dict[str, Any], dict[str, bytes]]:
        """File name, PNG bytes, (187,) numbers, other columns, and the bytes of auxiliary pictures."""
        raise NotImplementedError

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """(len,) int64: the shuffled indices of one epoch, a pure function of seed and epoch."""
        return np.random.default_rng((seed, epoch)).permutation(len(self))

    def __getitem__(self, index: int) -> Sample:
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"sample {index} of {count}")
        index = int(index) % count
        name, data, numbers, row, aux = self._read(index)
        image = decode(data, self.resolution, name)
        return Sample(
            torch.from_numpy(image).permute(2, 0, 1),
            torch.from_numpy(numbers),
            row,
            {
                key: torch.from_numpy(decode_aux(key, decode(aux[key], self.info.resolution, name, key)))
                for key in self.aux
            },
            index,
        )

    def good(self, index: int) -> Sample:
        """Sample ``index``, or the next one that is not broken; each broken one is counted and warned of once.

        The substitute depends on the index alone, so the data order stays the same for every number of processes.
        """
        for place in range(index, index + len(self)):
            try:
                return self[place % len(self)]
            except InputError as error:
                name = self._name(place % len(self))
                if name not in self.skipped:
                    self.skipped[name] = str(error)
                    warnings.warn(f"skipped ({len(self.skipped)} so far): {error}", stacklevel=2)
        raise InputError(f"{self.path} has no sample that can be read; run  next3d dataset validate {self.path}")

    def _name(self, index: int) -> str:
        return str(index)


# Large buffers that are freed go back to the system, and the next ones come from it page by page, cleared: at 512² that
# costs a third of decoding. So Pillow keeps some of its own, and pixels are copied out of it in small pieces.
Image.core.set_blocks_max(8)
PIECE = 1 << 16  # pixels; in bytes well below what malloc asks the system for


def pixels(image: Image.Image) -> np.ndarray:
    """An RGB picture as a writable array (H, W, 3) uint8."""
    width, height = image.size
    rows = max(1, PIECE // width)
    if rows >= height:
        return np.frombuffer(bytearray(image.tobytes()), np.uint8).reshape(height, width, 3)
    result = np.empty((height, width, 3), np.uint8)
    image.load()
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        piece = image.crop((0, top, width, bottom)).tobytes()
        result[top:bottom] = np.frombuffer(piece, np.uint8).reshape(bottom - top, width, 3)
    return result


_MODES = {"depth": ("I;16", "I"), "parts": ("L",)}


def decode(data: bytes, resolution: int, name: str, aux: str | None = None) -> np.ndarray:
    """PNG bytes to (R, R, 3) uint8, or to the stored pixels of an auxiliary picture.

    Raises InputError if it is not what the dataset says. The size is checked before a pixel is unpacked, so that a
    small file cannot ask for much memory.
    """
    try:
        image = PngImageFile(io.BytesIO(data))  # not Image.open: only PNG is in the format, and it is a little faster
        if image.size != (resolution, resolution):
            raise InputError(
                f"picture {name} is {image.size[0]}×{image.size[1]}, the dataset says {resolution}×{resolution}"
            )
        if aux in _MODES:
            if image.mode not in _MODES[aux]:
                raise InputError(f"the {aux} picture of {name} has mode {image.mode}, expected {_MODES[aux][0]}")
            return np.array(image)
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        return pixels(rgb)
    except InputError:
        raise
    except Exception as error:  # Pillow raises many kinds, SyntaxError and struct.error among them
        raise InputError(f"picture {name} cannot be decoded: {error}") from error


class Dataset(PictureDataset):
    """Map-style reader of a dataset folder: ``dataset[i]`` is a :class:`Sample`.

    Args:
        path: folder with dataset.json
        split: "train", "validation", "test", or None for all rows
        aux: also read depth, normals and parts
        columns: which further columns to keep in ``sample.row``; None keeps all

    Attributes:
        file_names: (len,) list
        numbers: (len, 187) float32, every camera and parameter
        columns: name → numpy array or list of length len
    """

    def __init__(
        self, path: str | Path, split: str | None = None, *, aux: bool = False, columns: Iterable[str] | None = None
    ):
        info = read_info(path)
        if info.layout != "folder":
            raise InputError(f"{path} holds packed shards: read it with ShardDataset or open_dataset")
        super().__init__(path, info, aux)
        table = read_table(self.path / "metadata.parquet")
        if table.num_rows != info.count:
            raise InputError(
                f"{path} has {table.num_rows} rows, dataset.json says {info.count}: the dataset is damaged"
            )
        if split is not None:
            table = _rows_of_split(table, split, str(path))
        self.file_names: list[str] = table["file_name"].to_pylist()
        self.numbers = table_numbers(table)
        wanted = None if columns is None else set(columns)
        rest = [name for name in table.column_names if name not in NUMBERS and not name.endswith("file_name")]
        if wanted is not None and (absent := sorted(wanted - set(rest))):
            raise InputError(f"{path} has no column {absent}; it has {rest}")
        self.columns = {name: column_values(table[name]) for name in rest if wanted is None or name in wanted}
        self._aux_names = {name: aux_names(table, name, str(path)) for name in self.aux}
        self._finite = np.isfinite(self.numbers).all(1)
        self._items = list(self.columns.items())
        self._root = f"{self.path}/"

    def __len__(self) -> int:
        return len(self.file_names)

    def _name(self, index: int) -> str:
        return self.file_names[index]

    def read(self, file_name: str) -> bytes:
        """The bytes of a file of the dataset; raises :class:`InputError` if it cannot be read."""
        try:
            with open(self._root + file_name, "rb", buffering=0) as file:
                return file.read()
        except OSError as error:
            raise InputError(f"picture {file_name} of {self.path} cannot be read: {error.strerror}") from error

    def _read(self, index: int) -> tuple[str, bytes, np.ndarray, dict[str, Any], dict[str, bytes]]:
        name = self.file_names[index]
        if not self._finite[index]:
            raise InputError(f"the row of {name} has missing or non-finite numbers")
        row = {column: values[index] for column, values in self._items}
        aux = {key: self.read(names[index]) for key, names in self._aux_names.items()}
        return name, self.read(name), self.numbers[index].copy(), row, aux


def open_dataset(
    path: str | Path, split: str | None = None, *, aux: bool = False, columns: Iterable[str] | None = None
) -> PictureDataset:
    """Open a dataset of either layout: :class:`Dataset` for folders, ``ShardDataset`` for packed shards."""
    if read_info(path).layout == "folder":
        return Dataset(path, split, aux=aux, columns=columns)
    from next3d.data.shards import ShardDataset

    return ShardDataset(path, split, aux=aux, columns=columns)


def read_table(path: Path):
    """``metadata.parquet`` as a pyarrow table with every required column; file names are checked to stay inside."""
    parquet = require("pyarrow.parquet", "train")
    pyarrow = require("pyarrow", "train")
    try:
        table = parquet.read_table(path, partitioning=None)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: the dataset is damaged or unfinished; make it again") from None
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path} cannot be read as parquet: {str(error).splitlines()[0]}") from error
    if absent := [name for name in ("file_name", *NUMBERS) if name not in table.column_names]:
        raise InputError(f"{path} lacks the columns {absent}; a dataset has file_name, {', '.join(NUMBERS)}")
    if not pyarrow.types.is_string(table["file_name"].type) and not pyarrow.types.is_large_string(
        table["file_name"].type
    ):
        raise InputError(f"{path}: column file_name is {table['file_name'].type}, expected strings")
    for column in table.column_names:
        if column.endswith("file_name"):
            for name in table[column].to_pylist():
                check_member_name(name or "", str(path))
    return table


def table_numbers(table) -> np.ndarray:
    """(rows, 187) float32 of a pyarrow table; NaN wherever a row lacks a number."""
    return np.concatenate([fixed_width(table[name], name, width) for name, width in NUMBERS.items()], 1)


def fixed_width(column, name: str, width: int) -> np.ndarray:
    """(rows, width) float32 of a list column; rows of another length become NaN; a column of such rows is refused."""
    pyarrow, compute = require("pyarrow", "train"), require("pyarrow.compute", "train")
    array = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    if not hasattr(array.type, "value_type"):
        raise InputError(f"column {name} holds {array.type}, expected lists of {width} numbers")
    lengths = compute.fill_null(compute.list_value_length(array), -1).to_numpy(zero_copy_only=False)
    fits = lengths == width
    if len(lengths) and not fits.any():
        raise InputError(f"column {name} has rows of {lengths.max()} numbers, expected {width}")
    if not fits.all():
        array = array.filter(pyarrow.array(fits))
    values = np.full((len(lengths), width), np.nan, np.float32)
    values[fits] = compute.list_flatten(array).to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, width)
    return values


def column_values(column) -> Any:
    """A numpy array for numbers and for lists of numbers of one length, a list for anything else."""
    types, compute = require("pyarrow", "train").types, require("pyarrow.compute", "train")
    kind = column.type
    if column.null_count == 0 and (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        return column.to_numpy()
    if hasattr(kind, "value_type") and types.is_floating(kind.value_type) and column.null_count == 0 and len(column):
        lengths = compute.min_max(compute.list_value_length(column)).as_py()
        if lengths["min"] == lengths["max"] > 0:
            return fixed_width(column, "", lengths["min"])
    return column.to_pylist()


def aux_names(table, name: str, where: str) -> list[str]:
    column = f"{name}_file_name"
    if column not in table.column_names:
        raise InputError(f"{where}: dataset.json promises {name} pictures, metadata.parquet has no column {column}")
    return table[column].to_pylist()


def _rows_of_split(table, split: str, where: str):
    compute = require("pyarrow.compute", "train")
    if split not in SPLITS:
        raise InputError(f"split '{split}' is unknown; expected one of {list(SPLITS)}")
    if "split" not in table.column_names:
        raise InputError(f"{where} has no column 'split', so '{split}' cannot be picked; leave the split out")
    return table.filter(compute.equal(table["split"], split))
