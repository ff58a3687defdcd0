"""The command that is measured: ``cnn train --recipe``."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnn.runs.setting import absolute

ROOT = Path(__file__).resolve().parents[3]


class CommandFailed(Exception):
    """The command ended without a result.

    Attributes
    ----------
    code
        Its exit code.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Run:
    """A training run and its test.

    Attributes
    ----------
    accuracy, loss
        The result on the test images.
    training_seconds
        The time of the training steps of all epochs.
    command_seconds
        The time from the start of the process to its end.
    """

    seed: int
    accuracy: float
    loss: float
    training_seconds: float
    command_seconds: float


@dataclass(frozen=True)
class Command:
    """``cnn train`` with a recipe, the data if they are given, and further flags."""

    recipe: str
    data: str | None = None
    flags: Sequence[str] = ()

    def plan(self, seed: int) -> dict[str, Any]:
        """What ``--dry-run`` says: all settings, and the number of steps."""
        done = self._call(seed, "--dry-run", errors=subprocess.PIPE)
        if done.returncode:
            raise CommandFailed(done.stderr.strip().rpartition("error: ")[2], done.returncode)
        return dict(json.loads(done.stdout))

    def run(self, seed: int) -> Run:
        """Train and test in a process of its own, whose progress is shown."""
        start = time.perf_counter()
        done = self._call(seed, "--no-report")
        seconds = time.perf_counter() - start
        if not done.stdout:
            raise CommandFailed(f"the training run with seed {seed} failed, as shown above", done.returncode)
        found = json.loads(done.stdout)
        training = sum(epoch["seconds"] for epoch in found["history"])
        return Run(seed, found["accuracy"], found["loss"], training, seconds)

    def _call(self, seed: int, *more: str, errors: int | None = None) -> subprocess.CompletedProcess[str]:
        data = [] if self.data is None else ["--data", absolute(self.data)]
        with tempfile.TemporaryDirectory() as folder:
            command = [
                *(sys.executable, "-m", "cnn", "train", "--recipe", self.recipe, *data, *self.flags),
                *("--seed", str(seed), "--json", "--out", f"{folder}/run", *more),
            ]
            paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
            return subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
