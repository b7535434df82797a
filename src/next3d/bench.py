"""Where the time of a frame goes: stage by stage, against the fastest convolution that this machine can do."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from next3d.errors import InputError
from next3d.generator.generator import Generator
from next3d.raster import rasterize

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CEILING_CHANNELS, CEILING_SIZE = 256, 256  # the convolution that sets the ceiling: 256 → 256 channels, 3×3, at 256²
# stage: the methods whose calls make it up, as (submodule, method). Methods of one frame never call one another.
STAGES: dict[str, list[tuple[str, str]]] = {
    "mapping": [("mapping", "forward")],
    "styles": [(name, "styles") for name in ("neural_texture", "static_planes", "mouth", "blending", "superres")],
    "texture": [("neural_texture", "forward")],
    "static planes": [("static_planes", "forward")],
    "draw the mesh": [("texture_planes", "forward")],
    "mouth": [("mouth", "forward")],
    "blending": [("blending", "forward")],
    "background": [("background", "forward")],
    "rays": [("volume", "field"), ("volume", "forward")],
    "super-resolution": [("superres", "forward")],
}


@dataclass
class Cost:
    """What one stage of one frame takes.

    Attributes:
        milliseconds: in the fastest of the frames
        gflop: 10⁹ multiplications and additions in convolutions and matrix products
        peak_gib: largest memory during the stage, that of the process on a CPU, that of tensors on a GPU; None unknown
        share: of the ceiling
    """

    milliseconds: float = 0.0
    gflop: float = 0.0
    peak_gib: float | None = None
    share: float = 0.0


@dataclass
class Run:
    """One way to make frames: all stages, their sum with what lies between them, and the ceiling beside them."""

    name: str
    precision: str
    ceiling_gflops: float
    total: Cost = field(default_factory=Cost)
    stages: dict[str, Cost] = field(default_factory=dict)


@dataclass
class Rasterization:
    """Milliseconds that ``resolution``² pixels of a mesh of ``faces`` triangles take."""

    milliseconds: float
    faces: int
    resolution: int


@dataclass
class Report:
    """The result of :func:`bench_frame`.

    Attributes:
        machine: what it ran on
        whole: frames from the latent on, float32
        baked: frames of a baked identity, in the chosen precision
        rasterization: one 256² front view of the mesh on one thread of a CPU
        speedup: of the second over the first
        difference: mean absolute difference of the two pictures, in steps of 1/255 of the value range
    """

    machine: dict[str, Any]
    whole: Run
    baked: Run
    rasterization: Rasterization | None
    speedup: float
    difference: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    def __str__(self) -> str:
        machine = ", ".join(f"{key} {value}" for key, value in self.machine.items())
        lines = [machine]
        for run in (self.whole, self.baked):
            lines += ["", f"{run.name}, {run.precision} (convolution ceiling {run.ceiling_gflops:.0f} GFLOP/s)"]
            lines += [f"{'stage':<18}{'ms':>9}{'GFLOP':>9}{'GiB':>7}{'of ceiling':>12}"]
            lines += [_row(name, cost) for name, cost in run.stages.items()]
            lines += [_row("frame", run.total)]
        if self.rasterization is not None:
            r = self.rasterization
            view = f"one {r.resolution}² view of {r.faces:,} triangles on one thread"
            lines += ["", f"{view}: {r.milliseconds:.2f} ms"]
        lines += ["", f"baked is {self.speedup:.2f} times as fast; mean difference {self.difference:.2f}/255"]
        return "\n".join(lines)


def _row(name: str, cost: Cost) -> str:
    peak = "–" if cost.peak_gib is None else f"{cost.peak_gib:.2f}"
    share = f"{100 * cost.share:.0f} %" if cost.gflop >= 0.05 else "–"
    return f"{name:<18}{cost.milliseconds:>9.1f}{cost.gflop:>9.1f}{peak:>7}{share:>12}"


@torch.no_grad()
def bench_frame(
    model: Generator,
    vertices: Tensor,
    landmarks: Tensor,
    camera_label: Tensor,
    *,
    precision: str = "bfloat16",
    frames: int = 3,
    seed: int = 0,
    progress: Callable[[str], None] = lambda stage: None,
) -> Report:
    """Time one picture of one head, first whole in float32, then baked in ``precision``.

    Args:
        model: any generator; its device is where things run
        vertices: (1, V, 3) metres, head frame
        landmarks: (1, 68, 3), the same frame
        camera_label: (1, 25)
        precision: "float32", "bfloat16" or "float16", of the baked frames
        frames: how many of each are timed, after one that is not
        seed: of the latent
        progress: called before each of the 2·frames + 4 frames that are made, with what they are

    Raises:
        InputError: for an unknown precision or no frames
    """
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision '{precision}': expected one of {', '.join(PRECISIONS)}")
    if frames < 1:
        raise InputError(f"at least one frame must be timed, got {frames}")
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(1, model.config.mapping.z_dim, generator=generator).to(model.device)

    def whole() -> Tensor:
        ws = model.mapping(z, camera_label)
        return model.synthesis(ws, camera_label, vertices, landmarks).image

    first = _measure("whole frame", "float32", whole, model, frames, progress)
    expected = whole()
    baked = model.bake(model.mapping(z, camera_label), dtype=PRECISIONS[precision])

    def frame() -> Tensor:
        return baked.synthesis(camera_label, vertices, landmarks).image

    second = _measure("baked frame", precision, frame, model, frames, progress)
    difference = (frame().float() - expected).abs().mean().item() * 127.5
    speedup = first.total.milliseconds / second.total.milliseconds
    drawn = _rasterization(model, vertices) if model.device.type == "cpu" and model.config.planes.enabled else None
    return Report(machine(model.device), first, second, drawn, speedup, difference)


def _rasterization(model: Generator, vertices: Tensor, resolution: int = 256, repeats: int = 30) -> Rasterization:
    screen = model.texture_planes.project(vertices, "front")
    faces, device = model.texture_planes.faces, model.device
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rasterize(screen, faces, resolution)
        fastest = min(_elapsed(lambda: rasterize(screen, faces, resolution), device) for _ in range(repeats))
    finally:
        torch.set_num_threads(threads)
    return Rasterization(fastest * 1e3, len(faces), resolution)


def _measure(
    name: str, precision: str, frame: Callable[[], Any], model: Generator, frames: int, progress: Callable[[str], None]
) -> Run:
    """Count once, then time ``frames`` times, the ceiling in between."""
    device = model.device
    run = Run(name, precision, 0.0)
    progress(f"{name}, {precision}")
    frame()  # compiles, allocates
    progress(f"{name}, {precision}")
    counter = FlopCounterMode(display=False)
    with counter, _watched(model, _Count(counter, device)) as counts:
        frame()
    fastest: dict[str, float] = {}
    ceiling = Ceiling(PRECISIONS[precision], device)
    best = 0.0
    for _ in range(frames):
        progress(f"{name}, {precision}")
        best = max(best, ceiling())
        with _watched(model, _Time(device)) as spent:
            frame()
        if not fastest or spent["frame"] < fastest["frame"]:
            fastest = spent
    run.ceiling_gflops = best
    for stage, (gflop, peak) in counts.items():
        milliseconds = fastest[stage] * 1e3
        share = gflop / (milliseconds / 1e3) / best if milliseconds else 0.0
        run.stages[stage] = Cost(milliseconds, gflop, peak, share)
    run.total = run.stages.pop("frame")
    peaks = [cost.peak_gib for cost in (run.total, *run.stages.values()) if cost.peak_gib is not None]
    run.total.peak_gib = max(peaks) if peaks else None
    return run


class Ceiling:
    """The speed of one plain convolution in GFLOP/s, channels-last: the most that networks like these can reach."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        c, size = CEILING_CHANNELS, CEILING_SIZE
        self.x = torch.randn(1, c, size, size, dtype=dtype, device=device).contiguous(memory_format=torch.channels_last)
        self.weight = torch.randn(c, c, 3, 3, dtype=dtype, device=device).contiguous(memory_format=torch.channels_last)
        self.gflop = 2 * 9 * c * c * size * size / 1e9
        self.device = device
        self()

    def __call__(self, repeats: int = 3) -> float:
        times = (_elapsed(lambda: F.conv2d(self.x, self.weight, padding=1), self.device) for _ in range(repeats))
        return self.gflop / min(times)


