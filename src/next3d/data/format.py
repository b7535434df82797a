"""The dataset format: which files, which columns, which encodings. All that reads or writes data follows this page.

A dataset is a folder::

    dataset.json        format, version, layout, resolution, head, count, aux, maker (how it was made)
    metadata.parquet    one row per picture
    images/…png         square RGB pictures of one size
    aux/depth/…png, aux/normals/…png, aux/parts/…png      only where the maker wrote them

Columns of ``metadata.parquet``: ``file_name``, the six of :data:`NUMBERS`, ``identity`` and ``split``, and whatever
else the maker knows (``latent``, ``confidence``, …). With auxiliary pictures also ``depth_file_name``,
``normals_file_name`` and ``parts_file_name``, which Hugging Face ``datasets`` opens as pictures too.

The same rows packed for streaming (layout "shards") are WebDataset tars, ``{split}-{shard}.tar``, whose samples are
``{key}.png``, ``{key}.npy`` (float32: the 187 numbers of :data:`NUMBERS`, then the columns that ``dataset.json`` lists
in ``arrays``), ``{key}.json`` (the other columns) and, with auxiliary pictures, ``{key}.depth.png`` and so on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from next3d.errors import InputError
from next3d.io.files import write_text

FORMAT = "next3d-dataset"
VERSION = 1
MIN_RESOLUTION = 16  # pixels; below this nothing can be told from a face, and the file is surely not one
MAX_RESOLUTION = 4096

# Numeric columns that every dataset has, in the order in which `Sample.numbers` holds them: name → length.
NUMBERS: dict[str, int] = {"camera": 25, "shape": 100, "expression": 50, "neck": 3, "jaw": 3, "eyes": 6}
NUMBER_COUNT = sum(NUMBERS.values())  # 187
SLICES: dict[str, slice] = {}
for _name, _length in NUMBERS.items():
    _start = max((s.stop for s in SLICES.values()), default=0)
    SLICES[_name] = slice(_start, _start + _length)

SPLITS: dict[str, float] = {"train": 0.9, "validation": 0.05, "test": 0.05}

AUX = ("depth", "normals", "parts")
# The values of the part mask, an 8-bit single-channel PNG. "things": glasses, hats, earrings and clothes.
PARTS = ("background", "skin", "eyes", "lips", "mouth", "hair", "things")
DEPTH_STEP = 1 / 16384  # world units per step of the 16-bit depth picture: 6e-5, up to 4 world units


@dataclass(frozen=True)
class Info:
    """What ``dataset.json`` says.

    Attributes:
        resolution: pixels along each side of every picture
        head: the head model that the parameters belong to, ``HeadModel.name``
        count: number of rows
        aux: which of :data:`AUX` every row has
        layout: "folder" or "shards"
        maker: how the dataset was made (command, seed, options), free-form JSON
        shards: for layout "shards", file name → number of samples
        arrays: for layout "shards", further columns of float32 lists in each sample's ``.npy``, name → length
    """

    resolution: int
    head: str
    count: int
    aux: tuple[str, ...] = ()
    layout: str = "folder"
    maker: Mapping[str, Any] = field(default_factory=dict)
    shards: Mapping[str, int] = field(default_factory=dict)
    arrays: Mapping[str, int] = field(default_factory=dict)

    def save(self, folder: str | Path) -> None:
        """Write ``dataset.json`` atomically."""
        values = {"format": FORMAT, "version": VERSION} | asdict(self)
        if self.layout != "shards":
            del values["shards"], values["arrays"]
        write_text(Path(folder) / "dataset.json", json.dumps(values, indent=2) + "\n")


def read_info(folder: str | Path) -> Info:
    """Read and check ``dataset.json``; raise :class:`InputError` for anything that is not a dataset of this version."""
    folder = Path(folder)
    path = folder / "dataset.json"
    if not folder.is_dir():
        raise InputError(f"there is no dataset folder at {folder}: give the folder that holds dataset.json")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        unfinished = (folder / ".building").is_dir()
        raise InputError(
            f"{folder} is an unfinished dataset: run the command that was building it once more, it resumes"
            if unfinished
            else f"{folder} has no dataset.json: no dataset of this package (next3d dataset import reads others)"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        hint = "it looks like an EG3D label file: " if isinstance(values, dict) and "labels" in values else ""
        raise InputError(f"{path} is not of format '{FORMAT}': {hint}convert it with  next3d dataset import")
    if values.get("version") != VERSION:
        raise InputError(
            f"{path} has format version {values.get('version')!r}, this package reads version {VERSION}: "
            "install the next3d release that wrote it, or make the dataset again"
        )
    try:
        info = Info(
            resolution=_integer(values, "resolution"),
            head=str(values["head"]),
            count=_integer(values, "count"),
            aux=tuple(str(name) for name in values.get("aux", ())),
            layout=str(values.get("layout", "folder")),
            maker=dict(values.get("maker") or {}),
            shards={str(name): int(count) for name, count in (values.get("shards") or {}).items()},
            arrays={str(name): int(length) for name, length in (values.get("arrays") or {}).items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is damaged: {type(error).__name__} {error}; make the dataset again") from error
    if info.layout not in ("folder", "shards"):
        raise InputError(f"{path}: layout '{info.layout}' is unknown; expected 'folder' or 'shards'")
    if unknown := sorted(set(info.aux) - set(AUX)):
        raise InputError(f"{path}: auxiliary pictures {unknown} are unknown; expected some of {list(AUX)}")
    check_resolution(info.resolution, str(path))
    for name in info.shards:
        check_member_name(name, str(path))
    if any(number < 1 for number in (*info.shards.values(), *info.arrays.values())):
        raise InputError(f"{path} is damaged: shards and arrays have lengths from 1; make the dataset again")
    return info


def _integer(values: Mapping[str, Any], key: str) -> int:
    value = values[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{key} is {value!r}, expected a whole number")
    return value


def check_resolution(resolution: int, where: str) -> int:
    """Return ``resolution`` if pictures may have it; raise :class:`InputError` naming ``where`` if not."""
    if not MIN_RESOLUTION <= resolution <= MAX_RESOLUTION:
        raise InputError(f"{where}: resolution {resolution} is outside {MIN_RESOLUTION} to {MAX_RESOLUTION} pixels")
    return resolution


def check_member_name(name: str, where: str) -> str:
    """Return a '/'-separated path of an archive or folder if it stays inside; raise :class:`InputError` if not."""
    parts = name.replace("\\", "/").split("/")
    if not name or parts[0] == "" or ":" in parts[0] or ".." in parts or "\0" in name:
        raise InputError(
            f"{where} names the file '{name}': absolute paths and '..' are refused; nothing was read or written"
        )
    return name


def split_of(identity: str | int) -> str:
    """The split of an identity, a pure function of it: 90 % train, 5 % validation, 5 % test.

    All pictures of one person get the same split in every dataset, whatever its size and order.
    """
    digest = hashlib.blake2b(str(identity).encode(), digest_size=8).digest()
    place, bound = int.from_bytes(digest, "big") / 2**64, 0.0
    for name, share in SPLITS.items():
        bound += share
        if place < bound:
            return name
    return name


# ---- auxiliary pictures -------------------------------------------------------------------------------------------
#
# depth: (H, W) float, z in camera coordinates in world units (not the length of the ray), 0 where there is no surface;
#        stored as a 16-bit PNG of depth / DEPTH_STEP.
# normals: (H, W, 3) float, unit vectors in world axes, (0, 0, 0) where there is no surface; stored as an 8-bit RGB PNG
#        of round(127.5 + 127.5·n), and (0, 0, 0) where there is no surface.
# parts: (H, W) uint8, indices into PARTS; stored as an 8-bit grey PNG.


def encode_aux(name: str, values: np.ndarray) -> np.ndarray:
    """The pixels to store for an auxiliary picture; see the comment above."""
    if name == "depth":
        return np.clip(np.round(np.nan_to_num(values, posinf=0.0) / DEPTH_STEP), 0, 65535).astype(np.uint16)
    if name == "normals":
        surface = (np.abs(values).sum(-1, keepdims=True) > 0.1).astype(np.uint8)
        return np.clip(np.round(127.5 + 127.5 * values), 0, 255).astype(np.uint8) * surface
    return values.astype(np.uint8)


def decode_aux(name: str, pixels: np.ndarray) -> np.ndarray:
    """The inverse of :func:`encode_aux`, channels first.

    Depth is (1, H, W) float32, normals (3, H, W) float32, parts (1, H, W) uint8.
    """
    if name == "depth":
        return (pixels.astype(np.float32) * np.float32(DEPTH_STEP))[None]
    if name == "normals":
        surface = pixels.any(-1, keepdims=True)
        return np.ascontiguousarray(((pixels.astype(np.float32) - 127.5) / 127.5 * surface).transpose(2, 0, 1))
    return pixels.astype(np.uint8)[None]
