"""Everything that decides how a training run goes; each setting is declared here and nowhere else."""

import inspect
import os
from collections.abc import Callable, Collection
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from backends import Backend
from backends.kernels import SETS
from backends.text import did_you_mean
from cnn import data, models
from cnn.data import Dataset, augmentation
from cnn.data.augmentation import Augmentation
from cnn.data.fitting import FITS, require_fit
from cnn.data.pictures import Pictures
from cnn.data.published.fashion_mnist import named_as
from cnn.models import heads, sources
from cnn.network import Network
from cnn.support.arguments import number, whole
from cnn.support.dtypes import DTYPES, require_dtype
from cnn.support.errors import ArgumentError, DataError
from cnn.support.text import dimensions, literal, short
from cnn.training import defaults
from cnn.training.averaging import EMA
from cnn.training.gradients import ClipNorm, ClipValue, GradientTransform
from cnn.training.groups import EVERYTHING, Group, is_vector
from cnn.training.losses import CrossEntropy, Loss
from cnn.training.named import OPTIMIZERS
from cnn.training.optimizers import SGD, Optimizer
from cnn.training.schedules import SCHEDULES, OneCycle, Schedule
from cnn.training.stopping import EarlyStopping, MaxTime, Stop, StopAt

T = TypeVar("T")

# the model and the data of a run that was trained with cnn.fit(run=...), or imported with its network
OWN_NETWORK, OWN_DATA = "own network", "own data"

AUTO = "auto"  # the model that suits the data

# the titles that --help shows the settings below
ON_WHAT, TRAINING, DEVICE = "Model and data", "Training", "Device"


def setting(
    default: T,
    panel: str,
    help: str,
    *,
    shown: str | None = None,
    choices: Collection[str] = (),
    parse: Callable[[Any], Any] | None = None,
    check: Callable[[str, Any], object] | None = None,
    before: Any = MISSING,
    changeable: bool = False,
    alias: str | None = None,
) -> T:
    """A field of Config; its option, its key in a --config file and its place in config.json follow from it.

    ``shown`` stands in --help as the default if the value does not explain itself, ``choices`` are for the
    shell's completion, and ``parse`` turns the option's text into the value. ``check(name, value)`` raises
    ArgumentError for a value that is wrong for any data. ``before`` is the value of runs that are older than
    the setting; a config.json that lacks a setting without ``before`` is damaged. A ``changeable`` setting
    may be given another value when a run is resumed. ``alias`` is another name of the option.
    """
    about = {"panel": panel, "help": help, "shown": shown, "choices": choices, "parse": parse, "check": check}
    more = {"before": before, "changeable": changeable, "alias": alias}
    return field(default=default, metadata=about | more)


def as_flag(value: Any) -> str:
    """A value of a file as it would stand on the command line, so that it is checked like one."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def cut(text: str | None) -> list[str] | None:
    """Cut "0, 1" into ["0", "1"]."""
    return None if text is None else [part.strip() for part in text.split(",")]


def parts(text: str | None) -> list[str] | None:
    """Cut "flip, shift=2" into ["flip", "shift=2"]; "none" is an empty list, as is "" from a file."""
    return [] if text in ("none", "") else cut(text)


def sides(text: str | None) -> list[int] | None:
    """Turn "48x64" into [48, 64] and "64" into [64, 64]; a list in a file arrives as "48,64"."""
    if text is None:
        return None
    try:
        found = [int(side) for side in text.lower().replace("x", ",").split(",")]
    except ValueError:
        found = []
    if len(found) not in (1, 2) or min(found) < 1:
        raise ArgumentError(
            f"--size is {short(text, 100)!r}, expected a height and a width as in 64 or 48x64"
        )
    return found if len(found) == 2 else found * 2


def absolute(data_set: str) -> str:
    """The data set's path in full, so that a run's folder finds it from anywhere; a name stays a name."""
    is_path = data_set not in data.NAMES and os.path.exists(data_set)
    return os.path.realpath(data_set) if is_path else data_set


def absolute_model(model: str) -> str:
    """The full path of a user's own network; a name stays a name."""
    return os.path.abspath(model) if model not in models.MODELS and sources.is_own(model) else model


