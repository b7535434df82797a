"""Loops compiled by numba: their machine code is kept between processes; they run on as many threads as torch may."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import starmap
from typing import Any

import numba
import torch


def compiled(*, fastmath: bool | set[str] = False) -> Callable[[Callable], Callable]:
    """Decorate a function of numbers and arrays to be compiled when it is first called, and to let other threads run.

    Args:
        fastmath: numba's licences to reorder arithmetic; none by default, so that results are the same everywhere
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}

    def decorate(function: Callable) -> Callable:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # no folder to keep the machine code in: compile again in each process
            return numba.njit(**options)(function)

    return decorate


def run(function: Callable, tasks: Sequence[tuple]) -> None:
    """Call a compiled function with each tuple of arguments, on as many threads as torch may use.

    Threads of Python's rather than numba's: those cannot be entered twice at a time, nor survive a fork.
    """
    threads = torch.get_num_threads()
    if min(threads, len(tasks)) < 2:
        for _ in starmap(function, tasks):
            pass
        return
    for future in [_pool(threads, os.getpid()).submit(function, *task) for task in tasks]:
        future.result()


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:  # by process: threads are not inherited by a fork
    return ThreadPoolExecutor(threads, thread_name_prefix="next3d")
