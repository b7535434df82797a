"""Damped least squares (Levenberg–Marquardt) over a batch of independent problems."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jvp, vmap


@dataclass(frozen=True)
class Solution:
    """Where a batch of N problems ended.

    Attributes:
        x: (N, D)
        cost: (N,) half the sum of squared residuals
        information: (N, D, D) the Gauss–Newton approximation JᵀJ of the cost's second derivative
    """

    x: Tensor
    cost: Tensor
    information: Tensor


def jacobian(residual: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """(N, M, D) derivatives of ``residual``: (N, D) → (N, M), whose rows depend on their own problem alone.

    One forward-mode pass per unknown, each for the whole batch at once.
    """
    directions = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    columns = vmap(lambda direction: jvp(residual, (x,), (direction.expand_as(x),))[1])(directions)  # (D, N, M)
    return columns.permute(1, 2, 0)


def solve(
    residual: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    derivatives: Callable[[Tensor], Tensor] | None = None,
    iterations: int = 15,
    damping: float = 1e-3,
    tolerance: float = 1e-4,
) -> Solution:
    """Minimise ½‖residual(x)_n‖² for every problem n of a batch.

    Each problem has its own damping: a step that lowers its cost is taken and the damping eased, one that raises it is
    refused and the damping raised tenfold. Ends early when no step changes an unknown by more than ``tolerance``.

    Args:
        residual: (N, D) → (N, M), row by row independent, differentiable by forward mode.
        x: (N, D), where to start.
        derivatives: (N, D) → (N, M, D), where there is a quicker way than :func:`jacobian`.
        iterations: at least 1.
    """
    r = residual(x)
    cost = 0.5 * r.square().sum(-1)  # (N,)
    dampings = torch.full_like(cost, damping)
    information = x.new_zeros(0)
    for _ in range(iterations):
        j = jacobian(residual, x) if derivatives is None else derivatives(x)  # (N, M, D)
        information = j.mT @ j
        gradient = (j.mT @ r[..., None])[..., 0]  # (N, D)
        diagonal = information.diagonal(dim1=-2, dim2=-1)
        factor = torch.linalg.cholesky_ex(information + torch.diag_embed(dampings[:, None] * diagonal + 1e-8)).L
        step = -torch.cholesky_solve(gradient[..., None], factor)[..., 0]
        trial = x + step
        trial_r = residual(trial)
        trial_cost = 0.5 * trial_r.square().sum(-1)
        better = trial_cost < cost
        x = torch.where(better[:, None], trial, x)
        r = torch.where(better[:, None], trial_r, r)
        cost = torch.where(better, trial_cost, cost)
        dampings = torch.where(better, dampings * 0.2, dampings * 10).clamp(1e-7, 1e7)
        if float(torch.where(better[:, None], step, torch.zeros_like(step)).abs().max()) < tolerance:
            break
    return Solution(x, cost, information)
