"""``next3d invert``: photos of one person to an animatable avatar."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro


def invert(
    photo: Annotated[tuple[Path, ...], tyro.conf.Positional],
    /,
    out: Path = Path("me.avatar"),
    model: str = "demo",
    steps: tuple[int, int] = (450, 500),
    start: Literal["best", "mean"] = "best",
    candidates: int = 32,
    per_layer: bool = False,
    noise_maps: bool = False,
    refine_pose: bool = False,
    identity: float = 0.0,
    perceptual: tuple[Path, ...] = (),
    pixels_only: bool = False,
    stop_at: float | None = None,
    patience: int = 100,
    face: str | None = None,
    frames: int = 6,
    preview: Path | None = None,
    seed: int = 0,
    name: str | None = None,
    head: Path | None = None,
    device: str = "auto",
    threads: int | None = None,
) -> None:
    """Turn photos of one person into an avatar: find the latent, then tune the generator's weights a little.

    next3d invert anna.jpg --out anna.avatar

    next3d invert anna1.jpg anna2.jpg anna.mp4 --out anna.avatar --refine-pose

    The model stays as it is; the avatar keeps what was changed and belongs to that model. Beside it a sheet
    (anna.png: photo, inversion, tuned, expressions, views) and curves (anna.curves.png) are written. An interrupted run
    leaves anna.avatar.resume, and the same command goes on from it.

    Args:
        photo: pictures of one person; of a video some frames are taken.
        out: the avatar (.avatar).
        model: "demo", a model folder, a name on the Hugging Face hub, or untrained:PRESET.
        steps: of the latent, and of the weights.
        start: at the best of some random identities, or at the mean.
        candidates: how many random identities are tried.
        per_layer: a latent for every layer (w+): nearer to the photo, less animatable.
        noise_maps: also seek the per-pixel noise.
        refine_pose: also seek each photo's camera, expression and gaze, starting from the tracking's.
        identity: weight of the identity's likeness, by the bundled estimator.
        perceptual: your VGG-16 file (torchvision's), LPIPS network, or VGG-16 and LPIPS's vgg.pth; by default the
            features of the bundled estimator.
        pixels_only: compare without perceptual features.
        stop_at: stop tuning when all photos are matched to so many dB.
        patience: a stage ends when its loss has not fallen for so many steps; 0: never.
        face: which face where there are several: "largest", or its index by size.
        frames: how many frames are taken of a video.
        preview: where the sheet goes, if not beside the avatar (.png).
        seed: two runs with one seed agree.
        name: of the avatar; the first photo's by default.
        head: your FLAME folder, for a model that FLAME drives.
        device: auto, cpu or cuda.
        threads: processor cores to use.
    """
    import time

    from next3d.cli.common import check_suffix, open_model, use_threads
    from next3d.editing.inversion import InversionSettings
    from next3d.editing.photos import invert_photos
    from next3d.editing.preview import curves, inversion_sheet
    from next3d.editing.progress import Bars
    from next3d.errors import InputError
    from next3d.io.images import write_image

    if not photo:
        raise InputError("give at least one photo: next3d invert PHOTO --out me.avatar")
    check_suffix(out, (".avatar",), "an avatar's name")
    sheet_path = check_suffix(preview or out.with_suffix(".png"), (".png", ".jpg", ".webp"), "the preview's name")
    curves_path = sheet_path.with_name(f"{sheet_path.stem}.curves.png")
    use_threads(threads)
    settings = InversionSettings(
        latent_steps=steps[0],
        weight_steps=steps[1],
        start=start,
        candidates=candidates,
        per_layer=per_layer,
        noise_maps=noise_maps,
        refine_pose=refine_pose,
        identity_weight=identity,
        target_psnr=stop_at,
        patience=patience,
        seed=seed,
    )
    settings.check()
    generator = open_model(model, device, head)
    began, bars = time.monotonic(), Bars()
    try:
        result = invert_photos(
            photo,
            generator,
            settings,
            bars,
            face=face,
            frames=frames,
            perceptual=None if pixels_only else perceptual,
            checkpoint=out.with_name(out.name + ".resume"),
            name=name,
        )
    finally:
        bars.close()
    result.avatar.save(out)
    write_image(sheet_path, inversion_sheet(result))
    write_image(curves_path, curves(result.curves))
    taken = time.monotonic() - began
    print(
        f"{len(result.photos)} photo(s), {result.pivot_psnr:.1f} dB by the latent, {result.psnr:.1f} dB tuned, in "
        f"{taken:.0f} s: {out} ({out.stat().st_size / 1e6:.1f} MB)"
    )
    print(f"look: {sheet_path}, {curves_path}")
