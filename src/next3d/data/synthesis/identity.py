"""Sixty-four numbers that are a person: each axis of the latent is one factor, with no hidden rotation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from next3d.errors import InputError

# The axes that shape the head, and the shape parameters of the built-in head that each of them is. On another head the
# leading parameters take their place.
SHAPE_AXES: dict[str, tuple[str, ...]] = {
    "head_width": ("headWidth",), "head_height": ("headHeight",), "face_width": ("faceWidth",),
    "face_length": ("faceLength",), "jaw_width": ("jawWidth",), "chin_forward": ("chinForward",),
    "chin_width": ("chinWidth",), "cheekbones": ("cheekboneWidth",), "cheeks": ("cheekFullness",),
    "brow_ridge": ("browRidge",), "nose_length": ("noseLength",), "nose_forward": ("noseForward",),
    "nose_width": ("noseWidth",), "nose_bridge": ("noseBridgeHeight",), "nose_tip": ("noseTipUp",),
    "eye_size": ("eyeSize",), "eye_spacing": ("eyeSpacing",), "eye_tilt": ("eyeTilt",), "mouth_width": ("mouthWidth",),
    "lip_fullness": ("upperLipFullness", "lowerLipFullness"), "ears": ("earSize",), "masculine": ("masculine",),
    "fullness": ("fullness",), "childlike": ("childlike",),
}  # fmt: skip

AXES: tuple[str, ...] = (
    *SHAPE_AXES,
    *("skin_tone", "skin_warmth", "blotches", "freckles", "blush", "age"),
    *("lip_colour", "lip_depth", "makeup"),
    *("brow_thickness", "brow_density", "brow_tilt"),
    *("eye_hue", "eye_lightness"),
    *("hair_style", "hair_length", "hair_volume", "hair_wave", "hair_darkness", "hair_warmth", "hair_dye", "hair_part"),
    *("beard_style", "beard_length"),
    *("glasses", "glasses_shape", "glasses_colour", "lens_tint"),
    *("hat", "hat_hue"),
    "earrings",
    *("clothes", "clothes_hue", "clothes_lightness"),
    *("background", "background_hue", "background_lightness"),
    *("light_side", "light_height", "light_warmth"),
)
LATENT_SIZE = len(AXES)
assert LATENT_SIZE == 64

# What a person may wear or grow, with the share of people who do. The axis picks by its quantile, in this order.
HAIR = {
    "bald": 0.04, "buzz": 0.07, "crop": 0.14, "side": 0.13, "quiff": 0.08, "slick": 0.07, "fringe": 0.10,
    "bob": 0.10, "long": 0.11, "curly": 0.10, "bun": 0.06,
}  # fmt: skip
BEARDS = {"none": 0.56, "stubble": 0.14, "moustache": 0.08, "goatee": 0.08, "full": 0.14}
GLASSES = {"none": 0.68, "round": 0.09, "square": 0.09, "cat": 0.06, "sun": 0.08}
HATS = {"none": 0.80, "beanie": 0.07, "cap": 0.06, "brim": 0.04, "band": 0.03}
EARRINGS = {"none": 0.70, "stud": 0.12, "hoop": 0.10, "drop": 0.08}
CLOTHES = {"crew": 0.30, "turtleneck": 0.16, "shirt": 0.22, "hoodie": 0.16, "vneck": 0.16}
BACKGROUNDS = {"plain": 0.22, "gradient": 0.24, "bokeh": 0.28, "room": 0.26}

# sRGB from light to dark, at equal steps of the axis's quantile.
SKIN_TONES = np.array(
    [(250, 220, 202), (241, 198, 170), (228, 176, 141), (205, 148, 110), (172, 114, 78), (130, 80, 52), (88, 54, 38)]
) / 255.0  # fmt: skip
HAIR_COLOURS = (
    np.array([(218, 188, 142), (184, 140, 92), (128, 88, 56), (86, 54, 34), (52, 34, 26), (26, 20, 20)]) / 255.0
)
EYE_COLOURS = (
    np.array([(70, 42, 24), (104, 64, 32), (128, 98, 48), (96, 118, 70), (84, 124, 140), (92, 140, 186)]) / 255.0
)


def quantile(value: float) -> float:
    """The standard normal distribution function, kept inside (0, 1)."""
    return min(max(0.5 * math.erfc(-value / math.sqrt(2)), 1e-6), 1 - 1e-6)


def choose(shares: dict[str, float], value: float) -> str:
    """The entry whose band of quantiles holds ``value``, a standard normal number."""
    left = quantile(value) * sum(shares.values())
    for name, share in shares.items():
        left -= share
        if left < 0:
            return name
    return name


def ramp(colours: np.ndarray, position: float) -> np.ndarray:
    """Piecewise linear interpolation through the rows of ``colours`` at ``position`` in [0, 1]."""
    at = np.clip(position, 0, 1) * (len(colours) - 1)
    low = min(int(at), len(colours) - 2)
    return colours[low] + (at - low) * (colours[low + 1] - colours[low])


def from_hue(hue: float, saturation: float, value: float) -> np.ndarray:
    """HSV in [0, 1] to sRGB."""
    k = (np.array([5.0, 3.0, 1.0]) + 6 * hue) % 6
    return value - value * saturation * np.clip(np.minimum(k, 4 - k), 0, 1)


def linear(srgb: ArrayLike) -> np.ndarray:
    """sRGB in [0, 1] to linear light."""
    srgb = np.asarray(srgb, np.float64)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


@dataclass(frozen=True)
class Identity:
    """A person's factors, read off the latent. Colours are sRGB in [0, 1]; plain numbers are standard normal.

    ``axis`` maps the names of :data:`AXES` to the numbers of the latent.
    """

    axis: dict[str, float]
    skin: np.ndarray
    lips: np.ndarray
    iris: np.ndarray
    hair_colour: np.ndarray
    brow_colour: np.ndarray
    hair: str
    beard: str
    glasses: str
    hat: str
    earrings: str
    clothes: str
    background: str

    @staticmethod
    def of(latent: ArrayLike) -> Identity:
        """Read a latent of 64 numbers; pure.

        Raises:
            InputError: not 64 finite numbers.
        """
        numbers = np.asarray(latent, np.float64)
        if numbers.shape != (LATENT_SIZE,) or not np.isfinite(numbers).all():
            raise InputError(f"an identity is {LATENT_SIZE} finite numbers, got an array of shape {numbers.shape}")
        axis = dict(zip(AXES, numbers.tolist()))
        q = {name: quantile(value) for name, value in axis.items()}
        skin = ramp(SKIN_TONES, q["skin_tone"]) * (1 + 0.035 * axis["skin_warmth"] * np.array([0.5, -0.1, -0.7]))
        skin = np.clip(skin, 0.05, 0.97)
        depth = 0.42 + 0.10 * np.tanh(axis["lip_depth"])
        lipstick = np.clip((q["makeup"] - 0.62) / 0.3, 0, 1)
        rose = from_hue(0.985 + 0.02 * np.tanh(axis["lip_colour"]), 0.55, 0.25 + 0.6 * skin[0])
        paint = from_hue((0.96 + 0.045 * np.tanh(axis["lip_colour"])) % 1, 0.78, 0.62)
        lips = (1 - depth) * skin + depth * rose
        lips = lips + 0.65 * lipstick * (paint - lips)

        hair = ramp(HAIR_COLOURS, 0.12 + 0.85 * q["hair_darkness"] + 0.5 * (q["skin_tone"] - 0.5))
        hair = hair * (1 + np.clip(axis["hair_warmth"], -2, 2) * np.array([0.10, -0.01, -0.08]))
        brow = 0.75 * np.clip(hair, 0, 1) * np.array([0.95, 0.9, 0.9])
        if q["age"] > 0.80:  # the old go grey, hair first
            grey = (q["age"] - 0.80) / 0.20
            hair = hair + 0.92 * min(1, 1.6 * grey) * (
                np.array([0.80, 0.79, 0.78]) * (1 - 0.35 * q["hair_darkness"]) - hair
            )
            brow = brow + 0.5 * grey * (np.array([0.55, 0.54, 0.53]) - brow)
        if q["hair_dye"] > 0.965:
            hair = 0.7 * from_hue((0.5 + 20 * (q["hair_dye"] - 0.965)) % 1, 0.50, 0.62) + 0.3 * hair
        iris = ramp(EYE_COLOURS, q["eye_hue"] ** 1.25) * (1 + 0.16 * np.tanh(axis["eye_lightness"]))
        return Identity(
            axis=axis,
            skin=skin,
            lips=np.clip(lips, 0, 1),
            iris=np.clip(iris, 0, 1),
            hair_colour=np.clip(hair, 0.03, 0.97),
            brow_colour=np.clip(brow, 0.02, 0.9),
            hair=choose(HAIR, axis["hair_style"]),
            beard=choose(BEARDS, axis["beard_style"]),
            glasses=choose(GLASSES, axis["glasses"]),
            hat=choose(HATS, axis["hat"]),
            earrings=choose(EARRINGS, axis["earrings"]),
            clothes=choose(CLOTHES, axis["clothes"]),
            background=choose(BACKGROUNDS, axis["background"]),
        )

    def shape(self, names: Sequence[str]) -> np.ndarray:
        """(100,) float32 shape parameters for a head whose parameters have these names."""
        place = {name: index for index, name in enumerate(names)}
        shape = np.zeros(len(names), np.float32)
        for index, (axis, parameters) in enumerate(SHAPE_AXES.items()):
            value = np.clip(self.axis[axis], -2.2, 2.2)
            known = [place[name] for name in parameters if name in place]
            shape[known or [index]] += value
        if "age" in place:
            shape[place["age"]] = 0.8 * np.clip(self.axis["age"], -1.5, 2.2)
        return shape

    def quantile(self, name: str) -> float:
        """An axis as its quantile in (0, 1)."""
        return quantile(self.axis[name])


def shape_latents(names: Sequence[str]) -> tuple[int, ...]:
    """For each shape parameter of a head the number of the latent that sets it, −1 for none.

    A generator trained on these people keeps it as ``mapping.shape_latents``: a sampled latent brings its head along.
    """
    axis_of = {parameter: axis for axis, parameters in SHAPE_AXES.items() for parameter in parameters} | {"age": "age"}
    return tuple(AXES.index(axis_of[name]) if name in axis_of else -1 for name in names)
