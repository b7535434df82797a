"""Head parameters from meshes or 3D landmarks, by damped least squares on a head model, many at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from next3d.errors import InputError
from next3d.heads.head_model import HeadModel
from next3d.heads.params import LENGTHS, HeadParams

# Standard deviations of the prior: shape and expression are in such units already, angles are in radians.
SPREAD = {"shape": 1.0, "expression": 1.0, "neck": 0.2, "jaw": 0.2, "eyes": 0.2}
STEP = {"shape": 0.5, "expression": 0.5, "neck": 0.02, "jaw": 0.02, "eyes": 0.02}  # of the central differences
NOISE = {"vertices": 1e-5, "landmarks": 1e-3}  # metres: a mesh of the same topology is exact, landmarks never are
TOLERANCE = 2e-4  # metres RMS; worse fits are refined with their own derivative


class MeshFit:
    """Finds x = (shape, expression, neck, jaw, eyes) that minimises ‖f(x) − target‖² / noise² + ‖x / spread‖².

    f is nearly linear: blendshapes are, and skinning is for small angles. So the derivative at the neutral head is
    taken once, its damped normal matrix is factorised once, and every step is one product for a whole batch. What is
    still off then, heads with wide open jaws, takes a few Gauss–Newton steps with a derivative of its own.

    Args:
        head: the model to fit
        kind: "vertices" (of the same topology) or "landmarks" (iBUG-68)
    """

    def __init__(self, head: HeadModel, kind: str = "vertices"):
        self.head, self.kind = head, kind
        self.spread, self.step = (
            torch.cat([torch.full((length,), values[name]) for name, length in LENGTHS.items()]).double()
            for values in (SPREAD, STEP)
        )
        self.prior = torch.diag((NOISE[kind] / self.spread) ** 2)  # (162, 162)
        jacobian = self._jacobian(torch.zeros(len(self.step), dtype=torch.float64))
        self.pull = torch.linalg.solve(jacobian.T @ jacobian + self.prior, jacobian.T)  # (162, 3P)
        self.decay = torch.linalg.solve(jacobian.T @ jacobian + self.prior, self.prior)  # (162, 162)

    def _points(self, x: Tensor) -> Tensor:
        """(N, 162) to (N, 3P) float64."""
        mesh = self.head(HeadParams.from_vector(x.float()))
        return getattr(mesh, self.kind).flatten(1).double()

    def _jacobian(self, x: Tensor) -> Tensor:
        """(3P, 162), by central differences around x (162,)."""
        offsets = torch.diag(self.step)
        high, low = self._points(x + offsets), self._points(x - offsets)
        return ((high - low) / (2 * self.step[:, None])).T

    @torch.no_grad()
    def __call__(self, target: Tensor, *, iterations: int = 20) -> tuple[HeadParams, Tensor]:
        """Fit N heads.

        Args:
            target: (N, P, 3) vertices or landmarks, metres, head frame
            iterations: steps at most

        Returns:
            parameters (N,) and the RMS distance (N,) in metres between target and fit
        """
        goal = target.flatten(1).double()
        expected = self._points(torch.zeros(1, len(self.step), dtype=torch.float64)).shape[1]
        if goal.shape[1] != expected:
            raise InputError(
                f"the meshes have {goal.shape[1] // 3} {self.kind}, the head '{self.head.name}' has {expected // 3}: "
                "choose the head model that they were made with (--head)"
            )
        x = best = goal.new_zeros(len(goal), len(self.step))
        kept, least = goal, goal.new_full((len(goal),), torch.inf)
        for _ in range(iterations):
            residual = goal - self._points(x)
            cost = self._cost(residual, x)
            better = (cost < least)[:, None]
            settled = not (least - cost > 1e-4 * cost).any()
            best, kept, least = torch.where(better, x, best), torch.where(better, residual, kept), least.minimum(cost)
            if settled:
                break
            x = best + kept @ self.pull.T - best @ self.decay.T
        for index in torch.nonzero(self._rms(kept) > TOLERANCE)[:, 0] if self.kind == "vertices" else ():
            best[index] = self._refine(goal[index], best[index])
        return HeadParams.from_vector(best.float()), self._rms(goal - self._points(best)).float()

    def _cost(self, residual: Tensor, x: Tensor) -> Tensor:
        return (residual**2).sum(1) + ((x / self.spread) ** 2).sum(1) * NOISE[self.kind] ** 2

    def _rms(self, residual: Tensor) -> Tensor:
        """(N, 3P) to the root mean square distance (N,)."""
        return (3 * (residual**2).mean(1)).sqrt()

    def _refine(self, goal: Tensor, x: Tensor, iterations: int = 8) -> Tensor:
        """Levenberg–Marquardt from x (162,) towards one target (3P,)."""
        damping = 1e-4
        residual = goal - self._points(x[None])[0]
        cost = self._cost(residual[None], x[None])
        for _ in range(iterations):
            jacobian = self._jacobian(x)
            normal = jacobian.T @ jacobian + self.prior
            slope = jacobian.T @ residual - self.prior @ x
            for _ in range(6):
                step = torch.linalg.solve(normal + damping * torch.diag(normal.diagonal()), slope)
                there = goal - self._points((x + step)[None])[0]
                if (new := self._cost(there[None], (x + step)[None])) < cost:
                    break
                damping *= 8
            else:
                return x
            damping /= 4
            done = cost - new < 1e-5 * cost
            x, residual, cost = x + step, there, new
            if done:
                break
        return x
