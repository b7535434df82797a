"""A restricted reader of pickles: rebuilds data, runs nothing.

FLAME's files, released checkpoints and DECA's weights are pickles, and the stock unpickler executes whatever a pickle
says. This one is an interpreter of its own for the pickle opcodes: every global that a file names is looked up in a
:class:`Vocabulary`; those listed become numbers, arrays, tensors or inert :class:`Record` objects, and any other ends
the reading with an error that names it. No module is imported and no object of the file's choosing is called. Lengths
are checked against the bytes that are really there, so that a file cannot claim more memory than its own size.
"""

from __future__ import annotations

import codecs
import io
import math
import pickletools
import re
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from next3d.errors import InputError

OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
MAX_DENSE = 100_000_000  # entries of a sparse matrix written out; FLAME's largest has 25,115
MARK = object()
Builder = Callable[..., Any]


@dataclass(eq=False)
class Record:
    """An object of a class that is not rebuilt, as inert data.

    Attributes:
        name: "module.Class"
        args, kwargs: what its constructor would have been called with
        state: what would have become its attributes, a dictionary as a rule
        entries: the items of an object that is a dictionary too
    """

    name: str
    args: tuple = ()
    kwargs: dict = field(default_factory=dict)
    state: Any = None
    entries: dict = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Global:
    """A name in a pickle. ``build`` makes the data that calling it stands for; None: it is a mere reference."""

    name: str
    build: Builder | None


class DType:
    """A NumPy dtype under construction (its byte order arrives after it)."""

    def __init__(self, code: Any, align: Any = False, copy: Any = True) -> None:
        if not (isinstance(code, str) and re.fullmatch(r"[<>|=]?[biufcSUO?]\d{0,4}", code)):
            raise InputError(f"a NumPy array of type {code!r:.40}; only numbers and text are read")
        self.dtype = np.dtype(code)
        if not self.dtype.itemsize:
            raise InputError("a NumPy array of nothing")

    def set_state(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) >= 4 and state[2] is None and state[3] is None):
            raise InputError("a NumPy array of a compound type; only numbers and text are read")
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


@dataclass(eq=False)
class Storage:
    """The flat memory of tensors, one-dimensional."""

    values: Tensor


class Vocabulary:
    """The globals that a kind of file may name.

    Args:
        builders: {"module.name": function that makes inert data of the arguments}
        records: a regular expression of further "module.name"s; they become :class:`Record` objects
    """

    def __init__(self, builders: Mapping[str, Builder | None], records: str = r"(?!)") -> None:
        self.builders, self.records = dict(builders), re.compile(records)

    def __or__(self, other: Vocabulary) -> Vocabulary:
        return Vocabulary(self.builders | other.builders, f"(?:{self.records.pattern})|(?:{other.records.pattern})")

    def find(self, module: Any, name: Any) -> Global:
        full = f"{module}.{name}"
        if isinstance(module, str) and isinstance(name, str):
            if full in self.builders:
                return Global(full, self.builders[full])
            if self.records.fullmatch(full):
                return Global(full, lambda *args: Record(full, args))
        raise InputError(f"it names {full!r:.120}, which no such file needs: refused, and nothing of it was run")


def text_bytes(data: Any) -> bytes:
    """Bytes from a pickle: Python 2 wrote them as text."""
    if isinstance(data, str):
        return data.encode("latin-1")
    if isinstance(data, (bytes, bytearray)):
        return bytes(data)
    raise InputError("an array whose content is not bytes")


def encode(text: Any, encoding: Any = "latin1") -> bytes:
    """``_codecs.encode``: how Python 3 writes bytes in old pickles."""
    if encoding not in ("latin1", "latin-1"):
        raise InputError(f"a text in the encoding {encoding!r:.40}")
    return text_bytes(text)


def empty_array(*args: Any) -> np.ndarray:
    """``numpy._reconstruct``: an array whose content follows as its state."""
    return np.ndarray((0,), np.int8)


def fill_array(array: np.ndarray, state: Any) -> None:
    """Give an array of :func:`empty_array` its content, after checking that it is all there."""
    if not (isinstance(state, tuple) and len(state) == 5 and isinstance(state[2], DType)):
        raise InputError("a NumPy array that is not understood")
    _, shape, kind, fortran, data = state
    count = checked_count(shape)
    if kind.dtype.hasobject:
        if not (isinstance(data, list) and len(data) == count):
            raise InputError("a NumPy array of objects that are not all there")
    else:
        data = text_bytes(data)
        if len(data) != count * kind.dtype.itemsize:
            raise InputError(f"a NumPy array of shape {shape} with {len(data)} bytes")
    array.__setstate__((1, tuple(shape), kind.dtype, bool(fortran), data))


