"""What happens around training: a progress bar, a log, a checkpoint, a guard."""

import csv
import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from cnn.errors import TrainingError
from cnn.files import write_whole
from cnn.metrics import Totals
from cnn.network import Sequential


@dataclass
class Run:
    """Where a training is: what every callback is told."""

    network: Sequential
    epochs: int
    steps: int  # in an epoch
    totals: Totals  # of the epoch so far; reading them waits for the device
    epoch: int = 0
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


class Callback:
    """Called by ``fit``; override what you need."""

    def on_start(self, run: Run) -> None:
        """Before the first epoch."""

    def on_step(self, run: Run) -> None:
        """After each step."""

    def on_epoch(self, run: Run, record: dict[str, Any]) -> None:
        """After each epoch, with its line of the history."""

    def on_end(self, run: Run) -> None:
        """After the last epoch, or when training is cut short."""


@contextmanager
def ending(callback: Callback, run: Run) -> Iterator[None]:
    """Calls ``on_end`` after the block; where that fails too, what ended the block is still what is told."""
    try:
        yield
    except BaseException as error:
        try:
            callback.on_end(run)
        except Exception as another:
            error.add_note(f"{type(callback).__name__}.on_end failed too: {another}")
        raise
    callback.on_end(run)


class Progress(Callback):
    """A live bar on standard error, and a line an epoch; only the lines where there is no terminal."""

    interval = 0.25  # seconds between two looks at the totals, each of which waits for the device

    def on_start(self, run: Run) -> None:
        from rich import progress
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=24),
            progress.TextColumn("{task.fields[figures]}"),
            progress.TimeRemainingColumn(compact=True),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=run.epochs * run.steps, figures="")
        self._bar.start()
        self._looked = self._epoch_start = time.perf_counter()

    def on_step(self, run: Run) -> None:
        now = time.perf_counter()
        if run.step == 1:
            self._epoch_start = self._looked
        if self._bar.disable or now - self._looked < self.interval:
            return
        self._looked = now
        totals = run.totals.read()
        speed = run.totals.count / (now - self._epoch_start)
        self._bar.update(
            self._task,
            completed=(run.epoch - 1) * run.steps + run.step,
            description=f"epoch {run.epoch}/{run.epochs}",
            figures=f"loss {_loss(totals['loss'])}  accuracy {totals['accuracy']:.2%}  {speed:,.0f} images/s",
        )

    def on_epoch(self, run: Run, record: dict[str, Any]) -> None:
        line = (
            f"epoch {run.epoch}/{run.epochs}  loss {_loss(record['loss'])}  "
            f"accuracy {record['accuracy']:.2%}  {record['images_per_second']:,.0f} images/s"
        )
        if "validation_accuracy" in record:
            loss, accuracy = record["validation_loss"], record["validation_accuracy"]
            line += f"  |  validation loss {_loss(loss)}  accuracy {accuracy:.2%}"
        self._console.print(line, soft_wrap=True)
        self._looked = time.perf_counter()

    def on_end(self, run: Run) -> None:
        self._bar.stop()


def _loss(value: float) -> str:
    return f"{value:.4f}" if value < 1e6 else f"{value:.1e}"


class NaNGuard(Callback):
    """Stops a training whose loss is no longer a finite number."""

    def on_epoch(self, run: Run, record: dict[str, Any]) -> None:
        for name in ("loss", "validation_loss"):
            if not isfinite(record.get(name, 0)):
                raise TrainingError(
                    f"the {name.replace('_', ' ')} became {record[name]} in epoch {run.epoch}: the training "
                    "has diverged; lower the learning rate, to a tenth for example"
                )


class CSVLog(Callback):
    """The history as a CSV file, one line an epoch."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_epoch(self, run: Run, record: dict[str, Any]) -> None:
        text = io.StringIO()
        table = csv.DictWriter(text, fieldnames=list(record), lineterminator="\n")
        table.writeheader()
        table.writerows(run.history)
        write_whole(self.path, text.getvalue().encode())


class Checkpoint(Callback):
    """The weights after each epoch, always in the same file."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_epoch(self, run: Run, record: dict[str, Any]) -> None:
        run.network.save(self.path)


class Dispensable(Callback):
    """Another callback, without which training goes on: where it fails, that is said once."""

    def __init__(self, callback: Callback, name: str, say: Callable[[str], None]) -> None:
        self._callback: Callback | None = callback
        self._name = name
        self._say = say

    def on_start(self, run: Run) -> None:
        self._attempt("on_start", run)

    def on_step(self, run: Run) -> None:
        self._attempt("on_step", run)

    def on_epoch(self, run: Run, record: dict[str, Any]) -> None:
        self._attempt("on_epoch", run, record)

    def on_end(self, run: Run) -> None:
        self._attempt("on_end", run)

    def _attempt(self, moment: str, *arguments: Any) -> None:
        if self._callback:
            try:
                getattr(self._callback, moment)(*arguments)
            except Exception as error:
                self._callback = None
                self._say(f"no {self._name} from here on: {error}")
