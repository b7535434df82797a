"""What a client asks for. The same message serves the page, the HTTP interface and the WebSocket."""

from __future__ import annotations

import json
import struct
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from next3d.errors import InputError

VIEWS = ("picture", "depth", "normals", "alpha", "mesh", "planes", "texture")
MIME = {"jpeg": "image/jpeg", "webp": "image/webp", "png": "image/png"}

Seed = Annotated[int, Field(strict=True, ge=0, lt=2**31)]
Name = Annotated[str, Field(min_length=1, max_length=80)]
Angle = Annotated[float, Field(ge=-3.2, le=3.2)]
Weight = Annotated[float, Field(ge=-2, le=2)]
Deviation = Annotated[float, Field(ge=-6, le=6)]
Vector = Annotated[list[Angle], Field(min_length=3, max_length=3)]


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Orbit(Message):
    """A camera on a sphere around the head; all zero is the frontal one."""

    yaw: Annotated[float, Field(ge=-3.15, le=3.15, description="radians, + towards the subject's left")] = 0.0
    pitch: Annotated[float, Field(ge=-1.5, le=1.5, description="radians, + up")] = 0.0
    roll: Annotated[float, Field(ge=-3.15, le=3.15, description="radians about the viewing direction")] = 0.0
    zoom: Annotated[float, Field(ge=0.3, le=4, description="of the focal length; 1 is FFHQ's framing")] = 1.0


class FrameRequest(Message):
    """One picture. Everything has a default: ``{}`` is the first identity at rest, seen from the front.

    Expression and pose add up: the clip's, ``arkit``, then ``expression``, ``neck``, ``jaw`` and ``eyes``.
    """

    identity: Annotated[Seed | Name, Field(description="a seed, or the name of an avatar of /api/info")] = 0
    other: Annotated[Seed | Name | None, Field(description="a second identity to blend with")] = None
    mix: Annotated[float, Field(ge=0, le=1, description="0: identity, 1: other")] = 0.0
    truncation: Annotated[float, Field(ge=0, le=1.5, description="of seeds: 1 is full variety, 0 the mean")] = 0.7
    shape: Annotated[
        dict[str, Deviation], Field(max_length=100, description="added to the head's shape, by name, in deviations")
    ] = {}
    arkit: Annotated[dict[str, Weight], Field(max_length=52, description="ARKit coefficients by name")] = {}
    expression: Annotated[
        list[Deviation] | None, Field(min_length=50, max_length=50, description="the head model's own parameters")
    ] = None
    neck: Annotated[Vector | None, Field(description="axis-angle, radians; +x nods, +y turns to the left")] = None
    jaw: Annotated[Vector | None, Field(description="axis-angle, radians; +x opens")] = None
    eyes: Annotated[
        list[Angle] | None, Field(min_length=6, max_length=6, description="left then right, axis-angle, radians")
    ] = None
    clip: Annotated[Name | None, Field(description="a built-in clip or an uploaded motion")] = None
    time: Annotated[float, Field(ge=0, le=1e6, description="seconds into the clip, which loops")] = 0.0
    camera: Orbit = Orbit()
    label: Annotated[
        list[float] | None,
        Field(min_length=25, max_length=25, description="a camera as 25 numbers, in place of ``camera``"),
    ] = None
    view: Literal["picture", "depth", "normals", "alpha", "mesh", "planes", "texture"] = "picture"
    rays: Annotated[
        int | None, Field(ge=8, le=256, description="rays along each side; fewer are faster. The model's own if null")
    ] = None
    background: Annotated[
        str,
        Field(pattern="^(model|transparent|#[0-9a-fA-F]{6})$", description="seen behind the head"),
    ] = "model"
    format: Literal["jpeg", "webp", "png"] = "jpeg"
    quality: Annotated[int, Field(ge=1, le=100, description="of JPEG and WebP")] = 88
    size: Annotated[int | None, Field(ge=16, le=1024, description="side in pixels; the view's own if null")] = None


class Render(FrameRequest):
    """WebSocket: draw this; answered by a picture whose header carries ``id``, unless a newer request overtakes it."""

    type: Literal["render"]
    id: Annotated[int, Field(ge=0, lt=2**53)] = 0
    live: Annotated[bool, Field(description="add what the camera saw last, and draw again when it sees more")] = False
    pose: Annotated[bool, Field(description="live: the head turns as it does before the camera")] = True
    mirror: Annotated[bool, Field(description="live: as in a mirror")] = True


class Command(Message):
    """WebSocket: ``calibrate`` takes the face now seen as neutral; ``stop`` ends live driving."""

    type: Literal["calibrate", "stop"]


class CameraPicture(Message):
    """The header of a binary WebSocket message whose body is one camera picture (JPEG, PNG or WebP)."""

    type: Literal["camera"]
    id: Annotated[int, Field(ge=0, lt=2**53)] = 0


class VideoRequest(Message):
    """A clip as an MP4 video."""

    frame: FrameRequest = FrameRequest(clip="talk")
    fps: Annotated[float, Field(ge=1, le=60)] = 25.0
    seconds: Annotated[float | None, Field(gt=0, le=120, description="the whole clip if null")] = None
    size: Annotated[int, Field(ge=64, le=1024, description="side in pixels")] = 512


class MeshRequest(Message):
    """The current head as GLB."""

    frame: FrameRequest = FrameRequest()
    kind: Annotated[
        Literal["surface", "rig"],
        Field(description="surface: the coloured density; rig: the driving mesh with joints and morph targets"),
    ] = "surface"
    resolution: Annotated[int, Field(ge=32, le=256, description="surface: samples along each side")] = 160


class JobStatus(BaseModel):
    """Something that takes longer than a picture."""

    id: str
    kind: Literal["video", "mesh", "photo"]
    state: Literal["waiting", "running", "done", "failed", "cancelled"]
    progress: float = Field(ge=0, le=1)
    message: str = ""
    pictures: int = Field(default=0, description="how many the job has shown so far; the last is at …/picture")
    result: str | None = Field(default=None, description="a path to download from, or the new avatar's name")


def parse(kind: type[Message], text: str | bytes) -> Any:
    """A message of ``kind`` from JSON; raises :class:`InputError` with one line that names the first problem."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{place + ': ' if place else ''}{first['msg']}") from None


def message_type(text: str | bytes) -> str:
    """The ``type`` of a JSON object, or "" where there is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError("a message must be a JSON object") from None
    return str(found.get("type", "")) if isinstance(found, dict) else ""


def pack(header: dict[str, Any], body: bytes) -> bytes:
    """A binary message: the header's length (little-endian, 4 bytes), the header as JSON, the body."""
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<I", len(text)) + text + body


def unpack(message: bytes) -> tuple[bytes, bytes]:
    """The inverse of :func:`pack`: the header's JSON and the body."""
    if len(message) < 4:
        raise InputError("a binary message starts with the length of its header (4 bytes)")
    (length,) = struct.unpack_from("<I", message)
    if length > min(len(message) - 4, 4096):
        raise InputError("a binary message's header is longer than the message or than 4096 bytes")
    return message[4 : 4 + length], message[4 + length :]
