"""Callbacks: progress bar, log, checkpoints, and guards against NaN and against not learning."""

import csv
import io
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from cnn.saving.weights import EPOCH
from cnn.support.errors import DeviceLost, Notice, OutOfMemory, TrainingError
from cnn.support.files import reason_of, require_place, write_whole
from cnn.support.libraries import require
from cnn.support.streams import log
from cnn.support.tensors import TO_SAVE
from cnn.support.terminal import USUAL_WIDTH, fold, live_console, write_line
from cnn.training import checkpoints
from cnn.training.distributed.agreement import Wish
from cnn.training.divergence import Snapshot, find_fault, is_finite
from cnn.training.history import best_epoch
from cnn.training.run import Run


class Callback:
    """Called by ``fit``; override the methods that you need."""

    everywhere = False
    """Whether each of several processes calls it; otherwise only the first one does."""

    def on_start(self, run: Run) -> None:
        """Called before the first epoch, or before the epoch in which a run is resumed."""

    def on_step(self, run: Run) -> None:
        """Called after each step."""

    def on_epoch(self, run: Run, record: dict[str, Any]) -> None:
        """Called after each epoch with its entry of the history."""

    def on_end(self, run: Run) -> None:
        """Called after the last epoch, or when training stops early."""


@contextmanager
def ending(callback: Callback, run: Run) -> Iterator[None]:
    """Calls ``on_end`` after the block. If both fail, the exception of the block is raised."""
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
    """A progress bar and a line for each epoch on standard error; without a terminal only the lines."""

    interval = 0.25  # seconds between updates; each update waits for the device

    def __init__(self, tests: bool = False) -> None:
        self.tests = tests  # the validation set is the test set, whose last results are the run's result

    def on_start(self, run: Run) -> None:
        self._bar: Any = None
        console = live_console()
        if console is None:
            return
        progress = require("rich.progress", "to show a bar")
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=24 if console.width >= 100 else 10),
            progress.TextColumn("{task.fields[figures]}"),
            progress.TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=run.epochs * run.steps, figures="")
        run.network.backend.kernels.when_compiling(show=self._describe)
        self._bar.start()
        self._looked = time.perf_counter()

    def _describe(self, text: str) -> None:
        self._bar.update(self._task, description=text or "starting")

    def on_step(self, run: Run) -> None:
        now = time.perf_counter()
        if not run.may_read(self._bar is not None and now - self._looked >= self.interval):
            return
        self._looked = now
        totals = run.totals.read()
        figures = _results(totals)
        if self._bar.console.width >= USUAL_WIDTH:
            figures += f"  {run.totals.count / run.seconds:,.0f} images/s"
        self._bar.update(
            self._task,
            completed=(run.epoch - 1) * run.steps + run.step,
            description=f"epoch {run.epoch}/{run.epochs}",
            figures=figures,
        )

    def on_epoch(self, run: Run, record: dict[str, Any]) -> None:
        line = (
            f"epoch {run.epoch}/{run.epochs}  {_results(record)}  {record['images_per_second']:,.0f} images/s"
        )
        if "validation_loss" in record and not (self.tests and run.epoch == run.epochs):
            name = "test" if self.tests else "validation"
            line += f"  |  {name} {_results(record, 'validation_')}"
        if self._bar:
            line = fold(line, self._bar.console.width, indent="  ")
            self._bar.console.print(line, soft_wrap=True)
        else:
            write_line(line, log(), indent="  ")

    def on_end(self, run: Run) -> None:
        if self._bar:
            run.network.backend.kernels.when_compiling(show=_show_nothing)
            self._bar.stop()
            self._bar = None  # so that the callback can be pickled after use


def _show_nothing(text: str) -> None:
    pass


def _results(record: dict[str, Any], prefix: str = "") -> str:
    """The loss, and the accuracy if there is one."""
    loss, accuracy = record[f"{prefix}loss"], record.get(f"{prefix}accuracy")
    return f"loss {_loss(loss)}" + ("" if accuracy is None else f"  accuracy {accuracy:.2%}")


def _loss(value: float) -> str:
    return f"{value:.4f}" if value < 1e6 else f"{value:.1e}"


