"""Do a model's controls reach the picture? Measured on people never seen, beside what the picture factory shows.

Jaw, lids and gaze are swept and read off the frontal pictures' pixels (pixels.py), never off the mesh. The factory,
read in the same way, says how well the reading itself follows the truth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from next3d.avatar import Avatar, Frame, fingerprint
from next3d.data.dataset import Batch, Dataset, collate
from next3d.data.synthesis.identity import LATENT_SIZE, Identity
from next3d.errors import InputError
from next3d.estimators import Estimator
from next3d.generator.generator import Generator
from next3d.geometry.cameras import Camera
from next3d.geometry.meshes import world_from_head
from next3d.heads.head_model import HeadModel
from next3d.heads.params import HeadParams
from next3d.metrics.consistency import face_region, view_consistency
from next3d.metrics.pixels import Regions, eye_openness, gaze_side, mouth_opening, psnr, tongue_or_teeth
from next3d.metrics.sources import ModelSource
from next3d.metrics.train_estimators import likeness

JAW, GAZE = 30.0, 25.0  # degrees: the jaw is swept from 0, gaze to both sides
EXPRESSIONS = 2  # of each identity, besides the face at rest, for telling people apart
VISIBLE = 0.15  # share of the open mouth that must not be dark; a mouth painted dark reads up to 0.11
READOUT_PICTURES = 4000  # that glasses, beard and hair are learned from
SHUFFLES = 20
# What is told at a glance of what the factory gives people to wear and grow; what is not named is a kind of its own.
THINGS: dict[str, dict[str, str]] = {
    "glasses": dict.fromkeys(("round", "square", "cat"), "clear"),
    "beard": {"none": "shaven", "stubble": "shaven", "moustache": "small", "goatee": "small"},
    "hair": dict.fromkeys(("bald", "buzz"), "shorn")
    | dict.fromkeys(("crop", "side", "quiff", "slick", "fringe", "bun"), "short")
    | {"bob": "long"},
}
LIMITS = {"jaw": 0.9, "eyelid closure": 0.9, "view consistency": 6.0}

DEFINITIONS = {
    "jaw": f"Pearson correlation of the commanded jaw angle (0 to {JAW:.0f}°) with the area of the mouth's inside in "
    "the frontal picture",
    "eyelid closure": "Pearson correlation of the commanded blink of both eyes (0 to 1) with the share of the eyes' "
    "region that shows skin; 'without glasses': pooled, of people who wear none",
    "gaze": f"Pearson correlation of the commanded yaw of both eyes (±{GAZE:.0f}°) with the place of the irises, by "
    "darkness, between the eyes' corners",
    "identity": "cosine of the identity estimator's embeddings of frontal pictures of one identity in different "
    "expressions, of different identities, and the AUC of telling the two apart",
    "view consistency": "mean absolute colour error, of 255, of visible skin carried from the frontal view into views "
    "turned by ±0.2 and ±0.4 radians through the rendered depth",
    "reconstruction": "PSNR in dB against the dataset's own pictures of identities never trained on, over the whole "
    "picture and over the moving region of the face; 'of others' is against the next row's picture",
    "mouth open": f"share of identities of whose mouth, opened by {JAW:.0f}°, tongue and teeth fill {VISIBLE:.0%} or "
    "more",
    "readable": "balanced accuracy of a linear readout on the identity estimator's features, trained on factory "
    "pictures, of what the latent says the person wears or grows (no, clear or dark glasses; no, a small or a full "
    "beard; shorn, short, curly or long hair); on generated and on the dataset's own pictures of the same rows",
}


@dataclass(frozen=True)
class Sweep:
    """One control moved through its range: ``values`` (T,), and the head parameters (T,) that command them."""

    name: str
    values: Tensor
    params: HeadParams
    label: str

    def read(self, images: Tensor, regions: Regions) -> Tensor:
        """(T,) what the pictures show of it."""
        if self.name == "jaw":
            return mouth_opening(images, regions)
        return -eye_openness(images, regions) if self.name == "eyelid closure" else gaze_side(images, regions)


def sweeps(head: HeadModel, steps: int) -> list[Sweep]:
    """Jaw, eyelids and gaze, each in ``steps`` steps."""
    if steps < 3:
        raise InputError(f"a sweep of {steps} steps shows nothing: give 3 or more")
    jaw, lids, gaze = torch.linspace(0, JAW, steps), torch.linspace(0, 1, steps), torch.linspace(-GAZE, GAZE, steps)
    zero = torch.zeros(steps)
    opened, turned = torch.deg2rad(jaw), torch.deg2rad(gaze)
    blink = {"eyeBlinkLeft": lids, "eyeBlinkRight": lids}
    return [
        Sweep("jaw", jaw, HeadParams(jaw=torch.stack([opened, zero, zero], -1)), "jaw {:.0f}°"),
        Sweep("eyelid closure", lids, head.from_arkit(blink).to("cpu"), "lids {:.2f}"),
        Sweep("gaze", gaze, HeadParams(eyes=torch.stack([zero, turned, zero] * 2, -1)), "gaze {:.0f}°"),
    ]


class Person(Protocol):
    """Somebody who can be drawn, by a model or by the factory."""

    @property
    def regions(self) -> Regions:
        """Where to look, by the head at rest."""
        ...

    def pictures(self, params: HeadParams, camera: Camera | None = None) -> Tensor:
        """(T, 3, R, R) in [−1, 1] of parameters (T,), frontal unless cameras (T,) are given."""
        ...

    def consistency(self) -> float:
        """See :func:`next3d.metrics.consistency.view_consistency`."""
        ...


class ModelPerson:
    """An identity of a generator, by its latent (z_dim,)."""

    def __init__(self, model: Generator, z: Tensor, truncation: float = 1.0):
        assert model.head is not None
        z = z[None].to(model.device)
        frontal = Camera.orbit().label[None].to(model.device)
        with torch.no_grad():
            ws = model.mapping(z, frontal, truncation=truncation)
        shape = model.shape_of(z)
        self.avatar = Avatar(model, ws, None if shape is None else shape[0])
        self.regions = regions_of(model.head, self.avatar.shape, model.config.superres.resolution)

    @torch.no_grad()
    def pictures(self, params: HeadParams, camera: Camera | None = None) -> Tensor:
        label = (Camera.orbit().label.expand(len(params), 25) if camera is None else camera.label).to(
            self.avatar.model.device
        )
        return self.avatar.baked.synthesis(label, *self.avatar.mesh_of(params)).image.float().cpu()

    def consistency(self) -> float:
        return view_consistency(self.avatar)


class FactoryPerson:
    """The picture factory's own drawing of a latent (64,): the truth that a model learns from."""

    def __init__(self, z: Tensor, resolution: int, head: HeadModel):
        from next3d.data.synthesis import shape

        self.z, self.resolution, self.head, self.shape = z.numpy(), resolution, head, shape(z.numpy())
        self.regions = regions_of(head, self.shape, resolution)

    def pictures(self, params: HeadParams, camera: Camera | None = None) -> Tensor:
        frontal = Camera.orbit()
        return torch.stack(
            [self.render(params[i], frontal if camera is None else camera[i]).image for i in range(len(params))]
        )

    def render(self, params: HeadParams, camera: Camera) -> Frame:
        from next3d.data.synthesis import render

        picture = render(self.z, params, camera, self.resolution, aux=True)
        assert picture.depth is not None
        depth = torch.from_numpy(picture.depth.copy()).flatten()  # along the camera's axis, 0 where there is nothing
        _, directions = camera.rays(self.resolution)
        along = depth / (directions @ camera.cam2world[:3, 2])
        size = (1, self.resolution, self.resolution)
        image = torch.from_numpy(picture.image.copy()).permute(2, 0, 1) / 127.5 - 1
        return Frame(image, along.view(size), (depth > 0).float().view(size), None, params, camera)

    def consistency(self) -> float:
        return view_consistency(self)


