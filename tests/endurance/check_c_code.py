"""Exported C code on all test images of runs, compared with predict, as a Markdown table.

python tests/endurance/check_c_code.py RUN... [--arithmetic float32|int8]

Exports each run in float32 and in integers, compiles both with cc, and runs them on the test images of the
run's data. Exits 1 if an output in float32 is more than 1e-5 from predict's or changes a label, or if
integers lose more than 0.3 points of accuracy.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for helpers
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from helpers.compiled_c import Program

import backends
import cnn
from cnn.data.pictures import Pictures
from cnn.runs.trained import load_trained
from cnn.saving.c_code import calibration_images, export

NEAR = 1e-5
LOST = 0.3  # points of accuracy
HEADINGS = (
    "run", "arithmetic", "constants, bytes", "work buffer, bytes", "multiply-adds", "largest difference",
    "labels changed", "accuracy of predict", "of the C code",
)  # fmt: skip


def main() -> None:
    """Print a row for each run and each arithmetic."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--arithmetic", choices=("float32", "int8"), help="only this one; default: both")
    options = parser.parse_args()
    print("|", " | ".join(HEADINGS), "|")
    print("|---|---|" + "---:|" * (len(HEADINGS) - 2), flush=True)
    kinds = [options.arithmetic] if options.arithmetic else ["float32", "int8"]
    results = [check(run, kind) for run in options.runs for kind in kinds]
    sys.exit(0 if all(results) else 1)


def check(run: Path, arithmetic: str) -> bool:
    """Print the row of one export; -> whether it is near enough."""
    trained = load_trained(run, backends.get("cpu"))
    network, names = trained.network, trained.class_names
    train, test = cnn.data.load(trained.require_data(), Pictures.of(network), trained.seed)
    test = test.labelled_as(names)
    calibration = calibration_images(train, names, trained.seed) if arithmetic == "int8" else None
    with tempfile.TemporaryDirectory() as folder:
        exported = export(network, Path(folder) / "model.c", names, calibration)
        found = Program([exported], ["-O3"]).predict(exported, test.images)
    expected = network.predict(test.images)
    difference = float(abs(found - expected).max())
    changed = int((found.argmax(axis=1) != expected.argmax(axis=1)).sum())
    before, after = (float((each.argmax(axis=1) == test.labels).mean()) for each in (expected, found))
    sizes = exported.constant_bytes, exported.work_bytes, exported.multiply_adds
    cells = [run.name, arithmetic, *(f"{size:,}" for size in sizes), f"{difference:.2g}", f"{changed:,}"]
    print("|", " | ".join([*cells, f"{before:.2%}", f"{after:.2%}"]), "|", flush=True)
    if arithmetic == "int8":
        return 100 * (before - after) <= LOST
    return difference <= NEAR and changed == 0


if __name__ == "__main__":
    main()