class NaNGuard(Callback):
    """Stops training with TrainingError if a value becomes NaN or infinite, and says where that began.

    It checks now and then, and at the end of each epoch. After a failure it repeats the steps since the
    last check to find the first layer and the direction (forward, backward or update). The network is left
    with its last finite weights.
    """

    everywhere = True
    seconds, steps = 1.0, 16  # both must pass between two checks

    def on_start(self, run: Run) -> None:
        if not is_finite(run):
            raise TrainingError("the network has weights that are NaN or infinite: start with other weights")
        self._good = Snapshot(run)
        self._rest()

    def on_step(self, run: Run) -> None:
        self._passed += 1
        due = self._passed >= self.steps and time.perf_counter() - self._looked >= self.seconds
        if run.agreement.grants(Wish.LOOK, due):
            self._look(run)

    def on_epoch(self, run: Run, record: dict[str, Any]) -> None:
        self._look(run)
        if not isfinite(record.get("validation_loss", 0)):
            run.failure = (
                f"the loss of the evaluated images became {record['validation_loss']} in epoch {run.epoch}, "
                "although training gave finite values: lower the learning rate, for example to a tenth, or "
                "look for unusual images"
            )
            raise TrainingError(run.failure)

    def _look(self, run: Run) -> None:
        if not is_finite(run):
            loss = run.totals.read()["loss"]
            run.failure = self._diagnosis(run, loss)
            raise TrainingError(run.failure)
        self._good.take(run)
        self._rest()

    def _rest(self) -> None:
        self._passed, self._looked = 0, time.perf_counter()

    def _diagnosis(self, run: Run, loss: float) -> str:
        what = f"the loss became {loss}" if not isfinite(loss) else "the weights became NaN or infinite"
        try:
            fault = find_fault(run, self._good)
        except (OutOfMemory, MemoryError):  # the diagnosis needs more memory than training
            if run.agreement.is_shared:  # the other processes wait for this one
                raise
            self._good.restore()
            return f"{what} in epoch {run.epoch}: training has diverged; lower the learning rate"
        if fault is None:
            return f"{what} in epoch {run.epoch}, but not in a training step: check the callbacks"
        first = f": first {fault.place}" if fault.place else ""
        return (
            f"{what} in epoch {run.epoch}, step {fault.step}{first}; training has diverged: start again "
            "with a lower learning rate, for example a tenth of it"
        )


class LearningGuard(Callback):
    """Warns once if the network does not learn; the usual cause is a learning rate that is too high.

    It compares each epoch with the loss at the start and with the accuracy of always predicting the most
    frequent class, and without shards it looks whether all images get the same answer. ``failure`` is None,
    or says why the network is useless after the latest epoch.
    """

    enough = 32  # images; their mean loss is the loss at the start
    factor = 1.5  # a loss this many times the loss at the start is more than noise
    share = 0.3  # this share of what can be learned is more than noise
    patience = 100  # steps before a network must have learned anything

    failure: str | None = None

    def on_start(self, run: Run) -> None:
        self.failure, self._warned = None, False
        if run.first_loss is None and run.history:  # checkpoints of version 0.1 do not contain it
            run.first_loss = run.history[0]["loss"]

    def on_step(self, run: Run) -> None:
        has_enough = run.step * run.training.feed.batch_size >= self.enough
        if run.may_read(run.first_loss is None and has_enough):
            run.first_loss = run.totals.read()["loss"]

    def on_epoch(self, run: Run, record: dict[str, Any]) -> None:
        if run.first_loss is None:  # there are too few images
            run.first_loss = record["loss"]
        trouble = self.failure = run.failure = self._failure(run, record, run.first_loss)
        late = run.epoch * run.steps >= self.patience or run.epoch == run.epochs
        if run.epoch > 1 and late and _guesses(run, record):
            trouble = trouble or f"{_no_better(run, record)}; try {_lower_rate(run)}, or more epochs"
        if trouble and not self._warned:
            self._warned = True
            warnings.warn(trouble, Notice, stacklevel=4)  # in the caller of cnn.fit

    def _failure(self, run: Run, record: dict[str, Any], first: float) -> str | None:
        """Why the network is useless, or None."""
        again = f"start again with {_lower_rate(run)}"
        guesses = _guesses(run, record)
        # with shards, the latest losses are those of the last shard alone
        can_compare = "accuracy" in record and not run.training.reducer.size
        if can_compare and _answers_alike(run, guesses) and (guesses or _latest_loss(run) > first / 2):
            return f"the network predicts the same class for every image after epoch {run.epoch}; {again}"
        if record["loss"] > self.factor * first:
            loss, before = _loss(record["loss"]), _loss(first)
            return f"the loss is {loss} in epoch {run.epoch}, above {before} at the start; {again}"
        if not guesses:
            return None
        best = max(run.history, key=lambda past: float(past["accuracy"]))
        has_learned = best["accuracy"] > run.guess + self.share * (1 - run.guess)
        if has_learned and record["loss"] > best["loss"]:
            return f"{_no_better(run, record)}, after {best['accuracy']:.2%} before; {again}"
        return None


