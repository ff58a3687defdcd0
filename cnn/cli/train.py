"""``cnn train``."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

import backends
import cnn
from cnn import plan, tensorboard
from cnn.arguments import whole
from cnn.cli.app import app, examples
from cnn.cli.config_file import take_defaults
from cnn.cli.options import (
    DEFAULT,
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
from cnn.cli.output import print_json, result_line, say
from cnn.data import Dataset
from cnn.errors import ArgumentError, CheckpointError
from cnn.network import Sequential
from cnn.optimizers import OPTIMIZERS, Optimizer
from cnn.report import examine, write_report
from cnn.runs import Config, RunFolder, RunLog
from cnn.schedules import SCHEDULES
from cnn.summary import readable_bytes


@app.command(
    epilog=examples(
        "cnn train",
        "cnn train --epochs 5 --batch-size 64 --optimizer adam",
        "cnn train --model notebook --classes 0,1 --per-class 5000 --batch-size 32",
        "cnn train --data my_images.npz --out runs/mine",
        "cnn train --config runs/mine/config.json --seed 1",
    )
)
def train(
    model: Model = DEFAULT.model,
    data: Data = DEFAULT.data,
    classes: Classes = None,
    per_class: Annotated[
        int | None, typer.Option(help="Training images of each class.", show_default="all")
    ] = DEFAULT.per_class,
    epochs: Annotated[int, typer.Option(help="Times through the training set.")] = DEFAULT.epochs,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = DEFAULT.batch_size,
    optimizer: Annotated[
        str, typer.Option(help=f"{', '.join(OPTIMIZERS)}.", autocompletion=lambda: list(OPTIMIZERS))
    ] = DEFAULT.optimizer,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="At its highest.", show_default="0.1 for sgd, 0.001 for adam and adamw"),
    ] = DEFAULT.learning_rate,
    schedule: Annotated[
        str,
        typer.Option(
            help=f"How the learning rate goes on: {', '.join(SCHEDULES)}.",
            autocompletion=lambda: list(SCHEDULES),
        ),
    ] = DEFAULT.schedule,
    warmup: Annotated[
        float, typer.Option(help="The share of the run in which the learning rate rises from 0.")
    ] = DEFAULT.warmup,
    momentum: Annotated[float | None, typer.Option(help="Of sgd.", show_default="0.9")] = DEFAULT.momentum,
    weight_decay: Annotated[
        float | None,
        typer.Option(help="Pull of the weights towards 0.", show_default="0; 0.01 for adamw"),
    ] = DEFAULT.weight_decay,
    seed: Annotated[int, typer.Option(help="Of the first weights and the shuffles.")] = DEFAULT.seed,
    device: Device = DEFAULT.device,
    kernels: Kernels = DEFAULT.kernels,
    threads: Threads = DEFAULT.threads,
    dtype: Dtype = DEFAULT.dtype,
    out: Out = None,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="Flags from a TOML file, or from the config.json of a run's folder; those given here win.",
            is_eager=True,
            callback=take_defaults,
        ),
    ] = None,
    report: Annotated[bool, typer.Option(help="Draw report.html at the end.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a network and test it.

    The run's folder gets config.json, environment.json, metrics.csv, model.safetensors, what the test
    found in evaluation.safetensors, report.html, and logs for TensorBoard where that is installed.
    """
    config = Config(
        model=model, data=absolute(data), classes=cut(classes), per_class=per_class, epochs=epochs,
        batch_size=batch_size, optimizer=optimizer, learning_rate=learning_rate, schedule=schedule,
        warmup=warmup, momentum=momentum, weight_decay=weight_decay, seed=seed, device=device,
        kernels=kernels, threads=threads, dtype=dtype,
    )  # fmt: skip
    backend = backends.get(device, kernels, threads)
    train_set, test_set = config.load_data()
    network = config.make_network(train_set.shape, len(train_set.classes), backend)
    if train_set.images.dtype.kind == "f" and abs(train_set.images).max() > 10:
        say("note: the images are floats beyond 10; scaled to 0..1 they train better")
    chosen = config.make_optimizer()
    config = replace(  # what was left to the optimizer is written down too
        config,
        learning_rate=chosen.learning_rate,
        weight_decay=chosen.weight_decay,
        momentum=getattr(chosen, "momentum", None),
    )
    folder = RunFolder(out) if out else RunFolder.default(model)
    if dry_run:
        _show_plan(config, folder, network, chosen, train_set, test_set, as_json)
        return
    history = _fit(config, folder, network, chosen, train_set, test_set)
    if report:
        _report(config, folder, network, test_set)
    result = {
        "loss": history[-1]["validation_loss"],
        "accuracy": history[-1]["validation_accuracy"],
        "count": len(test_set),
    }
    if as_json:
        print_json({"run": str(folder.path), **result, "history": history})
    else:
        print(f"{result_line(result)}\n{folder.path}")


