"""Everything that decides how a training run goes."""

from dataclasses import dataclass, replace
from pathlib import Path

from backends import Backend
from backends.text import did_you_mean
from cnn import data, models
from cnn.data import Dataset
from cnn.network import Network, require_dtype
from cnn.support.arguments import number, whole
from cnn.support.errors import ArgumentError, DataError
from cnn.training import defaults
from cnn.training.gradients import ClipNorm, GradientTransform
from cnn.training.optimizers import OPTIMIZERS, Optimizer
from cnn.training.schedules import SCHEDULES, Schedule


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
        """Raise ArgumentError for a value that is wrong whatever the data are, before they are loaded."""
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
        train, test = data.load(self.data)
        train, test = train.only(self.classes, self.per_class), test.only(self.classes)
        if not self.validation:
            return train, None, test
        return *train.split(self.validation, self.seed), test

    def require_data(self) -> None:
        """Raise DataError if there is nothing any more at the place of the run's data."""
        if self.data not in data.NAMES and not Path(self.data).exists():
            raise DataError(f"the run's data are no longer at {self.data}: give their new place with --data")

    def make_network(self, shape: tuple[int, ...], classes: int, backend: Backend) -> Network:
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
