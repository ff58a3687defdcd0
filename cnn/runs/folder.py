"""A run's folder: its settings, its environment, its metrics and its weights."""

import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, fields, replace
from errno import ENOTDIR
from itertools import count
from pathlib import Path
from typing import Any

from backends import Backend
from cnn import models
from cnn.data import Dataset
from cnn.data.preprocessing import keep_fit
from cnn.models import heads, sources
from cnn.models.sources import Source
from cnn.network import Network
from cnn.runs import build
from cnn.runs.config import Config
from cnn.saving.weights import MODEL_FILE, SavedNetwork, epoch_of, require_held
from cnn.support import system
from cnn.support.dtypes import dtype_on
from cnn.support.environment import environment
from cnn.support.errors import ArgumentError, CheckpointError, Notice
from cnn.support.files import making_whole, remove_unfinished, require_writable, write_json
from cnn.support.reading import read_text
from cnn.support.text import short
from cnn.support.version import VERSION

DECISIVE = (
    "device", "gpu", "processor", "threads", "kernels", "tf32", "blas", "cublas", "runtime", "numpy", "scipy",
    "cupy", "xpcnn",
)  # fmt: skip
DATA_KEYS = {"input_shape", "class_names"}  # what config.json says of the data, next to the settings
COMPARISON = "comparison"  # the folder next to runs in which `cnn report` compares them
WEIGHTS = ("last", "best")  # of the end of the run, or of the epoch that was best on the validation images


