"""What ``cnn train`` reaches on a few hundred picture files: LeNet-5 compared with the defaults.

python scripts/benchmarks/bench_few_pictures.py [--seeds 3] [--only shapes]

There are 90 pictures of each of three classes. A fifth is held out as the test set, other pictures for each
seed. "Surfaces" are the stones, bricks and bark of tests/helpers/photographs.py. "Shapes" are a disc, a
triangle or a cross in any place, size and direction on uneven ground. The script prints the lowest and the
median accuracy on the test set.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))  # for helpers

from helpers import ROOT
from helpers.photographs import write_photographs

PER_CLASS, SIDE = 90, 64
CHOICES = {
    "LeNet-5, 3 epochs in batches of 128": ("--model", "lenet5", "--epochs", "3", "--batch-size", "128"),
    "LeNet-5": ("--model", "lenet5"),
    "the defaults": (),
}


def write_surfaces(folder: Path) -> None:
    """Pictures of three surfaces."""
    write_photographs(folder, PER_CLASS, seed=0)


def write_shapes(folder: Path) -> None:
    """Pictures of three shapes."""
    random = np.random.default_rng(0)
    for name in ("disc", "triangle", "cross"):
        (folder / name).mkdir(parents=True)
        for number in range(PER_CLASS):
            shape(name, random).save(folder / name / f"{number:02}.png")


def shape(name: str, random: np.random.Generator) -> Image.Image:
    """A shape on uneven ground, in colours of its own."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    radius, angle = random.uniform(0.12, 0.25), random.uniform(0, 2 * np.pi)
    across, down = x - random.uniform(radius, 1 - radius), y - random.uniform(radius, 1 - radius)
    u = (np.cos(angle) * across + np.sin(angle) * down) / radius
    v = (np.cos(angle) * down - np.sin(angle) * across) / radius
    inside = {
        "disc": np.hypot(u, v) < 1,
        "triangle": (v < 0.5) & (v > np.sqrt(3) * np.abs(u) - 1),
        "cross": (np.maximum(np.abs(u), np.abs(v)) < 1) & (np.minimum(np.abs(u), np.abs(v)) < 0.3),
    }[name]
    noise = Image.fromarray(random.uniform(-1, 1, (6, 6)).astype(np.float32))
    ground = np.asarray(noise.resize((SIDE, SIDE), Image.Resampling.BICUBIC))[..., None] * 25
    colour = random.uniform(60, 195, 3)
    contrast = random.choice([-1, 1]) * random.uniform(30, 60, 3)
    pixels = colour + ground + inside[..., None] * contrast + random.normal(0, 8, (SIDE, SIDE, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


DATA = {"surfaces": write_surfaces, "shapes": write_shapes}


def cell(data: Path, settings: tuple[str, ...], seeds: int) -> str:
    """As in "92.59% / 94.44%"."""
    found = [accuracy(data, settings, seed) for seed in range(seeds)]
    return f"{min(found):.2%} / {statistics.median(found):.2%}"


def accuracy(data: Path, settings: tuple[str, ...], seed: int) -> float:
    """The accuracy on the test set after a training run on one thread."""
    with tempfile.TemporaryDirectory() as temporary:
        command = [
            sys.executable, "-m", "cnn", "train", *settings, "--data", str(data), "--size", str(SIDE),
            "--seed", str(seed), "--device", "cpu", "--threads", "1", "--out", f"{temporary}/run",
            "--no-report", "--json",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if not done.stdout:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return float(found["accuracy"])


def main() -> None:
    """Prints a row of the table as soon as it is measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="data whose name has this in it")
    arguments = parser.parse_args()
    print("| data |", " | ".join(CHOICES), "|")
    print("|---|" + "---|" * len(CHOICES))
    with tempfile.TemporaryDirectory() as temporary:
        for name, write in DATA.items():
            if arguments.only in name:
                write(Path(temporary, name))
                cells = [cell(Path(temporary, name), each, arguments.seeds) for each in CHOICES.values()]
                print(f"| {name} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
