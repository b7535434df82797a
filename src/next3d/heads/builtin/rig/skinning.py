"""Joints, skinning weights, and the pose correctives that undo what linear blending does wrong."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from . import lids
from .anatomy import MM, Anatomy, Array, smoothstep
from .jaw import hinge, jaw_weights
from .mirror import mirror_rotation_feature

PARENTS = np.array([-1, 0, 1, 1, 1])


def joint_positions(anatomy: Anatomy) -> Array:
    """(5, 3) root, neck, jaw, left eye, right eye."""
    base = anatomy.vertices[anatomy.neck].mean(0)
    chin, ear = anatomy.points["chin"], anatomy.points["ear"]
    neck = np.array([0.0, chin[1] - 5 * MM, ear[2] - 18 * MM])
    return np.array([[0.0, *base[1:]], neck, hinge(anatomy), anatomy.spheres[0][0], anatomy.spheres[1][0]])


def affine_weights(points: Array, target: Array) -> Array:
    """(P,) the smallest weights that sum to 1 and whose mean of ``points`` (P, 3) is ``target`` (3,)."""
    a = np.c_[points / 0.1, np.ones(len(points))].T
    return np.linalg.lstsq(a, np.r_[target / 0.1, 1.0], rcond=None)[0]


def joint_regressor(anatomy: Anatomy, joints: Array) -> Array:
    """(5, V) rows sum to 1. Each joint hangs on skin that expressions leave alone; an eye's on its ball."""
    x, p = anatomy.vertices, anatomy.points
    skin = anatomy.is_skin
    near_ear = skin & (np.linalg.norm((np.abs(x) - np.abs(p["ear"])) * [1, 1, 0], axis=1) < 45 * MM)
    near_ear &= np.abs(x[:, 2] - p["ear"][2]) < 45 * MM
    near_ear &= np.abs(x[:, 0]) > 0.6 * p["ear"][0]
    neck = skin & (np.abs(x[:, 1] - joints[1, 1]) < 25 * MM) & (x[:, 2] < joints[2, 2])
    root = np.zeros(anatomy.count, bool)
    root[anatomy.neck] = True
    balls = []
    for eye in anatomy.eyes:
        mask = np.zeros(anatomy.count, bool)
        mask[eye.ball] = True
        balls.append(mask)
    regressor = np.zeros((5, anatomy.count))
    for joint, mask in enumerate([root, neck, near_ear, *balls]):
        index = np.flatnonzero(mask)
        regressor[joint, index] = affine_weights(x[index], joints[joint])
    for joint in (0, 1, 2):  # exactly symmetric
        regressor[joint] = (regressor[joint] + regressor[joint, anatomy.mirror]) / 2
    regressor[4] = regressor[3, anatomy.mirror]
    return regressor


def skinning_weights(anatomy: Anatomy) -> Array:
    """(V, 5) rows sum to 1: root at the end of the neck, the neck joint's above the skull base, jaw, balls."""
    x, p = anatomy.vertices, anatomy.points
    end = x[anatomy.neck, 1].max() + 2 * MM
    # Where the neck meets the head: under the chin in front, at the hairline behind.
    front, back = p["chin"] + np.array([0, -14, -28]) * MM, p["occiput"] + np.array([0, -75, 20]) * MM
    slope = (front[1] - back[1]) / (front[2] - back[2])
    top = front[1] + slope * (x[:, 2] - front[2])
    head = smoothstep(0, 1, (x[:, 1] - end) / np.maximum(top - end, 1 * MM))
    head = 0.5 * head + 0.5 * np.clip((x[:, 1] - end) / np.maximum(top - end, 1 * MM), 0, 1)
    head[~anatomy.is_skin] = 1
    head[anatomy.neck] = 0
    jaw = jaw_weights(anatomy)
    weights = np.zeros((anatomy.count, 5))
    weights[:, 0] = 1 - head
    weights[:, 1] = head * (1 - jaw)
    weights[:, 2] = head * jaw
    for joint, eye in zip((3, 4), anatomy.eyes):
        weights[eye.ball] = np.eye(5)[joint]
    weights[:, :3] = (weights[:, :3] + weights[anatomy.mirror, :3]) / 2
    return weights


def arc_correctives(anatomy: Anatomy, weight: Array, joint: Array, degrees: Array, samples: int = 60) -> Array:
    """(9, V, 3) added before skinning, these make a vertex of weight w turn by w of the angle, along the arc.

    Linear blending takes the chord instead, which pinches throat and cheeks. Fitted over turns up to ``degrees``.
    """
    random = np.random.default_rng(0)
    half = random.uniform(-1, 1, (samples // 2, 3)) * degrees
    vectors = np.radians(np.concatenate([half, half * [1, -1, -1]]))
    index = np.flatnonzero((weight > 1e-4) & (weight < 1 - 1e-4) & anatomy.is_skin)
    d, w = anatomy.vertices[index] - joint, weight[index]
    features, wanted = [], []
    for vector in vectors:
        full = Rotation.from_rotvec(vector).as_matrix()
        part = Rotation.from_rotvec(w[:, None] * vector).as_matrix()
        blend = (1 - w)[:, None, None] * np.eye(3) + w[:, None, None] * full
        target = np.einsum("vij,vj->vi", part, d)
        wanted.append(np.linalg.solve(blend, target[..., None])[..., 0] - d)
        features.append((full - np.eye(3)).ravel())
    a, b = np.array(features), np.array(wanted).reshape(len(vectors), -1)
    fit = np.linalg.solve(a.T @ a + 1e-6 * np.eye(9), a.T @ b).reshape(9, len(index), 3)
    out = np.zeros((9, anatomy.count, 3))
    out[:, index] = fit
    return out


GAZE_UP, GAZE_DOWN = np.radians(25.0), np.radians(30.0)  # turns at which the lids were measured
LIDS_UP, LIDS_DOWN = (2.1, 2.0), (-3.2, -1.9)  # mm that the upper and the lower margin go with them


def gaze_correctives(anatomy: Anatomy, side: int) -> Array:
    """(9, V, 3) lids that go up and down with the eye, for the entries of the eye's R − I."""
    up = lids.raise_lids(anatomy, side, *LIDS_UP)
    down = lids.raise_lids(anatomy, side, *LIDS_DOWN)
    # sin and cos − 1 of the turn about x that pass through both fields
    system = np.array([[-np.sin(GAZE_UP), np.cos(GAZE_UP) - 1], [np.sin(GAZE_DOWN), np.cos(GAZE_DOWN) - 1]])
    odd, even = np.einsum("ab,bvc->avc", np.linalg.inv(system), np.stack([up, down]))
    out = np.zeros((9, anatomy.count, 3))
    out[7], out[5], out[4] = odd / 2, -odd / 2, even  # R[2, 1] = sin, R[1, 2] = −sin, R[1, 1] = cos
    return out


def pose_directions(anatomy: Anatomy, weights: Array, joints: Array) -> Array:
    """(36, V, 3) pose correctives of neck, jaw, left and right eye, exactly mirror-symmetric."""
    head = 1 - weights[:, 0]
    parts = [
        arc_correctives(anatomy, head, joints[1], np.array([40, 60, 30])),
        arc_correctives(anatomy, weights[:, 2], joints[2], np.array([32, 8, 5])),
        gaze_correctives(anatomy, 0),
        gaze_correctives(anatomy, 1),
    ]
    directions = np.concatenate(parts)
    return (directions + mirror_rotation_feature(directions, anatomy.mirror)) / 2
