"""``cnn import``."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

import backends
from cnn import models
from cnn.cli.app import app, examples
from cnn.cli.options import AsJson, Out, with_settings
from cnn.cli.output import print_json, result_line, say, say_notes
from cnn.data import load
from cnn.data.notes import notes_on
from cnn.runs.config import Config
from cnn.runs.folder import RunFolder
from cnn.runs.report import examine
from cnn.saving import foreign
from cnn.saving.weights import read, require_finite, take_description
from cnn.support.errors import CheckpointError
from cnn.support.terminal import write_line


@app.command(
    "import",
    epilog=examples(
        "cnn import lenet5.safetensors --model lenet5",
        "cnn import zero_or_one.safetensors --model lenet5 --classes 0,1 --out runs/zero_or_one",
        'In PyTorch: safetensors.torch.save_file(model.state_dict(), "lenet5.safetensors")',
    ),
)
@with_settings("model", "data", "classes", "device", "dtype")
def import_(
    weights: Annotated[
        Path,
        typer.Argument(
            readable=False,
            help="A safetensors or .npz file. Names other than those of PyTorch's nn.Sequential are matched "
            "by shape, and the match is shown.",
            show_default=False,
        ),
    ],
    *,
    out: Out = None,
    as_json: AsJson = False,
    **settings: Any,
) -> None:
    """Make a run's folder from weights saved elsewhere, by PyTorch for example, and test them.

    `cnn evaluate`, `cnn report` and `cnn export` take this folder.
    """
    config = Config(**settings)
    folder = RunFolder(out) if out else RunFolder.default(config.model)
    folder.require_new()
    config.require_valid()
    backend = backends.get(config.device)
    state, metadata = read(weights)
    test_set = load(config.data)[1].only(config.classes)
    say_notes([*test_set.notes, *notes_on(test_set, "test")])
    network = config.make_network(test_set.shape, len(test_set.classes), backend)
    try:
        state = renamed(state, network.shapes, models.reference_names(config.model, network.shapes))
        network.require_state(state)
        require_finite(state, config.dtype)
        take_description(network, metadata)
        network.class_names = test_set.classes
        network.load_state_dict(state)
    except CheckpointError as error:
        raise CheckpointError(f"{weights}: {error}") from None
    found = examine(network, test_set)
    folder.start(replace(config, epochs=0), network, test_set.classes)
    try:
        network.save(folder.weights)
        found.save(folder.evaluation)
    except BaseException:
        shutil.rmtree(folder.path, ignore_errors=True)  # all of it can be made again
        raise
    if as_json:
        print_json({"run": str(folder.path), **found.result})
    else:
        write_line(f"{result_line(found.result)}\n{folder.path}")


def renamed(
    state: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], reference: Mapping[str, str]
) -> dict[str, Any]:
    """The arrays under the network's names; other names in the file are reported.

    ``reference`` are the names of a reference implementation for the network's.
    """
    for name, array in state.items():
        if array.dtype.kind in "iu" and array.ndim:
            raise CheckpointError(f"{name} is {array.dtype}, as of a quantized network: save it in floats")
    bare = foreign.without_wrappers(state, shapes)
    if bare.keys() == shapes.keys():
        if not bare.keys() <= state.keys():
            say(f"{next(iter(state))} and the others are used without their common prefix")
        return bare
    by_name = {name: other for name, other in reference.items() if other in bare}
    names = by_name if len(by_name) == len(bare) else foreign.matched(bare, shapes)
    for name, other in names.items():
        if name != other:
            say(f"{other} is used as {name} {shapes[name]}")
    return {name: bare[other] for name, other in names.items()}
