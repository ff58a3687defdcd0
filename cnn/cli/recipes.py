"""The list of recipes that ``cnn train --recipe`` prints."""

import sys
from collections.abc import Mapping
from dataclasses import asdict

from cnn.cli.output import print_json
from cnn.runs import recipes
from cnn.runs.recipes import Recipe
from cnn.support.errors import ArgumentError
from cnn.support.terminal import USUAL_WIDTH, fold, print_table, screen_width, write_line
from cnn.support.text import figure

HEADINGS = ("recipe", "data", "accuracy", "seeds", "minutes")
UNKNOWN = "-"  # what has not been measured yet


def print_recipes(as_json: bool) -> None:
    """Print the recipes with their figures, and how to train with one."""
    found = [recipes.read(name) for name in recipes.NAMES]
    if as_json:
        print_json([asdict(recipe) for recipe in found])
        return
    print_table(HEADINGS, [_row(recipe) for recipe in found])
    machines = sorted({recipe.machine for recipe in found if recipe.machine})
    minutes = f"The minutes are those of training on {'; '.join(machines)}. " if machines else ""
    note = (
        f"{_measured_on(found)}{minutes}`cnn train --recipe NAME` trains with a recipe; any other option, "
        "such as `--seed 1` or `--data FOLDER`, replaces what the recipe says. `cnn train --recipe --json` "
        "also shows the settings and their sources."
    )
    write_line("\n" + fold(note, screen_width(sys.stdout) or USUAL_WIDTH))


def _measured_on(found: list[Recipe]) -> str:
    """Sentences that say which images the accuracies are measured on."""
    names: dict[str, list[str]] = {}
    for recipe in found:
        if recipe.accuracy is not None:
            names.setdefault(recipe.images, []).append(recipe.name)
    return "".join(
        f"The accuracy of {', '.join(those)} is measured on {images}. " for images, those in names.items()
    )


def require_alone(options: Mapping[str, str]) -> None:
    """Raise ArgumentError if one of these options of the command line cannot be next to a bare --recipe."""
    others = [flag for name, flag in options.items() if name not in ("recipe", "as_json")]
    if others:
        raise ArgumentError(
            f"--recipe has no name, but {others[0]} is given: expected one of {', '.join(recipes.NAMES)}"
        )


def _row(recipe: Recipe) -> list[str]:
    spread = "" if recipe.spread is None else f" ± {recipe.spread:.2f}"
    cells = [
        str(recipe.flags["data"]),
        UNKNOWN if recipe.accuracy is None else f"{recipe.accuracy:.2f}{spread} %",
        UNKNOWN if recipe.seeds is None else str(recipe.seeds),
        UNKNOWN if recipe.minutes is None else figure(recipe.minutes),
    ]
    return [f"{recipe.name}\n  {recipe.title}", *(f"{cell}\n" for cell in cells)]
