"""A run's folder, which tells everything about the run: config, environment, metrics, samples, checkpoints.

| file | what |
| --- | --- |
| ``config.json`` | the whole :class:`TrainingConfig` |
| ``run.json`` | dataset, head, warm start and what it took |
| ``environment.json`` | versions, machine, git revision and command line of every launch |
| ``metrics.jsonl`` | one line per ``log_every`` steps: a pure function of the config and the data |
| ``timing.jsonl`` | the same steps' wall-clock figures |
| ``tensorboard/`` | both, to look at |
| ``samples/`` | grids at fixed seeds |
| ``checkpoints/`` | the last few |
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from next3d import __version__
from next3d.errors import InputError
from next3d.generator.config import build
from next3d.io.files import check_folder, write_text
from next3d.training.config import TrainingConfig


class RunFolder:
    """Where a run writes. Only the first process of a run makes one with ``writing=True``."""

    def __init__(self, path: str | Path, *, writing: bool = True):
        self.path = Path(path)
        self.writing = writing
        self.checkpoints = self.path / "checkpoints"
        self._board: Any = None

    @property
    def exists(self) -> bool:
        """Whether a run was started here."""
        return (self.path / "config.json").is_file()

    def read_json(self, name: str) -> dict[str, Any]:
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path / name} cannot be read ({error}): this is no complete run folder") from None

    def prepare(self, config: dict[str, Any], run: dict[str, Any]) -> None:
        """Write what describes the run; environment.json gains one entry per launch."""
        if not self.writing:
            return
        check_folder(self.path)
        write_text(self.path / "config.json", json.dumps(config, indent=2) + "\n")
        write_text(self.path / "run.json", json.dumps(run, indent=2) + "\n")
        launches = []
        if (self.path / "environment.json").is_file():
            launches = self.read_json("environment.json")["launches"]
        write_text(
            self.path / "environment.json", json.dumps({"launches": [*launches, environment()]}, indent=2) + "\n"
        )
        for folder in ("samples", "checkpoints"):
            check_folder(self.path / folder)

    def rewind(self, step: int) -> None:
        """Forget what was logged after ``step``, where a resumed run goes on."""
        if not self.writing:
            return
        for name in ("metrics.jsonl", "timing.jsonl"):
            path = self.path / name
            if path.is_file():
                lines = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
                write_text(path, "".join(f"{line}\n" for line in lines))
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.path / "tensorboard"), purge_step=step + 1)
        except ImportError:
            self._board = None  # TensorBoard is a convenience; the JSONL files hold the same numbers

    def log(self, name: str, step: int, values: dict[str, float]) -> None:
        """Append one line to ``name``.jsonl, and the numbers to TensorBoard."""
        if not self.writing:
            return
        with open(self.path / f"{name}.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if self._board is not None:
            for key, value in values.items():
                self._board.add_scalar(f"{name}/{key}", value, step)

    def save_samples(self, step: int, pixels: torch.Tensor) -> Path:
        """Write a grid (3, H, W) in [−1, 1] as ``samples/step-XXXXXXXX.png``."""
        from PIL import Image

        from next3d.io.files import atomic_path

        path = self.path / "samples" / f"step-{step:08d}.png"
        array = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().movedim(0, -1).cpu().numpy()
        with atomic_path(path) as temporary:
            Image.fromarray(array).save(temporary)
        return path

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def read_config(path: str | Path) -> TrainingConfig:
    """The config of the run in ``path``; an unknown or ill-typed key raises :class:`InputError`."""
    return build(TrainingConfig, RunFolder(path, writing=False).read_json("config.json"), "")


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return sys.maxsize  # half a line, from a run that was killed while it wrote


def environment() -> dict[str, Any]:
    """Versions, machine, git revision and command line of this process."""
    cuda = torch.cuda.is_available()
    return {
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "command": sys.argv,
        "next3d": __version__,
        "git_revision": _git("rev-parse", "HEAD"),
        "git_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
    }


def _git(*arguments: str) -> str | None:
    """The answer of git about the source tree this package runs from; None if there is none."""
    try:
        answer = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
