"""The accuracy of LeNet-5 and ResNet-20 in 16 bits compared with float32, emulated on a CPU.

python tests/endurance/compare_dtypes.py [--networks lenet5,resnet20] [--seeds 5] [--cifar10 FILE.npz]
    [--images 5000] [--json FILE] [--markdown FILE]

Trains each network in float32, bfloat16 and float16 from the same seeds, with the defaults of ``cnn.fit`` and
on one thread, and prints the accuracy on the test images as a Markdown table. Kernels compute in float32 and
round what they write, as on a GPU (tests/helpers/cpu_with_halves.py). The JSON file is written after each
run, and runs that it has already are not repeated. Exits 1 if the accuracy in 16 bits differs from that in
float32 by a paired t-test at 1 %.
"""

import argparse
import json
import statistics
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for helpers
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import scipy.stats
from helpers.cpu_with_halves import CpuWithHalves

import backends
import cnn
from backends.dtypes import HALVES

DTYPES = ("float32", *HALVES)
LEVEL = 0.01  # of the t-test
HEADINGS = (
    "network", "dtype", "accuracy", "spread", "difference from float32", "p", "overflows", "last scale"
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """A network and the data that it is trained on."""

    network: str
    data: str  # an argument of cnn.data.load
    images: int
    epochs: int
    batch_size: int = 64


TASKS = {
    "lenet5": Task("lenet5", "mnist", 60_000, 3),
    "resnet20": Task("resnet20", "cifar10", 5_000, 4),
}


class Scales(cnn.Callback):
    """The scales of the loss: [(number of a step, scale after it)] for each change."""

    def on_start(self, run):
        transforms = run.training.transforms
        self.scaling = next((each for each in transforms if isinstance(each, cnn.LossScaling)), None)
        self.changes = []
        self._steps = 0
        self._note()

    def on_step(self, run):
        self._steps += 1
        self._note()

    def _note(self):
        if self.scaling and self.scaling.scale not in [scale for _, scale in self.changes[-1:]]:
            self.changes.append((self._steps, self.scaling.scale))


def train(task, data, dtype, seed):
    """Results of one training run."""
    images, test = data
    network = cnn.models.make(task.network, classes=len(images.classes))
    network.build(images.shape, backend=CpuWithHalves(), seed=seed, dtype=dtype)
    scales = Scales()
    callbacks = [cnn.NaNGuard(), scales]
    options = {"epochs": task.epochs, "batch_size": task.batch_size, "seed": seed, "callbacks": callbacks}
    history = cnn.fit(network, images, **options)
    if not all(np.isfinite(array).all() for array in network.state_dict().values()):
        sys.exit(f"error: {task.network} in {dtype} with seed {seed} has weights that are not finite")
    return cnn.evaluate(network, test) | {
        "training_loss": [record["loss"] for record in history],
        "scales": scales.changes,
        "overflows": scales.scaling.overflows if scales.scaling else 0,
    }


def load(task, cifar10):
    """(the first images of the training set, the test set)."""
    train, test = cnn.data.load(cifar10 if task.data == "cifar10" else task.data)
    first = slice(task.images)
    return cnn.data.Dataset(train.images[first], train.labels[first], train.classes), test


def compare(runs):
    """A row for each network and dtype: its accuracy over the seeds, and its difference from float32."""
    found = {}
    for run in runs:
        found.setdefault((run["network"], run["dtype"]), []).append(run)
    rows = []
    for (network, dtype), those in found.items():
        accuracies = [run["accuracy"] for run in those]
        mean, spread = statistics.mean(accuracies), statistics.stdev(accuracies)
        row = {"network": network, "dtype": dtype, "accuracy": mean, "spread": spread}
        if dtype in HALVES:
            wide = [run["accuracy"] for run in found[network, "float32"]]
            differences = [half - full for half, full in zip(accuracies, wide, strict=True)]
            row["difference"] = statistics.mean(differences)
            row["standard_error"] = statistics.stdev(differences) / len(differences) ** 0.5
            row["p"] = float(scipy.stats.ttest_rel(accuracies, wide).pvalue) if any(differences) else 1.0
        if dtype == "float16":
            row["overflows"] = [run["overflows"] for run in those]
            row["last_scales"] = [run["scales"][-1][1] for run in those]
        rows.append(row)
    return rows


def table(rows):
    """The rows in Markdown."""
    lines = [f"| {' | '.join(HEADINGS)} |", "|---|---|" + "---:|" * (len(HEADINGS) - 2)]
    for row in rows:
        cells = [row["network"], row["dtype"], f"{row['accuracy']:.2%}", f"{100 * row['spread']:.2f}"]
        if "p" in row:
            difference = f"{100 * row['difference']:+.2f} ± {100 * row['standard_error']:.2f}"
            cells += [difference, f"{row['p']:.2f}"]
        if "overflows" in row:
            cells += [_between(row["overflows"]), _between(row["last_scales"])]
        cells += [""] * (len(HEADINGS) - len(cells))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _between(numbers):
    low, high = min(numbers), max(numbers)
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"


def main():
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", default=",".join(TASKS), help="some of them")
    parser.add_argument("--seeds", type=int, default=5, help="how many, at least 2")
    parser.add_argument("--cifar10", default="cifar10", help="what cnn.data.load takes")
    parser.add_argument(
        "--images", type=int, help="how many to train on; default: those of the table in docs"
    )
    parser.add_argument("--json", type=Path, help="where the runs are kept")
    parser.add_argument("--markdown", type=Path, help="where the table is written")
    options = parser.parse_args()
    backends.get("cpu", threads=1)
    kept = json.loads(options.json.read_text()) if options.json and options.json.exists() else []
    runs = []
    for name in options.networks.split(","):
        task = replace(TASKS[name], images=options.images or TASKS[name].images)
        data = load(task, options.cifar10)
        for seed in range(options.seeds):
            for dtype in DTYPES:
                asked = asdict(task) | {"dtype": dtype, "seed": seed}
                run = next((run for run in kept if asked.items() <= run.items()), None)
                if run is None:
                    run = asked | train(task, data, dtype, seed)
                    kept.append(run)
                    if options.json:
                        options.json.write_text(json.dumps(kept, indent=1))
                runs.append(run)
                told = f"{name}, seed {seed}, {dtype}: {run['accuracy']:.2%}, scales {run['scales']}"
                print(told, file=sys.stderr, flush=True)
    rows = compare(runs)
    print(table(rows))
    if options.markdown:
        options.markdown.write_text(table(rows) + "\n")
    sys.exit(any(row.get("p", 1) < LEVEL for row in rows))


if __name__ == "__main__":
    main()
