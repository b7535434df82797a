"""A folder of photos or videos → a training dataset (paper, B.1: every picture with head parameters and a camera)."""

from __future__ import annotations

import base64
import html
import io
import json
import multiprocessing
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from next3d.data.format import Info
from next3d.data.writer import DatasetWriter
from next3d.errors import InputError
from next3d.heads import load_head
from next3d.io.files import write_text
from next3d.io.images import read_image
from next3d.io.processes import end_with_parent
from next3d.io.video import read_video, video_info
from next3d.tracking.crop import Crop
from next3d.tracking.detector import open_detector
from next3d.tracking.preview import panels
from next3d.tracking.track import PICTURES, VIDEOS, Track, Tracker, is_video

THUMBNAIL = 96
END = "end of the video"  # a row that a video was too short to fill; no picture was left out
SHOWN = 300  # thumbnails in the report per reason


@dataclass(frozen=True)
class BuildSettings:
    """What is kept, and how it is cut.

    Attributes:
        resolution: pixels along each side of the dataset's pictures
        head: "builtin", or a FLAME file or folder
        face: "one" skips pictures with several faces; "largest" or an index takes that face
        smallest: least size of a face in source pixels, as a share of ``resolution``
        sharpness: least standard deviation of the crop's Laplacian at 128², in grey levels; blurred pictures are below
        misfit: greatest residual of the fit, as a share of the inter-ocular distance
        seconds_between: of a video, one frame in so many seconds is taken
    """

    resolution: int = 512
    head: str = "builtin"
    face: str = "one"
    smallest: float = 0.25
    sharpness: float = 4.0
    misfit: float = 0.05
    seconds_between: float = 0.5


@dataclass(frozen=True)
class Outcome:
    """What became of one picture: kept (``reason`` is empty) or skipped, and its thumbnail as a JPEG."""

    index: int
    name: str
    reason: str
    thumbnail: str


