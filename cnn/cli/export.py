"""``cnn export``."""

from pathlib import Path
from typing import Annotated, Any

import typer

import backends
from cnn.cli.app import app, examples
from cnn.cli.options import AsJson, Run, Weights
from cnn.cli.output import print_json, say, say_notes, say_weights
from cnn.runs.trained import Trained, load_trained
from cnn.saving import c_code, onnx
from cnn.support.errors import ArgumentError
from cnn.support.outputs import C_CODE, ONNX, require_output
from cnn.support.terminal import write_line


@app.command(
    epilog=examples(
        "cnn export runs/lenet5-20261124-025825 lenet5.onnx",
        "cnn export --json runs/lenet5-20261124-025825 lenet5.onnx",
        "cnn export runs/lenet5-20261124-025825 lenet5.c --int8",
    )
)
def export(
    run: Run,
    file: Annotated[
        Path,
        typer.Argument(
            readable=False,
            help="The file: C code if its name ends in .c, with a header (.h) next to it, otherwise ONNX. "
            "A file of the same kind that exists is overwritten.",
            show_default=False,
        ),
    ],
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="Write C code that computes in 8-bit integers and needs a quarter of the memory."
        ),
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(
            help="Data set on whose training images --int8 measures the ranges of activations.",
            show_default="the run's own",
        ),
    ] = None,
    weights: Weights = None,
    as_json: AsJson = False,
) -> None:
    """Write a trained network as an ONNX file or as C code, which other programs can run.

    An ONNX file has the input "images", float32 (N, C, H, W), already scaled, and the output "probabilities"
    (N, classes). C code is a C99 file and its header. It does not call malloc and needs only the C library.
    Comments in it explain the call and give the memory and the number of multiplications.
    """
    if file.suffix == ".h":
        raise ArgumentError(
            f"{str(file)!r} would be a C header: name {file.stem}.c, and the header is written next to it"
        )
    is_c = file.suffix == c_code.SUFFIX
    if int8 and not is_c:
        raise ArgumentError(f"--int8 is for C code, and {str(file)!r} would be an ONNX file: name a file.c")
    if data is not None and not int8:
        raise ArgumentError(f"--data is {data!r}, but only --int8 needs data: leave it out")
    files = [file, c_code.header_of(file)] if is_c else [file]
    kind = C_CODE if is_c else ONNX
    written = [(require_output(each, kind), each.exists()) for each in files]
    trained = load_trained(run, backends.get("cpu"), weights)
    say_weights(trained, weights)
    facts, line = _write_c(trained, file, int8, data) if is_c else _write_onnx(trained, file)
    for message, existed in written:
        if existed:
            say(message)
    if as_json:
        print_json(facts)
    else:
        write_line(line)


def _write_onnx(trained: Trained, file: Path) -> tuple[dict[str, Any], str]:
    """Write the ONNX file; -> what it is, as data and as a line."""
    network = trained.network
    onnx.export(network, file, trained.class_names)
    images, probabilities = ("N", *network.input_shape), ("N", *network.output_shape)
    facts = {
        "file": str(file),
        "opset": onnx.OPSET,
        "input": {"name": onnx.INPUT, "dtype": "float32", "shape": images, "scaling": onnx.SCALING},
        "output": {"name": onnx.OUTPUT, "dtype": "float32", "shape": probabilities},
        "classes": trained.class_names,
    }
    line = (
        f"{file}: opset {onnx.OPSET}, input {onnx.INPUT} float32 {_in_words(images)}, {onnx.SCALING}; "
        f"output {onnx.OUTPUT} {_in_words(probabilities)}"
    )
    return facts, line


def _write_c(trained: Trained, file: Path, int8: bool, data: str | None) -> tuple[dict[str, Any], str]:
    """Write the C file and its header; -> what they are, as data and as a line."""
    network, calibration = trained.network, None
    if int8:
        train = trained.training_set(data)
        say_notes(train.notes)
        calibration = c_code.calibration_images(train, trained.class_names, trained.seed)
    exported = c_code.export(network, file, trained.class_names, calibration)
    facts = {
        "file": str(file),
        "header": str(exported.header),
        "function": exported.function,
        "arithmetic": exported.arithmetic,
        "input": {"name": "image", "dtype": "float32", "shape": network.input_shape, "scaling": onnx.SCALING},
        "output": {"name": "probabilities", "dtype": "float32", "shape": network.output_shape},
        "classes": trained.class_names,
        "constant_bytes": exported.constant_bytes,
        "work_bytes": exported.work_bytes,
        "multiply_adds": exported.multiply_adds,
    }
    line = (
        f"{file}: {exported.arithmetic}, {exported.constant_bytes:,} bytes of constants, "
        f"{exported.work_bytes:,} bytes of work buffer, {exported.multiply_adds:,} multiply-adds; "
        f"{exported.function} is declared in {exported.header}"
    )
    return facts, line


def _in_words(shape: tuple[object, ...]) -> str:
    return f"({', '.join(map(str, shape))})"
