"""``next3d interpolate``: a looped video between random heads."""

from __future__ import annotations

from pathlib import Path

from next3d.cli.common import Seeds


def interpolate(
    out: Path = Path("interpolation.mp4"),
    model: str = "demo",
    seed: Seeds = "0-4",
    truncation: float = 0.7,
    seconds: float = 2.0,
    fps: float = 25.0,
    swing: float = 20.0,
    clip: str | None = None,
    mesh: Path | None = None,
    landmarks: Path | None = None,
    head: Path | None = None,
    device: str = "auto",
) -> None:
    """Morph from head to head and back to the first, along a smooth closed curve through their latents.

    next3d interpolate --seeds 0-4 --out morph.mp4

    next3d interpolate --seeds 0,7,12 --clip expressions --swing 0 --seconds 1

    Args:
        out: the video (.mp4, .mov, .mkv).
        model: "demo", a model folder, a name on the Hugging Face hub, or untrained:PRESET.
        seed: the heads on the way: 0-4 or 0,7,12.
        truncation: 1 keeps the full variety, 0 gives the mean.
        seconds: from one head to the next.
        fps: frames per second.
        swing: the camera swings this many degrees to both sides; 0 holds it still.
        clip: what the head does meanwhile: talk, expressions, blink, gaze or turn; rests if omitted.
        mesh: an OBJ file to draw instead, in metres, head frame, of the model's topology.
        landmarks: the 68 landmarks of the mesh, a text file of three numbers a line.
        head: your FLAME folder, for a model that FLAME drives.
        device: auto, cpu or cuda.
    """
    from next3d.avatar import morph
    from next3d.cli.common import check_suffix, given_mesh, open_model, parse_seeds
    from next3d.errors import InputError
    from next3d.heads import Motion
    from next3d.io.video import WRITE_SUFFIXES, write_video

    check_suffix(out, WRITE_SUFFIXES, "a video's name")
    seeds = parse_seeds(seed)
    if not (0 < seconds <= 3600 and 0 < fps <= 240):
        raise InputError(f"--seconds and --fps must be positive (at most 3600 and 240), got {seconds} and {fps}")
    generator = open_model(model, device, head)
    driver = given_mesh(generator, mesh, landmarks)
    count = len(seeds) * max(1, round(seconds * fps))
    motion = None
    if clip is not None:
        if generator.head is None:
            raise InputError("--clip needs a head model, and this model is driven by a mesh alone")
        motion = Motion.clip(clip, generator.head, seconds=count / fps, fps=fps)
    frames = morph(generator, seeds, count, truncation=truncation, swing=swing, motion=motion, mesh=driver)
    write_video(out, frames, fps, total=count)
    print(out)
