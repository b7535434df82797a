"""One picture that tells what is in a dataset: a sheet of samples above histograms of poses and expressions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from next3d.data.dataset import Dataset, PictureDataset, open_dataset
from next3d.data.format import SLICES, SPLITS
from next3d.geometry.cameras import Camera
from next3d.io.images import contact_sheet, write_image

INK, SOFT, GRID, BAR = (32, 34, 40), (110, 114, 124), (226, 228, 232), (74, 118, 178)
BINS = 36


def statistics(numbers: np.ndarray) -> dict[str, np.ndarray]:
    """What the histograms show, each (rows,): camera angles and jaw in degrees, expression energy.

    Yaw and pitch are where the camera stands as seen from the world origin (yaw > 0 on the subject's left, pitch > 0
    above), roll is its turn about its own axis, as in ``Camera.orbit``; jaw is the opening angle; expression energy is
    the length of the expression vector.
    """
    rows = torch.from_numpy(np.ascontiguousarray(numbers, np.float64))
    camera = Camera.from_label(rows[:, SLICES["camera"]])
    eye, right, forward = (camera.cam2world[:, :3, column] for column in (3, 0, 2))
    level = torch.nn.functional.normalize(torch.linalg.cross(forward, torch.tensor([[0.0, 1.0, 0.0]]).double()), dim=-1)
    down = torch.linalg.cross(forward, level)
    return {
        "yaw": torch.rad2deg(torch.atan2(eye[:, 0], eye[:, 2])).numpy(),
        "pitch": torch.rad2deg(torch.asin(eye[:, 1] / eye.norm(dim=-1))).numpy(),
        "roll": torch.rad2deg(torch.atan2((right * down).sum(-1), (right * level).sum(-1))).numpy(),
        "jaw": torch.rad2deg(rows[:, SLICES["jaw"]][:, 0]).numpy(),
        "expression energy": rows[:, SLICES["expression"]].norm(dim=-1).numpy(),
    }


def show(path: str | Path, out: str | Path, *, count: int = 48, columns: int = 12, seed: int = 0) -> None:
    """Write a contact sheet of ``count`` random samples and histograms of the whole dataset as one picture.

    Args:
        path: a dataset folder or packed shards
        out: picture to write
        count: samples on the sheet
        columns: samples in a row
        seed: which samples

    Raises:
        InputError: no dataset, or none of its pictures can be read
    """
    dataset = open_dataset(path)
    count = min(count, len(dataset))
    chosen = np.random.default_rng(seed).choice(len(dataset), count, replace=False)
    cell = 128
    pictures = []
    for index in chosen:
        image = Image.fromarray(dataset.good(int(index)).image.permute(1, 2, 0).numpy())
        pictures.append(np.array(image.resize((cell, cell), Image.Resampling.LANCZOS)))
    sheet = Image.fromarray(contact_sheet(pictures, columns=min(columns, count), gap=3))
    numbers, identities, splits = labels_of(dataset)
    width = max(sheet.width, 5 * 200)
    header, panel = 44, 190
    page = Image.new("RGB", (width, header + sheet.height + panel + 10), (255, 255, 255))
    draw = ImageDraw.Draw(page)
    people = f", {len(identities)} identities" if identities else ""
    parts = "  ".join(f"{name} {splits[name]:,}" for name in SPLITS if splits[name])
    draw.text((8, 6), f"{Path(path).resolve().name}", INK, ImageFont.load_default(17))
    summary = (
        f"{len(dataset):,} pictures of {dataset.resolution} x {dataset.resolution}{people}, head {dataset.info.head}"
    )
    draw.text((8, 27), f"{summary}.   {parts}", SOFT, ImageFont.load_default(12))
    page.paste(sheet, ((width - sheet.width) // 2, header))
    found = statistics(numbers)
    units = {"yaw": "°", "pitch": "°", "roll": "°", "jaw": "°", "expression energy": ""}
    step = width // len(found)
    for place, (name, values) in enumerate(found.items()):
        histogram(
            draw, name, values, units[name], (place * step + 12, header + sheet.height + 8, step - 24, panel - 12)
        )
    write_image(out, np.array(page))


def labels_of(dataset: PictureDataset) -> tuple[np.ndarray, Counter[str], Counter[str]]:
    """Finite rows of numbers (rows, 187), and how often each identity and each split occurs."""
    if isinstance(dataset, Dataset):
        identities = Counter(str(value) for value in dataset.columns.get("identity", ()))
        splits = Counter(str(value) for value in dataset.columns.get("split", ()))
        return dataset.numbers[np.isfinite(dataset.numbers).all(1)], identities, splits
    rows = [dataset._read(index) for index in tqdm(range(len(dataset)), "reading labels", unit=" rows")]
    identities = Counter(str(row[3]["identity"]) for row in rows if "identity" in row[3])
    splits = Counter(str(row[3]["split"]) for row in rows if "split" in row[3])
    return np.stack([row[2] for row in rows]), identities, splits


def histogram(
    draw: ImageDraw.ImageDraw, name: str, values: np.ndarray, unit: str, box: tuple[int, int, int, int]
) -> None:
    """Draw a histogram into the box (left, top, width, height): bars, the range below, mean and spread in the title."""
    left, top, width, height = box
    small, title = ImageFont.load_default(11), ImageFont.load_default(14)
    draw.text((left, top), name, INK, title)
    spread = f"{values.mean():.1f}{unit} ± {values.std():.1f}{unit}" if len(values) else "no rows"
    draw.text((left, top + 19), f"mean {spread}", SOFT, small)
    ground, ceiling = top + height - 18, top + 40
    draw.line((left, ground, left + width, ground), SOFT)
    if not len(values):
        return
    low, high = nice_range(float(values.min()), float(values.max()))
    counts, edges = np.histogram(values, BINS, (low, high))
    scale = (ground - ceiling) / max(counts.max(), 1)
    place = left + (edges - low) / (high - low) * width
    for tick in np.linspace(low, high, 5):
        x = left + (tick - low) / (high - low) * width
        draw.line((x, ceiling, x, ground), GRID)
        anchor = "la" if tick == low else "ra" if tick == high else "ma"
        draw.text((x, ground + 4), f"{tick:.3g}{unit}", SOFT, small, anchor=anchor)
    for start, stop, number in zip(place[:-1], place[1:], counts):
        if number:
            draw.rectangle((start, ground - max(number * scale, 1), max(stop - 1, start), ground - 1), BAR)


def nice_range(low: float, high: float) -> tuple[float, float]:
    """A range with round ends around [low, high], symmetric if it crosses zero on both sides."""
    if low < 0 < high and min(-low, high) > 0.2 * max(-low, high):
        low, high = -max(-low, high), max(-low, high)
    if high - low < 1e-3:
        low, high = low - 5e-4, high + 5e-4
    span = high - low
    step = 10.0 ** np.floor(np.log10(span / 4))
    step = next(step * factor for factor in (1, 2, 2.5, 5, 10) if step * factor >= span / 4 * 0.999)
    return float(np.floor(low / step + 1e-6) * step), float(np.ceil(high / step - 1e-6) * step)
