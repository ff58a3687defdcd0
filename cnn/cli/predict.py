"""``cnn predict``."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import backends
from cnn.cli.app import app, examples
from cnn.cli.options import DEFAULT, AsJson, Device, Kernels, OwnWinograd, Run, Threads, Tta, Weights
from cnn.cli.output import print_json, say, say_weights
from cnn.data.fitting import FITS, fitted_file, require_fit
from cnn.data.pictures import Pictures
from cnn.data.readers.photographs import pictures_at, read_picture
from cnn.runs.trained import classify, load_trained
from cnn.support.arguments import whole
from cnn.support.errors import DataError
from cnn.support.terminal import make_console
from cnn.support.text import labels, percent, printable, text_width

AUTO, RESIZE = "auto", "resize"  # version 0.1's names of the default and of stretch

Result = tuple[Path, Any, Any]  # the file, its image (C, H, W), the probabilities

BAR = 40  # columns of a bar for 100 %, if the terminal has room
SHADES = " .:-=+*#%@"  # from dark to bright; letters, since blocks look turned around on a light terminal


@app.command(
    epilog=examples(
        "cnn predict runs/lenet5-20261124-025825 seven.png",
        "cnn predict runs/lenet5-20261124-025825 seven.png --show",
        "cnn predict runs/lenet5-20261124-025825 scans/ --json",
    )
)
def predict(
    run: Run,
    pictures: Annotated[
        list[Path],
        typer.Argument(
            readable=False,
            help="Pictures, or folders with pictures in them or in their folders.",
            show_default=False,
        ),
    ],
    top: Annotated[int, typer.Option(help="How many classes to show.")] = 3,
    show: Annotated[bool, typer.Option("--show", help="Also show the image that the network gets.")] = False,
    fit: Annotated[
        str | None,
        typer.Option(
            "--fit",
            "--prepare",
            help="How pictures become images of the network's size: crop (the middle), letterbox (all of it, "
            "with bars), stretch (all of it, distorted) or digit (cut out and centred as in MNIST).",
            show_default="as the training images",
            autocompletion=lambda: list(FITS),
        ),
    ] = None,
    weights: Weights = None,
    tta: Tta = None,
    device: Device = DEFAULT.device,
    kernels: Kernels = DEFAULT.kernels,
    threads: Threads = DEFAULT.threads,
    winograd: OwnWinograd = None,
    as_json: AsJson = False,
) -> None:
    """Classify photographs and scans.

    Pictures are prepared as the training images were. A file that cannot be used is named and skipped, and
    the exit code is then 1. The network gets the brightness as 0..1, as it got images of bytes in training.
    A network that was trained on floats of another range needs `predict` in Python.
    """
    whole("top", top)
    if fit == RESIZE:
        fit = "stretch"
    if fit not in (None, AUTO):
        require_fit(fit)
    trained = load_trained(run, backends.get(device, kernels, threads), weights, winograd)
    network, class_names = trained.network, trained.class_names
    say_weights(trained, weights)
    if fit in (None, AUTO):
        fit = Pictures.of(network).fit
    unread: list[DataError] = []

    def results() -> Iterator[Result]:
        """The probabilities for each picture that can be read; errors are shown for the others."""
        for file, image in _images(pictures, fit, network.input_shape):
            if isinstance(image, DataError):
                say(f"error: {image}")
                unread.append(image)
                continue
            yield file, image, classify(network, image, tta or trained.tta, run)

    if as_json:
        print_json([_as_data(*result, class_names, show) for result in results()])
    else:
        _print_bars(results(), class_names, top, show)
    if unread:
        raise typer.Exit(1)


def _images(paths: list[Path], fit: str, shape: tuple[int, ...]) -> Iterator[tuple[Path, Any | DataError]]:
    """Each picture's file with its image for the network, or with the error if it cannot be used."""
    for path in paths:
        try:
            files = pictures_at(path)
        except DataError as error:
            yield path, error
            continue
        for file in files:
            try:
                yield file, fitted_file(file, read_picture(file), shape, fit)
            except DataError as error:
                yield file, error


def _as_data(file: Path, image: Any, shares: Any, class_names: Sequence[str], show: bool) -> dict[str, Any]:
    answer = {
        "file": str(file),
        "class": class_names[shares.argmax()],
        "probabilities": dict(zip(class_names, shares.tolist(), strict=True)),
    }
    return answer | {"image": image.tolist()} if show else answer


def _print_bars(results: Iterable[Result], class_names: Sequence[str], top: int, show: bool) -> None:
    """Print the file, the image if ``show``, and a bar for each of the top classes."""
    from rich.text import Text

    console = make_console()
    names = labels([_shown(name) for name in class_names], max(2, console.width // 3))
    column = max(map(text_width, names))
    room = max(1, min(BAR, console.width - column - len("   100.00% ")))
    block = "█" if _shown("█") == "█" else "#"
    for file, image, shares in results:
        console.print(Text(_shown(str(file)), "bold"), soft_wrap=True)
        for line in _drawn(image, console.width - 2) if show else []:
            console.print(Text(f"  {line}".rstrip()), soft_wrap=True)
        for label in np.argsort(-shares, kind="stable")[:top]:
            name = names[label] + " " * (column - text_width(names[label]))
            text = f"  {name} {percent(shares[label]):>7}"
            bar = block * round(float(shares[label]) * room)
            console.print(Text.assemble(text, (f" {bar}" if bar else "", "green")), soft_wrap=True)


def _drawn(image: Any, columns: int) -> list[str]:
    """The brightness of ``image`` (C, H, W) as text, two columns for a pixel; scaled down if too wide."""
    from PIL import Image

    grey = Image.fromarray(image.mean(axis=0).round().astype(np.uint8))
    grey.thumbnail((max(1, columns // 2), grey.height))
    levels = np.minimum(np.asarray(grey, dtype=int) * len(SHADES) // 255, len(SHADES) - 1)
    return ["".join(2 * SHADES[level] for level in row) for row in levels]


def _shown(text: str) -> str:
    """``text`` without control characters and without characters that standard output cannot encode."""
    encoding = sys.stdout.encoding or "utf-8"
    return printable(text).encode(encoding, "replace").decode(encoding)
