"""The paper's evaluation (§4.1, Table 1) as one function, for any model and dataset.

What is drawn follows from the seed and the number of a picture alone, so that the result is the same for any batch size
and any number of processes; each process takes every world-th batch of pictures, and the first one computes the
distances.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import next3d
from next3d.data.dataset import Dataset, PictureDataset, collate
from next3d.errors import InputError
from next3d.heads.params import HeadParams
from next3d.io.files import atomic_path
from next3d.metrics.animation import animation_distances, identity_consistency
from next3d.metrics.frechet import frechet_distance, kernel_distance
from next3d.metrics.readers import FeatureReader, IdentityReader, MotionReader
from next3d.metrics.sources import PictureSource

METRICS = ("fid", "kid", "aed", "apd", "id")


@dataclass(frozen=True)
class Counts:
    """How much is drawn; the defaults are the paper's.

    Attributes:
        pictures: generated pictures for FID and KID
        identities, poses: AED and APD draw ``poses`` expressions and cameras of each of ``identities`` heads
        pairs: identities of which ID compares two pictures
    """

    pictures: int = 50_000
    identities: int = 500
    poses: int = 20
    pairs: int = 1_000


PAPER = Counts()
DEFINITIONS = {
    "FID": "squared Fréchet distance between Gaussians fitted to Inception-v3 features of the whole dataset and of "
    "generated pictures with random latents, cameras and head parameters from the dataset",
    "FD-synthetic": "as FID, on the features of the bundled motion estimator; not comparable with any FID",
    "KID": "unbiased squared maximum mean discrepancy, cubic polynomial kernel, on the same features",
    "AED": "distance between the expression read off a generated picture and the commanded one",
    "APD": "distance between the head rotation (yaw, pitch, roll; radians) read off a picture and the commanded one",
    "APD*": "APD without roll",
    "ID": "mean cosine between identity embeddings of two pictures of one identity, cameras and expressions random",
}


@dataclass(frozen=True)
class Readers:
    """The estimators of an evaluation."""

    features: FeatureReader | None = None
    motion: MotionReader | None = None
    identity: IdentityReader | None = None


@dataclass(frozen=True)
class Draws:
    """N pictures to draw: latents (N, z), head parameters (N,), camera labels (N, 25), rows of the dataset (N,)."""

    z: Tensor
    params: HeadParams
    camera: Tensor
    rows: np.ndarray


def draw(dataset: Dataset, z_dim: int, identities: int, poses: int, seed: int) -> Draws:
    """``identities`` latents × ``poses`` parameters and cameras, each pose from its own random row of the dataset.

    A head keeps its shape over its poses: that of the row of its first one.
    """
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(dataset), (identities, poses))
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(identities, z_dim, generator=generator).repeat_interleave(poses, 0)
    numbers = torch.from_numpy(dataset.numbers[rows.ravel()])
    params = HeadParams.from_vector(numbers[:, 25:])
    first = torch.from_numpy(dataset.numbers[rows[:, 0]])
    shape = HeadParams.from_vector(first[:, 25:]).shape.repeat_interleave(poses, 0)
    return Draws(z, params.replace(shape=shape), numbers[:, :25], rows.ravel())


@dataclass(frozen=True)
class Shard:
    """This process among all: it takes batches rank, rank + world, … ."""

    rank: int = 0
    world: int = 1

    @staticmethod
    def here() -> Shard:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return Shard(torch.distributed.get_rank(), torch.distributed.get_world_size())
        return Shard()

    def gather(self, parts: dict[int, Any]) -> list[Any]:
        """Values of all processes in the order of their keys; each process gets them all."""
        if self.world > 1:
            boxes: list[Any] = [None] * self.world
            torch.distributed.all_gather_object(boxes, parts)
            parts = {key: value for box in boxes for key, value in box.items()}
        return [parts[key] for key in sorted(parts)]


def over_batches(count: int, batch: int, what: str, function: Callable[[slice], Any]) -> list[Any]:
    """``function(slice)`` over all batches, shared by the processes; results in order, everywhere."""
    shard = Shard.here()
    starts = range(0, count, batch)
    mine = [start for index, start in enumerate(starts) if index % shard.world == shard.rank]
    bar = tqdm(total=sum(min(batch, count - s) for s in mine), desc=what, unit="picture", disable=shard.rank > 0)
    parts = {}
    for start in mine:
        part = slice(start, min(start + batch, count))
        parts[start] = function(part)
        bar.update(part.stop - part.start)
    bar.close()
    return shard.gather(parts)


def join(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def drawn_pictures(source: PictureSource, draws: Draws, part: slice) -> Tensor:
    return source.pictures(draws.z[part], draws.params[part], draws.camera[part])


def dataset_pictures(dataset: PictureDataset, indices: Iterable[int]) -> Tensor:
    return collate([dataset.good(int(i)) for i in indices]).normalized


def dataset_features(dataset: Dataset, reader: FeatureReader, batch: int, cache: Path | None) -> Tensor:
    """Features (N, F) of a whole dataset; kept in ``cache`` under a hash of its contents and of the estimator."""
    from safetensors.torch import load_file, save_file

    key = hashlib.sha256(f"{content_hash(dataset)}:{reader.name}:{reader.checksum}".encode()).hexdigest()[:24]
    path = None if cache is None else cache / f"features-{key}.safetensors"
    if path is not None and path.is_file():
        return load_file(path)["features"]
    features = torch.cat(
        over_batches(
            len(dataset),
            batch,
            "dataset features",
            lambda part: reader.features(dataset_pictures(dataset, range(part.start, part.stop))),
        )
    )
    if path is not None and Shard.here().rank == 0:
        with atomic_path(path) as temporary:
            save_file({"features": features.contiguous()}, temporary)
    return features


def content_hash(dataset: Dataset) -> str:
    """SHA-256 over every picture's name and size and every number of the dataset."""
    digest = hashlib.sha256()
    for name in dataset.file_names:
        digest.update(f"{name}:{(dataset.path / name).stat().st_size};".encode())
    digest.update(np.ascontiguousarray(dataset.numbers).tobytes())
    return digest.hexdigest()


