"""Packing a dataset into WebDataset tar shards, and reading samples straight out of the tars."""

from __future__ import annotations

import io
import json
import mmap
import tarfile
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from next3d.data.dataset import Dataset, PictureDataset, Sample
from next3d.data.format import NUMBER_COUNT, SPLITS, check_member_name, read_info
from next3d.data.writer import plain
from next3d.errors import InputError
from next3d.io.files import atomic_folder

WINDOW = 8  # shards whose samples are mixed with each other in an epoch, and that are open at a time


def pack(folder: str | Path, out: str | Path, *, per_shard: int = 1000, seed: int = 0) -> list[Path]:
    """Write the samples of a dataset folder as WebDataset shards ``{split}-{shard}.tar``.

    Rows are shuffled before packing, so that any few shards hold a fair sample of the whole. Names, times and owners in
    the tars are fixed: the same dataset gives the same bytes.

    Args:
        folder: a dataset of layout "folder"
        out: a new folder, or one that holds shards, which are replaced when all new ones are written
        per_shard: samples in a shard
        seed: of the shuffle

    Returns:
        the shards written

    Raises:
        InputError: a picture is missing (``next3d dataset validate`` lists all), or ``out`` holds something else
    """
    info = read_info(folder)
    out = Path(out)
    if per_shard < 1:
        raise InputError(f"per_shard is {per_shard}, expected 1 or more")
    if (
        out.exists()
        and any(out.iterdir())
        and not ((out / "dataset.json").exists() and read_info(out).layout == "shards")
    ):
        raise InputError(f"{out} is not empty and holds no shards: choose a new folder")
    dataset = Dataset(folder, aux=bool(info.aux))
    order = np.random.default_rng(seed).permutation(len(dataset))
    splits = dataset.columns.get("split", ["train"] * len(dataset))
    groups = {
        split: [index for index in order if splits[index] == split]
        for split in dict.fromkeys(SPLITS) | dict.fromkeys(splits)
    }
    arrays = {name: v.shape[1] for name, v in dataset.columns.items() if isinstance(v, np.ndarray) and v.ndim == 2}
    shards: dict[str, int] = {}
    with atomic_folder(out) as temporary, tqdm(total=len(dataset), unit=" samples", desc="packing") as bar:
        for split, indices in groups.items():
            for number, start in enumerate(range(0, len(indices), per_shard)):
                name = f"{split}-{number:05d}.tar"
                chosen = indices[start : start + per_shard]
                with tarfile.open(temporary / name, "w", format=tarfile.USTAR_FORMAT) as tar:
                    for index in chosen:
                        _add_sample(tar, dataset, int(index), list(arrays))
                        bar.update()
                shards[name] = len(chosen)
        replace(info, layout="shards", shards=shards, arrays=arrays).save(temporary)
    return [out / name for name in shards]


def _add_sample(tar: tarfile.TarFile, dataset: Dataset, index: int, arrays: list[str]) -> None:
    _, image, numbers, row, aux = dataset._read(index)
    key = f"{index:08d}"
    values = {column: plain(value) for column, value in row.items() if column not in arrays}
    text = json.dumps(values, separators=(",", ":")).encode()
    members = {"png": image, "npy": npy_bytes(np.concatenate([numbers, *(row[name] for name in arrays)])), "json": text}
    members |= {f"{kind}.png": data for kind, data in aux.items()}
    for suffix, data in members.items():
        member = tarfile.TarInfo(f"{key}.{suffix}")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))


