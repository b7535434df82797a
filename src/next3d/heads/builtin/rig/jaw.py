"""How much of the jaw's turn each vertex takes."""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np

from .anatomy import MM, Anatomy, Array, Index
from .fields import harmonic, laplacian

# mm from the mean of the ears to the axis of the jaw. The joints of the jaw slide forward as it opens, so that it turns
# as if about an axis well below them, near the middle of the ascending bone.
HINGE = (0.0, -26.0, 2.0)


def hinge(anatomy: Anatomy) -> Array:
    """(3,) the middle of the axis about which the jaw turns, just in front of the ears."""
    return np.array([0.0, *anatomy.points["ear"][1:]]) + np.array(HINGE) * MM


def lip_profile(anatomy: Anatomy) -> Array:
    """(n,) weight of every mouth column: lower lip 1, upper lip 0, meeting near one half at the corners."""
    side = lip_side(anatomy)
    u = np.clip(1 - np.abs(side), 0, 1)  # 0 at the midline, 1 at the corner
    return np.where(side > 0, 0.47 * u**2.4, 1 - 0.53 * u**2.4)


def lip_side(anatomy: Anatomy) -> Array:
    """(n,) +1 at the middle of the upper lip, −1 at the middle of the lower, 0 at the corners, even along the lip."""
    mouth = anatomy.mouth
    n = mouth.rings.shape[1]
    contour = anatomy.vertices[mouth.rings[mouth.contact]]
    out = np.zeros(n)
    step = np.linalg.norm(np.roll(contour, -1, 0) - contour, axis=1)  # column j to j + 1
    stations = [
        (mouth.lower_mid, -1.0),
        (mouth.left, 0.0),
        (mouth.upper_mid, 1.0),
        (mouth.right, 0.0),
        (mouth.lower_mid, -1.0),
    ]
    for (a, va), (b, vb) in itertools.pairwise(stations):
        forward = np.arange(a, a + (b - a) % n + 1) % n
        backward = np.arange(a, a - ((a - b) % n) - 1, -1) % n
        path = forward if len(forward) <= len(backward) else backward
        length = np.r_[0, np.cumsum([step[i] if path is forward else step[j] for i, j in itertools.pairwise(path)])]
        out[path] = va + (vb - va) * length / length[-1]
    return out


@lru_cache(maxsize=2)
def jaw_weights(anatomy: Anatomy) -> Array:
    """(V,) 1 on the chin and the lower lip, 0 above the upper lip and behind the hinge, harmonic between."""
    x, p = anatomy.vertices, anatomy.points
    mouth = anatomy.mouth
    profile = lip_profile(anatomy)
    y, z = x[:, 1], x[:, 2]
    skin = anatomy.is_skin
    corner, chin, base = p["lip_corner"], p["chin"], p["subnasale"]
    in_mouth = np.zeros(anatomy.count, bool)
    in_mouth[mouth.rings] = True
    turn = hinge(anatomy)
    # The jaw bone: below a line from the lower lip to the angle of the jaw, in front of the throat.
    along = np.clip((z - turn[2] - 15 * MM) / (corner[2] - turn[2] - 15 * MM), 0, 1)
    top = (p["lower_lip"][1] - 3 * MM) * along + (turn[1] - 32 * MM) * (1 - along)
    bone = skin & (y < top) & (z > corner[2] - 18 * MM) & ~in_mouth
    bone &= (anatomy.normals[:, 1] > -0.55) | (z > chin[2] - 10 * MM)  # the skin under the chin stretches
    still = skin & (
        (y > base[1] + 2 * MM)
        | (z < turn[2] - 12 * MM)
        | (y < chin[1] - 66 * MM)
        | ((y > base[1] - 12 * MM) & (z < corner[2] - 10 * MM) & (y > corner[1] + 22 * MM))
    )
    still[np.concatenate([*anatomy.ears, *anatomy.nostrils, *(eye.rings.ravel() for eye in anatomy.eyes)])] = True
    still &= ~in_mouth
    lips = mouth.rings[max(mouth.border - 1, 0) :]
    values: list[tuple[Index, float | Array]] = [(np.flatnonzero(still), 0.0), (np.flatnonzero(bone & ~still), 1.0)]
    values += [(ring, profile) for ring in lips]
    weights = harmonic(anatomy, values)
    weights = np.clip(weights, 0, 1)
    soft = np.ones(anatomy.count)  # the edges of the bone, rounded; lips keep their profile
    soft[~skin] = soft[lips] = 0
    average = laplacian(anatomy)
    for _ in range(12):
        weights = weights + 0.5 * soft * (average @ weights)
    return (weights + weights[anatomy.mirror]) / 2
