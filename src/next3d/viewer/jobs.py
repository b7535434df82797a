"""What takes longer than a picture: videos, meshes, photos. Each job reports progress and can be cancelled."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from next3d.errors import InputError
from next3d.viewer.protocol import JobStatus
from next3d.viewer.worker import Busy

KEPT = 24  # jobs whose results can still be fetched
RUNNING = 2  # at once
WAITING = 8

Kind = Literal["video", "mesh", "photo"]


class Cancelled(Exception):
    """Raised inside a job that was cancelled."""


class Job:
    """One job; :meth:`report`, :meth:`show` and :meth:`check` are for the function that does it.

    Attributes:
        file: the result, if it is one to download
        picture: how the result looks so far (JPEG), if the job shows that
    """

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.status = JobStatus(id=secrets.token_hex(8), kind=kind, state="waiting", progress=0)
        self.folder = folder / self.status.id
        self.cancelled = threading.Event()
        self.file: Path | None = None
        self.picture: bytes | None = None

    def report(self, progress: float, message: str = "") -> None:
        """Say how far the job is (0…1); raises :class:`Cancelled` if it should stop."""
        self.check()
        self.status = self.status.model_copy(update={"progress": min(max(progress, 0.0), 1.0), "message": message})

    def show(self, picture: bytes) -> None:
        """Let people see how the result looks so far."""
        self.picture = picture
        self.status = self.status.model_copy(update={"pictures": self.status.pictures + 1})

    def check(self) -> None:
        if self.cancelled.is_set():
            raise Cancelled

    def finish(self, state: str, **changes: Any) -> None:
        self.status = self.status.model_copy(update={"state": state, **changes})


class Jobs:
    """Runs jobs in a few threads and keeps the latest results in a temporary folder.

    Args:
        folder: each job gets a folder in it, removed with the job
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs: OrderedDict[str, Job] = OrderedDict()
        self.pool = ThreadPoolExecutor(RUNNING, thread_name_prefix="viewer-job")
        self.lock = threading.Lock()

    def start(self, kind: Kind, work: Callable[[Job], Path | str]) -> JobStatus:
        """Queue ``work``, which returns a file for download or the name of a new avatar.

        Raises:
            Busy: too many jobs are waiting.
        """
        with self.lock:
            if sum(job.status.state in ("waiting", "running") for job in self.jobs.values()) >= WAITING:
                raise Busy("too many jobs are waiting: cancel one or try again later")
            job = Job(kind, self.folder)
            self.jobs[job.status.id] = job
            self.evict()
        self.pool.submit(self.run, job, work)
        return job.status

    def run(self, job: Job, work: Callable[[Job], Path | str]) -> None:
        try:
            job.check()
            job.finish("running")
            job.folder.mkdir(parents=True)
            result = work(job)
            job.check()
            if isinstance(result, Path):
                job.file = result
                job.finish("done", progress=1.0, result=f"/api/jobs/{job.status.id}/result")
            else:
                job.finish("done", progress=1.0, result=result)
        except Cancelled:
            job.finish("cancelled", message="cancelled")
        except InputError as error:
            job.finish("failed", message=str(error))
        except Exception as error:  # a job must not end its thread silently
            job.finish("failed", message=f"{type(error).__name__}: {error}")

    def evict(self) -> None:
        """Forget the oldest finished jobs."""
        done = [key for key, job in self.jobs.items() if job.status.state in ("done", "failed", "cancelled")]
        for key in done[: max(0, len(self.jobs) - KEPT)]:
            remove(self.jobs.pop(key).folder)

    def get(self, identifier: str) -> Job:
        """A job by its id; raises :class:`KeyError`."""
        return self.jobs[identifier]

    def cancel(self, identifier: str) -> JobStatus:
        """Ask a job to stop."""
        job = self.jobs[identifier]
        job.cancelled.set()
        if job.status.state == "waiting":
            job.finish("cancelled", message="cancelled")
        return job.status

    def close(self) -> None:
        for job in self.jobs.values():
            job.cancelled.set()
        self.pool.shutdown(wait=True, cancel_futures=True)


def remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
