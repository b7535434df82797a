"""Training the bundled estimators on factory pictures, and measuring them on identities never seen."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from next3d.data.dataset import Batch, open_dataset
from next3d.data.loader import make_loader
from next3d.errors import InputError
from next3d.estimators import IDENTITY, MOTION, RESOLUTION, Estimator, EstimatorConfig, motion_targets
from next3d.io.files import check_folder, write_text

KINDS = ("motion", "identity")
LEARNING_RATE = 5e-4  # four times as much, and the hidden features die
WEIGHT_DECAY = 0.02


def targets(kind: str, batch: Batch) -> Tensor:
    """What an estimator of ``kind`` should say of a batch."""
    if kind == "motion":
        return motion_targets(batch.params, batch.camera)
    return torch.as_tensor(batch.row["latent"]).float()


def degrade(images: Tensor, generator: torch.Generator) -> Tensor:
    """Blur, noise and contrast drawn at random per batch, so that soft generated pictures are read as well as sharp
    factory pictures."""
    draw = torch.rand(4, generator=generator).tolist()
    if draw[0] < 0.5:
        size = int(RESOLUTION * (0.35 + 0.6 * draw[1]))
        small = torch.nn.functional.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
        images = torch.nn.functional.interpolate(small, size=images.shape[-2:], mode="bicubic")
    images = images * (0.85 + 0.3 * draw[2]) + 0.1 * (draw[3] - 0.5)
    return images + 0.03 * torch.randn(images.shape, generator=generator)


def train(
    kind: str,
    data: Path,
    *,
    samples: int,
    batch: int = 64,
    seed: int = 0,
    workers: int = 1,
    split: str | None = "train",
) -> Estimator:
    """Train one estimator.

    Args:
        kind: "motion" or "identity".
        data: a factory dataset (it must have the column ``latent`` for "identity").
        samples: how many pictures to see, repeats included.
    """
    dataset = open_dataset(data, split, columns=["latent", "identity"])
    if "latent" not in getattr(dataset, "columns", {"latent": None}):
        raise InputError(f"{data} has no column 'latent': estimators are trained on  next3d dataset synthesize")
    outputs = MOTION if kind == "motion" else IDENTITY
    torch.manual_seed(seed)
    model = Estimator(EstimatorConfig(outputs, head=dataset.info.head))
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loader = make_loader(dataset, batch, seed=seed, workers=workers)
    first = [targets(kind, next(loader)) for _ in range(8)]
    model.mean.copy_(torch.cat(first).mean(0))
    model.deviation.copy_(torch.cat(first).std(0).clamp_min(0.02))
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = max(1, samples // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    bar = tqdm(range(steps), desc=kind, unit="step")
    for _ in bar:
        current = next(loader)
        wanted = (targets(kind, current) - model.mean) / model.deviation
        images = degrade(current.normalized, generator)
        with torch.autocast("cpu", torch.bfloat16):
            features = model.features(images)
        mean, spread = model.out(features.float()).chunk(2, -1)
        spread = spread.clamp(-5, 3)
        # The spread (log of the standard deviation) follows the error by Gaussian likelihood but does not weigh it:
        # whatever is hard at first would otherwise be given up as unsure and never learnt.
        error = mean - wanted
        likelihood = 0.5 * (error.detach() * torch.exp(-spread)).square() + spread
        loss = (0.5 * error.square() + likelihood).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if optimizer.state and bar.n % 10 == 0:
            bar.set_postfix(loss=f"{float(loss):.3f}")
    loader.close()
    return model.eval()


@torch.no_grad()
def held_out(model: Estimator, data: Path, kind: str, count: int = 2000) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Predictions, targets (in label units), embeddings and identity numbers on the test split."""
    dataset = open_dataset(data, "test", columns=["latent", "identity"])
    parts = list(batches(dataset, count))
    said = torch.cat([torch.cat(list(model.predict(b.normalized).values()), -1) for b in parts])
    wanted = torch.cat([targets(kind, b) for b in parts])
    embedding = torch.cat([model.embed(b.normalized) for b in parts])
    return said, wanted, embedding, torch.cat([torch.as_tensor(b.row["identity"]) for b in parts])


def batches(dataset, count: int, size: int = 64) -> Iterator[Batch]:
    """The first ``count`` good samples in order."""
    from next3d.data.dataset import collate

    for first in range(0, min(count, len(dataset)), size):
        yield collate([dataset.good(i) for i in range(first, min(first + size, count, len(dataset)))])


