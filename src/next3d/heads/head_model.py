"""A parametric head: FLAME's equation (Li et al. 2017; paper §3.1), for FLAME's arrays and for the built-in head.

Arrays of a head: ``HeadModel.from_arrays`` takes them, ``HeadModel.arrays`` gives them back, and a head's asset file is
these arrays as safetensors with the names as metadata. Metres; head frame: y up, +z out of the face, x to the subject's
left. V vertices, F faces, T UVs, B contour yaws, K correctives; those after ``iris_barycentric`` may be left out.

======================== ================ ==============================================================================
``template``             (V, 3)           the mean head: neutral, mouth closed, eyes open and looking along +z
``shape_directions``     (100, V, 3)      displacement per standard deviation of each shape parameter
``expression_directions`` (50, V, 3)      displacement per unit of each expression parameter
``pose_directions``      (36, V, 3)       pose correctives: neck, jaw, left eye, right eye × the 9 entries of R − I
``joint_regressor``      (5, V)           joints root, neck, jaw, left eye, right eye of the shaped head; rows sum to 1
``weights``              (V, 5)           skinning weights; rows sum to 1
``parents``              (5,) int         each joint's parent, −1 for the root: (−1, 0, 1, 1, 1)
``faces``                (F, 3) int       counter-clockwise seen from outside
``uvs``                  (T, 2)           as in :class:`next3d.geometry.meshes.Topology`
``uv_faces``             (F, 3) int
``face_mask``            (256, 256)       1 on the UV region that moves (face and eyes), else 0; or uint8 up to 255
``landmark_faces``       (68,) int        places of the iBUG-68 landmarks, the contour as seen from the front
``landmark_barycentric`` (68, 3)
``iris_faces``           (2,) int         centres of the left and the right iris
``iris_barycentric``     (2, 3)
``contour_faces``        (B, 17) int      places of landmarks 0–16 for each of B head yaws
``contour_barycentric``  (B, 17, 3)
``contour_yaws``         (B,)             those yaws in radians, + towards the subject's left (as ``neck`` +y)
``mediapipe_faces``      (478,) int       places of MediaPipe's landmarks, −1 where none is known
``mediapipe_barycentric`` (478, 3)
``mirror_vertices``      (V,) int         the index of each vertex's mirror image
``shape_mirror``         (100, 100)       parameters of the mirrored head = matrix @ parameters
``expression_mirror``    (50, 50)
``corrective_pairs``     (K, 2) int       pairs (i, j) of expressions whose product, each clamped to [0, 1], …
``corrective_directions`` (K, V, 3)       … times this is added: what a linear blend misses, as the arc of a lid (i = j)
``arkit``                (52, 59)         expression (50), jaw (3), eyes (6) per ARKit coefficient; else by the names
======================== ================ ==============================================================================

An expression named after an ARKit blendshape takes that coefficient as it is.
"""

from __future__ import annotations

import difflib
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from next3d.errors import InputError
from next3d.geometry.meshes import Topology
from next3d.geometry.rotations import matrix_from_axis_angle
from next3d.heads.arkit import ARKIT_NAMES, arkit_coefficients, arkit_from_names
from next3d.heads.params import LENGTHS, HeadParams
from next3d.io.files import atomic_path

JOINTS = ("root", "neck", "jaw", "left eye", "right eye")

# name: (shape, required). V vertices, F faces, T UVs, B contour yaws, K correctives.
ARRAYS: dict[str, tuple[tuple[int | str, ...], bool]] = {
    "template": (("V", 3), True),
    "shape_directions": ((100, "V", 3), True),
    "expression_directions": ((50, "V", 3), True),
    "pose_directions": ((36, "V", 3), True),
    "joint_regressor": ((5, "V"), True),
    "weights": (("V", 5), True),
    "parents": ((5,), True),
    "faces": (("F", 3), True),
    "uvs": (("T", 2), True),
    "uv_faces": (("F", 3), True),
    "face_mask": ((256, 256), True),
    "landmark_faces": ((68,), True),
    "landmark_barycentric": ((68, 3), True),
    "contour_faces": (("B", 17), False),
    "contour_barycentric": (("B", 17, 3), False),
    "contour_yaws": (("B",), False),
    "iris_faces": ((2,), True),
    "iris_barycentric": ((2, 3), True),
    "mediapipe_faces": ((478,), False),
    "mediapipe_barycentric": ((478, 3), False),
    "mirror_vertices": (("V",), False),
    "shape_mirror": ((100, 100), False),
    "expression_mirror": ((50, 50), False),
    "corrective_pairs": (("K", 2), False),
    "corrective_directions": (("K", "V", 3), False),
    "arkit": ((52, 59), False),
}
INDICES = {
    "parents": None,
    "faces": "V",
    "uv_faces": "T",
    "landmark_faces": "F",
    "contour_faces": "F",
    "iris_faces": "F",
    "mediapipe_faces": "F",
    "mirror_vertices": "V",
    "corrective_pairs": None,
}

