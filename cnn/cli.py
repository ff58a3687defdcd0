"""The ``cnn`` command. Results go to standard output, progress and errors to standard error."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

import backends
import cnn
from backends import DeviceUnavailable
from cnn import models
from cnn import summary as network_summary
from cnn.errors import ArgumentError, CheckpointError, DataError, ShapeError, TrainingError
from cnn.models import MODELS
from cnn.optimizers import OPTIMIZERS
from cnn.runs import Config, RunFolder, RunLog, environment
from cnn.schedules import SCHEDULES

USER_ERRORS = (ArgumentError, CheckpointError, DataError, DeviceUnavailable, ShapeError)
DEFAULT = Config()

app = typer.Typer(
    name="cnn",
    help="Small convolutional networks on a CPU or a CUDA GPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N; CNN_DEVICE sets what auto means.")]
Kernels = Annotated[str, typer.Option(help="auto, portable or signal.")]
Threads = Annotated[
    int | None, typer.Option(help="Threads of the linear algebra library.", show_default="all cores")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Model = Annotated[str, typer.Option(help=f"{' or '.join(MODELS)}.")]
Run = Annotated[Path, typer.Argument(help="The folder that `cnn train` wrote.", show_default=False)]


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
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = DEFAULT.dtype,
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
        _say("note: the images are floats beyond 10; scaled to 0..1 they train better")
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
            _say(f"interrupted: {folder.weights} holds the weights of the last whole epoch")
        else:
            _say("interrupted in the first epoch: no weights were saved")
        raise typer.Exit(130) from None
    result = {
        "loss": history[-1]["validation_loss"],
        "accuracy": history[-1]["validation_accuracy"],
        "count": len(test_set),
    }
    if as_json:
        _print_json({"run": str(folder.path), **result, "history": history})
    else:
        print(f"{_result_line(result)}\n{folder.path}")


@app.command()
def evaluate(
    run: Run,
    data: Annotated[str | None, typer.Option(help="Another data set.", show_default="the run's own")] = None,
    device: Device = DEFAULT.device,
    kernels: Kernels = DEFAULT.kernels,
    threads: Threads = DEFAULT.threads,
    as_json: AsJson = False,
) -> None:
    """Test a trained network on the test set of its data."""
    folder = RunFolder(run)
    network, config, class_names = folder.load(backends.get(device, kernels, threads))
    test_set = cnn.data.load(data or config.data)[1].only(class_names)
    result = {**cnn.evaluate(network, test_set), "count": len(test_set)}
    if as_json:
        _print_json(result)
    else:
        print(_result_line(result))


@app.command()
def summary(
    model: Model = DEFAULT.model,
    input_shape: Annotated[str, typer.Option(help="Channels, height and width of an image.")] = "1,28,28",
    classes: Annotated[int, typer.Option(help="How many classes.")] = 10,
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = DEFAULT.dtype,
    as_json: AsJson = False,
) -> None:
    """Show a model's layers: output shapes, parameters, multiply-adds, memory."""
    try:
        shape = tuple(int(size) for size in input_shape.split(","))
    except ValueError:
        raise ArgumentError(f"--input-shape is {input_shape!r}, expected numbers as in 1,28,28") from None
    network = models.get(model, classes)
    network.build(shape, backend="cpu", dtype=dtype)
    if as_json:
        _print_json({"layers": network_summary.rows(network), "total": network_summary.totals(network)})
    else:
        network.summary()


@app.command()
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
    results = cnn.check_gradients(network, entries=entries, seed=seed)
    if as_json:
        _print_json([asdict(result) | {"passed": result.passed} for result in results])
    else:
        for result in results:
            verdict = "right" if result.passed else "WRONG"
            print(f"{result.name:<10} {result.checked:>4} tried   error {result.error:.1e}   {verdict}")
    if not all(result.passed for result in results):
        raise typer.Exit(1)


@app.command()
def info(as_json: AsJson = False) -> None:
    """Show the devices, why one cannot be used, versions and libraries: what a bug report needs."""
    found = backends.available()
    devices = {
        name: {"usable": False, "reason": str(device)}
        if isinstance(device, DeviceUnavailable)
        else {"usable": True, **device.describe(), "memory": device.memory()}
        for name, device in found.items()
    }
    report = {**environment(), "devices": devices}
    if as_json:
        _print_json(report)
    else:
        _print_nested(report)


class Headline(cnn.Callback):
    """Says what is about to run, once nothing speaks against it."""

    def __init__(self, text: str) -> None:
        self.text = text

    def on_start(self, run: Any) -> None:
        _say(self.text)


def main() -> None:
    """Run the command; a user's mistake is one sentence and exit code 2, never a traceback."""
    try:
        app()
    except TrainingError as error:
        _fail(error, 1)
    except USER_ERRORS as error:
        _fail(error, 2)
    except MemoryError as error:
        _fail(f"out of memory ({error}): take smaller images, layers or batches", 2)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else error.strerror, 2)


def _fail(error: object, code: int) -> NoReturn:
    _say(f"error: {error}")
    sys.exit(code)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _names(text: str | None) -> list[str] | None:
    """Cut "0, 1" into ["0", "1"]."""
    return None if text is None else [name.strip() for name in text.split(",")]


def _result_line(result: dict[str, float]) -> str:
    return f"test accuracy {result['accuracy']:.2%}, loss {result['loss']:.4f}, on {result['count']:,} images"


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def _print_nested(values: dict[str, Any], indent: str = "") -> None:
    for name, value in values.items():
        if isinstance(value, dict):
            print(f"{indent}{name}")
            _print_nested(value, indent + "  ")
        else:
            print(f"{indent}{name + ':':<14} {value}")
