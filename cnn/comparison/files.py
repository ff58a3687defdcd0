"""Comparisons as files: the CPU laptop and the CUDA workstation are two machines."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from cnn.comparison.agreement import difference
from cnn.comparison.results import Agreement, Column, Comparison
from cnn.errors import DataError, DisagreementError
from cnn.files import write_json
from cnn.libraries import require

FORMAT, SCHEMA = "xpcnn comparison", 1


def save(comparison: Comparison, path: str | Path) -> None:
    """Write ``comparison`` to ``path`` as JSON, whole or not at all."""
    write_json(path, as_plain(comparison))


def as_plain(comparison: Comparison) -> dict[str, Any]:
    """What a file holds: the schema's number, and everything measured."""
    return {"format": FORMAT, "schema": SCHEMA, **asdict(comparison)}


def load(path: str | Path) -> Comparison:
    """The comparison in the file ``path``; DataError where it is damaged or not of this kind."""
    pydantic = require("pydantic", "to read saved comparisons")
    try:
        values = json.loads(Path(path).read_bytes())
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise DataError(f"{path}: is no comparison: expected a file that `cnn compare --save` wrote")
        if values["schema"] != SCHEMA:
            raise DataError(
                f"{path}: has schema {values['schema']!r}, this version reads {SCHEMA}: "
                "measure again with the same version on both machines"
            )
        comparison = pydantic.TypeAdapter(Comparison).validate_python(values)
        if not is_whole(comparison):
            raise ValueError("it lacks columns or layers")
        names = [f"{column.name} {column.hardware}" for column in comparison.columns]
        if not all(name.isprintable() for name in (comparison.model, comparison.dtype, *names)):
            raise ValueError("a name in it is not printable text")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"{path}: damaged at {place} ({first['msg']}): save it again") from None
    except (ValueError, LookupError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: damaged ({error}): save it again") from None
    return comparison


def beside(files: dict[str, Comparison]) -> Comparison:
    """One comparison of the columns of several, each named after its file.

    Raises DataError where they are not of the same workload, DisagreementError where they did not
    compute the same.
    """
    (first_name, first), *_ = files.items()
    columns: list[Column] = []
    for name, comparison in files.items():
        for what in ("model", "batch_size", "dtype", "steps", "work"):
            here, there = getattr(comparison, what), getattr(first, what)
            if here != there:
                kind = "layers" if what == "work" else f"{what} {there} and {here}"
                raise DataError(
                    f"{first_name} and {name} measured different {kind}: "
                    "expected the same model, batch size and dtype, measured by the same version"
                )
        for column in comparison.columns:
            apart = difference(np.array(first.columns[0].losses), np.array(column.losses))
            if not apart <= first.tolerance:
                raise DisagreementError(
                    f"{name}, {column.name}, and {first_name} did not compute the same: after {first.steps} "
                    f"steps the loss differs by {apart:.1e}, expected at most {first.tolerance:.0e}"
                )
            columns.append(
                replace(
                    column,
                    name=f"{name}: {column.name}",
                    agreement=Agreement(apart) if columns else None,
                )
            )
    machine = {name: comparison.machine for name, comparison in files.items()}
    return replace(first, columns=columns, machine=machine)


def is_whole(comparison: Comparison) -> bool:
    """Whether there are columns, each with all losses and all layers."""
    labels = [work.layer for work in comparison.work]
    return bool(comparison.columns) and all(
        len(column.losses) == comparison.steps and [time.layer for time in column.layers] == labels
        for column in comparison.columns
    )
