"""The rig of the built-in head: what makes a sculpted form move, as functions of its positions and named index sets.

``build(anatomy)`` gives the arrays of :mod:`next3d.heads.head_model`'s table but the UVs: joints and skinning
(``skinning``, ``jaw``), expressions (``expressions``, ``untangle``, ``settle``), eyelids (``lids``), identities
(``shapes``), landmarks (``landmarks``, ``mediapipe``) and mirror maps (``mirror``). ``sheets`` draws them to look at.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import expressions, landmarks, lids, mediapipe, mirror, settle, shapes, skinning, untangle
from .anatomy import Anatomy

SHAPE_NAMES, EXPRESSION_NAMES = shapes.NAMES, expressions.NAMES


def build(anatomy: Anatomy) -> dict[str, Any]:
    """The rig's arrays, named and shaped as in :mod:`next3d.heads.head_model`; directions in float32."""
    weights = skinning.skinning_weights(anatomy)
    joints = skinning.joint_positions(anatomy)
    expression, pairs = expressions.directions(anatomy)
    shape = shapes.directions(anatomy)
    edges = lids.edges(anatomy)
    shape = untangle.untangle_shapes(anatomy, shape, edges)
    shape = mirror.symmetrise(anatomy, shape, SHAPE_NAMES, shapes.ODD)
    driven, corrective = np.array(list(pairs)), np.stack(list(pairs.values()))
    expression, corrective = untangle.untangle(
        anatomy,
        shape,
        expression,
        driven,
        corrective,
        weights[:, 2],
        joints[2],
        edges,
        EXPRESSION_NAMES.index("mouthClose"),
    )
    expression = mirror.symmetrise(anatomy, expression, EXPRESSION_NAMES, expressions.ODD)
    pose = skinning.pose_directions(anatomy, weights, joints)
    closing = EXPRESSION_NAMES.index("mouthClose")
    shape, expression, corrective, pose = settle.settle(
        anatomy,
        (shape, expression, corrective, pose),
        mirror.all_mirror(SHAPE_NAMES, shapes.ODD, EXPRESSION_NAMES, expressions.ODD, driven),
        settle.Random(driven, weights[:, 2], joints[2], closing),
        lids.edges(anatomy, 0.5),
    )
    places, turned, iris = landmarks.inner_landmarks(anatomy), landmarks.contour(anatomy), landmarks.irises(anatomy)
    front = len(landmarks.CONTOUR_YAWS) // 2
    arrays = {
        "template": anatomy.vertices,
        "shape_directions": shape,
        "expression_directions": expression,
        "pose_directions": pose,
        "joint_regressor": skinning.joint_regressor(anatomy, joints),
        "weights": weights,
        "parents": skinning.PARENTS,
        "faces": anatomy.triangles,
        "landmark_faces": np.concatenate([turned.faces[front], places.faces]),
        "landmark_barycentric": np.concatenate([turned.barycentric[front], places.barycentric]),
        "contour_faces": turned.faces,
        "contour_barycentric": turned.barycentric,
        "contour_yaws": landmarks.CONTOUR_YAWS,
        "iris_faces": iris.faces,
        "iris_barycentric": iris.barycentric,
        "mirror_vertices": anatomy.mirror,
        "shape_mirror": mirror.parameter_mirror(shapes.NAMES, shapes.ODD),
        "expression_mirror": mirror.parameter_mirror(expressions.NAMES, expressions.ODD),
        "corrective_pairs": driven,
        "corrective_directions": corrective,
    }
    known = mediapipe.load()
    if known is not None:
        arrays |= {"mediapipe_faces": known.faces, "mediapipe_barycentric": known.barycentric}
    return {
        key: value.astype(np.float32 if np.issubdtype(value.dtype, np.floating) else np.int32)
        for key, value in arrays.items()
    }
