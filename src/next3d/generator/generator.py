"""The generator: this file only wires the parts in the order of the paper's Figure 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from next3d.errors import InputError
from next3d.generator.background import Background
from next3d.generator.baked import Baked
from next3d.generator.config import LABEL_SIZE, GeneratorConfig
from next3d.generator.mapping import Mapping
from next3d.generator.mouth import Blending, Mouth, mouth_box
from next3d.generator.neural_texture import NeuralTexture
from next3d.generator.pretrained import Pretrained
from next3d.generator.static_planes import StaticPlanes
from next3d.generator.superres import Superres
from next3d.generator.texture_planes import DrawnPlanes, TexturePlanes
from next3d.generator.volume import FieldSample, Volume, rays, surface_normals
from next3d.geometry.meshes import Topology
from next3d.heads import HeadModel, load_head
from next3d.nn.style import StyleTree, map_styles

if TYPE_CHECKING:
    from next3d.avatar import Avatar


@dataclass
class Identity:
    """All that follows from the latents alone; :meth:`Generator.bake` keeps it.

    Attributes:
        texture: (N, C, T, T), the neural texture
        static: three static planes (N, C, R, R), or None
        mouth, blending, superres: the styles of these networks
        background: (N, C, B, B) in about [0, 1], what rays see that meet nothing, or None
    """

    texture: Tensor | None
    static: tuple[Tensor, ...] | None
    mouth: StyleTree | None
    blending: StyleTree | None
    superres: StyleTree
    background: Tensor | None = None


@dataclass
class Planes:
    """The blended tri-planes of one head, with the stages they were made in.

    Attributes:
        blended: three planes (N, C, R, R) in the order and with the axes of ``config.planes.axes``
        identity: the texture and static planes they are made of
        drawn: the mesh drawn onto the planes, before the mouth and the blending network, or None
        mouth_box: (N, 4) first row, last row + 1, first column, last column + 1 on the front plane, or None
        mouth: the mouth network's picture, or None
        dynamic: the planes before static ones are blended in, or None
    """

    blended: tuple[Tensor, ...]
    identity: Identity
    drawn: DrawnPlanes | None = None
    mouth_box: Tensor | None = None
    mouth: Tensor | None = None
    dynamic: tuple[Tensor, ...] | None = None


@dataclass
class Rendering:
    """A picture with what belongs to it; N is the number of cameras.

    Attributes:
        image: (N, 3, R, R), RGB in about [−1, 1]
        image_raw: (N, 3, r, r), the rays' colour
        depth: (N, 1, r, r), world units along each ray
        alpha: (N, 1, r, r) in [0, 1]
        normals: (N, 3, r, r) unit vectors in world axes, if asked for
        planes: what was rendered
    """

    image: Tensor
    image_raw: Tensor
    depth: Tensor
    alpha: Tensor
    normals: Tensor | None
    planes: Planes


SHAPE_RANGE = (-2.2, 2.2)  # standard deviations; beyond it a latent's head would no longer be plausible


class Generator(nn.Module, Pretrained):
    """A latent and a head mesh become a picture.

    Args:
        config: every size and switch
        topology: faces, UVs and face mask of the head meshes; may be None if ``config.planes.enabled`` is False

    ``mapping`` (a module, called as a function) makes w vectors, ``synthesis`` pictures of them. ``identity``,
    ``planes`` and ``render`` are the steps of synthesis, public so that meshes can share an identity and several
    cameras can share planes.
    """

    def __init__(self, config: GeneratorConfig, topology: Topology | None = None) -> None:
        super().__init__()
        self.config = config
        self._head: tuple[HeadModel] | None = None
        self.mapping = Mapping(config)
        if config.planes.enabled:
            if topology is None:
                raise InputError("a generator with texture planes needs the topology of its head meshes")
            self.neural_texture = NeuralTexture(config)
            self.texture_planes = TexturePlanes(config, topology)
        if config.has_mouth_network:
            self.mouth = Mouth(config)
        if config.has_blending_network:
            self.blending = Blending(config)
        if config.static.enabled:
            self.static_planes = StaticPlanes(config)
        if config.background.enabled:
            self.background = Background(config)
        self.volume = Volume(config)
        self.superres = Superres(config)

    @property
    def topology(self) -> Topology | None:
        """The topology of the meshes that drive this model."""
        return self.texture_planes.topology if self.config.planes.enabled else None

    @property
    def head(self) -> HeadModel | None:
        """The head model that drives this generator: the built-in one, or what :meth:`use_head` was given."""
        if self._head is None and self.config.planes.enabled and self.config.head == "builtin":
            self.use_head(load_head("builtin"))
        return None if self._head is None else self._head[0].to(self.device)

    def use_head(self, head: HeadModel) -> None:
        """Drive this generator by ``head``, whose meshes must have the model's topology.

        Raises:
            InputError: for a head with another number of vertices or other faces
        """
        own = self.topology
        if own is not None:
            theirs = head.topology
            # A released model leaves some of FLAME's faces out, but numbers the vertices as FLAME does.
            flame = head.name.startswith("flame") and self.config.head.startswith("flame")
            same_faces = flame or torch.equal(theirs.faces.cpu(), own.faces.cpu())
            if theirs.vertex_count != own.vertex_count or not same_faces:
                raise InputError(
                    f"the head model '{head.name}' ({theirs.vertex_count} vertices, {len(theirs.faces)} faces) does "
                    f"not have this generator's topology ({own.vertex_count} vertices, {len(own.faces)} faces)"
                )
        self._head = (head,)  # in a tuple, so that the head's tensors do not become the generator's

    @property
    def device(self) -> torch.device:
        return self.volume.decoder[0].weight.device  # type: ignore[return-value]

    def identity(self, ws: Tensor, noise: str = "const") -> Identity:
        """Everything that depends on ws alone: texture, static planes, and the styles of the other networks."""
        count = self.mapping.count
        if ws.ndim != 3 or ws.shape[1:] != (count, self.config.mapping.w_dim):
            raise InputError(f"ws must have shape (N, {count}, {self.config.mapping.w_dim}), got {tuple(ws.shape)}")
        c = self.config
        return Identity(
            self.neural_texture(self.neural_texture.styles(ws, noise)) if c.planes.enabled else None,
            self.static_planes(self.static_planes.styles(ws, noise)) if c.static.enabled else None,
            self.mouth.styles(ws, noise) if c.has_mouth_network else None,
            self.blending.styles(ws, noise) if c.has_blending_network else None,
            self.superres.styles(ws),
            self.background(self.background.styles(ws, noise)) if c.background.enabled else None,
        )

    def planes(self, identity: Identity, vertices: Tensor | None, landmarks: Tensor | None) -> Planes:
        """Draw a mesh with its texture onto the planes, complete the mouth, and blend with the static planes.

        Args:
            identity: of N latents (or of one, shared by all meshes)
            vertices: (N, V, 3), metres, head frame
            landmarks: (N, 68, 3), the same frame
        """
        if identity.texture is None:
            assert identity.static is not None
            return Planes(identity.static, identity)
        vertices, landmarks = check_mesh(vertices, landmarks)
        texture = identity.texture
        if len(texture) != len(vertices):
            if len(texture) != 1:
                raise InputError(
                    f"{len(texture)} identities cannot be drawn on {len(vertices)} meshes: give as many of each"
                )
            texture = texture.expand(len(vertices), -1, -1, -1)
        drawn = self.texture_planes(texture, vertices)
        result = Planes((), identity, drawn)
        planes = list(drawn.features)
        if identity.mouth is not None:
            boxes = self.mouth_boxes(landmarks)
            completed, result.mouth = self.mouth(planes, boxes, identity.mouth)
            planes[: len(completed)] = completed
            result.mouth_box = boxes[0]
        if identity.blending is not None:
            planes[0] = self.blending(planes[0], identity.blending)
        result.dynamic = tuple(planes)
        if identity.static is not None:
            planes = self.static_planes.alpha_blend(planes, identity.static, drawn.alpha)
        result.blended = tuple(planes)
        return result

    def mouth_boxes(self, landmarks: Tensor) -> list[Tensor]:
        """The mouth's box (N, 4) on each plane that the mouth network sees."""
        c = self.config
        views = ("front", "top", "right")[: c.mouth.planes]
        sizes = (c.planes.front_resolution, c.planes.resolution, c.planes.resolution)
        return [
            mouth_box(self.texture_planes.project(landmarks, view)[..., :2], size, c.mouth.margin)
            for view, size in zip(views, sizes)
        ]

    def render(
        self,
        planes: Planes,
        camera_label: Tensor,
        *,
        sampling: str = "deterministic",
        normals: bool = False,
        ray_resolution: int | None = None,
    ) -> Rendering:
        """Look at planes through cameras.

        Args:
            planes: of N heads
            camera_label: (N, 25), or (N, K, 25) for K cameras a head, whose pictures come as N·K, head by head
            sampling: "deterministic" or "stochastic" depths along the rays
            normals: also compute normals of the surface that the depth shows
            ray_resolution: rays along each side of the picture, if not the configured number
        """
        label = check_camera(camera_label, len(planes.blended[0]))  # (N, K, 25)
        field = self.volume.field(planes.blended)
        resolution = ray_resolution or self.config.volume.ray_resolution
        origins, directions = rays(label, resolution)
        gathered = self.volume(field, origins, directions, sampling)

        def picture(values: Tensor) -> Tensor:
            """(N, K·r·r, C) → (N·K, C, r, r), stored channels-last."""
            return values.unflatten(1, (-1, resolution, resolution)).flatten(0, 1).permute(0, 3, 1, 2)

        features, alpha = picture(gathered.features), picture(gathered.alpha)
        if planes.identity.background is not None:
            behind = repeat_rows(planes.identity.background, len(features)).to(features.dtype)
            features = features + (1 - alpha) * 2 * fit(behind, resolution)
        styles = map_styles(lambda style: style.repeat(label.shape[1]), planes.identity.superres)
        image = self.superres(features, styles)
        return Rendering(
            image.to(features.dtype),
            features[:, :3],
            picture(gathered.depth),
            alpha,
            surface_normals(picture(origins + gathered.depth * directions).float()) if normals else None,
            planes,
        )

    def synthesis(
        self,
        ws: Tensor,
        camera_label: Tensor,
        vertices: Tensor | None = None,
        landmarks: Tensor | None = None,
        *,
        noise: str = "const",
        sampling: str = "deterministic",
        normals: bool = False,
        ray_resolution: int | None = None,
    ) -> Rendering:
        """w vectors, cameras and head meshes to pictures.

        Args:
            ws: (N, count, w_dim) from :meth:`mapping`
            camera_label: (N, 25), or (N, K, 25) to look at every head through K cameras
            vertices: (N, V, 3), metres, head frame; the head's pose lives in the camera
            landmarks: (N, 68, 3), the same frame
            noise: "const", "random" or "none": the per-pixel noise of texture, planes and mouth
            sampling: "deterministic" or "stochastic" depths along the rays
            normals: also compute normals
            ray_resolution: rays along each side of the picture, if not the configured number

        Raises:
            InputError: for wrong shapes, vertices of another topology, or numbers that are not finite
        """
        return self.render(
            self.planes(self.identity(ws, noise), vertices, landmarks),
            camera_label,
            sampling=sampling,
            normals=normals,
            ray_resolution=ray_resolution,
        )

    def density(
        self,
        points: Tensor,
        ws: Tensor | None = None,
        vertices: Tensor | None = None,
        landmarks: Tensor | None = None,
        *,
        planes: Planes | None = None,
    ) -> FieldSample:
        """The field at world points (N, P, 3): ``.sigma`` (N, P, 1) and ``.rgb`` (N, P, C).

        Give ``planes`` instead of ws and meshes to ask many times about one head (meshing streams its samples so).
        """
        if planes is None:
            if ws is None:
                raise InputError("density needs either ws with vertices and landmarks, or planes")
            planes = self.planes(self.identity(ws), vertices, landmarks)
        return self.volume.field(planes.blended)(points)

    def shape_of(self, z: Tensor) -> Tensor | None:
        """Head shapes (N, 100) that belong to latents (N, z_dim), or None where a model's latents do not say."""
        index = torch.tensor(self.config.mapping.shape_latents, dtype=torch.int64, device=z.device)
        if not len(index):
            return None
        return torch.where(index >= 0, z[:, index.clamp_min(0)], torch.zeros_like(z[:, :1])).clamp(*SHAPE_RANGE)

    def bake(self, ws: Tensor, dtype: torch.dtype = torch.float32, noise: str = "const") -> Baked:
        """Compute once what all frames of one identity share, in ``dtype``; ws (1, count, w_dim)."""
        return Baked(self, ws, dtype, noise)

    def sample(self, seed: int = 0, truncation: float = 0.7, **options: Any) -> Avatar:
        """A random identity as an :class:`next3d.avatar.Avatar`; see :func:`next3d.avatar.sample`."""
        from next3d.avatar import sample

        return sample(self, seed, truncation=truncation, **options)


