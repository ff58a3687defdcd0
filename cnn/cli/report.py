"""``cnn report``."""

from pathlib import Path
from typing import Annotated

import typer

from cnn.cli.app import app, examples
from cnn.cli.options import AsJson
from cnn.cli.output import print_json
from cnn.report import compare_runs, write_report
from cnn.runs import RunFolder


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
        typer.Argument(help="The folder that `cnn train` wrote; several are compared.", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where to.", show_default="the run's folder; `comparison` beside the first of several"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw runs from the files in their folders: report.html, and the pictures as PNG files."""
    folders = [RunFolder(run) for run in runs]
    if len(folders) == 1:
        written = write_report(folders[0], out)
    else:
        written = compare_runs(folders, out or folders[0].path.resolve().parent / "comparison")
    if as_json:
        print_json({"report": str(written.page), "pictures": [str(path) for path in written.pictures]})
    else:
        print(written.page)
