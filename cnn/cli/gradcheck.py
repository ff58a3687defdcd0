"""``cnn gradcheck``."""

from dataclasses import asdict
from typing import Annotated

import typer

import backends
from cnn import models
from cnn.cli.app import app, examples
from cnn.cli.options import DEFAULT, AsJson, Device, Kernels, Model
from cnn.cli.output import print_json
from cnn.inspection.gradient_check import check_gradients


@app.command(epilog=examples("cnn gradcheck", "cnn gradcheck --model notebook --kernels signal"))
def gradcheck(
    model: Model = DEFAULT.model,
    device: Device = DEFAULT.device,
    kernels: Kernels = DEFAULT.kernels,
    seed: Annotated[
        int, typer.Option(help="Of the weights, the images and the entries tried.")
    ] = DEFAULT.seed,
    entries: Annotated[int, typer.Option(help="Numbers tried in each array.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Compare a model's gradients with finite differences, in float64; exit code 1 where one is wrong."""
    network = models.get(model, 10)
    network.build((1, 28, 28), backend=backends.get(device, kernels), seed=seed, dtype="float64")
    results = check_gradients(network, entries=entries, seed=seed)
    if as_json:
        print_json([asdict(result) | {"passed": result.passed} for result in results])
    else:
        for result in results:
            verdict = "right" if result.passed else "WRONG"
            print(f"{result.name:<10} {result.checked:>4} tried   error {result.error:.1e}   {verdict}")
    if not all(result.passed for result in results):
        raise typer.Exit(1)
