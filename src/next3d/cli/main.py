"""``next3d COMMAND …``: finds the command, parses its arguments, turns bad input into one line and exit code 2."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Sequence

from next3d.errors import InputError

# command: (module, function, what it does). A module is imported only when its command runs.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "generate": (
        "next3d.cli.generate",
        "generate",
        "draw heads from seeds: pictures, grids over yaw and pitch, depth, normals",
    ),
    "interpolate": ("next3d.cli.interpolate", "interpolate", "a looped video between seeds"),
    "mesh": ("next3d.cli.mesh", "mesh", "a coloured mesh of a generated head (GLB, PLY, OBJ)"),
    "animate": (
        "next3d.cli.animate",
        "animate",
        "avatars driven by a motion, a built-in clip, a video or ARKit coefficients",
    ),
    "head": ("next3d.cli.head", "head", "the head model itself: contact sheets and GLB"),
    "track": ("next3d.cli.track", "track", "photos and videos to head parameters"),
    "invert": ("next3d.cli.invert", "invert", "photos of one person to an animatable avatar"),
    "stylize": ("next3d.cli.stylize", "stylize", "turn the generator into another style by a sentence or a picture"),
    "view": ("next3d.cli.view", "view", "an interactive viewer in the browser"),
    "dataset synthesize": ("next3d.cli.dataset", "synthesize", "render training pictures of the built-in head"),
    "dataset build": ("next3d.cli.dataset", "build", "photos or videos to a training dataset"),
    "dataset validate": ("next3d.cli.dataset", "validate", "check every row and picture of a dataset"),
    "dataset pack": ("next3d.cli.dataset", "pack", "pack a dataset folder into WebDataset shards"),
    "dataset import": ("next3d.cli.dataset", "import_", "read EG3D-style or official Next3D-style folders"),
    "dataset show": ("next3d.cli.dataset", "show", "a contact sheet and histograms of a dataset"),
    "train": ("next3d.cli.train", "train", "train a generator"),
    "evaluate": ("next3d.cli.evaluate", "evaluate", "FID, KID, AED, APD, ID and consistency of a model"),
    "measure-model": (
        "next3d.cli.measure_model",
        "measure_model",
        "do jaw, lids and gaze reach the picture, does identity stay",
    ),
    "train-estimators": (
        "next3d.cli.train_estimators",
        "train_estimators",
        "train the small networks that evaluate models of synthetic pictures",
    ),
    "ablate": ("next3d.cli.ablate", "ablate", "train and compare the variants of the paper's Table 2"),
    "convert": (
        "next3d.cli.convert",
        "convert",
        "a released Next3D or EG3D checkpoint to a model folder, without running its pickle",
    ),
    "bench": ("next3d.cli.bench", "bench", "time every stage of a frame on this machine"),
    "bench train": ("next3d.cli.bench", "bench_train", "time every phase of a training step on this machine"),
    "demo": ("next3d.cli.demo", "demo", "everything at a glance with the bundled model"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """The console entry point; ``argv`` defaults to the process's arguments."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and argv[0] in ("--version", "-V"):
        from next3d import __version__

        print(f"next3d {__version__}")
        return
    command = next((" ".join(argv[:n]) for n in (2, 1) if " ".join(argv[:n]) in COMMANDS), None)
    if command is None:
        wanted_help = not argv or argv[-1] in ("-h", "--help", "help")
        group = argv[0] if argv and any(name.startswith(argv[0] + " ") for name in COMMANDS) else ""
        if not wanted_help and not (group and len(argv) == 1):
            fail(f"there is no command '{' '.join(argv[:2] if group else argv[:1])}': next3d --help lists them")
        print(usage(group))
        return
    module, function, _ = COMMANDS[command]
    # Before torch loads GNU's OpenMP: a thread that waits gives its core away sooner than by default. On cores that
    # others use too this is the difference between 0.2 and 2 seconds a picture; on idle ones it costs nothing.
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGTERM, stop)
    try:
        import tyro

        run = getattr(importlib.import_module(module), function)
        arguments, program = argv[len(command.split()) :], f"next3d {command}"
        if getattr(run, "parses_itself", False):  # its defaults depend on other arguments
            run(arguments, program)
        else:
            tyro.cli(run, args=arguments, prog=program)
    except InputError as error:
        fail(str(error))
    except KeyboardInterrupt:
        print("next3d: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        raise SystemExit(141) from None


def usage(group: str = "") -> str:
    """The list of commands, or of one group's."""
    lines = ["usage: next3d COMMAND [options]      next3d COMMAND --help explains one", ""]
    lines += [f"  {name:<20}{about}" for name, (_, _, about) in COMMANDS.items() if name.startswith(group)]
    return "\n".join(lines)


def stop(number: int, frame: object) -> None:
    """Leave as after an error, so that unfinished files are cleared away."""
    raise SystemExit(128 + number)


def fail(message: str) -> None:
    """Print one line on standard error and exit with code 2."""
    print(f"next3d: error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
