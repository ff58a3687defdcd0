"""A run of ``cnn train`` from its start to its report, and its messages if it ends early."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import typer

from backends.text import quoted, readable_bytes
from cnn.cli import distributed
from cnn.cli.output import print_json, say, say_notes
from cnn.cli.signals import StopOnSignal
from cnn.data import Dataset
from cnn.data.notes import notes_on
from cnn.data.preprocessing import Preprocessing
from cnn.data.sources import is_too_large
from cnn.inspection.memory import memory as memory_of
from cnn.inspection.summary import frozen_note
from cnn.models import sources
from cnn.network import Network
from cnn.runs import build, recipes
from cnn.runs.config import Config
from cnn.runs.folder import RunFolder
from cnn.runs.log import RunLog
from cnn.runs.report import examine, write_report
from cnn.runs.report.evaluation import Evaluation
from cnn.runs.report.figures import learning_rates
from cnn.saving.weights import load, weights_in
from cnn.support.drawing import require_matplotlib, style
from cnn.support.errors import CheckpointError, DeviceLost, OutOfMemory, TrainingError
from cnn.support.files import reason_of, remove_unfinished, write_whole
from cnn.support.terminal import write_line
from cnn.training import tensorboard
from cnn.training.callbacks import Callback, Dispensable, LearningGuard, NaNGuard, Progress
from cnn.training.checkpoints import SavedTraining
from cnn.training.distributed import Communicator
from cnn.training.fit import fit
from cnn.training.optimizers import Optimizer
from cnn.training.preparation import whole_parts
from cnn.training.rate_test import find_rate
from cnn.training.run import Run


@dataclass(frozen=True)
class Job:
    """A run that is ready to start, or to resume from ``saved``."""

    config: Config
    folder: RunFolder
    network: Network
    optimizer: Optimizer
    train_set: Dataset
    validation_set: Dataset | None
    test_set: Dataset
    is_resumed: bool = False  # in a folder that exists
    saved: SavedTraining | None = None
    base_note: str | None = None  # on what is kept of the network that the run starts from
    chosen: str = ""  # the defaults that depend on the data, for the headline
    group: Communicator = field(default_factory=Communicator)
    guard: LearningGuard = field(default_factory=LearningGuard)

    @property
    def headlines(self) -> list[str]:
        """The model, the data and the device, in a line; and in another what a fine-tuned network keeps."""
        config, backend = self.config, self.network.backend
        where = f"{backend.name} ({backend.reason})"
        chosen = f"; {self.chosen}" if self.chosen else ""
        start = f"; resumes from {self.saved.position}" if self.saved else ""
        notes = f" ({'; '.join(self.train_set.notes)})" if self.train_set.notes else ""
        images = f"{len(self.train_set):,} images of {config.data}{notes}"
        recipe = f"recipe {recipes.title(config)}: " if config.recipe else ""
        headline = f"{recipe}{sources.title(config.model)} on {images}{chosen}; {where}{start}"
        return [headline, self.base_note] if self.base_note else [headline]

    @property
    def epochs(self) -> int:
        """The number of epochs."""
        return self.config.epochs_for(len(self.train_set))

    @property
    def batch_size(self) -> int:
        """The number of images of a batch."""
        return self.config.batch_size_for(len(self.train_set))

    def require_place(self) -> None:
        """Raise ArgumentError if the folder of a new run exists already."""
        if not self.is_resumed:
            self.folder.require_new()

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to train."""
        return self.saved is not None and self.saved.epoch == len(self.saved.history) == self.epochs

    def fit(self) -> list[dict[str, Any]]:
        """Train the network and keep the run's folder; -> the history."""
        self.group.first(self.require_place)
        if self.saved and self.is_finished:
            if not self.group.is_first:
                return self.saved.history
            say(f"{self.folder.path} is finished: give more --epochs to train it further")
            with self.folder.alone():
                remove_unfinished(self.folder.path)
                self._write_new_place()
            self.saved.take_description(self.network)
            if self.folder.weights.exists():
                load(self.folder.weights, network=self.network)
            else:
                self.network.load_state_dict(weights_in(self.saved.arrays))
            return self.saved.history
        path, count = self.group.first(lambda: self.folder.path), self.config.shards or 1
        distributed.advise(self.group, path)
        started, waited_before = time.perf_counter(), self.group.watchdog.waited
        signals, stops = StopOnSignal(self.group.is_first), build.make_stops(self.config)
        callbacks = [
            signals,
            NaNGuard(),
            self.guard,  # before what keeps its finding
            RunLog(self.folder, self.config, self.train_set.classes, self.is_resumed),
            Headline(self.headlines, self._notes()),
            distributed.Started(path, count),
            Progress(tests=self.validation_set is None),
            *stops,
        ]
        if tensorboard.installed() and self.group.is_first:
            callbacks.append(Dispensable(self._tensorboard, "logs for TensorBoard", say))
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # the guard says it better
                history = fit(
                    self.network,
                    self.train_set,
                    validation=self.validation_set or self.test_set,
                    loss=build.make_loss(self.config, self.train_set),
                    optimizer=self.optimizer,
                    schedule=build.make_schedule(self.config),
                    transforms=build.make_transforms(self.config),
                    epochs=self.epochs,
                    batch_size=self.batch_size,
                    accumulate=self.config.accumulate,
                    seed=self.config.seed,
                    callbacks=callbacks,
                    graph=self.config.graph,
                    recompute=self.config.recompute,
                    stream=self.config.stream,
                    normalize=self.config.normalize,
                    augment=build.make_augmentations(self.config),
                    resume=self.saved.path if self.saved else None,
                    processes=self.group,
                )
        except KeyboardInterrupt:  # if the signals could not be handled
            if self.group.size > 1:
                distributed.fail("interrupted", 130)
            raise self._ended("interrupted", 130) from None
        except TrainingError as error:  # a resumed run would end in the same way
            say(f"error: {error}; {self._last_good()}")
            raise typer.Exit(1) from None
        except (DeviceLost, OutOfMemory, OSError) as error:
            if self.group.size > 1:
                distributed.end_all(self.group, error, 2)
            if isinstance(error, DeviceLost):
                raise DeviceLost(f"{error}; {self._kept()}") from error
            what = reason_of(error) if isinstance(error, OSError) else str(error)
            raise self._ended(f"error: {what}", 2) from None
        if received := max(self.group.gather(signals.received or 0)):
            raise self._ended("stopped", 128 + received)
        distributed.say_slowest(self.group, time.perf_counter() - started, waited_before)
        reasons = [stop.reason for stop in stops if stop.has_ended]
        if reasons and len(history) < self.epochs:
            say(f"the training run ends after {len(history)} of {self.epochs} epochs: {reasons[0]}")
        return history

    def _write_new_place(self) -> None:
        """Write the new path of a finished run's data to its config.json."""
        config, shape, class_names = self.folder.read()
        if config.data != self.config.data:
            self.folder.write_config(replace(config, data=self.config.data), shape, class_names)

    def _notes(self) -> list[str]:
        """Notes on the speed of this run, its frozen layers, and changes since the last one in its folder."""
        slower = self.network.backend.slower
        notes = distributed.notes(self.group, self.network.backend.describe().get("processor"))
        notes += [f"this run is slower than it could be: {slower}"] if slower else []
        if frozen := frozen_note(self.network):
            notes.append(frozen)
        changes = self.folder.changes(self.network.backend) if self.saved else []
        if changes:
            notes.append(
                f"{', '.join(changes)}: from here on the weights may differ in their last digits from those "
                "of an uninterrupted run"
            )
        return notes

    def _tensorboard(self) -> Callback:
        return tensorboard.TensorBoard(self.folder.tensorboard, self.config.hyperparameters)

    def _ended(self, what: str, code: int) -> typer.Exit:
        """Say what ended the run early, and what was kept; -> the exit to raise."""
        say(f"{what}; {self._kept()}")
        return typer.Exit(code)

    def _kept(self) -> str:
        """How to resume a run that ended early."""
        if not self.folder.path.exists():
            return f"there is no folder {self.folder.path} to resume from"
        if not self.folder.checkpoint.exists():
            return f"there is no checkpoint yet, {self._again} starts from the beginning"
        try:
            return f"{self._again} resumes from {SavedTraining.read(self.folder.checkpoint).position}"
        except CheckpointError as error:
            return str(error)

    def _last_good(self) -> str:
        """Where the last checkpoint of a diverged run is."""
        if not self.folder.checkpoint.exists():
            return "there is no earlier checkpoint"
        position = SavedTraining.read(self.folder.checkpoint).position
        return f"{self.folder.checkpoint} has the state before that, at {position}"

    @property
    def _again(self) -> str:
        return f"`cnn train --resume {quoted(str(self.folder.path))}`"

    def test(self) -> Evaluation:
        """Test the trained network, with its best weights if the run has kept them."""
        if self.is_finished and self.folder.evaluation.exists():
            return Evaluation.load(self.folder.evaluation)
        if self.validation_set:
            say_notes(notes_on(self.test_set, "test", self.train_set))
        weights = self.folder.require_weights(None)
        if weights == "best":
            load(self.folder.best, network=self.network)
        try:
            found = examine(self.network, self.test_set, self.batch_size, self.config.tta)
            return replace(found, **self.folder.about(weights))
        except KeyboardInterrupt:
            raise self._ended("interrupted before the test", 130) from None

    def report(self, found: Evaluation, drawn: bool) -> Path | None:
        """Save the results of the test and draw the report; -> the page, or None if there is none.

        If that fails, the trained run stays as it is.
        """
        try:
            found.save(self.folder.evaluation)
            if drawn:
                say("drawing the report")
                return write_report(self.folder).page
        except KeyboardInterrupt:
            if not self.folder.evaluation.exists():
                raise self._ended("interrupted", 130) from None
            again = f"`cnn report {quoted(str(self.folder.path))}`"
            say(f"interrupted while drawing the report: the run is complete, {again} draws it")
        except OSError as error:
            say(f"no report: {reason_of(error)}; {self._again} draws it")
        except Exception as error:  # if drawing fails, the run is complete all the same
            say(f"no report: {error}")
        return None

    def require_learned(self) -> None:
        """Say so and exit with 1 if the network has not learned; its files are kept."""
        failure = self.saved.failure if self.saved and self.is_finished else self.guard.failure
        if failure:
            say(f"error: the training run has failed: {failure}")
            raise typer.Exit(1)

    def find_rate(self, as_json: bool) -> None:
        """Print the learning rate that a range test suggests, and draw the test; nothing is trained."""
        self.require_place()
        require_matplotlib("to draw the range test of the learning rate")
        for line in self.headlines:
            say(line)
        if self.config.normalize:
            self.network.preprocessing = Preprocessing.of(self.train_set)
        with np.errstate(over="ignore", invalid="ignore"):  # the last steps are meant to be too large
            found = find_rate(
                self.network, self.train_set, self.optimizer, batch_size=self.batch_size,
                loss=build.make_loss(self.config, self.train_set), seed=self.config.seed,
                transforms=build.make_transforms(self.config), augment=build.make_augmentations(self.config),
            )  # fmt: skip
        path = self.folder.path.with_name(f"{self.folder.path.name}-learning-rates.png")
        with style():
            write_whole(path, learning_rates(found).png())
        if as_json:
            print_json({"suggestion": found.suggestion, "picture": str(path)} | asdict(found))
            return
        write_line(
            f"suggested: --learning-rate {found.suggestion:.2g}, a tenth of the rate at which the loss was "
            f"lowest in {len(found.rates)} steps"
        )
        write_line(f"{path} shows the test")

    def show_plan(self, as_json: bool) -> None:
        """Print the run's steps, layers and memory, after the checks that come before training."""
        self.require_place()
        if self.saved:
            self.saved.require_epochs(self.epochs)
        config = self.config
        stream = config.stream
        if stream is None:
            stream = is_too_large(self.network.backend, self.train_set.samples, self.network.dtype)
        tested = self.validation_set or self.test_set
        parts = whole_parts(config.accumulate, self.batch_size)
        sizes = self.batch_size, stream, parts, config.recompute
        memory = memory_of(self.network, self.optimizer, self.train_set, tested, *sizes)
        steps = -(-len(self.train_set) // self.batch_size)
        if as_json:
            figures = {"steps": self.epochs * steps, "memory": asdict(memory) | {"total": memory.total}}
            print_json({"run": str(self.folder.path), "config": asdict(config), **figures})
            return
        for line in self.headlines:
            write_line(line)
        say_notes(
            [
                *notes_on(self.train_set, "training", normalized=config.normalize),
                *notes_on(self.test_set, "test", self.train_set),
            ]
        )
        tests = "validation" if self.validation_set else "test"
        each = f"{steps:,} step{'s' * (steps > 1)} and a {tests} on {len(tested):,} images"
        write_line(f"epochs: {self.epochs}, each of {each}")
        self.network.summary()
        shares = ", ".join(f"{name} {readable_bytes(count)}" for name, count in asdict(memory).items())
        write_line(f"memory on {self.network.backend.name}: about {readable_bytes(memory.total)} ({shares})")
        write_line(f"would write {self.folder.path}")


class Headline(Callback):
    """Prints the headlines and the notes when the training run starts."""

    def __init__(self, lines: Sequence[str], notes: Sequence[str]) -> None:
        self.lines = [*lines, *(f"note: {note}" for note in notes)]

    def on_start(self, run: Run) -> None:
        for line in self.lines:
            say(line)
