"""``cnn gradcheck``."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

import backends
from cnn import models
from cnn.cli.app import app, examples
from cnn.cli.options import DEFAULT, AsJson, Device, Kernels, Model
from cnn.cli.output import print_json
from cnn.inspection.gradient_check import check_gradients
from cnn.inspection.layer_checks import LayerCheck, check_layer
from cnn.layers import Layer
from cnn.support.arguments import instance
from cnn.support.errors import ArgumentError
from cnn.support.own_code import evaluated, failed
from cnn.training import defaults


@app.command(
    epilog=examples(
        "cnn gradcheck",
        "cnn gradcheck --model notebook --kernels signal",
        'cnn gradcheck --layer "my_layers.py:Scale(2)" --input-shape 3,8,8',
    )
)
def gradcheck(
    model: Model = defaults.MODEL,
    layer: Annotated[
        str | None,
        typer.Option(
            help="Check a layer of your own instead: a Python file, a colon and how the layer is made.",
            show_default=False,
        ),
    ] = None,
    input_shape: Annotated[
        str | None,
        typer.Option(help="The shape of one sample for --layer, as in 3,8,8.", show_default=False),
    ] = None,
    device: Device = DEFAULT.device,
    kernels: Kernels = DEFAULT.kernels,
    seed: Annotated[
        int, typer.Option(help="Seed of the weights, the images and the choice of entries.")
    ] = DEFAULT.seed,
    entries: Annotated[int, typer.Option(help="Numbers tried in each array.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Compare a model's gradients with finite differences, in float64; exit code 1 if one is wrong.

    With --layer, a layer of your own goes through all checks that the library's layers go through.
    """
    if (layer is None) != (input_shape is None):
        raise ArgumentError("--layer and --input-shape belong together: give both, or neither")
    backend = backends.get(device, kernels)
    if layer is not None:
        _show_checks(check_layer(_made(layer), _shape(input_shape or ""), backend), as_json)
        return
    source = models.find(model)
    shape = source.input_shape or models.INPUT_SHAPE
    network = source.make(models.CLASSES, shape)
    network.build(shape, backend=backend, seed=seed, dtype="float64")
    results = check_gradients(network, entries=entries, seed=seed)
    if as_json:
        print_json([asdict(result) | {"passed": result.passed} for result in results])
    else:
        for result in results:
            verdict = "right" if result.passed else "WRONG"
            print(f"{result.name:<10} {result.checked:>4} tried   error {result.error:.1e}   {verdict}")
    if not all(result.passed for result in results):
        raise typer.Exit(1)


def _made(text: str) -> Layer:
    """The layer that "FILE.py:EXPRESSION" makes; ArgumentError if it does not."""
    example = "my_layers.py:Scale(2)"
    made = evaluated(text, "--layer", example)
    if isinstance(made, type):
        try:
            made = made()
        except Exception as error:
            raise failed(error, text, "--layer") from error
    return instance("--layer", made, Layer, example)


def _shape(text: str) -> Sequence[int]:
    """The shape in "3,8,8"; ArgumentError for other words."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ArgumentError(f"--input-shape is {text!r}, expected whole numbers such as 3,8,8") from None


def _show_checks(checks: Sequence[LayerCheck], as_json: bool) -> None:
    """Say what became of the checks of a layer; exit code 1 if one has failed."""
    if as_json:
        print_json([asdict(check) | {"passed": check.passed} for check in checks])
    else:
        for check in checks:
            print(f"{'right' if check.passed else 'WRONG'}  {check.name}")
            if check.problem:
                print(f"       {check.problem}")
    if not all(check.passed for check in checks):
        raise typer.Exit(1)
