"""``next3d mesh``: a generated head as a coloured triangle mesh."""

from __future__ import annotations

from pathlib import Path

from next3d.cli.common import Seeds


def mesh(
    out: Path = Path("head.glb"),
    model: str = "demo",
    seed: Seeds = "0",
    avatar: Path | None = None,
    truncation: float = 0.7,
    resolution: int = 256,
    level: float = 10.0,
    set: tuple[str, ...] = (),
    mesh: Path | None = None,
    landmarks: Path | None = None,
    head: Path | None = None,
    device: str = "auto",
) -> None:
    """Turn a generated head's density into a mesh with vertex colours, in metres, y up (marching cubes).

    next3d mesh --seed 7 --set jawOpen=0.5 --out head.glb

    next3d mesh --avatar anna.avatar --resolution 128 --out anna.ply

    Args:
        out: the mesh (.glb, .ply or .obj).
        model: "demo", a model folder, a name on the Hugging Face hub, or untrained:PRESET.
        seed: which head.
        avatar: a saved avatar instead of a seed.
        truncation: 1 keeps the full variety, 0 gives the mean.
        resolution: samples along each side; 256 takes a few hundred megabytes.
        level: the density at which the surface lies; lower it where the mesh has holes, raise it where it has clouds.
        set: head parameters by name: ARKit's (jawOpen=0.5), the head's own, or neck, jaw and eyes in radians
            (neck=0,0.2,0).
        mesh: an OBJ file to drive the head with, in metres, head frame, of the model's topology.
        landmarks: the 68 landmarks of the mesh, a text file of three numbers a line.
        head: your FLAME folder, for a model that FLAME drives.
        device: auto, cpu or cuda.
    """
    from next3d.cli.common import given_mesh, named_params, open_avatars, open_model
    from next3d.errors import InputError
    from next3d.io.files import check_writable
    from next3d.io.meshes import check_mesh_suffix

    check_writable(check_mesh_suffix(out))
    generator = open_model(model, device, head)
    driver = given_mesh(generator, mesh, landmarks)
    params = named_params(generator.head, set) if set else None
    avatars = open_avatars(generator, [avatar] if avatar else [], seed, truncation, "float32")
    if len(avatars) != 1:
        raise InputError(f"--seed {seed}: a mesh is made of one head")
    result = avatars[0].mesh(params, mesh=driver, resolution=resolution, level=level, progress=True)
    result.export(out)
    print(f"{out}: {len(result.vertices):,} vertices, {len(result.faces):,} triangles")
