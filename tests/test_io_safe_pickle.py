"""The restricted reader rebuilds the data of FLAME files and checkpoints, and nothing else ever runs."""

from __future__ import annotations

import builtins
import collections
import contextlib
import copyreg
import io
import os
import pickle
import pickletools
import struct

import numpy as np
import pytest
import scipy.sparse
import torch

from next3d.errors import InputError
from next3d.io.safe_pickle import NUMPY, TORCH, Record, Vocabulary, as_array, read_array, read_pickle, read_torch

RECORDS = Vocabulary({}, r"(chumpy|scipy\.sparse|stand_in)(\.\w+)*")
EVERYTHING = TORCH | RECORDS


@pytest.fixture
def read(tmp_path):
    """Read a pickle given as bytes."""

    def read_bytes(data: bytes, vocabulary: Vocabulary = EVERYTHING):
        (tmp_path / "file.pkl").write_bytes(data)
        return read_pickle(tmp_path / "file.pkl", vocabulary)

    return read_bytes


# What must come through


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_of_every_protocol(read, protocol):
    value = {
        "integers": [0, -1, 255, 70_000, 2**40, -(2**70)],
        "floats": (1.5, -0.25, float("inf")),
        "text": ["", "é", "日本", "x" * 300],
        "bytes": [b"", b"\x00\xff", b"y" * 300],
        "nothing": None,
        "truth": [True, False],
        ("a", 1): {1, 2},
        "frozen": frozenset((1, "b")),
        "nested": [[[[()]]]],
    }
    value["shared"] = value["floats"]
    if protocol < 4:  # sets are calls there, which no file of ours needs, and so are empty bytes
        value[("a", 1)] = value["frozen"] = 0
        value["bytes"] = [b"\x00\xff"]
    assert read(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "u4", "u1", "?", ">f4", "S3", "U2"])
def test_arrays(read, protocol, dtype):
    array = (np.arange(12) % 5).astype(dtype).reshape(3, 4)
    back = read(pickle.dumps([array, np.asfortranarray(array), np.float32(0.5), np.int64(7)], protocol), NUMPY)
    assert np.array_equal(back[0], array)
    assert back[0].dtype == array.dtype.newbyteorder("=")
    assert np.array_equal(back[1], array)
    assert back[2:] == [0.5, 7]


def test_python_2_pickles(read):
    # {'v': array([1., 2.]), 's': 'caf\xe9'} as Python 2 wrote it with protocol 2: byte strings are text opcodes
    raw = struct.pack("<2d", 1, 2)
    data = (
        b"\x80\x02}(U\x01vcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85"
        b"cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U"
        + bytes([len(raw)])
        + raw
        + b"tbU\x01sU\x04caf\xe9u."
    )
    back = read(data, NUMPY)
    assert back["v"].tolist() == [1, 2]
    assert back["s"] == "café"
    assert read(
        b"(dp0\nS'k'\np1\nS'caf\\xe9'\np2\nsI01\nL12L\nF0.5\nlp3\n.".replace(b"I01\nL12L\nF0.5\nlp3\n", b"")
    ) == {"k": "café"}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["csc_matrix", "csr_matrix", "coo_matrix", "csc_array"])
def test_sparse_matrices_become_arrays(read, protocol, kind):
    dense = np.arange(12.0).reshape(3, 4) * (np.arange(12).reshape(3, 4) % 3 == 0)
    back = read(pickle.dumps({"J_regressor": getattr(scipy.sparse, kind)(dense)}, protocol))
    assert isinstance(back["J_regressor"], Record)
    assert np.array_equal(as_array(back["J_regressor"], "J_regressor"), dense)


