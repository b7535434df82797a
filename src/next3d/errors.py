"""The one exception that bad input raises, and the check for optional packages."""

from __future__ import annotations

import importlib
from types import ModuleType


class InputError(ValueError):
    """Bad input: one line that says what is wrong, what was expected and what to do.

    The command line prints the line and exits with code 2; a library caller catches a ``ValueError``.
    """


def require(package: str, extra: str) -> ModuleType:
    """Import an optional package, or raise :class:`InputError` naming the extra that brings it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"this needs the package '{package}', which is not installed: run  pip install 'next3d[{extra}]'"
        ) from error
