"""``next3d head``: the head model itself."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def head(
    out: Path = Path("head.png"),
    head: str = "builtin",
    sheet: Literal["turntable", "closeups", "expressions", "shapes", "clip"] = "turntable",
    set: tuple[str, ...] = (),
    clip: str | None = None,
    motion: Path | None = None,
    seed: int | None = None,
    landmarks: bool = False,
    yaw: float = 0.0,
    pitch: float = 0.0,
    size: int = 256,
    list_names: bool = False,
) -> None:
    """Look at a head model: contact sheets, and mesh files with joints and named morph targets.

    next3d head --sheet expressions --out expressions.png

    next3d head --set jawOpen=0.6 mouthSmileLeft=1 headWidth=2 --out me.glb

    next3d head --clip talk --out talking.glb

    Args:
        out: .png or .jpg for a contact sheet; .glb for a file with morph targets, joints and, with --clip or --motion,
            an animation, for Blender, Unity or the web; .obj or .ply for the posed mesh alone.
        head: "builtin", or a FLAME model file or folder of yours.
        sheet: what a picture shows: the head all around, close-ups of eyes, nose, mouth, ear and profile, every
            expression, the leading shapes at ±2, or a clip.
        set: parameters by name: ARKit's (jawOpen=0.5), the head's own, or neck, jaw and eyes in radians.
        clip: a built-in clip: talk, expressions, blink, gaze or turn.
        motion: a motion file instead (.npz).
        seed: a random shape.
        landmarks: mark the 68 landmarks and the irises in pictures.
        yaw: degrees by which pictures are seen from the subject's left.
        pitch: degrees by which they are seen from above.
        size: pixels of each picture.
        list_names: print the names of all parameters and stop.
    """
    from next3d.cli.common import check_suffix, named_params, show_warnings
    from next3d.errors import InputError
    from next3d.heads import Motion, load_head
    from next3d.heads.gltf import write_glb
    from next3d.heads.motions import CLIPS
    from next3d.heads.pictures import contact_sheet_of
    from next3d.io.images import WRITE_SUFFIXES, write_image
    from next3d.io.meshes import SUFFIXES, Mesh

    show_warnings()
    model = load_head(head)
    if list_names:
        print("expressions:", *model.expression_names, "\nshapes:", *model.shape_names)
        return
    check_suffix(out, (*WRITE_SUFFIXES, *SUFFIXES), "a picture's or mesh's name")
    if not 16 <= size <= 2048:
        raise InputError(f"--size must be 16 to 2048 pixels, got {size}")
    params = named_params(model, set)
    if seed is not None:
        import torch

        random = torch.randn(100, generator=torch.Generator().manual_seed(seed))
        params = params.replace(shape=params.shape + 0.8 * random)
    params = model.clamp(params)
    moving = None
    if motion is not None:
        moving = Motion.load(motion)
    elif clip is not None or sheet == "clip":
        moving = Motion.clip(clip or next(iter(CLIPS)), model)

    suffix = out.suffix.lower()
    if suffix == ".glb":
        write_glb(out, model, params, moving)
    elif suffix in SUFFIXES:
        vertices = model(params).vertices[0]
        Mesh(vertices, model.topology.faces).export(out)
    else:
        kind = "clip" if moving is not None else sheet
        picture = contact_sheet_of(
            model,
            kind,
            params,
            motion=moving,
            size=size,
            yaw=yaw,
            pitch=pitch,
            landmarks=landmarks,
        )
        write_image(out, picture)
    print(out)
