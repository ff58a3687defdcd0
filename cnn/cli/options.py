"""The options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from backends.kernels import SETS
from cnn.models import MODELS
from cnn.runs import Config

DEFAULT = Config()


MODEL_NAMES, DTYPES = list(MODELS), ["float32", "float64"]
DEVICES, KERNEL_SETS = ["auto", "cpu", "cuda"], ["auto", *SETS]

Device = Annotated[
    str,
    typer.Option(
        help="auto, cpu, cuda or cuda:N; CNN_DEVICE sets what auto means.",
        autocompletion=lambda: DEVICES,
    ),
]
Kernels = Annotated[str, typer.Option(help="auto, portable or signal.", autocompletion=lambda: KERNEL_SETS)]
Threads = Annotated[
    int | None, typer.Option(help="Threads of the linear algebra library.", show_default="all cores")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Model = Annotated[str, typer.Option(help=f"{' or '.join(MODELS)}.", autocompletion=lambda: MODEL_NAMES)]
Dtype = Annotated[str, typer.Option(help="float32 or float64.", autocompletion=lambda: DTYPES)]
Run = Annotated[Path, typer.Argument(help="The folder that `cnn train` wrote.", show_default=False)]
