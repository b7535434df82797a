"""Everything that a training run can be told: one typed, frozen tree; each constant stands here once, with its source.

Sources: "paper" is Next3D (Sun et al. 2023); "released" the recipe of the released Next3D code; "EG3D" (Chan et al.
2022), "StyleGAN2" (Karras et al. 2020) and "ADA" (Karras et al. 2020) the methods it builds on; "ours" was chosen here.
Counts called *images* are pictures shown to the discriminator (or reconstructed), counted over all processes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from next3d.discriminator import DiscriminatorConfig
from next3d.generator.config import GeneratorConfig


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam for both networks."""

    generator_learning_rate: float = 2.5e-3
    """Source: released (EG3D, StyleGAN2)."""
    discriminator_learning_rate: float = 2e-3
    """Source: released (EG3D)."""
    beta1: float = 0.0
    """Source: StyleGAN2."""
    beta2: float = 0.99
    """Source: StyleGAN2."""
    epsilon: float = 1e-8
    """Source: StyleGAN2."""
    gradient_bound: float = 1e5
    """Infinite gradients become ± this, NaN becomes 0, as in StyleGAN2's training loop. Source: released."""


@dataclass(frozen=True)
class AdversarialConfig:
    """The adversarial stage (paper, §3.5 and §3.6)."""

    r1_gamma: float = 4.0
    """Weight γ of the R1 penalty, γ/2 · ‖∂D‖². Source: released (for 512²)."""
    r1_interval: int = 16
    """Steps between R1 penalties (lazy regularisation). Source: StyleGAN2."""
    density_weight: float = 0.25
    """Weight of the density regularisation, Eq. 2 and 3. Source: released (EG3D)."""
    density_interval: int = 4
    """Steps between density regularisations. Source: released (EG3D)."""
    density_points: int = 1000
    """Points per sample, uniform in the box. Source: released (EG3D)."""
    density_distance: float = 0.004
    """Standard deviation of the perturbation, in world units. Source: released (EG3D)."""
    blur_sigma: float = 10.0
    """Blur of real and generated pictures at the start, pixels of the output. Source: released (EG3D, StyleGAN3)."""
    blur_fade_images: int = 200_000
    """Images over which the blur fades to nothing. Source: released (EG3D)."""
    swap_probability_start: float = 1.0
    """Probability that the generator is told another picture's camera, at the start. Source: released (EG3D)."""
    swap_probability: float = 0.5
    """The same after the fade. Source: released (EG3D)."""
    swap_fade_images: int = 1_000_000
    """Source: released (EG3D)."""
    synthetic_rendering: Literal["template", "uv"] = "template"
    """What colours the synthetic rendering: template coordinates or UV. Source: paper, §3.5 and its reference [35]."""
    ray_resolution_start: int = 0
    """Resolution of the ray image at the start; 0 = the generator's own throughout (paper, B). Source: EG3D option."""
    ray_resolution_fade_images: int = 1_000_000
    """Images over which the ray image grows to the generator's resolution. Source: EG3D."""


@dataclass(frozen=True)
class AugmentConfig:
    """Adaptive discriminator augmentation, an option."""

    enabled: bool = False
    """Source: released (off for FFHQ)."""
    target: float = 0.6
    """Where to hold the mean sign of D on real pictures. Source: ADA."""
    interval: int = 4
    """Steps between adjustments. Source: ADA."""
    speed_images: int = 500_000
    """Images in which p can go from 0 to 1. Source: ADA."""
    initial: float = 0.0
    """p at the start. Source: ADA."""


@dataclass(frozen=True)
class EmaConfig:
    """The averaged generator."""

    half_life_images: float = 10_000
    """Source: released: 10,000 images at batch 32, proportional to the batch."""
    half_life_batch: int = 32
    """The batch for which the half-life above is meant. Source: EG3D (batch · 10 / 32 thousand images)."""
    ramp_up: float = 0.05
    """The half-life is at most this fraction of the images seen; 0 = no ramp-up. Source: StyleGAN2-ADA."""


