"""``next3d measure-model``: do jaw, lids and gaze reach the picture, does identity stay, are views consistent?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro


def measure_model(
    model: Annotated[str, tyro.conf.Positional] = "demo",
    *,
    data: Path,
    out: Path,
    identities: int = 500,
    factory: int = 50,
    steps: int = 5,
    seed: int = 0,
    batch: int = 8,
    truncation: float = 1.0,
    estimators: Path | None = None,
    device: str = "auto",
) -> None:
    """Measure what a model of factory pictures shows, on people it never saw, beside what the factory itself shows.

    Controls are read off the rendered pictures, never off the mesh. Writes measures.json, measures.md and controls.png.

    Args:
        model: a model folder, or "demo".
        data: a dataset of the model's resolution, made by  next3d dataset synthesize.
        out: the folder for what is written.
        identities: people to draw, and pictures of the dataset's test split to rebuild.
        factory: how many of these people the factory draws too, as the upper bound.
        steps: of each sweep.
        seed: of the people and their expressions.
        batch: pictures rebuilt at once.
        truncation: of the latents.
        estimators: folder with identity.safetensors, if not the bundled one.
        device: where the model runs: auto, cpu or cuda.
    """
    import json

    from next3d.cli.common import open_model, print_line
    from next3d.estimators import BUNDLED, Estimator
    from next3d.io.files import check_folder, write_text
    from next3d.io.images import write_image
    from next3d.metrics import controls

    check_folder(out)
    path = (BUNDLED if estimators is None else estimators) / "identity.safetensors"
    identity = None
    if estimators is not None or path.is_file():
        identity = Estimator.load(path)
    else:
        print_line(
            "next3d: warning: there is no bundled identity estimator: identity and what can be read are left out"
        )
    network = open_model(model, device)
    result = controls.measure(
        network, data, identities=identities, factory=factory, steps=steps, seed=seed, batch=batch,
        truncation=truncation, identity=identity,
    )  # fmt: skip
    text = controls.page(result)
    write_text(out / "measures.json", json.dumps(result, indent=2) + "\n")
    write_text(out / "measures.md", text)
    write_image(out / "controls.png", controls.sheet(network, seed=seed, truncation=truncation))
    print(text)
    print("\n".join(str(out / name) for name in ("measures.json", "measures.md", "controls.png")))
