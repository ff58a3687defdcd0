"""Trainings in forked processes, whose calls fail, and what has to hold when they have ended."""

import os
import re
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from errno import EACCES
from io import StringIO
from pathlib import Path

from cnn import cli
from cnn.cli.signals import StopOnSignal
from cnn.training.checkpoints import SavedTraining
from durability import shim
from durability.shim import SHORT, Call
from durability.training import RUN, Training, faults, leftovers, weights

EPOCHS, STEPS = 2, 3
MIDDLE = 4  # the step at which something happens: the first of the second epoch
REFUSED = ("opendir", EACCES)  # a file system that lets no folder be opened cannot flush one either
HARMLESS = ("flock", "mkdir")  # nobody has to hear of it: there may be no locks, and the folder may be there


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    err: str

    @property
    def last(self) -> str:
        """The last line of standard error."""
        return (self.err.splitlines() or [""])[-1]

    @property
    def errors(self) -> list[str]:
        """The lines that tell of errors; there is to be one at most."""
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


@dataclass(frozen=True)
class Scenario:
    """A command whose calls are failed, on a copy of ``start``, where there is a run's folder or none yet."""

    name: str
    start: Path
    more: tuple[str, ...]
    positions: list[str]  # of the checkpoint that is there, and of those that it writes


class Bench:
    """Everything in ``folder``: the data, the beginnings of the scenarios, and where they are tried."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.training = Training(folder, EPOCHS, STEPS)
        self.tried = folder / "tried"

    def prepare(self) -> list[Scenario]:
        """The scenarios, and the weights that all of them are to end with."""
        self._import_all()
        whole, stopped, new = (self._made(name) for name in ("whole", "stopped", "new"))
        self._expect(0, self.command(whole, "--no-report"))
        self.weights = weights(whole / RUN)
        (whole / RUN / "evaluation.safetensors").unlink()
        interrupt = at_step(MIDDLE, lambda: os.kill(os.getpid(), signal.SIGTERM))
        self._expect(143, self.command(stopped, "--no-report", before=interrupt))
        positions = []
        for epoch in range(1, EPOCHS + 1):
            positions += [f"epoch {epoch}, step {step} of {STEPS}" for step in range(1, STEPS + 1)]
            positions += [f"the end of epoch {epoch}"]
        reached = positions.index(SavedTraining.read(stopped / RUN / "checkpoint.safetensors").position)
        return [
            Scenario("a new run", new, ("--no-report",), ["none", *positions]),
            Scenario("one that goes on", stopped, ("--no-report",), positions[reached:]),
            Scenario("test and report", whole, (), positions[-1:]),
        ]

    def _made(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir()
        return path

    def _import_all(self) -> None:
        """Train once in this very process: what that imports, those forked from it have."""
        work = self._made("imported")
        sys.argv = ["cnn", *self.training.arguments(work / RUN)]
        with suppress(SystemExit), chdir(work), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            cli.main()

    def _expect(self, code: int, outcome: Outcome) -> None:
        if outcome.code != code:
            raise RuntimeError(f"exit code {outcome.code} where nothing was failed: {outcome.err}")

    def command(self, work: Path, *more: str, before: Callable[[], object] | None = None) -> Outcome:
        """Run ``cnn train`` in ``work`` in a process of its own, with --resume where there is a run."""
        err = self.folder / "err"
        arguments = self.training.arguments(work / RUN, *more)
        child = os.fork()
        if child == 0:
            code = 99
            try:
                for number, path in ((1, os.devnull), (2, err)):
                    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
                os.chdir(work)
                sys.argv = ["cnn", *arguments]
                if before:
                    before()
                cli.main()
            except SystemExit as stop:
                code = stop.code or 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        return Outcome(os.waitstatus_to_exitcode(status), err.read_text())

    def attempt(self, scenario: Scenario, nth: int = 0, way: int = 0) -> tuple[Outcome, list[Call]]:
        """Run it with its ``nth`` call failed, none where that is 0; -> how it ended, and all calls."""
        log, arm = self.folder / "log", shim.loaded()
        if arm is None:
            raise RuntimeError("the library that fails calls is not loaded")
        log.unlink(missing_ok=True)
        shutil.rmtree(self.tried, ignore_errors=True)
        shutil.copytree(scenario.start, self.tried)
        armed = str(self.tried).encode(), str(log).encode(), nth, way
        outcome = self.command(self.tried, *scenario.more, before=lambda: arm(*armed))
        if not nth:
            self._expect(0, outcome)
        return outcome, shim.read_log(log)

    def violations(self, scenario: Scenario, outcome: Outcome, calls: list[Call]) -> list[str]:
        """What is otherwise than it should be after an attempt."""
        run = self.tried / RUN
        found = wrong_ending(outcome, [call for call in calls if call.way], run)
        replaced = sum(
            call.name == "rename" and not call.way and call.path == f"{RUN}/checkpoint.safetensors"
            for call in calls
        )
        found += faults(run) or _wrong_position(run / "checkpoint.safetensors", scenario.positions[replaced])
        if not any(call.way and call.name == "unlink" for call in calls):
            found += [f"{path} was left behind" for path in leftovers(self.tried)]
        if outcome.code == 0 and weights(run) != self.weights:
            found.append("it went on, but not to the same weights")
        return found + self.wrong_resumption(self.tried)

    def wrong_resumption(self, work: Path) -> list[str]:
        """What is wrong when the run goes on, or begins where there is none, and nothing fails any more."""
        outcome = self.command(work, "--no-report")
        if outcome.code:
            return [f"--resume ends with {outcome.code}: {outcome.err}"]
        if weights(work / RUN) != self.weights:
            return ["--resume ends with other weights"]
        return [f"--resume leaves {path}" for path in leftovers(work)]


def wrong_ending(outcome: Outcome, failed: list[Call], run: Path) -> list[str]:
    """What is wrong with how a command ended of which calls ``failed``: a sentence, or none."""
    files = {final_name(call.path) for call in failed}
    reasons = {os.strerror(call.way) for call in failed if call.way != SHORT}
    told = [line for line in outcome.err.splitlines() if any(reason in line for reason in reasons)]
    if outcome.code == 0:
        may_be_silent = all(
            call.way == SHORT or call.name in HARMLESS or (call.name, call.way) == REFUSED for call in failed
        )
        names_one = any(file in line for line in told for file in files)
        is_right = names_one if told else may_be_silent
        if outcome.errors or "Traceback" in outcome.err or not is_right:
            return [f"it went on and said: {outcome.err!r}"]
        return []
    told = [line for line in told if not line.startswith("no ")]  # logs, before
    if outcome.code != 2 or outcome.errors != [outcome.last] or told != [outcome.last]:
        return [f"it ended with {outcome.code} and said: {outcome.err!r}"]
    if "Traceback" in outcome.err:
        return [f"a traceback: {outcome.err!r}"]
    if not any(
        re.match(rf"error: (the output folder )?{re.escape(file)}[:/ ]", outcome.last) for file in files
    ):
        return [f"{outcome.last!r} names none of {files}"]
    if run.exists() and f"`cnn train --resume {RUN}`" not in outcome.last:
        return [f"{outcome.last!r} does not say how to go on"]
    return []


def _wrong_position(checkpoint: Path, expected: str) -> list[str]:
    there = SavedTraining.read(checkpoint).position if checkpoint.exists() else "none"
    return [] if there == expected else [f"the checkpoint is {there}, not {expected}"]


def final_name(path: str) -> str:
    """What a file or folder is to be called when it is whole: "run/x" of "run/.x.k3_fo.unfinished"."""
    if path == "." or path.startswith(f".{RUN}."):
        return RUN
    return re.sub(r"\.([^/]*)\.[^./]*\.unfinished$", r"\1", path)


def at_step(number: int, act: Callable[[], object]) -> Callable[[], None]:
    """To be called in a process of its own: lets ``act`` happen in the training's step ``number``."""

    def install() -> None:
        original, count = StopOnSignal.on_step, 0

        def on_step(self: StopOnSignal, run: object) -> None:
            nonlocal count
            count += 1
            if count == number:
                act()
            original(self, run)

        StopOnSignal.on_step = on_step

    return install
