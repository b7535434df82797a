"""Load on a running viewer: several clients that never rest, for a bounded time.

``python -m next3d.viewer.load --clients 8 --seconds 600`` prints pictures a second and the longest wait of each client,
and the server's memory over time.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass

from tqdm import tqdm

from next3d.errors import InputError
from next3d.viewer.client import ViewerClient
from next3d.viewer.protocol import FrameRequest, Orbit


@dataclass
class Tally:
    """What one client got."""

    pictures: int = 0
    longest: float = 0.0
    cpu: float = 0.0
    error: str = ""


def drive(address: str, number: int, until: float, tally: Tally) -> None:
    """One client: its own identity, turning and talking, and now and then another identity."""
    with ViewerClient(address) as viewer:
        step = 0
        while time.monotonic() < until:
            request = FrameRequest(
                identity=number + 100 * (step // 200 % 8),
                arkit={"jawOpen": 0.3 + 0.3 * math.sin(step / 3)},
                camera=Orbit(yaw=0.6 * math.sin(step / 20)),
            )
            start = time.monotonic()
            try:
                for picture in viewer.stream([request]):
                    tally.cpu += picture.cpu
            except InputError as error:
                tally.error = str(error)
                return
            tally.pictures += 1
            tally.longest = max(tally.longest, time.monotonic() - start)
            step += 1


def load(address: str = "http://127.0.0.1:7033/", clients: int = 8, seconds: float = 60.0) -> bool:
    """Press a viewer and print what came of it.

    Args:
        address: as next3d view printed it.
        clients: how many at once.
        seconds: how long; 3600 at most.

    Returns:
        whether every client got at least one picture a second
    """
    if not (1 <= clients <= 32 and 0 < seconds <= 3600):
        raise InputError("give 1 to 32 --clients and up to 3600 --seconds")
    viewer = ViewerClient(address)
    before = viewer.status()
    began = time.monotonic()
    tallies = [Tally() for _ in range(clients)]
    threads = [
        threading.Thread(target=drive, args=(address, number, began + seconds, tally), daemon=True)
        for number, tally in enumerate(tallies)
    ]
    for thread in threads:
        thread.start()
    memory = []
    with tqdm(total=round(seconds), unit="s") as bar:
        while (passed := time.monotonic() - began) < seconds:
            time.sleep(min(1.0, seconds - passed))
            bar.update(min(round(time.monotonic() - began), round(seconds)) - bar.n)
            now = viewer.status()["memory"]
            if now:
                memory.append(now / 2**20)
                bar.set_postfix_str(f"{sum(tally.pictures for tally in tallies)} pictures, {memory[-1]:.0f} MiB")
    for thread in threads:
        thread.join(timeout=60)
    taken = time.monotonic() - began
    after = viewer.status()
    for number, tally in enumerate(tallies):
        end = f", ended early: {tally.error}" if tally.error else ""
        rate, wait = tally.pictures / taken, 1000 * tally.longest
        print(f"client {number}: {rate:.1f} pictures a second, longest wait {wait:.0f} ms{end}")
    total = sum(tally.pictures for tally in tallies)
    cpu = sum(tally.cpu for tally in tallies) / max(total, 1)
    print(f"{total} pictures in {taken:.0f} s, {1000 * cpu:.0f} ms of processor time each")
    if memory:
        third = max(1, len(memory) // 3)
        parts = [memory[:third], memory[third : 2 * third] or memory, memory[-third:]]
        print("memory in MiB, mean of each third: " + ", ".join(f"{sum(part) / len(part):.0f}" for part in parts))
    print(
        f"server: {after['pictures'] - before['pictures']} drawn, {after['overtaken'] - before['overtaken']} overtaken"
    )
    return all(tally.pictures >= taken for tally in tallies) and not any(tally.error for tally in tallies)


if __name__ == "__main__":
    import tyro

    raise SystemExit(0 if tyro.cli(load) else 1)
