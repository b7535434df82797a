"""Writing files so that an interrupted run never leaves half of one."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from next3d.errors import InputError


def check_writable(path: str | Path) -> Path:
    """Return ``path`` if a file can be made there, creating its parent folder; raise :class:`InputError` if not.

    Commands call this before they start to compute, so that a long run never ends at a full stop.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; give a file name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
            pass
    except OSError as error:
        raise InputError(f"cannot write {path}: {_reason(error, path.parent)}; choose another output path") from error
    return path


def check_folder(path: str | Path) -> Path:
    """Return ``path`` as an existing, writable folder; raise :class:`InputError` if it cannot be one."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path, prefix=".probe."):
            pass
    except OSError as error:
        raise InputError(f"cannot write into {path}: {_reason(error, path)}; choose another folder") from error
    return path


def _reason(error: OSError, folder: Path) -> str:
    """What the system says, or, where a file stands in a folder's place, which."""
    blocking = next((part for part in (folder, *folder.parents) if part.exists()), folder)
    return f"{blocking} is a file, not a folder" if blocking.is_file() else error.strerror or str(error)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it when the block ends, and vanishes if the block fails.

    The temporary name keeps the suffix, since many writers choose the format by it.
    """
    path = check_writable(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files; outputs follow the user's umask
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``path`` when the block ends; an existing ``path`` is replaced."""
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"cannot write the folder {path}: a file of that name exists")
    check_folder(path.parent)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        temporary.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, in UTF-8."""
    write_bytes(path, text.encode())


def sha256(path: str | Path) -> str:
    """The hexadecimal SHA-256 digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
