"""What an inversion or a stylisation looks like: a sheet of pictures, and its curves, drawn with Pillow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from next3d.avatar import Avatar
from next3d.geometry.cameras import Camera
from next3d.heads import HeadModel, HeadParams
from next3d.io.images import contact_sheet, to_uint8

if TYPE_CHECKING:
    from next3d.editing.inversion import Inversion

# Five faces in ARKit's coefficients, and five views as yaw and pitch in degrees.
EXPRESSIONS: dict[str, dict[str, float]] = {
    "neutral": {},
    "smile": {"mouthSmileLeft": 1, "mouthSmileRight": 1, "cheekSquintLeft": 0.6, "cheekSquintRight": 0.6},
    "mouth open": {"jawOpen": 0.7, "browInnerUp": 0.4},
    "eyes closed": {"eyeBlinkLeft": 1, "eyeBlinkRight": 1},
    "frown": {"browDownLeft": 1, "browDownRight": 1, "mouthFrownLeft": 0.8, "mouthFrownRight": 0.8},
}
VIEWS: tuple[tuple[int, int], ...] = ((-40, 0), (-20, 0), (0, 0), (20, 0), (40, 0))
COLOURS = ((38, 98, 168), (196, 92, 38), (60, 140, 80), (140, 70, 150))
INK, GRID = (60, 60, 60), (222, 222, 222)


def expressions(head: HeadModel | None) -> dict[str, HeadParams]:
    """The sheet's expressions; only the neutral one for a model without a head, or a head without ARKit names."""
    if head is None:
        return {"neutral": HeadParams()}
    return {name: head.from_arkit(values) if values else HeadParams() for name, values in EXPRESSIONS.items()}


def expression_pictures(avatar: Avatar) -> tuple[list[Tensor], list[str]]:
    """Five expressions, then five views: pictures (3, R, R) and their labels."""
    pictures, labels = [], []
    for name, params in expressions(avatar.head).items():
        pictures.append(avatar.render(params.to("cpu")).image.cpu())
        labels.append(name)
    for yaw, pitch in VIEWS:
        camera = Camera.orbit(math.radians(yaw), math.radians(pitch))
        pictures.append(avatar.render(None, camera).image.cpu())
        labels.append(f"{abs(yaw)}° {'left' if yaw > 0 else 'right'}" if yaw else "front")
    return pictures, labels


def inversion_sheet(result: Inversion, most: int = 5) -> np.ndarray:
    """Photo, inversion and tuned picture of each photo; five expressions; five views. uint8 (H, W, 3)."""
    blank = torch.ones_like(result.photos[0])
    pictures: list[Tensor] = []
    labels: list[str] = []
    for index in range(min(len(result.photos), most)):
        pictures += [result.photos[index], result.pivot_pictures[index], result.pictures[index], blank, blank]
        labels += ["photo", "inversion", "tuned", "", ""]
    shown, names = expression_pictures(result.avatar)
    return sheet(pictures + shown, labels + names)


def sheet(pictures: Sequence[Tensor], labels: Sequence[str], columns: int = 5, side: int = 192) -> np.ndarray:
    """Pictures (3, R, R) in [−1, 1] of one size in rows, each at least ``side`` pixels wide; uint8 (H, W, 3)."""
    arrays = [to_uint8(picture) for picture in pictures]
    if len(arrays[0]) < side:
        arrays = [np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC)) for one in arrays]
    return contact_sheet(arrays, columns=columns, labels=labels)


def curves(
    lines: Mapping[str, Sequence[float]], *, title: str = "loss", width: int = 720, height: int = 300
) -> np.ndarray:
    """Losses over steps, stage after stage, on a logarithmic scale: every step pale, the running mean on top.

    Args:
        lines: name → one positive number per step

    Returns:
        uint8 (height, width, 3)
    """
    scale = 2  # drawn larger and reduced, so that lines are smooth
    image = Image.new("RGB", (width * scale, height * scale), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(11 * scale)
    left, top, right, bottom = (scale * n for n in (58, 26, width - 14, height - 34))
    values = np.concatenate([np.asarray(line, float) for line in lines.values()] or [np.ones(1)])
    values = np.clip(values[np.isfinite(values)], 1e-9, None)
    if not len(values):
        values = np.ones(1)
    low, high = np.log10(values.min()) - 0.03, np.log10(values.max()) + 0.03
    if high - low < 0.2:
        low, high = low - 0.1, high + 0.1
    count = max(sum(map(len, lines.values())), 2)

    def place(step: float, value: float) -> tuple[float, float]:
        share = (math.log10(max(value, 1e-9)) - low) / (high - low)
        return left + (right - left) * step / (count - 1), bottom - (bottom - top) * share

    for tick in ticks(low, high):
        y = place(0, tick)[1]
        draw.line([(left, y), (right, y)], GRID, scale)
        draw.text((left - 6 * scale, y), f"{tick:.3g}", INK, font=font, anchor="rm")
    first = 0
    for index, (name, line) in enumerate(lines.items()):
        colour = COLOURS[index % len(COLOURS)]
        pale = tuple(int(255 - 0.35 * (255 - c)) for c in colour)
        points = [place(first + i, value) for i, value in enumerate(line)]
        smooth = running_mean(line)
        if len(points) > 1:
            draw.line(points, pale, scale)
            draw.line([place(first + i, value) for i, value in enumerate(smooth)], colour, 2 * scale, joint="curve")
        if first and line:
            draw.line([(place(first, 1)[0], top), (place(first, 1)[0], bottom)], GRID, scale)
        if line:
            text = f"{name}: {len(line)} steps, to {smooth[-1]:.4g}"
            draw.text((place(first, 1)[0] + 6 * scale, top - 6 * scale), text, colour, font=font, anchor="ls")
        first += len(line)
    draw.line([(left, top), (left, bottom), (right, bottom)], INK, scale)
    for share in range(5):
        step = round((count - 1) * share / 4)
        draw.text(
            (place(step, 1)[0], bottom + 5 * scale), str(step), INK, font=font, anchor="mt" if share < 4 else "rt"
        )
    draw.text(
        ((left + right) / 2, height * scale - 4 * scale), f"step ({title}, log scale)", INK, font=font, anchor="mb"
    )
    return np.array(image.resize((width, height), Image.Resampling.LANCZOS))


def ticks(low: float, high: float) -> list[float]:
    """Round values between two powers of ten, four to eight of them where possible."""
    for marks in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), tuple(n / 10 for n in range(10, 100, 2))):
        found = [
            mark * 10.0**power
            for power in range(math.floor(low), math.ceil(high) + 1)
            for mark in marks
            if low <= math.log10(mark * 10.0**power) <= high
        ]
        if len(found) >= 4:
            break
    return found[:: max(1, len(found) // 8)]


def running_mean(line: Sequence[float], share: float = 0.06) -> list[float]:
    """The mean over a trailing window of ``share`` of the line."""
    window = max(1, round(len(line) * share))
    total = np.concatenate([[0.0], np.cumsum(np.asarray(line, float))])
    ends = np.arange(1, len(line) + 1)
    starts = np.maximum(0, ends - window)
    return ((total[ends] - total[starts]) / (ends - starts)).tolist()
