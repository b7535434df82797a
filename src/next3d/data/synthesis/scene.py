"""One person as meshes: built once on the neutral head, then posed for every picture."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike

from next3d.data.synthesis.anatomy import Anatomy, anatomy
from next3d.data.synthesis.background import paint_background
from next3d.data.synthesis.beard import beard, lashes
from next3d.data.synthesis.clothes import clothes
from next3d.data.synthesis.earrings import earrings
from next3d.data.synthesis.glasses import glasses
from next3d.data.synthesis.hair import hair
from next3d.data.synthesis.hat import hat
from next3d.data.synthesis.identity import Identity
from next3d.data.synthesis.lighting import Light
from next3d.data.synthesis.locks import Hull
from next3d.data.synthesis.mouth import mouth
from next3d.data.synthesis.parts import GLASS, HEAD, JAW, ROOT, SKIN, SKULL, Part, frames, vertex_normals
from next3d.data.synthesis.skin import Skin, paint
from next3d.geometry.meshes import HEAD_SCALE, HEAD_SHIFT
from next3d.geometry.rotations import matrix_from_axis_angle
from next3d.heads import HeadParams


@dataclass(frozen=True)
class Meshes:
    """What is drawn, in world units: vertices with their attributes, triangles with theirs."""

    points: np.ndarray  # (P, 3) float32
    normals: np.ndarray  # (P, 3) float32
    colours: np.ndarray  # (P, 4) float32, linear RGB and gloss
    tangents: np.ndarray  # (P, 3) float32
    uvs: np.ndarray  # (P, 2) float32
    faces: np.ndarray  # (F, 3) int64
    materials: np.ndarray  # (F,) uint8
    labels: np.ndarray  # (F,) uint8


@dataclass(frozen=True)
class Scene:
    """One person in one pose.

    Attributes:
        solid: everything opaque
        glass: lenses, or None
        landmarks: (68, 3) world units
        mouth: (6,) a point between the lips and the direction out of the mouth, world units
    """

    solid: Meshes
    glass: Meshes | None
    landmarks: np.ndarray
    mouth: np.ndarray


class Person:
    """A person, ready to be posed: meshes on the neutral head, atlas, light and background."""

    def __init__(self, latent: ArrayLike, texture_resolution: int = 256, head: str = "builtin") -> None:
        self.face: Anatomy = anatomy(head)
        self.identity = who = Identity.of(latent)
        face = self.face
        self.shape = torch.from_numpy(who.shape(face.head.shape_names))
        vertices, landmarks, _, joints = face.pose(HeadParams(shape=self.shape))
        self.neutral, self.joints = vertices, joints
        normals = vertex_normals(vertices, face.head_faces)
        self.neutral_normals = normals
        self.skin: Skin = paint(face, who, texture_resolution)
        self.light = Light.of(who)
        self._backgrounds: dict[int, np.ndarray] = {}
        outside = (face.eyeball == 0) & ~face.inner_mouth
        centre = np.array([0, joints[3:5, 1].mean() + 1.5 * face.unit, face.centre[2]])
        hull = Hull(vertices[outside], centre)
        skull = Hull(vertices[outside & (face.ear == 0) & (vertices[:, 1] > centre[1] - 9 * face.unit)], centre, 1.5)
        parts = [
            *mouth(face, who, landmarks),
            *hair(face, who, vertices, normals, hull),
            *beard(face, who, vertices, normals),
            *lashes(face, who, vertices, normals),
            *glasses(face, who, vertices, landmarks, joints),
            *hat(face, who, skull),
            *earrings(face, who, vertices),
            *clothes(face, who, vertices),
        ]
        self._solid = _Collection(face, [part for part in parts if part.material != GLASS], with_head=True)
        lenses = [part for part in parts if part.material == GLASS]
        self._glass = _Collection(face, lenses, with_head=False) if lenses else None

    def background(self, resolution: int) -> np.ndarray:
        """(R, R, 3) linear RGB."""
        if resolution not in self._backgrounds:
            self._backgrounds[resolution] = paint_background(self.identity, resolution)
        return self._backgrounds[resolution]

    def pose(self, params: HeadParams) -> Scene:
        """The person with the expression, neck, jaw and eyes of ``params``; their shape is the person's own."""
        params = HeadParams(
            shape=self.shape, expression=params.expression, neck=params.neck, jaw=params.jaw, eyes=params.eyes
        )
        vertices, landmarks, _, _ = self.face.pose(params)
        normals = vertex_normals(vertices, self.face.head_faces)
        neck = matrix_from_axis_angle(params.neck).numpy().reshape(3, 3)
        jaw = neck @ matrix_from_axis_angle(params.jaw).numpy().reshape(3, 3)
        rest = self.joints
        jaw_at = rest[1] + neck @ (rest[2] - rest[1])
        bones = {
            ROOT: (np.eye(3), np.zeros(3)),
            SKULL: (neck, rest[1] - neck @ rest[1]),
            JAW: (jaw, jaw_at - jaw @ rest[2]),
        }
        lips = 0.5 * (landmarks[62] + landmarks[66])
        out = neck @ np.array([0, 0, 1.0])
        return Scene(
            self._solid.pose(vertices, normals, bones),
            self._glass.pose(vertices, normals, bones) if self._glass else None,
            to_world(landmarks),
            np.concatenate([to_world(lips[None])[0], out]).astype(np.float32),
        )


