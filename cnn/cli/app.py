"""The app that the commands add themselves to, and how it ends: a mistake is one sentence, no traceback."""

import logging
import os
import re
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EPIPE
from typing import Annotated, Any, NoReturn

import typer

from cnn.cli import suggestions
from cnn.cli.distributed import fail
from cnn.cli.help import Command, Group, UsageError, description
from cnn.cli.output import say
from cnn.cli.signals import Terminated, raising_on_sigterm
from cnn.support.errors import (
    ArgumentError,
    CheckpointError,
    DataError,
    DeviceLost,
    DeviceUnavailable,
    DisagreementError,
    Notice,
    OutOfMemory,
    ShapeError,
    TrainingError,
)
from cnn.support.files import reason_of
from cnn.support.libraries import at_fault, failure
from cnn.support.streams import OutputLost, guarded
from cnn.support.version import VERSION
from cnn.training.distributed import launcher

USER_ERRORS = (
    ArgumentError,
    CheckpointError,
    DataError,
    DeviceLost,
    DeviceUnavailable,
    OutOfMemory,
    ShapeError,
)


class App(typer.Typer):
    """Commands with our own help."""

    def command(self, *arguments: Any, **named: Any) -> Any:
        """Add the function below as a command."""
        add = super().command
        return lambda function: add(*arguments, cls=Command, help=description(function), **named)(function)

    def callback(self, *arguments: Any, **named: Any) -> Any:
        """Take the function below for what comes before all commands."""
        add = super().callback
        return lambda function: add(*arguments, help=description(function), **named)(function)


def _tell(version: bool) -> None:
    """Print the version, if it is asked for."""
    if version:
        print(f"xpcnn {VERSION}")
        raise typer.Exit()


app = App(
    name="cnn",
    cls=Group,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def common(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", "-V", help="Show the version and exit.", is_eager=True, callback=_tell),
    ] = False,
) -> None:
    """Train, test and compare small convolutional networks on a CPU or a CUDA GPU."""
    if launcher.size() > 1 and context.invoked_subcommand != "train":
        raise ArgumentError(
            f"{launcher.size()} processes were started, but only `cnn train` runs in several: start `cnn "
            f"{context.invoked_subcommand}` without the launcher"
        )


@guarded()
def main() -> None:
    """Run the command; a user's mistake is one sentence and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a name may have letters that the screen lacks
    for size in ("COLUMNS", "LINES"):
        if not os.environ.get(size, "").strip("0").isdecimal():
            os.environ.pop(size, None)  # the size of no terminal
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # where it keeps its fonts is no news
    warnings.showwarning = _show_warning
    try:
        with _holding_back_complaints(), raising_on_sigterm():
            code = app(standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code)
    except UsageError as error:
        _fail(_usage(error), 2)
    except (TrainingError, DisagreementError) as error:
        _fail(error, 1)
    except USER_ERRORS as error:
        _fail(error, 2)
    except MemoryError as error:
        _fail(f"out of memory ({error}): use smaller images, or a smaller network", 2)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted", 130)
    except Terminated:
        _fail("terminated", 143)
    except OutputLost as error:
        if error.errno == EPIPE:  # of `cnn ... | head`, which has seen enough
            sys.exit(1)
        _fail(f"standard output cannot be written ({error.strerror}): what was printed there is lost", 2)
    except Exception as error:
        library = at_fault(error)
        if isinstance(error, OSError) and (error.errno or not library):
            _fail(reason_of(error), 2)
        if not library:
            raise
        _fail(failure(library, error), 2)


def examples(*lines: str) -> str:
    """What stands below a command's help."""
    return "\n  ".join(("Examples:", *lines))


_as_python_shows_it: Callable[..., None] = warnings.showwarning


def _show_warning(message: Warning | str, *where: Any, **named: Any) -> None:
    """A warning of our own is a note; others are shown if the user asks Python for warnings (-W)."""
    if isinstance(message, Notice):
        say(f"note: {message}")
    elif sys.warnoptions:
        _as_python_shows_it(message, *where, **named)


def _fail(error: object, code: int) -> NoReturn:
    if launcher.is_launched():
        fail(str(error), code)
    say(f"error: {error}")
    if _is_after_a_loss(error):
        _leave(code)
    sys.exit(code)


@contextmanager
def _holding_back_complaints() -> Iterator[None]:
    """Print what objects complain of while they are destroyed at the end, unless a device was lost."""
    held: deque[Any] = deque(maxlen=100)
    show, sys.unraisablehook = sys.unraisablehook, held.append
    try:
        yield
    except BaseException as error:
        if _is_after_a_loss(error):
            held.clear()
        raise
    finally:
        sys.unraisablehook = show
        for complaint in held:
            show(complaint)


def _is_after_a_loss(error: object) -> bool:
    """Whether a device was lost, which is this error or what led to it."""
    while isinstance(error, BaseException) and not isinstance(error, DeviceLost):
        error = error.__cause__ or error.__context__
    return isinstance(error, DeviceLost)


def _leave(code: int) -> NoReturn:
    """End the process without destroying its objects: each one on a lost device would print an error.

    If standard output is not the process's own, a notebook or a test has called the command and goes on.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads it any more
            stream.flush()
    with suppress(OSError):  # it is no file
        if sys.stdout.fileno() == 1:
            os._exit(code)
    sys.exit(code)


def _usage(error: Any) -> str:
    """What is wrong with the command line, what may be meant, and where to look."""
    message = _with_the_value(error).rstrip(".?")
    command = error.ctx.command_path if error.ctx else app.info.name
    if unknown := re.match(r"No such (option|command):? (?:'(.*?)'|([^ ]+))", message):
        message = unknown[0]
        if meant := _meant(error.ctx.command, unknown[1], unknown[2] or unknown[3]):
            return f"n{message[1:]}; did you mean `{meant}`? `{command} --help` shows what there is"
    return f"{message[0].lower()}{message[1:]}: `{command} --help` shows what there is"


def _with_the_value(error: Any) -> str:
    """The error's message; pydantic, with which newer versions of typer read values, omits the value."""
    message: str = error.format_message()
    if hasattr(error.__cause__, "errors"):
        (wrong, *_) = error.__cause__.errors()
        message = message.partition(", unable to")[0].replace("Input", repr(wrong["input"]), 1)
    return message


def _meant(command: Any, kind: str, name: str) -> str | None:
    """The option or the command that ``name`` may stand for."""
    if kind == "command":
        return suggestions.command(name, list(command.commands))
    flags = [flag for option in command.params for flag in (*option.opts, *option.secondary_opts)]
    return suggestions.flag(name, flags)
