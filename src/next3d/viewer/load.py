"""Load on a viewer: several clients that never rest, for a bounded time.

``python -m next3d.viewer.load --clients 8 --seconds 600`` starts ``next3d view``, measures one client that drags alone,
then presses with eight, and prints what each got and how the server's memory went. It ends with 1 if a client got less
than a picture a second or the memory grew.
"""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count

import numpy as np
from tqdm import tqdm

from next3d.errors import InputError
from next3d.viewer.client import ViewerClient
from next3d.viewer.identities import KEPT
from next3d.viewer.protocol import FrameRequest, Orbit

MEGABYTE = 2**20
DRAG = 8.0  # seconds that one client drags alone
RAYS = 0.75  # of the model's own number, as the page asks for while things move
CHANGE = 200  # pictures of one identity, until a client takes another
SLOWEST = 1.0  # pictures a second that each client must get


@dataclass
class Tally:
    """What one client got.

    Attributes:
        first: seconds from connecting to the first picture
        waits: seconds of each picture
        cpu: processor seconds of the server, all pictures together
        error: why it ended early, if it did
    """

    first: float = 0.0
    waits: list[float] = field(default_factory=list)
    cpu: float = 0.0
    error: str = ""

    def line(self, seconds: float) -> str:
        waits = 1000 * np.array(self.waits or [math.nan])
        text = (
            f"{len(self.waits) / seconds:6.2f} pictures a second, first after {1000 * self.first:5.0f} ms, "
            f"wait {np.median(waits):4.0f} ms (median) {waits.max():5.0f} ms (longest), "
            f"{1000 * self.cpu / max(len(self.waits), 1):3.0f} ms of processor time each"
        )
        return text + (f"; ended early: {self.error}" if self.error else "")


def turning(step: int, rays: int) -> FrameRequest:
    """The head dragged to and fro."""
    return FrameRequest(rays=rays, camera=Orbit(yaw=0.6 * math.sin(step / 20)))


def living(number: int, step: int, rays: int) -> FrameRequest:
    """A client's own identity, turning and talking, and now and then another identity."""
    return turning(step, rays).model_copy(
        update={
            "identity": number + 100 * (step // CHANGE % 8),
            "arkit": {"jawOpen": 0.3 + 0.3 * math.sin(step / 3 + number)},
        }
    )


def drive(address: str, requests: Iterator[FrameRequest], until: float, tally: Tally) -> None:
    """One client: the next request as soon as the last is answered."""
    began = time.monotonic()
    try:
        with ViewerClient(address) as viewer:
            for picture in viewer.stream(requests):
                now = time.monotonic()
                if not tally.waits:
                    tally.first = now - began
                tally.waits.append(now - began)
                tally.cpu += picture.cpu
                if now >= until:
                    return
                began = now
    except InputError as error:
        tally.error = str(error)


@contextlib.contextmanager
def started(model: str) -> Iterator[str]:
    """A viewer in a process of its own for as long as the block lasts; gives its address."""
    command = [sys.executable, "-m", "next3d.cli.main", "view", "--model", model, "--no-browser", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        words = process.stdout.readline().split()
        if not words:
            raise InputError("the viewer did not start: see above")
        yield next(word for word in words if word.startswith("http"))
    finally:
        process.terminate()
        process.wait(timeout=30)


def memory_of(viewer: ViewerClient) -> float:
    """Of the server, MiB; not a number where its system does not say."""
    found = viewer.status()["memory"]
    return math.nan if found is None else found / MEGABYTE


def press(address: str, clients: int, seconds: float) -> tuple[list[Tally], list[tuple[float, float]]]:
    """Let clients drive at once; gives what each got, and seconds and MiB every two seconds."""
    viewer = ViewerClient(address)
    rays = round(RAYS * viewer.info()["rays"])
    began = time.monotonic()
    tallies = [Tally() for _ in range(clients)]
    threads = []
    for number, tally in enumerate(tallies):
        requests = map(partial(living, number, rays=rays), count())
        threads.append(
            threading.Thread(target=drive, args=(address, requests, began + seconds, tally), daemon=True)
        )  # fmt: skip
        threads[-1].start()
    memory = [(0.0, memory_of(viewer))]
    with tqdm(total=round(seconds), unit="s") as bar:
        while (passed := time.monotonic() - began) < seconds:
            time.sleep(min(2.0, seconds - passed))
            passed = time.monotonic() - began
            memory.append((passed, memory_of(viewer)))
            bar.update(min(round(passed), round(seconds)) - bar.n)
            bar.set_postfix_str(f"{sum(len(tally.waits) for tally in tallies)} pictures, {memory[-1][1]:.0f} MiB")
    for thread in threads:
        thread.join(timeout=60)
    return tallies, memory


def load(
    address: str | None = None, clients: int = 8, seconds: float = 60.0, growth: float = 64.0, model: str = "demo"
) -> bool:
    """Press a viewer and print what came of it.

    Args:
        address: of a running viewer, as next3d view printed it; by default one is started for this.
        clients: how many at once.
        seconds: how long; 3600 at most.
        growth: MiB that the memory may grow by from the first sixth of the time to the last.
        model: of the viewer that is started.

    Returns:
        whether every client got a picture a second, and the memory did not grow
    """
    if not (1 <= clients <= 32 and 1 <= seconds <= 3600):
        raise InputError("give 1 to 32 --clients and 1 to 3600 --seconds")
    if address is None:
        began = time.monotonic()
        with started(model) as own:
            print(f"the server listens after {time.monotonic() - began:.1f} s")
            return load(own, clients, seconds, growth)

    viewer = ViewerClient(address)
    alone = Tally()
    rays = round(RAYS * viewer.info()["rays"])
    drive(address, (turning(step, rays) for step in count()), time.monotonic() + DRAG, alone)
    print(f"dragging alone: {alone.line(DRAG)}")

    # The server keeps the last identities: with as many as it keeps, its memory is what it will be.
    list(
        viewer.stream(FrameRequest(identity=seed, rays=8) for seed in tqdm(range(10_000, 10_000 + KEPT), "identities"))
    )
    tallies, memory = press(address, clients, seconds)
    for number, tally in enumerate(tallies):
        print(f"client {number}: {tally.line(seconds)}")

    marks = [0.0, *np.arange(60.0, seconds, 60.0), seconds]
    nearest = [min(memory, key=lambda each: abs(each[0] - mark)) for mark in marks]
    print("memory in MiB: " + ", ".join(f"{amount:.0f} at {second:.0f} s" for second, amount in nearest))
    sixth = max(1, len(memory) // 6)
    amounts = [amount for _, amount in memory]
    grown = float(np.median(amounts[-sixth:]) - np.median(amounts[:sixth]))
    print(f"memory grew by {grown:+.0f} MiB ({growth:.0f} allowed)")
    slow = [number for number, tally in enumerate(tallies) if tally.error or len(tally.waits) < SLOWEST * seconds]
    if slow:
        print(f"too slow: clients {slow} got less than {SLOWEST:g} picture a second")
    return not slow and not grown > growth


def main() -> None:
    import tyro

    try:
        raise SystemExit(0 if tyro.cli(load) else 1)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
