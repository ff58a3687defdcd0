"""``cnn train``."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

import backends
from backends import Backend, DeviceUnavailable
from backends.cpu.threads import available_cores
from cnn import data, models
from cnn.cli import distributed
from cnn.cli.app import app, examples
from cnn.cli.config_file import over, take_defaults, take_recipe
from cnn.cli.help import OPTIONAL
from cnn.cli.job import Job
from cnn.cli.options import RUN, SETTINGS, AsJson, Out, given, with_settings
from cnn.cli.output import print_json, print_kept, result_line, say
from cnn.cli.recipes import print_recipes, require_alone
from cnn.data.preprocessing import Preprocessing
from cnn.network import Network
from cnn.runs import build, recipes
from cnn.runs.config import OWN_NETWORK, Config
from cnn.runs.finetuning import Base, with_model
from cnn.runs.folder import RunFolder
from cnn.support.arguments import whole
from cnn.support.errors import ArgumentError
from cnn.training.checkpoints import SavedTraining
from cnn.training.distributed import Communicator, communicator, launcher
from cnn.training.distributed.communicator import TIMEOUT
from cnn.training.whitening import whiten

# what may be given with --resume
CHANGEABLE = [name for name, field in SETTINGS.items() if field.metadata["changeable"]]
CHANGEABLE_FLAGS = ", ".join(f"--{name.replace('_', '-')}" for name in CHANGEABLE)


@app.command(
    epilog=examples(
        "cnn train",
        "cnn train --recipe",
        "cnn train --recipe cifar10 --epochs 5",
        "cnn train --epochs 5 --batch-size 64 --optimizer adam",
        "cnn train --model notebook --classes 0,1 --per-class 5000 --batch-size 32",
        "cnn train --data my_images.npz --out runs/mine",
        "cnn train --config runs/mine/config.json --seed 1",
        "cnn train --from runs/mine --data photos --freeze all-but-head",
        "cnn train --resume runs/mine",
        "cnn train --processes 4",
    )
)
@with_settings()
def train(
    context: typer.Context,
    *,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar=OPTIONAL,
            help=SETTINGS["recipe"].metadata["help"],
            show_default=False,
            autocompletion=lambda: list(recipes.NAMES),
            is_eager=True,
            callback=take_recipe,
            rich_help_panel=SETTINGS["recipe"].metadata["panel"],
        ),
    ] = None,
    out: Out = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help=f"Resume a run from its last checkpoint, with its own settings; only {CHANGEABLE_FLAGS} may "
            "be changed (--data if the same data have moved).",
            show_default=False,
            rich_help_panel=RUN,
        ),
    ] = None,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            readable=False,
            help="Read options from a TOML file, or from the config.json of a run; options given here win.",
            is_eager=True,
            callback=take_defaults,
            rich_help_panel=RUN,
        ),
    ] = None,
    report: Annotated[bool, typer.Option(help="Draw report.html at the end.", rich_help_panel=RUN)] = True,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show what the run would do, without training.", rich_help_panel=RUN),
    ] = False,
    find_rate: Annotated[
        bool,
        typer.Option(
            "--find-rate",
            help="Try learning rates from 1e-5 to 10 in 100 steps, draw the loss and suggest a rate.",
            rich_help_panel=RUN,
        ),
    ] = False,
    processes: Annotated[
        int | None,
        typer.Option(
            help="Train in this many processes on this machine, which share each batch; this needs MPI.",
            show_default="1, or as many as mpiexec has started",
            rich_help_panel=RUN,
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            help="With several processes: seconds that each waits for the others before it gives up.",
            rich_help_panel=RUN,
        ),
    ] = TIMEOUT,
    as_json: AsJson = False,
    **settings: Any,
) -> None:
    """Train a network and test it.

    The run's folder gets config.json, environment.json, metrics.csv, model.safetensors,
    checkpoint.safetensors, evaluation.safetensors with the results of the test, report.html, and logs
    for TensorBoard if it is installed. With --validation it also gets best.safetensors, the weights
    after the epoch with the lowest validation loss, and the test uses these.

    Ctrl-C stops it after the current batch, and --resume continues from there.
    """
    if recipe == "":
        require_alone(given(context))
        print_recipes(as_json)
        return
    if processes is not None and whole("processes", processes) > 1 and not distributed.was_started_here():
        raise typer.Exit(distributed.start(processes))
    group = communicator(timeout=timeout)
    earlier = RunFolder(resume) if resume else None
    config = group.first(lambda: resumed(context, earlier) if earlier else begun(context, recipe, settings))
    job = make_job(config, earlier, out, group)
    if (dry_run or find_rate) and group.size > 1:
        raise ArgumentError("--dry-run and --find-rate train nothing: give them without several processes")
    if dry_run:
        if find_rate:
            raise ArgumentError("--dry-run and --find-rate cannot be given together: leave one of them out")
        job.show_plan(as_json)
        return
    if find_rate:
        job.find_rate(as_json)
        return
    history = job.fit()
    if not group.is_first:
        return
    found = job.test()
    page = job.report(found, drawn=report)
    if as_json:
        print_json({"run": str(job.folder.path), **found.result, "history": history})
    else:
        print_kept(f"{result_line(found.result)}\n{job.folder.path}")
    if page:
        say(f"open {page} in a browser to see the report")
    job.require_learned()


def begun(context: typer.Context, recipe: str | None, settings: dict[str, Any]) -> Config:
    """The configuration of a new run; the options replace the values of a recipe or a file."""
    options = given(context)
    if "recipe" in options and "config_file" in options:
        raise ArgumentError("--recipe and --config cannot be given together: leave one of them out")
    chosen = {name: value for name, value in settings.items() if name in options}
    kept = over(context.default_map or {}, chosen)
    config = Config(recipe=recipe, **{name: value for name, value in settings.items() if name in kept})
    return on_base(context, config) if config.base else config


def on_base(context: typer.Context, config: Config) -> Config:
    """``config`` with the model of its base, which comes before what a recipe says of the network."""
    source = context.get_parameter_source("model")
    is_given = source is not None and source.name != "DEFAULT"
    if config.recipe:
        options = given(context)
        is_given = "model" in options
        config = replace(
            config,
            normalize=config.normalize and "normalize" in options,
            whiten=config.whiten and "whiten" in options,
        )
    return with_model(config, is_given)


def make_job(
    config: Config, earlier: RunFolder | None, out: Path | None = None, group: Communicator | None = None
) -> Job:
    """The run of ``config``, with its data loaded and its network built, in all processes of ``group``.

    ``earlier`` is the folder of a run to resume; a new run gets the folder ``out``, or a default.
    """
    group = group or Communicator()
    if config.shards is None and earlier is None and group.size > 1:
        config = replace(config, shards=group.size)
    group.shards = config.shards or 1
    saved = group.first(lambda: _checkpoint(earlier))
    names = group.first(lambda: earlier.read()[2] if earlier else ())
    if group.size > 1 and config.data in data.NAMES:  # one process of each machine downloads
        with group.together():
            if launcher.local_rank() == 0:
                build.load_data(config)
    device = distributed.own_device(group, config.device)
    with group.together():
        return _make_job(config, earlier, out, group, saved, names, device)


def _checkpoint(earlier: RunFolder | None) -> SavedTraining | None:
    """The checkpoint of a run that is resumed, if it has one."""
    return SavedTraining.read(earlier.checkpoint) if earlier and earlier.checkpoint.exists() else None


def _make_job(
    config: Config,
    earlier: RunFolder | None,
    out: Path | None,
    group: Communicator,
    saved: SavedTraining | None,
    names: tuple[str, ...],
    device: str,
) -> Job:
    """:func:`make_job` in this process; ``names`` are the class names of the run that is resumed."""
    build.require_valid(config)
    is_resumed = earlier is not None
    backend = find_backend(replace(config, device=device), is_resumed)
    if config.tf32 and backend.name == "cpu":
        say("note: --tf32 has no effect on the CPU")
    base = Base.load(config, backend) if config.base and not saved else None
    pictures = base.pictures(config) if base else None
    names = names or (base.names_for(config) if base else ())
    train_set, validation_set, test_set = build.load_data(config, pictures, names)
    if base:
        config = base.completed(config, train_set)
    config, chosen = config.completed_for(train_set)
    folder = earlier or (RunFolder(out) if out else RunFolder.default(config.model))
    make = partial(models.make, config.model) if saved is None else folder.source(config, saved.network).make
    if earlier and group.is_first:
        earlier.require_same(train_set)
    if saved:
        saved.require_data(train_set)
    backend.kernels.when_compiling(say)
    if base:
        network = base.make_network(config, train_set.classes)
    else:
        made = make(len(train_set.classes), train_set.shape)
        network = build.build_network(config, made, train_set.shape, backend)
    if config.whiten and saved is None:
        if config.normalize:
            network.preprocessing = Preprocessing.of(train_set)
        whiten(network, train_set)
    build.freeze_layers(config, network)
    if not is_resumed:
        _require_named(network, len(train_set.classes))
    build.require_suitable(config, network)
    optimizer = build.make_optimizer(config, len(train_set), network)
    config = config.with_values_of(optimizer)
    sets = train_set, validation_set, test_set
    note = base.note(config, network, train_set.classes) if base else None
    return Job(config, folder, network, optimizer, *sets, is_resumed, saved, note, chosen, group)


def _require_named(network: Network, classes: int) -> None:
    """Raise ArgumentError if the network would predict classes that the data do not have."""
    if network.output_shape[0] > classes:
        raise ArgumentError(
            f"the network has {network.output_shape[0]} outputs, but the data have {classes} classes: give "
            f"its last layer {classes} outputs"
        )


def find_backend(config: Config, is_resumed: bool) -> Backend:
    """The device of ``config``; a resumed run falls back to the kernels that this machine has."""
    try:
        return backends.get(config.device, config.kernels, config.threads, config.tf32)
    except DeviceUnavailable as error:
        if not is_resumed:
            raise
        try:
            backend = backends.get(config.device, threads=config.threads, tf32=config.tf32)
        except DeviceUnavailable:
            raise DeviceUnavailable(f"{error}; or resume the run on another device with --device") from None
        say(f"note: the run had --kernels {config.kernels}; it resumes with {backend.kernels.name}: {error}")
        return backend


def resumed(context: typer.Context, folder: RunFolder) -> Config:
    """The configuration of a resumed run; ArgumentError for an option that cannot be given with --resume."""
    options = given(context)
    for name, flag in options.items():
        if name not in ("resume", *CHANGEABLE, "report", "dry_run", "processes", "timeout", "as_json"):
            raise ArgumentError(
                f"{flag} cannot be given with --resume: only the settings {CHANGEABLE_FLAGS} may change"
            )
    config, _, _ = folder.read(is_resumed=True)
    if not folder.checkpoint.exists() and (folder.evaluation.exists() or config.epochs == 0):
        raise ArgumentError(
            f"{folder.path} cannot be resumed, it has no checkpoint: it was imported, or trained by an older "
            "version"
        )
    if config.model == OWN_NETWORK:
        raise ArgumentError(
            f"{folder.path} was trained in Python: resume it there, with cnn.fit(..., resume="
            f"{str(folder.checkpoint)!r}) and another folder"
        )
    changed = {name: context.params[name] for name in CHANGEABLE if name in options}
    if "data" not in changed:
        build.require_data(config)
    cores = available_cores()
    if "threads" not in changed and config.threads and config.threads > cores:
        say(f"note: the run had --threads {config.threads}; it resumes with {cores}, one for each core")
        changed["threads"] = cores
    return replace(config, **changed)
