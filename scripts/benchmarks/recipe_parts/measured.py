"""What is measured: the settings, the data, the code and the machine."""

import hashlib
import os
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from shared.machine import describe_machine

import backends
from backends import Backend
from cnn import data
from cnn.data import Dataset
from cnn.runs import recipes
from cnn.runs.config import Config
from cnn.support.version import VERSION
from recipe_parts.command import ROOT

CODE = (".py", ".cu")
PUBLISHED = {"mnist": (60_000, 10_000), "fashion-mnist": (60_000, 10_000), "cifar10": (50_000, 10_000)}
"""Training and test images of the data sets that recipes are for."""
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


def describe(plan: Mapping[str, Any], published: str) -> dict[str, Any]:
    """All that is measured, from what ``cnn train --dry-run --json`` says.

    ``published`` is the name of the data set that the recipe is for.
    """
    config = Config(**plan["config"])
    backend = find_backend(config)
    machine = describe_machine(backend)
    device = machine["device"]
    return {
        "title": recipes.title(config),
        "settings": settings(config),
        "steps": plan["steps"],
        "data": describe_data(config, published),
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
    """All settings but the seed; of a path only the name, since files may lie elsewhere."""
    values = {name: value for name, value in asdict(config).items() if name != "seed"}
    return {name: without_folder(value) for name, value in values.items()}


def without_folder(value: Any) -> Any:
    """The name of a file or folder that is given with its whole path; other values as they are."""
    return Path(value).name if isinstance(value, str) and os.path.isabs(value) else value


def describe_data(config: Config, published: str) -> dict[str, Any]:
    """The images, and a fingerprint of each set."""
    train, validation, test = config.load_data()
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
    """What the accuracy is measured on, judged by the numbers of images."""
    counts = PUBLISHED.get(published)
    if source in data.NAMES or (training, test) == counts:
        return f"{published}, test set"
    if counts and training + test == counts[0]:
        return f"{published}, {test:,} training images held out"
    return without_folder(source)


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