def evaluate(
    source: PictureSource,
    dataset: Dataset,
    readers: Readers,
    *,
    metrics: Sequence[str] = METRICS,
    counts: Counts = PAPER,
    seed: int = 0,
    batch: int = 16,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Every metric of a source against a dataset.

    Returns:
        a JSON value: ``results`` (name → numbers), definitions, counts and whether they are the paper's, seed,
        estimators with checksums, versions, how many pictures showed no face to the estimator.

    Raises:
        InputError: a metric without its estimator, an estimator of another head model, an unknown metric.
    """
    unknown = sorted(set(metrics) - set(METRICS))
    if unknown:
        raise InputError(f"there is no metric '{unknown[0]}': choose from {', '.join(METRICS)}")
    needs = {"fid": "features", "kid": "features", "aed": "motion", "apd": "motion", "id": "identity"}
    for metric in metrics:
        if getattr(readers, needs[metric]) is None:
            raise InputError(f"the metric '{metric}' needs an estimator of {needs[metric]}: give its weights")
    if readers.motion is not None and {"aed", "apd"} & set(metrics) and readers.motion.head != source.head:
        raise InputError(
            f"the model is driven by head '{source.head}', the estimator reads head '{readers.motion.head}': "
            "their parameters cannot be compared"
        )
    if dataset.info.head != source.head:
        raise InputError(f"the dataset's head is '{dataset.info.head}', the model's is '{source.head}'")

    results: dict[str, Any] = {}
    lost = 0
    if {"fid", "kid"} & set(metrics):
        assert readers.features is not None
        real = dataset_features(dataset, readers.features, batch, cache)
        draws = draw(dataset, source.z_dim, counts.pictures, 1, seed)
        features = readers.features
        fake = torch.cat(
            over_batches(
                counts.pictures,
                batch,
                "generated features",
                lambda part: features.features(drawn_pictures(source, draws, part)),
            )
        )
        results |= distribution(real, fake, metrics, readers.features)
    if {"aed", "apd"} & set(metrics):
        assert readers.motion is not None
        draws = draw(dataset, source.z_dim, counts.identities, counts.poses, seed + 1)
        motion = readers.motion
        reading = join(
            over_batches(
                len(draws.z), batch, "animation", lambda part: motion.read(drawn_pictures(source, draws, part))
            )
        )
        seen = torch.isfinite(reading["expression"]).all(1)
        lost += int((~seen).sum())
        distances = animation_distances(
            {name: value[seen] for name, value in reading.items()}, draws.params[seen], draws.camera[seen]
        )
        keep = {"aed": ("AED", "jaw", "gaze"), "apd": ("APD", "APD*")}
        for metric in ("aed", "apd"):
            if metric in metrics:
                results |= {name: distances[name] for name in keep[metric] if name in distances}
    if "id" in metrics:
        assert readers.identity is not None
        draws = draw(dataset, source.z_dim, counts.pairs, 2, seed + 2)
        identity = readers.identity
        embedding = torch.cat(
            over_batches(
                len(draws.z),
                batch,
                "identity",
                lambda part: identity.embed(
                    drawn_pictures(source, draws, part), draws.params[part], draws.camera[part]
                ),
            )
        )
        results["ID"] = identity_consistency(embedding[0::2], embedding[1::2])
    return {
        "results": results,
        "source": source.name,
        "resolution": source.resolution,
        "counts": asdict(counts) | {"dataset": len(dataset)},
        "paper_protocol": counts == PAPER,
        "pictures_without_a_face": lost,
        "seed": seed,
        "estimators": {
            kind: {"name": reader.name, "sha256": reader.checksum}
            for kind, reader in vars(readers).items()
            if reader is not None
        },
        "definitions": {name: text for name, text in DEFINITIONS.items() if name in results},
        "versions": {"next3d": next3d.__version__, "torch": torch.__version__, "python": platform.python_version()},
    }


def distribution(real: Tensor, fake: Tensor, metrics: Sequence[str], reader: FeatureReader) -> dict[str, float]:
    """FID (or FD-synthetic) and KID of two sets of features."""
    name = "FID" if reader.name.startswith("Inception") else "FD-synthetic"
    result = {}
    if "fid" in metrics:
        result[name] = frechet_distance(real, fake)
    if "kid" in metrics:
        result["KID"] = kernel_distance(real, fake)
    return result


def floors(dataset: Dataset, readers: Readers, *, metrics: Sequence[str], batch: int = 16, limit: int = 2_000) -> dict:
    """What even real pictures reach: two halves of the dataset against each other, and its pictures read by the
    estimators against their own labels. A metric without its floor says little."""
    result: dict[str, Any] = {}
    order = np.random.default_rng(0).permutation(len(dataset))
    if readers.features is not None and {"fid", "kid"} & set(metrics) and len(dataset) >= 4:
        features = dataset_features(dataset, readers.features, batch, None)
        half = len(dataset) // 2
        result |= distribution(features[order[:half]], features[order[half:]], metrics, readers.features)
    chosen = order[: min(limit, len(dataset))]
    if readers.motion is not None and {"aed", "apd"} & set(metrics):
        motion = readers.motion
        reading = join(
            over_batches(
                len(chosen),
                batch,
                "floor: animation",
                lambda part: motion.read(dataset_pictures(dataset, chosen[part])),
            )
        )
        numbers = torch.from_numpy(dataset.numbers[chosen])
        seen = torch.isfinite(reading["expression"]).all(1)
        params = HeadParams.from_vector(numbers[:, 25:])
        read = {name: value[seen] for name, value in reading.items()}
        result |= animation_distances(read, params[seen], numbers[seen, :25])
        shuffled = torch.from_numpy(np.random.default_rng(1).permutation(int(seen.sum())))
        chance = animation_distances(read, params[seen][shuffled], numbers[seen, :25][shuffled])
        result |= {f"{name} at chance": value for name, value in chance.items()}
    if readers.identity is not None and "id" in metrics and "identity" in dataset.columns:
        result |= identity_floor(dataset, readers.identity, chosen, batch)
    return result


def identity_floor(dataset: Dataset, reader: IdentityReader, chosen: np.ndarray, batch: int) -> dict[str, float]:
    """Mean cosine of real pictures of one person and of two, and how well it tells them apart (AUC)."""
    from next3d.metrics.train_estimators import likeness

    numbers = torch.from_numpy(dataset.numbers)
    persons = np.asarray(dataset.columns["identity"])
    values, counted = np.unique(persons, return_counts=True)
    several = set(values[counted > 1].tolist())
    rows = np.array([i for i in range(len(dataset)) if persons[i] in several][: len(chosen)])
    if len(rows) < 4:
        return {}
    embedding = torch.cat(
        over_batches(
            len(rows),
            batch,
            "floor: identity",
            lambda part: reader.embed(
                dataset_pictures(dataset, rows[part]),
                HeadParams.from_vector(numbers[rows[part], 25:]),
                numbers[rows[part], :25],
            ),
        )
    )
    who = torch.from_numpy(persons[rows].astype(np.int64))
    found = likeness(embedding, who)
    return {"ID": found["same"], "ID of strangers": found["others"], "ID AUC": found["AUC"]}


def as_json(report: dict[str, Any]) -> str:
    return json.dumps(report, indent=2, ensure_ascii=False) + "\n"
