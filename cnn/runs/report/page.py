"""Writes report.html, for one run or for several runs compared, and its pictures as files."""

import shlex
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

from cnn.data.fitting import FIT_IN_WORDS
from cnn.data.preprocessing import Preprocessing
from cnn.inspection import summary
from cnn.runs.class_results import ClassResults
from cnn.runs.folder import RunFolder
from cnn.runs.report import figures
from cnn.runs.report.record import RunRecord
from cnn.support.drawing import Picture, require_matplotlib, style
from cnn.support.errors import ArgumentError
from cnn.support.files import write_whole
from cnn.support.libraries import require
from cnn.support.text import best_weights, duration, labels, milliseconds, percent, printable

BY = "\N{NO-BREAK SPACE}\N{MULTIPLICATION SIGN}\N{NO-BREAK SPACE}"  # between the sizes of a shape
METRICS = {"top_5": "top-5 accuracy", "f1": "F1", "calibration_error": "calibration error"}


@dataclass(frozen=True)
class Report:
    """The paths of a written report."""

    page: Path
    pictures: list[Path]


def write_report(folder: RunFolder, out: Path | None = None) -> Report:
    """Write report.html and pictures/*.png of a run to its folder or to ``out``, replacing old ones.

    The same files in the folder always give the same page, byte for byte. If files are missing, as after
    an interrupted run, the page says so. Raises CheckpointError if a file is damaged or the folder is not
    a run's, ArgumentError if a library is missing.
    """
    _require_libraries()
    record = RunRecord.read(folder)
    with style():
        pictures = figures.pictures(record)
        facts = {
            "title": record.title,
            "result": _result(record),
            "missing": _missing(record),
            "epochs": [_epoch(epoch, record.checked) for epoch in record.epochs],
            "checked": record.checked,
            "mistakes": _mistakes(record),
            "per_class": _per_class(record),
            "preprocessing": _preprocessing(record),
            "layers": _layers(record),
            "settings": _rows(record.settings),
            "environment": _rows(record.environment),
        }
        return _write(out or folder.path, "run.html", facts, pictures)


def compare_runs(folders: Sequence[RunFolder], out: Path) -> Report:
    """Write report.html and pictures/curves.png of several runs to the folder ``out``, replacing old ones.

    Raises CheckpointError and ArgumentError like :func:`write_report`.
    """
    _require_libraries()
    if RunFolder(out).config.exists():
        raise ArgumentError(
            f"{out} is the folder of a run, which has its own report: name another folder with --out"
        )
    names = [printable(folder.path.resolve().name) for folder in folders]
    if len(set(names)) < len(names):
        names = [printable(str(folder.path)) for folder in folders]
    records = {
        name if names.count(name) == 1 else f"{name} ({number})": RunRecord.read(folder)
        for number, (name, folder) in enumerate(zip(names, folders, strict=True), 1)
    }
    results = {
        name: _result(record) | {what: str(record.settings[what]) for what in ("model", "data")}
        for name, record in records.items()
    }
    settings = {name: dict(_rows(record.settings)) for name, record in records.items()}
    with style():
        trained = any(record.epochs for record in records.values())
        facts = {
            "title": f"{len(records)} runs compared",
            "results": _by_run(results, _best(records)),
            "differing": _by_run(_differing(settings)),
        }
        return _write(out, "comparison.html", facts, [figures.compared_curves(records)] if trained else [])


def _require_libraries() -> None:
    purpose = "to make a report"
    require_matplotlib(purpose)
    require("jinja2.environment", purpose)


