"""Help for the mapping network: let w say, linearly, what the factory reads off a latent.

A latent's axes choose a hair style by its quantile, a colour by its hue, and so on: curves and steps that every style
of every network would otherwise have to learn through one small mapping, which is the bottleneck of the warm start.
What a latent means is known without drawing a picture, so the mapping can learn it beside, from any number of latents.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from next3d.data.synthesis.identity import (
    AXES,
    BACKGROUNDS,
    BEARDS,
    CLOTHES,
    EARRINGS,
    GLASSES,
    HAIR,
    HATS,
    LATENT_SIZE,
    Identity,
)
from next3d.generator.mapping import Mapping
from next3d.training.randomness import stream_seed

CHOICES = {
    "hair": HAIR,
    "beard": BEARDS,
    "glasses": GLASSES,
    "hat": HATS,
    "earrings": EARRINGS,
    "clothes": CLOTHES,
    "background": BACKGROUNDS,
}
COLOURS = ("skin", "lips", "iris", "hair_colour", "brow_colour")
HUES = tuple(
    i for i, name in enumerate(AXES) if "hue" in name or name.endswith(("_colour", "_dye", "_tint", "earrings"))
)
WAVES = 3  # frequencies in which a hue is told
POOL = 16384  # latents whose factors are computed beforehand
TEACHING_BATCH = 512
TEACHING_RATE = 7e-3


def factors(latent: np.ndarray) -> np.ndarray:
    """What a latent (64,) means: (F,) colours, choices, quantiles, and waves of the quantiles that stand for hues."""
    who = Identity.of(latent)
    quantiles = np.array([who.quantile(name) for name in AXES])
    waves = [f(2 * np.pi * k * quantiles[list(HUES)]) for k in range(1, WAVES + 1) for f in (np.sin, np.cos)]
    chosen = [np.array([getattr(who, name) == choice for choice in choices]) for name, choices in CHOICES.items()]
    return np.concatenate([*(getattr(who, name) for name in COLOURS), *chosen, quantiles, *waves]).astype(np.float32)


class Factors(nn.Module):
    """A linear readout of the factors from w, and latents with their factors to train it and the mapping with."""

    latents: Tensor
    targets: Tensor

    def __init__(self, w_dim: int, seed: int):
        super().__init__()
        random = np.random.default_rng(stream_seed(seed, "factors"))
        latents = random.standard_normal((POOL, LATENT_SIZE)).astype(np.float32)
        targets = torch.from_numpy(np.stack([factors(latent) for latent in latents]))
        targets = (targets - targets.mean(0)) / targets.std(0).clamp_min(1e-3)
        self.readout = nn.Linear(w_dim, targets.shape[1])
        self.register_buffer("latents", torch.from_numpy(latents), persistent=False)
        self.register_buffer("targets", targets, persistent=False)

    def forward(self, mapping: Mapping, chance: Tensor) -> Tensor:
        """The share of the factors' variance that cannot be read off w; ``chance`` (…) in [0, 1) chooses latents."""
        rows = (chance.flatten() * POOL).long()
        return F.mse_loss(self.readout(mapping(self.latents[rows])[:, 0]), self.targets[rows])

    def teach(self, mapping: Mapping, steps: int, seed: int, show: bool) -> None:
        """Train a mapping and the readout alone; no pictures are needed, so this takes a minute or two.

        Args:
            mapping: of latents (N, 64) to ws; changed in place, its running mean of w included
            steps: of 512 latents each
            seed: of their order
            show: a progress bar
        """
        rates = [TEACHING_RATE / mapping.learning_rate, TEACHING_RATE]
        groups = [{"params": list(m.parameters()), "lr": lr} for m, lr in zip((mapping, self.readout), rates)]
        optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, rates, total_steps=steps, pct_start=0.05, cycle_momentum=False
        )
        draw = torch.Generator().manual_seed(stream_seed(seed, "teaching"))
        with tqdm(range(steps), "next3d: mapping", unit="step", disable=not show) as bar:
            for step in bar:
                loss = self(mapping, torch.rand(TEACHING_BATCH, generator=draw).to(self.latents.device))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                if step % 50 == 0:
                    bar.set_postfix(unread=f"{loss.item():.3f}")
        with torch.no_grad():
            mapping.network.average.copy_(mapping(self.latents)[:, 0].mean(0))
