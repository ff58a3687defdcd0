"""Checkpoints contain the state and the position of a training run, so that it resumes bit for bit.

A checkpoint is a file of weights (:mod:`cnn.saving.weights`) that also contains the optimizer's state and the
sums of the epoch so far; its description has the position, the history, the settings and a checksum.
Random choices need no state, because they follow from the seed, the epoch and the position
(:mod:`cnn.support.random`).
"""

import hashlib
import json
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

from cnn.data import Dataset
from cnn.network import FILE_VERSION, Network
from cnn.saving import weights
from cnn.support.dtypes import master_of
from cnn.support.errors import CheckpointError
from cnn.support.files import to_json, write_whole
from cnn.support.tensors import METADATA, require_shapes, serialized
from cnn.training.run import Run

CHECKSUM = "sha256"


def save(run: Run, path: str | Path) -> None:
    """Write a checkpoint of ``run`` to ``path``, atomically; OSError if that fails.

    If a value is NaN or infinite, the existing checkpoint is kept.
    """
    network, training = run.network, run.training
    arrays = {name: network.backend.to_host(array) for name, array in training.arrays.items()}
    if not weights.are_finite(arrays):
        return
    description = network.description | {
        "settings": run.settings,
        "optimizer": training.optimizer.present_settings,  # callbacks may have changed them
        "frozen": network.frozen_names,  # these too
        "epoch": run.epoch,
        "step": run.step,
        "seconds": run.seconds,
        "history": run.history,
        "first_loss": run.first_loss,
        "failure": run.failure,
    }
    description = _plain(description)
    description[CHECKSUM] = checksum(arrays, description)
    write_whole(path, serialized(arrays, description))


@dataclass(frozen=True)
class SavedTraining:
    """A checkpoint that was read and whose checksum was verified."""

    path: str | Path
    arrays: dict[str, Any]
    settings: dict[str, Any]
    metadata: dict[str, str]  # of the file
    steps: int  # in an epoch
    epoch: int
    step: int  # steps done in this epoch
    seconds: float
    history: list[dict[str, Any]]
    optimizer: dict[str, Any]  # its settings; callbacks may have changed them
    frozen: list[str] | None  # names of what was frozen; None in the checkpoints of version 0.1
    first_loss: float | None  # None in the checkpoints of version 0.1
    failure: str | None  # why the network was useless; None in the checkpoints of version 0.1

    @classmethod
    def read(cls, path: str | Path) -> "SavedTraining":
        """Read the checkpoint in ``path``; CheckpointError if it is missing, damaged or not a checkpoint."""
        arrays, metadata = weights.read_all(path)
        try:
            description = _verified(arrays, metadata)
            weights.require_finite(arrays, master_of(description["dtype"]))
            epoch, step, seconds = (
                int(description["epoch"]),
                int(description["step"]),
                float(description["seconds"]),
            )
            settings = dict(description["settings"])
            steps = int(settings["steps"])
            optimizer = dict(description["optimizer"])
            frozen = description.get("frozen")
            frozen = None if frozen is None else [str(name) for name in frozen]
            history = [
                {name: nan if value is None else value for name, value in record.items()}
                for record in description["history"]
            ]
            first_loss = description.get("first_loss")
            first_loss = None if first_loss is None else float(first_loss)
            failure = description.get("failure")
            failure = None if failure is None else str(failure)
            if not 0 <= step <= steps or not 0 <= epoch - len(history) <= 1:
                raise ValueError(
                    f"step {step} of {steps} in epoch {epoch} after {len(history)} whole ones is impossible"
                )
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
        except (ValueError, TypeError, LookupError, OverflowError, AttributeError) as error:
            raise CheckpointError(
                f"{path}: the description of the checkpoint cannot be used ({error})"
            ) from error
        return cls(
            path,
            arrays,
            settings,
            metadata,
            steps,
            epoch,
            step,
            seconds,
            history,
            optimizer,
            frozen,
            first_loss,
            failure,
        )

    @property
    def position(self) -> str:
        """The position of the training run, such as "epoch 2, step 117 of 469"."""
        if self.epoch == len(self.history):
            return f"the end of epoch {self.epoch}"
        return f"epoch {self.epoch}, step {self.step} of {self.steps}"

    @property
    def network(self) -> weights.SavedNetwork:
        """What a file of weights would have."""
        return weights.SavedNetwork(self.path, weights.weights_in(self.arrays), self.metadata)

    def take_description(self, network: Network) -> None:
        """Give ``network`` the preprocessing and the class names that the training run began with."""
        weights.take_description(network, self.metadata)

    def require_epochs(self, epochs: int) -> None:
        """Raise CheckpointError if the run is already beyond so many epochs."""
        if self.epoch > epochs:
            raise CheckpointError(
                f"the training run is at {self.position}, but epochs is {epochs}: expected more"
            )

    def require_data(self, train: Dataset) -> None:
        """Raise CheckpointError if the training run began with other images or labels than these."""
        if self.settings.get("data") != train.fingerprint:
            raise CheckpointError(
                f"{self.path}: the training run began with {self.settings.get('images')} images that are not "
                f"those of {train!r}: give the data that it began with"
            )

    def restore(self, run: Run) -> None:
        """Resume ``run``, on any device, from here; CheckpointError if it is a different training run."""
        places = run.training.arrays
        try:
            _compare(self.settings, run.settings)
            self.require_epochs(run.epochs)
            run.network.require_state(weights.weights_in(self.arrays))
            require_shapes("the checkpoint", _training(self.arrays), _training(places))
        except CheckpointError as error:
            raise CheckpointError(f"{self.path}: {error}") from error
        for name, place in places.items():
            if name in self.arrays:  # all but a count of batches, which may be missing
                run.network.backend.asarray(self.arrays[name], out=place)
        run.training.optimizer.load_settings(self.optimizer)
        if self.frozen is not None:
            run.network.unfreeze("*")
            run.network.freeze(*self.frozen)
        run.epoch, run.step, run.seconds_before = self.epoch, self.step, self.seconds
        run.history = list(self.history)
        run.first_loss = self.first_loss


