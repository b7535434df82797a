"""Everything that a model can do, drawn into one folder: what ``make demo`` shows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from next3d.avatar import Avatar, Frame, depth_picture, normals_picture, sample
from next3d.errors import InputError
from next3d.generator.generator import Generator
from next3d.geometry.cameras import Camera
from next3d.geometry.meshes import world_from_head
from next3d.heads.params import Motion
from next3d.io.files import check_folder
from next3d.io.images import contact_sheet, to_uint8, write_image
from next3d.io.video import write_video
from next3d.raster.shading import overlay, shaded

IDENTITIES = 8
VIEWS = (-50, -25, 0, 25, 50)  # degrees of yaw
# What one identity does, by ARKit's names; gaze in radians about the eyes' axes.
CONTROLS: tuple[tuple[str, dict], ...] = (
    ("at rest", {}),
    ("smile", {"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0, "cheekSquintLeft": 0.6, "cheekSquintRight": 0.6}),
    ("jaw a third", {"jawOpen": 0.33}),
    ("jaw wide", {"jawOpen": 0.9}),
    ("pucker", {"mouthPucker": 1.0}),
    ("brows up", {"browInnerUp": 1.0, "browOuterUpLeft": 1.0, "browOuterUpRight": 1.0}),
    ("lids half", {"eyeBlinkLeft": 0.5, "eyeBlinkRight": 0.5}),
    ("lids closed", {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}),
    ("wink", {"eyeBlinkLeft": 1.0, "mouthSmileLeft": 0.6}),
    ("gaze left", {"eyes": (0.0, 0.4, 0.0, 0.0, 0.4, 0.0)}),
    ("gaze right", {"eyes": (0.0, -0.4, 0.0, 0.0, -0.4, 0.0)}),
    ("gaze up", {"eyes": (-0.3, 0.0, 0.0, -0.3, 0.0, 0.0)}),
)
CLIP_SECONDS = 4.0
MESH_RESOLUTION = 128
SHOWN = 256  # pixels of a picture in a sheet


def draw_demo(
    model: Generator, out: Path, *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Iterator[tuple[Path, str]]:
    """Write the demo, yielding each file with what it shows as soon as it is there.

    Args:
        model: with its head model at hand.
        out: the folder.
        seed: the first of the identities.
        dtype: of the baked avatars.

    Raises:
        InputError: the model's head is not at hand, or the folder cannot be written.
    """
    head = model.head
    if head is None:
        raise InputError(f"the demo drives a head, and this model's '{model.config.head}' is not at hand")
    check_folder(out)
    people = [sample(model, seed + i, dtype=dtype) for i in range(IDENTITIES)]

    pictures, labels = [], []
    for one in tqdm(people, "identities", unit="head"):
        for yaw in VIEWS:
            pictures.append(shown(one.render(camera=Camera.orbit(math.radians(yaw)))))
            labels.append(f"{one.name}, yaw {yaw}°")
    write_image(out / "identities.png", contact_sheet(pictures, columns=len(VIEWS), labels=labels))
    yield out / "identities.png", f"{IDENTITIES} identities × {len(VIEWS)} views"

    hero = people[-1]
    pictures = []
    for _, values in tqdm(CONTROLS, "controls", unit="picture"):
        pictures.append(shown(hero.render(head.params(**values))))
    sheet = contact_sheet(pictures, columns=6, labels=[name for name, _ in CONTROLS])
    write_image(out / "controls.png", sheet)
    yield out / "controls.png", "one identity through expressions, jaw, lids and gaze"

    write_image(out / "depth_normals.png", geometry_sheet(model, hero))
    yield out / "depth_normals.png", "picture, depth, normals, the driving mesh, and the mesh over the picture"

    motion = Motion.clip("talk", head, seconds=CLIP_SECONDS)
    turn = 0.45 * torch.sin(2 * math.pi * torch.arange(len(motion)) / len(motion))
    camera = Camera.orbit(turn, 0.1 * torch.cos(3 * turn) - 0.1)
    runs = [one.animate(motion, camera) for one in people[:3]]
    frames = (np.concatenate([shown(frame) for frame in several], 1) for several in zip(*runs))
    write_video(out / "talking.mp4", frames, motion.fps, total=len(motion))
    yield out / "talking.mp4", f"{CLIP_SECONDS:g} seconds of talking, turning heads"

    try:
        mesh = hero.mesh(resolution=MESH_RESOLUTION, progress=True)
    except InputError as error:  # an untrained model may have no surface at all
        print(f"no mesh: {error}")
    else:
        mesh.export(out / "head.glb")
        yield out / "head.glb", f"its coloured mesh, {len(mesh.faces):,} triangles"


def shown(frame: Frame) -> np.ndarray:
    """A frame's picture at the sheet's size, uint8 (S, S, 3)."""
    return to_uint8(resized(frame.image))


def resized(picture: torch.Tensor) -> torch.Tensor:
    """(3, R, R) at the sheet's size."""
    if picture.shape[-1] == SHOWN:
        return picture
    return torch.nn.functional.interpolate(
        picture[None].float(), (SHOWN, SHOWN), mode="bicubic" if picture.shape[-1] < SHOWN else "area"
    )[0].clamp(-1, 1)


def geometry_sheet(model: Generator, avatar: Avatar) -> np.ndarray:
    """Picture, depth, normals, mesh, and mesh over picture, from the front and turned."""
    head = model.head
    assert head is not None
    cells, labels = [], []
    for yaw in (0.0, 0.5):
        camera = Camera.orbit(yaw)
        params = head.params(jawOpen=0.25)
        frame = avatar.render(params, camera, normals=True)
        picture = shown(frame)
        vertices = world_from_head(head(params.replace(shape=avatar.shape)).vertices).cpu()
        mesh = shaded(camera, vertices, head.faces.cpu(), SHOWN)[0]
        cells += [
            picture,
            to_uint8(resized(depth_picture(frame, model.config.volume.near, model.config.volume.far))),
            to_uint8(resized(normals_picture(frame))),
            overlay(np.full_like(picture, 40), mesh, 1.0),
            overlay(picture, mesh, 0.6),
        ]
        labels += ["picture", "depth", "normals", "mesh", "mesh over picture"]
    return contact_sheet(cells, columns=5, labels=labels)
