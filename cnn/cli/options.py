"""The options that several commands share. Those of a run's settings follow from the fields of Config."""

from collections.abc import Callable
from dataclasses import fields
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from cnn.runs.config import Config
from cnn.runs.folder import WEIGHTS
from cnn.support.errors import ArgumentError
from cnn.training import defaults

DEFAULT = Config()
SETTINGS = {field.name: field for field in fields(Config)}

RUN = "Run"  # the title that --help shows the options below that are about a run's folder


def choices(name: str) -> list[str]:
    """The names that a setting may have, for the shell's completion."""
    return list(SETTINGS[name].metadata["choices"])


def option(name: str, shown: str | None = None) -> Any:
    """The option of a setting; its type and its default are the parameter's.

    ``shown`` stands in --help as the default, if that is not the setting's own.
    """
    about = SETTINGS[name].metadata
    names = (f"--{each.replace('_', '-')}" for each in (name, about["alias"]) if about["alias"] and each)
    return typer.Option(
        *names,
        help=about["help"],
        show_default=shown or about["shown"] or True,
        autocompletion=(lambda: choices(name)) if about["choices"] else None,
        callback=about["parse"],
        rich_help_panel=about["panel"],
    )


def with_settings(*names: str) -> Callable[[Any], Any]:
    """Give a command the options of these settings, or of all; it gets the values as ``**settings``.

    They come after the command's positional parameters and before its keyword-only ones. A parameter of the
    command with the name of a setting replaces the setting's option.
    """

    def decorated(function: Any) -> Any:
        own = signature(function).parameters
        generated = {name: _parameter(name) for name in names or SETTINGS}
        all_of_them = [each for each in (generated | own).values() if each.kind is not each.VAR_KEYWORD]
        function.__signature__ = Signature(sorted(all_of_them, key=lambda each: each.kind))
        return function

    return decorated


def _parameter(name: str) -> Parameter:
    field = SETTINGS[name]
    kind: Any = str | None if field.metadata["parse"] else field.type
    return Parameter(
        name, Parameter.KEYWORD_ONLY, default=field.default, annotation=Annotated[kind, option(name)]
    )


def image_shape(text: str) -> tuple[int, ...]:
    """The channels, the height and the width that --input-shape names."""
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError:
        raise ArgumentError(f"--input-shape is {text!r}, expected numbers as in 1,28,28") from None


def given(context: typer.Context) -> dict[str, str]:
    """The parameters that have a value on the command line, with how they are written there."""
    sources = {each: context.get_parameter_source(each.name or "") for each in context.command.params}
    return {
        each.name: each.opts[0]
        for each, source in sources.items()
        if each.name and source and source.name == "COMMANDLINE"
    }


Model = Annotated[str, option("model", shown=defaults.MODEL)]
Device = Annotated[str, option("device")]
Kernels = Annotated[str, option("kernels")]
Threads = Annotated[int | None, option("threads")]
Dtype = Annotated[str, option("dtype")]
Winograd = Annotated[bool, option("winograd")]
OwnWinograd = Annotated[
    bool | None,
    typer.Option(
        "--winograd/--no-winograd", help=SETTINGS["winograd"].metadata["help"], show_default="the run's own"
    ),
]
Tta = Annotated[
    str | None,
    typer.Option(
        help="Test-time augmentation, such as mirror or mirror,shifts=1; none turns it off.",
        show_default="as the run was tested",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]
# readable=False leaves permissions unchecked: some file systems show them wrongly, and opening a file tells.
Run = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        readable=False,
        help="A run's folder, as `cnn train` wrote it, or a .safetensors file that describes its network.",
        show_default=False,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        help="last (from the end of the run) or best (from the epoch with the lowest validation loss).",
        show_default="best after --validation, else last",
        autocompletion=lambda: list(WEIGHTS),
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        readable=False,
        help="Folder of the run, which must not exist.",
        show_default="runs/MODEL-TIME",
        rich_help_panel=RUN,
    ),
]
