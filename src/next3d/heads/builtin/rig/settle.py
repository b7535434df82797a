"""The last folds opened: directions moved by as little as it takes, by descent on the angles between faces.

Smoothing (:mod:`.untangle`) leaves slivers in the corners of eyes and lips that turn over in one head of ten. Here
thousands of random heads are drawn again, with gaze. Those in which a face nears a fold are kept to learn from: where
two of their neighbouring faces close like a book, or a face vanishes, the directions of the vertices around follow the
gradient that opens them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from next3d.geometry.rotations import matrix_from_axis_angle

from .anatomy import MIRROR, Anatomy, Array, Index
from .untangle import JAW, neighbours

CHECKED, WATCHED, HEADS, STEPS, ROUNDS = 2000, 10000, 240, 100, 16  # heads a round: whole, and around folds
KEPT = 4000  # heads near a fold, and heads with one, that are learnt from: the latest
SPREAD, ACTIVE = 1.15, 0.3  # deviation of the shapes, share of the expressions shown: more than is promised
COSINE, AREA = 0.45, 0.25  # wanted of neighbouring faces, and of a face's share of its area at rest
NEAR = 0.0  # the cosine between neighbours below which a face nears a fold
RATE, FAITH = 6e-6, 1e-4  # metres a step, falling to a tenth in every round; how strongly directions hold
SHAPES, EYES = 0.02, 0.3  # of that rate, for directions of which a head has many at once
STILL = 1.0  # gradients (per metre) well below this hardly move a direction
POSE = 36  # rows of pose correctives: neck, jaw, left eye, right eye × 9 entries of R − I


class Random:
    """Random heads from the directions (n, 3, V) of shapes, expressions, their products and pose together."""

    def __init__(self, pairs: Index, jaw: Array, hinge: Array, closing: int):
        self.pairs, self.closing = torch.as_tensor(pairs), closing
        self.jaw, self.hinge = torch.tensor(jaw).float(), torch.tensor(hinge).float()[:, None]  # (V,), (3, 1)
        self.generator = torch.Generator().manual_seed(11)

    def amounts(self, count: int) -> Tensor:
        """Coefficients (count, n) of the directions."""
        g = self.generator
        shape = (SPREAD * torch.randn(count, 100, generator=g)).clamp(-2.5, 2.5)
        face = torch.rand(count, 50, generator=g) * (torch.rand(count, 50, generator=g) < ACTIVE)
        opened = torch.rand(count, generator=g)
        calm = torch.rand(count, generator=g) < 0.2  # at rest, mouth closed
        face[calm], opened[calm] = 0.0, 0.0
        face[:, self.closing] = torch.minimum(face[:, self.closing], opened)
        products = face[:, self.pairs[:, 0]] * face[:, self.pairs[:, 1]]
        turned = torch.zeros(count, 4, 3)  # neck, jaw, left eye, right eye
        turned[:, 1, 0] = torch.deg2rad(JAW * opened)
        gaze = torch.rand(count, 1, 2, generator=g) * torch.tensor([50.0, 60.0]) - torch.tensor([25.0, 30.0])
        turned[:, 2:, :2] = torch.deg2rad(gaze)
        pose = matrix_from_axis_angle(turned) - torch.eye(3)
        return torch.cat([shape, face, products, pose.flatten(1)], 1)

    def heads(self, amounts: Tensor, rest: Tensor, directions: Tensor, index: Tensor | slice) -> Tensor:
        """(N, 3, P) the vertices ``index``, of rest positions (3, P), by their directions (n, 3, P)."""
        x = rest + (amounts @ directions.flatten(1)).unflatten(1, (3, -1))
        turn = amounts[:, -POSE:].view(-1, 4, 3, 3)[:, 1]
        return x + self.jaw[index] * (turn @ (x - self.hinge))


class Patch:
    """Some triangles (F, 3) of a mesh at rest (3, V): how their normals lie to each other as the vertices move."""

    def __init__(self, triangles: Tensor, rest: Tensor):
        self.triangles, self.pairs = triangles, torch.as_tensor(neighbours(triangles.numpy()))
        cosine, self.size = self.normals(rest[None])
        self.crease = cosine[0]

    def normals(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The cosines (N, P) between neighbours and doubled areas (N, F) at positions (N, 3, V)."""
        a, b, c = (x[:, :, self.triangles[:, k]] for k in range(3))
        n = torch.linalg.cross(b - a, c - a, dim=1)
        size = (n.square().sum(1) + 1e-24).sqrt()
        n = n / size[:, None]
        return (n[:, :, self.pairs[:, 0]] * n[:, :, self.pairs[:, 1]]).sum(1), size

    def folded(self, x: Tensor, cosine: float = -0.5, area: float = 0.03) -> Tensor:
        """(N, F) bool, as :func:`.untangle.folded`; a larger cosine and area find what nears a fold, too."""
        now, size = self.normals(x)
        turned = ((now < cosine) & (self.crease > -0.1)).float()
        count = torch.zeros_like(size).index_add_(1, self.pairs[:, 0], turned).index_add_(1, self.pairs[:, 1], turned)
        return (count >= 2) | (size < area * self.size)

    def tension(self, x: Tensor) -> Tensor:
        """What is wanted of neighbours and areas, and missing, summed; zero where nothing nears a fold."""
        now, size = self.normals(x)
        missing = ((self.crease - 0.3).clamp(max=COSINE) - now).clamp(min=0)  # no more than the form itself has
        return missing.square().sum() + (AREA - size / self.size).clamp(min=0).sum()