@pytest.mark.parametrize("new_format", [True, False])
def test_torch_files(tmp_path, new_format):
    shared = torch.arange(24.0)
    state = {
        "E_flame": collections.OrderedDict(weight=shared.view(4, 6).T, part=shared[3:7], half=torch.ones(3).half()),
        "count": torch.tensor(5),
        "empty": torch.zeros(0, 3),
        "flags": torch.tensor([True, False]),
        "bfloat": torch.randn(4).bfloat16(),
        "layer": torch.nn.Parameter(torch.randn(2, 2)),
        "epoch": 7,
    }
    torch.save(state, tmp_path / "a.tar", _use_new_zipfile_serialization=new_format)
    back = read_torch(tmp_path / "a.tar")
    assert torch.equal(back["E_flame"]["weight"], shared.view(4, 6).T)
    assert torch.equal(back["E_flame"]["part"], shared[3:7])
    for key in ("count", "empty", "flags", "bfloat", "layer"):
        assert torch.equal(back[key], state[key])
        assert back[key].dtype == state[key].dtype
    assert back["epoch"] == 7


@pytest.mark.parametrize("protocol", [2, 4])
def test_tensors_inside_plain_pickles(read, protocol):
    state = {"weight": torch.randn(3, 4), "layer": torch.nn.Parameter(torch.randn(2)), "half": torch.ones(2).half()}
    back = read(pickle.dumps(state, protocol), TORCH)
    for key, value in state.items():
        assert torch.equal(back[key], value)


def test_object_npy(tmp_path):
    landmarks = {"full_lmk_faces_idx": np.arange(68)[None], "dynamic": [np.arange(3)] * 2}
    np.save(tmp_path / "landmark_embedding.npy", landmarks, allow_pickle=True)
    assert np.array_equal(read_array(tmp_path / "landmark_embedding.npy")["full_lmk_faces_idx"][0], np.arange(68))
    np.save(tmp_path / "plain.npy", np.arange(6.0).reshape(2, 3))
    assert np.array_equal(read_array(tmp_path / "plain.npy"), np.arange(6.0).reshape(2, 3))
    np.save(tmp_path / "evil.npy", np.array({"a": Call(os.system, "true")}), allow_pickle=True)
    with pytest.raises(InputError, match=r"posix\.system|nt\.system"):
        read_array(tmp_path / "evil.npy")
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + b"{" * 200)
    with pytest.raises(InputError, match=r"bad\.npy"):
        read_array(tmp_path / "bad.npy")


# What must not


class Call:
    """Pickles as a call of ``function``."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class WithState:
    """Pickles as an ordered dictionary whose state is ``state``."""

    def __init__(self, state):
        self.state = state

    def __reduce__(self):
        return collections.OrderedDict, (), self.state


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A function that must not run: it leaves a file."""
    path = tmp_path / "it_ran"
    yield f"touch {path}", path
    assert not path.exists()


def hostile(command: str) -> dict[str, bytes]:
    """Pickles that call something, one for every way to do so."""
    system = Call(os.system, command)
    evaluate = Call(builtins.eval, f"__import__('os').system({command!r})")
    quoted = repr(command).encode()
    storage = io.BytesIO()
    torch.save({"x": system}, storage, _use_new_zipfile_serialization=False)
    zipped = io.BytesIO()
    torch.save({"x": system}, zipped)
    cases = {
        "os.system": pickle.dumps(system),
        "builtins.eval": pickle.dumps({"G_ema": evaluate}),
        "in a list in a dictionary": pickle.dumps({"a": [1, (2, [system])]}),
        "in reduce arguments": pickle.dumps(Call(collections.OrderedDict, system)),
        "in the arguments of an allowed tensor": pickle.dumps(Call(torch._utils._rebuild_parameter, system, True, {})),
        "in a state": pickle.dumps(WithState({"a": evaluate})),
        "nested in a storage": pickle.dumps(Call(torch.storage._load_from_bytes, storage.getvalue())),
        "nested in a zipped storage": pickle.dumps(Call(torch.storage._load_from_bytes, zipped.getvalue())),
        "GLOBAL and REDUCE": b"cos\nsystem\n(S" + quoted + b"\ntR.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93S" + quoted + b"\n\x85R.",
        "INST": b"(S" + quoted + b"\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS" + quoted + b"\no.",
        "NEWOBJ": b"\x80\x02cos\nsystem\nS" + quoted + b"\n\x85\x81.",
        "NEWOBJ_EX": b"\x80\x04cos\nsystem\nS" + quoted + b"\n\x85}\x92.",
        "EXT1": b"\x80\x02\x82\x01)R.",
        "EXT2": b"\x80\x02\x83\x01\x00)R.",
        "EXT4": b"\x80\x02\x84\x01\x00\x00\x00)R.",
        "a persistent id": b"Pevil\n.",
        "a binary persistent id": b"\x80\x02S'evil'\nQ.",
        "an out-of-band buffer": b"\x80\x05\x97.",
        "a dotted name": b"\x80\x04\x8c\x05torch\x8c\x14_utils.os.system.xyz\x93.",
        "a name through getattr": pickle.dumps(Call(getattr, "a", "upper")),
        "a known class called": b"\x80\x02cnumpy\nndarray\n)R.",
        "a call of data": b"\x80\x02}S" + quoted + b"\n\x85R.",
        "a state for a list": b"\x80\x02]}b.",
        "__setstate__ of a dictionary": b"\x80\x02ccollections\nOrderedDict\n)R}S'__setstate__'\ncos\nsystem\nsb.",
    }
    return cases