def find_sources(folder: Path) -> list[Path]:
    """Pictures and videos below a folder, sorted by path.

    Raises:
        InputError: there are none, or the folder does not exist.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give a folder of photos or videos")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES | VIDEOS and p.is_file())
    if not found:
        raise InputError(f"{folder} holds neither pictures nor videos")
    return found


def build_dataset(
    sources: Path, out: Path, settings: BuildSettings | None = None, *, workers: int = 2, progress: bool = True
) -> tuple[Info, list[Outcome]]:
    """Track every picture and write those that pass as a dataset, with ``report.html`` beside it.

    Killed or interrupted, it goes on where it was when called again with the same settings.

    Returns:
        the dataset's description, and what became of every picture.

    Raises:
        InputError: nothing to read, an output folder that holds something else, or not one usable picture.
    """
    settings = settings or BuildSettings()
    paths = find_sources(sources)
    head = load_head(settings.head)
    settings_of_dataset = asdict(settings) | {"tool": "dataset build"}
    writer = DatasetWriter(out, resolution=settings.resolution, head=head.name, maker=settings_of_dataset)
    journal = out / ".building" / "outcomes.txt"
    outcomes = {o.index: o for o in read_outcomes(journal)}
    outcomes = {index: o for index, o in outcomes.items() if o.reason or index in writer.done}
    todo = [
        (path, str(path.relative_to(sources)), first, count)
        for path, first, count in numbered(paths, settings.seconds_between)
        if not all(index in outcomes for index in range(first, first + count))
    ]
    bar = tqdm(total=sum(job[3] for job in todo), desc="build", unit="picture", disable=not progress)
    with open(journal, "a", encoding="utf-8") as file:
        for outcome in work(todo, writer, settings, workers):
            outcomes[outcome.index] = outcome
            file.write(json.dumps(asdict(outcome)) + "\n")
            file.flush()
            bar.update()
    bar.close()
    ordered = [outcomes[index] for index in sorted(outcomes)]
    page = report(ordered, settings)
    if not any(o.reason == "" for o in ordered):
        write_text(out / "report.html", page)
        raise InputError(f"not one of {len(ordered)} pictures could be used: {out / 'report.html'} says why")
    info = writer.finish()
    write_text(out / "report.html", page)
    return info, ordered


def numbered(paths: list[Path], seconds_between: float) -> Iterator[tuple[Path, int, int]]:
    """Each source with the index of its first row and how many rows it can give at most."""
    index = 0
    for path in paths:
        count = 1
        if is_video(path):
            try:
                info = video_info(path)
                count = max(1, int((info.seconds or info.frames / info.fps) / seconds_between) + 1)
            except InputError:
                count = 1
        yield path, index, count
        index += count


def read_outcomes(journal: Path) -> Iterator[Outcome]:
    """Outcomes of an interrupted run; a torn last line is left out."""
    if not journal.is_file():
        return
    for line in journal.read_text(encoding="utf-8").splitlines():
        try:
            yield Outcome(**json.loads(line))
        except (ValueError, TypeError):
            continue


def work(jobs: list, writer: DatasetWriter, settings: BuildSettings, workers: int) -> Iterator[Outcome]:
    """Outcomes of all jobs, from this process or from several."""
    if not jobs:
        return
    if workers <= 1 or len(jobs) == 1:
        start_worker(writer, settings, 0)
        for job in jobs:
            yield from do_job(job)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(workers, len(jobs)), start_worker, (writer, settings, 1)) as pool:
        for outcomes in pool.imap_unordered(do_job, jobs):
            yield from outcomes


_state: dict = {}


def start_worker(writer: DatasetWriter, settings: BuildSettings, threads: int) -> None:
    """What a process needs: its own tracker."""
    end_with_parent()
    if threads:
        torch.set_num_threads(threads)
    face = "largest" if settings.face == "one" else settings.face
    _state.update(
        writer=writer, settings=settings, tracker=Tracker(load_head(settings.head), open_detector(), face=face)
    )


def do_job(job: tuple[Path, str, int, int]) -> list[Outcome]:
    """Track one photo, or the sampled frames of one video."""
    path, name, first, count = job
    tracker: Tracker = _state["tracker"]
    if not is_video(path):
        try:
            return [keep(read_image(path), first, name, identity=first)]
        except InputError as error:
            return [Outcome(first, name, short(error, path), "")]
    try:
        shape = tracker.video(path, progress=False).motion.params.shape[0]
        outcomes: list[Outcome] = []
        wanted = 0.0
        for frame in read_video(path):
            if frame.seconds + 1e-6 < wanted or len(outcomes) == count:
                continue
            wanted = frame.seconds + _state["settings"].seconds_between
            label = f"{name} at {frame.seconds:.2f} s"
            outcomes.append(keep(frame.image, first + len(outcomes), label, identity=first, shape=shape))
        return outcomes + [Outcome(first + i, name, END, "") for i in range(len(outcomes), count)]
    except InputError as error:
        return [Outcome(first + i, name, short(error, path), "") for i in range(count)]


def short(error: InputError, path: Path) -> str:
    """An error's text without the path, which stands beside it."""
    return str(error).replace(f"{path} ", "").replace(str(path), path.name)


def keep(image: np.ndarray, index: int, name: str, *, identity: int, shape: torch.Tensor | None = None) -> Outcome:
    """Track a picture and add it to the dataset, unless something speaks against it."""
    writer, settings, tracker = _state["writer"], _state["settings"], _state["tracker"]
    faces = tracker.faces(image)
    if not faces:
        return Outcome(index, name, "no face", thumbnail(image))
    others = [face for face in faces[1:] if face.size > 0.4 * faces[0].size]
    if settings.face == "one" and others:
        return Outcome(index, name, f"{1 + len(others)} faces", thumbnail(image))
    number = 0 if settings.face in ("one", "largest") else int(settings.face)
    if number >= len(faces):
        return Outcome(index, name, f"only {len(faces)} face(s)", thumbnail(image))
    face = faces[number]
    if face.size < settings.smallest * settings.resolution:
        return Outcome(index, name, f"too small: the face has {face.size:.0f} pixels", thumbnail(image))
    track = tracker.photo(image, face=face, shape=shape)
    motion = track.motion
    crop = Crop(*motion.crop[0].tolist())
    picture = crop.cut(image, settings.resolution)
    sharp = sharpness(picture)
    if sharp < settings.sharpness:
        return Outcome(index, name, f"blurred: sharpness {sharp:.1f}", thumbnail(picture))
    residual = float(track.residual[0])
    if residual > settings.misfit:
        return Outcome(index, name, f"bad fit: residual {100 * residual:.1f} %", fitted(track, picture))
    writer.add(
        index,
        picture,
        motion.camera[0],
        motion.params[0],
        identity=identity,
        confidence=float(motion.confidence[0]),
        source=name,
        crop=motion.crop[0].tolist(),
    )
    return Outcome(index, name, "", fitted(track, picture))


