"""``next3d dataset …``: make, check, pack, convert and look at training pictures."""

from __future__ import annotations

import os
from pathlib import Path

from next3d.errors import InputError


def synthesize(
    out: Path,
    count: int = 10_000,
    resolution: int = 128,
    seed: int = 0,
    workers: int = os.cpu_count() or 2,
    aux: bool = False,
    cameras: int = 1,
    bias: float = 0.0,
    neck: float = 0.0,
    free_light: bool = False,
    head: str = "builtin",
) -> None:
    """Render training pictures of people who do not exist, with exact labels.

    Killed or interrupted, it goes on where it was when run again; run with a larger count, it adds pictures.

    Args:
        out: the dataset folder to write.
        count: number of pictures.
        resolution: pixels along each side.
        seed: of everything; the same seed gives the same pictures, whatever the count and the workers.
        workers: processes.
        aux: also write depth, normals and part masks.
        cameras: pictures of each person, each with its own expression and camera.
        bias: 0 to 1, how strongly expressions follow from the camera, as they do in photos of faces; 0 is not at all.
        neck: standard deviation of the neck's turn, in degrees.
        free_light: draw the light for each picture; by default it belongs to the person.
        head: the head model to draw people on.
    """
    from next3d.data.synthesis import synthesize as make

    info = make(
        out,
        count,
        resolution,
        seed,
        workers=workers,
        aux=aux,
        cameras=cameras,
        bias=bias,
        neck=neck,
        free_light=free_light,
        head=head,
    )
    print(f"{out}: {info.count:,} pictures of {info.resolution}×{info.resolution}")


def build(
    photos: Path,
    /,
    out: Path,
    resolution: int = 512,
    head: str = "builtin",
    face: str = "one",
    smallest: float = 0.25,
    sharpness: float = 4.0,
    misfit: float = 0.05,
    seconds_between: float = 0.5,
    workers: int = os.cpu_count() or 2,
) -> None:
    """Turn a folder of photos or videos into a training dataset, and say of every picture why it was kept or not.

    Killed or interrupted, it goes on where it was when run again.

    Args:
        photos: the folder of photos and videos.
        out: the dataset folder to write; report.html in it shows what was kept and what was skipped.
        resolution: pixels along each side.
        head: the head model to fit: "builtin", or your FLAME file or folder.
        face: "one" skips pictures with several faces, "largest" takes the largest, a number the one of that index.
        smallest: least size of a face in the source, as a share of the resolution.
        sharpness: least standard deviation of the crop's Laplacian at 128 pixels, in grey levels.
        misfit: greatest residual of the fit, as a share of the distance between the eyes.
        seconds_between: of a video, one frame in so many seconds is taken.
        workers: processes.
    """
    from collections import Counter

    from next3d.tracking.build import END, BuildSettings, build_dataset

    settings = BuildSettings(resolution, head, face, smallest, sharpness, misfit, seconds_between)
    info, outcomes = build_dataset(photos, out, settings, workers=workers)
    for reason, number in Counter(
        one.reason.partition(":")[0] for one in outcomes if one.reason not in ("", END)
    ).most_common():
        print(f"skipped {number:,}: {reason}")
    print(f"{out}: {info.count:,} pictures of {info.resolution}×{info.resolution}; {out / 'report.html'} shows all")


def validate(
    path: Path,
    /,
    overlay: Path | None = None,
    head: str = "builtin",
    workers: int = os.cpu_count() or 2,
) -> None:
    """Check every row and picture of a dataset; exits with 2 and names the first offenders if anything is wrong.

    Args:
        path: the dataset folder, or a folder of packed shards.
        overlay: also write a picture of the labelled meshes drawn over their photos (.png).
        head: for the overlay, the head model of the dataset: "builtin", or your FLAME file or folder.
        workers: threads that read and decode.
    """
    from next3d.data.format import read_info
    from next3d.data.validate import draw_overlay
    from next3d.data.validate import validate as check
    from next3d.heads import load_head
    from next3d.io.images import check_image_path

    model = None
    if overlay is not None:
        read_info(path)  # before the folder of the overlay is made
        check_image_path(overlay)
        model = load_head(head)
    report = check(path, workers=workers)
    print(report.table())
    if overlay is not None and model is not None:
        draw_overlay(path, overlay, model)
        print(f"\nmeshes over pictures: {overlay}")
    if not report.ok:
        raise InputError(report.first())


def pack(path: Path, /, out: Path, per_shard: int = 1000, seed: int = 0) -> None:
    """Pack a dataset folder into WebDataset tar shards, which stream from slow disks; training reads either.

    Args:
        path: the dataset folder.
        out: the folder to write the shards into.
        per_shard: samples in one shard.
        seed: of the shuffle before packing.
    """
    from next3d.data.shards import pack as pack_shards

    shards = pack_shards(path, out, per_shard=per_shard, seed=seed)
    print(f"{out}: {len(shards)} shards, {sum(shard.stat().st_size for shard in shards) / 1e6:,.1f} MB")


def import_(
    source: Path,
    /,
    out: Path,
    head: str = "builtin",
    resolution: int | None = None,
    limit: int | None = None,
    workers: int = os.cpu_count() or 2,
) -> None:
    """Read EG3D folders and zips, or official Next3D folders (images512x512, meshes512x512, lms512x512).

    Head parameters are fitted to the given meshes; cameras are taken from dataset.json. Run again, it resumes.

    Args:
        source: the folder or zip to read.
        out: the dataset folder to write.
        head: the head model that the meshes were made with: "builtin", or your FLAME file or folder.
        resolution: of the result, for making pictures smaller; by default their own.
        limit: take only the first so many pictures.
        workers: threads that decode.
    """
    import numpy as np

    from next3d.data.importers import import_dataset
    from next3d.heads import load_head

    report = import_dataset(source, out, load_head(head), resolution=resolution, limit=limit, workers=workers)
    for note in report.notes:
        print(f"note: {note}")
    if report.skipped:
        print(f"left out {len(report.skipped)} pictures; the first: {report.skipped[0]}")
    if report.error is not None and len(report.error):
        middle, worst = (1000 * float(value) for value in (np.median(report.error), report.error.max()))
        print(f"fit to the {report.fitted}: median {middle:.3f} mm, worst {worst:.3f} mm")
    print(f"{out}: {report.info.count:,} pictures of {report.info.resolution}×{report.info.resolution}")


def show(path: Path, /, out: Path = Path("dataset.png"), count: int = 48, columns: int = 12, seed: int = 0) -> None:
    """Write one picture of a dataset: a contact sheet, and histograms of yaw, pitch, roll, jaw and expression energy.

    Args:
        path: the dataset folder, or a folder of packed shards.
        out: the picture to write.
        count: samples on the sheet.
        columns: samples in a row.
        seed: which samples.
    """
    from next3d.data.format import read_info
    from next3d.data.show import show as draw
    from next3d.io.images import check_image_path

    read_info(path)  # before the folder of the picture is made
    check_image_path(out)
    draw(path, out, count=count, columns=columns, seed=seed)
    print(out)
