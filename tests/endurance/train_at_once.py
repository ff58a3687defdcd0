"""Many trainings at the same moment all end well, with the weights of one that trained alone.

python tests/endurance/train_at_once.py [--processes 8] [--rounds 3]

Half of them compute in float32, half in float64. A round trains twice: with nothing compiled yet, so that all
compile the same kernels and keep them in the same place, and with what that left. Exits 1 where a training
fails, ends with other weights, or compiles again what was kept.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DTYPES = ("float32", "float64")
COMPILING = "compiling kernels"  # what the command says when it does


class Training:
    """``cnn train`` in a process of its own."""

    def __init__(self, dtype: str, images: int, out: Path, cache: Path) -> None:
        self.dtype = dtype
        self.weights = out / "model.safetensors"
        command = [sys.executable, ROOT / "scripts" / "train.py", "--per-class", images, "--epochs", 1]
        command += ["--device", "cpu", "--dtype", dtype, "--no-report", "--out", out]
        self._process = subprocess.Popen(
            list(map(str, command)),
            env=os.environ | {"NUMBA_CACHE_DIR": str(cache)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wrong(self, expected: bytes | None, compiles: bool) -> str | None:
        """What is wrong with it, once it has ended; None where nothing is."""
        _, said = self._process.communicate()
        if self._process.returncode:
            return f"exit code {self._process.returncode}: {said.strip()}"
        if expected is not None and self.weights.read_bytes() != expected:
            return "other weights than alone"
        if compiles is not (COMPILING in said):
            return "it compiled nothing" if compiles else "it compiled again"
        return None


def train_alone(folder: Path, images: int) -> dict[str, bytes]:
    """The weights for each dtype."""
    weights = {}
    for dtype in DTYPES:
        training = Training(dtype, images, folder / dtype, folder / f"cache-{dtype}")
        if wrong := training.wrong(None, compiles=True):
            sys.exit(f"error: {dtype}, alone: {wrong}")
        weights[dtype] = training.weights.read_bytes()
    return weights


def train_at_once(
    folder: Path, images: int, processes: int, cache: Path, alone: dict[str, bytes], compiles: bool
) -> int:
    """Say how many of so many trainings ended as one alone; -> how many did not."""
    trainings = [
        Training(DTYPES[number % len(DTYPES)], images, folder / str(number), cache)
        for number in range(processes)
    ]
    found = [(training.dtype, training.wrong(alone[training.dtype], compiles)) for training in trainings]
    wrong = [f"  {dtype}: {what}" for dtype, what in found if what]
    print(f"{processes - len(wrong)} of {processes} as alone", *wrong, sep="\n", flush=True)
    return len(wrong)


def main() -> None:
    """Trains alone, then all at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--per-class", type=int, default=100, help="training images of each class")
    arguments = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        alone = train_alone(Path(name), arguments.per_class)
        for number in range(1, arguments.rounds + 1):
            cache = Path(name) / f"cache-{number}"
            for compiles, state in ((True, "nothing compiled"), (False, "all compiled")):
                print(f"round {number}, {state}", end=": ", flush=True)
                folder = Path(name) / f"{number}, {state}"
                wrong += train_at_once(
                    folder, arguments.per_class, arguments.processes, cache, alone, compiles
                )
    if wrong:
        sys.exit(f"error: trainings that did not end as one alone: {wrong}")


if __name__ == "__main__":
    main()
