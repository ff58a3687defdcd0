"""``--config`` and ``--recipe``: a command's flags from a file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from cnn.cli import suggestions
from cnn.cli.app import UsageError
from cnn.runs import recipes
from cnn.runs.config import OWN_NETWORK, Config
from cnn.runs.folder import DATA_KEYS
from cnn.runs.setting import as_flag
from cnn.support.errors import ArgumentError
from cnn.support.reading import parse_toml, read_text
from cnn.support.text import short

MOST_TOML = 64 << 10  # bytes of a file of flags, with room for comments
LONGEST = 200  # letters of what an error shows of the file

# settings whose values are meant for one optimizer
OF_ONE_OPTIMIZER = {
    "learning_rate", "momentum", "nesterov", "weight_decay", "bias_rate", "optimizer_options",
}  # fmt: skip


def take_defaults(context: typer.Context, path: Path | None) -> Path | None:
    """Make the values in the file at ``path`` the command's defaults; the callback of ``--config``.

    The file is TOML, or a run's folder or config.json, which starts the same run again. Keys are the
    names of the flags, with ``-`` or ``_``. A table ``[about]``, as in a recipe's file, is ignored. Raises
    ArgumentError for a file that cannot be read, and for an unknown flag.
    """
    if path is not None:
        if path.is_dir():
            path /= "config.json"
        context.default_map = _defaults(context, path, _read(path))
    return path


def take_recipe(context: typer.Context, name: str | None) -> str | None:
    """Make the values of the recipe called ``name`` the command's defaults; the callback of ``--recipe``."""
    source = context.get_parameter_source("recipe")
    if name and source and source.name == "COMMANDLINE":  # a file that names it has its values
        context.default_map = _defaults(context, f"recipe {name}", recipes.read(name).flags)
    return name


def _defaults(context: typer.Context, path: Path | str, values: dict[str, Any]) -> dict[str, Any]:
    """``values``, which stand at ``path``, by the names of the command's parameters."""
    flags = {
        flag.removeprefix("--").replace("-", "_"): parameter
        for parameter in context.command.params
        for flag in parameter.opts
        if flag not in ("--config", "--help")
    }
    defaults: dict[str, Any] = {}
    for key, value in values.items():
        if value is None or key in DATA_KEYS:
            continue
        parameter = flags.get(key.replace("-", "_"))
        if parameter is None or parameter.name is None:
            meant = suggestions.flag(key, [f"--{flag.replace('_', '-')}" for flag in flags])
            names = ", ".join(sorted(flag.replace("_", "-") for flag in flags))
            expected = f"expected one of {names}{f'; did you mean {meant[2:]}?' if meant else ''}"
            raise ArgumentError(f"{path}: unknown flag {short(key, LONGEST)!r}: {expected}")
        if parameter.name in defaults:
            raise ArgumentError(f"{path}: {key} is given twice, with - and with _: leave one out")
        is_switch = isinstance(value, bool) and getattr(parameter, "is_flag", False)
        try:
            shown = short(repr(value), LONGEST)
            defaults[parameter.name] = value if is_switch else as_flag(value)
            parameter.process_value(context, defaults[parameter.name])
        except UsageError as error:
            reason = short(str(error), LONGEST)
            raise ArgumentError(f"{path}: {key} is {shown}, which is refused: {reason}") from None
        except (ValueError, RecursionError) as error:  # a number too long to be written, boxes in boxes
            raise ArgumentError(f"{path}: {key} is refused ({error}): expected a flag's value") from None
    return defaults


def _read(path: Path) -> dict[str, Any]:
    is_json = path.suffix.lower() == ".json"
    try:
        values = json.loads(read_text(path)) if is_json else parse_toml(read_text(path, MOST_TOML))
    except OSError as error:
        raise ArgumentError(f"--config {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        kind, example = ("JSON", '{"epochs": 5}') if is_json else ("TOML", "lines such as epochs = 5")
        reason = short(str(error), LONGEST)
        raise ArgumentError(f"{path} is no {kind} ({reason}): expected {example}") from None
    if not isinstance(values, dict):
        raise ArgumentError(f"{path}: holds no flags: expected names with values, as in a run's config.json")
    return _of_run(path, values) if is_json and "class_names" in values else _with_recipe(values)


def _with_recipe(values: dict[str, Any]) -> dict[str, Any]:
    """The flags among the values, and those of the recipe that they name."""
    flags = {key: value for key, value in values.items() if key != recipes.ABOUT}
    return flags if flags.get("recipe") is None else over(recipes.read(flags["recipe"]).flags, flags)


def over(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Both settings together; those of ``upper`` replace those of ``lower``.

    If ``upper`` has another optimizer, what ``lower`` has for its own optimizer is left out.
    """
    replaced = {name.replace("-", "_") for name in upper}
    own = lower.get("optimizer", Config.optimizer)
    if upper.get("optimizer", own) != own:
        replaced |= OF_ONE_OPTIMIZER
    return {name: value for name, value in lower.items() if name not in replaced} | dict(upper)


def _of_run(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """The values in a run's config.json; an imported run's can be trained with, too."""
    values = Config.completed(values)
    if values.get("model") == OWN_NETWORK:  # the folder contains it
        values["model"] = str(path.parent)
    if values.get("epochs") == 0:  # it was not trained here
        values |= {"epochs": None, "batch_size": None}
    return values