def absolute_base(path: str | None) -> str | None:
    """The full path of the run or the file from which a run starts."""
    return None if path is None else os.path.abspath(path)


def require_balanced(name: str, value: str | None) -> None:
    """Raise ArgumentError for a word other than "balanced"."""
    if value not in (None, "balanced"):
        raise ArgumentError(f"--class-weights is {value!r}, expected balanced")


def require_count(name: str, value: int | None) -> None:
    """Raise ArgumentError unless ``value`` is a whole number above 0, or None."""
    if value is not None:
        whole(name, value)


def require_accuracy(name: str, value: float | None) -> None:
    """Raise ArgumentError unless ``value`` is an accuracy that can be reached."""
    if value is not None:
        number(name, value, most=1)


def require_share(name: str, value: float) -> None:
    """Raise ArgumentError unless ``value`` is a share of the training images that leaves some."""
    if not 0 <= value < 1:
        raise ArgumentError(f"--{name} is {value:g}: expected a share of the training images, such as 0.1")


@dataclass(frozen=True)
class Config:
    """Everything that decides how a run goes; its defaults are the command's."""

    # fmt: off
    recipe: str | None = setting(
        None, ON_WHAT,
        "Take the settings of this recipe as defaults; other options replace them. Without NAME, list the "
        "recipes and their accuracies.",
        before=None,
    )
    model: str = setting(
        AUTO, ON_WHAT,
        f"{', '.join(models.MODELS)}; or your own: a Python file and a function or network in it, as in "
        "mynet.py:make, a .toml file as `cnn summary --toml` prints it, or the network of a .safetensors "
        "file or of a run, without its weights.",
        shown=f"auto: {defaults.MODEL}, or for picture files {defaults.PICTURES_MODEL} with --augment "
        f"{','.join(defaults.PICTURES_AUGMENT)}",
        choices=(AUTO, *models.MODELS), parse=absolute_model,
        check=lambda _, model: None if model == AUTO else models.require(model),
    )
    base: str | None = setting(
        None, ON_WHAT,
        "Fine-tune: start with the network, weights and preprocessing of this run or .safetensors file. If "
        "the classes differ, the last layer with weights is replaced.",
        shown="none", parse=absolute_base, before=None, alias="from",
    )
    freeze: str | None = setting(
        None, ON_WHAT,
        "With --from: freeze this number of first layers, as `cnn summary` counts them, or all-but-head.",
        shown="none", choices=(heads.ALL_BUT_HEAD,),
        check=lambda _, what: what is None or heads.require_freezable(what), before=None,
    )
    old_rate: float = setting(
        1.0, TRAINING, "With --from: factor of the learning rate of all layers but the last one.",
        check=number, before=1.0,
    )
    data: str = setting(
        "mnist", ON_WHAT,
        "mnist, fashion-mnist or cifar10 (the last two are downloaded once, into the folder CNN_DATA); "
        "or the path of a folder with a folder of pictures for each class, of a table as text (.csv), of an "
        ".npz with x_train, y_train, x_test, y_test, of a folder with these arrays as .npy files or with "
        "four IDX files, or of cifar-10-binary.tar.gz.",
        parse=absolute, changeable=True,
    )
    size: list[int] | None = setting(  # noqa: RUF009
        None, ON_WHAT,
        "Height and width of the images that pictures become, as in 64 or 48x64.",
        shown="the pictures' own, if all have the same size of at most 64 pixels; otherwise 64", parse=sides,
        before=None,
    )
    fit: str | None = setting(
        None, ON_WHAT,
        "How pictures are converted to this size: crop (the middle), letterbox (all of it, with bars), "
        "stretch (all of it, distorted) or digit (a handwritten digit, cut out and centred as in MNIST; "
        "grey, of 28x28 by default).",
        shown="crop", choices=FITS, check=lambda _, fit: require_fit(fit or "crop"), before=None,
    )
    channels: int | None = setting(
        None, ON_WHAT, "Channels of the images that pictures become: 1 (grey) or 3 (colour).",
        shown="1 if all pictures are grey, otherwise 3", before=None,
    )
    transposed: bool = setting(
        False, ON_WHAT,
        "Exchange rows and columns of the images, which some files of EMNIST store transposed.", before=False,
    )
    classes: list[str] | None = setting(  # noqa: RUF009
        None, ON_WHAT, "Classes to use, as in 0,1.", shown="all", parse=cut,
    )
    per_class: int | None = setting(None, ON_WHAT, "Training images per class.", shown="all")
    epochs: int | None = setting(
        None, TRAINING, "Passes over the training set.",
        shown=f"{defaults.EPOCHS}; more on fewer than {defaults.SEEN // defaults.EPOCHS:,} images, at most "
        f"{defaults.MOST_EPOCHS}",
        check=require_count, changeable=True,
    )
    batch_size: int | None = setting(
        None, TRAINING, "Images per step.",
        shown=f"{defaults.BATCH_SIZE}; smaller on fewer than {defaults.MANY:,} images, at least "
        f"{defaults.LEAST_BATCH_SIZE}",
        check=require_count,
    )
    optimizer: str = setting("sgd", TRAINING, f"{', '.join(OPTIMIZERS)}.", choices=OPTIMIZERS)
    optimizer_options: list[str] | None = setting(  # noqa: RUF009
        None, TRAINING,
        "Further arguments of the optimizer, separated by commas, as in betas=0.7:0.9 for adam or "
        "steps=3,hidden_only=true for muon; the documentation of cnn.Muon and the others explains them.",
        shown="none", parse=parts, before=None,
    )
    learning_rate: float | None = setting(
        None, TRAINING, "Peak learning rate.",
        shown=f"sgd: {defaults.RATE} at a batch size of {defaults.ITS_BATCH}, scaled with the square root of "
        f"the batch size, at most {defaults.HIGHEST_RATE}; the others: as in PyTorch, 0.02 for muon",
    )
    schedule: str = setting(
        defaults.SCHEDULE, TRAINING, f"How the learning rate changes over the run: {', '.join(SCHEDULES)}.",
        choices=SCHEDULES,
    )
    warmup: float | None = setting(
        None, TRAINING,
        "How long the learning rate rises from 0: a share of the run if below 1, otherwise a number of "
        "steps, of which at most a fifth of the run is used.",
        shown=f"{defaults.WARMUP} steps; 0 for one-cycle, which begins with a rise of its own",
    )
    momentum: float | None = setting(
        None, TRAINING, "Momentum of sgd, muon and rmsprop.", shown="0.9; 0.95 for muon; 0 for rmsprop",
    )
    nesterov: bool = setting(
        False, TRAINING, "Nesterov momentum for sgd; muon always has it.", before=False,
    )
    weight_decay: float | None = setting(
        None, TRAINING, "How strongly weights are pulled towards 0.", shown="0; 0.01 for adamw",
    )
    decay_biases: bool = setting(
        True, TRAINING, "Whether biases and normalization weights decay too.", before=True,
    )
    bias_rate: float = setting(
        1.0, TRAINING, "Factor of the learning rate of biases and normalization weights.",
        check=number, before=1.0,
    )
    stop_at: float | None = setting(
        None, TRAINING, "Stop after the epoch in which the accuracy reaches this, such as 0.99.",
        shown="off", check=require_accuracy, before=None, changeable=True,
    )
    early_stopping: int | None = setting(
        None, TRAINING, "With --validation: stop if the loss on it has not improved for this many epochs.",
        shown="off", before=None, changeable=True, alias="patience",
    )
    max_minutes: float | None = setting(
        None, TRAINING, "Stop after this many minutes.", shown="off", before=None, changeable=True,
    )
    ema: float = setting(
        0.0, TRAINING,
        "Average the weights over the steps with this decay, such as 0.999; the averages are tested.",
        shown="off", check=partial(number, below=1), before=0.0,
    )
    label_smoothing: float = setting(
        0.0, TRAINING, "Share of each label that is spread over all classes, such as 0.1.",
        check=partial(number, below=1), before=0.0,
    )
    class_weights: str | None = setting(
        None, TRAINING,
        "balanced: weight the loss of each class by the inverse of its number of training images.",
        shown="off", choices=("balanced",), check=require_balanced, before=None,
    )
    clip: float = setting(
        defaults.CLIP, TRAINING,
        "Scale a gradient with a norm above this down to it; 0 turns this off.",
        check=number, before=0.0,
    )
    clip_value: float = setting(
        0.0, TRAINING, "Then move each number of the gradient into the range from minus this to this.",
        shown="off", check=number, before=0.0,
    )
    accumulate: int = setting(
        1, TRAINING,
        "Compute each batch in this many parts and add their gradients: the same updates with less memory.",
        check=whole, before=1,
    )
    augment: list[str] | None = setting(  # noqa: RUF009
        None, TRAINING,
        "How images are changed in each epoch: some of "
        f"{', '.join(augmentation.EXAMPLES)}, separated by commas. After a colon, as in shift=2:reflect, the "
        "mirror image fills the border of moved images. none turns off what a recipe or a file has.",
        shown="off", parse=parts, check=lambda _, texts: augmentation.parse(texts or ()), before=None,
    )
    tta: str | None = setting(
        None, TRAINING,
        "Test-time augmentation: average the network's outputs for each image and its mirror image (mirror), "
        "and for both moved by a pixel in two directions (mirror,shifts=1).",
        shown="off", check=lambda _, tta: augmentation.views(tta), before=None,
    )
    normalize: bool = setting(
        False, TRAINING,
        "Subtract the mean of the training images from each channel and divide by their standard deviation; "
        "the model keeps both numbers.",
        before=False,
    )
    whiten: bool = setting(
        False, TRAINING,
        "Compute the first convolution from the training images instead of training it: its filters are the "
        "principal components of the patches, scaled to variance 1, and their negatives. Give --normalize "
        "too.",
        before=False,
    )
    validation: float = setting(
        0.0, ON_WHAT,
        "Share of the training images to hold out. The weights with the lowest loss on them are kept in "
        "best.safetensors, and the test uses these.",
        shown="none", check=require_share, before=0.0,
    )
    seed: int = setting(
        0, TRAINING, "Seed of the initial weights, of the shuffling and of --augment.",
        check=partial(whole, least=0),
    )
    device: str = setting(
        "auto", DEVICE, "auto, cpu, cuda or cuda:N; CNN_DEVICE sets what auto means.",
        choices=("auto", "cpu", "cuda"), changeable=True,
    )
    kernels: str = setting("auto", DEVICE, "auto, compiled, portable or signal.", choices=("auto", *SETS))
    threads: int | None = setting(
        None, DEVICE, "Threads of the kernels and of the linear algebra library.",
        shown="all cores, or what a CPU quota or OMP_NUM_THREADS allows", changeable=True,
    )
    dtype: str = setting(
        "float32", DEVICE, "float32 or float64.", choices=DTYPES, check=lambda _, dtype: require_dtype(dtype),
    )
    fuse: bool = setting(
        True, DEVICE, "Compute several layers in one pass if the kernels can.",
    )
    winograd: bool = setting(
        True, DEVICE,
        "On a CPU: compute wide 3x3 convolutions by Winograd's algorithm, which is faster but rounds more.",
        before=False, changeable=True,
    )
    graph: bool = setting(
        True, DEVICE, "On a GPU: record a training step once, as a CUDA graph, and replay it.", before=True,
    )
    tf32: bool = setting(
        False, DEVICE, "On a GPU: compute products in TF32, which is faster but has 10 bits after the point.",
        before=False,
    )
    stream: bool | None = setting(
        None, DEVICE, "Keep the training images in host memory, copy batches to the device while training.",
        shown="if they do not fit on the device", before=None,
    )
    # fmt: on

    @classmethod
    def completed(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The values of a run's config.json, with what the run had before newer settings existed."""
        before = {each.name: each.metadata["before"] for each in fields(cls)}
        return {name: value for name, value in before.items() if value is not MISSING} | values

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The settings that decide what the network learns: all but those of the device."""
        return {
            each.name: getattr(self, each.name) for each in fields(self) if each.metadata["panel"] != DEVICE
        }

    def require_valid(self) -> None:
        """Raise ArgumentError for a value that is wrong for any data, before they are loaded."""
        for each in fields(self):
            if check := each.metadata["check"]:
                check(each.name, getattr(self, each.name))
        for name, is_used in (("freeze", self.freeze is not None), ("old_rate", self.old_rate != 1)):
            if is_used and self.base is None:
                flag = name.replace("_", "-")
                raise ArgumentError(f"--{flag} needs --from: say which run or file has the trained network")
        if self.whiten and self.base is not None:
            raise ArgumentError(
                "--whiten cannot be given with --from: it would replace the trained first layer"
            )
        if self.freeze == heads.ALL_BUT_HEAD and self.old_rate != 1:
            raise ArgumentError(
                f"--old-rate has no effect with --freeze {heads.ALL_BUT_HEAD}, which leaves no old "
                "layer to train: leave one of them out"
            )
        self.make_optimizer(images=1)
        self.make_schedule()
        self.make_stops()

    def require_suitable(self, network: Network) -> None:
        """Raise ArgumentError for a setting that does not suit the network or its images."""
        changes = [*self.make_augmentations(), *augmentation.views(self.tta)]
        augmentation.require_size(changes, network.input_shape)
        for name in ("label_smoothing", "class_weights"):
            if getattr(self, name) and network.gives_probabilities:
                raise ArgumentError(
                    f"{name} is {getattr(self, name)}, but {self.model} ends in Softmax, and its loss has no "
                    f"{name.replace('_', ' ')}: leave it out"
                )

    def load_data(
        self, pictures: Pictures | None = None, names: tuple[str, ...] = ()
    ) -> tuple[Dataset, Dataset | None, Dataset]:
        """(train, validation, test), with the chosen classes and ``per_class`` training images of each.

        ``pictures`` replaces the settings for pictures. ``names`` are those of the classes in an earlier run
        on the same data.
        ``validation`` is the part of the training set that is held out, or None.
        """
        if self.data == OWN_DATA:
            self.require_data()
        asked = {name: getattr(self, name) for name in ("size", "fit", "channels")}
        asked = {name: value for name, value in asked.items() if value is not None}
        train, test = data.load(self.data, pictures or Pictures(**asked), self.seed, self.transposed)
        if asked and not self._are_pictures(train):
            raise ArgumentError(
                f"--{next(iter(asked))} is for picture files, but {self.data} has images of "
                f"{dimensions(train.shape)}: leave it out"
            )
        train, test = train.only(self.classes, self.per_class), test.only(self.classes)
        if names:
            train, test = named_as(train, names), named_as(test, names)
        if not self.validation:
            return train, None, test
        return *train.split(self.validation, self.seed), test

    def _are_pictures(self, train: Dataset) -> bool:
        """Whether the images were made of picture files."""
        return train.fit is not None and self.data not in data.NAMES

    def require_data(self) -> None:
        """Raise DataError if the run's data are no longer at their path, or have none."""
        if self.data == OWN_DATA:
            raise DataError("the run does not say where its data are: give their path with --data")
        if self.data not in data.NAMES and not Path(self.data).exists():
            raise DataError(f"the run's data are no longer at {self.data}: give their new path with --data")

    def make_network(self, shape: tuple[int, ...], classes: int, backend: Backend) -> Network:
        """The model, built for images of ``shape``."""
        return self.build_network(models.make(self.model, classes, shape), shape, backend)

    def build_network(self, network: Network, shape: tuple[int, ...], backend: Backend) -> Network:
        """``network``, built for images of ``shape``."""
        network.build(
            shape, backend=backend, seed=self.seed, dtype=self.dtype, fuse=self.fuse, winograd=self.winograd
        )
        return network

    def epochs_for(self, images: int) -> int:
        """The number of epochs on so many training images."""
        return defaults.epochs(images) if self.epochs is None else self.epochs

    def batch_size_for(self, images: int) -> int:
        """The batch size for so many training images."""
        return defaults.batch_size(images) if self.batch_size is None else self.batch_size

    def freeze_layers(self, network: Network) -> None:
        """Freeze the first layer if it whitens; and of a fine-tuned network what is named, and no others."""
        if self.base is not None:
            network.unfreeze("*")
        if self.freeze is not None:
            heads.freeze(network, self.freeze)
        if self.whiten:
            network.freeze("0")

    def make_groups(self, network: Network | None) -> list[Group]:
        """The parameters whose learning rate or decay differs; without a network, only vectors."""
        groups = []
        if self.bias_rate != 1 or not self.decay_biases:
            decay = None if self.decay_biases else 0.0
            groups = [Group(is_vector, self.bias_rate, decay)]
        if self.old_rate == 1 or network is None:
            return groups
        parameters = [network.parameters.get(name) for name in heads.head_names(network)]
        new = [
            replace(next(group for group in [*groups, EVERYTHING] if group.fits(each)), select=each.name)
            for each in parameters
            if each
        ]
        return new + [replace(group, rate=self.old_rate * group.rate) for group in [*groups, EVERYTHING]]

    def make_optimizer(self, images: int, network: Network | None = None) -> Optimizer:
        """The optimizer by name for ``network``, with its defaults for ``images`` training images."""
        if self.optimizer not in OPTIMIZERS:
            expected = f"expected {', '.join(OPTIMIZERS)}{did_you_mean(self.optimizer, OPTIMIZERS)}"
            raise ArgumentError(f"unknown optimizer {self.optimizer!r}: {expected}")
        kind = OPTIMIZERS[self.optimizer]
        given = {name: getattr(self, name) for name in ("learning_rate", "momentum", "weight_decay")}
        arguments: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if "momentum" in arguments and "momentum" not in inspect.signature(kind).parameters:
            raise ArgumentError(f"momentum is {self.momentum}, but {self.optimizer} has none: leave it out")
        if self.nesterov:
            if "nesterov" not in inspect.signature(kind).parameters:
                raise ArgumentError(f"{self.optimizer} has no Nesterov momentum: leave --nesterov out")
            arguments["nesterov"] = True
        arguments |= self._optimizer_options(kind)
        if kind is SGD:
            usual = {"learning_rate": defaults.learning_rate(self.batch_size_for(images), images)}
            arguments = usual | {"momentum": defaults.MOMENTUM} | arguments
        if groups := self.make_groups(network):
            arguments["groups"] = groups
        optimizer = kind(**arguments)
        return EMA(optimizer, self.ema) if self.ema else optimizer

    def _optimizer_options(self, kind: type[Optimizer]) -> dict[str, Any]:
        """The further arguments of the optimizer by name."""
        names = set(inspect.signature(kind).parameters) - {"groups"} - {each.name for each in fields(self)}
        if self.optimizer_options and not names:
            raise ArgumentError(f"{self.optimizer} has no further options: leave --optimizer-options out")
        options: dict[str, Any] = {}
        for text in self.optimizer_options or ():
            name, _, value = text.partition("=")
            if name not in names or not value:
                expected = ", ".join(f"{each}=..." for each in sorted(names))
                raise ArgumentError(
                    f"--optimizer-options has {short(text, 100)!r} for {self.optimizer}: expected some of "
                    f"{expected}{did_you_mean(name, names)}"
                )
            if name in options:
                raise ArgumentError(f"--optimizer-options has {name} twice: leave one of them out")
            values = [literal(part) for part in value.split(":")]
            options[name] = tuple(values) if len(values) > 1 else values[0]
        return options

    def with_values_of(self, optimizer: Optimizer) -> "Config":
        """The same settings, with the values that were left to the optimizer."""
        found = optimizer.present_settings
        return replace(
            self,
            learning_rate=found["learning_rate"],
            weight_decay=found["weight_decay"],
            momentum=found.get("momentum"),
        )

    def completed_for(self, train: Dataset) -> tuple["Config", str]:
        """The same settings with the model, the epochs and the batch size that suit the training images.

        The text names the defaults that differ from those for large sets without picture files.
        """
        model, augment, chosen = self.model, self.augment, []
        if model == AUTO:
            model = defaults.PICTURES_MODEL if self._are_pictures(train) else defaults.MODEL
            if model == defaults.PICTURES_MODEL and augment is None:
                augment = list(defaults.PICTURES_AUGMENT)
                chosen.append(f"augmented by {' and '.join(augment)}")
        epochs, batch_size = self.epochs_for(len(train)), self.batch_size_for(len(train))
        if self.epochs is None and epochs != defaults.EPOCHS:
            chosen.append(f"{epochs} epochs")
        if self.batch_size is None and batch_size != defaults.BATCH_SIZE:
            chosen.append(f"batches of {batch_size}")
        completed = replace(self, model=model, augment=augment, epochs=epochs, batch_size=batch_size)
        return completed, ", ".join(chosen)

    def make_stops(self) -> list[Stop]:
        """The callbacks that may end the run early."""
        if self.early_stopping is not None and not self.validation:
            raise ArgumentError(
                "--patience (or --early-stopping) needs validation images: hold some out, for example with "
                "--validation 0.1"
            )
        stops: list[Stop] = []
        if self.stop_at is not None:
            stops.append(StopAt(self.stop_at))
        if self.early_stopping is not None:
            stops.append(EarlyStopping(self.early_stopping))
        if self.max_minutes is not None:
            stops.append(MaxTime(self.max_minutes))
        return stops

    def make_loss(self, train: Dataset) -> Loss | None:
        """The loss, or None for the network's usual one."""
        weights = _balanced(train) if self.class_weights else None
        if not self.label_smoothing and weights is None:
            return None
        return CrossEntropy(label_smoothing=self.label_smoothing, class_weights=weights)

    def make_transforms(self) -> list[GradientTransform]:
        """The transforms of the gradient before each update."""
        clip = [ClipNorm(self.clip)] if self.clip else []
        return clip + ([ClipValue(self.clip_value)] if self.clip_value else [])

    def make_augmentations(self) -> list[Augmentation]:
        """The augmentations of the training images."""
        return augmentation.parse(self.augment or ())

    def make_schedule(self) -> Schedule:
        """The schedule by name."""
        if self.schedule not in SCHEDULES:
            expected = f"expected {', '.join(SCHEDULES)}{did_you_mean(self.schedule, SCHEDULES)}"
            raise ArgumentError(f"unknown schedule {self.schedule!r}: {expected}")
        kind = SCHEDULES[self.schedule]
        usual = 0 if kind is OneCycle else defaults.WARMUP
        return kind(warmup=usual if self.warmup is None else self.warmup)


def _balanced(train: Dataset) -> list[float]:
    """Class weights with which each class counts the same: ``images / (classes * images of the class)``.

    A class without images gets 1.
    """
    train.require_classes("--class-weights")
    counts = np.bincount(train.labels, minlength=len(train.classes))
    return [len(train) / (len(counts) * count) if count else 1.0 for count in counts.tolist()]
