"""Fine-tuning with ``cnn train --from``: a run starts from the network of another run, or of a file."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from backends import Backend
from cnn import data
from cnn.data import Dataset
from cnn.data.pictures import Pictures
from cnn.models import MODELS, heads, sources
from cnn.network import Network
from cnn.runs import build
from cnn.runs.config import Config
from cnn.runs.folder import RunFolder
from cnn.runs.trained import Trained, load_trained
from cnn.support.errors import ArgumentError
from cnn.support.own_code import is_code
from cnn.support.text import dimensions


def with_model(config: Config, is_given: bool) -> Config:
    """``config`` with the model of its base; ArgumentError if another one is given."""
    base = Path(config.base or "")
    model = str(base)
    if base.suffix != sources.WEIGHTS:
        made = RunFolder(base).read()[0].model
        model = made if made in MODELS or is_code(made) else model
    if is_given and config.model != model:
        raise ArgumentError(
            f"--model is {config.model}, but --from {base} has the model {model}: leave --model out"
        )
    return replace(config, model=model)


@dataclass(frozen=True)
class Base:
    """The trained network from which a run starts."""

    trained: Trained

    @classmethod
    def load(cls, config: Config, backend: Backend) -> "Base":
        """The network of ``config.base``; ArgumentError for settings that contradict it."""
        if config.normalize:
            raise ArgumentError(
                "--normalize cannot be given with --from: the network keeps the preprocessing of "
                f"{config.base}"
            )
        trained = load_trained(Path(config.base or ""), backend)
        pictures = Pictures.of(trained.network)
        for name, given in (("size", config.size and tuple(config.size)), ("channels", config.channels)):
            if given not in (None, getattr(pictures, name)):
                shown = dimensions(given) if isinstance(given, tuple) else given
                raise ArgumentError(
                    f"--{name} is {shown}, but {config.base} takes images of "
                    f"{dimensions(trained.network.input_shape)}: leave it out, pictures become "
                    "images of that size"
                )
        return cls(trained)

    def pictures(self, config: Config) -> Pictures:
        """The preparation of pictures: that of the base, unless ``config`` has another fit."""
        own = Pictures.of(self.trained.network)
        return replace(own, fit=config.fit or own.fit)

    def names_for(self, config: Config) -> tuple[str, ...]:
        """The names of the classes, if the new run has the same data as the base."""
        return self.trained.class_names if self.trained.is_own(config.data) else ()

    def completed(self, config: Config, train: Dataset) -> Config:
        """``config`` with the settings for pictures, so that the data can be loaded without the base."""
        if train.shape != self.trained.network.input_shape:
            raise ArgumentError(
                f"{config.data} has images of {dimensions(train.shape)}, but {config.base} takes "
                f"images of {dimensions(self.trained.network.input_shape)}: give images of that size"
            )
        if train.fit is None or config.data in data.NAMES:
            return config
        channels, *size = train.shape
        return replace(config, size=size, channels=channels, fit=train.fit)

    def make_network(self, config: Config, classes: tuple[str, ...]) -> Network:
        """The network of the run, with the weights of the base; its head is new if the classes differ."""
        base, state = self.trained.network, self.trained.network.state_dict()
        is_same = self.trained.class_names == classes
        model = base.fresh() if is_same else heads.with_head(base, len(classes))
        network = build.build_network(config, model, base.input_shape, base.backend)
        (network.load_state_dict if is_same else partial(heads.take_body, network))(state)
        network.preprocessing = base.preprocessing
        return network

    def note(self, config: Config, network: Network, classes: tuple[str, ...]) -> str:
        """A sentence on the layers that :meth:`make_network` has kept and on those that are new."""
        if self.trained.class_names == classes:
            kept = f"all layers have its weights, since the {len(classes)} classes are the same"
        else:
            head = heads.find_head(network)
            (label,) = (layer.label for layer in network.walk() if layer.path == head)
            new = f"layer {label} is new, for {len(classes)} other classes"
            kept = f"{new}, and the layers before it have its weights"
        normalizes = network.preprocessing is not None and network.preprocessing.normalizes
        taken = "size and normalization" if normalizes else "size"
        shape = dimensions(network.input_shape)
        return f"starts from {config.base}: {kept}; the images keep its {taken} ({shape})"
