"""From a request to a picture: identity, head mesh, planes, rays, view, file; each stage timed."""

from __future__ import annotations

import io
import math
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from next3d.avatar import Avatar
from next3d.errors import InputError
from next3d.generator.generator import Generator, Planes
from next3d.geometry.cameras import FOCAL, Camera
from next3d.geometry.rotations import matrix_from_axis_angle
from next3d.heads import HeadParams, Motion
from next3d.heads.motions import CLIPS, make_clip
from next3d.viewer import views
from next3d.viewer.identities import Identities, Key
from next3d.viewer.protocol import FrameRequest

KEPT_PLANES = 4  # of the last poses, so that turning the camera does not draw the mesh again
MOTIONS = 16  # uploaded ones


@dataclass
class Shown:
    """A finished picture.

    Attributes:
        data: the file
        format: "jpeg", "webp" or "png"
        width, height: pixels
        seconds: wall time of each stage
        cpu: processor seconds, all threads of the process
    """

    data: bytes
    format: str
    width: int
    height: int
    seconds: dict[str, float] = field(default_factory=dict)
    cpu: float = 0.0


@dataclass(frozen=True)
class Driven:
    """What a live camera saw: parameters to add, and a camera in place of the frontal one, if any."""

    params: HeadParams
    camera: Camera | None


