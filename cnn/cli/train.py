"""``cnn train``."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

import backends
from backends import Backend, DeviceUnavailable
from backends.cpu.threads import available_cores
from cnn.cli.app import app, examples
from cnn.cli.config_file import take_defaults
from cnn.cli.job import Job
from cnn.cli.options import (
    DEFAULT,
    DEVICE,
    ON_WHAT,
    RUN,
    TRAINING,
    AsJson,
    Classes,
    Data,
    Device,
    Dtype,
    Kernels,
    Model,
    Out,
    Threads,
    absolute,
    cut,
)
from cnn.cli.output import print_json, print_kept, result_line, say
from cnn.runs.config import Config
from cnn.runs.folder import RunFolder
from cnn.support.arguments import whole
from cnn.support.errors import ArgumentError
from cnn.training import defaults
from cnn.training.checkpoints import SavedTraining
from cnn.training.optimizers import OPTIMIZERS
from cnn.training.schedules import SCHEDULES

SGD_RATE = (
    f"for sgd {defaults.RATE} at a batch size of {defaults.ITS_BATCH}, otherwise in proportion to the square "
    f"root of the batch size, at most {defaults.HIGHEST_RATE}"
)


@app.command(
    epilog=examples(
        "cnn train",
        "cnn train --epochs 5 --batch-size 64 --optimizer adam",
        "cnn train --model notebook --classes 0,1 --per-class 5000 --batch-size 32",
        "cnn train --data my_images.npz --out runs/mine",
        "cnn train --config runs/mine/config.json --seed 1",
        "cnn train --resume runs/mine",
    )
)
def train(
    context: typer.Context,
    model: Model = DEFAULT.model,
    data: Data = DEFAULT.data,
    classes: Classes = None,
    per_class: Annotated[
        int | None,
        typer.Option(help="Training images of each class.", show_default="all", rich_help_panel=ON_WHAT),
    ] = DEFAULT.per_class,
    epochs: Annotated[
        int, typer.Option(help="Times through the training set.", rich_help_panel=TRAINING)
    ] = DEFAULT.epochs,
    batch_size: Annotated[
        int, typer.Option(help="Images a step.", rich_help_panel=TRAINING)
    ] = DEFAULT.batch_size,
    optimizer: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(OPTIMIZERS)}.",
            autocompletion=lambda: list(OPTIMIZERS),
            rich_help_panel=TRAINING,
        ),
    ] = DEFAULT.optimizer,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="At its highest.",
            show_default=SGD_RATE + "; 0.001 for adam and adamw",
            rich_help_panel=TRAINING,
        ),
    ] = DEFAULT.learning_rate,
    schedule: Annotated[
        str,
        typer.Option(
            help=f"How the learning rate goes on: {', '.join(SCHEDULES)}.",
            autocompletion=lambda: list(SCHEDULES),
            rich_help_panel=TRAINING,
        ),
    ] = DEFAULT.schedule,
    warmup: Annotated[
        float,
        typer.Option(
            help="How long the learning rate rises from 0: below 1 a share of the run, from 1 on steps, and "
            "then at most a fifth of the run.",
            show_default=f"{DEFAULT.warmup} steps",
            rich_help_panel=TRAINING,
        ),
    ] = DEFAULT.warmup,
    momentum: Annotated[
        float | None, typer.Option(help="Of sgd.", show_default="0.9", rich_help_panel=TRAINING)
    ] = DEFAULT.momentum,
    weight_decay: Annotated[
        float | None,
        typer.Option(
            help="Pull of the weights towards 0.", show_default="0; 0.01 for adamw", rich_help_panel=TRAINING
        ),
    ] = DEFAULT.weight_decay,
    clip: Annotated[
        float,
        typer.Option(
            help="Scale a gradient with a norm above this down to it; 0: leave all as they are.",
            rich_help_panel=TRAINING,
        ),
    ] = DEFAULT.clip,
    validation: Annotated[
        float,
        typer.Option(
            help="The share of the training images to hold out: best.safetensors has the weights that are "
            "best on them, which the test uses.",
            show_default="none",
            rich_help_panel=ON_WHAT,
        ),
    ] = DEFAULT.validation,
    seed: Annotated[
        int, typer.Option(help="Of the first weights and the shuffles.", rich_help_panel=TRAINING)
    ] = DEFAULT.seed,
    device: Device = DEFAULT.device,
    kernels: Kernels = DEFAULT.kernels,
    threads: Threads = DEFAULT.threads,
    dtype: Dtype = DEFAULT.dtype,
    fuse: Annotated[
        bool,
        typer.Option(
            help="Compute a layer and those after it in one pass, where the kernels can.",
            rich_help_panel=DEVICE,
        ),
    ] = DEFAULT.fuse,
    graph: Annotated[
        bool,
        typer.Option(
            help="On a GPU: record a step and let the GPU repeat it by itself.", rich_help_panel=DEVICE
        ),
    ] = DEFAULT.graph,
    tf32: Annotated[
        bool,
        typer.Option(
            help="On a GPU: multiply with 10 bits after the point (TF32), faster.", rich_help_panel=DEVICE
        ),
    ] = DEFAULT.tf32,
    stream: Annotated[
        bool | None,
        typer.Option(
            help="Leave the training images on the host, and bring batches to the device meanwhile.",
            show_default="where they do not fit",
            rich_help_panel=DEVICE,
        ),
    ] = DEFAULT.stream,
    out: Out = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="Go on with a run that was stopped, from its last checkpoint; only --epochs, --data (if the "
            "same data have moved), --device and --threads may be given too.",
            show_default=False,
            rich_help_panel=RUN,
        ),
    ] = None,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            readable=False,
            help="Flags from a TOML file, or from the config.json of a run's folder; those given here win.",
            is_eager=True,
            callback=take_defaults,
            rich_help_panel=RUN,
        ),
    ] = None,
    report: Annotated[bool, typer.Option(help="Draw report.html at the end.", rich_help_panel=RUN)] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would happen.", rich_help_panel=RUN)
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a network and test it.

    The run's folder gets config.json, environment.json, metrics.csv, model.safetensors,
    checkpoint.safetensors, what the test found in evaluation.safetensors, report.html, and logs for
    TensorBoard where that is installed. With --validation it also gets best.safetensors, the weights
    after the epoch with the lowest validation loss, and the test uses these.

    Ctrl-C stops it after the current batch, and --resume continues from there.
    """
    if resume is None:
        config = Config(
            model=model, data=absolute(data), classes=cut(classes), per_class=per_class, epochs=epochs,
            batch_size=batch_size, optimizer=optimizer, learning_rate=learning_rate, schedule=schedule,
            warmup=warmup, momentum=momentum, weight_decay=weight_decay, clip=clip,
            validation=validation, seed=seed, device=device, kernels=kernels, threads=threads, dtype=dtype,
            fuse=fuse, graph=graph, tf32=tf32, stream=stream,
        )  # fmt: skip
        folder = RunFolder(out) if out else RunFolder.default(model)
    else:
        folder = RunFolder(resume)
        config = taken_up(context, folder)
    job = make_job(config, folder, goes_on=resume is not None)
    if dry_run:
        job.show_plan(as_json)
        return
    history = job.fit()
    found = job.test()
    page = job.report(found, drawn=report)
    if as_json:
        print_json({"run": str(folder.path), **found.result, "history": history})
    else:
        print_kept(f"{result_line(found.result)}\n{folder.path}")
    if page:
        say(f"open {page} in a browser to see the report")
    job.require_learned()


