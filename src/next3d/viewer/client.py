"""A client of the viewer's interface, for other programs.

```python
from next3d.viewer.client import ViewerClient

with ViewerClient("http://127.0.0.1:7033/") as viewer:
    picture = viewer.render(identity=7, arkit={"jawOpen": 0.4}, camera={"yaw": 0.3})  # uint8 (H, W, 3)
    for picture in viewer.play(Motion.load("talk.npz"), identity=7):
        ...
    viewer.save_video("talk.mp4", clip="talk", identity=7)
```
"""

from __future__ import annotations

import io
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import numpy as np
from PIL import Image

from next3d.errors import InputError
from next3d.heads import Motion
from next3d.io.files import write_bytes
from next3d.viewer.protocol import FrameRequest, JobStatus, MeshRequest, VideoRequest, parse, unpack


@dataclass(frozen=True)
class Picture:
    """A picture that came through the WebSocket.

    Attributes:
        image: uint8 (H, W, 3), or (H, W, 4) where the background is transparent
        seconds: how long each stage took on the server
        cpu: processor seconds
        id: of the request that it answers
    """

    image: np.ndarray
    seconds: dict[str, float]
    cpu: float
    id: int


class ViewerClient:
    """Talks to a running ``next3d view``.

    Args:
        address: as the command printed it, token included
        timeout: seconds to wait for an answer

    Raises:
        InputError: (every method) what the server refuses, with its reason; or no server there.
    """

    def __init__(self, address: str = "http://127.0.0.1:7033/", timeout: float = 60.0) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InputError(f"'{address}' is not the address of a viewer: expected http://127.0.0.1:7033/")
        self.base = f"{parts.scheme}://{parts.netloc}"
        self.token = parse_qs(parts.query).get("token", [None])[0]
        self.timeout = timeout
        self._socket: Any = None
        self._id = 0

    def __enter__(self) -> ViewerClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # HTTP

    def _headers(self) -> dict[str, str]:
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}

    def _ask(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
        request = urllib.request.Request(self.base + path, body, self._headers(), method=method)
        if body is not None:
            request.add_header("Content-Type", kind)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise InputError(reason(error)) from None
        except (urllib.error.URLError, OSError) as error:
            raise InputError(f"no viewer answers at {self.base}: {error}") from None

    def info(self) -> dict[str, Any]:
        """The model: names of expressions and shapes, clips, avatars, views."""
        return json.loads(self._ask("GET", "/api/info"))

    def status(self) -> dict[str, Any]:
        """Pages connected, pictures drawn and overtaken, memory in bytes."""
        return json.loads(self._ask("GET", "/api/status"))

    def render(self, request: FrameRequest | None = None, **fields: Any) -> np.ndarray:
        """One picture, uint8 (H, W, 3 or 4).

        Args:
            request: or its fields by name
        """
        asked = frame(request, fields | {"format": fields.get("format", "png")} if request is None else fields)
        return decode(self._ask("POST", "/api/render", asked.model_dump_json().encode()))

    def save_video(
        self,
        path: str | Path,
        request: FrameRequest | None = None,
        *,
        fps: float = 25.0,
        seconds: float | None = None,
        size: int = 512,
        progress: Callable[[JobStatus], None] | None = None,
        **fields: Any,
    ) -> None:
        """An MP4 of the request's clip."""
        asked = VideoRequest(frame=frame(request, fields), fps=fps, seconds=seconds, size=size)
        self._save(path, "/api/videos", asked.model_dump_json().encode(), progress)

    def save_mesh(
        self,
        path: str | Path,
        request: FrameRequest | None = None,
        *,
        kind: Literal["surface", "rig"] = "surface",
        resolution: int = 160,
        progress: Callable[[JobStatus], None] | None = None,
        **fields: Any,
    ) -> None:
        """A GLB of the head."""
        asked = MeshRequest(frame=frame(request, fields), kind=kind, resolution=resolution)
        self._save(path, "/api/meshes", asked.model_dump_json().encode(), progress)

    def add_photo(self, path: str | Path, progress: Callable[[JobStatus], None] | None = None) -> str:
        """Make an avatar of a photo; returns the name to ask for it by. Takes minutes."""
        path = Path(path)
        where = f"/api/photos?{urlencode({'name': path.stem[:40]})}"
        status = self._wait(self._upload(where, path), progress)
        return status.result or ""

    def add_motion(self, path: str | Path) -> str:
        """Add a motion (.npz, .csv) to the clips; returns its name."""
        where = f"/api/motions?{urlencode({'name': Path(path).name[-40:]})}"
        return json.loads(self._upload(where, Path(path)))["name"]

    def add_avatar(self, path: str | Path) -> str:
        """Add a saved avatar; returns its name."""
        return json.loads(self._upload("/api/avatars", Path(path)))["name"]

    def cancel(self, job: str) -> JobStatus:
        """Stop a job."""
        return JobStatus.model_validate_json(self._ask("DELETE", f"/api/jobs/{quote(job)}"))

    def _upload(self, where: str, path: Path) -> bytes:
        if not path.is_file():
            raise InputError(f"there is no file {path}")
        return self._ask("POST", where, path.read_bytes(), "application/octet-stream")

    def _wait(self, answer: bytes, progress: Callable[[JobStatus], None] | None) -> JobStatus:
        """Follow a job to its end."""
        status = JobStatus.model_validate_json(answer)
        while status.state in ("waiting", "running"):
            time.sleep(0.1)
            status = JobStatus.model_validate_json(self._ask("GET", f"/api/jobs/{status.id}"))
            if progress is not None:
                progress(status)
        if status.state != "done":
            raise InputError(f"the {status.kind} {status.state}: {status.message}")
        return status

    def _save(self, path: str | Path, where: str, body: bytes, progress: Callable[[JobStatus], None] | None) -> None:
        status = self._wait(self._ask("POST", where, body), progress)
        write_bytes(path, self._ask("GET", status.result or ""))

    # WebSocket

    def stream(self, requests: Iterable[FrameRequest]) -> Iterator[Picture]:
        """A picture for each request, in order, over one connection; nothing is skipped."""
        for request in requests:
            self._id += 1
            message = {"type": "render", "id": self._id, **request.model_dump(exclude_none=True)}
            yield self._exchange(json.dumps(message), self._id)

    def play(self, motion: Motion, request: FrameRequest | None = None, **fields: Any) -> Iterator[Picture]:
        """A picture of each frame of a motion; its shape and cameras are left aside."""
        asked = frame(request, fields)

        def requests() -> Iterator[FrameRequest]:
            for i in range(len(motion)):
                one = motion.params[i]
                pose = {name: getattr(one, name).tolist() for name in ("expression", "neck", "jaw", "eyes")}
                yield asked.model_copy(update=pose)

        yield from self.stream(requests())

    def _exchange(self, message: str, identifier: int) -> Picture:
        from websockets.exceptions import WebSocketException

        try:
            socket = self._connection()
            socket.send(message)
            while True:
                answer = socket.recv(timeout=self.timeout)
                if isinstance(answer, str):
                    note = json.loads(answer)
                    if note["type"] == "error" and note.get("id", identifier) == identifier:
                        raise InputError(note["message"])
                    continue
                text, body = unpack(answer)
                header = json.loads(text)
                if header["id"] == identifier:
                    return Picture(decode(body), header["seconds"], header["cpu"], identifier)
        except (WebSocketException, OSError, TimeoutError) as error:
            self.close()
            raise InputError(f"the connection to {self.base} broke: {error}") from None

    def _connection(self) -> Any:
        from websockets.sync.client import connect

        if self._socket is None:
            address = "ws" + self.base.removeprefix("http") + "/ws"
            self._socket = connect(
                address, additional_headers=self._headers(), open_timeout=self.timeout, max_size=2**24, compression=None
            )
        return self._socket


def frame(request: FrameRequest | None, fields: dict[str, Any]) -> FrameRequest:
    """A request, or one of fields, checked before it is sent."""
    if request is not None:
        if fields:
            raise InputError("give a request or its fields, not both")
        return request
    return parse(FrameRequest, json.dumps(fields))


def decode(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")))


def reason(error: urllib.error.HTTPError) -> str:
    """The server's own words for a refusal."""
    try:
        detail = json.loads(error.read())["detail"]
    except (ValueError, KeyError, TypeError, OSError):
        return f"the viewer answered {error.code}"
    return detail if isinstance(detail, str) else "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in detail)