@pytest.mark.parametrize("case", sorted(hostile("true")))
def test_hostile_pickles_are_refused_and_do_not_run(read, canary, case):
    command, path = canary
    copyreg.add_extension("os", "system", 1)
    try:
        with pytest.raises(InputError) as refused:
            read(hostile(command)[case])
    finally:
        copyreg.remove_extension("os", "system", 1)
    assert "\n" not in str(refused.value)
    assert not path.exists()


def test_the_refusal_names_what_was_asked_for(read):
    with pytest.raises(InputError, match=r"'(posix|nt)\.system'"):
        read(pickle.dumps(Call(os.system, "true")))
    with pytest.raises(InputError, match=r"'builtins\.eval'"):
        read(pickle.dumps(Call(eval, "1")))
    with pytest.raises(InputError, match="persistent id"):
        read(b"Pevil\n.")
    with pytest.raises(InputError, match="EXT1"):
        read(b"\x82\x01.")


@pytest.mark.parametrize("new_format", [True, False])
def test_hostile_torch_files(tmp_path, canary, new_format):
    command, path = canary
    torch.save(
        {"a": torch.ones(2), "b": Call(os.system, command)},
        tmp_path / "a.tar",
        _use_new_zipfile_serialization=new_format,
    )
    with pytest.raises(InputError, match="system"):
        read_torch(tmp_path / "a.tar")
    assert not path.exists()


TEN_GB = 10 * 1024**3


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04\x8e" + struct.pack("<Q", TEN_GB) + b"x.",  # BINBYTES8
        b"\x80\x04\x8d" + struct.pack("<Q", TEN_GB) + b"x.",  # BINUNICODE8
        b"\x80\x05\x96" + struct.pack("<Q", TEN_GB) + b"x.",  # BYTEARRAY8
        b"\x80\x04\x95" + struct.pack("<Q", TEN_GB) + b"N.",  # FRAME
        b"\x80\x03B" + struct.pack("<I", 2**32 - 1) + b"x.",  # BINBYTES
        b"\x80\x02X" + struct.pack("<I", 2**31 - 1) + b"x.",  # BINUNICODE
        b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",  # LONG4
        b"\x80\x02T" + struct.pack("<i", 2**31 - 1) + b"x.",  # BINSTRING
    ],
)
def test_length_fields_beyond_the_file_are_refused(read, data):
    with pytest.raises(InputError, match="truncated"):
        read(data)


def test_ten_gigabytes_in_a_storage_are_refused(read, tmp_path):
    file = io.BytesIO()
    torch.save(torch.zeros(1000).untyped_storage(), file, _use_new_zipfile_serialization=False)
    claimed = file.getvalue().replace(struct.pack("<cH", b"M", 4000), b"\x8a\x05" + struct.pack("<Q", TEN_GB)[:5])
    assert claimed != file.getvalue()
    with pytest.raises(InputError, match="truncated"):
        read(pickle.dumps(Call(torch.storage._load_from_bytes, claimed)))


