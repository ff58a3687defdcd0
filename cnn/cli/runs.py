"""``cnn runs``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from backends.text import did_you_mean
from cnn.cli.app import app, examples
from cnn.cli.options import SETTINGS, AsJson
from cnn.cli.output import print_json, say_notes
from cnn.models import sources
from cnn.runs.listing import ALWAYS, ListedRun, differing, list_runs
from cnn.support.errors import ArgumentError, CheckpointError
from cnn.support.files import reason_of
from cnn.support.terminal import print_table, write_line
from cnn.support.text import percent, printable

RESULTS = ("accuracy", "loss")  # always columns; the others are if the runs differ in them
BEFORE_SETTINGS = ("validation_accuracy", "state", *ALWAYS)
AFTER_SETTINGS = ("parameters", "date")
COLUMNS = ("run", *RESULTS, *BEFORE_SETTINGS, *AFTER_SETTINGS)
HIGHEST_FIRST = ("accuracy", "validation_accuracy", "date")


@app.command(
    epilog=examples(
        "cnn runs",
        "cnn runs experiments --sort loss",
        "cnn runs --sort learning-rate --json",
    )
)
def runs(
    folder: Annotated[Path, typer.Argument(readable=False, help="A folder of runs, or a run.")] = Path(
        "runs"
    ),
    sort: Annotated[
        str,
        typer.Option(
            help=f"Sort by {', '.join(name.replace('_', '-') for name in COLUMNS)} or a setting such as "
            "learning-rate; the best results and the latest dates come first.",
            autocompletion=lambda: [name.replace("_", "-") for name in (*COLUMNS, *SETTINGS)],
        ),
    ] = "accuracy",
    as_json: AsJson = False,
) -> None:
    """List runs with their results, those with the highest accuracy on the test set first.

    Settings and other facts that differ between the runs are columns; those that do not differ stand below
    the table. A run that has not been tested has the result on its test set after the latest epoch, unless
    images were held out for validation. Folders that are damaged, or not those of a run, are skipped with a
    note.
    """
    key = sort.lower().replace("-", "_")
    known = {name.replace("_", "-"): name for name in (*COLUMNS, *SETTINGS)}
    if key not in known.values():
        raise ArgumentError(
            f"--sort is {sort!r}, expected {', '.join(name.replace('_', '-') for name in COLUMNS)} or a "
            f"setting of `cnn train`{did_you_mean(sort, known)}"
        )
    if not folder.is_dir():
        raise ArgumentError(f"there is no folder {folder}: give the folder that has your runs in it")
    try:
        found = list(list_runs(folder))
    except OSError as error:
        raise ArgumentError(f"the folder {folder} cannot be read ({reason_of(error)})") from None
    say_notes(f"{each}; it is skipped" for each in found if isinstance(each, CheckpointError))
    listed = _sorted([each for each in found if isinstance(each, ListedRun)], key)
    if as_json:
        print_json([run.figures for run in listed])
    elif listed:
        print_runs(listed)
    else:
        say_notes([f"there are no runs in {folder}"])


def _sorted(found: list[ListedRun], key: str) -> list[ListedRun]:
    """The runs in the order of a column or a setting; those without a value come last."""
    known = [run for run in found if _value(run, key) is not None]
    known.sort(key=lambda run: _order(_value(run, key)), reverse=key in HIGHEST_FIRST)
    return known + [run for run in found if _value(run, key) is None]


def _order(value: Any) -> tuple[bool, Any]:
    """Numbers come before text."""
    is_number = isinstance(value, int | float)
    return not is_number, value if is_number else str(value)


def _value(run: ListedRun, name: str) -> Any:
    """A run's value of a column or a setting."""
    if name == "run":
        return run.path.name
    return getattr(run, name) if hasattr(run, name) else getattr(run.config, name)


def print_runs(found: list[ListedRun]) -> None:
    """Print the table, and below it what is the same in all runs."""
    columns = {name: [_text(run, name) for run in found] for name in COLUMNS}
    if len(set(columns["data"])) < len({str(run.data) for run in found}):
        columns["data"] = [printable(str(run.data)) for run in found]
    for name in differing(found):
        columns[name] = [_text(run, name) for run in found]
    optional = (*BEFORE_SETTINGS, *differing(found), *AFTER_SETTINGS)
    shown = ["run", *RESULTS, *(name for name in optional if len(set(columns[name])) > 1)]
    headings = [name.replace("_", "\n") for name in shown]
    print_table(headings, list(zip(*(columns[name] for name in shown), strict=True)))
    same = [f"{name.replace('_', ' ')} {columns[name][0]}" for name in optional if name not in shown]
    if same := [text for text in same if not text.endswith(" ")]:
        write_line(f"\n{'in all runs: ' if len(found) > 1 else ''}{', '.join(same)}")


def _text(run: ListedRun, name: str) -> str:
    """The cell of a column or a setting."""
    value = _value(run, name)
    if value is None:
        return "" if name in COLUMNS else "-"
    if name.endswith("accuracy"):
        return percent(value)
    if name == "loss":
        return f"{value:.4f}"
    if name == "epochs":
        return f"{value}" if value == run.config.epochs else f"{value}/{run.config.epochs}"
    if name == "parameters":
        return f"{value:,}"
    if name == "date":
        return printable(value[:16].replace("T", " "))
    if name == "model":
        return printable(sources.title(str(value)))
    if name in ("data", "base"):
        return printable(Path(str(value)).name)
    if isinstance(value, list):
        return printable(("x" if name == "size" else ",").join(map(str, value))) or "none"
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))