@dataclass(frozen=True)
class ReconstructConfig:
    """The reconstruction warm start (``--stage reconstruct``). Source of every constant: ours, by short trials.

    In its first part points are supervised where the true surface is known to be (cheap and without fog), in the second
    whole pictures are rendered.
    """

    learning_rate: float = 5e-3
    """Adam's learning rate at its peak."""
    beta1: float = 0.9
    """Momentum: the objective is a plain regression, not a game."""
    mapping_multiplier: float = 1.0
    """Learning-rate multiplier of the mapping network in this stage (0.01 learns next to nothing here)."""
    final_fraction: float = 0.05
    """The learning rate falls along half a cosine to this fraction of its peak at ``total_steps``."""
    warm_up_steps: int = 50
    """Steps over which the learning rate rises from zero."""
    views: int = 2
    """Pictures of one identity per set of identity planes; the batch is a multiple of it."""
    field_fraction: float = 0.5
    """Share of the steps that supervise points alone, before pictures are rendered."""
    pixels: int = 3072
    """Pixels per picture whose points are supervised."""
    small_part_weight: float = 8.0
    """How many times likelier a pixel of eyes, lips and mouth is drawn, and how many times it counts in pictures."""
    edge_bias: float = 6.0
    """How much likelier a pixel is drawn per unit of brightness difference to its neighbours."""
    surface_depth: float = 0.02
    """Thickness, in world units, of the layer behind the surface that must be opaque and have the picture's colour."""
    free_margin: float = 0.006
    """Distance before the true surface, in world units, up to which space must be empty."""
    colour_weight: float = 1.0
    """L1 on the colour of points on the surface, and of the background."""
    occupancy_weight: float = 0.5
    """Cross-entropy of points being empty or opaque."""
    factor_steps: int = 0
    """Steps in which the mapping learns the factory's factors alone, before the first picture; skipped where the warm
    start brings a mapping of its own."""
    factor_weight: float = 0.0
    """Weight of reading the factory's factors off w (see factors.py); only for the factory's 64-number latents."""
    factor_latents: int = 8
    """Latents per picture for that."""
    picture_pixels: int = 1024
    """Pixels per picture whose points are still supervised once pictures are rendered."""
    image_weight: float = 1.0
    """Weighted L1 on the output picture."""
    ray_weight: float = 0.5
    """Weighted L1 on the ray image."""
    edge_weight: float = 1.0
    """Weighted L1 on the differences of neighbouring pixels of the output picture: sharpness."""
    perceptual_weight: float = 0.0
    """Weighted distance of the output picture in the features of the bundled motion estimator, which has learned from
    the factory's pictures; 0 leaves it out."""
    texture_weight: float = 0.0
    """L1 on the contrast of fine structure in small windows, wherever it lies there: strands, rims, stubble."""
    adversarial_weight: float = 0.0
    """The generator's loss against a discriminator that is told each picture's latent; 0 trains without one. It
    learns by ``optimizer`` and the ``r1`` settings of ``adversarial``."""
    silhouette_weight: float = 0.02
    """Cross-entropy of ray opacity against the true silhouette."""
    depth_weight: float = 0.5
    """L1 on depth (world units) inside the silhouette."""
    gradient_clip: float = 1.0
    """Bound of the gradient's global norm; 0 = none."""


@dataclass(frozen=True)
class TrainingConfig:
    """One run."""

    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    reconstruct: ReconstructConfig = field(default_factory=ReconstructConfig)
    stage: Literal["adversarial", "reconstruct"] = "adversarial"
    """What to train for: the paper's adversarial objective, or the reconstruction warm start before it."""
    total_steps: int = 781_250
    """Optimisation steps of the run. Source: released (25 million images at batch 32)."""
    batch: int = 32
    """Pictures per step over all processes. Source: released."""
    accumulate: int = 1
    """Rounds in which each process works through its share of the batch, to save memory."""
    seed: int = 0
    """The seed of everything: weights, order of the data, noise. Every random number follows from it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    devices: int = 1
    """Processes (or GPUs) on this machine; under torchrun it is taken from there."""
    nodes: int = 1
    """Machines; under torchrun it is taken from there."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Arithmetic of the networks; losses and optimisers stay in float32."""
    mirror: bool = True
    """Show mirrored pictures as well, with camera and parameters mirrored. Source: paper, §4 (FFHQ with flips)."""
    workers: int = 2
    """Processes that read pictures, per training process."""
    checkpoint_every: int = 1000
    """Steps between checkpoints. Source: ours."""
    keep_checkpoints: int = 3
    """How many checkpoints stay. Source: ours."""
    sample_every: int = 1000
    """Steps between sample grids. Source: ours."""
    log_every: int = 50
    """Steps between lines of the log; each is the mean since the last. Source: ours."""