def _fit(
    config: Config,
    folder: RunFolder,
    network: Sequential,
    optimizer: Optimizer,
    train_set: Dataset,
    test_set: Dataset,
) -> list[dict[str, Any]]:
    """Train, with everything that goes on around it; -> the history."""
    callbacks = [
        cnn.NaNGuard(),
        RunLog(folder, config, train_set.classes),
        Headline(_headline(config, network, train_set)),
        cnn.Progress(),
    ]
    if tensorboard.installed():
        callbacks.append(tensorboard.TensorBoard(folder.tensorboard))
    try:
        return cnn.fit(
            network,
            train_set,
            validation=test_set,
            optimizer=optimizer,
            schedule=config.make_schedule(),
            epochs=config.epochs,
            batch_size=config.batch_size,
            seed=config.seed,
            callbacks=callbacks,
        )
    except KeyboardInterrupt:
        if folder.weights.exists():
            say(f"interrupted: {folder.weights} holds the weights of the last whole epoch")
        else:
            say("interrupted in the first epoch: no weights were saved")
        raise typer.Exit(130) from None


def _report(config: Config, folder: RunFolder, network: Sequential, test_set: Dataset) -> None:
    """Write down what the test found, and draw it; where that fails, the trained run stays as it is."""
    try:
        examine(network, test_set, config.batch_size).save(folder.evaluation)
        say(f"drew {write_report(folder).page}")
    except (ArgumentError, CheckpointError, OSError) as error:
        say(f"no report: {error}; `cnn report {folder.path}` draws it again")


def _headline(config: Config, network: Sequential, train_set: Dataset) -> str:
    backend = network.backend
    return f"{config.model} on {len(train_set):,} images of {config.data}; {backend.name} ({backend.reason})"


def _show_plan(
    config: Config,
    folder: RunFolder,
    network: Sequential,
    optimizer: Optimizer,
    train_set: Dataset,
    test_set: Dataset,
    as_json: bool,
) -> None:
    """Say what a run would do and take; what would stop it at its start stops here too."""
    whole("epochs", config.epochs)
    whole("batch_size", config.batch_size)
    config.make_schedule()
    folder.require_new()
    memory = plan.memory(network, optimizer, train_set, test_set, config.batch_size)
    steps = -(-len(train_set) // config.batch_size)
    if as_json:
        figures = {"steps": config.epochs * steps, "memory": asdict(memory) | {"total": memory.total}}
        print_json({"run": str(folder.path), "config": asdict(config), **figures})
        return
    print(_headline(config, network, train_set))
    print(f"{config.epochs} epochs of {steps} steps, then each time a test on {len(test_set):,} images")
    network.summary()
    parts = ", ".join(f"{name} {readable_bytes(count)}" for name, count in asdict(memory).items())
    print(f"memory on {network.backend.name}: about {readable_bytes(memory.total)} ({parts})")
    print(f"would write {folder.path}")


class Headline(cnn.Callback):
    """Says what is about to run, once nothing speaks against it."""

    def __init__(self, text: str) -> None:
        self.text = text

    def on_start(self, run: Any) -> None:
        say(self.text)