CHANGEABLE = ("epochs", "data", "device", "threads")  # in a run that is resumed
ALLOWED = ("resume", *CHANGEABLE, "report", "dry_run", "as_json")  # next to --resume


def make_job(config: Config, folder: RunFolder, goes_on: bool) -> Job:
    """The run that ``config`` describes, with its data loaded and its network built."""
    whole("epochs", config.epochs)
    config.require_valid()
    backend = find_backend(config, goes_on)
    if config.tf32 and backend.name == "cpu":
        say("note: --tf32 changes nothing on the CPU")
    train_set, validation_set, test_set = config.load_data()
    saved = SavedTraining.read(folder.checkpoint) if goes_on and folder.checkpoint.exists() else None
    if goes_on:
        folder.require_same(train_set)
    if saved:
        saved.require_data(train_set)
    backend.kernels.when_compiling(say)
    network = config.make_network(train_set.shape, len(train_set.classes), backend)
    chosen = config.make_optimizer(len(train_set))
    sets = train_set, validation_set, test_set
    return Job(config.with_values_of(chosen), folder, network, chosen, *sets, goes_on, saved)


def find_backend(config: Config, goes_on: bool) -> Backend:
    """The device that ``config`` asks for; a run that is resumed takes the kernels that this machine has."""
    try:
        return backends.get(config.device, config.kernels, config.threads, config.tf32)
    except DeviceUnavailable as error:
        if not goes_on:
            raise
        try:
            backend = backends.get(config.device, threads=config.threads, tf32=config.tf32)
        except DeviceUnavailable:
            raise DeviceUnavailable(f"{error}; or resume the run on another device with --device") from None
        say(f"note: the run had --kernels {config.kernels}, now it has {backend.kernels.name} ones: {error}")
        return backend


def taken_up(context: typer.Context, folder: RunFolder) -> Config:
    """The configuration of a run that is resumed; ArgumentError for a flag that cannot change in it."""
    given = {}
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name) if parameter.name else None
        if source is None or source.name != "COMMANDLINE":
            continue
        if parameter.name not in ALLOWED:
            raise ArgumentError(
                f"{parameter.opts[0]} cannot be given with --resume: a run is resumed as it began, only "
                f"{', '.join(f'--{name}' for name in CHANGEABLE)} may change"
            )
        given[parameter.name] = context.params[parameter.name]
    config, _, _ = folder.read()
    if folder.evaluation.exists() and not folder.checkpoint.exists():
        raise ArgumentError(
            f"{folder.path} has no checkpoint: it was imported, or trained by an older version; there is "
            "nothing to go on with"
        )
    if "data" in given:
        given["data"] = absolute(given["data"])
    else:
        config.require_data()
    cores = available_cores()
    if "threads" not in given and config.threads and config.threads > cores:
        say(f"note: the run had --threads {config.threads}, now it has {cores}, as many as there are cores")
        given["threads"] = cores
    return replace(config, **{name: value for name, value in given.items() if name in CHANGEABLE})