def test_arrays_larger_than_their_bytes_are_refused(read):
    whole = pickle.dumps(np.zeros(7, np.float32), 2)
    inflated = whole.replace(b"K\x07\x85", b"\x8a\x05" + struct.pack("<Q", TEN_GB)[:5] + b"\x85")
    assert inflated != whole
    with pytest.raises(InputError, match="bytes"):
        read(inflated)
    stretched = Call(
        torch._utils._rebuild_tensor_v2, torch.zeros(1)._typed_storage(), 0, (10**6, 10**6), (0, 0), False, {}
    )
    with pytest.raises(InputError, match="larger than its storage"):
        read(pickle.dumps(stretched))
    outside = Call(torch._utils._rebuild_tensor_v2, torch.zeros(4)._typed_storage(), 2, (4,), (1,), False, {})
    with pytest.raises(InputError, match="larger than its storage"):
        read(pickle.dumps(outside))


def test_one_buffer_named_many_times_is_refused(read):
    storage = io.BytesIO()
    torch.save(torch.zeros(2**20)._typed_storage(), storage, _use_new_zipfile_serialization=False)
    loads = Call(torch.storage._load_from_bytes, storage.getvalue())
    one = pickle.dumps(loads, 3)
    start = b"\x80\x03](" + one[2:-1]  # memo 0: the function, memo 1: the bytes
    names = [(opcode.name, argument) for opcode, argument, _ in pickletools.genops(one)]
    puts = [argument for name, argument in names if name == "BINPUT"]
    again = b"h" + bytes([puts[0]]) + b"h" + bytes([puts[1]]) + b"\x85R"
    with pytest.raises(InputError, match="more memory"):
        read(start + again * 200 + b"e.")


def test_truncated_at_every_byte(read):
    whole = pickle.dumps({"a": np.arange(3.0), "b": [1, "x", b"y"], "c": torch.ones(2)}, 4)
    for length in range(0, len(whole) - 1, 7):
        with pytest.raises(InputError):
            read(whole[:length])


@pytest.mark.parametrize("new_format", [True, False])
def test_truncated_and_noisy_torch_files(tmp_path, new_format):
    torch.save({"a": torch.ones(50), "b": 1}, tmp_path / "whole.tar", _use_new_zipfile_serialization=new_format)
    whole = (tmp_path / "whole.tar").read_bytes()
    for length in range(0, len(whole) - 60, 97):
        (tmp_path / "part.tar").write_bytes(whole[:length])
        with pytest.raises(InputError):
            read_torch(tmp_path / "part.tar")
    with pytest.raises(InputError, match="there is no file"):
        read_torch(tmp_path / "missing.tar")


def test_random_damage_never_escapes(read):
    """Flip bytes at random: the reader returns something or raises InputError, never anything else."""
    random = np.random.default_rng(0)
    whole = np.frombuffer(pickle.dumps({"a": np.arange(3.0), "b": [1, "x", {2}], "c": torch.ones(2)}, 2), np.uint8)
    for _ in range(400):
        damaged = whole.copy()
        damaged[random.integers(0, len(whole), 3)] = random.integers(0, 256, 3)
        with contextlib.suppress(InputError):
            read(damaged.tobytes())


def test_deep_nesting_does_not_exhaust_the_stack(read):
    depth = 60_000
    value = read(b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b".")
    assert isinstance(value, list)
    with pytest.raises(InputError, match="key"):  # hashing this tuple would recurse in C
        read(b"\x80\x02})" + b"\x85" * depth + b"Ns.")


def test_damaged_sparse_matrices_are_refused():
    good = {"_shape": (3, 4), "data": np.ones(1), "indices": np.array([2]), "indptr": np.array([0, 0, 1, 1, 1])}
    assert as_array(Record("scipy.sparse.csc.csc_matrix", state=good), "J").sum() == 1
    for change in (
        {"_shape": (10**7, 10**7)},
        {"indices": np.array([9])},
        {"indices": np.array([-1])},
        {"indptr": np.array([0, 1])},
        {"indptr": np.array([0, 5, 1, 1, 1])},
        {"data": "text"},
    ):
        with pytest.raises(InputError, match="J"):
            as_array(Record("scipy.sparse.csc.csc_matrix", state=good | change), "J")
