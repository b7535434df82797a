"""How long computations tell their caller where they are: the command line's bar, the viewer's page."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from tqdm import tqdm


@dataclass(frozen=True)
class Progress:
    """One step's news.

    Attributes:
        stage: what is being done
        step: how many steps of the stage are done
        total: of how many
        loss: the stage's loss, smoothed
        seconds_left: of this stage, from the rate so far
        picture: (3, R, R) in [−1, 1], the present result, on some steps only
    """

    stage: str
    step: int
    total: int
    loss: float
    seconds_left: float
    picture: Tensor | None = None


Callback = Callable[[Progress], bool | None]


class Cancelled(Exception):
    """The callback answered False: the computation has stopped and left nothing behind."""


class Reporter:
    """Counts steps of stages, smooths the loss, and asks the callback whether to go on."""

    def __init__(self, callback: Callback | None, picture_every: int = 10) -> None:
        self.callback, self.picture_every = callback, picture_every
        self.stage, self.started, self.first, self.smooth = "", 0.0, 0, float("nan")

    def __call__(self, stage: str, step: int, total: int, loss: float, picture: Tensor | None = None) -> None:
        """Report that ``step`` steps are done.

        Raises:
            Cancelled: the callback returned False.
        """
        now = time.monotonic()
        if stage != self.stage:
            self.stage, self.started, self.first, self.smooth = stage, now, step - 1, loss
        self.smooth += 0.1 * (loss - self.smooth)
        if self.callback is None:
            return
        left = (now - self.started) / max(step - self.first, 1) * (total - step)
        show = picture is not None and (step % self.picture_every == 0 or step == total)
        news = Progress(stage, step, total, self.smooth, left, picture.detach().cpu() if show else None)  # type: ignore[union-attr]
        if self.callback(news) is False:
            raise Cancelled(stage)


class Bars:
    """A callback that draws a bar per stage on standard error, with loss, rate and time left."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None
        self.stage = ""

    def __call__(self, news: Progress) -> None:
        if news.stage != self.stage:
            self.close()
            self.stage = news.stage
            self.bar = tqdm(total=news.total, desc=news.stage, unit="step", initial=news.step - 1, dynamic_ncols=True)
        assert self.bar is not None
        self.bar.set_postfix(loss=f"{news.loss:.4f}", refresh=False)
        self.bar.update(news.step - self.bar.n)
        if news.step == news.total:
            self.close()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.bar, self.stage = None, ""