class Clock:
    """Wall time from lap to lap."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last, self.cpu = time.perf_counter(), time.process_time()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last
        self.last = now


class Renderer:
    """Draws requests; used by the render worker's thread alone, except for :meth:`params_of` and motions."""

    def __init__(self, model: Generator, identities: Identities) -> None:
        self.model, self.identities = model, identities
        self.planes: OrderedDict[tuple[Key, bytes], tuple[Planes, Tensor | None]] = OrderedDict()
        self.colours: OrderedDict[Key, tuple[views.Colours, views.Colours]] = OrderedDict()
        self.motions: OrderedDict[str, Motion] = OrderedDict()
        self.lock = threading.Lock()

    def motion(self, name: str) -> Motion:
        """A clip of that name, made when first asked for, or an uploaded motion."""
        with self.lock:
            found = self.motions.get(name)
        if found is None:
            if self.model.head is None:
                raise InputError("clips need a head model, and this model is driven by a mesh alone")
            found = make_clip(name, self.model.head)
            self.keep(name, found)
        return found

    def keep(self, name: str, motion: Motion) -> None:
        """Make a motion available under a name; the oldest uploaded one goes when there are too many."""
        with self.lock:
            self.motions[name] = motion
            uploaded = [key for key in self.motions if key not in CLIPS]
            for key in uploaded[: max(0, len(uploaded) - MOTIONS)]:
                del self.motions[key]

    def params_of(self, request: FrameRequest, live: HeadParams | None = None) -> HeadParams:
        """Expression and pose that a request adds up to, without a shape."""
        head = self.model.head
        if head is None:
            return HeadParams()
        total = head.from_arkit(request.arkit).to("cpu") if request.arkit else HeadParams()
        if request.clip is not None:
            motion = self.motion(request.clip)
            place = request.time * motion.fps % len(motion)
            now, after = motion.params[int(place)], motion.params[(int(place) + 1) % len(motion)]
            between = HeadParams.from_vector(torch.lerp(now.vector(), after.vector(), place % 1))
            total = add(total, between)
        if live is not None:
            total = add(total, live)
        given = {
            name: value
            for name in ("expression", "neck", "jaw", "eyes")
            if (value := getattr(request, name)) is not None
        }
        return add(total, HeadParams(**given)).replace(shape=self.shape_of(request))

    def shape_of(self, request: FrameRequest) -> Tensor:
        """(100,) what a request adds to the avatar's shape."""
        shape = torch.zeros(100)
        if request.shape and self.model.head is not None:
            names = self.model.head.shape_names
            for name, value in request.shape.items():
                if name not in names:
                    raise InputError(f"the head has no shape '{name}': /api/info lists them")
                shape[names.index(name)] = value
        return shape

    def camera_of(self, request: FrameRequest, live: Camera | None = None) -> Camera:
        """A single camera."""
        if request.label is not None:
            return Camera.from_label(torch.tensor(request.label))
        c = request.camera
        if live is None:
            return Camera.orbit(c.yaw, c.pitch, c.roll, focal=FOCAL * c.zoom)
        # The tracked camera, carried around the head as far as the page has turned it.
        turn = torch.eye(4)
        turn[:3, :3] = matrix_from_axis_angle(torch.tensor([0.0, c.yaw, 0.0])) @ matrix_from_axis_angle(
            torch.tensor([-c.pitch, 0.0, 0.0])
        )
        intrinsics = live.intrinsics.clone()
        intrinsics[..., :2, :2] *= c.zoom
        return Camera(turn @ live.cam2world, intrinsics)

    def posed(self, avatar: Avatar, params: HeadParams) -> tuple[Tensor | None, Tensor | None]:
        """Vertices (1, V, 3) and landmarks (1, 68, 3) of an avatar whose shape ``params`` vary."""
        head = self.model.head
        if not self.model.config.planes.enabled:
            return None, None
        if head is None:
            raise InputError(
                f"this model is driven by '{self.model.config.head}': start the viewer with --head and your FLAME files"
            )
        params = params.to(self.model.device)
        mesh = head(clamp(head, params.replace(shape=avatar.shape + params.shape)))
        return mesh.vertices, mesh.landmarks

    @torch.no_grad()
    def draw(self, request: FrameRequest, live: Driven | None = None) -> tuple[np.ndarray, Clock]:
        """The view as uint8 (H, W, 3), or (H, W, 4) with a transparent background."""
        clock = Clock()
        key = self.identities.key(request)
        avatar = self.identities.get(key)
        clock.lap("identity")
        params = self.params_of(request, None if live is None else live.params)
        camera = self.camera_of(request, None if live is None else live.camera)
        pose = (key, params.vector().numpy().tobytes())
        if pose in self.planes:
            planes, vertices = self.planes[pose]
            self.planes.move_to_end(pose)
        else:
            vertices, landmarks = self.posed(avatar, params)
            clock.lap("mesh")
            planes = avatar.baked.planes(vertices, landmarks)
            self.planes[pose] = (planes, vertices)
            if len(self.planes) > KEPT_PLANES:
                self.planes.popitem(last=False)
            clock.lap("planes")
        image = self.look(request, key, avatar, planes, vertices, camera, clock)
        clock.lap("view")
        return image, clock

    def look(
        self,
        request: FrameRequest,
        key: Key,
        avatar: Avatar,
        planes: Planes,
        vertices: Tensor | None,
        camera: Camera,
        clock: Clock,
    ) -> np.ndarray:
        """The asked view of planes."""
        model, config, view = avatar.model, self.model.config, request.view
        if view in ("planes", "texture"):
            texture, others = self.colours_of(key, planes)
            if view == "planes":
                grid = views.plane_grid(planes, texture, others, config.planes.axes, 128)
                return views.lay(grid, request.background)
            if planes.identity.texture is None:
                raise InputError("this model has no neural texture")
            return views.lay(texture(planes.identity.texture), request.background)
        if request.background != "model" or view in ("depth", "normals", "alpha"):
            planes = views.without_background(planes)
        label = camera.label[None].to(model.device)
        out = model.render(planes, label, normals=view == "normals", ray_resolution=request.rays)
        clock.lap("rays")
        ground = "#17181c" if request.background == "model" else request.background
        if view == "depth":
            return views.depth(out, config.volume.near, config.volume.far, ground)
        if view == "normals":
            return views.normals(out, camera, ground)
        if view == "alpha":
            return views.alpha(out)
        if view == "mesh":
            if vertices is None:
                raise InputError("this model has no mesh")
            size = max(256, config.superres.resolution)
            return views.mesh(model, out, vertices, camera, size, request.background)
        return views.picture(out, request.background)

    def colours_of(self, key: Key, planes: Planes) -> tuple[views.Colours, views.Colours]:
        """Of the texture and of the planes: one colouring for an identity, so that it does not flicker as it moves."""
        if key not in self.colours:
            static = planes.identity.static or planes.blended
            texture = static if planes.identity.texture is None else [planes.identity.texture]
            self.colours[key] = views.Colours.of(list(texture)), views.Colours.of(list(static))
            if len(self.colours) > 2 * self.identities.kept:
                self.colours.popitem(last=False)
        return self.colours[key]

    def show(self, request: FrameRequest, live: Driven | None = None) -> Shown:
        """A picture as a file."""
        image, clock = self.draw(request, live)
        if request.size is not None:
            image = resized(image, request.size)
        data, kind = encode(image, request.format, request.quality)
        clock.lap("encode")
        height, width = image.shape[:2]
        return Shown(data, kind, width, height, clock.seconds, time.process_time() - clock.cpu)


def add(a: HeadParams, b: HeadParams) -> HeadParams:
    """Parameters added number by number (angles of one joint are small enough for that)."""
    return HeadParams.from_vector(a.vector() + b.vector())


def clamp(head, params: HeadParams) -> HeadParams:
    """Within anatomical limits, without a warning: a slider may well reach them."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return head.clamp(params)


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """The longer side brought to ``size`` pixels."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    shape = (max(1, math.floor(width * scale + 0.5)), max(1, math.floor(height * scale + 0.5)))
    return np.asarray(Image.fromarray(image).resize(shape, Image.Resampling.LANCZOS))


def encode(image: np.ndarray, kind: str, quality: int) -> tuple[bytes, str]:
    """uint8 (H, W, 3 or 4) as a file; transparency turns JPEG into PNG."""
    if image.shape[-1] == 4 and kind == "jpeg":
        kind = "png"
    buffer = io.BytesIO()
    options: dict = {
        "jpeg": {"quality": quality, "subsampling": 0},
        "webp": {"quality": quality, "method": 2},
        "png": {"compress_level": 4},
    }[kind]
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, kind, **options)
    return buffer.getvalue(), kind
