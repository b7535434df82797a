"""``next3d train-estimators``: the small networks that read expression, pose and identity off synthetic pictures."""

from __future__ import annotations

from pathlib import Path


def train_estimators(data: Path, out: Path, samples: int = 400_000, only: str = "", seed: int = 0) -> None:
    """Train the estimators that evaluate models of factory pictures, and measure them on held-out identities.

    Args:
        data: a dataset made by  next3d dataset synthesize  with several pictures per identity (--cameras 4).
        out: the folder for motion.safetensors, identity.safetensors and CARD.md.
        samples: how many pictures each network sees, repeats included.
        only: "motion" or "identity", to train one of them; both by default.
        seed: of weights, order and noise.
    """
    from next3d.metrics.train_estimators import KINDS, card
    from next3d.metrics.train_estimators import train_estimators as run

    print(card(run(data, out, kinds=[only] if only else KINDS, samples=samples, seed=seed)))