def regions_of(head: HeadModel, shape: Tensor, resolution: int) -> Regions:
    """Where to look for the mouth and eyes of a shape (100,)."""
    landmarks = head(HeadParams(shape=shape).to(head.template.device)).landmarks
    uv, _ = Camera.orbit().project(world_from_head(landmarks)[0].cpu())
    return Regions.of(uv, resolution)


def correlation(values: Tensor, readings: Tensor) -> dict[str, float]:
    """Pearson correlation of commanded values (T,) with readings (N, T).

    Returns:
        pooled: over all N × T after subtracting each identity's means; mean: of the identities' own correlations (0 for
        one whose reading does not move); lowest tenth: the tenth percentile of those; shuffled: pooled, each identity's
        commands in random order (the mean of 20 orders), which is chance.
    """
    commands = values.double().expand_as(readings)
    b = readings.double() - readings.double().mean(1, keepdim=True)

    def pooled(a: Tensor) -> float:
        a = a - a.mean(1, keepdim=True)
        return float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-12))

    a = commands - commands.mean(1, keepdim=True)
    generator = torch.Generator().manual_seed(0)
    orders = torch.rand(SHUFFLES, *commands.shape, generator=generator).argsort(-1)
    shuffled = [pooled(commands.gather(1, order)) for order in orders]
    own = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-12)
    return {
        "pooled": pooled(commands),
        "mean": float(own.mean()),
        "lowest tenth": float(own.quantile(0.1)),
        "shuffled": float(np.mean(shuffled)),
    }