def _write(out: Path, template: str, facts: dict[str, Any], pictures: Sequence[Picture]) -> Report:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: files("cnn.runs.report").joinpath(name).read_text("utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawn = {picture.name: {"title": picture.title, "svg": picture.svg()} for picture in pictures}
    page = environment.get_template(template).render(**facts, pictures=drawn)
    report = Report(out / "report.html", [out / "pictures" / f"{picture.name}.png" for picture in pictures])
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    for picture, path in zip(pictures, report.pictures, strict=True):
        write_whole(path, picture.png())
    write_whole(report.page, page.encode())
    return report


def _result(record: RunRecord) -> dict[str, str]:
    """The main results."""
    result = {
        name: percent(value) if name.endswith("accuracy") else f"{value:.4f}"
        for name, value in record.result.items()
    }
    if record.evaluation:
        for name, value in record.evaluation.metrics.items():
            if name in METRICS:
                result[f"test {METRICS[name]}"] = percent(value) if name == "top_5" else f"{value:.4f}"
        result["test images"] = f"{record.evaluation.count:,}"
        if record.evaluation.weights == "best":
            result["weights"] = best_weights(record.evaluation.epoch)
    if record.epochs:
        result["epochs"] = f"{len(record.epochs)}"
        result["training time"] = duration(sum(epoch["seconds"] for epoch in record.epochs))
        result["images per second"] = f"{median(epoch['images_per_second'] for epoch in record.epochs):,.0f}"
    if record.recipe:
        result["recipe"] = record.recipe
    return result | {"device": record.device}


def _missing(record: RunRecord) -> list[str]:
    """A sentence for each missing file."""
    sentences = {
        "The run has no metrics.csv: no epoch was finished, or it was trained elsewhere.": record.epochs,
        "There are no weights to show: the run has no model.safetensors, or layers of its own program.": (
            record.network
        ),
        "The run has no evaluation.safetensors, because it did not finish: "
        "confusion matrix, mistakes, activations and times are not shown.": record.evaluation,
        "The run has no environment.json: the machine is not known.": record.environment,
    }
    return [sentence for sentence, found in sentences.items() if not found]


def _epoch(epoch: dict[str, float], checked: str) -> dict[str, str]:
    written: dict[str, Callable[[float], str]] = {
        "epoch": "{:.0f}".format,
        "accuracy": percent,
        "validation_accuracy": percent,
        "seconds": "{:.2f}".format,
        "images_per_second": "{:,.0f}".format,
        "learning_rate": "{:.2g}".format,
    }
    shorter = {
        "images_per_second": "images/s",
        "learning_rate": "rate",
        "validation_loss": f"{checked} loss",
        "validation_accuracy": f"{checked} accuracy",
    }
    return {
        shorter.get(name, name.replace("_", " ")): written.get(name, "{:.4f}".format)(value)
        for name, value in epoch.items()
    }


def _per_class(record: RunRecord) -> list[dict[str, str]]:
    """The results of each class on the test images."""
    if not record.evaluation:
        return []
    return ClassResults(record.evaluation.confusion, labels(record.class_names, 40)).rows


def _mistakes(record: RunRecord) -> list[dict[str, Any]]:
    if not record.evaluation:
        return []
    found, names = record.evaluation.mistakes, record.class_names
    return [
        {
            "image": f"{position:,}",
            "true class": names[label],
            "its probability": percent(probabilities[label]),
            "predicted": names[predicted],
            "probability": percent(probabilities[predicted]),
        }
        for position, label, predicted, probabilities in zip(
            found.positions, found.labels, found.predicted, found.probabilities, strict=True
        )
    ]


def _preprocessing(record: RunRecord) -> list[tuple[str, str]]:
    """How images are prepared for the network."""
    if not record.network or len(record.network.input_shape) != 3:
        return []
    C, H, W = record.network.input_shape
    own = record.network.preprocessing or Preprocessing.none(C)
    rows = [
        ("image size", f"{H}{BY}{W}"),
        ("channels", {1: "1 (grey)", 3: "3 (colour)"}.get(C, str(C))),
        ("pictures of other sizes", f"{own.fit}: {FIT_IN_WORDS[own.fit]}"),
        ("scale", "numbers from 0 to 255 become 0 to 1"),
    ]
    if own.normalizes:
        rows += [
            (name, ", ".join(f"{value:.4g}" for value in getattr(own, name))) for name in ("mean", "std")
        ]
    return rows


def _layers(record: RunRecord) -> list[dict[str, str]]:
    if not record.network:
        return []
    times = {time.layer: time for time in record.evaluation.times} if record.evaluation else {}
    rows = []
    for row in summary.rows(record.network):
        rows.append(
            {
                "layer": row["layer"],
                "output shape": BY.join(map(str, row["output_shape"])),
                "parameters": f"{row['parameters']:,}",
                "multiply-adds": f"{row['multiply_adds']:,}",
            }
        )
        for direction in ("forward", "backward") if times else ():
            spread = getattr(times.get(row["layer"]), direction, None)
            rows[-1][f"{direction}, ms"] = milliseconds(spread.median) if spread else ""
    return rows


def _rows(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Names and values as text; nested values are flattened."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        label = prefix + name.replace("_", " ")
        if isinstance(value, dict):
            rows += _rows(value, label + ": ")
        elif name == "command" and isinstance(value, list):
            rows.append((label, shlex.join(map(str, value))))
        elif isinstance(value, list):
            rows.append((label, ", ".join(map(str, value)) or "none"))
        else:
            nothing = "all" if name in ("classes", "per_class", "threads") else "none"
            rows.append((label, nothing if value is None else str(value)))
    return [(printable(label), printable(text)) for label, text in rows]


def _by_run(runs: dict[str, dict[str, str]], best: Container[tuple[str, str]] = ()) -> dict[str, Any]:
    """A table with one row per run; missing values are empty, the best are marked."""
    names = list(dict.fromkeys(name for values in runs.values() for name in values))
    rows = [
        (run, [(name, values.get(name, ""), (run, name) in best) for name in names])
        for run, values in runs.items()
    ]
    return {"names": names, "rows": rows}


def _best(records: dict[str, RunRecord]) -> set[tuple[str, str]]:
    """(run, result) of the highest accuracy and the lowest loss, if all runs used the same data."""
    if len({(str(record.settings["data"]), tuple(record.class_names)) for record in records.values()}) > 1:
        return set()
    best = set()
    for figure in {figure for record in records.values() for figure in record.result}:
        choose = max if figure.endswith("accuracy") else min
        found = {run: record.result[figure] for run, record in records.items() if figure in record.result}
        if len(set(found.values())) > 1:
            best |= {(run, figure) for run, value in found.items() if value == choose(found.values())}
    return best


def _differing(settings: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """The settings that differ between the runs."""
    first, *others = settings.values()
    same = {name for name, value in first.items() if all(other.get(name) == value for other in others)}
    return {
        run: {name: value for name, value in values.items() if name not in same}
        for run, values in settings.items()
    }
