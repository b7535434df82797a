"""``next3d evaluate``: FID, KID, AED, APD, ID and consistency of a model, beside what real pictures reach."""

from __future__ import annotations

import os
from pathlib import Path

from next3d.errors import InputError


def evaluate(
    data: Path,
    out: Path,
    model: str = "demo",
    metrics: str = "fid,kid,aed,apd,id",
    split: str | None = None,
    pictures: int = 50_000,
    identities: int = 500,
    poses: int = 20,
    pairs: int = 1_000,
    seed: int = 0,
    batch: int = 16,
    truncation: float = 1.0,
    head: str | None = None,
    inception: Path | None = None,
    arcface: Path | None = None,
    deca: Path | None = None,
    tracker: bool = False,
    consistency: int = 8,
    device: str = "cpu",
) -> None:
    """Measure a model as the paper does (Table 1), and say what each number means.

    Pictures of the built-in head are read by the bundled estimators. For photos of real people give --inception,
    --arcface, and --deca or --tracker. Run under torchrun to share the work among processes: the result is the same.

    Args:
        data: the dataset that cameras and head parameters are drawn from, and that pictures are compared with.
        out: the folder for report.json, report.md and pairs.png.
        model: a model folder, a hub name, "demo", or "factory" for the picture factory itself.
        metrics: which, separated by commas.
        split: "train", "validation" or "test" of the dataset; everything by default.
        pictures: generated pictures for FID and KID.
        identities: heads for AED and APD.
        poses: expressions and cameras of each.
        pairs: identities whose two pictures ID compares.
        seed: of all draws.
        batch: pictures at once; changes nothing but speed.
        truncation: of the latents; the paper uses none (1).
        head: FLAME file or folder, for models that FLAME drives.
        inception: the FID's Inception weights (pt_inception-2015-12-05-6726825d.pth).
        arcface: an ArcFace IResNet-50 (.pth or .onnx).
        deca: deca_model.tar; reads expressions of real faces (FLAME only).
        tracker: read expressions of real faces by our tracker.
        consistency: avatars for view consistency and stability of still parts; 0 leaves them out.
        device: where the model runs.
    """
    import torch

    from next3d.data.dataset import Dataset
    from next3d.generator.model import load
    from next3d.heads import load_head
    from next3d.io.files import check_folder, write_text
    from next3d.io.images import write_image
    from next3d.metrics import protocol, readers, report
    from next3d.metrics.inception import InceptionFeatures
    from next3d.metrics.sources import FactorySource, ModelSource, PictureSource

    wanted = [name.strip() for name in metrics.split(",") if name.strip()]
    check_folder(out)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        torch.distributed.init_process_group("gloo")
    dataset = Dataset(data, split)
    if len(dataset) < 2:
        raise InputError(f"{data} has {len(dataset)} pictures: nothing to compare with")
    source: PictureSource
    network = None
    if model == "factory":
        source = FactorySource(dataset.resolution)
    else:
        network = load(model, device=device)
        if head is not None:
            network.use_head(load_head(head))
        source = ModelSource(network, truncation=truncation, name=model)
    if source.resolution != dataset.resolution:
        raise InputError(
            f"the model draws {source.resolution}² pictures, the dataset has {dataset.resolution}²: "
            "compare them at one size"
        )
    driver = load_head(head or "builtin") if network is None or network.head is None else network.head
    motion: readers.MotionReader = (
        readers.TrackedMotion(driver, deca=deca) if tracker or deca is not None else readers.BundledMotion()
    )
    estimators = protocol.Readers(
        features=readers.BundledFeatures() if inception is None else InceptionFeatures(inception),
        motion=motion,
        identity=readers.BundledIdentity() if arcface is None else readers.ArcFaceIdentity(arcface, driver),
    )
    counts = protocol.Counts(pictures, identities, poses, pairs)
    cache = check_folder(out / "cache")
    result = protocol.evaluate(
        source, dataset, estimators, metrics=wanted, counts=counts, seed=seed, batch=batch, cache=cache
    )
    floors = {"real pictures": protocol.floors(dataset, estimators, metrics=wanted, batch=batch)}
    if network is not None and consistency > 0:
        from next3d.metrics.consistency import measure_consistency

        result["results"] |= measure_consistency(network, dataset, consistency, seed)
        result["definitions"] |= {
            "view consistency": "mean absolute colour error, of 255, of visible skin carried from the frontal view "
            "into views turned by ±0.2 and ±0.4 radians through the rendered depth",
            "still parts": "mean standard deviation, of 255, of pixels outside the face while expressions change",
        }
    result["floors"] = floors
    if protocol.Shard.here().rank == 0:
        write_text(out / "report.json", protocol.as_json(result))
        write_text(out / "report.md", report.page(result, floors))
        write_image(out / "pairs.png", report.sample_pairs(source, dataset, motion, driver, seed=seed))
        print(report.page(result, floors))
        print(f"{out / 'report.json'}\n{out / 'report.md'}\n{out / 'pairs.png'}")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
