"""Recipes: settings that reach a known accuracy on a published data set.

Each recipe is a TOML file in this folder: the flags of ``cnn train``, as in a file for ``--config``, and a
table ``[about]`` with what is known about it. ``cnn train --recipe NAME`` trains with it.
"""

from dataclasses import Field, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from backends.text import did_you_mean, quoted
from cnn.runs import build
from cnn.runs.config import DEVICE, Config
from cnn.runs.setting import as_flag
from cnn.support.arguments import shown
from cnn.support.errors import ArgumentError
from cnn.support.reading import parse_toml

NAMES = ("mnist-fast", "mnist-best", "fashion", "cifar10-fast", "cifar10")
ABOUT = "about"  # the table that has no flags

NO_CHANGE = ("recipe", "data", "seed")  # a run with other values of these still follows its recipe


@dataclass(frozen=True)
class Recipe:
    """A file of flags, and what its table ``[about]`` says; None for what has not been measured yet."""

    name: str
    flags: dict[str, Any]  # the values by the names of the settings
    title: str  # a few words
    source: str  # the paper or the program that the settings come from
    accuracy: float | None = None  # in percent, the mean over the seeds
    spread: float | None = None  # its standard deviation over the seeds, in percent
    seeds: int | None = None
    images: str = "the test set"  # what the accuracy is measured on
    minutes: float | None = None  # the time of training on the machine below
    machine: str | None = None

    @property
    def config(self) -> Config:
        """The settings of a run that follows the recipe."""
        parses = {field.name: field.metadata["parse"] for field in fields(Config)}
        values = {
            name: parses[name](as_flag(value)) if parses[name] else value
            for name, value in self.flags.items()
        }
        config = Config(recipe=self.name, **values)
        return config.with_values_of(build.make_optimizer(config, images=1))

    def changes(self, config: Config) -> list[str]:
        """The options with which the settings of a run differ from the recipe, as in "--epochs 2".

        Those of the device and in ``NO_CHANGE`` are left out, and those that the run's optimizer lacks.
        """
        own = self.config
        return [
            option
            for field in fields(Config)
            if field.metadata["panel"] != DEVICE
            and field.name not in NO_CHANGE
            and getattr(config, field.name) is not None
            and (option := _option(field, config)) != _option(field, own)
        ]


def read(name: str) -> Recipe:
    """The recipe with this name; ArgumentError if there is none."""
    require(name)
    values = parse_toml(files(__name__).joinpath(f"{name}.toml").read_text("utf-8"))
    about = values.pop(ABOUT)
    return Recipe(name, {key.replace("-", "_"): value for key, value in values.items()}, **about)


def require(name: Any) -> None:
    """Raise ArgumentError unless this is the name of a recipe."""
    if name not in NAMES:
        raise ArgumentError(
            f"unknown recipe {shown(name)}: expected one of {', '.join(NAMES)}{did_you_mean(name, NAMES)}"
        )


def title(config: Config) -> str:
    """The recipe of a run and what was changed, as in "cifar10 with --epochs 2"; empty if it has none."""
    if config.recipe not in NAMES:
        return config.recipe or ""
    changes = read(config.recipe).changes(config)
    return f"{config.recipe} with {' '.join(changes)}" if changes else config.recipe


def _option(field: Field[Any], config: Config) -> str:
    """A setting as an option of the command line; paths are relative to the current folder if it has them."""
    name, value = (field.metadata["alias"] or field.name).replace("_", "-"), getattr(config, field.name)
    if isinstance(value, bool):
        return f"--{'' if value else 'no-'}{name}"
    if isinstance(value, int | float):
        return f"--{name} {value:.10g}"
    text = as_flag(value) if value else "none"
    if Path(text).is_relative_to(Path.cwd()):
        text = str(Path(text).relative_to(Path.cwd()))
    return f"--{name} {quoted(text)}"
