"""``next3d stylize``: a sentence or an example picture turns a model into another style."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def stylize(
    out: Path = Path("styled"),
    prompt: str = "",
    source: str = "a photo of a face",
    style_image: tuple[Path, ...] = (),
    model: str = "demo",
    avatar: tuple[Path, ...] = (),
    steps: int = 300,
    strategy: Literal["last", "none"] = "last",
    networks: tuple[str, ...] = ("texture", "static", "mouth"),
    layers: int = 0,
    identity: float = 0.0,
    rate: float = 2e-3,
    batch: int = 2,
    clip: tuple[str, ...] = ("openai/clip-vit-base-patch32", "openai/clip-vit-base-patch16"),
    download: bool = False,
    truncation: float = 0.7,
    seed: int = 0,
    head: Path | None = None,
    device: str = "auto",
    threads: int | None = None,
) -> None:
    """Turn a model into another style; heads stay consistent from all sides and drivable.

    next3d stylize --prompt "a marble bust" --out marble

    next3d stylize --style-image painting.jpg --avatar anna.avatar --out painted

    The result is a model folder like any other, with its recipe (recipe.json), a comparison (comparison.png) and the
    loss (curves.png). Avatars come along: painted/anna.avatar belongs to the new model.

    Args:
        out: the model folder to make.
        prompt: what the heads should look like.
        source: what they look like now.
        style_image: one or more pictures of the style, instead of a prompt.
        model: the source: "demo", a model folder, a name on the Hugging Face hub, or untrained:PRESET.
        avatar: avatars of the source model to carry over.
        steps: how many; more is stronger.
        strategy: which ToRGB layers move: the last one of each network, or none, as in StyleGAN-NADA.
        networks: what moves: texture, static, mouth; further blending, background, superres.
        layers: move only so many layers, chosen by the loss; 0 moves all.
        identity: weight of keeping each head's identity, by the bundled estimator.
        rate: step size.
        batch: heads in each step.
        clip: CLIP models: folders in transformers' layout, or names in your Hugging Face cache.
        download: fetch them from the hub if they are not in the cache.
        truncation: variety of the heads that are drawn, 0 to 1.
        seed: two runs with one seed agree.
        head: your FLAME folder, for a model that FLAME drives.
        device: auto, cpu or cuda.
        threads: processor cores to use.
    """
    import json
    import time

    import torch

    from next3d.avatar import Avatar
    from next3d.cli.common import open_model, use_threads
    from next3d.editing.clip import open_clips
    from next3d.editing.preview import curves, sheet
    from next3d.editing.progress import Bars
    from next3d.editing.stylization import StylizationSettings, carry_over, comparison
    from next3d.editing.stylization import stylize as run
    from next3d.errors import InputError
    from next3d.estimators import bundled
    from next3d.io.files import atomic_folder, check_folder, write_text
    from next3d.io.images import from_uint8, read_image, write_image

    if style_image and prompt:
        raise InputError("give either --prompt or --style-image, not both")
    if not style_image and not prompt.strip():
        raise InputError('the prompt is empty: give --prompt "a marble bust", or --style-image')
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out} exists already: give a new folder")
    if len({path.name for path in avatar}) < len(avatar):
        raise InputError("two --avatar files have the same name: rename one, since both go into the new folder")
    check_folder(out.parent)
    settings = StylizationSettings(
        steps=steps, rate=rate, batch=batch, strategy=strategy, networks=networks, layers=layers,
        identity_weight=identity, truncation=truncation, seed=seed,
    )  # fmt: skip
    settings.check()
    use_threads(threads)
    examples = None
    pictures = [square(from_uint8(read_image(path))) for path in style_image]
    if pictures:
        examples = torch.stack(pictures)
    generator = open_model(model, device, head)
    carried = [Avatar.load(path, generator) for path in avatar]
    estimator = bundled("identity").to(generator.device) if identity else None
    clips = open_clips(clip, download=download, device=generator.device)
    began, bars = time.monotonic(), Bars()
    try:
        made = run(generator, clips, prompt, source, settings, bars, examples=examples, identity=estimator)
    finally:
        bars.close()
    recipe = made.recipe() | {"source_name": model, "style_images": [path.name for path in style_image]}
    with atomic_folder(out) as folder:
        made.model._save_pretrained(folder)
        write_text(folder / "recipe.json", json.dumps(recipe, indent=2) + "\n")
        write_image(folder / "comparison.png", sheet(*comparison(generator, made.model, truncation=truncation)))
        write_image(folder / "curves.png", curves({"direction": made.curve}, title="1 − cos"))
        for path, one in zip(avatar, carried):
            carry_over(one, made.model).save(folder / path.name)
    print(
        f"{steps} steps in {time.monotonic() - began:.0f} s, loss {made.curve[0]:.3f} → {recipe['loss']['last']:.3f}, "
        f"{len(made.moved)} tensors moved: {out}"
    )


def square(picture):
    """The middle of a picture (3, H, W), as (3, 256, 256)."""
    import torch.nn.functional as F

    side = min(picture.shape[1:])
    top, left = ((n - side) // 2 for n in picture.shape[1:])
    middle = picture[None, :, top : top + side, left : left + side]
    return F.interpolate(middle, (256, 256), mode="bicubic", antialias=True, align_corners=False)[0].clamp(-1, 1)
