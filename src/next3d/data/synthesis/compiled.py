"""Compilation by numba, with its cache where there is a folder for it."""

from __future__ import annotations

from collections.abc import Callable

import numba


def compiled(function: Callable) -> Callable:
    """Compile a kernel. Fast-math stays off: pictures are the same bytes in every process."""
    try:
        return numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # no folder to cache the machine code in: compile again in each process
        return numba.njit(nogil=True, error_model="numpy")(function)