def sweep_people(
    people: Iterator[Person],
    count: int,
    controls: Sequence[Sweep],
    expressions: HeadParams,
    identity: Estimator | None,
    bare: np.ndarray,
    name: str,
) -> dict[str, dict[str, float]]:
    """Everything that is measured on frontal sweeps and turned views of ``count`` people.

    Args:
        expressions: (count, EXPRESSIONS) for telling people apart
        identity: the estimator, or None to leave that out
        bare: (count,) bool, who wears no glasses: their eyelids are measured on their own too
    """
    readings: dict[str, list[Tensor]] = {control.name: [] for control in controls}
    bright, errors, embeddings = [], [], []
    for index, person in enumerate(tqdm(people, desc=name, total=count, unit="identity")):
        wanted = HeadParams.cat([control.params for control in controls] + [expressions[index]]).vector()
        faces, place = wanted.unique(dim=0, return_inverse=True)  # sweeps share the face at rest
        images = person.pictures(HeadParams.from_vector(faces))[place]
        parts = images.split([len(control.values) for control in controls] + [EXPRESSIONS])
        for control, part in zip(controls, parts):
            readings[control.name].append(control.read(part, person.regions))
        bright.append(tongue_or_teeth(parts[0][-1:], person.regions))
        errors.append(person.consistency())
        if identity is not None:
            embeddings.append(identity.embed(torch.cat([parts[0][:1], parts[-1]])))
    result = {control.name: correlation(control.values, torch.stack(readings[control.name])) for control in controls}
    lids = next(control for control in controls if control.name == "eyelid closure")
    if bare.any():
        uncovered = torch.stack(readings[lids.name])[torch.from_numpy(bare)]
        result[lids.name]["without glasses"] = correlation(lids.values, uncovered)["pooled"]
    share = torch.cat(bright)
    result["mouth open"] = {"share": float((share >= VISIBLE).float().mean()), "filled": float(share.mean())}
    result["view consistency"] = {
        "mean": float(np.nanmean(errors)),
        "worst tenth": float(np.nanquantile(errors, 0.9)),
    }
    if identity is not None:
        each = torch.stack(embeddings)  # (N, K, F)
        result["identity"] = likeness(each.flatten(0, 1), torch.arange(count).repeat_interleave(each.shape[1]))
    return result


def labels(latents: np.ndarray) -> dict[str, np.ndarray]:
    """Thing → (N,) names, of latents (N, 64)."""
    people = [Identity.of(latent) for latent in latents]
    return {
        thing: np.array([kinds.get(getattr(person, thing), getattr(person, thing)) for person in people])
        for thing, kinds in THINGS.items()
    }


class Readout:
    """Ridge regression of one-hot classes on standardised features, every class weighing the same."""

    def __init__(self, features: Tensor, names: np.ndarray, strength: float = 0.1):
        self.names, number = np.unique(names, return_inverse=True)
        target = torch.nn.functional.one_hot(torch.from_numpy(number), len(self.names)).double()
        self.mean, self.scale = features.double().mean(0), features.double().std(0).clamp_min(1e-6)
        x = self._standard(features)
        weight = (target / target.sum(0)).sum(1, keepdim=True) / len(self.names)  # sums to 1
        gram = x.T @ (weight * x) + strength * torch.eye(x.shape[1], dtype=x.dtype)
        self.weights = torch.linalg.solve(gram, x.T @ (weight * target))

    def _standard(self, features: Tensor) -> Tensor:
        x = (features.double() - self.mean) / self.scale
        return torch.cat([x, torch.ones_like(x[:, :1])], 1)

    def __call__(self, features: Tensor) -> np.ndarray:
        """(N,) names of features (N, F)."""
        return self.names[(self._standard(features) @ self.weights).argmax(1).numpy()]


def balanced_accuracy(said: np.ndarray, truth: np.ndarray) -> float:
    """The mean, over the classes that occur, of the share of each that is recognised."""
    return float(np.mean([(said[truth == name] == name).mean() for name in np.unique(truth)]))


@torch.no_grad()
def rows_of(dataset: Dataset, count: int, batch: int, name: str) -> Iterator[Batch]:
    """``count`` rows spread evenly over a dataset."""
    chosen = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    with tqdm(total=len(chosen), desc=name, unit="picture") as bar:
        for start in range(0, len(chosen), batch):
            rows = chosen[start : start + batch]
            yield collate([dataset.good(int(i)) for i in rows])
            bar.update(len(rows))


