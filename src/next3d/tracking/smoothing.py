"""Removing jitter from a clip without lag: every frame's fit, weighed by what it knows, and a smoothness prior.

Frame t's fit says x̂_t with information H_t. The smoothed path minimises

    Σ_t (x_t − x̂_t)ᵀ H_t (x_t − x̂_t)  +  Σ_t ‖S (x_{t−1} − 2 x_t + x_{t+1})‖²_H̄ ,

with H̄ the mean information and S = diag(τ²), τ the time constant of each unknown in frames. Where all frames know the
same this is a symmetric filter, which cannot lag, of response 1 / (1 + (τω)⁴); a frame that knows little — a hidden
face, a blurred one — takes its place from its neighbours.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import solveh_banded
from torch import Tensor

WINDOW = 256  # frames solved together; memory stays the same for any length
OVERLAP = 32


def smooth(states: Tensor, information: np.ndarray | Tensor, times: Tensor) -> Tensor:
    """The path of least cost.

    Args:
        states: (T, D) unknowns per frame.
        information: (T, D, D) of each; zero where a frame knows nothing. May be a memory map: it is read window by
            window.
        times: (D,) time constants in frames; 0 leaves an unknown as it is.

    Returns:
        (T, D)
    """
    frames = len(states)
    if frames < 3:
        return states
    if frames <= WINDOW:
        return solve_window(states, information, times)
    result = states.clone()
    start = 0
    while start < frames:
        end = min(start + WINDOW, frames)
        window = solve_window(states[start:end], information[start:end], times)
        keep = OVERLAP // 2 if start else 0  # the first half of an overlap stays the earlier window's
        result[start + keep : end] = window[keep:]
        if end == frames:
            break
        start = end - OVERLAP
    return result


def solve_window(states: Tensor, information: np.ndarray | Tensor, times: Tensor) -> Tensor:
    """One banded linear system for (T, D) states."""
    frames, size = states.shape
    h = np.asarray(information, np.float64)
    known = h[h.diagonal(axis1=1, axis2=2).sum(1) > 0]
    if len(known) == 0:
        return states
    scale = 1 / np.sqrt(np.maximum(known.mean(0).diagonal(), 1e-12))  # unknowns in units of their own uncertainty
    h = h * scale[:, None] * scale
    mean = known.mean(0) * scale[:, None] * scale + 1e-9 * np.eye(size)
    s = times.double().numpy() ** 2
    stiff = s[:, None] * mean * s
    x = states.double().numpy() / scale

    # Second differences D₂ᵀD₂ by diagonals, blockwise times `stiff`.
    coefficients = {0: np.zeros(frames), 1: np.zeros(frames), 2: np.zeros(frames)}
    for t in range(1, frames - 1):
        for i, a in ((t - 1, 1.0), (t, -2.0), (t + 1, 1.0)):
            for j, b in ((t - 1, 1.0), (t, -2.0), (t + 1, 1.0)):
                if j >= i:
                    coefficients[j - i][i] += a * b
    band = 3 * size - 1
    matrix = np.zeros((band + 1, frames * size))  # lower banded form: matrix[i − j, j]
    rows, columns = np.indices((size, size))
    for t in range(frames):
        for offset in range(min(3, frames - t)):
            block = coefficients[offset][t] * stiff + (h[t] + 1e-9 * np.eye(size) if offset == 0 else 0)
            i, j = (t + offset) * size + rows, t * size + columns
            lower = i >= j
            matrix[(i - j)[lower], j[lower]] = block[lower]
    right = np.einsum("tij,tj->ti", h, x).ravel() + 1e-9 * x.ravel()
    solution = solveh_banded(matrix, right, lower=True, check_finite=False)
    return torch.from_numpy(solution.reshape(frames, size) * scale).to(states.dtype)


class OneEuro:
    """The causal filter for live use (Casiez et al. 2012): a low-pass whose cutoff rises with speed.

    Args:
        cutoff: hertz at rest; lower is steadier.
        speed: how fast the cutoff rises with speed, in hertz per unit per second; higher lags less.
    """

    def __init__(self, cutoff: float = 1.5, speed: float = 4.0, derivative_cutoff: float = 2.0):
        self.cutoff, self.speed, self.derivative_cutoff = cutoff, speed, derivative_cutoff
        self.value: Tensor | None = None
        self.slope: Tensor | None = None

    def __call__(self, value: Tensor, seconds: float) -> Tensor:
        """The filtered value, ``seconds`` after the call before."""
        if self.value is None or self.slope is None or seconds <= 0:
            self.value, self.slope = value, torch.zeros_like(value)
            return value
        slope = (value - self.value) / seconds
        self.slope = torch.lerp(self.slope, slope, share(self.derivative_cutoff, seconds))
        cutoff = self.cutoff + self.speed * self.slope.abs()
        self.value = self.value + (value - self.value) * share(cutoff, seconds)
        return self.value


def share(cutoff: float | Tensor, seconds: float) -> float | Tensor:  # type: ignore[misc]
    """How much of a new value a first-order low-pass of ``cutoff`` hertz takes after ``seconds``."""
    turn = 2 * np.pi * cutoff * seconds
    return turn / (1 + turn)
