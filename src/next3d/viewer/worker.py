"""One thread that serves many clients fairly: of each client the newest request waits, and clients take turns."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, TypeVar

from next3d.errors import InputError

Result = TypeVar("Result")


class Busy(InputError):
    """More clients wait than the queue holds."""


class Worker:
    """Runs tasks one at a time in a thread of its own.

    A client has at most one task waiting: a newer one takes its place in the queue, and the older one's future is
    cancelled. A client that has been served goes to the end, so that none waits longer than one turn of the others.

    Args:
        name: of the thread
        capacity: clients that may wait at once
    """

    def __init__(self, name: str, capacity: int = 64) -> None:
        self.capacity = capacity
        self.waiting: OrderedDict[Hashable, tuple[Future, Callable[[], Any], float]] = OrderedDict()
        self.ready = threading.Condition()
        self.closed = False
        self.served = self.dropped = 0
        self.queued = 0.0  # seconds that the present task waited; read from inside it
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def submit(self, client: Hashable, task: Callable[[], Result]) -> Future[Result]:
        """Queue a task; its future is cancelled if a newer task of the same client overtakes it.

        Raises:
            Busy: the queue is full.
        """
        future: Future[Result] = Future()
        overtaken = None
        with self.ready:
            if self.closed:
                raise Busy("the server is shutting down")
            if client in self.waiting:
                overtaken = self.waiting[client][0]
                self.dropped += 1
            elif len(self.waiting) >= self.capacity:
                raise Busy("too many clients are waiting: try again in a moment")
            self.waiting[client] = (future, task, time.perf_counter())
            self.ready.notify()
        if overtaken is not None:
            overtaken.cancel()
        return future

    def forget(self, client: Hashable) -> None:
        """Drop what a client that left still waits for."""
        with self.ready:
            found = self.waiting.pop(client, None)
        if found is not None:
            found[0].cancel()

    def close(self) -> None:
        """Cancel what waits and end the thread after its present task."""
        with self.ready:
            self.closed = True
            left = list(self.waiting.values())
            self.waiting.clear()
            self.ready.notify()
        for future, *_ in left:
            future.cancel()
        self.thread.join(timeout=10)

    def _run(self) -> None:
        while True:
            with self.ready:
                while not self.waiting and not self.closed:
                    self.ready.wait()
                if self.closed:
                    return
                _, (future, task, since) = self.waiting.popitem(last=False)
            if not future.set_running_or_notify_cancel():
                continue
            self.queued = time.perf_counter() - since
            try:
                future.set_result(task())
            except BaseException as error:  # the thread must outlive any task
                future.set_exception(error)
            self.served += 1
