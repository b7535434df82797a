"""The server: the page, a small HTTP interface, and the WebSocket that pictures come through."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
import tempfile
import time
import warnings
from collections import OrderedDict
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from fastapi import FastAPI, HTTPException, Query, Request, Response, WebSocket
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.background import BackgroundTask

from next3d import __version__
from next3d.avatar import Avatar
from next3d.errors import InputError
from next3d.generator.generator import Generator
from next3d.heads import Motion
from next3d.heads.arkit import ARKIT_NAMES, read_arkit_csv
from next3d.heads.motions import CLIPS
from next3d.viewer import exports
from next3d.viewer.guard import Guard
from next3d.viewer.identities import Identities
from next3d.viewer.jobs import Jobs
from next3d.viewer.protocol import MIME, VIEWS, FrameRequest, JobStatus, MeshRequest, VideoRequest
from next3d.viewer.render import Renderer
from next3d.viewer.session import Session
from next3d.viewer.worker import Busy, Worker

PAGE = Path(__file__).parent / "page"
MOST_PAGES = 32  # connected at once
THUMBNAIL, KEPT_THUMBNAILS = 96, 512
BINARY = {"requestBody": {"required": True, "content": {"application/octet-stream": {}}}}


class Viewer:
    """A model with everything that serves it.

    Args:
        model: in evaluation mode
        avatars: saved ones, by name
        dtype: in which identities are baked
        name: of the model, for people to read
        photo_steps: of the latent and of the weights, when a photo becomes an avatar; about half of next3d invert's
    """

    def __init__(
        self,
        model: Generator,
        avatars: dict[str, Avatar] | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        name: str = "demo",
        photo_steps: tuple[int, int] = (200, 250),
    ) -> None:
        self.model, self.name, self.photo_steps = model, name, photo_steps
        self.instance = secrets.token_hex(8)  # a page that reconnects sees whether the server is another one
        self.identities = Identities(model, avatars, dtype)
        self.renderer = Renderer(model, self.identities)
        self.worker = Worker("viewer-render")
        self.tracking = Worker("viewer-track")
        self.temporary = tempfile.TemporaryDirectory(prefix="next3d-view-", ignore_cleanup_errors=True)
        self.folder = Path(self.temporary.name)
        self.jobs = Jobs(self.folder / "jobs")
        self.thumbnails: OrderedDict[tuple[int | str, float], bytes] = OrderedDict()
        self.pages = 0
        self.started = time.time()

    def warm(self) -> None:
        """Draw the first identity, so that the first page need not wait."""
        first = next(iter(self.identities.saved), 0)
        for _ in range(2):
            self.worker.submit("warm", lambda: self.renderer.show(FrameRequest(identity=first))).result()

    def close(self) -> None:
        self.jobs.close()
        self.tracking.close()
        self.worker.close()
        self.temporary.cleanup()

    def info(self) -> dict[str, Any]:
        """What the page needs to know about the model."""
        c, head = self.model.config, self.model.head
        return {
            "version": __version__,
            "model": Path(self.name).name or self.name,
            "instance": self.instance,
            "resolution": c.superres.resolution,
            "rays": c.volume.ray_resolution,
            "device": str(self.model.device),
            "precision": str(self.identities.dtype).removeprefix("torch."),
            "views": [view for view in VIEWS if c.planes.enabled or view not in ("mesh", "texture")],
            "planes": {"axes": list(c.planes.axes), "rows": self.plane_rows()},
            "arkit": list(ARKIT_NAMES) if head is not None else [],
            "shapes": list(head.shape_names) if head is not None else [],
            "clips": {name: clip.about for name, clip in CLIPS.items()} if head is not None else {},
            "motions": {
                name: motion.seconds for name, motion in list(self.renderer.motions.items()) if name not in CLIPS
            },
            "avatars": list(self.identities.saved),
            "photos": exports.photos_possible(),
            "live": head is not None and exports.has_package("mediapipe"),
        }

    def plane_rows(self) -> list[str]:
        c = self.model.config
        return [
            name
            for name, there in (("drawn", c.planes.enabled), ("static", c.static.enabled), ("blended", True))
            if there
        ]

    def status(self) -> dict[str, Any]:
        """How the server fares."""
        return {
            "seconds": round(time.time() - self.started, 1),
            "pages": self.pages,
            "pictures": self.worker.served,
            "overtaken": self.worker.dropped,
            "waiting": len(self.worker.waiting),
            "baked": len(self.identities.baked),
            "memory": resident_memory(),
        }


def resident_memory() -> int | None:
    """Bytes of memory that this process holds, where the system says."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def picture_response(shown: Any) -> Response:
    seconds = ", ".join(f"{name};dur={1000 * value:.1f}" for name, value in shown.seconds.items())
    return Response(shown.data, media_type=MIME[shown.format], headers={"server-timing": seconds})


