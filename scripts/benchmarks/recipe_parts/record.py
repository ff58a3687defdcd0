"""What is recorded of a recipe, in a JSON file that is written after each training run."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scipy import stats

from cnn.support.errors import ArgumentError
from cnn.support.files import write_json
from recipe_parts.command import Run
from recipe_parts.measured import DIFFERENCES, PARTS, SAME, SAME_STEP

FORMAT, SCHEMA = "xpcnn recipe", 1
CONFIDENCE = 0.95
NAMES_OF_DATA = {"settings": "data", "data": "name"}  # where a measurement has the place of the data


@dataclass(frozen=True)
class Mean:
    """The mean of several results.

    Attributes
    ----------
    deviation
        The standard deviation, with n - 1; None for a single result.
    interval
        The 95 % confidence interval of the mean by Student's t; None for a single result.
    """

    mean: float
    deviation: float | None
    interval: tuple[float, float] | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Mean":
        """The mean of one or more values."""
        mean = statistics.mean(values)
        if len(values) == 1:
            return cls(mean, None, None)
        deviation = statistics.stdev(values)
        t = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
        half = t * deviation / len(values) ** 0.5
        return cls(mean, deviation, (mean - half, mean + half))


@dataclass(frozen=True)
class Times:
    """The median and the range of several times, in seconds."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Times":
        """The times of one or more runs."""
        return cls(statistics.median(seconds), min(seconds), max(seconds))


@dataclass
class Record:
    """The measurement of a recipe.

    Attributes
    ----------
    measured
        As :func:`recipe_parts.measured.describe` gives it.
    first_seed
        The seed of the first run; the others count up from it.
    pytorch
        As :func:`recipe_parts.pytorch.compare` gives it; None if it was not compared.
    """

    recipe: str
    measured: dict[str, Any]
    first_seed: int
    runs: list[Run] = field(default_factory=list)
    pytorch: dict[str, Any] | None = None

    @property
    def accuracy(self) -> Mean:
        """The accuracy on the test images."""
        return Mean.of([run.accuracy for run in self.runs])

    @property
    def training_seconds(self) -> Times:
        """The time of the training steps."""
        return Times.of([run.training_seconds for run in self.runs])

    @property
    def command_seconds(self) -> Times:
        """The time from the start of the command to its end."""
        return Times.of([run.command_seconds for run in self.runs])

    def add(self, run: Run) -> None:
        """Keep a run; they are ordered by their seeds."""
        self.runs = sorted([*self.runs, run], key=lambda each: each.seed)

    def differences(self, measured: Mapping[str, Any], names: Sequence[str]) -> list[str]:
        """In words, which of ``names`` differ in another measurement."""
        return [DIFFERENCES[name] for name in names if differs(name, self.measured.get(name), measured[name])]

    def as_plain(self) -> dict[str, Any]:
        """The record as JSON has it."""
        summary = {}
        if self.runs:
            names = ("accuracy", "training_seconds", "command_seconds")
            summary = {name: asdict(getattr(self, name)) for name in names}
        return {"format": FORMAT, "schema": SCHEMA, **asdict(self), "summary": summary}

    def write(self, path: Path) -> None:
        """Write the file, as a whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, self.as_plain())

    @classmethod
    def read(cls, path: Path) -> "Record":
        """The measurement in a file; ArgumentError if it is damaged."""
        try:
            found = json.loads(path.read_text("utf-8"))
            if (found["format"], found["schema"]) != (FORMAT, SCHEMA):
                raise ValueError(f"expected format {FORMAT!r} and schema {SCHEMA}")
            measured = {name: found["measured"][name] for name in PARTS}
            runs = [Run(**run) for run in found["runs"]]
            return cls(found["recipe"], measured, found["first_seed"], runs, found["pytorch"])
        except KeyError as error:
            reason = f"it has no {error}"
        except (ValueError, TypeError, AttributeError) as error:
            reason = str(error)
        raise ArgumentError(f"{path} is damaged ({reason}): remove the file to measure the recipe again")


def differs(name: str, ours: Any, theirs: Any) -> bool:
    """Whether a part of two measurements differs; the place of the data does not count."""
    if name in NAMES_OF_DATA and isinstance(ours, dict):
        without = {NAMES_OF_DATA[name]: None}
        return bool(ours | without != theirs | without)
    return bool(ours != theirs)


def to_train(
    path: Path, recipe: str, measured: Mapping[str, Any], first_seed: int, say: Callable[[str], None]
) -> Record:
    """The record in the file if it is of the same measurement, otherwise an empty one."""
    fresh = Record(recipe, dict(measured), first_seed)
    if not path.exists():
        return fresh
    found = Record.read(path)
    again = f"all runs are measured again, and the first one overwrites {path.name}"
    if differences := found.differences(measured, SAME):
        say(f"{path.name} has {' and '.join(differences)}: {again}")
        return fresh
    if found.runs and found.first_seed != first_seed:
        say(f"{path.name} begins with seed {found.first_seed}, not {first_seed}: {again}")
        found.runs = []
    found.measured, found.first_seed = dict(measured), first_seed  # the commit may be another one
    return found


def to_compare(path: Path, recipe: str, measured: Mapping[str, Any], first_seed: int) -> Record:
    """The record in the file, or an empty one; ArgumentError if the runs in it were not of the same step."""
    found = Record.read(path) if path.exists() else None
    if found is None or not found.runs:
        return Record(recipe, dict(measured), first_seed)
    if differences := found.differences(measured, SAME_STEP):
        raise ArgumentError(
            f"{path} has runs with {' and '.join(differences)}: give --peer the flags of these runs, or "
            "remove the file"
        )
    return found
