"""``cnn evaluate``."""

from typing import Annotated

import typer

import backends
from cnn.cli.app import app, examples
from cnn.cli.class_table import print_classes
from cnn.cli.options import DEFAULT, AsJson, Device, Kernels, OwnWinograd, Run, Threads, Tta, Weights
from cnn.cli.output import print_json, result_line, say_notes
from cnn.data.notes import notes_on
from cnn.runs.trained import load_trained
from cnn.support.arguments import whole
from cnn.support.terminal import write_line
from cnn.support.text import percent, some_of
from cnn.training import evaluation
from cnn.training.metrics import all_metrics


@app.command(
    epilog=examples(
        "cnn evaluate runs/lenet5-20261124-025825",
        "cnn evaluate runs/lenet5-20261124-025825 --all",
        "cnn evaluate runs/mine --data other_images.npz --json",
    )
)
def evaluate(
    run: Run,
    data: Annotated[
        str | None,
        typer.Option(
            help="Data set whose test set is used, or all of it if it has none.", show_default="the run's own"
        ),
    ] = None,
    top: Annotated[int, typer.Option(help="Also show the top-k accuracy for this k.")] = 5,
    every: Annotated[bool, typer.Option("--all", help="Show all classes and the confusion matrix.")] = False,
    weights: Weights = None,
    tta: Tta = None,
    device: Device = DEFAULT.device,
    kernels: Kernels = DEFAULT.kernels,
    threads: Threads = DEFAULT.threads,
    winograd: OwnWinograd = None,
    as_json: AsJson = False,
) -> None:
    """Test a trained network on the test set of its data.

    The first line has the accuracy and the loss. The table has precision, recall and F1 of each class, and
    the class that its images are most often taken for. If there are more than 20 classes, it shows those with
    the lowest F1. --json has the results of all classes and the confusion matrix.

    If the data have no test set, the validation set is used. If there is none either, all pictures or rows
    are tested; of the data that the network was trained on, only the fifth that was held out.

    Pictures are prepared as the training images were. Images of classes that the network does not know are
    left out, with a note.
    """
    whole("top", top)
    trained = load_trained(run, backends.get(device, kernels, threads), weights, winograd)
    network, class_names = trained.network, trained.class_names
    given = trained.test_set(data)
    say_notes(given.notes)
    if data:
        say_notes(notes_on(given, "test"))
    test_set = given.labelled_as(class_names)
    if len(test_set) < len(given):
        unknown = some_of(name for name in given.classes if name not in class_names)
        left_out = f"{len(given) - len(test_set):,} images"
        say_notes([f"{left_out} of classes that the network does not know are left out: {unknown}"])
    metrics = all_metrics(len(class_names), top)
    found = evaluation.evaluate(network, test_set, tta=tta or trained.tta, metrics=metrics)
    found["per_class"] = dict(zip(class_names, found["per_class"], strict=True))
    result = {**found, "count": len(test_set), **trained.about}
    if as_json:
        print_json(result)
        return
    write_line(result_line(result))
    if (name := f"top_{top}") in result:
        write_line(f"top-{top} accuracy {percent(result[name])}")
    print_classes(result["confusion"], class_names, every)