class ShardDataset(PictureDataset):
    """Reads packed shards. Only a few shards are open at a time, and an epoch goes through them window by window.

    ``dataset[i]`` works too, so everything that takes a :class:`Dataset` takes shards: the loader, its exact resume and
    its sharing between processes. ``dataset.stream(seed, epoch)`` is the plain iterator.

    Args:
        path: folder that ``next3d dataset pack`` wrote
        split: "train", "validation", "test", or None for all
        aux: also read depth, normals and parts
        columns: which further columns to keep in ``sample.row``; None keeps all

    Raises:
        InputError: not packed shards, a shard that is missing, cut short, or holds links or paths that lead outside
    """

    def __init__(
        self, path: str | Path, split: str | None = None, *, aux: bool = False, columns: Iterable[str] | None = None
    ):
        info = read_info(path)
        if info.layout != "shards":
            raise InputError(f"{path} holds a dataset folder, not shards: read it with Dataset or open_dataset")
        super().__init__(path, info, aux)
        if split is not None and split not in SPLITS:
            raise InputError(f"split '{split}' is unknown; expected one of {list(SPLITS)}")
        chosen = {name: count for name, count in info.shards.items() if split in (None, name.rpartition("-")[0])}
        if absent := [name for name in chosen if not (self.path / name).is_file()]:
            raise InputError(
                f"{path} lacks {len(absent)} of {len(chosen)} shards, the first is {absent[0]}: copy or pack again"
            )
        self.shards = list(chosen)
        self._starts: list[int] = [0, *accumulate(chosen.values())]
        self._columns: set[str] | None = None
        stops = list(accumulate(info.arrays.values(), initial=NUMBER_COUNT))
        self._arrays = dict(zip(info.arrays, map(slice, stops, stops[1:])))
        self._npy_header = npy_bytes(np.zeros(stops[-1]))[: -4 * stops[-1]]
        self._npy_size = len(self._npy_header) + 4 * stops[-1]
        self._members = ["png", "npy", "json", *(f"{name}.png" for name in self.aux)]
        self._index: dict[int, tuple[list[str], list[list[tuple[int, int]]]]] = {}
        self._open: OrderedDict[int, mmap.mmap] = OrderedDict()
        if columns is not None and len(self):
            present = self._read(0)[3].keys()
            if absent := sorted(set(columns) - present):
                raise InputError(f"{path} has no column {absent}; it has {list(present)}")
            self._columns = set(columns)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict()}

    def __len__(self) -> int:
        return self._starts[-1]

    def _name(self, index: int) -> str:
        shard = bisect_right(self._starts, index) - 1
        return f"{self.shards[shard]}#{index - self._starts[shard]}"

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """(len,) int64: shards in random order, samples mixed within each window of shards."""
        generator = np.random.default_rng((seed, epoch))
        shards = generator.permutation(len(self.shards))
        windows = []
        for start in range(0, len(shards), WINDOW):
            ranges = [np.arange(self._starts[s], self._starts[s + 1]) for s in shards[start : start + WINDOW]]
            windows.append(generator.permutation(np.concatenate(ranges)))
        return np.concatenate(windows) if windows else np.zeros(0, np.int64)

    def stream(self, seed: int = 0, epoch: int = 0, *, rank: int = 0, world: int = 1) -> Iterator[Sample]:
        """Every ``world``-th sample of an epoch's order, from ``rank`` on; broken ones are counted and replaced."""
        for index in self.order(seed, epoch)[rank::world]:
            yield self.good(int(index))

    def _read(self, index: int) -> tuple[str, bytes, np.ndarray, dict[str, Any], dict[str, bytes]]:
        shard = bisect_right(self._starts, index) - 1
        data = self._mapped(shard)
        keys, spans = self._spans(shard, data)
        place = index - self._starts[shard]
        image, binary, text, *aux = [data[start:stop] for start, stop in spans[place]]
        name = f"{self.shards[shard]}/{keys[place]}"
        try:
            if len(binary) != self._npy_size or not binary.startswith(self._npy_header):
                raise ValueError(
                    f"its .npy has {len(binary)} bytes, expected {self._npy_size} of little-endian float32"
                )
            values = np.frombuffer(bytearray(binary), "<f4", offset=len(self._npy_header))
            row = json.loads(text)
            row |= {key: values[place] for key, place in self._arrays.items()}
            if self._columns is not None:
                row = {key: row[key] for key in self._columns}
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"the row of {name} cannot be read: {type(error).__name__} {error}") from error
        numbers = values[:NUMBER_COUNT]
        if not np.isfinite(numbers).all():
            raise InputError(f"the row of {name} has missing or non-finite numbers")
        return name, image, numbers, row, dict(zip(self.aux, aux))

    def _mapped(self, shard: int) -> mmap.mmap:
        data = self._open.get(shard)
        if data is None:
            path = self.path / self.shards[shard]
            try:
                with open(path, "rb") as file:
                    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise InputError(f"shard {path} cannot be read: {error}") from error
            self._open[shard] = data
            while len(self._open) > WINDOW + 2:
                self._open.popitem(last=False)  # closes when the last thread that reads from it is done
        return data

    def _spans(self, shard: int, data: mmap.mmap) -> tuple[list[str], list[list[tuple[int, int]]]]:
        """Keys of the samples, and where each one's members begin and end."""
        if shard not in self._index:
            path = self.path / self.shards[shard]
            samples: dict[str, dict[str, tuple[int, int]]] = {}
            for name, offset, size in tar_members(path, data):
                folder, _, base = name.rpartition("/")
                key, _, suffix = base.partition(".")
                samples.setdefault(f"{folder}/{key}" if folder else key, {})[suffix] = (offset, offset + size)
            expected = self._starts[shard + 1] - self._starts[shard]
            if len(samples) != expected:
                raise InputError(f"shard {path} has {len(samples)} samples, dataset.json says {expected}: pack again")
            for key, members in samples.items():
                if absent := [name for name in self._members if name not in members]:
                    raise InputError(f"shard {path}: sample {key} lacks {absent}: pack again")
            self._index[shard] = (
                list(samples),
                [[members[name] for name in self._members] for members in samples.values()],
            )
        return self._index[shard]


