"""``cnn report``."""

from pathlib import Path
from typing import Annotated

import typer

from cnn.cli.app import app, examples
from cnn.cli.options import AsJson
from cnn.cli.output import print_json, say
from cnn.runs.folder import COMPARISON, RunFolder
from cnn.runs.report import compare_runs, write_report
from cnn.support.outputs import PAGE, require_output


@app.command(
    epilog=examples(
        "cnn report runs/lenet5-20261124-025825",
        "cnn report runs/lenet5-20261124-025825 runs/notebook-20261124-002140",
        "cnn report runs/lenet5-20261124-025825 --out page",
    )
)
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            readable=False,
            help="A run's folder, as `cnn train` wrote it; several are compared.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="Folder to write to.",
            show_default="the run's folder; `comparison` next to the first of several",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw runs from the files in their folders: report.html, and the pictures as PNG files."""
    folders = _without_others([RunFolder(run) for run in runs])
    if out and out.exists():
        require_output(out / "report.html", PAGE)
    if len(folders) == 1:
        written = write_report(folders[0], out)
    else:
        say(f"comparing {len(folders)} runs")
        written = compare_runs(folders, out or folders[0].path.resolve().parent / COMPARISON)
    if as_json:
        print_json({"report": str(written.page), "pictures": [str(path) for path in written.pictures]})
    else:
        print(written.page)


def _without_others(folders: list[RunFolder]) -> list[RunFolder]:
    """Those that are runs or do not exist, since `runs/*` names others too; all of them if none is a run."""
    found = [folder for folder in folders if folder.config.exists() or not folder.path.exists()]
    for folder in folders if found else []:
        if folder not in found:
            say(f"note: {folder.path} is not the folder of a run, it is skipped")
    return found or folders
