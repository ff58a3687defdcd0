"""``cnn train``."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import backends
import cnn
from backends.text import readable_bytes
from cnn import plan, tensorboard
from cnn.arguments import whole
from cnn.callbacks import Dispensable
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
from cnn.data.feed import is_too_large
from cnn.errors import DeviceLost, OutOfMemory
from cnn.network import Sequential
from cnn.optimizers import OPTIMIZERS, Optimizer
from cnn.report import examine, write_report
from cnn.runs import Config, RunFolder, RunLog
from cnn.schedules import SCHEDULES


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
    fuse: Annotated[
        bool, typer.Option(help="Compute a layer and those after it in one pass, where the kernels can.")
    ] = DEFAULT.fuse,
    graph: Annotated[
        bool, typer.Option(help="On a GPU: record a step and let the GPU repeat it by itself.")
    ] = DEFAULT.graph,
    tf32: Annotated[
        bool, typer.Option(help="On a GPU: multiply with 10 bits after the point (TF32), faster.")
    ] = DEFAULT.tf32,
    stream: Annotated[
        bool | None,
        typer.Option(
            help="Leave the training images on the host, and bring batches to the device meanwhile.",
            show_default="where they do not fit",
        ),
    ] = DEFAULT.stream,
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
        kernels=kernels, threads=threads, dtype=dtype, fuse=fuse,
        graph=graph, tf32=tf32, stream=stream,
    )  # fmt: skip
    backend = backends.get(device, kernels, threads, tf32)
    if tf32 and backend.name == "cpu":
        say("note: --tf32 changes nothing on the CPU")
    train_set, test_set = config.load_data()
    backend.kernels.when_compiling(lambda: say(COMPILING))
    network = config.make_network(train_set.shape, len(train_set.classes), backend)
    if train_set.images.dtype.kind == "f" and abs(train_set.images).max() > 10:
        say("note: the images are floats beyond 10; scaled to 0..1 they train better")
    chosen = config.make_optimizer()
    folder = RunFolder(out) if out else RunFolder.default(model)
    job = Job(config.with_values_of(chosen), folder, network, chosen, train_set, test_set)
    if dry_run:
        job.show_plan(as_json)
        return
    history = job.fit()
    job.report(drawn=report)
    result = {
        "loss": history[-1]["validation_loss"],
        "accuracy": history[-1]["validation_accuracy"],
        "count": len(test_set),
    }
    if as_json:
        print_json({"run": str(folder.path), **result, "history": history})
    else:
        print(f"{result_line(result)}\n{folder.path}")


COMPILING = "compiling kernels for this processor, which takes some seconds; they are kept for the next time"


@dataclass(frozen=True)
class Job:
    """A run that is ready to start."""

    config: Config
    folder: RunFolder
    network: Sequential
    optimizer: Optimizer
    train_set: Dataset
    test_set: Dataset

    @property
    def headline(self) -> str:
        """What is trained on what, where."""
        config, backend = self.config, self.network.backend
        where = f"{backend.name} ({backend.reason})"
        return f"{config.model} on {len(self.train_set):,} images of {config.data}; {where}"

    def fit(self) -> list[dict[str, Any]]:
        """Train, with everything that goes on around it; -> the history."""
        self.folder.require_new()  # so that weights in it are of this run
        callbacks = [
            cnn.NaNGuard(),
            RunLog(self.folder, self.config, self.train_set.classes),
            Headline(self.headline, self.network.backend.slower),
            cnn.Progress(),
        ]
        if tensorboard.installed():
            logs = tensorboard.TensorBoard(self.folder.tensorboard)
            callbacks.append(Dispensable(logs, "logs for TensorBoard", say))
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # the guard says it better
                return cnn.fit(
                    self.network,
                    self.train_set,
                    validation=self.test_set,
                    optimizer=self.optimizer,
                    schedule=self.config.make_schedule(),
                    epochs=self.config.epochs,
                    batch_size=self.config.batch_size,
                    seed=self.config.seed,
                    callbacks=callbacks,
                    graph=self.config.graph,
                    stream=self.config.stream,
                )
        except KeyboardInterrupt:
            say(f"interrupted: {self.saved()}")
            raise typer.Exit(130) from None
        except (OutOfMemory, DeviceLost) as error:
            say(f"error: {error}; {self.saved()}")
            raise typer.Exit(2) from None

    def saved(self) -> str:
        """What there is of a training that was cut short."""
        if self.folder.weights.exists():
            return f"{self.folder.weights} holds the weights of the last whole epoch"
        return "no weights were saved, no epoch was whole"

    def report(self, drawn: bool) -> None:
        """Write down what the test found, and draw it; where that fails, the trained run stays as it is."""
        try:
            examine(self.network, self.test_set, self.config.batch_size).save(self.folder.evaluation)
            if drawn:
                say(f"drew {write_report(self.folder).page}")
        except KeyboardInterrupt:
            say(f"interrupted while drawing: the run is whole, `cnn report {self.folder.path}` draws it")
        except Exception as error:  # whatever drawing fails of, the run is done and is not to end badly
            say(f"no report: {error}")

    def show_plan(self, as_json: bool) -> None:
        """Say what the run would do and take; what would stop it at its start stops here too."""
        whole("epochs", self.config.epochs)
        whole("batch_size", self.config.batch_size)
        self.config.make_schedule()
        self.folder.require_new()
        config = self.config
        stream = config.stream
        if stream is None:
            stream = is_too_large(self.network.backend, self.train_set.images, self.network.dtype)
        what = self.network, self.optimizer, self.train_set, self.test_set
        memory = plan.memory(*what, config.batch_size, stream)
        steps = -(-len(self.train_set) // config.batch_size)
        if as_json:
            figures = {"steps": config.epochs * steps, "memory": asdict(memory) | {"total": memory.total}}
            print_json({"run": str(self.folder.path), "config": asdict(config), **figures})
            return
        print(self.headline)
        print(f"epochs: {config.epochs}, each of {steps:,} steps and a test on {len(self.test_set):,} images")
        self.network.summary()
        parts = ", ".join(f"{name} {readable_bytes(count)}" for name, count in asdict(memory).items())
        print(f"memory on {self.network.backend.name}: about {readable_bytes(memory.total)} ({parts})")
        print(f"would write {self.folder.path}")


class Headline(cnn.Callback):
    """Says what is about to run, and why not faster, once nothing speaks against it."""

    def __init__(self, text: str, slower: str | None) -> None:
        self.text, self.slower = text, slower

    def on_start(self, run: Any) -> None:
        say(self.text)
        if self.slower:
            say(f"note: this runs slower than it could: {self.slower}")
