"""The data of a run, read from the files in its folder."""

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import backends
from cnn.network import Network
from cnn.runs import recipes
from cnn.runs.config import OWN_NETWORK
from cnn.runs.folder import RunFolder
from cnn.runs.report.evaluation import LARGEST, Evaluation
from cnn.saving.weights import SavedNetwork
from cnn.support.errors import CheckpointError
from cnn.support.reading import read_text
from cnn.support.text import printable, short


@dataclass(frozen=True)
class RunRecord:
    """The data of a run; None or empty if a file is missing."""

    name: str  # of the folder
    recipe: str  # with what was changed, or empty
    settings: dict[str, Any]  # config.json
    class_names: list[str]
    environment: dict[str, Any]
    epochs: list[dict[str, float]]  # metrics.csv
    network: Network | None  # on the CPU; None too if its layers are not known here
    evaluation: Evaluation | None

    @classmethod
    def read(cls, folder: RunFolder) -> "RunRecord":
        """Read the files in ``folder``; CheckpointError if one is damaged or the folder is not a run's."""
        config, _, class_names = folder.read()
        evaluation = Evaluation.load(folder.evaluation) if folder.evaluation.exists() else None
        tested = evaluation.weights if evaluation else "last"
        has_weights = folder.weights_file(tested).exists()
        record = cls(
            name=printable(folder.path.resolve().name),
            recipe=printable(recipes.title(config)),
            settings=read_json(folder.config),
            class_names=[printable(str(name)) for name in class_names],
            environment=read_json(folder.environment) if folder.environment.exists() else {},
            epochs=read_metrics(folder.metrics) if folder.metrics.exists() else [],
            network=_network(folder, tested) if has_weights else None,
            evaluation=evaluation,
        )
        if record.evaluation and len(record.evaluation.confusion) != len(class_names):
            raise CheckpointError(
                f"{folder.evaluation} has {len(record.evaluation.confusion)} classes, but {folder.config} "
                f"has {len(class_names)}: it belongs to another run, delete it"
            )
        return record

    @property
    def title(self) -> str:
        """The title, for example "lenet5 on mnist"."""
        data = str(self.settings["data"])
        return printable(f"{self.settings['model']} on {data if data == 'mnist' else Path(data).name}")

    @property
    def device(self) -> str:
        """The device, for example "cpu, AMD EPYC"."""
        device = self.environment.get("device")
        if not isinstance(device, dict):
            return "unknown"
        names = [device.get("device"), device.get("processor") or device.get("gpu")]
        return printable(", ".join(str(name) for name in names if name))

    @property
    def validated(self) -> bool:
        """Whether each epoch ended with an evaluation on images not used for training."""
        return bool(self.epochs) and "validation_loss" in self.epochs[0]

    @property
    def checked(self) -> str:
        """The name of those images: "validation", or "test" if nothing was held out."""
        return "validation" if self.settings.get("validation") else "test"

    def measured(self, kind: str) -> str:
        """The most meaningful column for "loss" or "accuracy"."""
        return f"validation_{kind}" if self.validated else kind

    @property
    def result(self) -> dict[str, float]:
        """Results such as {"test accuracy": 0.99, "test loss": 0.03}; empty if nothing was measured."""
        if self.evaluation:
            return {"test accuracy": self.evaluation.accuracy, "test loss": self.evaluation.loss}
        if not self.epochs:
            return {}
        part, last = self.checked if self.validated else "training", self.epochs[-1]
        return {f"{part} {kind}": last[self.measured(kind)] for kind in ("accuracy", "loss")}


def _network(folder: RunFolder, weights: str) -> Network | None:
    """The network of the run; None if only the program that trained it has the classes of its layers."""
    try:
        return folder.load(backends.get("cpu"), weights)[0]
    except CheckpointError:
        file = folder.weights_file(weights)
        if folder.read()[0].model == OWN_NETWORK and not SavedNetwork.read(file).is_described:
            return None
        raise


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a run; CheckpointError if it is damaged."""
    try:
        values = json.loads(read_text(path))
        if not isinstance(values, dict):
            raise ValueError("expected a JSON object")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): it is damaged") from None
    return values


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The history in metrics.csv; CheckpointError if it is damaged."""
    try:
        lines = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
        epochs = []
        for number, line in enumerate(lines, 2):
            if None in line or None in line.values():
                raise ValueError(f"line {number} has a different number of cells than the first")
            epochs.append({name: float(cell) for name, cell in line.items()})
        for epoch in epochs:
            if not all(abs(value) < LARGEST for value in epoch.values()):  # NaN is not
                raise ValueError("a value in it is not finite, or too large for a training run")
            missing = {"epoch", "loss", "accuracy", "seconds", "images_per_second"} - set(epoch)
            if "validation_loss" in epoch or "validation_accuracy" in epoch:
                missing |= {"validation_loss", "validation_accuracy"} - set(epoch)
            if missing:
                raise ValueError(f"there is no column {min(missing)}")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, csv.Error) as error:
        raise CheckpointError(f"{path} cannot be read ({short(str(error), 200)}): it is damaged") from None
    return epochs
