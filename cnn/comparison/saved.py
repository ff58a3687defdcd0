"""Saves comparisons to files, and merges those of several machines."""

import json
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn.comparison import scaling
from cnn.comparison.agreement import TOLERANCE
from cnn.comparison.results import Agreement, Column, Comparison
from cnn.data.readers.common import unreadable
from cnn.inspection.differences import difference
from cnn.support.errors import DataError, DisagreementError
from cnn.support.files import leaves, write_json
from cnn.support.libraries import require
from cnn.support.reading import read_text
from cnn.support.text import is_printable, short

if TYPE_CHECKING:
    import pydantic

FORMAT, SCHEMA = "xpcnn comparison", 2
LARGEST = 1e18  # far above any time, count or speed
MOST_BYTES = 1 << 20  # of a file; each layer of each column takes about 300


def save(comparison: Comparison, path: str | Path) -> None:
    """Write ``comparison`` to ``path`` as JSON, atomically."""
    write_json(path, as_plain(comparison))


def as_plain(comparison: Comparison) -> dict[str, Any]:
    """The contents of a file: the number of the schema and all measurements."""
    return {"format": FORMAT, "schema": SCHEMA, **asdict(comparison)}


def load(path: str | Path) -> Comparison:
    """Load the comparison in ``path``; DataError if the file is damaged or of another kind."""
    require("pydantic.type_adapter", "to read saved comparisons")
    try:
        values = json.loads(read_text(Path(path), MOST_BYTES))
    except OSError as error:
        raise unreadable(path, error) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a comparison, nor any JSON ({error})") from None
    kind = values.pop("format", None) if isinstance(values, dict) else None
    if kind == scaling.FORMAT:
        raise DataError(f"{path}: a comparison of processes, which can be read as JSON but not shown again")
    if kind != FORMAT:
        raise DataError(f"{path}: not a comparison: expected a file that `cnn compare --save` wrote")
    if (schema := values.pop("schema", None)) == 1:  # which compared steps of the batch that was timed
        values["proof_batch_size"] = values.get("batch_size")
    elif schema != SCHEMA:
        raise DataError(
            f"{path}: has schema {short(repr(schema), 200)}, this version reads {SCHEMA}: "
            "measure again with the same version on both machines"
        )
    try:
        return _checked(values)
    except ValueError as error:
        raise DataError(f"{path}: damaged ({short(str(error), 200)}): save it again") from None


def merge(files: dict[str, Comparison]) -> Comparison:
    """Merge comparisons into one; its columns are named after their files.

    Raises DataError if their workloads differ, DisagreementError if their results differ.
    """
    (first_name, first), *_ = files.items()
    columns: list[Column] = []
    for name, comparison in files.items():
        _require_same_workload(first_name, first, name, comparison)
        for column in comparison.columns:
            pairs = zip(first.columns[0].losses, column.losses, strict=False)  # a slow one has fewer
            apart = difference(*np.transpose(list(pairs)))
            if apart > TOLERANCE["float64"]:
                raise DisagreementError(
                    f"{name}, {column.name}, and {first_name} did not compute the same: after "
                    f"{len(column.losses)} steps the loss differs by {apart:.1e}, "
                    f"expected at most {TOLERANCE['float64']:.0e}"
                )
            agreement = column.agreement if name == first_name else Agreement(apart)
            columns.append(replace(column, name=f"{name}: {column.name}", agreement=agreement))
    machine = {name: comparison.machine for name, comparison in files.items()}
    return replace(first, columns=columns, machine=machine)


def _require_same_workload(first_name: str, first: Comparison, name: str, other: Comparison) -> None:
    for what in ("model", "batch_size", "dtype", "steps", "proof_batch_size", "work"):
        here, there = getattr(other, what), getattr(first, what)
        if here != there:
            kind = "layers" if what == "work" else f"{what.replace('_', ' ')}s, {there} and {here}"
            raise DataError(
                f"{first_name} and {name} measured different {kind}: "
                "expected the same model, batch size and dtype, measured by the same version"
            )


def _checked(values: dict[str, Any]) -> Comparison:
    """The comparison that JSON values describe; ValueError if they are invalid."""
    import pydantic

    try:  # as JSON again, because only then a strict check accepts lists and integers
        comparison = _checker().validate_json(json.dumps(values), strict=True)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    for leaf in leaves(values):
        if isinstance(leaf, str) and not is_printable(leaf):
            raise ValueError(f"{leaf!r} is not printable")
        if isinstance(leaf, int | float) and not 0 <= leaf < LARGEST:  # NaN is not
            raise ValueError(f"{leaf} is not a valid time or count")
    if not comparison.columns or not comparison.work or comparison.steps < 1 or comparison.batch_size < 1:
        raise ValueError("it has no columns, layers, steps or images")
    if comparison.columns[0].step is None:
        raise ValueError("its first column has no steps, which the others are compared with")
    for column in comparison.columns:
        _check_column(column, comparison)
    return comparison


@cache
def _checker() -> "pydantic.TypeAdapter[Comparison]":
    import pydantic

    return pydantic.TypeAdapter(Comparison)


def _check_column(column: Column, comparison: Comparison) -> None:
    sizes = [point.batch_size for point in column.sweep]
    if [time.layer for time in column.layers] != [work.layer for work in comparison.work]:
        raise ValueError(f"{column.name} has other layers than the network")
    least = comparison.steps if column.step else 1
    if not least <= len(column.losses) <= comparison.steps:
        raise ValueError(f"{column.name} has {len(column.losses)} losses for {comparison.steps} steps")
    seconds = column.step.median if column.step else 1
    if min(column.product_flops, column.copy_bytes, seconds, *sizes) <= 0:
        raise ValueError(f"{column.name} has a time, speed or batch size of 0")
    if sizes != sorted(set(sizes)):
        raise ValueError(f"{column.name} has batch sizes out of order, {sizes}")
