"""A run's folder: what was asked for, where it ran, how it went, and the weights."""

import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from errno import ENOTDIR
from itertools import count
from pathlib import Path
from typing import Any

import cnn
from backends import Backend
from backends.text import did_you_mean
from cnn import checkpoints, defaults, models, system
from cnn.arguments import number, whole
from cnn.callbacks import BestWeights, Callback, Checkpoint, CSVLog
from cnn.data import Dataset
from cnn.errors import ArgumentError, CheckpointError, DataError
from cnn.files import making_whole, remove_unfinished, require_writable, write_json
from cnn.libraries import require, version
from cnn.network import Sequential, require_dtype
from cnn.optimizers import OPTIMIZERS, Optimizer
from cnn.reading import read_text
from cnn.run import Run
from cnn.schedules import SCHEDULES, Schedule
from cnn.text import short
from cnn.transforms import ClipNorm, GradientTransform

PACKAGES = (
    "numpy", "scipy", "numba", "threadpoolctl", "safetensors", "rich", "typer",
    "matplotlib", "jinja2", "pillow", "pydantic", "onnx", "tensorboard",
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Everything that decides how a run goes; its defaults are the command's."""

    model: str = "lenet5"
    data: str = "mnist"
    classes: list[str] | None = None  # names; None: all
    per_class: int | None = None  # training images of each class; None: all
    epochs: int = 3
    batch_size: int = 128
    optimizer: str = "sgd"
    learning_rate: float | None = None  # None: the optimizer's own
    schedule: str = defaults.SCHEDULE
    warmup: float = defaults.WARMUP  # below 1 a share of the run, from 1 on steps
    momentum: float | None = None  # None: the optimizer's own
    weight_decay: float | None = None  # None: the optimizer's own
    clip: float = defaults.CLIP  # the norm that a gradient is scaled down to; 0: it is left as it is
    validation: float = 0.0  # share of the training images that is held out
    seed: int = 0
    device: str = "auto"
    kernels: str = "auto"
    threads: int | None = None
    dtype: str = "float32"
    fuse: bool = True
    graph: bool = True
    tf32: bool = False
    stream: bool | None = None  # None: where the data do not fit on the device

    def require_valid(self) -> None:
        """Raise ArgumentError for a value that is wrong whatever the data are, before these are loaded."""
        whole("batch_size", self.batch_size)
        whole("seed", self.seed, least=0)
        models.get(self.model, classes=2)
        require_dtype(self.dtype)
        self.make_optimizer(images=1)
        self.make_schedule()
        self.make_transforms()
        if not 0 <= self.validation < 1:
            raise ArgumentError(
                f"--validation is {self.validation:g}: expected a share of the training images, such as 0.1"
            )

    def load_data(self) -> tuple[Dataset, Dataset | None, Dataset]:
        """(train, validation, test): the chosen classes, of the training set ``per_class`` images.

        ``validation`` is what is held out of the training set, None where that is nothing.
        """
        train, test = cnn.data.load(self.data)
        train, test = train.only(self.classes, self.per_class), test.only(self.classes)
        if not self.validation:
            return train, None, test
        return *train.split(self.validation, self.seed), test

    def require_data(self) -> None:
        """Raise DataError if there is nothing any more at the place of the run's data."""
        if self.data not in cnn.data.NAMES and not Path(self.data).exists():
            raise DataError(f"the run's data are no longer at {self.data}: give their new place with --data")

    def make_network(self, shape: tuple[int, ...], classes: int, backend: Backend) -> Sequential:
        """The model, built for images of ``shape``."""
        network = models.get(self.model, classes)
        network.build(shape, backend=backend, seed=self.seed, dtype=self.dtype, fuse=self.fuse)
        return network

    def make_optimizer(self, images: int) -> Optimizer:
        """The optimizer by name for so many images, with its own values for what is not given."""
        if self.optimizer not in OPTIMIZERS:
            expected = f"expected {', '.join(OPTIMIZERS)}{did_you_mean(self.optimizer, OPTIMIZERS)}"
            raise ArgumentError(f"unknown optimizer {self.optimizer!r}: {expected}")
        given = {"momentum": self.momentum, "weight_decay": self.weight_decay}
        arguments = {name: value for name, value in given.items() if value is not None}
        if self.optimizer == "sgd":
            rate = defaults.learning_rate(self.batch_size, images)
            arguments = {"momentum": defaults.MOMENTUM} | arguments
        elif "momentum" in arguments:
            raise ArgumentError(f"momentum is {self.momentum}, but {self.optimizer} has none: leave it out")
        else:
            rate = 0.001
        if self.learning_rate is not None:
            rate = self.learning_rate
        return OPTIMIZERS[self.optimizer](rate, **arguments)

    def with_values_of(self, optimizer: Optimizer) -> "Config":
        """The same, with what was left to the optimizer written down too."""
        return replace(
            self,
            learning_rate=optimizer.learning_rate,
            weight_decay=optimizer.weight_decay,
            momentum=getattr(optimizer, "momentum", None),
        )

    def make_transforms(self) -> list[GradientTransform]:
        """What happens to the gradient before each update."""
        clip = number("clip", self.clip)
        return [ClipNorm(clip)] if clip else []

    def make_schedule(self) -> Schedule:
        """The schedule by name."""
        if self.schedule not in SCHEDULES:
            expected = f"expected {', '.join(SCHEDULES)}{did_you_mean(self.schedule, SCHEDULES)}"
            raise ArgumentError(f"unknown schedule {self.schedule!r}: {expected}")
        return SCHEDULES[self.schedule](warmup=self.warmup)


# what the config.json of an older run may lack, as it was then
LATER_FIELDS = {"graph": True, "tf32": False, "stream": None, "validation": 0.0, "clip": 0.0}


DECISIVE = (
    "device", "gpu", "processor", "threads", "kernels", "tf32", "blas", "cublas", "runtime", "numpy", "scipy",
    "cupy", "xpcnn",
)  # fmt: skip
WEIGHTS = ("last", "best")  # of the end of the run, or of the epoch that was best on the validation images


class RunFolder:
    """The files of one run."""

    def __init__(self, path: str | Path) -> None:
        self._further: Iterator[Path] = iter(())  # where a new run may lie if its path is taken
        self._lie_at(Path(path))

    def _lie_at(self, path: Path) -> None:
        self.path = path
        self.config = self.path / "config.json"
        self.environment = self.path / "environment.json"
        self.metrics = self.path / "metrics.csv"
        self.weights = self.path / "model.safetensors"
        self.best = self.path / "best.safetensors"
        self.checkpoint = self.path / "checkpoint.safetensors"
        self.evaluation = self.path / "evaluation.safetensors"
        self.tensorboard = self.path / "tensorboard"

    @classmethod
    def default(cls, model: str) -> "RunFolder":
        """runs/MODEL-TIME for a new run, with a number behind it if another run has that."""
        folder = cls(Path("runs") / f"{model}-{time.strftime('%Y%m%d-%H%M%S')}")
        first = folder.path
        folder._further = (first.with_name(f"{first.name}-{number}") for number in count(2))
        return folder

    def start(self, config: Config, network: Sequential, class_names: tuple[str, ...]) -> None:
        """Make the folder and write down what is about to run, and where; it is there whole or not at all.

        Raises ArgumentError where the folder exists or cannot be made.
        """
        self.require_new()
        try:
            with making_whole(self.path) as beside:
                RunFolder(beside).describe(config, network, class_names)
        except OSError as error:
            if os.path.lexists(self.path):  # another process was faster
                return self.start(config, network, class_names)
            raise self._unwritable(error) from None

    def go_on(self, config: Config, network: Sequential, class_names: tuple[str, ...]) -> None:
        """Make the folder ready for more training: without what the trained network has been found to be."""
        remove_unfinished(self.path)
        self.evaluation.unlink(missing_ok=True)
        self.describe(config, network, class_names)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside the block no other process trains in the folder; ArgumentError where one does already."""
        with ExitStack() as stack:
            try:
                stack.enter_context(system.locked(self.path))
            except BlockingIOError:
                raise ArgumentError(f"another process is training in {self.path}: wait for its end") from None
            yield

    def describe(self, config: Config, network: Sequential, class_names: tuple[str, ...]) -> None:
        """Write config.json and environment.json."""
        backend = network.backend
        device = {**backend.describe(), "reason": backend.reason}
        self.write_config(config, network.input_shape, class_names)
        write_json(self.environment, environment() | {"device": device, "command": sys.argv})

    def write_config(self, config: Config, shape: tuple[int, ...], class_names: tuple[str, ...]) -> None:
        """Write config.json."""
        write_json(self.config, asdict(config) | {"input_shape": shape, "class_names": class_names})

    def changes(self, backend: Backend) -> list[str]:
        """What the last bits of the weights depend on and is not as it was when the run was last trained."""
        try:
            environment = json.loads(read_text(self.environment))
            before = {**environment["device"], "xpcnn": environment["xpcnn"]}
        except (OSError, ValueError, TypeError, LookupError, RecursionError):
            return []
        now = {**backend.describe(), "xpcnn": cnn.__version__}
        return [
            f"{name} was {short(str(before[name]), 100)} and is {now[name]} now"
            for name in DECISIVE
            if name in before and name in now and before[name] != now[name]
        ]

    def require_same(self, train: Dataset) -> None:
        """Raise CheckpointError where the images are not like those that the run began with."""
        _, shape, class_names = self.read()
        if (shape, class_names) != (train.shape, train.classes):
            raise CheckpointError(
                f"{self.path} began with images {shape} of {len(class_names)} classes, now the data are "
                f"{train!r}: give --data the place of the data that it began with"
            )

    def require_new(self) -> None:
        """Raise ArgumentError if there is something at the folder's place, or it could not be made.

        A default folder moves on to the next number instead.
        """
        while os.path.lexists(self.path):
            further = next(self._further, None)
            if further is None:
                raise ArgumentError(f"the output folder {self.path} exists: give --out another name")
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

    def read(self) -> tuple[Config, tuple[int, ...], tuple[str, ...]]:
        """(configuration, image shape, class names); CheckpointError where this is no run's folder."""
        try:
            values = json.loads(read_text(self.config))
            values = LATER_FIELDS | values
            config = Config(**{field.name: values[field.name] for field in fields(Config)})
            return config, tuple(values["input_shape"]), tuple(values["class_names"])
        except (FileNotFoundError, NotADirectoryError):
            raise CheckpointError(
                f"{self.path} is no run's folder, it has no config.json: "
                "give the folder that `cnn train` wrote"
            ) from None
        except OSError as error:
            raise CheckpointError(f"{self.config} cannot be read ({error.strerror})") from None
        except KeyError as error:
            raise CheckpointError(f"{self.config} lacks {error}: it is damaged") from None
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            reason = short(str(error), 200)
            raise CheckpointError(f"{self.config} cannot be read ({reason}): it is damaged") from None

    def require_weights(self, asked: str | None) -> str:
        """Which weights are meant by ``asked``: "last" or "best"; None: the best, if the run has kept them.

        Raises CheckpointError if they are not there, ArgumentError for another word.
        """
        if asked not in (None, *WEIGHTS):
            raise ArgumentError(f"--weights is {asked!r}, expected {' or '.join(WEIGHTS)}")
        if asked == "best" and not self.best.exists():
            raise CheckpointError(
                f"{self.path} has no {self.best.name}: `cnn train` keeps the best weights with --validation "
                "alone, from the end of the first epoch on; leave --weights best out"
            )
        return asked or ("best" if self.best.exists() else "last")

    def about(self, weights: str) -> dict[str, Any]:
        """What a result says of the "best" weights that it is of; nothing of the "last" ones."""
        return {} if weights == "last" else {"weights": weights, "epoch": checkpoints.epoch_of(self.best)}

    def weights_file(self, weights: str) -> Path:
        """Where the "last" or "best" weights are."""
        return self.best if weights == "best" else self.weights

    def load(
        self, backend: Backend, weights: str | None = None
    ) -> tuple[Sequential, Config, tuple[str, ...]]:
        """The run's network on ``backend``, its configuration, and the class names.

        ``weights`` are as :meth:`require_weights` takes them.
        """
        config, shape, class_names = self.read()
        file = self.weights_file(self.require_weights(weights))
        state, _ = checkpoints.read(file)
        try:
            model = models.get(config.model, len(class_names))
            checkpoints.require_held(model, shape, backend, state)
            network = config.make_network(shape, len(class_names), backend)
        except CheckpointError as error:
            raise CheckpointError(f"{file}: the weights are not those of {self.config}: {error}") from None
        except (ValueError, TypeError, MemoryError) as error:
            reason = short(str(error), 200)
            raise CheckpointError(f"{self.config} describes no network ({reason}): it is damaged") from None
        return checkpoints.load(file, network=network), config, class_names


class RunLog(Callback):
    """Keeps the run's folder: made when training starts; after each epoch metrics, weights and a checkpoint.

    The checkpoint comes last, so that the other files are never behind it.
    """

    def __init__(
        self, folder: RunFolder, config: Config, class_names: tuple[str, ...], goes_on: bool = False
    ) -> None:
        self.folder = folder
        self.config = config
        self.class_names = class_names
        self.goes_on = goes_on

    def on_start(self, run: Run) -> None:
        require("safetensors.numpy", checkpoints.TO_SAVE)  # before there is anything to lose
        described = self.config, run.network, self.class_names
        with ExitStack() as stack:
            if not self.goes_on:
                self.folder.start(*described)
            stack.enter_context(self.folder.alone())
            if self.goes_on:
                self.folder.go_on(*described)
            self._parts: list[Callback] = [CSVLog(self.folder.metrics)]
            if self.config.validation:
                self._parts.append(BestWeights(self.folder.best))
            self._checkpoint = Checkpoint(self.folder.checkpoint)
            self._checkpoint.on_start(run)
            self._alone = stack.pop_all()

    def on_step(self, run: Run) -> None:
        self._checkpoint.on_step(run)

    def on_epoch(self, run: Run, record: dict[str, Any]) -> None:
        for part in self._parts:
            part.on_epoch(run, record)
        run.network.save(self.folder.weights)
        self._checkpoint.on_epoch(run, record)

    def on_end(self, run: Run) -> None:
        with self._alone:
            if run.stop and checkpoints.are_finite(run.network.state_dict()):
                run.network.save(self.folder.weights)
            self._checkpoint.on_end(run)


def environment() -> dict[str, Any]:
    """What a bug report needs beside the devices: versions, system, what is set in the environment."""
    set_here = ("CNN_DEVICE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {
        "xpcnn": cnn.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: version(name) for name in PACKAGES},
        "variables": {name: os.environ[name] for name in set_here if name in os.environ},
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
