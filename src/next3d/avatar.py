"""An avatar: one identity of a generator, baked, ready to be drawn, driven, meshed and saved."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from next3d.errors import InputError
from next3d.generator.baked import Baked
from next3d.generator.generator import Generator, Planes
from next3d.geometry.cameras import Camera
from next3d.geometry.meshes import head_from_world
from next3d.heads.head_model import HeadModel
from next3d.heads.params import HeadParams, Motion, as_field
from next3d.io.files import atomic_path
from next3d.io.meshes import Mesh

FORMAT = 1
TUNED = "tuned."  # prefix of the tensors that an avatar changes in its model
CHUNK = 32  # frames whose head meshes are computed together
POINTS = 2**16  # samples of the density asked at once


@dataclass(frozen=True)
class Frame:
    """One picture of an avatar.

    Attributes:
        image: (3, R, R) RGB in [−1, 1]
        depth: (1, r, r) world units along each ray
        alpha: (1, r, r) in [0, 1]
        normals: (3, r, r) unit vectors in world axes, or None if not asked for
        params: what the head did, or None where a mesh was given
        camera: where it was seen from
    """

    image: Tensor
    depth: Tensor
    alpha: Tensor
    normals: Tensor | None
    params: HeadParams | None
    camera: Camera


def depth_picture(frame: Frame, near: float, far: float) -> Tensor:
    """A frame's depth as grey in [−1, 1], near bright, far and empty dark; (3, r, r)."""
    grey = (far - frame.depth) / (far - near) * frame.alpha
    return (grey.clamp(0, 1) * 2 - 1).expand(3, -1, -1)


def normals_picture(frame: Frame) -> Tensor:
    """A frame's normals in world axes as colours, empty grey; (3, r, r) in [−1, 1].

    Raises:
        InputError: the frame was rendered without ``normals=True``.
    """
    if frame.normals is None:
        raise InputError("the frame has no normals: render it with normals=True")
    return frame.normals * frame.alpha


