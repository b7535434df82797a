"""``next3d bench``: where a frame's time goes on this machine."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Any, Literal


def bench(
    model: str = "untrained:ffhq512",
    precision: Literal["float32", "bfloat16", "float16"] = "bfloat16",
    frames: int = 3,
    threads: int | None = None,
    mesh: Path | None = None,
    landmarks: Path | None = None,
    device: str = "auto",
    seed: int = 0,
    json: Path | None = None,
) -> None:
    """Time every stage of a frame on this machine.

    One picture of one head is made in two ways: whole, from the latent on, in float32; and baked, with everything that
    the identity alone decides computed before. For each stage: milliseconds, 10⁹ multiplications and additions in
    convolutions and matrix products, peak memory, and the share of the machine's ceiling, a 3×3 convolution of 256 to
    256 channels at 256² timed in between at the same precision.

    next3d bench --json bench.json

    next3d bench --model demo --precision float32 --threads 1

    Args:
        model: a model folder, a name on the Hugging Face hub, "demo", or untrained:PRESET.
        precision: of the baked frames.
        frames: how many are timed of each kind; the table shows the fastest.
        threads: CPU threads; as many as torch takes by itself if omitted.
        mesh: an OBJ file to draw, in metres, head frame, of the model's topology; the neutral head if omitted.
        landmarks: the 68 landmarks of the mesh, a text file of three numbers a line.
        device: auto, cpu or cuda.
        seed: of the latent.
        json: also write the figures to this file.
    """
    from tqdm import tqdm

    from next3d.bench import bench_frame
    from next3d.cli.common import given_mesh, open_model, use_threads
    from next3d.errors import InputError
    from next3d.geometry.cameras import Camera
    from next3d.heads import HeadParams
    from next3d.io.files import check_writable, write_text

    if json is not None:
        check_writable(json)
    use_threads(threads)
    with tqdm(total=4 + 2 * frames, unit="frame", leave=False) as bar:
        bar.set_description("loading")
        generator = open_model(model, device)
        given = given_mesh(generator, mesh, landmarks)
        if given is not None:
            vertices, points = (values[None] for values in given)
        elif generator.head is not None:
            neutral = generator.head(HeadParams())
            vertices, points = neutral.vertices, neutral.landmarks
        else:
            raise InputError(f"{model} brings no head of its own: give a mesh with --mesh and --landmarks")

        def progress(what: str) -> None:
            bar.set_description(what)
            bar.update()

        report = bench_frame(
            generator,
            vertices.to(generator.device),
            points.to(generator.device),
            Camera.orbit().label[None].to(generator.device),
            precision=precision,
            frames=frames,
            seed=seed,
            progress=progress,
        )
    print(report)
    if json is not None:
        write_text(json, json_format.dumps({"model": model, **report.to_dict()}, indent=2) + "\n")


def bench_train(
    preset: str = "synthetic128",
    stage: Literal["adversarial", "reconstruct"] = "adversarial",
    steps: int = 16,
    batch: int | None = None,
    precision: Literal["32-true", "bf16-mixed"] | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    json: Path | None = None,
) -> None:
    """Time every phase of a training step on this machine, on noise instead of pictures.

    Prints images a second, milliseconds and share of each phase (generator, discriminator, R1, density, the synthetic
    rendering's rasterisation, data …) and peak memory. Sixteen steps hold every lazy regulariser as often as it runs.

    Args:
        preset: ffhq512, ffhq256, ffhq512-light, synthetic128 or tiny.
        stage: adversarial, or the reconstruction warm start.
        steps: how many are timed.
        batch: pictures a step; the preset's if omitted.
        precision: the preset's if omitted.
        device: auto, cpu or cuda.
        json: also write the figures to this file.
    """
    import dataclasses

    from next3d.io.files import check_writable, write_text
    from next3d.training.bench import measure, table
    from next3d.training.presets import preset as training_preset

    if json is not None:
        check_writable(json)
    config = training_preset(preset)
    changes: dict[str, Any] = {
        "stage": stage,
        "device": device,
        "batch": batch or config.batch,
        "precision": precision or config.precision,
    }
    result = measure(dataclasses.replace(config, **changes), steps)
    print(table(result))
    if json is not None:
        write_text(json, json_format.dumps(result, indent=2) + "\n")
