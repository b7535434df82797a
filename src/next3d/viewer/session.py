"""One connected page: its messages in, pictures out, the newest of each kind only."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
from collections import deque
from collections.abc import MutableMapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from next3d.errors import InputError
from next3d.viewer.live import MOST_BYTES, LiveDriver, Seen
from next3d.viewer.protocol import CameraPicture, Command, Render, message_type, pack, parse, unpack
from next3d.viewer.render import Shown

if TYPE_CHECKING:
    from fastapi import WebSocket

    from next3d.viewer.server import Viewer

log = logging.getLogger("next3d.viewer")
MOST_NOTES = 64  # unsent texts; the oldest go first


class Session:
    """Serves one WebSocket until it closes. Whatever arrives, the answer is a picture or an error, never an end."""

    numbers = itertools.count()

    def __init__(self, socket: WebSocket, viewer: Viewer) -> None:
        self.socket, self.viewer = socket, viewer
        self.client = f"page {next(Session.numbers)}"
        self.loop = asyncio.get_running_loop()
        self.notes: deque[dict[str, Any]] = deque(maxlen=MOST_NOTES)
        self.picture: bytes | None = None
        self.something = asyncio.Event()
        self.latest: Render | None = None
        self.driver: LiveDriver | None = None
        self.camera: dict[str, float] = {}  # id and arrival of the last tracked camera picture

    async def run(self) -> None:
        """Receive until the page leaves."""
        await self.socket.accept()
        self.note({"type": "hello", "instance": self.viewer.instance})
        sender = asyncio.create_task(self.send())
        try:
            while True:
                message = await self.socket.receive()
                if message["type"] == "websocket.disconnect":
                    break
                try:
                    self.handle(message)
                except InputError as error:
                    self.fail(str(error))
                except Exception as error:  # a message must not end the session
                    log.exception("a message could not be handled")
                    self.fail(f"internal error: {type(error).__name__}")
        finally:
            sender.cancel()
            self.viewer.worker.forget(self.client)
            self.viewer.tracking.forget(self.client)
            self.stop()

    async def send(self) -> None:
        """Send texts in order and the newest picture; a slow page gets fewer pictures, and no backlog grows."""
        while True:
            await self.something.wait()
            self.something.clear()
            try:
                while self.notes:
                    await self.socket.send_text(json.dumps(self.notes.popleft(), separators=(",", ":")))
                picture, self.picture = self.picture, None
                if picture is not None:
                    await self.socket.send_bytes(picture)
            except Exception:  # the page left; its receiving side notices too
                return

    def note(self, text: dict[str, Any]) -> None:
        self.notes.append(text)
        self.something.set()

    def fail(self, message: str, **more: Any) -> None:
        self.note({"type": "error", "message": message, **more})

    def handle(self, message: MutableMapping[str, Any]) -> None:
        """One message of the page."""
        if message.get("bytes") is not None:
            self.see(message["bytes"])
            return
        text = message.get("text") or ""
        kind = message_type(text)
        if kind == "render":
            self.latest = parse(Render, text)
            self.render(self.latest)
        elif kind in ("calibrate", "stop"):
            if parse(Command, text).type == "stop":
                self.stop()
                self.note({"type": "stopped"})
            else:
                self.calibrate()
        else:
            raise InputError("a message's type is render, calibrate or stop")

    def render(self, request: Render) -> None:
        """Queue a picture."""
        worker, renderer, driver = self.viewer.worker, self.viewer.renderer, self.driver

        def task() -> Shown:
            queued = worker.queued
            driven = driver.driven(request) if driver is not None and request.live else None
            shown = renderer.show(request, driven)
            shown.seconds = {"queue": queued, **shown.seconds}
            return shown

        camera = dict(self.camera)
        future = worker.submit(self.client, task)
        future.add_done_callback(lambda done: self.soon(self.deliver, request, camera, done))

    def soon(self, function: Any, *arguments: Any) -> None:
        """Call a function in the event loop, from any thread."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(function, *arguments)

    def deliver(self, request: Render, camera: dict[str, float], done: Future[Shown]) -> None:
        """A picture is ready, or has failed."""
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            if not isinstance(error, InputError):
                log.error("a picture could not be drawn", exc_info=error)
            self.fail(str(error) if isinstance(error, InputError) else f"internal error: {error}", id=request.id)
            return
        shown = done.result()
        header: dict[str, Any] = {
            "type": "picture",
            "id": request.id,
            "view": request.view,
            "format": shown.format,
            "width": shown.width,
            "height": shown.height,
            "seconds": {name: round(value, 5) for name, value in shown.seconds.items()},
            "cpu": round(shown.cpu, 5),
        }
        if request.live and camera:
            header["camera"] = camera["id"]
            header["seconds"]["camera"] = round(time.perf_counter() - camera["arrived"], 5)
        self.picture = pack(header, shown.data)
        self.something.set()

    def see(self, message: bytes) -> None:
        """Queue a camera picture for tracking."""
        text, data = unpack(message)
        header = parse(CameraPicture, text)
        if len(data) > MOST_BYTES:
            raise InputError(f"a camera picture may have {MOST_BYTES:,} bytes at most")
        if self.driver is None:
            head = self.viewer.model.head
            if head is None:
                raise InputError("live driving needs a head model: start the viewer with --head")
            self.driver = LiveDriver(head)
        driver, arrived = self.driver, time.perf_counter()
        future = self.viewer.tracking.submit(self.client, lambda: driver.see(data))
        future.add_done_callback(lambda done: self.soon(self.tracked, header.id, arrived, done))

    def tracked(self, identifier: int, arrived: float, done: Future[Seen]) -> None:
        """The tracker has looked at a camera picture: tell the page, and draw."""
        if done.cancelled() or self.driver is None:
            return
        error = done.exception()
        if error is not None:
            if not isinstance(error, InputError):
                log.error("a camera picture could not be tracked", exc_info=error)
            self.fail(str(error), camera=identifier)
            return
        seen = done.result()
        seconds = {name: round(value, 5) for name, value in seen.seconds.items()}
        self.note(
            {
                "type": "tracked",
                "id": identifier,
                "points": seen.points,
                "confidence": round(seen.confidence, 3),
                "seconds": seconds,
            }
        )
        if seen.points and self.latest is not None and self.latest.live:
            self.camera = {"id": identifier, "arrived": arrived}
            self.render(self.latest)

    def calibrate(self) -> None:
        """Take the present face as neutral; done in the tracking thread, between two pictures."""
        driver = self.driver
        if driver is None:
            raise InputError("no camera picture has come yet: start the camera first")
        future = self.viewer.tracking.submit((self.client, "calibrate"), driver.calibrate)

        def told(done: Future[None]) -> None:
            error = None if done.cancelled() else done.exception()
            self.note({"type": "calibrated"} if error is None else {"type": "error", "message": str(error)})

        future.add_done_callback(lambda done: self.soon(told, done))

    def stop(self) -> None:
        """End live driving."""
        driver, self.driver, self.camera = self.driver, None, {}
        if driver is not None:
            # In the tracker's own thread, which may be using it now.
            self.viewer.tracking.submit((self.client, "close"), driver.close)
