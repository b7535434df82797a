"""The light of a picture: a key, a fill, a rim and a sky. By default it belongs to the person (the latent)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from next3d.data.synthesis.identity import Identity


@dataclass(frozen=True)
class Light:
    """Directions are unit vectors towards the light in world axes; colours are linear RGB."""

    key_direction: np.ndarray
    key: np.ndarray
    fill_direction: np.ndarray
    fill: np.ndarray
    rim_direction: np.ndarray
    rim: np.ndarray
    sky: np.ndarray
    ground: np.ndarray

    @staticmethod
    def of(who: Identity) -> Light:
        """The mild light that belongs to a person."""
        return Light.from_numbers(who.axis["light_side"], who.axis["light_height"], who.axis["light_warmth"])

    @staticmethod
    def from_numbers(side: float, height: float, warmth: float) -> Light:
        """A light from three numbers of about standard normal size."""
        yaw = np.radians(38 * np.tanh(1.2 * side) + (8 if side >= 0 else -8))
        pitch = np.radians(36 + 12 * np.tanh(height))
        turn = np.sign(yaw) or 1.0
        warm = 0.10 * np.tanh(warmth)

        def towards(yaw: float, pitch: float) -> np.ndarray:
            return np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)], np.float32)

        def tinted(strength: float, warm: float) -> np.ndarray:
            return (strength * np.array([1 + warm, 1 + 0.1 * warm, 1 - warm])).astype(np.float32)

        return Light(
            towards(yaw, pitch),
            tinted(0.86, 0.06 + warm),
            towards(-turn * np.radians(55), np.radians(8)),
            tinted(0.24, -0.08 - 0.5 * warm),
            towards(-turn * np.radians(150), np.radians(35)),
            tinted(0.55, 0.02),
            tinted(0.36, -0.05),
            tinted(0.17, 0.12),
        )

    def array(self) -> np.ndarray:
        """(8, 3) float32 for the shading kernel."""
        rows = (
            self.key_direction,
            self.key,
            self.fill_direction,
            self.fill,
            self.rim_direction,
            self.rim,
            self.sky,
            self.ground,
        )
        return np.stack(rows).astype(np.float32)
