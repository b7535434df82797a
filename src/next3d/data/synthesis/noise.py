"""Smooth noise by hashing, evaluated once on fixed patterns: deterministic everywhere, no state."""

from __future__ import annotations

import numpy as np


def hashed(*integers: np.ndarray | int) -> np.ndarray:
    """Uniform numbers in [0, 1) from integers of any broadcastable shapes."""
    state = np.array(2166136261, np.uint32)
    with np.errstate(over="ignore"):
        for value in integers:
            state = (state ^ np.asarray(value).astype(np.int64).astype(np.uint32)) * np.uint32(16777619)
            state = (state ^ (state >> np.uint32(15))) * np.uint32(2246822519)
            state = state ^ (state >> np.uint32(13))
    return np.asarray(state.astype(np.float64) / 2**32)


def value_noise(points: np.ndarray, seed: int = 0) -> np.ndarray:
    """Smooth noise in [0, 1] with one random value per unit cell corner; points (..., D), D at most 3."""
    cell = np.floor(points).astype(np.int64)
    f = points - cell
    f = f * f * (3 - 2 * f)
    total = np.zeros(points.shape[:-1])
    dimensions = points.shape[-1]
    for corner in range(2**dimensions):
        bits = [(corner >> d) & 1 for d in range(dimensions)]
        weight = np.ones(points.shape[:-1])
        for d, bit in enumerate(bits):
            weight = weight * (f[..., d] if bit else 1 - f[..., d])
        total += weight * hashed(*(cell[..., d] + bit for d, bit in enumerate(bits)), seed)
    return total


def fractal_noise(points: np.ndarray, octaves: int = 3, seed: int = 0) -> np.ndarray:
    """Octaves of :func:`value_noise`, around 0, about ±1."""
    total, weight = np.zeros(points.shape[:-1]), 1.0
    for octave in range(octaves):
        total += weight * (2 * value_noise(points * 2.0**octave, seed + 31 * octave) - 1)
        weight *= 0.55
    return total / 1.2


def spots(points: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the nearest of one random point per unit cell, and that point's own random number in [0, 1)."""
    cell = np.floor(points).astype(np.int64)
    best = np.full(points.shape[:-1], np.inf)
    own = np.zeros(points.shape[:-1])
    dimensions = points.shape[-1]
    for neighbour in np.ndindex(*(3,) * dimensions):
        other = [cell[..., d] + neighbour[d] - 1 for d in range(dimensions)]
        squared = sum((other[d] + hashed(*other, seed + d + 1) - points[..., d]) ** 2 for d in range(dimensions))
        own = np.where(squared < best, hashed(*other, seed + 9), own)
        best = np.minimum(best, squared)
    return np.sqrt(best), own
