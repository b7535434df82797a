"""Landmarks → camera, shape, expression and jaw: damped least squares on the head model, batched over pictures.

The unknowns of a picture are the head's pose in camera coordinates (rotation and translation), the jaw, the expression
and, where it is not yet known, the shape. Residuals are landmark distances in units of the detector's noise, plus
priors that keep a head plausible where the landmarks say nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from next3d.errors import InputError
from next3d.geometry.cameras import FOCAL, PIVOT, RADIUS, Camera, pinhole
from next3d.geometry.meshes import HEAD_SCALE, head_from_world, world_from_head
from next3d.geometry.rotations import axis_angle_from_matrix, matrix_derivatives, matrix_from_axis_angle
from next3d.heads.arkit import ARKIT_NAMES
from next3d.heads.head_model import HeadModel
from next3d.heads.params import HeadParams, smoothstep
from next3d.tracking.correspondence import Correspondence, find_correspondence
from next3d.tracking.least_squares import solve

# Standard deviation of a landmark as a share of the crop. The detector's own noise is a pixel or two of 512; the rest
# is misfit that neighbouring landmarks share, so that hundreds of them must not outvote the priors.
NOISE = 6.0 / 512
PLAUSIBLE = 2.5  # standard deviations of a shape parameter beyond which no head should go …
WALL = 6.0  # … and the residual per unit beyond it
NEGATIVE = 8.0  # residual per unit of a named expression below zero
BLOCKS = {"rotation": 3, "translation": 3, "jaw": 3, "expression": 50, "shape": 100}
SIZE = sum(BLOCKS.values())


def block(name: str) -> slice:
    """Where a block of unknowns lies in the full vector of 159."""
    start = 0
    for other, length in BLOCKS.items():
        if other == name:
            return slice(start, start + length)
        start += length
    raise KeyError(name)


@dataclass(frozen=True)
class Fit:
    """A fitted batch of N faces.

    Attributes:
        params: :class:`HeadParams` (N,), eyes zero (gaze is found afterwards, see :mod:`next3d.tracking.gaze`)
        camera: :class:`Camera` (N,) of the square crop
        residual: (N,) root mean square of the visible landmarks' distances per coordinate, as a share of the crop
        state: (N, 159) the unknowns; the rotation relative to ``reference``
        reference: (N, 3, 3) world-to-camera rotation that the state's rotation follows
        information: (N, D, D) of the unknowns solved for last
        free: (D,) which of the 159 those were
    """

    params: HeadParams
    camera: Camera
    residual: Tensor
    state: Tensor
    reference: Tensor
    information: Tensor
    free: Tensor


class FaceFitter:
    """Fits one head model to landmarks in square crops seen by a camera of fixed focal length.

    Args:
        head: any :class:`HeadModel` with places for MediaPipe's landmarks, or with the iBUG-68 landmarks alone.
        focal: focal length divided by the crop's side.
        expression_deviation: prior standard deviation of an expression parameter; by default 0.35 for a head whose
            expressions are named after ARKit's (they live in [0, 1]) and 1 for FLAME (standard deviations).
    """

    def __init__(self, head: HeadModel, *, focal: float = FOCAL, expression_deviation: float | None = None):
        self.head = head
        self.focal = focal
        self.places: Correspondence = find_correspondence(head)
        self.points = head.at(self.places.faces, self.places.barycentric)
        named = torch.tensor([name in ARKIT_NAMES for name in head.expression_names])
        self.positive = named.float()  # named expressions have no meaningful negative side
        if expression_deviation is None:
            expression_deviation = 0.35 if bool(named.any()) else 1.0
        deviation = torch.full((SIZE,), float("inf"))
        deviation[block("jaw")] = torch.tensor([0.25, 0.05, 0.03])
        deviation[block("expression")] = expression_deviation
        deviation[block("shape")] = 1.0
        self.precision = 1 / deviation  # (159,)

    def landmarks(self, state: Tensor, reference: Tensor) -> Tensor:
        """Crop coordinates (N, P, 2) of the head's landmarks for unknowns (N, 159)."""
        return self.project(self.camera_points(state, reference))

    def camera_points(self, state: Tensor, reference: Tensor) -> Tensor:
        """(N, P, 3) landmarks in camera coordinates, world units."""
        linear = torch.cat([state[:, block("shape")], state[:, block("expression")]], -1)
        still = torch.zeros_like(state[:, :3])
        pose = torch.stack([still, state[:, block("jaw")], still, still], 1)  # (N, 4, 3)
        points, _ = self.points.skinned(linear, matrix_from_axis_angle(pose))
        rotation = reference @ matrix_from_axis_angle(state[:, block("rotation")])
        return world_from_head(points) @ rotation.mT + state[:, None, block("translation")]

    def derivatives(self, state: Tensor, reference: Tensor, shape: bool = True) -> Tensor:
        """(N, P, 2, 159) derivatives of :meth:`landmarks` by the unknowns; those by the shape are zero on request.

        150 of the unknowns are blendshapes: a landmark moves by its direction, turned as its skin is, plus the way in
        which the jaw's hinge moves along. The jaw swings the skin about that hinge and drives the jaw's correctives.
        """
        seen = self.camera_points(state, reference)
        depth = seen[..., 2:].clamp_min(0.05)
        turn = HEAD_SCALE * reference @ matrix_from_axis_angle(state[:, block("rotation")])  # (N, 3, 3)
        projection = (
            self.focal
            / depth[..., None]
            * (torch.nn.functional.pad(torch.eye(2), (0, 1)) - third_column(seen[..., :2] / depth))
        )  # (N, P, 2, 3)
        world = (seen - state[:, None, block("translation")]) @ (turn / HEAD_SCALE)  # (N, P, 3)
        spins = reference[:, None] @ matrix_derivatives(state[:, block("rotation")])  # (N, 3, 3, 3)
        rotation = torch.einsum("npic,nkcd,npd->npik", projection, spins, world)
        translation = projection
        projection = projection @ turn[:, None]
        jaw = matrix_from_axis_angle(state[:, block("jaw")])  # (N, 3, 3)
        hinge = self.points.skin[2][:, None, None]  # (P, 1, 1)
        swing = jaw - torch.eye(3)
        skin = torch.eye(3) + hinge * swing[:, None]  # (N, P, 3, 3): only the jaw turns
        count = 150 if shape else 50
        basis = self.points.basis[150 - count : 150].unflatten(1, (3, -1))  # (K, 3, P)
        linear = torch.einsum("npic,kcp->npik", projection @ skin, basis)
        joints = self.points.joint_basis[150 - count : 150, 6:9]  # (K, 3): the jaw's
        blend = torch.cat([state[:, block("shape")], state[:, block("expression")]], -1)
        pivot = (self.points.joint_base[6:9] + blend @ self.points.joint_basis[:, 6:9])[:, None]  # (N, 1, 3)
        arm = torch.linalg.solve(skin, head_from_world(world) - pivot)  # (N, P, 3) from the hinge, before it turns
        swings = matrix_derivatives(state[:, block("jaw")])  # (N, 3, 3, 3)
        correctives = self.points.basis[159:168].unflatten(1, (3, -1))  # (9, 3, P)
        moved = hinge[:, 0] * torch.einsum("nkcd,npd->nkpc", swings, arm)
        moved = moved + torch.einsum("npcd,nke,edp->nkpc", skin, swings.flatten(2), correctives)
        jaws = torch.einsum("npic,nkpc->npik", projection, moved)
        rigid = torch.cat([rotation, translation, jaws], -1)  # (N, P, 2, 9)
        linear = linear - torch.einsum("npic,nck->npik", projection * hinge, swing @ joints.T)
        if shape:
            shapes, expressions = linear[..., :100], linear[..., 100:]
        else:
            shapes, expressions = linear.new_zeros(*linear.shape[:-1], 100), linear
        if self.points.corrective_pairs is not None:
            amount = state[:, block("expression")]
            inside = ((amount > 0) & (amount < 1)).float()
            amount = amount.clamp(0, 1)
            first, second = self.points.corrective_pairs.T
            extra = torch.einsum(
                "npic,kcp->npik", projection @ skin, self.points.basis[186:].unflatten(1, (3, -1))
            )  # (N, P, 2, K)
            expressions = expressions.index_add(
                -1, first, extra * (amount[:, second] * inside[:, first])[:, None, None]
            )
            expressions = expressions.index_add(
                -1, second, extra * (amount[:, first] * inside[:, second])[:, None, None]
            )
        return torch.cat([rigid, expressions, shapes], -1)

    def project(self, points: Tensor) -> Tensor:
        return self.focal * points[..., :2] / points[..., 2:].clamp_min(0.05) + 0.5

    def start(self, points: Tensor, shape: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """A first pose by weak perspective: unknowns (N, 159) and reference rotations (N, 3, 3) for (N, P, 2)."""
        state = points.new_zeros(len(points), SIZE)
        if shape is not None:
            state[:, block("shape")] = shape
        eye = torch.eye(3).expand(len(points), 3, 3)
        model = self.camera_points(state, eye)  # (N, P, 3), world
        centre, middle = model.mean(1), points.mean(1)
        affine = torch.linalg.lstsq(model - centre[:, None], points - middle[:, None]).solution.mT  # (N, 2, 3)
        left, scales, right = torch.linalg.svd(affine, full_matrices=False)
        rows = left @ right
        rotation = torch.cat([rows, torch.linalg.cross(rows[:, 0], rows[:, 1])[:, None]], 1)  # (N, 3, 3)
        depth = self.focal / scales.mean(1).clamp_min(1e-3)
        centre = (rotation @ centre[..., None])[..., 0]
        state[:, 3:5] = (middle - 0.5) * (depth / self.focal)[:, None] - centre[:, :2]
        state[:, 5] = depth - centre[:, 2]
        return state, rotation

    def weights(self, state: Tensor, reference: Tensor) -> Tensor:
        """(N, P) trust in each landmark: what faces away from the camera is guessed by the detector."""
        points = self.camera_points(state, reference)
        rotation = reference @ matrix_from_axis_angle(state[:, block("rotation")])
        facing = -(self.places.normals @ rotation.mT * normalize(points, dim=-1)).sum(-1)
        return self.places.weights * (0.02 + 0.98 * smoothstep((facing + 0.1) / 0.4))

    def solve(
        self,
        points: Tensor,
        state: Tensor,
        reference: Tensor,
        free: list[str],
        *,
        prior: Tensor | None = None,
        precision: Tensor | None = None,
        weights: Tensor | None = None,
        iterations: int = 12,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Improve the blocks named in ``free``.

        Args:
            points: (N, P, 2) observed landmarks in crop coordinates.
            prior, precision: (N, 159) expected unknowns and 1 / standard deviation; by default the head's own.

        Returns:
            the new state (N, 159), the information matrix (N, D, D) and the indices (D,) of the free unknowns.
        """
        index = torch.cat([torch.arange(SIZE)[block(name)] for name in free])
        spread = torch.eye(SIZE)[index]  # (D, 159)
        weights = self.weights(state, reference) if weights is None else weights
        scale = (weights.sqrt() / NOISE)[..., None]
        prior = torch.zeros_like(state) if prior is None else prior
        precision = self.precision.expand_as(state) if precision is None else precision
        fixed = state.clone()
        fixed[:, index] = 0

        def residual(x: Tensor) -> Tensor:
            full = fixed + x @ spread
            data = (self.landmarks(full, reference) - points) * scale
            expected = ((full - prior) * precision)[:, index]
            below = (-full[:, block("expression")]).relu() * self.positive * NEGATIVE
            beyond = (full[:, block("shape")].abs() - PLAUSIBLE).relu() * WALL
            return torch.cat([data.flatten(1), expected, below, beyond], 1)

        def derivatives(x: Tensor) -> Tensor:
            full = fixed + x @ spread
            data = (self.derivatives(full, reference, "shape" in free) * scale[..., None]).flatten(1, 2)[..., index]
            expected = torch.diag_embed(precision[:, index])
            below = torch.diag_embed((full[:, block("expression")] < 0).float() * self.positive * -NEGATIVE)
            below = torch.nn.functional.pad(below, (block("expression").start, BLOCKS["shape"]))[..., index]
            shape = full[:, block("shape")]
            beyond = torch.diag_embed((shape.abs() > PLAUSIBLE).float() * shape.sign() * WALL)
            beyond = torch.nn.functional.pad(beyond, (block("shape").start, 0))[..., index]
            return torch.cat([data, expected, below, beyond], 1)

        solution = solve(residual, state[:, index], derivatives=derivatives, iterations=iterations)
        return fixed + solution.x @ spread, solution.information, index

    @torch.no_grad()
    def fit(
        self,
        points: Tensor,
        *,
        shape: Tensor | None = None,
        start: tuple[Tensor, Tensor] | None = None,
        prior: Tensor | None = None,
        precision: Tensor | None = None,
        iterations: int = 12,
    ) -> Fit:
        """Fit every picture of a batch.

        Args:
            points: (N, 478, 2) MediaPipe landmarks in crop coordinates [0, 1], u right, v down.
            shape: (100,) or (N, 100) if it is known; solved for otherwise.
            start: unknowns (N, 159) and reference rotations (N, 3, 3) to start from, e.g. the frame before.

        Raises:
            InputError: landmarks of another number, or not finite.
        """
        if points.ndim != 3 or points.shape[1] != self.places.count or points.shape[2] != 2:
            raise InputError(f"landmarks have shape {tuple(points.shape)}, expected (N, {self.places.count}, 2)")
        if not torch.isfinite(points).all():
            raise InputError("landmarks hold NaN or infinity")
        points = points[:, self.places.indices].float()
        free = ["rotation", "translation", "jaw", "expression"] + (["shape"] if shape is None else [])
        if start is None:
            state, reference = self.start(points, shape)
            state, *_ = self.solve(points, state, reference, free[:2], iterations=8)
            state, *_ = self.solve(points, state, reference, free[:2], iterations=4)  # with the weights of that pose
        else:
            state, reference = start
        state, information, index = self.solve(
            points, state, reference, free, prior=prior, precision=precision, iterations=iterations
        )
        if start is None:  # landmarks that stay far off are outliers: weigh them down and look again
            weights = self.weights(state, reference)
            distance = (self.landmarks(state, reference) - points).norm(dim=-1) / NOISE
            weights = weights / (distance / 2.5).clamp_min(1)
            state, information, index = self.solve(
                points, state, reference, free, prior=prior, precision=precision, weights=weights, iterations=iterations
            )
        return self.result(points, state, reference, information, index)

    def result(self, points: Tensor, state: Tensor, reference: Tensor, information: Tensor, index: Tensor) -> Fit:
        """Name the unknowns."""
        weights = self.weights(state, reference)
        squared = (self.landmarks(state, reference) - points).square().sum(-1)  # (N, P)
        residual = ((squared * weights).sum(1) / weights.sum(1) / 2).sqrt()
        params = HeadParams(
            shape=state[:, block("shape")], expression=state[:, block("expression")], jaw=state[:, block("jaw")]
        )
        camera = camera_from_pose(
            reference @ matrix_from_axis_angle(state[:, block("rotation")]), state[:, block("translation")], self.focal
        )
        return Fit(params, camera, residual, state, reference, information, index)

    def merge_shapes(self, fit: Fit) -> Tensor:
        """One shape (100,) for several fits of a person, each weighing by what its picture says about the shape.

        The information about the shape alone is the Schur complement of the other unknowns. Pictures of one person
        share their misfit, so many of them are averaged, not taken as so many independent witnesses.
        """
        is_shape = fit.free >= SIZE - BLOCKS["shape"]
        a = fit.information[:, ~is_shape][:, :, ~is_shape]
        b = fit.information[:, ~is_shape][:, :, is_shape]
        c = fit.information[:, is_shape][:, :, is_shape]
        marginal = c - b.mT @ torch.linalg.solve(a + 1e-6 * torch.eye(a.shape[-1]), b)  # (N, 100, 100)
        shape = fit.state[:, block("shape")]
        return torch.linalg.solve(marginal.mean(0), (marginal @ shape[..., None]).mean(0)[:, 0])


def third_column(ratio: Tensor) -> Tensor:
    """x/z and y/z (N, P, 2) as the third column of a projection's derivative (N, P, 2, 3)."""
    return torch.nn.functional.pad(ratio[..., None], (2, 0))


def camera_from_pose(rotation: Tensor, translation: Tensor, focal: float) -> Camera:
    """The camera of world-to-camera rotations (N, 3, 3) and translations (N, 3)."""
    cam2world = torch.zeros(len(rotation), 4, 4)
    cam2world[:, :3, :3] = rotation.mT
    cam2world[:, :3, 3] = -(rotation.mT @ translation[..., None])[..., 0]
    cam2world[:, 3, 3] = 1
    return Camera(cam2world, pinhole(focal).expand(len(rotation), 3, 3))


def rebase(state: Tensor, reference: Tensor, new: Tensor) -> Tensor:
    """The same poses with their rotations relative to other references ``new`` (3, 3) or (N, 3, 3)."""
    rotation = reference @ matrix_from_axis_angle(state[:, block("rotation")])
    state = state.clone()
    state[:, block("rotation")] = axis_angle_from_matrix(new.mT @ rotation)
    return state


def framing(camera: Camera) -> tuple[Tensor, Tensor]:
    """How a crop should change so that its camera sits where training cameras sit.

    Returns:
        (N, 2) where the pivot that every training camera looks at lies in the present crop, and (N,) by what factor
        the crop's side must grow so that the pivot is as far away as in training.
    """
    pivot = torch.tensor([PIVOT], dtype=camera.cam2world.dtype)
    uv, depth = camera.project(pivot.expand(*camera.batch_shape, 1, 3))
    return uv[..., 0, :], (RADIUS - PIVOT[2]) / depth[..., 0]
