"""``next3d view``: the viewer in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from next3d.cli.common import Precision


def view(
    model: str = "demo",
    avatar: tuple[Path, ...] = (),
    host: str = "127.0.0.1",
    port: int = 7033,
    token: str | None = None,
    browser: bool = True,
    head: Path | None = None,
    photo_steps: tuple[int, int] = (200, 250),
    precision: Literal["auto"] | Precision = "auto",
    device: str = "auto",
    threads: int | None = None,
) -> None:
    """Open a page on which a head can be turned, moved, driven by a camera, and exported.

    The server answers this machine alone; with --host it answers others too, to those who have the address with its
    token.

    Examples:  next3d view
    next3d view --avatar anna.avatar ben.avatar
    next3d view --host 0.0.0.0 --no-browser

    Args:
        model: "demo", a model folder, a name on the Hugging Face hub, or untrained:PRESET.
        avatar: saved avatars to show in the gallery.
        host: the address to listen on.
        port: 0 takes any free one.
        token: what the address must carry when --host opens the server to others; made up if not given.
        browser: open the page in a browser.
        head: your FLAME folder, for a model that FLAME drives.
        photo_steps: of the latent and of the weights, when a photo dropped on the page becomes an avatar.
        precision: auto takes what is faster here.
        device: auto, cpu or cuda.
        threads: processor cores to draw with; all but one, which is left to the browser, if not given.
    """
    import secrets
    import sys
    import threading
    import webbrowser

    import torch

    from next3d.cli.common import open_model, use_threads
    from next3d.errors import InputError, require

    for package in ("fastapi", "uvicorn", "websockets"):
        require(package, "viewer")
    from next3d.avatar import Avatar
    from next3d.viewer.guard import is_loopback
    from next3d.viewer.server import Viewer, fastest, serve

    if not 0 <= port <= 65535:
        raise InputError(f"--port must be 0 to 65535, got {port}")
    if min(photo_steps) < 1:
        raise InputError(f"--photo-steps must be positive, got {photo_steps[0]} and {photo_steps[1]}")
    use_threads(threads if threads is not None else max(1, torch.get_num_threads() - 1))
    generator = open_model(model, device, head)
    avatars = {}
    for file in avatar:
        one = Avatar.load(file, generator)
        avatars[one.name if one.name not in avatars else file.stem] = one
    dtype = fastest(generator) if precision == "auto" else getattr(torch, precision)
    if is_loopback(host):
        token = None
    else:
        token = token or secrets.token_urlsafe(16)
        print(
            f"next3d: warning: {host} can be reached by others: whoever has the address below may use this server, "
            "and what is sent is not encrypted",
            file=sys.stderr,
        )
    viewer = Viewer(generator, avatars, dtype=dtype, name=model, photo_steps=photo_steps)
    viewer.warm()

    def opened(address: str) -> None:
        print(f"next3d viewer: {address}  (Ctrl+C ends it)", flush=True)
        if browser:
            threading.Timer(0.5, webbrowser.open, (address,)).start()

    serve(viewer, host=host, port=port, token=token, opened=opened)
