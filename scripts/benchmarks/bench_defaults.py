"""Whether training works with the defaults, on small and large data, networks and batches.

python scripts/benchmarks/bench_defaults.py [--seeds 5] [--only "30 a class"]
    [--cifar10 FILE.npz] [--fashion FILE.npz]

Each row is a combination of data, network, batch size and epochs, each column a choice of optimizer and
schedule. The script prints the lowest and the median accuracy on the test images, and how many of the runs
failed: they are no better than always answering the most frequent class, or their loss ends above that of the
first epoch.
"""

import argparse
import statistics
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import backends
import cnn
from cnn import models
from cnn.data import Dataset

Pair = tuple[Dataset, Dataset]
NO_BETTER = 0.01  # above the share of the most frequent class

CHOICES: dict[str, Callable[[], dict[str, Any]]] = {
    "default": dict,
    "0.1 `cnn train`": lambda: {
        "optimizer": cnn.SGD(0.1, momentum=0.9),
        "schedule": cnn.schedules.Linear(warmup=0.2),
    },
    "0.1 `cnn.fit`": lambda: {"optimizer": cnn.SGD(0.05, momentum=0.9)},
}


@dataclass(frozen=True)
class Row:
    """A combination."""

    name: str
    source: str  # mnist, cifar10 or fashion
    make: Callable[[Pair], Pair]
    batch_size: int
    epochs: int
    model: str = "lenet5"


def some(per_class: int | None = None, classes: tuple[int, ...] | None = None) -> Callable[[Pair], Pair]:
    """The first images of some classes."""
    return lambda pair: (pair[0].only(classes, per_class), pair[1].only(classes))


def photographs(per_class: int = 45, grey: bool = False, scale: int = 1) -> Callable[[Pair], Pair]:
    """Photographs of frogs, ships and cats, larger or without colours."""

    def changed(data: Dataset) -> Dataset:
        images = data.images.mean(axis=1, keepdims=True).astype(np.uint8) if grey else data.images
        return Dataset(images.repeat(scale, axis=2).repeat(scale, axis=3), data.labels, data.classes)

    def made(pair: Pair) -> Pair:
        train, test = some(per_class, (6, 8, 3))(pair)
        return changed(train), changed(test)

    return made


def floats(pair: Pair) -> Pair:
    """Floats up to 255, which nobody has scaled."""
    train, test = (Dataset(data.images.astype(np.float32), data.labels, data.classes) for data in pair)
    return some(100)((train, test))


def uneven(pair: Pair) -> Pair:
    """Nine times as many images of one class as of the other."""
    train, test = some(None, (0, 1))(pair)
    keep = np.concatenate(
        [np.flatnonzero(train.labels == label)[:count] for label, count in ((0, 900), (1, 100))]
    )
    return Dataset(train.images[keep], train.labels[keep], train.classes), test


ROWS = [
    Row("MNIST, 30 a class", "mnist", some(30), 16, 30),
    Row("MNIST, 100 a class", "mnist", some(100), 32, 10),
    Row("MNIST, 100 a class", "mnist", some(100), 8, 10),
    Row("MNIST, 30 a class", "mnist", some(30), 1, 3),
    Row("MNIST, 0 and 1, 900 and 100", "mnist", uneven, 16, 5),
    Row("MNIST, 100 a class, floats up to 255", "mnist", floats, 32, 10),
    Row("MNIST, 0 and 1, 1,000 each", "mnist", some(1000, (0, 1)), 1, 1, "notebook"),
    Row("135 photographs, 3 classes", "cifar10", photographs(), 16, 30),
    Row("135 photographs, grey", "cifar10", photographs(grey=True), 16, 30),
    Row("135 photographs, 64 x 64", "cifar10", photographs(scale=2), 16, 30),
    Row("135 photographs", "cifar10", photographs(), 128, 30),
    Row("135 photographs", "cifar10", photographs(), 1, 5),
    Row("135 photographs", "cifar10", photographs(), 16, 30, "deep"),
    Row("1,200 photographs", "cifar10", photographs(400), 128, 10),
    Row("MNIST, 0 and 1, 5,000 each", "mnist", some(5000, (0, 1)), 64, 3),
    Row("MNIST, 0 and 1, 5,000 each", "mnist", some(5000, (0, 1)), 128, 1),
    Row("CIFAR-10, 200 a class", "cifar10", some(200), 32, 10),
    Row("Fashion-MNIST, 1,000 a class", "fashion", some(1000), 64, 5),
    Row("MNIST", "mnist", some(), 128, 3),
    Row("MNIST", "mnist", some(), 512, 3),
    Row("MNIST", "mnist", some(), 32, 3),
]


def deep(classes: int) -> cnn.Sequential:
    """Six convolutions and three full connections."""
    layers: list[cnn.Layer] = []
    for channels in (8, 16, 32):
        for _ in range(2):
            layers += [cnn.Conv2D(channels, 3, padding=1), cnn.ReLU()]
        layers.append(cnn.MaxPool2D(2))
    layers += [cnn.Flatten(), cnn.Dense(128), cnn.ReLU(), cnn.Dense(64), cnn.ReLU(), cnn.Dense(classes)]
    return cnn.Sequential(*layers)


def main() -> None:
    """Prints a row of the table as soon as it is measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    parser.add_argument("--cifar10", default="cifar10", help="what cnn.data.load takes")
    parser.add_argument("--fashion", default="fashion-mnist", help="what cnn.data.load takes")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    device = backends.get("cpu", threads=arguments.threads)
    print("| data | network | batch | epochs |", " | ".join(CHOICES), "|")
    print("|---|---|---:|---:|" + "---|" * len(CHOICES))
    for row in ROWS:
        if arguments.only in row.name:
            data = row.make(cnn.data.load(getattr(arguments, row.source, row.source)))
            cells = [cell(row, data, device, choose, arguments.seeds) for choose in CHOICES.values()]
            figures = f"{row.name} | {row.model} | {row.batch_size} | {row.epochs}"
            print(f"| {figures} |", " | ".join(cells), "|", flush=True)


def cell(
    row: Row, data: Pair, device: backends.Backend, choose: Callable[[], dict[str, Any]], seeds: int
) -> str:
    """As in "98.91 / 99.02 %, 1 of 5 failed"."""
    found = [trained(row, data, device, choose(), seed) for seed in range(seeds)]
    accuracies = [accuracy for accuracy, _ in found]
    failed = sum(has_failed for _, has_failed in found)
    text = f"{min(accuracies):.2%} / {statistics.median(accuracies):.2%}"
    return f"{text}, **{failed} of {seeds} failed**" if failed else text


def trained(
    row: Row, data: Pair, device: backends.Backend, choice: dict[str, Any], seed: int
) -> tuple[float, bool]:
    """(accuracy on the test images, whether the training failed)."""
    train, test = data
    make = deep if row.model == "deep" else models.MODELS[row.model]
    network = make(len(train.classes))
    network.build(train.shape, backend=device, seed=seed)
    try:
        with np.errstate(all="ignore"):
            history = cnn.fit(
                network, train, epochs=row.epochs, batch_size=row.batch_size, seed=seed,
                callbacks=[cnn.NaNGuard()], **choice,
            )  # fmt: skip
    except cnn.TrainingError:
        return 0.0, True
    accuracy = cnn.evaluate(network, test)["accuracy"]
    guess = np.bincount(test.labels).max() / len(test)
    return accuracy, bool(accuracy <= guess + NO_BETTER or history[-1]["loss"] > history[0]["loss"])


if __name__ == "__main__":
    main()
