"""``cnn import``."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

import backends
import cnn
from cnn import checkpoints
from cnn.cli.app import app, examples
from cnn.cli.options import DEFAULT, AsJson, Classes, Data, Device, Dtype, Model, Out, absolute, cut
from cnn.cli.output import print_json, result_line
from cnn.data.dataset import some_of
from cnn.errors import CheckpointError
from cnn.network import Sequential
from cnn.report import examine
from cnn.runs import Config, RunFolder


@app.command(
    "import",
    epilog=examples(
        "cnn import lenet5.safetensors --model lenet5",
        "cnn import zero_or_one.safetensors --model lenet5 --classes 0,1 --out runs/zero_or_one",
        'In PyTorch: safetensors.torch.save_file(model.state_dict(), "lenet5.safetensors")',
    ),
)
def import_(
    weights: Annotated[
        Path,
        typer.Argument(
            help="A safetensors file, its names those of PyTorch's nn.Sequential.", show_default=False
        ),
    ],
    model: Model = DEFAULT.model,
    data: Data = DEFAULT.data,
    classes: Classes = None,
    device: Device = DEFAULT.device,
    dtype: Dtype = DEFAULT.dtype,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Make a run's folder from weights saved elsewhere, by PyTorch for example, and test them.

    The folder is one that `cnn evaluate`, `cnn report` and `cnn export` take.
    """
    config = Config(
        model=model, data=absolute(data), classes=cut(classes), device=device, dtype=dtype,
        epochs=0,  # nothing is trained here
    )  # fmt: skip
    folder = RunFolder(out) if out else RunFolder.default(model)
    folder.require_new()
    backend = backends.get(device)
    state, _ = checkpoints.read(weights)
    test_set = cnn.data.load(data)[1].only(config.classes)
    network = config.make_network(test_set.shape, len(test_set.classes), backend)
    try:
        network.require_state(state)
        checkpoints.require_finite(state, dtype)
        network.load_state_dict(state)
    except CheckpointError as error:
        raise CheckpointError(f"{weights}: {_misfit(error, model, network, state)}") from None
    found = examine(network, test_set)
    folder.start(config, network, test_set.classes)
    try:
        network.save(folder.weights)
        found.save(folder.evaluation)
    except BaseException:
        shutil.rmtree(folder.path, ignore_errors=True)  # nothing in it that cannot be made again
        raise
    if as_json:
        print_json({"run": str(folder.path), **found.result})
    else:
        print(f"{result_line(found.result)}\n{folder.path}")


def _misfit(error: CheckpointError, model: str, network: Sequential, names: Iterable[str]) -> str:
    """What does not fit, with the names that would, where it is the names."""
    if set(names) == set(network.parameters):
        return str(error)
    return f"{error}; {model} has {some_of(network.parameters)}, as in PyTorch's nn.Sequential"
