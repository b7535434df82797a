"""A viewer that runs in a thread of the test process, on a free port of the loopback address."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import uvicorn

from next3d.viewer.server import Viewer, build


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def running(viewer: Viewer, port: int | None = None, token: str | None = None) -> Iterator[str]:
    """Serve for as long as the block lasts; gives the address."""
    port = port or free_port()
    config = uvicorn.Config(
        build(viewer, token), host="127.0.0.1", port=port, log_level="error", ws_max_size=2**21,
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join(timeout=30)
