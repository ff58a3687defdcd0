"""A training of a second or so, and what has to be true of its folder whatever has happened to it."""

from pathlib import Path

import numpy as np

import cnn
from cnn.runs.folder import RunFolder
from cnn.runs.report.record import RunRecord
from cnn.support.errors import CheckpointError
from cnn.support.files import UNFINISHED
from cnn.training.checkpoints import SavedTraining

BATCH = 16
RUN = "run"  # the name of its folder, in a folder where there is nothing else


class Training:
    """``cnn train`` with ``epochs`` of ``steps`` steps (a multiple of 3) on data made in ``folder``."""

    def __init__(self, folder: Path, epochs: int, steps: int) -> None:
        self.data, self.epochs = folder / "halves.npz", epochs
        random = np.random.default_rng(0)
        arrays = {}
        for part, count in (("train", BATCH * steps * 4 // 3), ("test", 24)):
            labels = random.integers(0, 2, count)
            images = random.integers(0, 120, (count, 12, 12), dtype=np.uint8)
            images[labels == 1, :6] += 100
            arrays |= {f"x_{part}": images, f"y_{part}": labels}
        np.savez(self.data, **arrays)

    def arguments(self, run: Path, *more: str) -> list[str]:
        """Of the command: to go on with ``run`` where that is, else to begin it."""
        if run.exists():
            return ["train", "--resume", run.name, *more]
        chosen = {
            "model": "notebook", "data": self.data, "batch-size": BATCH, "epochs": self.epochs,
            "kernels": "portable", "device": "cpu", "validation": 0.25, "out": run.name,
        }  # fmt: skip
        return [
            "train",
            *(text for name, value in chosen.items() for text in (f"--{name}", str(value))),
            *more,
        ]


def weights(run: Path) -> bytes:
    """The file of a finished run's weights."""
    return RunFolder(run).weights.read_bytes()


def leftovers(parent: Path) -> set[Path]:
    """What killed writers have left in the folder of a run's folder; one within another counts once."""
    found = set(parent.rglob(f".*{UNFINISHED}"))
    return {path for path in found if not found & set(path.parents)}


def faults(run: Path) -> list[str]:
    """What is wrong with a run's folder at any time: a sentence for each file that is not whole."""
    if not run.exists():
        return []
    folder = RunFolder(run)
    found = []
    try:
        RunRecord.read(folder)  # config, environment, metrics, tested weights, evaluation: all that is there
        for path in (folder.weights, folder.best):
            if path.exists():
                cnn.load(path, device="cpu")
        if folder.checkpoint.exists():
            SavedTraining.read(folder.checkpoint)
    except CheckpointError as error:
        found.append(str(error))
    return found
