"""Pictures of people: any person, any expression, any camera."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import ArrayLike

from next3d.data.format import check_resolution
from next3d.data.synthesis import shading
from next3d.data.synthesis.anatomy import anatomy
from next3d.data.synthesis.identity import Identity
from next3d.data.synthesis.lighting import Light
from next3d.data.synthesis.parts import THINGS
from next3d.data.synthesis.scene import Meshes, Scene, person
from next3d.errors import InputError
from next3d.geometry.cameras import Camera
from next3d.heads import HeadParams
from next3d.raster import Fragments, perspective_screen, rasterize


@dataclass(frozen=True)
class Picture:
    """What :func:`render` gives. R is the resolution.

    Attributes:
        image: (R, R, 3) uint8 sRGB
        parts: (R, R) uint8, indices into :data:`next3d.data.format.PARTS`
        depth: (R, R) float32, z in camera coordinates in world units, 0 in the background; None without aux
        normals: (R, R, 3) float32 unit vectors in world axes, 0 in the background; None without aux
        landmarks: (68, 2) float32 in [0, 1], u right, v down
    """

    image: np.ndarray
    parts: np.ndarray
    depth: np.ndarray | None
    normals: np.ndarray | None
    landmarks: np.ndarray


def samples_per_side(resolution: int) -> int:
    """Samples along each side of a pixel."""
    return 3 if resolution <= 256 else 2


def texture_resolution(resolution: int) -> int:
    """Texels along each side of the atlas for pictures of a resolution."""
    return 256 if resolution <= 160 else 512


def render(
    latent: ArrayLike,
    params: HeadParams,
    camera: Camera,
    resolution: int,
    *,
    aux: bool = False,
    light: Light | None = None,
    head: str = "builtin",
) -> Picture:
    """Draw the person of a latent.

    A pure function: the same arguments give the same bytes in every process. The last few people are remembered, so
    more pictures of one person are quicker.

    Args:
        latent: (64,) numbers; :data:`next3d.data.synthesis.AXES` names them
        params: expression, neck, jaw and eyes of one head; its shape is not used, the latent decides it
        camera: one camera
        resolution: pixels along each side
        aux: also depth and normals
        light: instead of the light that belongs to the person
        head: name or path of the head model

    Raises:
        InputError: a latent that is not 64 finite numbers, batched parameters or cameras, an impossible resolution.
    """
    check_resolution(resolution, "render")
    if params.batch_shape not in ((), (1,)) or camera.batch_shape not in ((), (1,)):
        raise InputError(
            f"render draws one picture at a time: got parameters of batch shape {tuple(params.batch_shape)} "
            f"and cameras of batch shape {tuple(camera.batch_shape)}; index them"
        )
    if camera.batch_shape:
        camera = camera[0]
    someone = person(latent, texture_resolution(resolution), head)
    scene = someone.pose(params[0] if params.batch_shape else params)
    skin, light = someone.skin, light or someone.light
    return draw(scene, camera, resolution, skin.colour, skin.label, light, someone.background(resolution), aux=aux)


def shape(latent: ArrayLike, head: str = "builtin") -> torch.Tensor:
    """(100,) the shape parameters of a latent's person on a head model."""
    return torch.from_numpy(Identity.of(latent).shape(anatomy(head).head.shape_names))


