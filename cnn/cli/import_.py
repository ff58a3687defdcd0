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
from cnn.cli.options import AsJson, Out, given, with_settings
from cnn.cli.output import print_json, result_line, say, say_notes
from cnn.data import load
from cnn.data.notes import notes_on
from cnn.data.pictures import Pictures
from cnn.network import Network
from cnn.runs import build
from cnn.runs.config import AUTO, OWN_DATA, OWN_NETWORK, Config
from cnn.runs.folder import RunFolder
from cnn.runs.report import Evaluation, examine
from cnn.runs.trained import names_of
from cnn.saving import foreign, onnx_reader
from cnn.saving.weights import SavedNetwork, require_finite, take_description
from cnn.support.errors import ArgumentError, CheckpointError
from cnn.support.terminal import write_line
from cnn.training import defaults

ONNX_FILE = ".onnx"


@app.command(
    "import",
    epilog=examples(
        "cnn import lenet5.safetensors --model lenet5",
        "cnn import model.onnx --out runs/from_onnx",
        "cnn import zero_or_one.safetensors --model lenet5 --classes 0,1 --out runs/zero_or_one",
        'In PyTorch: safetensors.torch.save_file(model.state_dict(), "lenet5.safetensors")',
    ),
)
@with_settings("model", "data", "classes", "device", "dtype")
def import_(
    context: typer.Context,
    weights: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            readable=False,
            help="A safetensors or .npz file. Names other than those of PyTorch's nn.Sequential are matched "
            "by shape, and the match is shown. Or an ONNX file, or a .safetensors file that describes its "
            "network: these need no --model, and are tested only if --data is given.",
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
    if config.model == AUTO:
        config = replace(config, model=defaults.MODEL)
    chosen = given(context)
    if weights.suffix == ONNX_FILE and "model" in chosen:
        raise ArgumentError(f"--model is given, but {weights} has a network of its own: leave it out")
    folder = RunFolder(out) if out else RunFolder.default(config.model if "model" in chosen else weights.stem)
    folder.require_new()
    build.require_valid(config)
    backend = backends.get(config.device)
    if weights.suffix == ONNX_FILE:
        network = onnx_reader.read(weights, backend)
        _keep_network(folder, weights, network, config, "data" in chosen, as_json)
        return
    saved = SavedNetwork.read(weights)
    if saved.is_described and "model" not in chosen:
        network = saved.build(backend, advice="give the name of its --model")
        _keep_network(folder, weights, network, config, "data" in chosen, as_json)
        return
    state, metadata = saved.state, saved.metadata
    test_set = load(config.data)[1].only(config.classes)
    say_notes([*test_set.notes, *notes_on(test_set, "test")])
    network = build.make_network(config, test_set.shape, len(test_set.classes), backend)
    try:
        state = renamed(state, network.shapes, models.reference_names(config.model, network.shapes))
        network.require_state(state)
        require_finite(state, network.master_dtype)
        take_description(network, metadata)
        network.class_names = test_set.classes
        network.load_state_dict(state)
    except CheckpointError as error:
        raise CheckpointError(f"{weights}: {error}") from None
    _keep(folder, config, network, test_set.classes, examine(network, test_set), as_json)


def _keep_network(
    folder: RunFolder, file: Path, network: Network, config: Config, is_tested: bool, as_json: bool
) -> None:
    """Make the folder of a network that a file describes; it is tested if its data are given."""
    names, found = names_of(network, file), None
    if is_tested:
        test_set = load(config.data, Pictures.of(network), config.seed)[1].only(config.classes)
        say_notes([*test_set.notes, *notes_on(test_set, "test")])
        if network.class_names is None and (len(test_set.classes),) == network.output_shape:
            names = test_set.classes
        found = examine(network, test_set.labelled_as(names))
    else:
        say("the network is not tested: give its data with --data to test it")
    network.class_names = names
    data = config.data if is_tested else OWN_DATA
    own = replace(config, model=OWN_NETWORK, data=data, dtype=network.dtype)
    _keep(folder, own, network, names, found, as_json)


def _keep(
    folder: RunFolder,
    config: Config,
    network: Network,
    class_names: tuple[str, ...],
    found: Evaluation | None,
    as_json: bool,
) -> None:
    """Make the folder of the run, with the results of the test if there is one, and print them."""
    untrained = replace(config, epochs=0, batch_size=defaults.BATCH_SIZE)
    folder.start(untrained, network, class_names)
    try:
        network.save(folder.weights)
        if found:
            found.save(folder.evaluation)
    except BaseException:
        shutil.rmtree(folder.path, ignore_errors=True)  # all of it can be made again
        raise
    if as_json:
        print_json({"run": str(folder.path), **(found.result if found else {})})
    else:
        write_line(f"{result_line(found.result)}\n{folder.path}" if found else str(folder.path))


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
