"""``next3d demo``: everything at a glance, with the model that comes with the package."""

from __future__ import annotations

from pathlib import Path

from next3d.cli.common import Precision


def demo(
    out: Path = Path("out/demo"),
    model: str = "demo",
    seed: int = 0,
    precision: Precision = "bfloat16",
    device: str = "auto",
) -> None:
    """Draw what the model can do: identities from all sides, faces that move, a talking head, depth, and a mesh.

    Args:
        out: the folder to write.
        model: "demo", a model folder, a name on the Hugging Face hub, or untrained:PRESET.
        seed: the first of eight identities.
        precision: bfloat16 is faster on most machines.
        device: auto, cpu or cuda.
    """
    from next3d.cli.common import dtype_of, open_model
    from next3d.demo import draw_demo

    for path, what in draw_demo(open_model(model, device), out, seed=seed, dtype=dtype_of(precision)):
        print(f"{path}  {what}", flush=True)