def array_from_buffer(data: Any, kind: Any, shape: Any, order: Any = "C") -> np.ndarray:
    """``numpy._frombuffer``."""
    array = empty_array()
    fill_array(array, (1, shape, kind, order == "F", data))
    return array


def scalar(kind: Any, data: Any) -> Any:
    """``numpy.scalar``: a number as a Python number."""
    if not isinstance(kind, DType) or kind.dtype.hasobject:
        raise InputError("a NumPy number that is not understood")
    return np.frombuffer(text_bytes(data), kind.dtype, 1)[0].item()


def checked_count(shape: Any) -> int:
    """The number of entries of a shape of non-negative integers."""
    if not (isinstance(shape, (tuple, list)) and len(shape) <= 8):
        raise InputError("an array without a shape")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise InputError(f"an array of shape {shape!r:.80}")
    return math.prod(shape)


def tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
    """``torch._utils._rebuild_tensor_v2``: a view of a storage, after checking that it lies inside."""
    if not isinstance(storage, Storage) or type(offset) is not int or offset < 0:
        raise InputError("a tensor without a storage")
    count = checked_count(size)
    if not (isinstance(stride, (tuple, list)) and len(stride) == len(size)):
        raise InputError("a tensor without strides")
    checked_count(stride)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride))
    if count and (last >= len(storage.values) or count > len(storage.values)):
        raise InputError(f"a tensor of shape {tuple(size)} that is larger than its storage")
    return torch.as_strided(storage.values, tuple(size), tuple(stride), offset) if count else torch.empty(tuple(size))


def parameter(data: Any, *rest: Any) -> Tensor:
    """``torch._utils._rebuild_parameter``: its tensor."""
    if not isinstance(data, Tensor):
        raise InputError("a parameter without a tensor")
    return data


def dictionary(*args: Any) -> dict:
    """``collections.OrderedDict`` and its like."""
    result: dict = {}
    for pairs in args[:1]:
        for key, value in pairs.items() if isinstance(pairs, dict) else pairs:
            result[checked_key(key)] = value
    return result


def checked_key(key: Any, depth: int = 0) -> Any:
    """A key of a dictionary or set: plain values and shallow tuples (hashing deep ones could exhaust the stack)."""
    if isinstance(key, (str, bytes, int, float, complex, type(None))):
        return key
    if isinstance(key, tuple) and depth < 4:
        return tuple(checked_key(part, depth + 1) for part in key)
    raise InputError(f"a dictionary key of type {type(key).__name__}")


NUMPY = Vocabulary(
    {
        "numpy.ndarray": None,
        "numpy.dtype": DType,
        "_codecs.encode": encode,
        **{f"numpy.{core}.multiarray._reconstruct": empty_array for core in ("core", "_core")},
        **{f"numpy.{core}.multiarray.scalar": scalar for core in ("core", "_core")},
        **{f"numpy.{core}.numeric._frombuffer": array_from_buffer for core in ("core", "_core")},
    }
)

STORAGE_TYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}


def storage_from_bytes(data: Any) -> Storage:
    """``torch.storage._load_from_bytes``: its argument is a torch file of its own."""
    if not isinstance(data, (bytes, str)):
        raise InputError("a storage whose content is not bytes")
    storage = read_torch_stream(Stream(io.BytesIO(text_bytes(data))), TORCH_STORAGE)
    if not isinstance(storage, Storage):
        raise InputError("a storage that holds something else")
    return storage


TORCH_STORAGE = Vocabulary(
    {f"{module}.{name}": None for module in ("torch", "torch.storage") for name in STORAGE_TYPES},
)
TORCH = (
    Vocabulary(
        {
            "torch._utils._rebuild_tensor_v2": tensor,
            "torch._utils._rebuild_parameter": parameter,
            "torch.storage._load_from_bytes": storage_from_bytes,
            "collections.OrderedDict": dictionary,
        }
    )
    | TORCH_STORAGE
    | NUMPY
)


