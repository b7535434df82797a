"""What can be taken away: videos, meshes, avatar files; and avatars made of photos."""

from __future__ import annotations

import importlib.util
import io
import secrets
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image

from next3d.avatar import Avatar, surface
from next3d.errors import InputError
from next3d.heads.gltf import write_glb
from next3d.io.images import decode_image, write_image
from next3d.io.video import VideoWriter
from next3d.viewer.jobs import Cancelled, Job
from next3d.viewer.protocol import FrameRequest, MeshRequest, VideoRequest
from next3d.viewer.render import resized

if TYPE_CHECKING:
    from next3d.viewer.server import Viewer

SURFACE = 10.0  # the density at which a head's surface lies
# An inversion's stage: its share of the bar, and what people read.
STAGES = {
    "track": (0.01, 0.05, "aligning the face"),
    "start": (0.05, 0.1, "trying identities"),
    "latent": (0.1, 0.4, "looking for the nearest head"),
    "weights": (0.4, 1.0, "making it the person's"),
}


def has_package(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def photos_possible() -> bool:
    """Whether this installation can make avatars of photos."""
    return has_package("next3d.editing.inversion") and has_package("mediapipe")


def video(viewer: Viewer, request: VideoRequest, job: Job) -> Path:
    """An MP4 of a clip, frame by frame through the render worker, where it takes its turn like any client."""
    frame = request.frame
    clip = frame.clip
    if clip is None:
        raise InputError("a video needs a clip: choose one first")
    if frame.background == "transparent":
        frame = frame.model_copy(update={"background": "#ffffff"})  # MP4 has no transparency
    seconds = request.seconds or viewer.renderer.motion(clip).seconds
    count = max(1, round(min(seconds, 600.0) * request.fps))
    path = job.folder / f"{clip}.mp4".replace("/", "-")
    with VideoWriter(path, request.fps) as writer:
        for index in range(count):
            now = frame.model_copy(update={"time": frame.time + index / request.fps})
            image, _ = viewer.worker.submit(job, partial(viewer.renderer.draw, now)).result()
            writer.write(resized(image, request.size))
            job.report((index + 1) / count, f"frame {index + 1} of {count}")
    return path


@torch.no_grad()
def mesh(viewer: Viewer, request: MeshRequest, job: Job) -> Path:
    """A GLB of the head in its present shape and expression."""
    renderer, frame, head = viewer.renderer, request.frame, viewer.model.head
    avatar = renderer.identities.get(renderer.identities.key(frame))
    params = renderer.params_of(frame)
    path = job.folder / "head.glb"
    if request.kind == "rig":
        if head is None:
            raise InputError("this model has no head model to export")
        write_glb(path, head, params.replace(shape=avatar.shape.cpu() + params.shape))
        return path
    job.report(0.02, "sampling the density")
    vertices, landmarks = renderer.posed(avatar, params)
    planes = avatar.model.planes(avatar.model.identity(avatar.ws), vertices, landmarks)
    found = surface(avatar.model, planes, request.resolution, SURFACE, False)
    job.report(0.9, "writing")
    found.export(path)
    return path


def avatar(viewer: Viewer, request: FrameRequest) -> Path:
    """The identity of a request as an avatar file in the temporary folder."""
    renderer = viewer.renderer
    one = renderer.identities.get(renderer.identities.key(request))
    shape = one.shape.cpu() + renderer.shape_of(request)
    saved = Avatar(one.base, one.ws, shape, tuned=one.tuned, name=one.name)
    folder = viewer.folder / secrets.token_hex(6)
    path = folder / "head.avatar"
    saved.save(path)
    return path


def photo(viewer: Viewer, data: bytes, name: str, job: Job) -> str:
    """Fit the model to a photo; returns the new avatar's name."""
    picture = decode_image(data)
    if not photos_possible():
        raise InputError("avatars of photos need tracking: run  pip install 'next3d[tracking]'")
    from next3d.editing.inversion import InversionSettings
    from next3d.editing.photos import invert_photos
    from next3d.editing.progress import Cancelled as Stopped
    from next3d.editing.progress import Progress

    path = job.folder / "photo.png"
    write_image(path, picture)  # only what was decoded goes on

    def callback(progress: Progress) -> bool:
        start, end, words = STAGES[progress.stage]
        if progress.picture is not None:
            job.show(small_picture(progress.picture))
        job.report(start + (end - start) * progress.step / max(progress.total, 1), words)
        return True

    settings = InversionSettings(latent_steps=viewer.photo_steps[0], weight_steps=viewer.photo_steps[1])
    job.report(0.01, "looking for the face")
    try:
        found = invert_photos([path], viewer.model, settings, callback, face="largest", name=name)
    except Stopped:
        raise Cancelled from None
    finally:
        path.unlink(missing_ok=True)
    return viewer.identities.add(found.avatar)


def small_picture(picture: torch.Tensor) -> bytes:
    """(3, R, R) in [−1, 1] as a JPEG of at most 128 pixels a side."""
    pixels = ((picture.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels)
    image.thumbnail((128, 128))
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=85)
    return buffer.getvalue()