class RunFolder:
    """The files of one run."""

    def __init__(self, path: str | Path) -> None:
        self._further: Iterator[Path] = iter(())  # other paths for a new run if its own is taken
        self._lie_at(Path(path))

    def _lie_at(self, path: Path) -> None:
        self.path = path
        self.config = self.path / sources.RUN_FILE
        self.environment = self.path / "environment.json"
        self.metrics = self.path / "metrics.csv"
        self.weights = self.path / MODEL_FILE
        self.best = self.path / "best.safetensors"
        self.checkpoint = self.path / "checkpoint.safetensors"
        self.evaluation = self.path / "evaluation.safetensors"
        self.failure = self.path / "failure.txt"
        self.tensorboard = self.path / "tensorboard"

    @classmethod
    def default(cls, model: str) -> "RunFolder":
        """runs/MODEL-TIME for a new run, with a number behind it if another run has that."""
        folder = cls(Path("runs") / f"{sources.title(model)}-{time.strftime('%Y%m%d-%H%M%S')}")
        first = folder.path
        folder._further = (first.with_name(f"{first.name}-{number}") for number in count(2))
        return folder

    def start(self, config: Config, network: Network, class_names: tuple[str, ...]) -> None:
        """Make the folder of a new run, with its settings and its environment.

        Raises ArgumentError if the folder exists or cannot be made.
        """
        self.require_new()
        try:
            with making_whole(self.path) as beside:
                RunFolder(beside).describe(config, network, class_names)
        except OSError as error:
            if os.path.lexists(self.path):  # another process was faster
                return self.start(config, network, class_names)
            raise self._unwritable(error) from None

    def resume(self, config: Config, network: Network, class_names: tuple[str, ...]) -> None:
        """Prepare the folder of a resumed run: the results of an earlier end are removed."""
        remove_unfinished(self.path)
        self.evaluation.unlink(missing_ok=True)
        self.failure.unlink(missing_ok=True)
        self.describe(config, network, class_names)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from training in the folder; ArgumentError if one does already."""
        with ExitStack() as stack:
            try:
                stack.enter_context(system.locked(self.path))
            except BlockingIOError:
                raise ArgumentError(
                    f"another process is training in {self.path}: wait until it ends"
                ) from None
            yield

    @property
    def is_in_use(self) -> bool:
        """Whether a process trains in the folder."""
        return system.is_locked(self.path)

    def describe(self, config: Config, network: Network, class_names: tuple[str, ...]) -> None:
        """Write config.json and environment.json."""
        backend = network.backend
        device = {**backend.describe(), "reason": backend.reason}
        self.write_config(config, network.input_shape, class_names)
        write_json(self.environment, environment() | {"device": device, "command": sys.argv})

    def write_config(self, config: Config, shape: tuple[int, ...], class_names: tuple[str, ...]) -> None:
        """Write config.json."""
        write_json(self.config, asdict(config) | {"input_shape": shape, "class_names": class_names})

    def changes(self, backend: Backend) -> list[str]:
        """The changes of the environment since the last training that may change last bits of the weights."""
        try:
            environment = json.loads(read_text(self.environment))
            before = {**environment["device"], "xpcnn": environment["xpcnn"]}
        except (OSError, ValueError, TypeError, LookupError, RecursionError):
            return []
        now = {**backend.describe(), "xpcnn": VERSION}
        return [
            f"{name} was {short(str(before[name]), 100)} and is {now[name]} now"
            for name in DECISIVE
            if name in before and name in now and _has_changed(name, before[name], now[name])
        ]

    def require_same(self, train: Dataset) -> None:
        """Raise CheckpointError if the shape or the classes are not those that the run began with."""
        _, shape, class_names = self.read()
        if (shape, class_names) != (train.shape, train.classes):
            raise CheckpointError(
                f"{self.path} was trained on images {shape} of {len(class_names)} classes, the data are now "
                f"{train!r}: give the path of the original data with --data"
            )

    def require_new(self, advice: str = "give --out another name") -> None:
        """Raise ArgumentError if there is something at the folder's place, or it could not be made.

        A default folder moves on to the next number instead. The message ends with ``advice``.
        """
        while os.path.lexists(self.path):
            further = next(self._further, None)
            if further is None:
                raise ArgumentError(f"the output folder {self.path} exists: {advice}")
            self._lie_at(further)
        parent = next(parent for parent in self.path.absolute().parents if parent.exists())
        if not parent.is_dir():
            raise self._unwritable(NotADirectoryError(ENOTDIR, f"{parent} is a file"))
        try:
            require_writable(parent)
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> ArgumentError:
        return ArgumentError(
            f"the output folder {self.path} cannot be written ({error.strerror}): "
            "give --out a folder that you can write"
        )

    def read(self, is_resumed: bool = False) -> tuple[Config, tuple[int, ...], tuple[str, ...]]:
        """(configuration, image shape, class names); CheckpointError if this is not the folder of a run.

        A Notice says so if config.json has settings of a newer version. A run with these cannot be resumed.
        """
        try:
            values = Config.completed(json.loads(read_text(self.config)))
            config = Config(**{field.name: values[field.name] for field in fields(Config)})
            found = config, tuple(values["input_shape"]), tuple(values["class_names"])
        except (FileNotFoundError, NotADirectoryError):
            raise CheckpointError(
                f"{self.path} is not the folder of a run, it has no config.json: "
                "give the folder that `cnn train` wrote"
            ) from None
        except OSError as error:
            raise CheckpointError(f"{self.config} cannot be read ({error.strerror})") from None
        except KeyError as error:
            raise CheckpointError(f"{self.config} lacks {error}: it is damaged") from None
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            reason = short(str(error), 200)
            raise CheckpointError(f"{self.config} cannot be read ({reason}): it is damaged") from None
        if unknown := ", ".join(sorted(values.keys() - vars(config) - DATA_KEYS)):
            newer = f"{self.config} has settings that this version does not know ({short(unknown, 200)})"
            if is_resumed:
                raise CheckpointError(f"{newer}: update xpcnn to resume the run")
            warnings.warn(f"{newer}: they are ignored", Notice, stacklevel=2)
        return found

    def require_weights(self, asked: str | None) -> str:
        """Resolve ``asked``, which is "last", "best" or None, to "last" or "best".

        None is the best weights if the run has kept them, otherwise the last.

        Raises CheckpointError if the best weights are missing, ArgumentError for another word.
        """
        if asked not in (None, *WEIGHTS):
            raise ArgumentError(f"--weights is {asked!r}, expected {' or '.join(WEIGHTS)}")
        if asked == "best" and not self.best.exists():
            raise CheckpointError(
                f"{self.path} has no {self.best.name}: `cnn train` keeps the best weights only with "
                "--validation, after the first epoch; leave out --weights best"
            )
        return asked or ("best" if self.best.exists() else "last")

    def about(self, weights: str) -> dict[str, Any]:
        """The entries that name the weights of a result if these are the "best"; none for the "last"."""
        return {} if weights == "last" else {"weights": weights, "epoch": epoch_of(self.best)}

    def weights_file(self, weights: str) -> Path:
        """The file of the "last" or "best" weights."""
        return self.best if weights == "best" else self.weights

    def load(
        self, backend: Backend, weights: str | None = None, winograd: bool | None = None
    ) -> tuple[Network, Config, tuple[str, ...]]:
        """The run's network on ``backend``, its configuration, and the class names.

        ``weights`` are as :meth:`require_weights` takes them. ``winograd`` replaces the run's own setting.
        """
        config, shape, class_names = self.read()
        if winograd is not None:
            config = replace(config, winograd=winograd)
        file = self.weights_file(self.require_weights(weights))
        saved = SavedNetwork.read(file)
        try:
            model = self.source(config, saved).make(len(class_names), shape)
            require_held(model, shape, saved.state)
            own = replace(config, dtype=dtype_on(backend, config.dtype))
            network = build.build_network(own, model, shape, backend)
            if config.model in models.MODELS and network.output_shape != (len(class_names),):
                raise CheckpointError(
                    f"the network has {network.output_shape[0]} outputs, but there are {len(class_names)} "
                    "class_names"
                )
        except CheckpointError as error:
            raise CheckpointError(f"{file}: the weights are not those of {self.config}: {error}") from None
        except (ValueError, TypeError, MemoryError) as error:
            reason = short(str(error), 200)
            raise CheckpointError(
                f"{self.config} does not describe a network ({reason}): it is damaged"
            ) from None
        saved.put_into(network)
        if config.data == "mnist":  # files of version 0.1 do not say how pictures are fitted
            keep_fit(network, "digit")
        return network, config, class_names

    @staticmethod
    def source(config: Config, saved: SavedNetwork) -> Source:
        """The source of the run's network: the weights, or the name of a model if they do not describe it.

        A newer version may have another network by this name.
        """
        by_name = config.model in models.MODELS and not saved.is_described
        source = models.find(config.model) if by_name else sources.of_run(saved, config.model)
        if config.base is None:
            return source
        return replace(source, make=lambda count, shape: heads.with_head(source.make(count, shape), count))


def _has_changed(name: str, before: Any, now: Any) -> bool:
    """Whether a value of the environment is another one now; a BLAS that is loaded late is no change."""
    if name != "blas":
        return bool(before != now)
    one, other = (set(str(libraries).split(", ")) for libraries in (before, now))
    return not (one <= other or other <= one)