def repeat_rows(values: Tensor, count: int) -> Tensor:
    """N rows for ``count`` pictures, a multiple of N, row by row."""
    return values if len(values) == count else values.repeat_interleave(count // len(values), 0)


def fit(picture: Tensor, resolution: int) -> Tensor:
    """(N, C, B, B) resized to (N, C, resolution, resolution)."""
    if picture.shape[-1] == resolution:
        return picture
    size = (resolution, resolution)
    return F.interpolate(picture.float(), size, mode="bilinear", align_corners=False, antialias=True).to(picture.dtype)


def check_mesh(vertices: Tensor | None, landmarks: Tensor | None) -> tuple[Tensor, Tensor]:
    """Raise :class:`InputError` unless both are given, agree in N, and are finite."""
    if vertices is None or landmarks is None:
        raise InputError("this model is driven by a mesh: give vertices (N, V, 3) and landmarks (N, 68, 3)")
    if landmarks.shape != (len(vertices), 68, 3):
        raise InputError(f"landmarks must have shape ({len(vertices)}, 68, 3), got {tuple(landmarks.shape)}")
    for name, values in (("vertices", vertices), ("landmarks", landmarks)):
        # Asking a GPU would stall it; its rasteriser skips triangles that are not finite.
        if values.device.type == "cpu" and not values.isfinite().all():
            raise InputError(f"{name} contain numbers that are not finite (NaN or infinity)")
    return vertices, landmarks


def check_camera(label: Tensor, count: int) -> Tensor:
    """Camera labels (N, 25) or (N, K, 25), or (K, 25) for one head → (N, K, 25)."""
    if label.ndim == 2:
        label = label[None] if count == 1 else label[:, None]
    if label.ndim != 3 or label.shape[-1] != LABEL_SIZE or len(label) != count:
        raise InputError(
            f"camera labels must have shape ({count}, {LABEL_SIZE}) or ({count}, K, {LABEL_SIZE}), got "
            f"{tuple(label.shape)}"
        )
    return label
