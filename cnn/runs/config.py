"""Everything that decides how a training run goes; each setting is declared here and nowhere else."""

from dataclasses import MISSING, dataclass, fields, replace
from functools import partial
from typing import Any

from backends.kernels import SETS
from cnn import data, models
from cnn.data import Dataset, augmentation
from cnn.data.fitting import FITS, require_fit
from cnn.models import heads
from cnn.runs.setting import (
    absolute,
    absolute_base,
    absolute_model,
    cut,
    parts,
    require_accuracy,
    require_balanced,
    require_count,
    require_share,
    setting,
    sides,
)
from cnn.support.arguments import number, whole
from cnn.support.dtypes import DTYPES, require_dtype
from cnn.training import defaults
from cnn.training.named import OPTIMIZERS
from cnn.training.optimizers import Optimizer
from cnn.training.schedules import SCHEDULES

# the model and the data of a run that was trained with cnn.fit(run=...), or imported with its network
OWN_NETWORK, OWN_DATA = "own network", "own data"

AUTO = "auto"  # the model that suits the data

# the titles that --help shows the settings below
ON_WHAT, TRAINING, DEVICE = "Model and data", "Training", "Device"


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
        "Compute each batch in this many parts and add their gradients, for less memory. The updates are the "
        "same, unless the network has batch normalization, which then sees smaller batches.",
        check=whole, before=1,
    )
    shards: int | None = setting(
        None, TRAINING,
        "Cut each batch into this many shards, for at most as many processes. The result depends on it, and "
        "not on the number of processes.",
        shown="the number of processes", check=require_count, before=None,
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
        "float32", DEVICE,
        "float32 or float64; on CUDA GPUs also bfloat16 or float16, which store activations in 16 bits.",
        choices=DTYPES, check=lambda _, dtype: require_dtype(dtype),
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
    recompute: bool = setting(
        False, DEVICE,
        "Compute what is inside blocks again in the backward pass: the same bits, less memory, more work.",
        before=False, changeable=True,
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

    def epochs_for(self, images: int) -> int:
        """The number of epochs on so many training images."""
        return defaults.epochs(images) if self.epochs is None else self.epochs

    def batch_size_for(self, images: int) -> int:
        """The batch size for so many training images."""
        return defaults.batch_size(images) if self.batch_size is None else self.batch_size

    def with_values_of(self, optimizer: Optimizer) -> "Config":
        """The same settings, with the values that were left to the optimizer."""
        found = optimizer.present_settings
        return replace(
            self,
            learning_rate=found["learning_rate"],
            weight_decay=found["weight_decay"],
            momentum=found.get("momentum"),
        )

    def are_pictures(self, train: Dataset) -> bool:
        """Whether the images were made of picture files."""
        return train.fit is not None and self.data not in data.NAMES

    def completed_for(self, train: Dataset) -> tuple["Config", str]:
        """The same settings with the model, the epochs and the batch size that suit the training images.

        The text names the defaults that differ from those for large sets without picture files.
        """
        model, augment, chosen = self.model, self.augment, []
        if model == AUTO:
            model = defaults.PICTURES_MODEL if self.are_pictures(train) else defaults.MODEL
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