def _training(arrays: dict[str, Any]) -> dict[str, Any]:
    """The arrays that do not belong to the network."""
    return {name: array for name, array in arrays.items() if name.startswith(weights.TRAINING)}


def _verified(arrays: dict[str, Any], metadata: dict[str, str]) -> dict[str, Any]:
    """The description of a checkpoint, after verifying its checksum."""
    try:
        description = json.loads(metadata[METADATA])
        stored = description.pop(CHECKSUM)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise CheckpointError("this is not a checkpoint: expected a file that cnn.Checkpoint wrote") from None
    if stored != checksum(arrays, description):
        raise CheckpointError(
            "the checkpoint is damaged, its checksum does not match its contents: delete it to start over"
        )
    if description["version"] != FILE_VERSION:
        raise CheckpointError(f"version {description['version']}, expected {FILE_VERSION}")
    return description


def _plain(value: Any) -> Any:
    """Convert a value to plain JSON types, including NumPy's numbers and arrays."""
    plain = json.dumps(value, default=lambda part: part.tolist() if hasattr(part, "tolist") else repr(part))
    return json.loads(to_json(json.loads(plain)))


def checksum(arrays: dict[str, Any], description: dict[str, Any]) -> str:
    """The checksum of the arrays and the description."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _compare(saved: dict[str, Any], asked: dict[str, Any]) -> None:
    """Raise CheckpointError if the settings differ from those with which the run began.

    A setting that the version of that time did not have was off: None, or False for a flag.
    """
    for name, value in _plain(asked).items():
        if saved.get(name, False if value is False else None) != value:
            raise CheckpointError(
                f"the training run began with {name} {saved.get(name)}, now it is {value}: "
                "give the same, or start over without the checkpoint"
            )
