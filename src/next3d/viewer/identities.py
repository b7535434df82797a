"""Identities by seed or name, blended in pairs; the last few stay baked."""

from __future__ import annotations

import threading
from collections import OrderedDict

import torch

from next3d.avatar import Avatar, sample
from next3d.errors import InputError
from next3d.generator.generator import Generator
from next3d.viewer.protocol import FrameRequest

KEPT = 24  # baked identities
STEPS = 50  # blends between two identities

Key = tuple[int | str, int | str | None, int, float]


class Identities:
    """The avatars that can be asked for.

    Args:
        model: draws seeds
        avatars: saved ones, by name
        dtype: in which identities are baked
        kept: how many stay baked; the least recently used goes first
    """

    def __init__(
        self, model: Generator, avatars: dict[str, Avatar] | None = None, dtype=torch.float32, kept: int = KEPT
    ) -> None:
        self.model, self.dtype, self.kept = model, dtype, kept
        self.saved = dict(avatars or {})
        self.baked: OrderedDict[Key, Avatar] = OrderedDict()
        self.lock = threading.Lock()

    def add(self, avatar: Avatar) -> str:
        """Make an avatar available; returns the name that it goes by."""
        with self.lock:
            name, count = avatar.name, 1
            while name in self.saved:
                count += 1
                name = f"{avatar.name} {count}"
            self.saved[name] = avatar
        return name

    def key(self, request: FrameRequest) -> Key:
        """What tells identities apart: both ends, the blend in steps, and the truncation if a seed is involved."""
        step = 0 if request.other is None else round(request.mix * STEPS)
        ends = (request.identity, request.other if step else None)
        if step == STEPS:
            ends, step = (request.other or 0, None), 0
        seeded = any(isinstance(end, int) for end in ends)
        return (*ends, step, round(request.truncation, 2) if seeded else 0.0)

    def get(self, key: Key) -> Avatar:
        """The avatar of a key, baked now if it was not.

        Raises:
            InputError: an unknown name.
        """
        with self.lock:
            if key in self.baked:
                self.baked.move_to_end(key)
                return self.baked[key]
        first, second, step, truncation = key
        avatar = self.single(first, truncation)
        if second is not None:
            avatar = blend(avatar, self.single(second, truncation), step / STEPS, self.dtype)
        _ = avatar.baked
        with self.lock:
            self.baked[key] = avatar
            while len(self.baked) > self.kept:
                self.baked.popitem(last=False)
        return avatar

    def single(self, identity: int | str, truncation: float) -> Avatar:
        """One identity, not baked."""
        if isinstance(identity, int):
            return sample(self.model, identity, truncation=truncation, dtype=self.dtype)
        saved = self.saved.get(identity)
        if saved is None:
            raise InputError(f"there is no avatar '{identity}' here: /api/info lists them")
        return Avatar(saved.base, saved.ws, saved.shape, tuned=saved.tuned, name=saved.name, dtype=self.dtype)


def blend(first: Avatar, second: Avatar, weight: float, dtype: torch.dtype) -> Avatar:
    """The identity between two: latents, shapes and tuned tensors, linearly."""
    own = first.base.state_dict() if first.tuned or second.tuned else {}
    tuned = {
        name: torch.lerp(first.tuned.get(name, own[name]).float(), second.tuned.get(name, own[name]).float(), weight)
        for name in {*first.tuned, *second.tuned}
    }
    return Avatar(
        first.base,
        torch.lerp(first.ws, second.ws, weight),
        torch.lerp(first.shape, second.shape, weight),
        tuned=tuned,
        name=f"{first.name} – {second.name}",
        dtype=dtype,
    )
