"""``next3d train``: train a generator."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from next3d.errors import InputError
from next3d.training.config import TrainingConfig


@dataclass(frozen=True)
class Arguments:
    """Train a generator, adversarially or, as a warm start, to reproduce pictures whose latents are known.

    Every setting of the preset may be changed on the command line: --total-steps 100 --generator.volume.samples 24.
    A run's folder tells everything: config, environment, metrics, samples, checkpoints.

        next3d train --preset synthetic128 --stage reconstruct --data faces --out run1
        next3d train --preset synthetic128 --data faces --out run2 --init run1
        next3d train --out run2 --resume
        next3d train --out run2 --export my-model
    """

    config: Annotated[TrainingConfig, tyro.conf.arg(name="")]
    out: Path
    """The run's folder."""
    data: Path | None = None
    """The dataset's folder. With --resume, the run's own if omitted."""
    preset: str = "ffhq512"
    """The settings to start from: ffhq512, ffhq256, ffhq512-light, synthetic128 or tiny."""
    head: str = "builtin"
    """The head model that the dataset's parameters belong to: builtin, or a FLAME file or folder."""
    resume: bool = False
    """Go on with the run in --out, exactly where its last sound checkpoint was made; its settings are the defaults."""
    init: Path | None = None
    """Take weights from a model folder (a converted EG3D or Next3D, say) or from another run, where they fit."""
    export: Path | None = None
    """Write the run's averaged generator as a model folder, and do not train."""


def train(arguments: Sequence[str], program: str) -> None:
    """Parse ``arguments`` over the preset's or the resumed run's settings, then train or export."""
    from next3d.training.presets import preset

    given = _peek(arguments)
    config = preset(given.preset)
    if given.resume and given.out is not None and (given.out / "config.json").is_file():
        from next3d.training.run_folder import read_config

        config = read_config(given.out)
    default = Arguments(config=config, out=tyro.MISSING, preset=given.preset)
    chosen = tyro.cli(Arguments, args=list(arguments), default=default, prog=program)
    if chosen.export is not None:
        from next3d.training.export import export

        print(f"wrote {export(chosen.out, chosen.export)}")
        return
    run(chosen)


train.parses_itself = True  # type: ignore[attr-defined]


def run(chosen: Arguments) -> None:
    """Check everything, train, and leave with the exit code that the ending deserves."""
    from next3d.data.dataset import open_dataset
    from next3d.heads import load_head
    from next3d.io.files import check_folder
    from next3d.training.run_folder import RunFolder
    from next3d.training.trainer import Diverged, Trainer

    check_folder(chosen.out)
    data = chosen.data
    if data is None:
        folder = RunFolder(chosen.out)
        if not (chosen.resume and folder.exists):
            raise InputError("--data is needed: the folder of a dataset (next3d dataset synthesize makes one)")
        data = Path(folder.read_json("run.json")["data"])
    reconstruct = chosen.config.stage == "reconstruct"
    dataset = open_dataset(data, "train", aux=reconstruct, columns=("latent", "identity") if reconstruct else ())
    trainer = Trainer(
        chosen.config,
        dataset,
        load_head(chosen.head),
        chosen.out,
        resume=chosen.resume,
        init=chosen.init,
        description={"data": str(data.resolve()), "preset": chosen.preset, "head": chosen.head},
    )
    try:
        stopped = trainer.run()
    except Diverged as error:
        print(f"next3d: error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    if stopped == "SIGINT":
        raise SystemExit(130)
    if stopped is not None:
        raise SystemExit(143)


@dataclass(frozen=True)
class _Peek:
    preset: str = "ffhq512"
    resume: bool = False
    out: Path | None = None


def _peek(arguments: Sequence[str]) -> _Peek:
    """What decides the defaults must be known before the rest can be parsed."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(_Peek):
        flag = f"--{field.name}"
        for i, argument in enumerate(arguments):
            if argument == flag:
                values[field.name] = (
                    True if field.name == "resume" else (arguments[i + 1] if i + 1 < len(arguments) else "")
                )
            elif argument.startswith(f"{flag}="):
                values[field.name] = argument.split("=", 1)[1]
    if values.get("out"):
        values["out"] = Path(values["out"])
    return _Peek(**values)