def same_person_auc(embedding: Tensor, identity: Tensor) -> float:
    """Area under the ROC curve of telling same from different identity by cosine, over all pairs."""
    cosine = embedding @ embedding.T
    same = identity[:, None] == identity
    upper = torch.ones_like(same).triu(1)
    positive, negative = cosine[same & upper], cosine[~same & upper]
    if len(positive) == 0 or len(negative) == 0:
        raise InputError("telling people apart needs several pictures of several people: use synthesize --cameras 4")
    ranks = torch.cat([positive, negative]).argsort().argsort().double() + 1
    n, m = len(positive), len(negative)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def likeness(embedding: Tensor, identity: Tensor) -> dict[str, float]:
    """Of unit embeddings (N, F) and identity numbers (N,): the mean cosine of pictures of the same person and of
    others, and the AUC of telling the two apart.

    Raises:
        InputError: no person has two pictures, or there is one person alone.
    """
    cosine, same = embedding @ embedding.T, identity[:, None] == identity
    upper = torch.ones_like(same).triu(1)
    return {
        "same": float(cosine[same & upper].mean()),
        "others": float(cosine[~same & upper].mean()),
        "AUC": same_person_auc(embedding, identity),
    }


def measure(model: Estimator, data: Path, kind: str) -> dict[str, float]:
    """Accuracy on held-out identities: mean absolute error and correlation per group of outputs; AUC for identity."""
    said, wanted, embedding, identity = held_out(model, data, kind)
    result: dict[str, float] = {"pictures": len(said)}
    start = 0
    for name, count in model.config.outputs.items():
        a, b = said[:, start : start + count], wanted[:, start : start + count]
        result[f"{name} mean absolute error"] = round(float((a - b).abs().mean()), 5)
        result[f"{name} label deviation"] = round(float(b.std(0).mean()), 5)
        centred_a, centred_b = a - a.mean(0), b - b.mean(0)
        varies = b.std(0) > 1e-4
        correlation = (centred_a * centred_b).sum(0) / (centred_a.norm(dim=0) * centred_b.norm(dim=0)).clamp_min(1e-9)
        result[f"{name} correlation"] = round(float(correlation[varies].mean()), 4)
        start += count
    if kind == "identity":
        result["same-person AUC"] = round(same_person_auc(embedding, identity), 4)
    return result


def train_estimators(
    data: Path, out: Path, *, kinds: Sequence[str] = KINDS, samples: int = 400_000, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Train estimators, measure them, and write ``motion.safetensors``, ``identity.safetensors`` and CARD.md.

    The card tells of both, those that the folder held before included.

    Raises:
        InputError: an unknown kind, a dataset that is not the factory's, a folder that cannot be written.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise InputError(f"there is no estimator '{kind}': choose from {', '.join(KINDS)}")
    check_folder(out)
    for kind in kinds:
        started = time.time()
        model = train(kind, data, samples=samples, seed=seed)
        accuracy = measure(model, data, kind)
        accuracy["training minutes"] = round((time.time() - started) / 60, 1)
        accuracy["pictures seen in training"] = samples
        object.__setattr__(model.config, "accuracy", accuracy)
        model.save(file(out, kind))
        report = {
            name: Estimator.load(path).config.accuracy or {} for name in KINDS if (path := file(out, name)).exists()
        }
        write_text(out / "CARD.md", card(report))
    return report


def file(folder: Path, kind: str) -> Path:
    """Where an estimator lies in a folder."""
    return folder / f"{kind}.safetensors"


def card(report: dict[str, dict[str, float]]) -> str:
    """The estimators' card: what they are for and how well they read held-out identities."""
    lines = [
        "# The bundled estimators",
        "",
        "Two small residual networks, trained on factory pictures at 128² to measure models of such pictures. They",
        "know nothing of real faces. Made with",
        "",
        "    next3d dataset synthesize --count 20000 --cameras 4 --aux --out DATA",
        *(
            f"    next3d train-estimators --data DATA --out FOLDER --only {kind} "
            f"--samples {numbers.get('pictures seen in training', 0)}"
            for kind, numbers in report.items()
        ),
        "",
        "Measured on the dataset's test split, whose identities were never trained on. Units: expression in full",
        "expressions, jaw, gaze and rotation in radians, latent in standard deviations.",
        "",
    ]
    for kind, numbers in report.items():
        lines += [f"## {kind}", "", "| measured | value |", "| --- | --- |"]
        lines += [f"| {name} | {value} |" for name, value in numbers.items()]
        lines.append("")
    return "\n".join(lines)
