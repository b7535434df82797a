"""Damped least squares (Levenberg–Marquardt) over a batch of independent problems, with robust weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jacfwd, vmap


@dataclass(frozen=True)
class Solution:
    """Where a batch of N problems ended.

    Attributes:
        x: (N, D)
        cost: (N,) half the sum of squared, weighted residuals
        information: (N, D, D) the Gauss–Newton approximation JᵀJ of the cost's second derivative at ``x``
    """

    x: Tensor
    cost: Tensor
    information: Tensor


def solve(
    residual: Callable[..., Tensor],
    x: Tensor,
    data: tuple[Tensor, ...],
    *,
    iterations: int = 15,
    damping: float = 1e-2,
    tolerance: float = 1e-5,
) -> Solution:
    """Minimise ½‖residual(x_n, *data_n)‖² for every n of a batch.

    Each problem has its own damping: a step that lowers the cost is taken and the damping eased, one that raises it
    is refused and the damping raised tenfold. Ends early when no accepted step changes any x by more than
    ``tolerance``.

    Args:
        residual: maps (D,) and the data of one problem to (M,); differentiable by forward mode.
        x: (N, D) start.
        data: tensors with a leading N.
    """
    one = vmap(residual)
    jacobian = vmap(jacfwd(residual))
    dampings = x.new_full((len(x),), damping)
    r = one(x, *data)  # (N, M)
    cost = 0.5 * r.square().sum(-1)  # (N,)
    information = None
    for _ in range(iterations):
        j = jacobian(x, *data)  # (N, M, D)
        information = j.mT @ j  # (N, D, D)
        gradient = (j.mT @ r[..., None])[..., 0]  # (N, D)
        diagonal = information.diagonal(dim1=-2, dim2=-1)
        step = -damped_solve(information, dampings[:, None] * diagonal + 1e-9, gradient)
        trial = x + step
        trial_r = one(trial, *data)
        trial_cost = 0.5 * trial_r.square().sum(-1)
        better = trial_cost < cost
        x = torch.where(better[:, None], trial, x)
        r = torch.where(better[:, None], trial_r, r)
        cost = torch.where(better, trial_cost, cost)
        dampings = torch.where(better, dampings * 0.2, dampings * 10).clamp(1e-7, 1e7)
        moved = torch.where(better[:, None], step.abs(), torch.zeros_like(step)).amax()
        if moved < tolerance:
            break
    if information is None:
        j = jacobian(x, *data)
        information = j.mT @ j
    return Solution(x, cost, information)


def damped_solve(matrix: Tensor, diagonal: Tensor, vector: Tensor) -> Tensor:
    """(matrix + diag(diagonal))⁻¹ · vector for (N, D, D), (N, D), (N, D)."""
    factor = torch.linalg.cholesky_ex(matrix + torch.diag_embed(diagonal)).L
    return torch.cholesky_solve(vector[..., None], factor)[..., 0]