def sharpness(picture: np.ndarray) -> float:
    """Standard deviation of the Laplacian of a picture (R, R, 3) at 128², in grey levels."""
    grey = np.asarray(Image.fromarray(picture).convert("L").resize((128, 128), Image.Resampling.BOX), np.float32)
    inner = grey[1:-1, 1:-1]
    return float((grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner).std())


def thumbnail(picture: np.ndarray) -> str:
    """A small JPEG as base64 text."""
    small = Image.fromarray(picture)
    small.thumbnail((THUMBNAIL * 3, THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()


def fitted(track: Track, picture: np.ndarray) -> str:
    """The thumbnail of a crop with its landmarks, its head, and both."""
    small = np.asarray(Image.fromarray(picture).resize((THUMBNAIL * 2, THUMBNAIL * 2), Image.Resampling.BOX))
    return thumbnail(next(panels(_state["tracker"].head, track.motion, [small], track.points)))


PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Dataset report</title><style>
:root{{color-scheme:light dark;font:15px/1.5 system-ui,sans-serif}}
body{{max-width:76rem;margin:2rem auto;padding:0 1rem}}
td,th{{padding:.15rem 1rem .15rem 0;text-align:left}}
td:first-child{{text-align:right;font-variant-numeric:tabular-nums}}
.grid{{display:flex;flex-wrap:wrap;gap:.8rem}}figure{{margin:0;width:18rem}}
img{{width:100%;border-radius:.3rem;display:block}}
figcaption{{font-size:.8rem;overflow-wrap:anywhere;opacity:.8}}</style>
<h1>{kept} of {total} pictures kept</h1><table>{rows}</table><p>Settings: <code>{settings}</code></p>{sections}</html>
"""


def report(outcomes: list[Outcome], settings: BuildSettings) -> str:
    """A page of its own: counts per reason, and thumbnails with overlays. Nothing is fetched from anywhere."""
    counted = [o for o in outcomes if o.reason != END]
    reasons = Counter(o.reason.split(":")[0] or "kept" for o in counted)
    sections = []
    for reason, count in sorted(reasons.items(), key=lambda item: (item[0] == "kept", -item[1])):
        group = [o for o in counted if (o.reason.split(":")[0] or "kept") == reason]
        figures = "".join(
            f"<figure>{picture(o)}<figcaption>{html.escape(o.name)}"
            f"{html.escape(' — ' + o.reason) if o.reason else ''}</figcaption></figure>"
            for o in group[:SHOWN]
        )
        sections.append(f"<h2>{html.escape(reason)} ({count})</h2><div class=grid>{figures}</div>")
    rows = "".join(f"<tr><td>{n}</td><td>{html.escape(r)}</td></tr>" for r, n in reasons.most_common())
    return PAGE.format(
        kept=reasons.get("kept", 0),
        total=len(counted),
        rows=rows,
        settings=html.escape(json.dumps(asdict(settings))),
        sections="".join(sections),
    )


def picture(outcome: Outcome) -> str:
    """The thumbnail as an image element."""
    if not outcome.thumbnail:
        return ""
    return f'<img loading="lazy" alt="{html.escape(outcome.name)}" src="data:image/jpeg;base64,{outcome.thumbnail}">'
