"""An evaluation as people read it: a table beside its floors, and a page of sample pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from next3d.data.dataset import Dataset
from next3d.geometry.cameras import Camera
from next3d.geometry.meshes import world_from_head
from next3d.heads.head_model import HeadModel
from next3d.heads.params import HeadParams
from next3d.io.images import contact_sheet, to_uint8
from next3d.metrics.protocol import Draws, dataset_pictures, draw
from next3d.metrics.readers import MotionReader
from next3d.metrics.sources import PictureSource
from next3d.raster.shading import overlay, shaded

BETTER_HIGH = ("ID",)


def text(value: Any) -> str:
    """A number, or the two means of a distance."""
    if isinstance(value, Mapping):
        return f"{value['mean_absolute']:.4f} (rms {value['root_mean_square']:.4f})"
    return "—" if value is None else f"{value:.4f}"


def table(report: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]) -> str:
    """A Markdown table: each metric of the report, beside the same metric of others (its floors)."""
    columns = {report["source"]: report["results"], **others}
    rows = list(report["results"])
    lines = ["| metric | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
    for name in rows:
        better = "↑" if name in BETTER_HIGH else "↓"
        lines.append(f"| {name} {better} | " + " | ".join(text(column.get(name)) for column in columns.values()) + " |")
    return "\n".join(lines)


def page(report: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]) -> str:
    """The report as Markdown: protocol, table, definitions, estimators."""
    counts = report["counts"]
    lines = [
        f"# Evaluation of {report['source']}",
        "",
        f"{counts['pictures']:,} generated pictures against {counts['dataset']:,} of the dataset; "
        f"{counts['identities']:,} identities × {counts['poses']} poses; {counts['pairs']:,} identity pairs; "
        f"seed {report['seed']}.",
        ""
        if report["paper_protocol"]
        else "\n**Smaller than the paper's protocol** (50,000 pictures, 500 × 20, 1,000 pairs): compare only with runs "
        "of the same counts.\n",
        table(report, others),
        "",
        "Distances: mean absolute, and root mean square in brackets, over all pictures and numbers.",
        "",
    ]
    chance = {name: value for other in others.values() for name, value in other.items() if "chance" in name}
    for name, value in chance.items():
        lines.append(f"- {name}: {text(value)}")
    extra = {n: v for other in others.values() for n, v in other.items() if n in ("ID of strangers", "ID AUC")}
    lines += [f"- {name}: {text(value)}" for name, value in extra.items()]
    lines += [
        "",
        *(f"- **{name}**: {meaning}." for name, meaning in report["definitions"].items()),
        "",
        "Estimators:",
        "",
    ]
    for kind, estimator in report["estimators"].items():
        lines.append(f"- {kind}: {estimator['name']}, SHA-256 {estimator['sha256'][:16] or 'of no file'}")
    if report["pictures_without_a_face"]:
        lines += ["", f"{report['pictures_without_a_face']} pictures showed no face and are left out of AED and APD."]
    return "\n".join(lines) + "\n"


@torch.no_grad()
def sample_pairs(
    source: PictureSource, dataset: Dataset, reader: MotionReader, head: HeadModel, *, count: int = 8, seed: int = 0
) -> np.ndarray:
    """A sheet (H, W, 3) uint8: driver, result, and the mesh re-estimated from the result drawn over it."""
    draws: Draws = draw(dataset, source.z_dim, count, 1, seed + 1)
    pictures = source.pictures(draws.z, draws.params, draws.camera)
    reading = reader.read(pictures)
    size = pictures.shape[-1]
    cells = []
    drivers = to_uint8(dataset_pictures(dataset, draws.rows.tolist()))
    for i, result in enumerate(to_uint8(pictures)):
        camera = Camera.from_label(draws.camera[i])
        cam2world = camera.cam2world.clone()
        rotation = reading["rotation"][i]
        if bool(torch.isfinite(rotation).all()):
            # The estimated rotation, about the point that the commanded camera looks at.
            distance = (cam2world[:3, 3] - torch.tensor([0.0, 0.0, 0.2])).norm()
            cam2world[:3, :3] = rotation
            cam2world[:3, 3] = torch.tensor([0.0, 0.0, 0.2]) - rotation[:, 2] * distance
        expression = torch.nan_to_num(reading["expression"][i])
        params = HeadParams(
            shape=draws.params.shape[i],
            expression=expression,
            jaw=torch.nan_to_num(reading["jaw"][i]) if "jaw" in reading else torch.zeros(3),
        )
        vertices = world_from_head(head(params).vertices)
        mesh = shaded(Camera(cam2world, camera.intrinsics), vertices, head.faces, size)[0]
        cells += [drivers[i], result, overlay(result, mesh, 0.7)]
    return contact_sheet(cells, columns=6, labels=["driver", "result", "read off the result"] * count)