class Stream:
    """A file that never hands out, nor allocates for, more bytes than it has left."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.position = file.tell()
        self.end = file.seek(0, io.SEEK_END)
        file.seek(self.position)

    @property
    def left(self) -> int:
        return self.end - self.position

    def read(self, count: int) -> bytes:
        if count > self.left:
            raise InputError(f"it is truncated or damaged: {count:,} bytes are announced where {self.left:,} are left")
        data = self.file.read(count)
        self.position += len(data)
        return data

    def readline(self) -> bytes:
        data = self.file.readline()
        self.position += len(data)
        return data


class Reader:
    """The interpreter of one pickle."""

    def __init__(self, stream: Stream, vocabulary: Vocabulary, persistent: Callable[[Any], Any] | None = None) -> None:
        self.stream, self.vocabulary, self.persistent = stream, vocabulary, persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.budget = 2 * stream.end + 2**26  # bytes that arrays may take: a memo could name the same bytes many times

    def run(self) -> Any:
        """Read up to STOP and return the object."""
        while True:
            code = self.stream.read(1)
            opcode = OPCODES.get(code)
            if opcode is None:
                raise InputError(f"it is no pickle, or damaged: no instruction {code!r}")
            if opcode.name == "STOP":
                return self.pop()
            if opcode.name == "STRING":
                argument: Any = self.quoted()
            else:
                argument = opcode.arg.reader(cast(BinaryIO, self.stream)) if opcode.arg is not None else None
            if opcode.name in CONSTANT:
                self.stack.append(argument)
            else:
                getattr(self, f"op_{opcode.name.lower()}", self.refuse(opcode.name))(argument)

    def refuse(self, name: str) -> Callable[[Any], None]:
        def refused(argument: Any) -> None:
            raise InputError(f"it uses the pickle instruction {name}, which no such file needs: refused")

        return refused

    def quoted(self) -> str:
        """The argument of STRING: Python 2's repr of a byte string."""
        line = self.stream.readline().strip()
        if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1]:
            raise InputError("it is damaged: a text without quotes")
        return codecs.escape_decode(line[1:-1])[0].decode("latin-1")  # type: ignore[attr-defined]

    # The stack
    def pop(self) -> Any:
        value = self.stack.pop()
        if value is MARK:
            raise InputError("it is damaged: a mark where a value is due")
        return value

    def pop_mark(self) -> list[Any]:
        """Everything above the last mark."""
        at = len(self.stack) - 1
        while self.stack[at] is not MARK:
            at -= 1
            if at < 0:
                raise InputError("it is damaged: no mark")
        values = self.stack[at + 1 :]
        del self.stack[at:]
        return values

    def op_proto(self, argument: int) -> None:
        if argument > 5:
            raise InputError(f"pickle protocol {argument} is unknown")

    def op_frame(self, argument: int) -> None:
        if argument > self.stream.left:
            raise InputError(f"it is truncated: {argument:,} bytes are announced, {self.stream.left:,} are left")

    def op_mark(self, _: None) -> None:
        self.stack.append(MARK)

    def op_pop(self, _: None) -> None:
        self.stack.pop()

    def op_pop_mark(self, _: None) -> None:
        self.pop_mark()

    def op_dup(self, _: None) -> None:
        value = self.pop()
        self.stack += [value, value]

    def op_put(self, index: int) -> None:
        value = self.pop()
        self.stack.append(value)
        self.memo[index] = value

    op_binput = op_long_binput = op_put

    def op_memoize(self, _: None) -> None:
        self.op_put(len(self.memo))

    def op_get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    op_binget = op_long_binget = op_get

    # Values and containers
    def op_none(self, _: None) -> None:
        self.stack.append(None)

    def op_newtrue(self, _: None) -> None:
        self.stack.append(True)

    def op_newfalse(self, _: None) -> None:
        self.stack.append(False)

    def op_empty_tuple(self, _: None) -> None:
        self.stack.append(())

    def op_tuple(self, _: None) -> None:
        self.stack.append(tuple(self.pop_mark()))

    def take(self, count: int) -> None:
        values = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(values)))

    def op_tuple1(self, _: None) -> None:
        self.take(1)

    def op_tuple2(self, _: None) -> None:
        self.take(2)

    def op_tuple3(self, _: None) -> None:
        self.take(3)

    def op_empty_list(self, _: None) -> None:
        self.stack.append([])

    def op_list(self, _: None) -> None:
        self.stack.append(self.pop_mark())

    def op_append(self, _: None) -> None:
        self.extend([self.pop()])

    def op_appends(self, _: None) -> None:
        self.extend(self.pop_mark())

    def extend(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise InputError("it is damaged: an item for what is no list")
        self.stack[-1].extend(values)

    def op_empty_dict(self, _: None) -> None:
        self.stack.append({})

    def op_dict(self, _: None) -> None:
        values = self.pop_mark()
        self.stack.append({})
        self.set_items(values)

    def op_setitem(self, _: None) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def op_setitems(self, _: None) -> None:
        self.set_items(self.pop_mark())

    def set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        target = target.entries if isinstance(target, Record) else target
        if not isinstance(target, dict) or len(values) % 2:
            raise InputError("it is damaged: an entry for what is no dictionary")
        for key, value in zip(values[::2], values[1::2]):
            target[checked_key(key)] = value

    def op_empty_set(self, _: None) -> None:
        self.stack.append(set())

    def op_additems(self, _: None) -> None:
        values = self.pop_mark()
        self.stack[-1].update(checked_key(value) for value in values)

    def op_frozenset(self, _: None) -> None:
        self.stack.append(frozenset(checked_key(value) for value in self.pop_mark()))

    # Names and objects
    def op_global(self, argument: str) -> None:
        self.stack.append(self.vocabulary.find(*argument.split(" ", 1)))

    def op_stack_global(self, _: None) -> None:
        name, module = self.pop(), self.pop()
        self.stack.append(self.vocabulary.find(module, name))

    def build(self, function: Any, args: Any, kwargs: Any = None) -> None:
        """What calling ``function`` would make, as data."""
        if not isinstance(function, Global) or function.build is None:
            what = function.name if isinstance(function, Global) else type(function).__name__
            raise InputError(f"it calls {what!r}, which is data here: refused, and nothing was run")
        if not isinstance(args, tuple) or not isinstance(kwargs or {}, dict):
            raise InputError("it is damaged: arguments that are no tuple")
        value = function.build(*args)
        if kwargs:
            if not isinstance(value, Record):
                raise InputError(f"it gives {function.name} named arguments: refused")
            value.kwargs = kwargs
        self.stack.append(value)
        self.spend(value)

    def spend(self, value: Any) -> None:
        """Count the memory that ``value`` takes."""
        if isinstance(value, Storage):
            self.budget -= value.values.nbytes
        elif isinstance(value, np.ndarray):
            self.budget -= value.nbytes
        elif isinstance(value, bytes):
            self.budget -= len(value)
        if self.budget < 0:
            raise InputError("it unfolds to far more memory than its own size: refused")

    def op_reduce(self, _: None) -> None:
        args, function = self.pop(), self.pop()
        self.build(function, args)

    op_newobj = op_reduce

    def op_newobj_ex(self, _: None) -> None:
        kwargs, args, function = self.pop(), self.pop(), self.pop()
        self.build(function, args, kwargs)

    def op_inst(self, argument: str) -> None:
        function = self.vocabulary.find(*argument.split(" ", 1))
        self.build(function, tuple(self.pop_mark()))

    def op_obj(self, _: None) -> None:
        function, *args = self.pop_mark()
        self.build(function, tuple(args))

    def op_build(self, _: None) -> None:
        state = self.pop()
        target = self.stack[-1]
        if isinstance(target, Record):
            target.state = state
        elif isinstance(target, DType):
            target.set_state(state)
        elif isinstance(target, np.ndarray):
            fill_array(target, state)
            self.spend(target)
        elif not isinstance(target, dict):  # attributes of an ordered dictionary, as state dicts have: not needed
            raise InputError(f"it gives a state to a {type(target).__name__}: refused")

    def op_persid(self, argument: Any) -> None:
        if self.persistent is None:
            raise InputError("it refers to an object outside itself (a persistent id): refused")
        self.stack.append(self.persistent(argument))

    def op_binpersid(self, _: None) -> None:
        self.op_persid(self.pop())


CONSTANT = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
}


