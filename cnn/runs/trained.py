"""Opens what was trained: the folder of a run, or a file of weights that describes its network."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backends import Backend
from backends.text import quoted
from cnn.data import Dataset, load, load_test
from cnn.data.checked import numbered
from cnn.data.pictures import Pictures
from cnn.data.published.fashion_mnist import named_as
from cnn.models import MODELS
from cnn.models.sources import TOML, is_run
from cnn.network import Network
from cnn.runs.build import require_data
from cnn.runs.config import Config
from cnn.runs.folder import RunFolder
from cnn.runs.setting import absolute
from cnn.saving.weights import SavedNetwork
from cnn.support.errors import ArgumentError, CheckpointError
from cnn.support.own_code import is_code


@dataclass(frozen=True)
class Trained:
    """A network with its weights, and what is known about its training run."""

    network: Network
    class_names: tuple[str, ...]  # "0", "1", ... if the file does not have them
    config: Config | None  # None for a file that is not part of a run
    path: Path  # of the folder or the file
    about: dict[str, Any]  # entries that name the weights in results if these are the best of a run

    @property
    def tta(self) -> str | None:
        """The test-time augmentation of the run."""
        return self.config.tta if self.config else None

    @property
    def seed(self) -> int:
        """The seed of the run, which also splits data without a test set."""
        return self.config.seed if self.config else Config.seed

    @property
    def transposed(self) -> bool:
        """Whether the images of the run's data are stored transposed."""
        return self.config.transposed if self.config else Config.transposed

    def is_own(self, data: str) -> bool:
        """Whether ``data`` are the data of the run."""
        return self.config is not None and self.config.data in (data, absolute(data))

    def require_data(self) -> str:
        """The data set of the run; ArgumentError or DataError if there is none."""
        if self.config is None:
            raise ArgumentError(f"{self.path} does not name its data: give them with --data")
        require_data(self.config)
        return self.config.data

    def training_set(self, data: str | None) -> Dataset:
        """The training set of ``data``, or of the run's own; pictures are prepared as in its training."""
        source, is_own = self._source(data)
        train, _ = load(source, Pictures.of(self.network), self.seed, is_own and self.transposed)
        return named_as(train, self.class_names) if is_own else train

    def test_set(self, data: str | None) -> Dataset:
        """The test set of ``data``, or of the run's own.

        If ``data`` have no test set, it is all of their images; of the run's own, the part held out.
        """
        source, is_own = self._source(data)
        pictures, transposed = Pictures.of(self.network), is_own and self.transposed
        test = load_test(source, pictures, self.seed, transposed, whole=not is_own)
        return named_as(test, self.class_names) if is_own else test

    def _source(self, data: str | None) -> tuple[str, bool]:
        """The data set that is asked for, and whether it is the run's own."""
        source = data or self.require_data()
        return source, self.is_own(source)


def classify(network: Network, image: Any, tta: str | None, source: str | Path) -> Any:
    """The probabilities (classes,) for one host image (C, H, W).

    Raises CheckpointError, which names ``source``, if they are not finite.
    """
    (probabilities,) = network.predict(image[None], tta=tta)
    if not np.isfinite(probabilities).all():
        raise CheckpointError(f"{source}: its weights give NaN: train it with a lower learning rate")
    return probabilities


def load_trained(
    source: Path, backend: Backend, weights: str | None = None, winograd: bool | None = None
) -> Trained:
    """The network of a run's folder, or of a .safetensors file that ``net.save`` wrote, on ``backend``.

    ``weights`` are "last" or "best"; None is the best weights if the run has kept them, otherwise the last.
    ``winograd`` replaces the run's own setting. Raises CheckpointError if ``source`` is neither, or if it is
    damaged, ArgumentError if ``weights`` do not suit it.
    """
    name = str(source)
    if not is_run(name) and (is_code(name) or name.endswith(TOML) or name in MODELS):
        raise CheckpointError(
            f"{name} is a network without weights: train it with `cnn train --model {quoted(name)}`, and "
            "give the folder of the run"
        )
    if os.path.isfile(source) or source.suffix == ".safetensors":
        return _from_file(source, backend, weights, winograd)
    folder = RunFolder(source)
    if not os.path.exists(folder.config):
        raise CheckpointError(
            f"{source} is not the folder of a run, it has no config.json: give the folder that `cnn train` "
            "wrote, or a .safetensors file that describes its network"
        )
    network, config, class_names = folder.load(backend, weights, winograd)
    return Trained(network, class_names, config, source, folder.about(folder.require_weights(weights)))


def _from_file(file: Path, backend: Backend, weights: str | None, winograd: bool | None) -> Trained:
    if weights is not None:
        raise ArgumentError(
            f"--weights is {weights!r}, but {file} is a file with one set of weights: leave it out"
        )
    advice = "`cnn import` makes a run of weights from elsewhere"
    network = SavedNetwork.read(file).build(backend, winograd is not False, advice=advice)
    return Trained(network, names_of(network, file), None, file, {})


def names_of(network: Network, file: Path) -> tuple[str, ...]:
    """The class names of a network from ``file``; CheckpointError if its output is not a row of classes."""
    if len(network.output_shape) != 1:
        raise CheckpointError(
            f"{file}: the output of the network has the shape {network.output_shape}, expected a number for "
            "each class: use it in Python, with cnn.load(path)"
        )
    return network.class_names or numbered(network.output_shape[0])
