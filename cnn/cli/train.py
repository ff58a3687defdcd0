"""``cnn train``."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

import backends
import cnn
from cnn.cli.app import app
from cnn.cli.options import DEFAULT, AsJson, Device, Dtype, Kernels, Model, Threads
from cnn.cli.output import print_json, result_line, say
from cnn.optimizers import OPTIMIZERS
from cnn.runs import Config, RunFolder, RunLog
from cnn.schedules import SCHEDULES


@app.command()
def train(
    model: Model = DEFAULT.model,
    data: Annotated[
        str,
        typer.Option(
            help="mnist, or a folder of four IDX files, or an .npz with x_train, y_train, x_test, y_test."
        ),
    ] = DEFAULT.data,
    classes: Annotated[
        str | None, typer.Option(help="Some of the classes, as in 0,1.", show_default="all")
    ] = None,
    per_class: Annotated[
        int | None, typer.Option(help="Training images of each class.", show_default="all")
    ] = DEFAULT.per_class,
    epochs: Annotated[int, typer.Option(help="Times through the training set.")] = DEFAULT.epochs,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = DEFAULT.batch_size,
    optimizer: Annotated[str, typer.Option(help=f"{', '.join(OPTIMIZERS)}.")] = DEFAULT.optimizer,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="At its highest.", show_default="0.1 for sgd, 0.001 for adam and adamw"),
    ] = DEFAULT.learning_rate,
    schedule: Annotated[
        str, typer.Option(help=f"How the learning rate goes on: {', '.join(SCHEDULES)}.")
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
    out: Annotated[
        Path | None, typer.Option(help="The run's folder, a new one.", show_default="runs/MODEL-TIME")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a network and test it.

    The run's folder gets config.json, environment.json, metrics.csv and model.safetensors.
    """
    if data != DEFAULT.data and Path(data).exists():
        data = str(Path(data).resolve())  # the run's folder is to find it from anywhere
    config = Config(
        model=model, data=data, classes=_names(classes), per_class=per_class, epochs=epochs,
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
    headline = f"{model} on {len(train_set):,} images of {data}; {backend.name} ({backend.reason})"
    try:
        history = cnn.fit(
            network,
            train_set,
            validation=test_set,
            optimizer=chosen,
            schedule=config.make_schedule(),
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            callbacks=[
                cnn.NaNGuard(),
                RunLog(folder, config, train_set.classes),
                Headline(headline),
                cnn.Progress(),
            ],
        )
    except KeyboardInterrupt:
        if folder.weights.exists():
            say(f"interrupted: {folder.weights} holds the weights of the last whole epoch")
        else:
            say("interrupted in the first epoch: no weights were saved")
        raise typer.Exit(130) from None
    result = {
        "loss": history[-1]["validation_loss"],
        "accuracy": history[-1]["validation_accuracy"],
        "count": len(test_set),
    }
    if as_json:
        print_json({"run": str(folder.path), **result, "history": history})
    else:
        print(f"{result_line(result)}\n{folder.path}")


class Headline(cnn.Callback):
    """Says what is about to run, once nothing speaks against it."""

    def __init__(self, text: str) -> None:
        self.text = text

    def on_start(self, run: Any) -> None:
        say(self.text)


def _names(text: str | None) -> list[str] | None:
    """Cut "0, 1" into ["0", "1"]."""
    return None if text is None else [name.strip() for name in text.split(",")]