FAULTS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, MemoryError)


def read_object(stream: Stream, vocabulary: Vocabulary, persistent: Callable[[Any], Any] | None = None) -> Any:
    """One pickle from a stream; every fault of it becomes an :class:`InputError`."""
    try:
        return Reader(stream, vocabulary, persistent).run()
    except InputError:
        raise
    except FAULTS as error:
        raise InputError("it is damaged, or no pickle at all") from error


def read_pickle(path: str | Path, vocabulary: Vocabulary) -> Any:
    """The object of a pickle file of Python 2 or 3, rebuilt as data only.

    Raises:
        InputError: no such file, truncated or damaged, or a name outside ``vocabulary`` (which the message gives).
    """

    def read(stream: Stream) -> Any:
        if stream.file.read(4) == ZIP:
            raise InputError("it is a zip archive, as torch.save writes them, and not a plain pickle")
        stream.file.seek(0)
        return read_object(stream, vocabulary)

    return read_with(path, read)


def read_torch(path: str | Path, vocabulary: Vocabulary = TORCH) -> Any:
    """The object of a torch file, in the zip or the older format: dictionaries and tensors on the CPU.

    Raises:
        InputError: as :func:`read_pickle`.
    """
    return read_with(path, lambda stream: read_torch_stream(stream, vocabulary))


