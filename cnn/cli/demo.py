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
from cnn.data import load, needs_download
from cnn.data.dataset import Dataset
from cnn.data.pictures import Pictures
from cnn.demo import Server, Viewer
from cnn.network import Network
from cnn.runs.config import Config
from cnn.runs.folder import RunFolder
from cnn.support.terminal import write_line


@app.command(
    epilog=examples(
        "cnn demo runs/lenet5-20261124-025825", "cnn demo runs/lenet5-20261124-025825 --no-browser"
    )
)
def demo(
    run: Run,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")
    ] = True,
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
    folder = RunFolder(run)
    network, config, class_names = folder.load(backends.get(device, kernels, threads), weights, winograd)
    say_weights(folder, weights)
    tests = _tests(network, config, class_names)
    with Server(Viewer(network, class_names, folder.path.resolve().name, tests, config.tta)) as server:
        if as_json:
            print_json({"address": server.address})
            sys.stdout.flush()
        else:
            write_line(server.address)
        say("the page is served at this address until you press Ctrl-C")
        if browser and _has_screen():
            threading.Thread(target=webbrowser.open, args=(server.address,), daemon=True).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("stopped")


def _tests(network: Network, config: Config, class_names: tuple[str, ...]) -> Dataset | str:
    """The test images of the run's data, or a sentence that says why there are none."""
    if needs_download(config.data):
        return f"there are no test images: {config.data} is not downloaded on this machine"
    try:
        config.require_data()
        tests = load(config.data, Pictures.of(network), config.seed)[1].labelled_as(class_names)
        network.check_images(tests.images[:1])
        tests.require_classes("the page")
    except ValueError as error:
        return f"there are no test images: {error}"
    return tests


def _has_screen() -> bool:
    """Whether a browser can show a page; without a screen it would take over the terminal."""
    names = "DISPLAY", "WAYLAND_DISPLAY"
    return not sys.platform.startswith(("linux", "freebsd")) or any(map(os.environ.get, names))
