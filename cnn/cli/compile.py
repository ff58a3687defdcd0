"""``cnn compile``."""

import time
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import numpy as np
import typer

import backends
from backends import Backend
from backends.text import readable_bytes
from cnn import models
from cnn.cli.app import app, examples
from cnn.cli.options import DEFAULT, AsJson, Threads, image_shape
from cnn.cli.output import Status, print_json
from cnn.data import Dataset
from cnn.models import sources
from cnn.network import Network
from cnn.runs import build
from cnn.runs.config import Config
from cnn.runs.folder import RunFolder
from cnn.support.arguments import choice
from cnn.support.errors import ArgumentError
from cnn.support.terminal import write_line
from cnn.training import defaults
from cnn.training.fit import fit

DTYPES = {"float32": ["float32"], "float64": ["float64"], "both": ["float32", "float64"]}


@app.command(
    "compile",
    epilog=examples(
        "cnn compile",
        "cnn compile --model resnet20 --input-shape 3,32,32",
        "cnn compile --dtype both --json",
    ),
)
def compile_ahead(
    model: Annotated[
        str | None,
        typer.Option(
            help="Compile only what training and prediction with this network need: what `cnn train --model` "
            "takes, or the folder of a run with its settings.",
            show_default="all kernels",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Images per batch for --model.", show_default="128 or the run's own"),
    ] = None,
    input_shape: Annotated[
        str | None,
        typer.Option(
            help="Channels, height and width of an image, unless --model is a run or a model file.",
            show_default="1,28,28",
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, float64 or both.",
            autocompletion=lambda: list(DTYPES),
            show_default="float32 or the run's own",
        ),
    ] = None,
    threads: Threads = DEFAULT.threads,
    as_json: AsJson = False,
) -> None:
    """Compile CPU kernels for this processor before they are needed, for container images and installers.

    They are cached in the user's cache folder, or in the folder that the environment variable NUMBA_CACHE_DIR
    names. Without this command, a training run compiles what it needs. With --model, the
    command trains on one batch and predicts it, to find out which kernels the network needs.
    """
    if model is None and (batch_size, input_shape) != (None, None):
        raise ArgumentError("--batch-size and --input-shape need --model: name the network to compile for")
    dtypes = DTYPES[choice("--dtype", dtype, list(DTYPES))] if dtype else []
    status, start = Status(), time.perf_counter()
    device = backends.get("cpu", "compiled", threads)
    kernels: Any = device.kernels
    kernels.when_compiling(show=status.show)
    if model is None:
        found = kernels.compile_all(dtypes or [DEFAULT.dtype])
    else:
        uses = [
            partial(_use, network, config, batch_size or config.batch_size or defaults.BATCH_SIZE)
            for network, config in _networks(model, input_shape, dtypes, device)
        ]
        found = kernels.compile_used_by(uses)
    seconds = time.perf_counter() - start
    if as_json:
        print_json({**found, "seconds": round(seconds, 1)})
        return
    write_line(
        f"compiled {found['compiled']} kernels in {seconds:.1f} s; {found['present']} were there already; "
        f"{found['folder']} has {readable_bytes(found['bytes'])} of kernels"
    )


def _networks(
    model: str, input_shape: str | None, dtypes: list[str], device: Backend
) -> list[tuple[Network, Config]]:
    """The networks of a model's name, of a run or of a file, for each dtype, and how they are trained."""
    source = models.find(model)
    if input_shape is not None and source.input_shape is not None:
        raise ArgumentError(f"--input-shape is {input_shape}, but {model} has a shape: leave it out")
    config = RunFolder(model).read()[0] if sources.is_run(model) else Config()
    shape = source.input_shape or image_shape(input_shape or "1,28,28")
    configs = [replace(config, dtype=dtype) for dtype in dtypes or [source.dtype or config.dtype]]
    return [
        (build.build_network(each, source.make(models.CLASSES, shape), shape, device), each)
        for each in configs
    ]


def _use(network: Network, config: Config, batch_size: int) -> None:
    """Train on one batch, evaluate it, and predict it and one image."""
    if len(network.input_shape) != 3:
        raise ArgumentError(
            f"--model has an input of the shape {network.input_shape}, expected the channels, height and "
            "width of an image; without --model, all kernels are compiled"
        )
    images = np.zeros((batch_size, *network.input_shape), dtype=np.uint8)
    classes = network.output_shape[0]
    data = Dataset(images, np.arange(batch_size) % classes, tuple(map(str, range(classes))))
    fit(
        network,
        data,
        validation=data,
        loss=build.make_loss(config, data),
        optimizer=build.make_optimizer(config, batch_size, network),
        transforms=build.make_transforms(config),
        augment=build.make_augmentations(config),
        epochs=1,
        batch_size=batch_size,
        accumulate=config.accumulate,
        normalize=config.normalize,
        recompute=config.recompute,
        callbacks=[],
    )
    network.predict(images, tta=config.tta)
    network.predict(images[:1], tta=config.tta)
