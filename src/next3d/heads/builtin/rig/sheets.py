"""Contact sheets of a head: shapes, expressions, gaze and jaw, drawn with the project's rasteriser to be looked at.

``python -m next3d.heads.builtin.rig.sheets FOLDER`` writes them for the built-in head.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from next3d.raster import interpolate, rasterize

from .anatomy import MM, Anatomy, Array, vertex_normals

LIGHTS = (  # direction, colour, wrap
    ((-0.55, 0.65, 0.75), (0.85, 0.82, 0.77), 0.15),
    ((0.8, 0.15, 0.5), (0.19, 0.21, 0.25), 0.3),
    ((0, 1, 0), (0.11, 0.11, 0.12), 0.8),
    ((0, -1, 0.2), (0.06, 0.05, 0.045), 0.8),
)
SKIN, LIP, BROW, LINING = (0.80, 0.58, 0.47), (0.70, 0.36, 0.33), (0.20, 0.13, 0.09), (0.30, 0.10, 0.10)


class Painter:
    """Draws heads of one anatomy with painted skin, lips, brows and irises."""

    def __init__(self, anatomy: Anatomy):
        self.anatomy = a = anatomy
        self.faces = torch.from_numpy(a.triangles.astype(np.int64))
        label = np.zeros((a.count, 3))  # lip, lining, ball
        mouth = a.mouth
        for k, ring in enumerate(mouth.rings):
            label[ring, 0] = np.clip((k - mouth.border + 0.45), 0, 1) * (k <= mouth.contact + 1)
            label[ring, 1] = np.clip((k - mouth.contact) / 2, 0, 1)
        for nostril in a.nostrils:
            label[nostril, 1] = 0.6
        for eye in a.eyes:
            label[eye.ball, 2] = 1
        self.label = label
        self.brow = (
            a.points["eye"]
            + np.array([[-21, 16, 0], [-15, 19, 0], [-4, 22.5, 0], [5, 23.5, 0], [14, 21, 0], [21, 16, 0]]) * MM
        )

    def albedo(self, rest: Array, label: Array) -> Array:
        """Colours (P, 3) of points by their place on the neutral head."""
        color: Array = np.tile(np.array(SKIN), (len(rest), 1))
        ax = np.abs(rest[:, 0])
        p = self.anatomy.points
        for (x, y), (sx, sy) in (
            ((p["lip_corner"][0] + 0.016, p["ala"][1] + 0.006), (0.017, 0.016)),
            ((0, p["nose_tip"][1]), (0.012, 0.009)),
        ):
            warm = np.exp(-(((ax - x) / sx) ** 2 + ((rest[:, 1] - y) / sy) ** 2)) * (rest[:, 2] > 0)
            color += warm[:, None] * np.array([0.05, -0.05, -0.05])
        line = np.interp(ax, self.brow[:, 0], self.brow[:, 1])
        width = np.interp(
            ax, self.brow[:, 0] + np.array([-1, 0, 0, 0, 0, 1]) * MM, np.array([0, 2.8, 3.2, 2.8, 1.8, 0]) * MM
        )
        inside = (ax > self.brow[0, 0] - 1 * MM) & (ax < self.brow[-1, 0] + 1 * MM) & (rest[:, 2] > 0)
        brow = 0.8 * inside * np.exp(-(((rest[:, 1] - line) / np.maximum(width, 1e-5)) ** 4))
        for weight, paint in ((brow, BROW), (label[:, 0], LIP), (label[:, 1], LINING)):
            color = color * (1 - weight[:, None]) + weight[:, None] * np.array(paint)
        ball = label[:, 2] > 0.5
        if ball.any():
            (centre, radius), _ = self.anatomy.spheres
            d = (rest[ball] * np.sign(rest[ball][:, :1]) ** np.array([1, 0, 0]) - centre) / radius
            r = np.hypot(d[:, 0], d[:, 1]) * 12
            eye = np.tile((0.88, 0.85, 0.82), (ball.sum(), 1))
            front = d[:, 2] > 0
            eye[(r < 5.9) & front] = (0.30, 0.22, 0.13)
            eye[(r > 5.0) & (r < 5.9) & front] = (0.16, 0.11, 0.07)
            eye[(r < 2.4) & front] = (0.02, 0.02, 0.02)
            color[ball] = eye
        return color

    def __call__(
        self,
        vertices: Array,
        size: int = 512,
        *,
        yaw: float = 0,
        pitch: float = 0,
        centre: tuple[float, float, float] = (0, -0.03, 0.0),
        height: float = 0.30,
        clay: bool = False,
        eyeball_only: bool = False,
    ) -> Array:
        """A picture (size, size, 3) uint8 of vertices (V, 3); yaw and pitch of the camera in degrees, metres."""
        y, p = np.radians(-yaw), np.radians(pitch)
        ry = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
        rx = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
        turn = rx @ ry
        seen = (vertices - np.array(centre)) @ turn.T
        distance = 0.9
        depth = distance - seen[:, 2]
        scale = 2 * distance / height
        screen = np.stack([scale * seen[:, 0] / depth, -scale * seen[:, 1] / depth, depth], 1)
        fine = 2 * size
        found = rasterize(torch.from_numpy(screen[None].astype(np.float32)), self.faces, fine, perspective=False)
        if eyeball_only:
            tri = self.anatomy.triangles[found.face[0].numpy().clip(0)]
            return (self.label[tri[..., 0], 2] > 0.5) & (found.face[0].numpy() >= 0)
        normals = vertex_normals(vertices, self.anatomy.triangles) @ turn.T
        values = np.concatenate([normals, seen, self.anatomy.vertices, self.label], 1)
        mask = (found.face[0] >= 0).numpy()
        out = interpolate(found, torch.from_numpy(values[None].astype(np.float32)), self.faces)[0].numpy()[mask]
        n, at, rest, label = out[:, :3], out[:, 3:6], out[:, 6:9], out[:, 9:]
        n = n / np.linalg.norm(n, axis=1, keepdims=True)
        view = np.array([0, 0, distance]) - at
        view /= np.linalg.norm(view, axis=1, keepdims=True)
        back = (n * view).sum(1) < -0.2
        n[back] *= -1
        color = np.full((len(n), 3), 0.72) if clay else self.albedo(rest, label)
        gloss = np.where(label[:, 2] > 0.5, 0.5, 0.10 + 0.12 * label[:, 0])
        lit = color * 0.05
        for direction, light, wrap in LIGHTS:
            d = np.array(direction) / np.linalg.norm(direction)
            lambert = np.clip((n @ d + wrap) / (1 + wrap), 0, 1)
            half = d + view
            half /= np.linalg.norm(half, axis=1, keepdims=True)
            lit = lit + color * lambert[:, None] * np.array(light)
            lit += (np.clip((n * half).sum(1), 0, 1) ** 30 * (lambert > 0) * gloss)[:, None] * np.array(light)
        lit[back] = np.array([0.10, 0.035, 0.03])
        picture = np.tile(np.array([0.035, 0.040, 0.045]), (fine, fine, 1)) ** (1 / 1.6)
        picture[mask] = np.clip(lit, 0, 1) ** (1 / 1.6)
        picture = picture.reshape(size, 2, size, 2, 3).mean((1, 3))
        return (picture * 255).round().astype(np.uint8)


def grid(pictures: list[Array], columns: int) -> Array:
    """Pictures of one size, row by row."""
    blank = np.zeros_like(pictures[0])
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    return np.concatenate([np.concatenate(row + [blank] * (columns - len(row)), 1) for row in rows], 0)


EXPRESSIONS: list[dict[str, float]] = [
    {},
    {"mouthSmileLeft": 1, "mouthSmileRight": 1, "cheekSquintLeft": 0.4, "cheekSquintRight": 0.4},
    {"mouthFrownLeft": 1, "mouthFrownRight": 1, "browDownLeft": 0.6, "browDownRight": 0.6},
    {"mouthPucker": 1},
    {"eyeBlinkLeft": 1, "eyeBlinkRight": 1},
    {"eyeBlinkLeft": 1, "mouthSmileLeft": 0.4, "cheekSquintLeft": 0.6},
    {"jawOpen": 1},
    {"browInnerUp": 1, "browOuterUpLeft": 1, "browOuterUpRight": 1},
    {"eyeLookOutLeft": 1, "eyeLookInRight": 1},
    {"eyeLookInLeft": 1, "eyeLookOutRight": 1},
    {"eyeLookUpLeft": 1, "eyeLookUpRight": 1},
    {"mouthFunnel": 1},
]


def main(folder: str, size: int = 512) -> None:
    """Write ``expressions.png`` and ``shapes.png`` (each named shape at ±2.5 standard deviations) into a folder."""
    from next3d.heads import load_head
    from next3d.heads.builtin.sculpt import sculpt

    head, painter = load_head("builtin"), Painter(sculpt().anatomy())
    into = Path(folder)
    into.mkdir(parents=True, exist_ok=True)

    def save(name: str, poses: list[dict[str, float]], each: int, columns: int, yaw: float = 0) -> None:
        pictures = [
            painter(head(head.params(**pose)).vertices[0].numpy(), each, yaw=yaw, height=0.24) for pose in poses
        ]
        Image.fromarray(grid(pictures, columns)).save(into / name)

    save("expressions.png", EXPRESSIONS, size, 4)
    named = [name for name in head.shape_names if "etail" not in name]
    save("shapes.png", [{name: s} for name in named for s in (-2.5, 2.5)], size // 2, 10, yaw=25)


if __name__ == "__main__":
    main(sys.argv[1])