# Degrees beyond which no head goes: (low, high) about x, y, z. Cervical rotation ±80 and flexion/extension ±50…60 are
# what clinical goniometry gives for healthy adults; the jaw's 30° is some 50 mm between the teeth.
LIMITS = {
    "neck": ((-60.0, 60.0), (-80.0, 80.0), (-45.0, 45.0)),
    "jaw": ((-4.0, 32.0), (-10.0, 10.0), (-6.0, 6.0)),
    "eyes": ((-35.0, 40.0), (-45.0, 45.0), (-10.0, 10.0)) * 2,
}


class HeadMesh(NamedTuple):
    """What :class:`HeadModel` computes for N heads; metres, head frame."""

    vertices: Tensor  # (N, V, 3)
    landmarks: Tensor  # (N, 68, 3) iBUG-68
    irises: Tensor  # (N, 2, 3) centres of the left and right iris
    joints: Tensor  # (N, 5, 3) root, neck, jaw, left eye, right eye


class SkinnedPoints(nn.Module):
    """The equation itself, for any set of points: blendshapes, joints and linear blend skinning."""

    basis: Tensor  # (100 + 50 + 36 + K, 3·V): x of all vertices, then y, then z
    base: Tensor  # (3·V,)
    joint_basis: Tensor  # (150, 15)
    joint_base: Tensor  # (15,)
    skin: Tensor  # (5, V)
    corrective_pairs: Tensor | None
    parents: tuple[int, ...]

    def constant(self, name: str, value: Tensor | None) -> None:
        """Keep an array that moves with the module and stays out of state dicts: a head is an asset, not weights."""
        self.register_buffer(name, value, persistent=False)

    def skinned(self, linear: Tensor, rotations: Tensor) -> tuple[Tensor, Tensor]:
        """Blendshapes and skinning: shape and expression (N, 150), the rotations of neck, jaw, left and right eye
        (N, 4, 3, 3) to points (N, V, 3) and joints (N, 5, 3). Free of control flow, for ``torch.func``."""
        identity = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
        coefficients = [linear, (rotations - identity).flatten(1)]
        if self.corrective_pairs is not None:
            amount = linear[:, 100:].clamp(0, 1)
            coefficients.append(amount[:, self.corrective_pairs[:, 0]] * amount[:, self.corrective_pairs[:, 1]])
        shaped = torch.addmm(self.base, torch.cat(coefficients, -1), self.basis).unflatten(1, (3, -1))  # (N, 3, V)
        rest = torch.addmm(self.joint_base, linear, self.joint_basis).unflatten(1, (5, 3))  # (N, 5, 3)
        joints, transforms = self.chain(rest, rotations)
        # Per vertex the weighted mean of the joints' 3×4 transforms, applied.
        blended = (transforms.permute(0, 2, 3, 1).flatten(0, 2) @ self.skin).view(-1, 3, 4, shaped.shape[-1])
        x, y, z = shaped[:, None].unbind(2)  # each (N, 1, V)
        posed = torch.addcmul(blended[:, :, 3], blended[:, :, 0], x)
        posed = torch.addcmul(posed, blended[:, :, 1], y)
        posed = torch.addcmul(posed, blended[:, :, 2], z)
        return posed.transpose(1, 2).contiguous(), joints  # (N, V, 3)

    def chain(self, rest: Tensor, rotations: Tensor) -> tuple[Tensor, Tensor]:
        """Forward kinematics: rest joints (N, 5, 3), rotations (N, 4, 3, 3) to joints and transforms (N, 5, 3, 4)."""
        identity = torch.eye(3, dtype=rest.dtype, device=rest.device).expand(len(rest), 3, 3)
        turned, moved = [identity], [rest[:, 0]]
        for joint, parent in enumerate(self.parents[1:], start=1):
            offset = turned[parent] @ (rest[:, joint] - rest[:, parent])[..., None]
            moved.append(moved[parent] + offset[..., 0])
            turned.append(turned[parent] @ rotations[:, joint - 1])
        rotation, joints = torch.stack(turned, 1), torch.stack(moved, 1)
        translation = joints[..., None] - rotation @ rest[..., None]
        return joints, torch.cat([rotation, translation], -1)


