"""``cnn demo``."""

import os
import sys
import threading
import webbrowser
from typing import Annotated

import typer

import backends
from cnn.cli.app import app, examples
from cnn.cli.options import DEFAULT, AsJson, Device, Kernels, OwnWinograd, Run, Threads, Weights
from cnn.cli.output import print_json, say, say_weights
from cnn.data import needs_download
from cnn.data.dataset import Dataset
from cnn.runs.trained import Trained, load_trained
from cnn.support.errors import DataError
from cnn.support.terminal import write_line


@app.command(
    epilog=examples(
        "cnn demo runs/lenet5-20261124-025825",
        "cnn demo runs/lenet5-20261124-025825 --no-browser",
        "cnn demo model.safetensors --data photos/",
    )
)
def demo(
    run: Run,
    data: Annotated[
        str | None,
        typer.Option(
            help="Data set whose test images can be looked at, or all of it if it has none.",
            show_default="the run's own",
        ),
    ] = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address, and do not open it in the browser.")
    ] = False,
    weights: Weights = None,
    device: Device = DEFAULT.device,
    kernels: Kernels = DEFAULT.kernels,
    threads: Threads = DEFAULT.threads,
    winograd: OwnWinograd = None,
    as_json: AsJson = False,
) -> None:
    """Show what a trained network sees: draw a picture, or drop one on a page in the browser.

    The page shows the prediction, the image that the network gets, and the outputs of all layers while you
    draw. It is served on this machine alone, at an address with a random token, until you press Ctrl-C.
    Nothing is sent elsewhere.
    """
    from cnn.demo import Server, Viewer  # with the web server, which other commands do without

    trained = load_trained(run, backends.get(device, kernels, threads), weights, winograd)
    say_weights(trained, weights)
    tests = _test_images(trained, data) if data else _own_test_images(trained)
    viewer = Viewer(trained.network, trained.class_names, run.resolve().name, tests, trained.tta)
    with Server(viewer) as server:
        if as_json:
            print_json({"address": server.address})
            sys.stdout.flush()
        else:
            write_line(server.address)
        say("the page is served at this address until you press Ctrl-C")
        if not no_browser and _has_screen():
            threading.Thread(target=webbrowser.open, args=(server.address,), daemon=True).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("stopped")


def _own_test_images(trained: Trained) -> Dataset | str:
    """The test images of the run's data, or a sentence that says why there are none."""
    try:
        data = trained.require_data()
        if needs_download(data):
            raise DataError(f"{data} is not downloaded on this machine")
        return _test_images(trained, data)
    except ValueError as error:
        return f"there are no test images: {error}"


def _test_images(trained: Trained, data: str) -> Dataset:
    tests = trained.test_set(data).labelled_as(trained.class_names)
    trained.network.check_images(tests.images)
    tests.require_classes("the page")
    return tests


def _has_screen() -> bool:
    """Whether a browser can show a page; without a screen it would take over the terminal."""
    names = "DISPLAY", "WAYLAND_DISPLAY"
    return not sys.platform.startswith(("linux", "freebsd")) or any(map(os.environ.get, names))