class _Time:
    """Seconds of a call."""

    zero = 0.0

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def start(self) -> float:
        return _clock(self.device)

    def stop(self, start: float, before: float) -> float:
        return before + _clock(self.device) - start


class _Count:
    """GFLOP and peak memory of a call."""

    zero: tuple[float, float | None] = (0.0, None)

    def __init__(self, counter: FlopCounterMode, device: torch.device) -> None:
        self.counter, self.device = counter, device

    def start(self) -> int:
        reset_peak(self.device)
        return self.counter.get_total_flops()

    def stop(self, start: int, before: tuple[float, float | None]) -> tuple[float, float | None]:
        peak = peak_memory(self.device)
        peaks = [p for p in (before[1], peak) if p is not None]
        return before[0] + (self.counter.get_total_flops() - start) / 1e9, max(peaks) if peaks else None


@contextlib.contextmanager
def _watched(model: Generator, watch: Any) -> Iterator[dict[str, Any]]:
    """Sum what ``watch`` sees over the calls of every stage, and over the block as a whole under "frame"."""
    found: dict[str, Any] = {}
    patched: list[tuple[Any, str]] = []

    def wrap(stage: str, method: Callable) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = watch.start()
            result = method(*args, **kwargs)
            found[stage] = watch.stop(start, found.get(stage, watch.zero))
            return result

        return call

    for stage, methods in STAGES.items():
        for name, method in methods:
            module = getattr(model, name, None)
            if module is not None:
                setattr(module, method, wrap(stage, getattr(module, method)))
                patched.append((module, method))
    start = watch.start()
    try:
        yield found
        found["frame"] = watch.stop(start, watch.zero)
    finally:
        for module, method in patched:
            delattr(module, method)  # uncovers the class's own


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _elapsed(function: Callable[[], Any], device: torch.device) -> float:
    start = _clock(device)
    function()
    return _clock(device) - start


def reset_peak(device: torch.device) -> None:
    """Forget the peak so far, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
            file.write("5")


def peak_memory(device: torch.device) -> float | None:
    """GiB at the peak: of tensors on a GPU; of this process on a CPU, since the last reset where the system can."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if sys.platform == "linux":
        with contextlib.suppress(OSError), open("/proc/self/status") as file:
            for line in file:
                if line.startswith("VmHWM"):
                    return int(line.split()[1]) / 2**20
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were taken on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "system": platform.system(),
    }


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
