"""``cnn export``."""

from pathlib import Path
from typing import Annotated

import typer

import backends
from cnn.cli.app import app, examples
from cnn.cli.options import AsJson, Run, Weights
from cnn.cli.output import print_json, say, say_weights
from cnn.runs.trained import load_trained
from cnn.saving import onnx
from cnn.support.outputs import ONNX, require_output
from cnn.support.terminal import write_line


@app.command(
    epilog=examples(
        "cnn export runs/lenet5-20261124-025825 lenet5.onnx",
        "cnn export --json runs/lenet5-20261124-025825 lenet5.onnx",
    )
)
def export(
    run: Run,
    file: Annotated[
        Path,
        typer.Argument(
            readable=False, help="The ONNX file; an ONNX file that exists is overwritten.", show_default=False
        ),
    ],
    weights: Weights = None,
    as_json: AsJson = False,
) -> None:
    """Write a trained network as an ONNX file, which other programs can run.

    Its input "images" is float32 (N, C, H, W), already scaled, its output "probabilities" (N, classes).
    """
    written, existed = require_output(file, ONNX), file.exists()
    trained = load_trained(run, backends.get("cpu"), weights)
    network = trained.network
    say_weights(trained, weights)
    onnx.export(network, file, trained.class_names)
    if existed:
        say(written)
    images, probabilities = ("N", *network.input_shape), ("N", *network.output_shape)
    if as_json:
        print_json(
            {
                "file": str(file),
                "opset": onnx.OPSET,
                "input": {"name": onnx.INPUT, "dtype": "float32", "shape": images, "scaling": onnx.SCALING},
                "output": {"name": onnx.OUTPUT, "dtype": "float32", "shape": probabilities},
                "classes": trained.class_names,
            }
        )
    else:
        write_line(
            f"{file}: opset {onnx.OPSET}, input {onnx.INPUT} float32 {_in_words(images)}, {onnx.SCALING}; "
            f"output {onnx.OUTPUT} {_in_words(probabilities)}"
        )


def _in_words(shape: tuple[object, ...]) -> str:
    return f"({', '.join(map(str, shape))})"
