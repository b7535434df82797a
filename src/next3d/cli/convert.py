"""``next3d convert``: released checkpoints to model folders."""

from __future__ import annotations

from pathlib import Path


def convert(released: Path, /, out: Path, list_unused: bool = False) -> None:
    """Convert a released Next3D or EG3D checkpoint (.pkl) to a model folder, without executing anything from it.

    The mesh's topology, UVs and face mask come from the checkpoint itself, so that the folder draws at once.

    next3d convert next3d_ffhq_512.pkl --out next3d-ffhq

    next3d generate --model next3d-ffhq --mesh head.obj --landmarks head.txt

    Args:
        released: the checkpoint, such as next3d_ffhq_512.pkl.
        out: the folder to write.
        list_unused: name every tensor that this network has no use for, not only their number.
    """
    from next3d.interop.released import convert as convert_file
    from next3d.io.files import check_folder

    check_folder(out.parent)
    result = convert_file(released)
    result.model.save_pretrained(out)
    for line in result.notes:
        print(line)
    if result.unused:
        groups: dict[str, int] = {}
        for name in result.unused:
            head = name.split(".")[0]
            groups[head] = groups.get(head, 0) + 1
        total = ", ".join(f"{count} of {name}" for name, count in groups.items())
        print(f"{len(result.unused)} tensors have no use here ({total})")
        if list_unused:
            print("\n".join(f"  {name}" for name in result.unused))
    print(out)