def read_array(path: str | Path, vocabulary: Vocabulary = NUMPY) -> Any:
    """What an ``.npy`` file holds; one of objects (landmark files are pickled dictionaries) is read as a pickle is."""
    return read_with(path, lambda stream: read_array_stream(stream.file, vocabulary))


def read_array_stream(file: BinaryIO, vocabulary: Vocabulary = NUMPY) -> Any:
    """See :func:`read_array`."""
    try:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(file)
    except Exception as error:  # whatever NumPy's parser of the header stumbles over
        raise InputError(f"it is no .npy file, or damaged: {error}") from None
    stream = Stream(file)
    if dtype.hasobject:
        if dtype != np.dtype(object):
            raise InputError("a NumPy array of a compound type; only numbers, text and objects are read")
        value = read_object(stream, vocabulary)
        return value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    data = stream.read(checked_count(tuple(int(size) for size in shape)) * dtype.itemsize)
    return np.frombuffer(bytearray(data), dtype).reshape(shape, order="F" if fortran else "C")


def read_with(path: str | Path, read: Callable[[Stream], Any]) -> Any:
    """Open a file, read it, and name it in whatever is wrong with it."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        with open(path, "rb") as file:
            return read(Stream(file))
    except InputError as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except FAULTS as error:
        raise InputError(f"{path} cannot be read: it is damaged: {error}") from None


TORCH_MAGIC = 0x1950A86A20F9469CFC6C
ZIP = b"PK\x03\x04"


def read_torch_stream(stream: Stream, vocabulary: Vocabulary) -> Any:
    """See :func:`read_torch`."""
    start = stream.file.tell()
    if stream.file.read(4) == ZIP:
        stream.file.seek(start)
        return read_torch_zip(stream, vocabulary)
    stream.file.seek(start)
    if read_object(stream, TORCH_STORAGE) != TORCH_MAGIC:
        raise InputError("it is no torch file")
    read_object(stream, TORCH_STORAGE)  # protocol version
    system = read_object(stream, TORCH_STORAGE)
    little = system.get("little_endian", True) if isinstance(system, dict) else True
    storages: dict[str, Storage] = {}

    def persistent(identifier: Any) -> Storage:
        dtype, key, count, view = storage_identifier(identifier)
        if view is not None:
            raise InputError("a storage that is a view of another; resave the file with a recent torch")
        if key not in storages:
            if count * dtype.itemsize > stream.left:
                raise InputError(
                    f"it is truncated: a storage of {count:,} numbers where {stream.left:,} bytes are left"
                )
            storages[key] = Storage(torch.empty(count, dtype=dtype))
        return storages[key]

    result = read_object(stream, vocabulary, persistent)
    keys = read_object(stream, TORCH_STORAGE)
    if not isinstance(keys, list) or set(map(str, keys)) != set(storages):
        raise InputError("it is damaged: its storages are not those that it lists")
    for key in keys:
        values = storages[str(key)].values
        count = int.from_bytes(stream.read(8), "little" if little else "big")
        if count != len(values):
            raise InputError(f"it is damaged: a storage of {count:,} numbers where {len(values):,} are due")
        fill_storage(values, stream.read(count * values.element_size()), little)
    return result


def read_torch_zip(stream: Stream, vocabulary: Vocabulary) -> Any:
    """The zip format: ``name/data.pkl`` and one uncompressed entry ``name/data/key`` per storage."""
    try:
        archive = zipfile.ZipFile(stream.file)
        names = {name.split("/", 1)[-1]: name for name in archive.namelist()}
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > stream.end:
            raise InputError("it is damaged: its entries are larger than itself")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise InputError("it is compressed, which torch files are not")
        little = "byteorder" not in names or archive.read(names["byteorder"]).strip() == b"little"
        storages: dict[str, Storage] = {}

        def persistent(identifier: Any) -> Storage:
            dtype, key, count, _ = storage_identifier(identifier)
            if key not in storages:
                data = archive.read(names[f"data/{key}"])
                if len(data) < count * dtype.itemsize:
                    raise InputError(f"it is truncated: a storage of {count:,} numbers with {len(data):,} bytes")
                storages[key] = Storage(torch.empty(count, dtype=dtype))
                fill_storage(storages[key].values, data[: count * dtype.itemsize], little)
            return storages[key]

        return read_object(Stream(io.BytesIO(archive.read(names["data.pkl"]))), vocabulary, persistent)
    except InputError:
        raise
    except (zipfile.BadZipFile, EOFError, *FAULTS) as error:
        raise InputError(f"it is no torch file, or damaged: {error}") from None


def storage_identifier(identifier: Any) -> tuple[torch.dtype, str, int, Any]:
    """("storage", type, key, location, count, …) of a torch file, checked."""
    if not (isinstance(identifier, tuple) and 5 <= len(identifier) <= 6 and identifier[0] == "storage"):
        raise InputError("it refers to an object outside itself that is no storage: refused")
    _, kind, key, _, count, *view = identifier
    dtype = STORAGE_TYPES.get(kind.name.rsplit(".", 1)[-1]) if isinstance(kind, Global) else None
    if dtype is None or type(count) is not int or count < 0:
        raise InputError("a storage of an unknown type")
    return dtype, str(key), count, view[0] if view else None


def fill_storage(values: Tensor, data: bytes, little: bool) -> None:
    """Copy raw bytes into a storage, in this machine's byte order."""
    raw = np.frombuffer(data, np.uint8)
    width = values.element_size()
    if little != (sys.byteorder == "little"):
        raw = np.ascontiguousarray(raw.reshape(-1, width)[:, ::-1]).reshape(-1)
    if len(values):
        values.view(torch.uint8).numpy()[:] = raw


