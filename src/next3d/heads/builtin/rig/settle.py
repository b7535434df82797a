"""The last folds opened: directions moved by as little as it takes, by descent on the angles between faces.

Smoothing (:mod:`.untangle`) leaves slivers in the corners of eyes and lips that turn over in one head of ten. Here
random heads are drawn again, and where two neighbouring faces close like a book, or a face vanishes, the directions
of the vertices around follow the gradient that opens them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .anatomy import MIRROR, Anatomy, Array, Index
from .untangle import JAW, folded, neighbours

CHECKED, HEADS, STEPS, ROUNDS = 1000, 300, 110, 4
ACTIVE = 0.22  # share of the expressions that a random head shows
COSINE, AREA = 0.1, 0.12  # wanted of neighbouring faces, and of a face's share of its area at rest
RATE, FAITH = 2.5e-6, 2e-3  # metres a step, falling to a tenth; how strongly directions hold to what they were


class Random:
    """Random heads from the directions (n, V, 3) of shapes, expressions and correctives together."""

    def __init__(self, pairs: Index, jaw: Array, hinge: Array, pose: Array, closing: int):
        self.pairs, self.closing, self.hinge = torch.as_tensor(pairs), closing, torch.tensor(hinge).float()
        self.jaw, self.pose = torch.tensor(jaw).float(), torch.tensor(pose).float()  # (V,), (9, V, 3)
        self.generator = torch.Generator().manual_seed(11)

    def amounts(self, count: int) -> tuple[Tensor, Tensor]:
        """Coefficients (count, n) of the directions and the jaw's angles (count,)."""
        g = self.generator
        shape = (1.05 * torch.randn(count, 100, generator=g)).clamp(-2.5, 2.5)
        face = torch.rand(count, 50, generator=g) * (torch.rand(count, 50, generator=g) < ACTIVE)
        opened = torch.rand(count, generator=g)
        calm = torch.rand(count, generator=g) < 0.25  # at rest, mouth closed
        face[calm], opened[calm] = 0.0, 0.0
        face[:, self.closing] = torch.minimum(face[:, self.closing], opened)
        products = face[:, self.pairs[:, 0]] * face[:, self.pairs[:, 1]]
        return torch.cat([shape, face, products], 1), torch.deg2rad(JAW * opened)

    def heads(self, count: int, rest: Tensor, directions: Tensor, index: Tensor) -> Tensor:
        """(count, P, 3) the vertices ``index`` (P,), of rest positions (P, 3), by their directions (n, P, 3)."""
        amounts, angle = self.amounts(count)
        c, s = angle.cos(), angle.sin()
        turn = torch.zeros(count, 3, 3)
        turn[:, 0, 0], turn[:, 1, 1], turn[:, 2, 2], turn[:, 1, 2], turn[:, 2, 1] = torch.ones(count), c, c, -s, s
        feature = (turn - torch.eye(3)).flatten(1)
        x = rest + torch.einsum("hn,npc->hpc", amounts, directions)
        x = x + torch.einsum("hn,npc->hpc", feature, self.pose[:, index])
        d = x - self.hinge
        return x + self.jaw[index, None] * (d @ turn.transpose(1, 2) - d)


def tension(heads: Tensor, rest: Tensor, triangles: Tensor, pairs: Tensor) -> Tensor:
    """What is wanted of neighbouring faces and of areas, and missing, summed; zero where nothing nears a fold."""

    def normals(x: Tensor) -> tuple[Tensor, Tensor]:
        a, b, c = (x[:, triangles[:, k]] for k in range(3))
        n = torch.linalg.cross(b - a, c - a)
        size = (n.square().sum(-1) + 1e-24).sqrt()
        return n / size[..., None], size

    now, size = normals(heads)
    before, size_before = normals(rest[None])
    a, b = pairs.T
    wanted = (((before[:, a] * before[:, b]).sum(-1)) - 0.3).clamp(max=COSINE)  # no more than the form itself has
    missing = (wanted - (now[:, a] * now[:, b]).sum(-1)).clamp(min=0)
    return missing.square().sum() + (AREA - size / size_before).clamp(min=0).sum()


def settle(
    anatomy: Anatomy,
    directions: tuple[Array, Array, Array],
    mirror: Array,
    random: Random,
    hold: Index,
) -> tuple[Array, Array, Array]:
    """Directions (…, V, 3) of shapes, expressions and correctives with the last folds opened.

    Args:
        mirror: (n, n) signed permutation: directions of the mirrored head
        random: draws heads from them
        hold: vertices that keep their motion
    """
    triangles, everything = anatomy.triangles, torch.arange(anatomy.count)
    rest, fields = torch.tensor(anatomy.vertices).float(), torch.tensor(np.concatenate(directions)).float()
    edges = neighbours(triangles)
    skin = anatomy.is_skin[triangles].all(1)
    watched = np.zeros(len(triangles), bool)
    for _ in range(ROUNDS):
        bad = np.zeros(len(triangles), bool)
        for _ in range(CHECKED // 100):
            heads = random.heads(100, rest, fields, everything).numpy()
            bad |= folded(heads, anatomy.vertices, triangles, edges).any(0) & skin
        if not bad.any():
            break
        watched |= bad
        near = watched
        for _ in range(2):  # two rings of faces around, on both sides of the head
            touched = np.zeros(anatomy.count, bool)
            touched[triangles[near]] = True
            near = (touched | touched[anatomy.mirror])[triangles].any(1) & skin
        index, local = np.unique(triangles[near], return_inverse=True)
        outer = np.unique(triangles[~near])  # what other faces share stays, so that no fold is passed on
        free = ~np.isin(index, outer) & ~np.isin(index, hold)
        own = np.full(len(triangles), -1)
        own[near] = np.arange(near.sum())
        inner = own[edges]
        inner = torch.tensor(inner[(inner >= 0).all(1)])
        faces, flip = torch.tensor(local.reshape(-1, 3)), torch.tensor(np.searchsorted(index, anatomy.mirror[index]))
        signs, matrix = torch.tensor(MIRROR).float(), torch.tensor(mirror).float()
        places = torch.tensor(index)
        start = fields[:, places]
        change = torch.zeros_like(start, requires_grad=True)
        optimizer = torch.optim.Adam([change], lr=RATE)
        share = torch.ones(len(fields), 1, 1)
        share[:100] = 0.0  # shapes stay: alone they hardly fold
        for step in range(STEPS):
            optimizer.param_groups[0]["lr"] = RATE * 0.1 ** (step / STEPS)
            offset = share * change
            now = random.heads(HEADS, rest[places], start + offset, places)
            loss = tension(now, rest[places], faces, inner) / HEADS + FAITH * (offset * 1e3).square().sum()
            (gradient,) = torch.autograd.grad(loss, change)
            gradient = gradient + torch.einsum("mn,npc->mpc", matrix, gradient[:, flip] * signs)
            change.grad = gradient * torch.tensor(free)[:, None]
            optimizer.step()
        fields[:, places] = start + (share * change).detach()
    done = fields.numpy().astype(float)
    return done[:100], done[100:150], done[150:]