class _Collection:
    """Parts joined into one mesh, with what each vertex hangs on."""

    def __init__(self, face: Anatomy, parts: list[Part], with_head: bool) -> None:
        self.face, self.with_head = face, with_head
        head = len(face.vertex_of) if with_head else 0
        start = np.cumsum([head] + [len(part.vertices) for part in parts])
        count = int(start[-1])
        self.parts = [(part, slice(a, b)) for part, a, b in zip(parts, start[:-1], start[1:])]
        self.rest, self.rest_normals = np.zeros((count, 3), np.float32), np.zeros((count, 3), np.float32)
        self.colours, self.uvs = np.zeros((count, 4), np.float32), np.zeros((count, 2), np.float32)
        self.rest_tangents = np.zeros((count, 3), np.float32)
        faces, materials, labels = [], [], []
        if with_head:
            self.uvs[:head] = face.uv
            faces.append(face.faces)
            materials.append(np.full(len(face.faces), HEAD, np.uint8))
            labels.append(np.full(len(face.faces), SKIN, np.uint8))
        bound = []
        for part, span in self.parts:
            self.rest[span], self.rest_normals[span], self.colours[span] = part.vertices, part.normals, part.colour
            if part.tangent is not None:
                self.rest_tangents[span] = part.tangent
            if part.uv is not None:
                self.uvs[span] = part.uv
            faces.append(part.faces + span.start)
            materials.append(np.full(len(part.faces), part.material, np.uint8))
            labels.append(np.full(len(part.faces), part.label, np.uint8))
            if part.binding is not None:
                bound.append((part.binding, span))
        self.bound = bound
        self.bones = {
            bone: [span for part, span in self.parts if part.bone == bone and part.binding is None]
            for bone in (ROOT, SKULL, JAW)
        }
        self.faces = np.ascontiguousarray(np.concatenate(faces))
        self.materials, self.labels = np.concatenate(materials), np.concatenate(labels)

    def pose(self, vertices: np.ndarray, normals: np.ndarray, bones: dict) -> Meshes:
        points, out, tangents = self.rest.copy(), self.rest_normals.copy(), self.rest_tangents.copy()
        if self.with_head:
            head = len(self.face.vertex_of)
            points[:head], out[:head] = vertices[self.face.vertex_of], normals[self.face.vertex_of]
        for bone, spans in self.bones.items():
            rotation, offset = (np.asarray(v, np.float32) for v in bones[bone])
            if np.array_equal(rotation, np.eye(3)) and not offset.any():
                continue
            for span in spans:
                points[span] = self.rest[span] @ rotation.T + offset
                out[span] = self.rest_normals[span] @ rotation.T
                tangents[span] = self.rest_tangents[span] @ rotation.T
        for binding, span in self.bound:
            origin, axes = frames(vertices, normals, self.face.head_faces[binding.face], binding.barycentric)
            axes = axes.astype(np.float32)
            points[span] = origin + np.einsum("pij,pj->pi", axes, binding.local)
            out[span] = np.einsum("pij,pj->pi", axes, binding.normal)
            tangents[span] = np.einsum("pij,pj->pi", axes, binding.tangent)
        return Meshes(to_world(points), out, self.colours, tangents, self.uvs, self.faces, self.materials, self.labels)


def to_world(points: np.ndarray) -> np.ndarray:
    """:func:`next3d.geometry.meshes.world_from_head` for arrays."""
    return ((points + np.asarray(HEAD_SHIFT, np.float32)) * np.float32(HEAD_SCALE)).astype(np.float32)


_people: OrderedDict[tuple[bytes, int, str], Person] = OrderedDict()
REMEMBERED = 2  # people kept ready per process


def person(latent: ArrayLike | torch.Tensor, texture_resolution: int = 256, head: str = "builtin") -> Person:
    """A :class:`Person`, remembered for the next pictures of the same latent."""
    numbers = np.asarray(latent, np.float32)
    key = (numbers.tobytes(), texture_resolution, head)
    if key not in _people:
        while len(_people) >= REMEMBERED:  # before the next one takes their room
            _people.popitem(last=False)
        _people[key] = Person(numbers, texture_resolution, head)
    _people.move_to_end(key)
    return _people[key]