def draw(
    scene: Scene, camera: Camera, resolution: int, texture: np.ndarray, texture_labels: np.ndarray, light: Light,
    background: np.ndarray, *, aux: bool = False,
) -> Picture:  # fmt: skip
    """Rasterise, shade and average one scene."""
    samples = samples_per_side(resolution)
    size = resolution * samples
    solid = scene.solid
    shadow, frame, bias = _shadow(solid, light, 256 if resolution <= 160 else 512)
    seen = _rasterize(solid, _screen(solid, camera), size, size)
    face, weights, depth = seen.face[0].numpy(), seen.barycentric[0].numpy(), seen.depth[0].numpy()
    eye = camera.cam2world[:3, 3].numpy()
    lights = light.array()
    covered = face >= 0
    part = np.empty((size, size), np.uint8)
    image = weights  # colours take the place of the weights, normals that of the faces: pictures are large
    normal_image = face.view(np.int16).reshape(size, size, 4) if aux else np.empty((0, 0, 4), np.int16)
    reach = 0.045 * float(camera.intrinsics[0, 0]) * size
    shading.shade(
        face, weights, depth, solid.faces, solid.points, solid.normals, solid.colours, solid.tangents, solid.uvs,
        solid.materials, solid.labels, texture, texture_labels, eye, lights, _patterns(samples), shadow, frame, bias,
        samples, np.float32(reach), scene.mouth, image, part, normal_image,
    )  # fmt: skip
    del seen, face, weights
    if scene.glass is not None:
        _lay_glass(scene.glass, camera, samples, eye, lights, depth, covered, image, part, background)
    picture = np.empty((resolution, resolution, 3), np.uint8)
    parts = np.empty((resolution, resolution), np.uint8)
    depths = np.empty((resolution, resolution) if aux else (0, 0), np.float32)
    normals = np.empty((resolution, resolution, 3) if aux else (0, 0, 3), np.float32)
    shading.resolve(
        image, covered, part, depth, normal_image, samples, background, shading.DISPLAY, picture, parts, depths, normals
    )
    landmarks = camera.project(torch.from_numpy(scene.landmarks))[0].numpy()
    return Picture(picture, parts, depths if aux else None, normals if aux else None, landmarks)


@cache
def _patterns(samples: int) -> np.ndarray:
    return shading.sample_patterns(samples)


def _lay_glass(
    glass: Meshes, camera: Camera, samples: int, eye: np.ndarray, lights: np.ndarray, depth: np.ndarray,
    covered: np.ndarray, image: np.ndarray, part: np.ndarray, background: np.ndarray,
) -> None:  # fmt: skip
    """Draw the lenses over the picture, inside the window of whole pixels that holds them."""
    size, resolution = len(image), len(background)
    screen = _screen(glass, camera)
    corners = (torch.stack([screen[0, :, :2].amin(0), screen[0, :, :2].amax(0)]) + 1) * (0.5 * resolution)
    (left, top), (right, bottom) = corners.double().round().clamp(-1, resolution + 1).long().tolist()
    left, top, right, bottom = (
        max(left - 1, 0),
        max(top - 1, 0),
        min(right + 1, resolution),
        min(bottom + 1, resolution),
    )
    if left >= right or top >= bottom:
        return
    rows, columns = slice(top * samples, bottom * samples), slice(left * samples, right * samples)
    width, height = (right - left) * samples, (bottom - top) * samples
    middle = torch.tensor([left + right - resolution, top + bottom - resolution]) / resolution
    screen[..., :2] = (screen[..., :2] - middle) * (size / torch.tensor([width, height]))
    over = _rasterize(glass, screen, height, width)
    shading.glaze(
        over.face[0].numpy(), over.barycentric[0].numpy(), over.depth[0].numpy(), depth[rows, columns], glass.faces,
        glass.points, glass.normals, glass.colours, eye, lights, covered[rows, columns], image[rows, columns],
        part[rows, columns], background[top:bottom, left:right], samples, THINGS,
    )  # fmt: skip


def _screen(meshes: Meshes, camera: Camera) -> torch.Tensor:
    """(1, P, 3) the vertices on the screen."""
    batch = Camera(camera.cam2world[None], camera.intrinsics[None])
    return perspective_screen(batch, torch.from_numpy(meshes.points)[None])


def _rasterize(meshes: Meshes, screen: torch.Tensor, height: int, width: int) -> Fragments:
    return rasterize(screen, torch.from_numpy(meshes.faces), height, width, perspective=True, implementation="numba")


def _shadow(meshes: Meshes, light: Light, size: int) -> tuple[np.ndarray, np.ndarray, np.float32]:
    """The depth picture of the key light, the map (3, 4) from world to it, and a bias in its depth."""
    towards = light.key_direction.astype(np.float64)
    across = np.cross([0, 1, 0], towards)
    across /= np.linalg.norm(across)
    up = np.cross(towards, across)
    axes = np.stack([across, -up, -towards])  # depth grows away from the light
    scale = 1 / 0.48  # half the extent that casts shadows, world units
    frame = np.concatenate([axes * [[scale], [scale], [1]], np.array([[0], [0], [2.0]])], 1).astype(np.float32)
    screen = meshes.points @ frame[:, :3].T + frame[:, 3]
    seen = rasterize(torch.from_numpy(screen)[None], torch.from_numpy(meshes.faces), size, implementation="numba")
    return seen.depth[0].numpy(), frame, np.float32(0.012)