def settle(
    anatomy: Anatomy,
    directions: tuple[Array, Array, Array, Array],
    mirror: Array,
    random: Random,
    hold: Index,
) -> tuple[Array, Array, Array, Array]:
    """Directions (…, V, 3) of shapes, expressions, correctives and pose with the last folds opened.

    Args:
        mirror: (n, n) signed permutation: directions of the mirrored head
        random: draws heads from them
        hold: vertices that keep their motion
    """
    triangles = anatomy.triangles[anatomy.is_skin[anatomy.triangles].all(1)]
    rest = torch.tensor(anatomy.vertices.T).float()
    fields = torch.tensor(np.concatenate(directions)).float().transpose(1, 2).contiguous()  # (n, 3, V)
    before, whole = fields.clone(), Patch(torch.tensor(triangles), rest)
    partner, sign = np.abs(mirror).argmax(1), torch.tensor(mirror.sum(1)).float()
    signs = sign[:, None, None] * torch.tensor(MIRROR).float()[:, None]
    share = torch.ones(len(fields), 1, 1)
    share[:100] = SHAPES
    share[-POSE:-18], share[-18:] = 0.0, EYES  # of the pose, only what the eyes do to their lids
    watched = np.zeros(len(triangles), bool)
    near_heads = bad_heads = torch.zeros(0, len(fields))

    def draw(patch: Patch, places: Tensor | slice, count: int) -> Array:
        """Keep what folds of ``count`` random heads, and what nears it; (F,) bool, the faces that folded."""
        nonlocal near_heads, bad_heads
        bad = np.zeros(len(patch.triangles), bool)
        for _ in range(count // 100):
            amounts = random.amounts(100)
            heads = random.heads(amounts, rest[:, places], fields[:, :, places], places)
            found, nearly = patch.folded(heads), patch.folded(heads, NEAR, 0.1)
            bad |= found.any(0).numpy()
            bad_heads = torch.cat([bad_heads, amounts[found.any(1)]])[-KEPT:]
            near_heads = torch.cat([near_heads, amounts[nearly.any(1)]])[-KEPT:]
        return bad

    def pick(heads: Tensor, count: int) -> Tensor:
        return heads[torch.randint(len(heads), (count,), generator=random.generator)]

    for number in range(ROUNDS):
        bad = draw(whole, slice(None), CHECKED)
        watched |= bad
        if not watched.any():
            break
        near = watched
        for _ in range(2):  # two rings of faces around, on both sides of the head
            touched = np.zeros(anatomy.count, bool)
            touched[triangles[near]] = True
            near = (touched | touched[anatomy.mirror])[triangles].any(1)
        index, local = np.unique(triangles[near], return_inverse=True)
        outer = np.unique(triangles[~near])  # what other faces share stays, so that no fold is passed on
        free = torch.tensor(~np.isin(index, outer) & ~np.isin(index, hold))
        flip, places = torch.tensor(np.searchsorted(index, anatomy.mirror[index])), torch.tensor(index)
        part = Patch(torch.tensor(local.reshape(-1, 3)), rest[:, places])
        draw(part, places, WATCHED)
        start, drift = fields[:, :, places], (fields - before)[:, :, places]
        change = torch.zeros_like(start, requires_grad=True)
        optimizer = torch.optim.Adam([change], lr=RATE, eps=STILL)
        for step in range(STEPS):
            optimizer.param_groups[0]["lr"] = RATE * (1 - number / ROUNDS) * 0.1 ** (step / STEPS)
            offset = share * change
            amounts = torch.cat([pick(bad_heads, HEADS // 2), pick(near_heads, HEADS // 4), random.amounts(HEADS // 4)])
            now = random.heads(amounts, rest[:, places], start + offset, places)
            loss = part.tension(now) / HEADS + FAITH * ((drift + offset) * 1e3).square().sum()
            (gradient,) = torch.autograd.grad(loss, change)
            gradient = gradient + gradient[partner][:, :, flip] * signs
            change.grad = gradient * free
            optimizer.step()
        fields[:, :, places] = start + (share * change).detach()
    settled = fields.transpose(1, 2).contiguous().double().numpy()
    done = np.split(settled, np.cumsum([len(part) for part in directions])[:-1])
    return done[0], done[1], done[2], done[3]