def as_array(value: Any, name: str) -> np.ndarray:
    """Numbers out of an object of a FLAME file: an array, a chumpy array or a scipy sparse matrix, as a dense array.

    Raises:
        InputError: it is none of these, or its parts do not fit together.
    """
    for _ in range(8):  # chumpy wraps arrays in arrays
        if isinstance(value, Record) and value.name.startswith("chumpy.") and isinstance(value.state, dict):
            value = value.state.get("x")
        elif isinstance(value, np.ndarray) and value.dtype == object and value.size == 1:
            value = value.item()
    if isinstance(value, Record) and ".sparse." in value.name and isinstance(value.state, dict):
        return dense(value, name)
    if isinstance(value, (int, float)):
        return np.asarray(value)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        raise InputError(f"'{name}' is not an array of numbers")
    return value.astype(value.dtype.newbyteorder("="))


def dense(record: Record, name: str) -> np.ndarray:
    """A scipy CSC, CSR or COO matrix, written out."""
    state = record.state
    kind = record.name.rsplit(".", 1)[-1][:3]
    shape = state.get("_shape", state.get("shape"))
    shape = tuple(int(size) for size in shape) if isinstance(shape, (tuple, list)) else ()
    if len(shape) != 2 or not 0 <= checked_count(shape) <= MAX_DENSE or kind not in ("csc", "csr", "coo"):
        raise InputError(f"'{name}' is a sparse matrix that is not understood ({record.name}, shape {shape})")
    result = np.zeros(shape)
    data = as_array(state.get("data"), name)
    if kind == "coo":
        coordinates = state.get("coords") or (state.get("row"), state.get("col"))
        rows, columns = (as_array(part, name).astype(np.int64) for part in coordinates)
    else:
        inner = as_array(state.get("indices"), name).astype(np.int64)
        starts = as_array(state.get("indptr"), name).astype(np.int64)
        outer_size = shape[1] if kind == "csc" else shape[0]
        if len(starts) != outer_size + 1 or starts[0] != 0 or starts[-1] != len(inner) or (np.diff(starts) < 0).any():
            raise InputError(f"'{name}' is a damaged sparse matrix")
        outer = np.repeat(np.arange(outer_size), np.diff(starts))
        rows, columns = (inner, outer) if kind == "csc" else (outer, inner)
    inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1]) if len(rows) else np.array([True])
    if not (len(rows) == len(columns) == len(data)) or not inside.all():
        raise InputError(f"'{name}' is a damaged sparse matrix")
    np.add.at(result, (rows, columns), data)
    return result