class Avatar:
    """One identity: latents and a head shape, with everything that depends on them computed once.

    Args:
        model: the generator it belongs to
        ws: (1, count, w_dim) from ``model.mapping``
        shape: (100,) the head's shape; the mean head if None
        tuned: tensors of the model that this identity changes (as inversion does), by name; the model itself stays
        name: for people to read
        dtype: of the baked planes and weights; bfloat16 is faster, and differs by about 1/255
    """

    def __init__(
        self,
        model: Generator,
        ws: Tensor,
        shape: Tensor | Sequence[float] | None = None,
        *,
        tuned: dict[str, Tensor] | None = None,
        name: str = "avatar",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        count, width = model.mapping.count, model.config.mapping.w_dim
        if tuple(ws.shape) != (1, count, width):
            raise InputError(f"an avatar's ws must have shape (1, {count}, {width}), got {tuple(ws.shape)}")
        self.base, self.name, self.dtype, self.tuned = model, name, dtype, dict(tuned or {})
        self.ws = ws.detach().to(model.device)
        self.shape = as_field("shape", torch.zeros(100) if shape is None else shape).to(model.device)
        if self.shape.ndim != 1:
            raise InputError(f"an avatar has one shape of 100 numbers, got {tuple(self.shape.shape)}")
        self.model = model if not self.tuned else with_tensors(model, self.tuned)
        self._baked: Baked | None = None

    @property
    def head(self) -> HeadModel | None:
        """What drives it: its model's head."""
        return self.model.head

    @property
    def baked(self) -> Baked:
        """Texture, static planes and folded weights; computed when first asked for."""
        if self._baked is None:
            self._baked = self.model.bake(self.ws, self.dtype)
        return self._baked

    def mesh_of(self, params: HeadParams) -> tuple[Tensor | None, Tensor | None]:
        """Vertices (N, V, 3), landmarks (N, 68, 3) of this head in N poses, metres; None if the model has no mesh.

        The shape is the avatar's own, whatever ``params`` say; angles beyond anatomical limits are clamped.
        """
        if not self.model.config.planes.enabled:
            return None, None
        head = self.model.head
        if head is None:
            raise InputError(
                f"this model is driven by '{self.model.config.head}', which is not at hand: give a head model (--head; "
                "in Python model.use_head(load_head('your FLAME folder'))), or a mesh with its landmarks"
            )
        params = head.clamp(params.to(self.model.device).replace(shape=self.shape))
        mesh = head(params)
        return mesh.vertices, mesh.landmarks

    @torch.no_grad()
    def render(
        self,
        params: HeadParams | None = None,
        camera: Camera | None = None,
        *,
        mesh: tuple[Tensor, Tensor] | None = None,
        normals: bool = False,
    ) -> Frame:
        """One picture.

        Args:
            params: expression and pose of a single head, at rest if None; the shape is the avatar's own
            camera: a single camera; the frontal one if None
            mesh: vertices (V, 3) and landmarks (68, 3) in metres, head frame, instead of ``params``
            normals: also compute normals
        """
        camera = Camera.orbit() if camera is None else camera
        if mesh is None:
            params = HeadParams() if params is None else params
            if params.batch_shape:
                raise InputError(
                    f"render draws one head, got a batch of {tuple(params.batch_shape)}; animate draws many"
                )
            vertices, landmarks = self.mesh_of(params)
        else:
            vertices, landmarks = (part[None].to(self.model.device) for part in mesh)
            params = None
        return self.draw(vertices, landmarks, camera, params, normals)

    def draw(
        self,
        vertices: Tensor | None,
        landmarks: Tensor | None,
        camera: Camera,
        params: HeadParams | None,
        normals: bool,
    ) -> Frame:
        label = camera.label.reshape(1, 25).to(self.model.device)
        out = self.baked.synthesis(label, vertices, landmarks, normals=normals)
        return Frame(
            image=out.image[0].float(),
            depth=out.depth[0].float(),
            alpha=out.alpha[0].float(),
            normals=None if out.normals is None else out.normals[0].float(),
            params=params,
            camera=camera,
        )

    @torch.no_grad()
    def animate(self, motion: Motion, camera: Camera | None = None, *, normals: bool = False) -> Iterator[Frame]:
        """Pictures of a motion, one by one.

        Args:
            motion: its expressions and poses; the shape stays the avatar's own
            camera: one camera, or one for each frame (T,); by default the motion's own, or the frontal one
            normals: also compute normals
        """
        camera = camera or motion.camera or Camera.orbit()
        moving = bool(camera.batch_shape)
        if moving and tuple(camera.batch_shape) != (len(motion),):
            raise InputError(f"a motion of {len(motion)} frames needs one camera or as many, got {camera.batch_shape}")
        for start in range(0, len(motion), CHUNK):
            params = motion.params[start : start + CHUNK]
            vertices, landmarks = self.mesh_of(params)
            for i in range(len(params)):
                one = (
                    None if vertices is None else vertices[i, None],
                    None if landmarks is None else landmarks[i, None],
                )
                yield self.draw(*one, camera[start + i] if moving else camera, params[i], normals)

    @torch.no_grad()
    def mesh(
        self,
        params: HeadParams | None = None,
        *,
        mesh: tuple[Tensor, Tensor] | None = None,
        resolution: int = 256,
        level: float = 10.0,
        progress: bool = False,
    ) -> Mesh:
        """A coloured triangle mesh of the density's surface.

        Args:
            params: expression and pose, at rest if None
            mesh: vertices and landmarks to drive with instead, as for :meth:`render`
            resolution: samples along each side of the cube that the planes span; they are streamed, so that 256³ adds
                a few hundred megabytes
            level: the density σ at which the surface lies
            progress: show a bar

        Returns:
            vertices in metres, head frame

        Raises:
            InputError: there is no surface at ``level``
        """
        if mesh is None:
            vertices, landmarks = self.mesh_of(HeadParams() if params is None else params)
        else:
            vertices, landmarks = (part[None].to(self.model.device) for part in mesh)
        planes = self.model.planes(self.model.identity(self.ws), vertices, landmarks)
        return surface(self.model, planes, resolution, level, progress)

    def save(self, path: str | Path) -> None:
        """Write a small safetensors file: latents, shape, and the fingerprint of the model that it belongs to.

        Tuned tensors are written as their differences from the model's, in half precision.
        """
        from safetensors.torch import save_file

        tensors = {"ws": self.ws.cpu().contiguous(), "shape": self.shape.cpu().contiguous()}
        own = self.base.state_dict() if self.tuned else {}
        for name, value in self.tuned.items():
            tensors[TUNED + name] = (value.detach().to(own[name]) - own[name]).half().cpu().contiguous()
        header = {
            "format": FORMAT,
            "name": self.name,
            "model": fingerprint(self.base),
            "head": self.base.config.head,
            "resolution": self.base.config.superres.resolution,
        }
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, {"next3d_avatar": json.dumps(header)})

    @staticmethod
    def load(path: str | Path, model: Generator, *, dtype: torch.dtype = torch.float32) -> Avatar:
        """Read an avatar of ``model``.

        Raises:
            InputError: no such file, no avatar, or an avatar of another model.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise InputError(f"there is no avatar {path}")
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {}).get("next3d_avatar", "null"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(f"{path} is not a readable avatar file: {error}") from None
        if not isinstance(header, dict) or not {"ws", "shape"} <= set(tensors):
            raise InputError(f"{path} is not an avatar file: {Path(path).name} was written by something else")
        if header.get("format") != FORMAT:
            raise InputError(f"{path} is an avatar of format {header.get('format')}, which this next3d does not know")
        own = fingerprint(model)
        if header.get("model") != own:
            raise InputError(
                f"{path} belongs to another model: it was made with weights {str(header.get('model'))[:12]} (head "
                f"'{header.get('head')}', {header.get('resolution')}² pictures), and this model's are {own[:12]}"
            )
        differences = {name.removeprefix(TUNED): v for name, v in tensors.items() if name.startswith(TUNED)}
        weights = model.state_dict() if differences else {}
        check_tuned(differences, weights)
        tuned = {name: weights[name] + change.to(weights[name]) for name, change in differences.items()}
        name = str(header.get("name", path.stem))
        return Avatar(model, tensors["ws"], tensors["shape"], tuned=tuned, name=name, dtype=dtype)


def sample(
    model: Generator,
    seed: int = 0,
    *,
    truncation: float = 0.7,
    truncation_cutoff: int | None = None,
    shape: Tensor | Sequence[float] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Avatar:
    """A random identity; the same seed gives the same one.

    Args:
        truncation: 1 keeps the full variety, 0 gives the mean
        truncation_cutoff: how many w vectors are truncated; the static half if None
        shape: (100,) the head's shape; by default ``truncation`` times what belongs to the latent, or, where latents do
            not say, a standard normal drawn with the seed
        dtype: as for :class:`Avatar`
    """
    ws = latents(model, [seed], truncation=truncation, truncation_cutoff=truncation_cutoff)
    if shape is None:
        own = model.shape_of(latent(model, seed)[None])
        drawn = torch.randn(100, generator=torch.Generator().manual_seed(int(seed) + 2**32)) if own is None else own[0]
        shape = truncation * drawn
    return Avatar(model, ws, shape, name=f"seed {seed}", dtype=dtype)


def latent(model: Generator, seed: int) -> Tensor:
    """The latent (z_dim,) of a seed."""
    return torch.randn(model.config.mapping.z_dim, generator=torch.Generator().manual_seed(int(seed)))


@torch.no_grad()
def latents(
    model: Generator, seeds: Sequence[int], *, truncation: float = 0.7, truncation_cutoff: int | None = None
) -> Tensor:
    """ws (N, count, w_dim) of seeds, the mapping network being shown the frontal camera."""
    z = torch.stack([latent(model, seed) for seed in seeds])
    label = Camera.orbit().label.expand(len(z), 25).to(model.device)
    return model.mapping(z.to(model.device), label, truncation=truncation, truncation_cutoff=truncation_cutoff)


@torch.no_grad()
def morph(
    model: Generator,
    seeds: Sequence[int],
    count: int,
    *,
    truncation: float = 0.7,
    swing: float = 20.0,
    motion: Motion | None = None,
    mesh: tuple[Tensor, Tensor] | None = None,
) -> Iterator[Tensor]:
    """``count`` pictures (3, R, R) in [−1, 1] on a smooth closed curve through the identities of ``seeds``.

    Args:
        swing: degrees by which the camera swings to both sides, once around for the whole loop
        motion: what the head does meanwhile, of ``count`` frames; at rest if None
        mesh: vertices (V, 3) and landmarks (68, 3) in metres to draw instead
    """
    from scipy.interpolate import CubicSpline

    ends = [sample(model, seed, truncation=truncation) for seed in (*seeds, seeds[0])]
    times = torch.arange(len(ends))
    now = torch.arange(count) * (len(seeds) / count)
    curve = [
        torch.from_numpy(CubicSpline(times, torch.stack(values).cpu().numpy(), bc_type="periodic")(now)).float()
        for values in ([end.ws[0] for end in ends], [end.shape for end in ends])
    ]
    turn = math.radians(swing) * torch.sin(2 * math.pi * torch.arange(count) / count)
    cameras = Camera.orbit(turn)
    for index, (ws, shape) in enumerate(zip(*curve)):
        params = None if motion is None else motion.params[index]
        one = Avatar(model, ws[None], shape)
        yield one.render(None if mesh else params, cameras[index], mesh=mesh).image


def with_tensors(model: Generator, tuned: dict[str, Tensor]) -> Generator:
    """A copy of ``model`` with some tensors replaced; the others are shared."""
    check_tuned(tuned, model.state_dict())
    shared = {id(value): value for value in (*model.parameters(), *model.buffers())}
    changed = copy.deepcopy(model, memo=dict(shared))  # copies the modules, not the tensors
    for name, value in tuned.items():
        owner, _, leaf = name.rpartition(".")
        module = changed.get_submodule(owner)
        old = getattr(module, leaf)
        new = value.to(old)
        setattr(module, leaf, torch.nn.Parameter(new, False) if isinstance(old, torch.nn.Parameter) else new)
    return changed


def check_tuned(tuned: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    """Raise :class:`InputError` unless the model has a tensor of that name and shape for each of ``tuned``."""
    for name, value in tuned.items():
        if name not in own or own[name].shape != value.shape:
            found = "has no such tensor" if name not in own else f"has {tuple(own[name].shape)} there"
            raise InputError(f"the avatar changes '{name}' {tuple(value.shape)}, but the model {found}")


def fingerprint(model: Generator) -> str:
    """A digest of every weight of a model: equal for equal weights, wherever they lie."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        if value.numel():
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def surface(model: Generator, planes: Planes, resolution: int, level: float, progress: bool) -> Mesh:
    """Marching cubes over the density, sampled slab by slab; see :meth:`Avatar.mesh`."""
    from skimage.measure import marching_cubes

    if not 8 <= resolution <= 1024:
        raise InputError(f"a mesh needs 8 to 1024 samples along each side, got {resolution}")
    box = model.config.volume.box_size
    axis = ((torch.arange(resolution) + 0.5) / resolution - 0.5) * box
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    volume = torch.empty(resolution, resolution, resolution)  # z, y, x

    def field(points: Tensor):
        return model.density(points[None].to(model.device), planes=planes)

    for index in tqdm(range(resolution), desc="density", unit="slab", disable=not progress):
        points = torch.stack([x, y, axis[index].expand_as(x)], -1).reshape(-1, 3)
        volume[index] = torch.cat([field(part).sigma[0, :, 0].cpu() for part in points.split(POINTS)]).view(
            resolution, -1
        )
    # A low rim closes the surface where it leaves the cube.
    for rim in (volume[0], volume[-1], volume[:, 0], volume[:, -1], volume[:, :, 0], volume[:, :, -1]):
        rim.fill_(min(float(volume.min()), level - 1))
    if not float(volume.min()) < level < float(volume.max()):
        raise InputError(
            f"there is no surface at density {level:g}: densities go up to {float(volume.max()):.3g}; "
            "choose another level"
        )
    corners, faces, _, _ = marching_cubes(volume.numpy(), level)
    del volume
    points = (torch.from_numpy(corners.copy()).flip(-1) + 0.5) / resolution * box - box / 2  # x, y, z
    colours = torch.cat([field(part).rgb[0, :, :3].cpu() for part in points.split(POINTS)]).clamp(0, 1)
    return Mesh(head_from_world(points), torch.from_numpy(faces.copy()).long(), colours)
