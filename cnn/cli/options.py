"""The options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from backends.kernels import SETS
from cnn.data import NAMES
from cnn.models import MODELS
from cnn.network import DTYPES
from cnn.runs.config import Config
from cnn.runs.folder import WEIGHTS

DEFAULT = Config()

# the titles that --help shows the options below
ON_WHAT, TRAINING, DEVICE, RUN = "Model and data", "Training", "Device", "Run"

MODEL_NAMES = list(MODELS)
DEVICES, KERNEL_SETS = ["auto", "cpu", "cuda"], ["auto", *SETS]

Device = Annotated[
    str,
    typer.Option(
        help="auto, cpu, cuda or cuda:N; CNN_DEVICE sets what auto means.",
        autocompletion=lambda: DEVICES,
        rich_help_panel=DEVICE,
    ),
]
Kernels = Annotated[
    str,
    typer.Option(
        help="auto, compiled, portable or signal.",
        autocompletion=lambda: KERNEL_SETS,
        rich_help_panel=DEVICE,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        help="Threads of the kernels and of the linear algebra library.",
        show_default="all cores, or what a CPU quota or OMP_NUM_THREADS allows",
        rich_help_panel=DEVICE,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Model = Annotated[
    str,
    typer.Option(help=f"{' or '.join(MODELS)}.", autocompletion=lambda: MODEL_NAMES, rich_help_panel=ON_WHAT),
]
Dtype = Annotated[
    str,
    typer.Option(help="float32 or float64.", autocompletion=lambda: list(DTYPES), rich_help_panel=DEVICE),
]
# Paths are readable=False, unchecked: some file systems show permissions wrongly, and opening a file tells.
Run = Annotated[
    Path, typer.Argument(readable=False, help="A run's folder, as `cnn train` wrote it.", show_default=False)
]
Weights = Annotated[
    str | None,
    typer.Option(
        help="last (of the end of the run) or best (of the epoch that was best on the validation images).",
        show_default="best after --validation, else last",
        autocompletion=lambda: list(WEIGHTS),
    ),
]
Data = Annotated[
    str,
    typer.Option(
        help="mnist, fashion-mnist or cifar10 (the last two are downloaded once, into the folder CNN_DATA); "
        "or the path of a folder of four IDX files, of an .npz with x_train, y_train, x_test, y_test, or of "
        "cifar-10-binary.tar.gz.",
        rich_help_panel=ON_WHAT,
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(help="Some of the classes, as in 0,1.", show_default="all", rich_help_panel=ON_WHAT),
]
Out = Annotated[
    Path | None,
    typer.Option(
        readable=False,
        help="The run's folder, a new one.",
        show_default="runs/MODEL-TIME",
        rich_help_panel=RUN,
    ),
]


def cut(text: str | None) -> list[str] | None:
    """Cut "0, 1" into ["0", "1"]."""
    return None if text is None else [part.strip() for part in text.split(",")]


def absolute(data: str) -> str:
    """The data set's place in full, so that a run's folder finds it from anywhere."""
    return str(Path(data).resolve()) if data not in NAMES and Path(data).exists() else data
