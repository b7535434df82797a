"""Mirror images: of named parameters and of the fields that belong to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .anatomy import MIRROR, Anatomy, Array, Index


def partner(name: str) -> str:
    """mouthSmileLeft ↔ mouthSmileRight; other names are their own partners."""
    if name.endswith("Left"):
        return name[:-4] + "Right"
    if name.endswith("Right"):
        return name[:-5] + "Left"
    return name


def parameter_mirror(names: Sequence[str], odd: Sequence[str]) -> Array:
    """(n, n): parameters of the mirrored head = matrix @ parameters; ``odd`` names change sign."""
    matrix = np.zeros((len(names), len(names)))
    for row, name in enumerate(names):
        matrix[row, names.index(partner(name))] = -1 if name in odd else 1
    return matrix


def all_mirror(
    shapes: Sequence[str], odd_shapes: Sequence[str], names: Sequence[str], odd_names: Sequence[str], pairs: Index
) -> Array:
    """:func:`parameter_mirror` of shapes, expressions, products ``pairs`` (K, 2) of expressions and pose, together."""
    known = [tuple(pair) for pair in pairs.tolist()]
    product = np.zeros((len(known), len(known)))
    for row, pair in enumerate(known):
        product[row, known.index(tuple(names.index(partner(names[i])) for i in pair))] = 1
    parts = [parameter_mirror(shapes, odd_shapes), parameter_mirror(names, odd_names), product, pose_mirror()]
    matrix = np.zeros((sum(map(len, parts)),) * 2)
    start = 0
    for part in parts:
        matrix[start : start + len(part), start : start + len(part)] = part
        start += len(part)
    return matrix


def pose_mirror() -> Array:
    """(36, 36): the pose feature of the mirrored head; joints neck, jaw, left eye, right eye × 9 entries of R − I."""
    signs = np.outer(MIRROR, MIRROR).ravel()  # entry (i, j) of M R M
    return np.kron(np.eye(4)[[0, 1, 3, 2]], np.diag(signs))


def mirror_rotation_feature(directions: Array, mirror: Index) -> Array:
    """The mirror image of pose correctives (36, V, 3)."""
    return np.tensordot(pose_mirror(), directions[:, mirror] * MIRROR, 1)


def symmetrise(anatomy: Anatomy, directions: Array, names: Sequence[str], odd: Sequence[str]) -> Array:
    """Directions (n, V, 3) made exact mirror images of their partners."""
    matrix = parameter_mirror(names, odd)
    mirrored = np.tensordot(matrix, directions[:, anatomy.mirror] * MIRROR, 1)
    return (directions + mirrored) / 2