class HeadModel(SkinnedPoints):
    """FLAME's equation: vertices = skin(template + B·[shape, expression, pose correctives], joints, rotations).

    Blendshapes, 5 joints and linear blend skinning, batched and differentiable on any device. The root does not turn:
    a head's pose towards the camera lives in the camera.

    Attributes:
        name: "builtin", "flame2020", …
        topology: :class:`Topology` of the mesh (on the CPU)
        shape_names, expression_names: one name per parameter
    """

    faces: Tensor
    joint_regressor: Tensor
    landmark_faces: Tensor
    landmark_barycentric: Tensor
    iris_faces: Tensor
    iris_barycentric: Tensor
    contour_faces: Tensor
    contour_barycentric: Tensor
    contour_yaws: Tensor | None
    mediapipe_faces: Tensor | None
    mediapipe_barycentric: Tensor
    mirror_vertices: Tensor | None
    shape_mirror: Tensor | None
    expression_mirror: Tensor | None
    arkit: Tensor

    def __init__(
        self,
        arrays: Mapping[str, Any],
        *,
        name: str,
        shape_names: Sequence[str] | None = None,
        expression_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.shape_names = names("shape", shape_names, 100)
        self.expression_names = names("expression", expression_names, 50)
        tensors = check_arrays(arrays, name)
        self.topology = Topology(
            faces=tensors["faces"],
            uvs=tensors["uvs"],
            uv_faces=tensors["uv_faces"],
            face_mask=tensors["face_mask"][None, None],
            vertex_count=len(tensors["template"]),
        )
        self.parents = tuple(tensors["parents"].tolist())
        if self.parents[0] != -1 or any(not 0 <= parent < joint for joint, parent in enumerate(self.parents) if joint):
            raise InputError(f"head '{name}': parents must be −1 for the root, then earlier joints; got {self.parents}")
        corrective = tensors.get("corrective_directions", torch.zeros(0, self.topology.vertex_count, 3))
        linear = torch.cat([tensors["shape_directions"], tensors["expression_directions"]])
        directions = torch.cat([linear, tensors["pose_directions"], corrective])  # (186 + K, V, 3)
        # All blendshapes are one matrix, coordinate by coordinate, so that a batch is one matrix product and skinning
        # runs over contiguous rows of vertices.
        self.constant("basis", directions.transpose(1, 2).flatten(1).contiguous())
        self.constant("base", tensors["template"].T.flatten().contiguous())
        regressor = tensors["joint_regressor"].double()
        self.constant("joint_basis", torch.einsum("jv,kvc->kjc", regressor, linear.double()).flatten(1).float())
        self.constant("joint_base", (regressor @ tensors["template"].double()).flatten().float())
        self.constant("joint_regressor", tensors["joint_regressor"])
        self.constant("faces", tensors["faces"])
        self.constant("skin", tensors["weights"].T.contiguous())
        for key in ARRAYS:
            if key.split("_")[0] in ("landmark", "contour", "iris", "mediapipe", "mirror") or key == "corrective_pairs":
                self.constant(key, tensors.get(key))
        self.constant("shape_mirror", tensors.get("shape_mirror"))
        self.constant("expression_mirror", tensors.get("expression_mirror"))
        arkit = tensors.get("arkit")
        self.arkit_given = arkit is not None
        self.constant("arkit", arkit_from_names(self.expression_names) if arkit is None else arkit)

    @staticmethod
    def from_arrays(
        arrays: Mapping[str, Any],
        *,
        name: str = "custom",
        shape_names: Sequence[str] | None = None,
        expression_names: Sequence[str] | None = None,
    ) -> HeadModel:
        """A head from the arrays of this module's table (NumPy arrays or tensors, any float width).

        Raises:
            InputError: an array is missing, unknown, of the wrong shape, not finite or points outside the mesh.
        """
        return HeadModel(arrays, name=name, shape_names=shape_names, expression_names=expression_names)

    def arrays(self) -> dict[str, Tensor]:
        """The arrays of this module's table, on the CPU; the inverse of :meth:`from_arrays`."""
        vertex_count = self.topology.vertex_count
        directions = self.basis.cpu().unflatten(1, (3, vertex_count)).transpose(1, 2).contiguous()
        result = {
            "template": self.template.cpu().contiguous(),
            "shape_directions": directions[:100],
            "expression_directions": directions[100:150],
            "pose_directions": directions[150:186],
            "weights": self.skin.cpu().T.contiguous(),
            "parents": torch.tensor(self.parents),
            "faces": self.topology.faces,
            "uvs": self.topology.uvs,
            "uv_faces": self.topology.uv_faces,
            "face_mask": self.topology.face_mask[0, 0],
        }
        if self.corrective_pairs is not None:
            result["corrective_directions"] = directions[186:]
        for key in ARRAYS:
            derived = key == "corrective_directions" or (key == "arkit" and not self.arkit_given)
            if key not in result and not derived and getattr(self, key) is not None:
                result[key] = getattr(self, key).cpu()
        return result

    def save(self, path: str | Path) -> None:
        """Write the arrays and names as one safetensors file."""
        from safetensors.torch import save_file

        metadata = {
            "name": self.name,
            "shape_names": json.dumps(self.shape_names),
            "expression_names": json.dumps(self.expression_names),
        }
        with atomic_path(path) as temporary:
            save_file({key: value.contiguous() for key, value in self.arrays().items()}, temporary, metadata)

    @staticmethod
    def load(path: str | Path) -> HeadModel:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: no such file, or not a head.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise InputError(f"there is no head file {path}")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} is not a readable head file (safetensors): {error}") from None
        return HeadModel(
            arrays,
            name=metadata.get("name", path.stem),
            shape_names=json.loads(metadata.get("shape_names", "null")),
            expression_names=json.loads(metadata.get("expression_names", "null")),
        )

    @property
    def template(self) -> Tensor:
        """(V, 3), the mean head."""
        return self.base.view(3, -1).T

    @property
    def mediapipe(self) -> tuple[Tensor, Tensor] | None:
        """Places of MediaPipe's landmarks: face ids (478,), −1 if unknown, and barycentrics (478, 3); or None."""
        if self.mediapipe_faces is None:
            return None
        return self.mediapipe_faces, self.mediapipe_barycentric

    def forward(self, params: HeadParams, *, yaw: Tensor | None = None) -> HeadMesh:
        """Meshes of N heads; N counts all leading dimensions of ``params`` together (a single head gives N = 1).

        Args:
            params: on the device of this module
            yaw: (N,) radians, the turn of the head seen from the camera, which moves the landmarks of the face contour
                (0–16) along with the visible outline; by default the turn of the neck, as in FLAME
        """
        params = params.reshape(-1)
        rotations = matrix_from_axis_angle(
            torch.cat([params.neck, params.jaw, params.eyes], -1).unflatten(-1, (4, 3))
        )  # (N, 4, 3, 3)
        vertices, joints = self.skinned(torch.cat([params.shape, params.expression], -1), rotations)
        return HeadMesh(
            vertices=vertices,
            landmarks=self.landmarks(vertices, turn(rotations[:, 0]) if yaw is None else yaw),
            irises=self.points(vertices, self.iris_faces, self.iris_barycentric),
            joints=joints,
        )

    def points(self, vertices: Tensor, faces: Tensor, barycentric: Tensor) -> Tensor:
        """Points on the mesh: vertices (N, V, 3), face ids (P,) and barycentrics (P, 3) to (N, P, 3)."""
        corners = vertices[:, self.faces[faces]]  # (N, P, 3 corners, 3)
        return (corners * barycentric[..., None]).sum(-2)

    def at(self, faces: Tensor, barycentric: Tensor) -> SkinnedPoints:
        """The equation for P places on the mesh alone — face ids (P,), barycentrics (P, 3) —, quick enough to fit with.

        Each place blends its corners' arrays, skinning weights included; against the posed triangle that differs by
        hundredths of a millimetre.
        """
        corners = self.faces[faces]  # (P, 3)

        def blend(values: Tensor) -> Tensor:  # (…, V) to (…, P)
            return (values[..., corners] * barycentric).sum(-1)

        points = SkinnedPoints()
        points.constant("basis", blend(self.basis.unflatten(1, (3, -1))).flatten(1))
        points.constant("base", blend(self.base.view(3, -1)).flatten())
        points.constant("skin", blend(self.skin))
        for name in ("joint_basis", "joint_base", "corrective_pairs"):
            points.constant(name, getattr(self, name))
        points.parents = self.parents
        return points

    def landmarks(self, vertices: Tensor, yaw: Tensor) -> Tensor:
        """iBUG-68 landmarks (N, 68, 3) of vertices (N, V, 3); the contour follows ``yaw`` (N,)."""
        landmarks = self.points(vertices, self.landmark_faces, self.landmark_barycentric)
        if self.contour_yaws is None:
            return landmarks
        nearest = (yaw.detach()[:, None] - self.contour_yaws).abs().argmin(1)  # (N,)
        corners = self.faces[self.contour_faces[nearest]]  # (N, 17, 3)
        heads = torch.arange(len(vertices), device=vertices.device)[:, None, None]
        contour = (vertices[heads, corners] * self.contour_barycentric[nearest][..., None]).sum(-2)
        return torch.cat([contour, landmarks[:, 17:]], 1)

    def mirror(self, params: HeadParams) -> HeadParams:
        """Parameters of the mirrored head (x → −x): left and right exchanged.

        Exact for the built-in head; for FLAME the least-squares mirror within its shape and expression spaces.
        """
        if self.shape_mirror is None or self.expression_mirror is None:
            raise InputError(f"head '{self.name}' holds no mirror maps, so its parameters cannot be mirrored")
        flip = torch.tensor([1.0, -1.0, -1.0], device=params.neck.device)
        return HeadParams(
            shape=params.shape @ self.shape_mirror.T,
            expression=params.expression @ self.expression_mirror.T,
            neck=params.neck * flip,
            jaw=params.jaw * flip,
            eyes=torch.cat([params.eyes[..., 3:] * flip, params.eyes[..., :3] * flip], -1),
        )

    def from_arkit(self, coefficients: Mapping[str, Any] | Tensor | np.ndarray | Sequence[float]) -> HeadParams:
        """Expression, jaw and eyes from ARKit's 52 blendshape coefficients.

        Args:
            coefficients: {name: value or (T,) values} with ARKit's names, missing ones being 0, or an array
                (..., 52) in the order of :data:`next3d.heads.arkit.ARKIT_NAMES`

        Exact for the built-in head. FLAME has no such directions: there the motion of the built-in head's landmarks is
        fitted by FLAME's first 50 expressions and its jaw, so fine forms (puffed cheeks, one-sided sneer) stay weak.
        """
        values = arkit_coefficients(coefficients).to(self.arkit.device)
        driven = values @ self.arkit
        return HeadParams(expression=driven[..., :50], jaw=driven[..., 50:53], eyes=driven[..., 53:])

    def clamp(self, params: HeadParams) -> HeadParams:
        """Angles brought within anatomical limits (:data:`LIMITS`), with a warning that says which were not."""
        changes = {}
        for name, limits in LIMITS.items():
            low, high = torch.deg2rad(torch.tensor(limits, device=params.neck.device)).T
            value = getattr(params, name)
            clamped = value.clamp(low, high)
            if not torch.equal(clamped, value):
                worst = int((value - clamped).abs().reshape(-1, LENGTHS[name]).amax(0).argmax())
                extreme = float(value.reshape(-1, LENGTHS[name])[:, worst].abs().max()) * 180 / math.pi
                axis = ("left " if worst < 3 else "right ") * (name == "eyes") + f"about {'xyz'[worst % 3]}"
                warnings.warn(
                    f"{name} turned {extreme:.0f}° {axis}, beyond the anatomical range "
                    f"{limits[worst][0]:.0f}…{limits[worst][1]:.0f}°: clamped (angles are in radians)",
                    stacklevel=2,
                )
                changes[name] = clamped
        return params.replace(**changes) if changes else params

    def params(self, **values: Any) -> HeadParams:
        """Parameters by name: ``head.params(mouthSmileLeft=1.0, jawOpen=0.3, yaw=0.2)``.

        Names are ARKit's, those of the expression and shape directions (``shape.NAME`` where an expression has the same
        name), and ``neck``, ``jaw`` and ``eyes``.
        """
        return params_by_name(self, values)