def npy_bytes(numbers: np.ndarray) -> bytes:
    """An ``.npy`` file of float32 numbers."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(numbers, np.float32), allow_pickle=False)
    return buffer.getvalue()


def tar_members(path: Path, data: mmap.mmap | bytes) -> list[tuple[str, int, int]]:
    """Name, offset and size of every file in an uncompressed tar, read from its headers alone.

    Raises:
        InputError: damaged or cut short; links, devices, absolute paths or '..'
    """
    members: list[tuple[str, int, int]] = []
    position, total = 0, len(data)
    while position + 512 <= total:
        header = data[position : position + 512]
        if header == bytes(512):
            break
        try:
            checksum = int(header[148:156].strip(b"\0 "), 8)
            size = (
                int.from_bytes(header[125:136], "big") if header[124] & 0x80 else int(header[124:136].strip(b"\0 "), 8)
            )
        except ValueError:
            checksum = -1
        if sum(header) - sum(header[148:156]) + 256 != checksum:
            raise InputError(f"{path} is not a tar, or is damaged at byte {position}: pack again")
        kind = header[156:157]
        if kind in b"xgLK":  # names and times in extended headers: the standard library knows them all
            return _library_members(path)
        name = header[:100].split(b"\0", 1)[0]
        if header[257:262] == b"ustar" and (prefix := header[345:500].split(b"\0", 1)[0]):
            name = prefix + b"/" + name
        position += 512
        if kind in (b"0", b"\0"):
            if position + size > total:
                raise InputError(f"{path} is cut short: {name.decode(errors='replace')} ends after the file does")
            inside = check_member_name(name.decode(errors="replace").removeprefix("./"), str(path))
            members.append((inside, position, size))
        elif kind != b"5":
            raise InputError(f"{path} holds the link or device {name.decode(errors='replace')}, which is refused")
        position += -(-size // 512) * 512
    return members


def _library_members(path: Path) -> list[tuple[str, int, int]]:
    members = []
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.isfile():
                    inside = check_member_name(member.name.removeprefix("./"), str(path))
                    members.append((inside, member.offset_data, member.size))
                elif not member.isdir():
                    raise InputError(f"{path} holds the link or device {member.name}, which is refused")
    except (tarfile.TarError, OSError) as error:
        raise InputError(f"{path} is not a tar, or is damaged: {error}; pack again") from error
    return members
