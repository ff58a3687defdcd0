"""The app that the commands add themselves to, and how it ends: a mistake is one sentence, no traceback."""

import sys
from typing import NoReturn

import typer

from cnn.cli.output import say
from cnn.errors import (
    ArgumentError,
    CheckpointError,
    DataError,
    DeviceUnavailable,
    DisagreementError,
    ShapeError,
    TrainingError,
)

USER_ERRORS = (ArgumentError, CheckpointError, DataError, DeviceUnavailable, ShapeError)

app = typer.Typer(
    name="cnn",
    help="Small convolutional networks on a CPU or a CUDA GPU.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command; a user's mistake is one sentence and exit code 2."""
    try:
        app()
    except (TrainingError, DisagreementError) as error:
        _fail(error, 1)
    except USER_ERRORS as error:
        _fail(error, 2)
    except MemoryError as error:
        _fail(f"out of memory ({error}): take smaller images, layers or batches", 2)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else error.strerror, 2)


def examples(*lines: str) -> str:
    """What stands below a command's help."""
    return "\n  ".join(("Examples:", *lines))


def _fail(error: object, code: int) -> NoReturn:
    say(f"error: {error}")
    sys.exit(code)
