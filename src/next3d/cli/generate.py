"""``next3d generate``: pictures of random heads."""

from __future__ import annotations

from pathlib import Path

from next3d.cli.common import Precision, Seeds


def generate(
    out: Path = Path("heads.png"),
    model: str = "demo",
    seed: Seeds = "0-3",
    avatar: tuple[Path, ...] = (),
    truncation: float = 0.7,
    yaw: tuple[float, ...] = (0.0,),
    pitch: tuple[float, ...] = (0.0,),
    set: tuple[str, ...] = (),
    mesh: Path | None = None,
    landmarks: Path | None = None,
    head: Path | None = None,
    depth: bool = False,
    normals: bool = False,
    save_avatar: Path | None = None,
    precision: Precision = "float32",
    device: str = "auto",
) -> None:
    """Draw heads from seeds.

    A picture file gets everything on one sheet, a row per head; a folder gets one picture per head and view.

    next3d generate --seeds 0-7 --yaw -30 0 30 --out sheet.png

    next3d generate --seed 7 --set jawOpen=0.6 mouthSmileLeft=1 --depth --normals --out folder

    Args:
        out: a picture (.png, .jpg, .webp) for one sheet, or a folder.
        model: "demo", a model folder, a name on the Hugging Face hub, or untrained:PRESET.
        seed: which heads: 7, 0-3 or 0-3,7,12.
        avatar: saved avatars to draw instead of seeds.
        truncation: 1 keeps the full variety, 0 gives the mean.
        yaw: degrees around the head, + towards the subject's left; several make a grid.
        pitch: degrees above the horizon; several make a grid.
        set: head parameters by name: ARKit's (jawOpen=0.5), the head's own, or neck, jaw and eyes in radians
            (neck=0,0.2,0).
        mesh: an OBJ file to draw instead, in metres, head frame, of the model's topology.
        landmarks: the 68 landmarks of the mesh, a text file of three numbers a line.
        head: your FLAME folder, for a model that FLAME drives.
        depth: also draw depth.
        normals: also draw normals.
        save_avatar: a folder to save the avatars in, for animate and mesh.
        precision: bfloat16 is faster on most machines.
        device: auto, cpu or cuda.
    """
    import math

    import torch
    from tqdm import tqdm

    from next3d.avatar import depth_picture, normals_picture
    from next3d.cli.common import given_mesh, named_params, open_avatars, open_model
    from next3d.errors import InputError
    from next3d.geometry.cameras import Camera
    from next3d.io.files import check_folder, check_writable
    from next3d.io.images import WRITE_SUFFIXES, contact_sheet, to_uint8, write_image

    sheet = out.suffix.lower() in WRITE_SUFFIXES
    if out.suffix and not sheet and not out.is_dir():
        raise InputError(f"--out {out}: a picture's name ends in {', '.join(WRITE_SUFFIXES)}; or name a folder")
    check_writable(out) if sheet else check_folder(out)
    if save_avatar is not None:
        check_folder(save_avatar)
    generator = open_model(model, device, head)
    driver = given_mesh(generator, mesh, landmarks)
    params = named_params(generator.head, set) if set else None
    avatars = open_avatars(generator, avatar, seed, truncation, precision)
    views = [(y, p) for p in pitch for y in yaw]

    pictures, labels = [], []
    with tqdm(total=len(avatars) * len(views), unit="picture") as bar:
        for one in avatars:
            for y, p in views:
                camera = Camera.orbit(math.radians(y), math.radians(p))
                frame = one.render(params, camera, mesh=driver, normals=normals)
                shown = {"": frame.image}
                if depth:
                    shown["depth"] = depth_picture(frame, generator.config.volume.near, generator.config.volume.far)
                if frame.normals is not None:
                    shown["normals"] = normals_picture(frame)
                for kind, picture in shown.items():
                    size = frame.image.shape[-1]
                    if picture.shape[-1] != size:
                        picture = torch.nn.functional.interpolate(picture[None], size, mode="bilinear")[0]
                    pictures.append(to_uint8(picture))
                    view = f"yaw {y:g}" if len(yaw) > 1 else ""
                    view += f"{', ' if view else ''}pitch {p:g}" if len(pitch) > 1 else ""
                    parts = [part for part in (one.name, view, kind) if part]
                    labels.append(", ".join(parts))
                    if not sheet:
                        name = "_".join(parts).replace(", ", "_").replace(" ", "")
                        write_image(out / f"{name}.png", pictures[-1])
                bar.update()
            if save_avatar is not None:
                one.save(save_avatar / f"{one.name.replace(' ', '')}.avatar")
    if sheet:
        kinds = 1 + depth + normals
        columns = len(yaw) * kinds if len(views) > 1 or kinds > 1 else max(1, math.ceil(math.sqrt(len(pictures))))
        whole = contact_sheet(pictures, columns=columns, labels=labels) if len(pictures) > 1 else pictures[0]
        write_image(out, whole)
    print(out)