def turn(rotation: Tensor) -> Tensor:
    """The angle about y (N,) of rotations (N, 3, 3) taken as R_z · R_y · R_x, as FLAME chooses its contour."""
    return torch.atan2(-rotation[:, 2, 0], (rotation[:, 0, 0] ** 2 + rotation[:, 1, 0] ** 2).sqrt())


def params_by_name(head: HeadModel, values: Mapping[str, Any]) -> HeadParams:
    """See :meth:`HeadModel.params`."""
    arkit: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    shape, expression = torch.zeros(100), torch.zeros(50)
    for name, value in values.items():
        if name in LENGTHS:
            fields[name] = value
        elif name in ARKIT_NAMES:
            arkit[name] = value
        elif name in head.expression_names:
            expression[head.expression_names.index(name)] = float(value)
        elif name.removeprefix("shape.") in head.shape_names:
            shape[head.shape_names.index(name.removeprefix("shape."))] = float(value)
        else:
            known = list(dict.fromkeys([*LENGTHS, *ARKIT_NAMES, *head.expression_names, *head.shape_names]))
            close = difflib.get_close_matches(name, known, 3)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise InputError(f"head '{head.name}' has no parameter '{name}'{hint}")
    driven = head.from_arkit(arkit).to("cpu")
    return driven.replace(shape=shape, expression=expression + driven.expression, **fields)