def _guesses(run: Run, record: dict[str, Any]) -> bool:
    """Whether the network is no better than always predicting the most frequent class."""
    return bool(record.get("accuracy", 1) <= run.guess < 1)


def _answers_alike(run: Run, guesses: bool) -> bool:
    """Whether the losses of the latest batch depend only on the label; False if there are too few."""
    losses = np.sort(run.network.backend.to_host(run.training.loss.losses))
    classes = run.network.output_shape[0]
    different = 1 + np.count_nonzero(np.diff(losses) > 1e-4 * losses[1:])
    # up to half of the losses may be 0, of correct predictions, unless the network only guesses
    return bool(len(losses) > classes * (1 if guesses else 2) and different <= classes)


def _latest_loss(run: Run) -> float:
    """The median of the losses of the latest batch."""
    return float(np.median(run.network.backend.to_host(run.training.loss.losses)))


def _no_better(run: Run, record: dict[str, Any]) -> str:
    return (
        f"the accuracy is {record['accuracy']:.2%} in epoch {run.epoch}, no better than always predicting "
        f"the most frequent class ({run.guess:.2%})"
    )


def _lower_rate(run: Run) -> str:
    rate = run.training.optimizer.learning_rate
    return f"a lower learning rate, for example {rate / 10:g}" if rate else "a learning rate above 0"


class CSVLog(Callback):
    """Writes the history to a CSV file, one line per epoch."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_start(self, run: Run) -> None:
        require_place(self.path)

    def on_epoch(self, run: Run, record: dict[str, Any]) -> None:
        text = io.StringIO()
        names = dict.fromkeys(name for line in run.history for name in line)
        table = csv.DictWriter(text, fieldnames=list(names), lineterminator="\n")
        table.writeheader()
        table.writerows(run.history)
        write_whole(self.path, text.getvalue().encode())


class Checkpoint(Callback):
    """Saves everything needed to resume to one file, which is replaced atomically.

    The file is written now and then, at the end of each epoch, and when training is stopped, but never with
    NaN or infinite values. Use it with ``cnn.fit(..., resume=path)`` to resume, and with ``cnn.load(path)``
    to load the network.
    """

    seconds = 10.0  # minimum time between two checkpoints within an epoch
    share = 0.05  # maximum share of the time spent on them, for slow disks and large networks

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_start(self, run: Run) -> None:
        require("safetensors.numpy", TO_SAVE)
        require_place(self.path)
        self._took = 0.0
        self._rest(run)

    def on_step(self, run: Run) -> None:
        if run.may_read(time.perf_counter() - self._written >= max(self.seconds, self._took / self.share)):
            self._write(run)

    def on_epoch(self, run: Run, record: dict[str, Any]) -> None:
        self._write(run)

    def on_end(self, run: Run) -> None:
        if run.stop and self._position != (len(run.history), run.epoch, run.step):
            self._write(run)

    def _write(self, run: Run) -> None:
        started = time.perf_counter()
        checkpoints.save(run, self.path)
        self._rest(run)
        self._took = self._written - started

    def _rest(self, run: Run) -> None:
        self._written, self._position = time.perf_counter(), (len(run.history), run.epoch, run.step)


class BestWeights(Callback):
    """Saves the weights of the best epoch so far, with its number; ``metric`` is a column of the history.

    Smaller is better for names with "loss" or "error" in them, larger for others.
    """

    def __init__(self, path: str | Path, metric: str = "validation_loss") -> None:
        self.path, self.metric = Path(path), metric

    def on_start(self, run: Run) -> None:
        require_place(self.path)

    def on_epoch(self, run: Run, record: dict[str, Any]) -> None:
        if best_epoch(run.history, self.metric) == len(run.history):
            run.save(self.path, {EPOCH: run.epoch})


class Dispensable(Callback):
    """Wraps the callback that ``make`` creates; if it fails, one note is shown and training continues."""

    def __init__(self, make: Callable[[], Callback], name: str, say: Callable[[str], None]) -> None:
        self._make = make
        self._callback: Callback | None = None
        self._name = name
        self._say = say

    def on_start(self, run: Run) -> None:
        self._callback = self._make()
        self._attempt("on_start", run)

    def on_step(self, run: Run) -> None:
        self._attempt("on_step", run)

    def on_epoch(self, run: Run, record: dict[str, Any]) -> None:
        self._attempt("on_epoch", run, record)

    def on_end(self, run: Run) -> None:
        self._attempt("on_end", run)

    def _attempt(self, method: str, *arguments: Any) -> None:
        if self._callback:
            try:
                getattr(self._callback, method)(*arguments)
            except DeviceLost:
                raise
            except Exception as error:
                self._callback = None
                self._say(f"no more {self._name}: {reason_of(error)}")