def build(viewer: Viewer, token: str | None = None) -> Any:
    """The guarded application; see :class:`next3d.viewer.guard.Guard`."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(viewer.close)

    app = FastAPI(
        title="next3d viewer",
        version=__version__,
        summary="Draw avatars, export them, make them of photos.",
        description="Pictures in a stream come through the WebSocket /ws: see below.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )

    @app.exception_handler(InputError)
    async def bad_input(_: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 503 if isinstance(error, Busy) else 422)

    async def draw(request: FrameRequest) -> Any:
        task = partial(viewer.renderer.show, request)
        return await asyncio.wrap_future(viewer.worker.submit(object(), task))

    @app.get("/api/info", tags=["state"])
    async def info() -> dict[str, Any]:
        """The model: its names of expressions and shapes, clips, avatars, views."""
        return viewer.info()

    @app.get("/api/status", tags=["state"])
    async def status() -> dict[str, Any]:
        """Pages connected, pictures drawn and overtaken, memory in bytes."""
        return viewer.status()

    @app.get("/api/clips/{name}", tags=["state"])
    async def clip(name: str) -> dict[str, Any]:
        """Length and frame rate of a clip or an uploaded motion."""
        found = await asyncio.to_thread(viewer.renderer.motion, name)
        return {"name": name, "seconds": found.seconds, "fps": found.fps}

    @app.post("/api/render", tags=["pictures"], response_class=Response, responses={200: {"content": {"image/*": {}}}})
    async def render(request: FrameRequest) -> Response:
        """One picture. The header ``Server-Timing`` tells how long each stage took."""
        return picture_response(await draw(request))

    @app.get("/api/thumbnail", tags=["pictures"], response_class=Response)
    async def thumbnail(
        seed: Annotated[int | None, Query(ge=0, lt=2**31)] = None,
        avatar: Annotated[str | None, Query(max_length=80)] = None,
        truncation: Annotated[float, Query(ge=0, le=1.5)] = 0.7,
    ) -> Response:
        """A small picture of a seed or a saved avatar."""
        identity: int | str = avatar if avatar is not None else seed or 0
        key = (identity, round(truncation, 2))
        if key not in viewer.thumbnails:
            shown = await draw(FrameRequest(identity=identity, truncation=truncation, size=THUMBNAIL, quality=80))
            viewer.thumbnails[key] = shown.data
            while len(viewer.thumbnails) > KEPT_THUMBNAILS:
                viewer.thumbnails.popitem(last=False)
        return Response(viewer.thumbnails[key], media_type="image/jpeg")

    @app.post("/api/videos", tags=["jobs"], status_code=202)
    async def video(request: VideoRequest) -> JobStatus:
        """Begin an MP4 of a clip."""
        return viewer.jobs.start("video", partial(exports.video, viewer, request))

    @app.post("/api/meshes", tags=["jobs"], status_code=202)
    async def mesh(request: MeshRequest) -> JobStatus:
        """Begin a GLB of the head: its coloured surface, or the driving mesh with joints and morph targets."""
        return viewer.jobs.start("mesh", partial(exports.mesh, viewer, request))

    @app.post("/api/photos", tags=["jobs"], status_code=202, openapi_extra=BINARY)
    async def photo(request: Request, name: Annotated[str, Query(max_length=40)] = "photo") -> JobStatus:
        """Begin to make an avatar of a photo (JPEG, PNG or WebP)."""
        data = await request.body()
        return viewer.jobs.start("photo", partial(exports.photo, viewer, data, readable(name)))

    @app.get("/api/jobs/{job}", tags=["jobs"])
    async def job_status(job: str) -> JobStatus:
        """How far a job is."""
        return known(job).status

    @app.delete("/api/jobs/{job}", tags=["jobs"])
    async def cancel(job: str) -> JobStatus:
        """Stop a job."""
        known(job)
        return viewer.jobs.cancel(job)

    @app.get("/api/jobs/{job}/picture", tags=["jobs"], response_class=Response)
    async def job_picture(job: str) -> Response:
        """How the avatar of a photo looks so far (JPEG)."""
        picture = known(job).picture
        if picture is None:
            raise HTTPException(404, "this job has shown no picture yet")
        return Response(picture, media_type="image/jpeg")

    @app.get("/api/jobs/{job}/result", tags=["jobs"], response_class=FileResponse)
    async def result(job: str) -> FileResponse:
        """The file that a job made."""
        file = known(job).file
        if file is None:
            raise HTTPException(404, "this job has no file")
        return FileResponse(file, filename=file.name)

    def known(job: str) -> Any:
        try:
            return viewer.jobs.get(job)
        except KeyError:
            raise HTTPException(404, "there is no such job") from None

    @app.post("/api/motions", tags=["uploads"], openapi_extra=BINARY)
    async def motion(request: Request, name: Annotated[str, Query(max_length=40)] = "motion.npz") -> dict[str, Any]:
        """Add a motion (.npz as ``next3d track`` writes, or .csv of ARKit coefficients) to the clips."""
        stem, suffix = readable(Path(name).stem), ".csv" if name.lower().endswith(".csv") else ".npz"
        loaded = await asyncio.to_thread(read_motion, await request.body(), suffix)
        name = f"{stem} (file)" if stem in CLIPS else stem
        viewer.renderer.keep(name, loaded)
        return {"name": name, "seconds": loaded.seconds, "fps": loaded.fps}

    def read_motion(data: bytes, suffix: str) -> Motion:
        with upload(data, suffix) as path:
            if suffix == ".npz":
                return bounded(Motion.load(path))
            if viewer.model.head is None:
                raise InputError("ARKit coefficients need a head model")
            return bounded(read_arkit_csv(path, viewer.model.head))

    @app.post("/api/avatars", tags=["uploads"], openapi_extra=BINARY)
    async def avatar(request: Request) -> dict[str, str]:
        """Add a saved avatar of this model (.avatar)."""
        data = await request.body()

        def load() -> Avatar:
            with upload(data, ".avatar") as path:
                return Avatar.load(path, viewer.model)

        return {"name": viewer.identities.add(await asyncio.to_thread(load))}

    @app.post("/api/avatars/save", tags=["uploads"], response_class=FileResponse)
    async def save(request: FrameRequest) -> FileResponse:
        """The identity of a request, blend and shape included, as an .avatar file."""
        path = await asyncio.to_thread(exports.avatar, viewer, request)
        return FileResponse(path, filename=path.name, background=BackgroundTask(path.unlink, missing_ok=True))

    @contextlib.contextmanager
    def upload(data: bytes, suffix: str) -> Any:
        """The bytes as a file of a name of our own in the temporary folder, for as long as the block lasts."""
        handle, name = tempfile.mkstemp(suffix=suffix, dir=viewer.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            yield Path(name)
        except InputError as error:
            raise InputError(str(error).replace(name, "the file")) from None
        finally:
            Path(name).unlink(missing_ok=True)

    @app.websocket("/ws")
    async def stream(socket: WebSocket) -> None:
        if viewer.pages >= MOST_PAGES:
            await socket.close(1013, "too many pages are connected")
            return
        viewer.pages += 1
        try:
            await Session(socket, viewer).run()
        finally:
            viewer.pages -= 1

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(PAGE / "docs.html")

    app.mount("/", StaticFiles(directory=PAGE, html=True))
    return Guard(app, token)


def readable(name: str) -> str:
    """A name for people to read, without what could be taken for markup or a path."""
    kept = "".join(letter for letter in name if letter.isalnum() or letter in " -_().").strip()
    return kept[:40] or "unnamed"


def bounded(motion: Motion) -> Motion:
    """A motion of at most ten minutes at 60 frames a second."""
    if len(motion) > 36_000:
        raise InputError(f"a motion may have 36,000 frames at most, got {len(motion)}")
    return motion


def fastest(model: Generator) -> torch.dtype:
    """float32 or bfloat16, whichever draws a frame in less time here."""
    if model.device.type != "cpu":
        return torch.bfloat16
    # Not in the main thread: OpenMP's threads spin there, which on a busy machine takes seconds a frame.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_fastest, model).result()


def _fastest(model: Generator) -> torch.dtype:
    times: dict[torch.dtype, float] = {}
    for dtype in (torch.float32, torch.bfloat16):
        renderer = Renderer(model, Identities(model, None, dtype, kept=1))
        seconds = []
        for turn in (0.0, 0.1, 0.2, 0.3):
            start = time.perf_counter()
            renderer.draw(FrameRequest(neck=[0.0, turn, 0.0]))
            seconds.append(time.perf_counter() - start)
        times[dtype] = min(seconds)
    return min(times, key=lambda dtype: times[dtype])


def serve(viewer: Viewer, *, host: str, port: int, token: str | None, opened: Any = None) -> None:
    """Serve until interrupted.

    Args:
        opened: called with the address once the server listens

    Raises:
        InputError: the address cannot be bound.
    """
    import socket as sockets

    import uvicorn

    family = sockets.AF_INET6 if ":" in host else sockets.AF_INET
    listening = sockets.socket(family, sockets.SOCK_STREAM)
    listening.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        viewer.close()
        raise InputError(
            f"cannot listen on {host}:{port} ({error.strerror or error}): give another --port, or --port 0"
        ) from None
    listening.listen(128)
    port = listening.getsockname()[1]
    config = uvicorn.Config(
        build(viewer, token),
        log_level="warning",
        ws_max_size=2 * 2**20,
        ws_max_queue=8,
        ws_ping_interval=20,
        timeout_graceful_shutdown=2,
        limit_concurrency=256,
        server_header=False,
    )
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{port}/" + (f"?token={token}" if token else "")
    server = uvicorn.Server(config)
    if opened is not None:
        opened(address)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        server.run(sockets=[listening])
    sys.stdout.flush()
