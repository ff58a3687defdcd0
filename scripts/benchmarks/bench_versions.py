"""Two versions of this library side by side: python scripts/benchmarks/bench_versions.py OLD NEW [--help].

OLD and NEW are the folders of two checkouts. Each runs in a process of its own with this interpreter. First
both train on the same data, and their weights are compared. Then they take turns in training, round by round;
the figure is the median of the rounds' ratios, NEW over OLD in images a second.
"""

import argparse
import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from statistics import median, quantiles
from typing import Any

WORKER = """
import hashlib, json, sys
import cnn

def train(model, batch_size, images):
    data = cnn.data.load("mnist")[0].only((0, 1) if model == "notebook" else None)
    data = data.split(1 - images / len(data), 0)[0]
    network = cnn.models.make(model, len(data.classes))
    network.build(data.shape, backend="cpu", seed=0)
    sgd = cnn.SGD(0.01, momentum=0.9)
    history = cnn.fit(network, data, epochs=2, batch_size=batch_size, optimizer=sgd, callbacks=[])
    weights = hashlib.sha256(b"".join(array.tobytes() for array in network.state_dict().values())).hexdigest()
    return {"images_per_second": history[-1]["images_per_second"], "weights": weights}

for line in sys.stdin:
    print(json.dumps(train(*json.loads(line))), flush=True)
"""

IMAGES = {"lenet5": 1500, "notebook": 1500, "mnist-pytorch": 300, "resnet20": 64}  # at least, in an epoch
BATCHES = 4  # at least


class Version:
    """A checkout with a process that trains with it."""

    def __init__(self, folder: Path, threads: int) -> None:
        variables = {"PYTHONPATH": str(folder.resolve()), "OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            env=os.environ | variables,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def train(self, setting: tuple[Any, ...]) -> dict[str, Any]:
        """Images a second in the second epoch, and a hash of the weights."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(setting) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            sys.exit("error: a version has ended, see above")
        return dict(json.loads(answer))


def main() -> None:
    """Let the versions take turns and print their ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path, help="the folder of the earlier checkout")
    parser.add_argument("new", type=Path, help="the folder of the later checkout")
    parser.add_argument("--rounds", type=int, default=11, help="how often the two take turns (11)")
    parser.add_argument(
        "--models", default="lenet5,notebook", help=f"some of {', '.join(IMAGES)} (lenet5,notebook)"
    )
    parser.add_argument("--batch-sizes", default="1,128", help="images per step (1,128)")
    parser.add_argument("--threads", type=int, default=2, help="threads of each (2)")
    arguments = parser.parse_args()

    versions = [Version(folder, arguments.threads) for folder in (arguments.old, arguments.new)]
    sizes = [int(size) for size in arguments.batch_sizes.split(",")]
    for model, size in product(arguments.models.split(","), sizes):
        setting = model, size, max(IMAGES[model], BATCHES * size)
        first = [version.train(setting) for version in versions]
        same = "the same weights" if first[0]["weights"] == first[1]["weights"] else "OTHER WEIGHTS"
        ratios = []
        for number in range(arguments.rounds):
            order = versions if number % 2 else versions[::-1]
            speed = {version: version.train(setting)["images_per_second"] for version in order}
            ratios.append(speed[versions[1]] / speed[versions[0]])
        low, _, high = quantiles(ratios, n=4, method="inclusive")
        print(
            f"{model:13} {size:5} {median(ratios):.3f} times as fast ({low:.3f} to {high:.3f}), {same}",
            flush=True,
        )


if __name__ == "__main__":
    main()
