"""What is measured: the settings, the data, the code and the machine."""

import hashlib
import os
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

from shared.machine import describe_machine

import backends
from backends import Backend
from cnn import data
from cnn.data import Dataset
from cnn.data.published.fashion_mnist import FASHION_MNIST
from cnn.data.readers.cifar10 import CIFAR10
from cnn.runs import recipes
from cnn.runs.config import Config
from cnn.support.version import VERSION
from recipe_parts.command import ROOT

CODE = (".py", ".cu")
TRAINING_IMAGES = {"mnist": 60_000, "fashion-mnist": 60_000, "cifar10": 50_000}
"""The numbers of training images of the data sets that recipes are for."""
DOWNLOADED = {each.name: each.files for each in (FASHION_MNIST, CIFAR10)}
"""The published files, with their checksums."""
DIFFERENCES = {
    "settings": "other settings",
    "data": "other data",
    "version": "another version",
    "code": "another state of the code",
    "hardware": "another machine or another number of threads",
}
PARTS = ("title", "settings", "steps", "data", "version", "commit", "code", "hardware", "machine")
SAME = tuple(DIFFERENCES)  # what all runs of a measurement share
SAME_STEP = ("settings", "hardware")  # what they share with the comparison with PyTorch

Sets = tuple[Dataset, Dataset | None, Dataset]  # training, validation and test images


def describe(config: Config, steps: int, sets: Sets, published: str) -> dict[str, Any]:
    """All that is measured: a run of so many steps with these settings and data.

    ``published`` is the name of the data set that the recipe is for.
    """
    backend = find_backend(config)
    machine = describe_machine(backend)
    device = machine["device"]
    return {
        "title": recipes.title(config),
        "settings": settings(config),
        "steps": steps,
        "data": describe_data(config, sets, published),
        "version": VERSION,
        "commit": commit(),
        "code": code_hash(),
        "hardware": {
            "processor": device.get("processor") or device["gpu"],
            "threads": device.get("threads"),
            "vector_bits": vector_bits(backend),
        },
        "machine": machine,
    }


def find_backend(config: Config) -> Backend:
    """The device of a run with these settings."""
    return backends.get(config.device, config.kernels, config.threads, config.tf32)


def settings(config: Config) -> dict[str, Any]:
    """All settings but the seed; of a path only the name, since files may be elsewhere."""
    values = {name: value for name, value in asdict(config).items() if name != "seed"}
    return {name: without_folder(value) for name, value in values.items()}


def without_folder(value: Any) -> Any:
    """The name of a file or folder that is given with its whole path; other values as they are."""
    return Path(value).name if isinstance(value, str) and os.path.isabs(value) else value


def describe_data(config: Config, sets: Sets, published: str) -> dict[str, Any]:
    """The images, and a fingerprint of each set."""
    train, validation, test = sets
    held_out = 0 if validation is None else len(validation)
    return {
        "name": data_name(config.data, published, len(train) + held_out, len(test)),
        "training_images": len(train),
        "validation_images": held_out,
        "test_images": len(test),
        "fingerprints": {"training": fingerprint(train), "test": fingerprint(test)},
    }


def fingerprint(images: Dataset) -> str:
    """A hash of all images and labels."""
    digest = hashlib.sha256(images.labels.tobytes())
    digest.update(images.images.tobytes())
    return digest.hexdigest()


def data_name(source: str, published: str, training: int, test: int) -> str:
    """What the accuracy is measured on: a data set by its name, if the files show that, or their name."""
    if source in data.NAMES:
        return f"{source}, test set"
    if is_published(Path(source), published):
        return f"{published}, test set"
    if training + test == TRAINING_IMAGES.get(published):
        return f"{published}, {test:,} training images held out"
    return without_folder(source)


def is_published(path: Path, name: str) -> bool:
    """Whether the file, or the files in the folder, are the published ones of a data set."""
    files = DOWNLOADED.get(name, ())
    found = [path if path.is_file() else path / file.name for file in files]
    return bool(files) and all(
        own.is_file() and hashlib.sha256(own.read_bytes()).hexdigest() == file.sha256
        for own, file in zip(found, files, strict=True)
    )


def vector_bits(backend: Backend) -> int | None:
    """The width of the vectors that the compiled kernels compute with."""
    if backend.kernels.name != "compiled":
        return None
    from backends.cpu.compiled.vectors import VECTOR_BYTES  # needs Numba

    return 8 * VECTOR_BYTES


def commit() -> str | None:
    """The commit of the checkout; None if it is none, or without git."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() or None


def code_hash() -> str:
    """A hash of the two packages' code, which also changes before a commit."""
    digest = hashlib.sha256()
    files = (path for package in ("backends", "cnn") for path in (ROOT / package).rglob("*"))
    for path in sorted(path for path in files if path.suffix in CODE):
        digest.update(str(path.relative_to(ROOT)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