@torch.no_grad()
def held_out_rows(
    model: Generator,
    test: Dataset,
    train: Dataset,
    count: int,
    batch: int,
    identity: Estimator | None,
    truncation: float,
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Reconstruction of the dataset's rows, and what can be read off them: (the model's, the dataset's own)."""
    source, head = ModelSource(model, truncation=truncation), model.head
    assert head is not None
    scores: dict[str, list[Tensor]] = {"whole": [], "face": [], "of others": []}
    features: dict[str, list[Tensor]] = {"model": [], "own": []}
    latents = []
    for rows in rows_of(test, count, batch, "held-out pictures"):
        wanted, latent = rows.normalized, torch.as_tensor(rows.row["latent"]).float()
        drawn = source.pictures(latent, rows.params, rows.camera)
        vertices = world_from_head(head(rows.params.to(model.device)).vertices).cpu()
        face = face_region(head.topology, vertices, Camera.from_label(rows.camera), drawn.shape[-1])
        scores["whole"].append(psnr(drawn, wanted))
        scores["face"].append(psnr(drawn, wanted, face)[face.any(-1).any(-1)])
        if len(wanted) > 1:
            scores["of others"].append(psnr(drawn, wanted.roll(1, 0)))
        latents.append(latent)
        if identity is not None:
            features["model"].append(identity.features(drawn))
            features["own"].append(identity.features(wanted))
    ours: dict[str, dict[str, float]] = {
        "reconstruction": {name: float(torch.cat(values).mean()) for name, values in scores.items() if values}
    }
    theirs: dict[str, dict[str, float]] = {}
    if identity is not None:
        taught = list(rows_of(train, READOUT_PICTURES, 64, "pictures to learn from"))
        known = torch.cat([identity.features(rows.normalized) for rows in taught])
        names = labels(torch.cat([torch.as_tensor(rows.row["latent"]) for rows in taught]).numpy())
        truth = labels(torch.cat(latents).numpy())
        ours["readable"], theirs["readable"] = {}, {}
        for thing in THINGS:
            readout = Readout(known, names[thing])
            for result, seen in ((ours, features["model"]), (theirs, features["own"])):
                result["readable"][thing] = balanced_accuracy(readout(torch.cat(seen)), truth[thing])
            ours["readable"][f"{thing} at chance"] = 1 / len(np.unique(truth[thing]))
    return ours, theirs


def check(model: Generator, test: Dataset, identities: int) -> None:
    """Raise :class:`InputError` for a model and dataset that cannot be measured together, before work starts."""
    if model.head is None or not model.config.planes.enabled:
        raise InputError("only a model that a head model drives has controls to measure: give its head with --head")
    if identities < 2:
        raise InputError(f"{identities} identities are too few to compare people: give 2 or more")
    if "latent" not in test.columns or np.shape(test.columns["latent"])[1:] != (LATENT_SIZE,):
        raise InputError(f"{test.path} has no column 'latent': measure against  next3d dataset synthesize")
    if model.config.mapping.z_dim != LATENT_SIZE:
        raise InputError(
            f"the model's latents have {model.config.mapping.z_dim} numbers, the factory's {LATENT_SIZE}: "
            "only models of factory pictures are measured here (next3d evaluate takes any)"
        )
    if test.info.head != model.head.name:
        raise InputError(f"the dataset's head is '{test.info.head}', the model's is '{model.head.name}'")
    if test.resolution != model.config.superres.resolution:
        raise InputError(
            f"the model draws {model.config.superres.resolution}² pictures, the dataset has {test.resolution}²: "
            "compare them at one size"
        )
    if len(test) < 2:
        raise InputError(f"{test.path} has {len(test)} pictures in its split 'test': make it larger")


def measure(
    model: Generator,
    data: str | Path,
    *,
    identities: int = 500,
    factory: int = 50,
    steps: int = 5,
    seed: int = 0,
    batch: int = 8,
    truncation: float = 1.0,
    identity: Estimator | None = None,
) -> dict[str, Any]:
    """Everything that the model card states about the controls.

    Args:
        data: a folder of ``next3d dataset synthesize``, of the model's resolution; expressions, cameras and pictures
            come from its test split, pictures to learn glasses, beard and hair from come from its training split
        identities: latents drawn with ``seed``, which no dataset holds; and rows of the test split
        factory: the first so many of them are also drawn and read by the factory, as the upper bound
        steps: of each sweep
        identity: the identity estimator; without it identity and readability are left out

    Returns:
        a JSON value: ``measures`` (name → model, factory, limit, definition), ``left_out`` (name → why), counts, the
        model's checksum
    """
    test, train = (Dataset(data, split, columns=None) for split in ("test", "train"))
    check(model, test, identities)
    head = model.head
    assert head is not None
    factory = min(factory, identities)
    z = torch.randn(identities, LATENT_SIZE, generator=torch.Generator().manual_seed(seed))
    rows = np.random.default_rng(seed).integers(0, len(test), identities * EXPRESSIONS)
    params = HeadParams.from_vector(torch.from_numpy(test.numbers[rows, 25:])).replace(neck=torch.zeros(3))
    expressions = params.reshape(identities, EXPRESSIONS)
    controls = sweeps(head, steps)
    bare = labels(z.numpy())["glasses"] == "none"
    drawn = (ModelPerson(model, one, truncation) for one in z)
    ours = sweep_people(drawn, identities, controls, expressions, identity, bare, "model")
    theirs: dict[str, dict[str, float]] = {}
    if factory >= 2:
        true = (FactoryPerson(one, test.resolution, head) for one in z[:factory])
        theirs = sweep_people(true, factory, controls, expressions, identity, bare[:factory], "factory")
    rebuilt, own = held_out_rows(model, test, train, identities, batch, identity, truncation)
    ours, theirs = ours | rebuilt, theirs | own
    names = [name for name in DEFINITIONS if name in ours]
    return {
        "measures": {
            name: {
                "model": ours[name],
                "factory": theirs.get(name),
                "limit": LIMITS.get(name),
                "definition": DEFINITIONS[name],
            }
            for name in names
        },
        "left_out": {name: "there is no identity estimator" for name in DEFINITIONS if name not in ours},
        "counts": {
            "identities": identities,
            "factory": factory,
            "steps": steps,
            "expressions": EXPRESSIONS,
            "rows": min(identities, len(test)),
        },
        "seed": seed,
        "truncation": truncation,
        "model": fingerprint(model),
    }


def page(result: Mapping[str, Any]) -> str:
    """The measures as Markdown: a table beside the factory's, then what each means."""
    counts = result["counts"]
    lines = [
        "# What the controls do",
        "",
        f"{counts['identities']} identities never seen, {counts['steps']} steps a sweep; "
        f"{counts['rows']} held-out pictures rebuilt; factory: the same read off {counts['factory']} of these people "
        f"as the picture factory draws them. Seed {result['seed']}, truncation {result['truncation']:g}, model "
        f"{result['model'][:16]}.",
        "",
        "| measure | model | factory | limit |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, measure in result["measures"].items():
        main = next(iter(measure["model"]))
        for key, value in measure["model"].items():
            other = (measure["factory"] or {}).get(key)
            limit = measure["limit"] if key == main else None
            sign = "≤" if name == "view consistency" else "≥"
            lines.append(
                f"| {name}: {key} | {value:.3f} | {'—' if other is None else f'{other:.3f}'} | "
                f"{'' if limit is None else f'{sign} {limit:g}'} |"
            )
    lines += ["", *(f"- **{name}**: {measure['definition']}." for name, measure in result["measures"].items())]
    lines += [
        "- **pooled** is over all identities and steps after subtracting each identity's means, **mean** over the "
        "identities' own correlations, **shuffled** with each identity's commands in random order (chance).",
    ]
    if result["left_out"]:
        lines += ["", *(f"**Left out**: {name}, since {why}." for name, why in result["left_out"].items())]
    return "\n".join(lines) + "\n"


@torch.no_grad()
def sheet(
    model: Generator, *, identities: int = 4, steps: int = 5, seed: int = 0, truncation: float = 1.0
) -> np.ndarray:
    """(H, W, 3) uint8: the first identities through jaw and lids (one row), gaze and turning camera (the next)."""
    from next3d.io.images import contact_sheet, to_uint8

    head = model.head
    assert head is not None
    z = torch.randn(identities, LATENT_SIZE, generator=torch.Generator().manual_seed(seed))
    controls = sweeps(head, steps)
    yaw = torch.linspace(-35, 35, steps)
    cells, names = [], []
    for one in z:
        person = ModelPerson(model, one, truncation)
        for control in controls:
            cells += list(to_uint8(person.pictures(control.params)))
            names += [control.label.format(float(value)) for value in control.values]
        rest = HeadParams.stack([HeadParams()] * steps)
        cells += list(to_uint8(person.pictures(rest, Camera.orbit(torch.deg2rad(yaw)))))
        names += [f"view {float(value):.0f}°" for value in yaw]
    return contact_sheet(cells, columns=2 * steps, labels=names)