def names(kind: str, given: Sequence[str] | None, count: int) -> list[str]:
    """Check or make up one name per parameter."""
    if given is None:
        return [f"{kind}{i}" for i in range(count)]
    if len(given) != count or len(set(given)) != count:
        raise InputError(f"a head needs {count} different {kind} names, got {len(given)}")
    return list(given)


def check_arrays(arrays: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """The arrays as tensors (float32 or int64) after checking names, shapes, finiteness and indices."""
    unknown = sorted(set(arrays) - set(ARRAYS))
    missing = sorted(key for key, (_, required) in ARRAYS.items() if required and key not in arrays)
    if unknown or missing:
        problem = f"lacks '{missing[0]}'" if missing else f"holds an unknown array '{unknown[0]}'"
        raise InputError(f"head '{name}' {problem}; the arrays of a head are listed in next3d.heads.head_model")
    tensors: dict[str, Tensor] = {}
    sizes: dict[str, int] = {}
    for key, (shape, _) in ARRAYS.items():
        if key not in arrays:
            continue
        tensor = torch.as_tensor(arrays[key])
        for wanted, got in zip(shape, tensor.shape):
            if isinstance(wanted, str):
                sizes.setdefault(wanted, got)
        expected = tuple(sizes.get(size, 0) if isinstance(size, str) else size for size in shape)
        if tuple(tensor.shape) != expected:
            raise InputError(f"head '{name}': '{key}' has shape {tuple(tensor.shape)}, expected {expected}")
        if key in INDICES:
            tensor = tensor.long()
        else:
            scale = 255 if tensor.dtype == torch.uint8 else 1
            tensor = tensor.to(torch.float32) / scale
            if not torch.isfinite(tensor).all():
                raise InputError(f"head '{name}': '{key}' holds NaN or infinity")
        tensors[key] = tensor
    for key, space in INDICES.items():
        if key in tensors and tensors[key].numel():
            count = {"parents": 5, "corrective_pairs": 50}.get(key) or sizes[space or ""]
            lowest = -1 if key in ("parents", "mediapipe_faces") else 0
            if int(tensors[key].min()) < lowest or int(tensors[key].max()) >= count:
                raise InputError(f"head '{name}': '{key}' holds an index outside 0…{count - 1}")
    groups = (("contour_faces", "contour_barycentric", "contour_yaws"), ("mediapipe_faces", "mediapipe_barycentric"))
    for group in (*groups, ("shape_mirror", "expression_mirror"), ("corrective_pairs", "corrective_directions")):
        present = [key for key in group if key in tensors]
        if present and len(present) < len(group):
            absent = next(key for key in group if key not in tensors)
            raise InputError(f"head '{name}' holds '{present[0]}' without '{absent}'")
    return tensors
