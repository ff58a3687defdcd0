"""The notebook in docs/ runs as it is, and shows what it says."""

import copy
import json
import math
import os
import re

import pytest
from helpers import ROOT

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")

NOTEBOOK = ROOT / "docs" / "from_scratch.ipynb"


def text(notebook, cell_id):
    """What the cell printed."""
    (cell,) = (cell for cell in notebook.cells if cell.id == cell_id)
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def value(notebook, cell_id, name):
    """The number behind ``name:`` in what the cell printed."""
    lines = dict(line.rpartition(": ")[::2] for line in text(notebook, cell_id).splitlines())
    return float(lines[name])


def has_picture(notebook, cell_id):
    (cell,) = (cell for cell in notebook.cells if cell.id == cell_id)
    return any("image/png" in output.get("data", {}) for output in cell.outputs)


def agrees(cell_id, *names):
    """Each of ``names`` is within rounding of finite differences."""

    def holds(notebook):
        return all(value(notebook, cell_id, f"{name}, against finite differences") < 1e-6 for name in names)

    return holds


def tanh_overflows(notebook):
    rows = [line.split() for line in text(notebook, "tanh-symptom").splitlines()[1:]]
    published = {float(x): (float(tanh), float(ours)) for x, tanh, _, ours in rows}
    return published[1] == (0.7616, 0.7616) and math.isnan(published[800][0]) and published[800][1] == 1


def nan_reaches_every_weight(notebook):
    arrays = "filters", "first dense layer", "second dense layer"
    return all(value(notebook, "loss-chain", f"share of NaN in the {array}") == 1 for array in arrays)


def every_optimizer_learns(notebook):
    optimizers = "SGD", "SGD with momentum", "Adam"
    name = "{}, accuracy on the test images"
    return all(value(notebook, "update-fix", name.format(optimizer)) > 0.98 for optimizer in optimizers)


def gradients_agree(notebook):
    lines = text(notebook, "network-check").splitlines()
    return len(lines) == 7 and all(line.split()[1] == "agrees," for line in lines)


CLAIMS = {
    "the published pooling passes nothing back": lambda notebook: (
        value(notebook, "pool-symptom", "largest number in the published gradient") == 0
    ),
    "the fixed pooling agrees": agrees("pool-fix", "fixed", "cnn.MaxPool2D"),
    "the published bias gradient is wrong, the others are right": lambda notebook: (
        value(notebook, "bias-symptom", "biases, published against finite differences") > 0.1
        and value(notebook, "bias-symptom", "kernels, published against finite differences") < 1e-6
        and value(notebook, "bias-symptom", "x, published against finite differences") < 1e-6
    ),
    "both kinds of bias agree": agrees(
        "bias-fix", "cnn.Conv2D, untied_bias=True", "cnn.Conv2D, untied_bias=False"
    ),
    "unscaled weights saturate tanh": lambda notebook: (
        value(notebook, "scale-symptom", "published: share of derivatives below 0.01") > 0.9
        and value(notebook, "scale-symptom", "lecun_normal: share of derivatives below 0.01") < 0.2
        and value(notebook, "scale-symptom", "published: share of derivatives that are exactly 0") > 0.5
        and has_picture(notebook, "scale-symptom")
    ),
    "the published tanh overflows, the library's does not": tanh_overflows,
    "the published softmax overflows, the library's does not": lambda notebook: (
        text(notebook, "softmax-symptom").splitlines()
        == ["published: [nan  0.]", "largest number subtracted first: [1. 0.]", "cnn.Softmax: [1. 0.]"]
    ),
    "softmax's gradient agrees": agrees("jacobian-fix", "cnn.Softmax"),
    "the published loss becomes NaN while the filters stay": lambda notebook: (
        math.isnan(value(notebook, "loss-symptom", "loss"))
        and value(notebook, "loss-symptom", "change of the convolution's filters until then") == 0
    ),
    "one step makes every weight NaN": nan_reaches_every_weight,
    "then every answer is class 0, which is right in 46 %": lambda notebook: (
        value(notebook, "loss-chain", "answers of class 0 to the first 100 test images") == 100
        and value(notebook, "loss-chain", "share of zeros among the test images") == 0.4634
    ),
    "the library's losses stay finite and agree": lambda notebook: (
        "nan" not in text(notebook, "loss-fix")
        and agrees("loss-fix", "BinaryCrossEntropy", "CrossEntropy")(notebook)
    ),
    "a second published backward differs, the library's does not": lambda notebook: (
        value(notebook, "update-symptom", "published, the same backward twice, difference") > 0
        and value(notebook, "update-symptom", "cnn.Dense, the same backward twice, difference") == 0
    ),
    "every optimizer learns": every_optimizer_learns,
    "a batch gives what the loop over its images gives": lambda notebook: (
        value(notebook, "speed-same", "cnn.Conv2D against correlate2d") < 1e-12
    ),
    "four speeds are measured": lambda notebook: (
        all(float(line.split()[-1]) > 0 for line in text(notebook, "speed-symptom").splitlines()[1:])
        and len(text(notebook, "speed-symptom").splitlines()) == 5
    ),
    "all gradients of the working network agree": gradients_agree,
    "the working network learns, filters too": lambda notebook: (
        value(notebook, "network-fit", "accuracy before training") < 0.9
        and value(notebook, "network-fit", "final accuracy") > 0.99
        and value(notebook, "network-filters-code", "change of the filters, relative to their size") > 0
        and has_picture(notebook, "network-curves")
        and has_picture(notebook, "network-filters-code")
    ),
    "the loop runs on the device's own modules": lambda notebook: (
        value(notebook, "device-loop", "cnn.Conv2D against the loop") < 1e-12
        and value(notebook, "device-fit", "accuracy after one epoch") > 0.99
    ),
    "the comparison is printed, layer by layer": lambda notebook: all(
        word in text(notebook, "compare-devices")
        for word in ("Conv2D", "MaxPool2D", "Dense", "Softmax", "images")
    ),
}


COMPARISON = """
from cnn.cli import main
from cnn.comparison import agreement, measure
measure.BATCH_SIZES, agreement.STEPS, measure.PAUSE = (1, 2), 2, 0
measure.LONG_ENOUGH = 1e-4
main()
"""

SHORTER = {  # cell: what to put for what; the claims hold for a part of the work, too
    "speed-symptom": {
        "published_speed(50)": "published_speed(10)",
        "per_class=1000": "per_class=100",
        "per_class=2000": "per_class=200",
    },
    "network-fit": {"epochs=5": "epochs=1"},
    "compare-devices": {'"-m", "cnn"': f'"-c", {COMPARISON!r}', '"32"': '"2"', '"3"': '"1"'},
}


def shorten(notebook):
    """Let some cells train and time less."""
    for cell in notebook.cells:
        for long, short in SHORTER.get(cell.id, {}).items():
            assert cell.source.count(long) == 1, (cell.id, long)
            cell.source = cell.source.replace(long, short)


@pytest.fixture(scope="module")
def saved():
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.mark.parametrize("claim", CLAIMS)
def test_it_shows_what_it_says(saved, claim):
    assert CLAIMS[claim](saved)


def test_it_ends_on_the_comparison_of_devices(saved):
    last = saved.cells[-1]
    assert last.id == "compare-devices"
    assert '["compare", "--model", "notebook"' in last.source


def test_it_is_saved_as_it_ran_from_first_to_last(saved):
    nbformat.validate(saved)
    cells = [cell for cell in saved.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


def test_its_outputs_hold_no_errors_warnings_or_paths(saved):
    outputs = [output for cell in saved.cells if cell.cell_type == "code" for output in cell.outputs]
    assert len(outputs) > 20
    for output in outputs:
        assert output.output_type in ("stream", "display_data"), output
        assert output.get("name", "stdout") == "stdout", output
        words = json.dumps({**output, "data": output.get("data", {}).get("text/plain", "")})
        assert not re.search(r"Warning|(?<![\w)])/\w[\w.-]*/\w|\b[A-Za-z]:\\\\", words), words


def test_it_is_small():
    assert NOTEBOOK.stat().st_size < 300_000


def test_it_runs_from_a_checkout_and_shows_the_same(saved, tmp_path):
    notebook = copy.deepcopy(saved)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    shorten(notebook)
    client = nbclient.NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        coalesce_streams=True,
        resources={"metadata": {"path": str(NOTEBOOK.parent)}},
    )
    settings = {"CNN_DEVICE": "cpu", "OPENBLAS_NUM_THREADS": "1", "IPYTHONDIR": str(tmp_path)}
    client.execute(env=os.environ | settings)  # raises where a cell does

    wrong = [claim for claim, holds in CLAIMS.items() if not holds(notebook)]
    assert not wrong
    for before, now in zip(saved.cells, notebook.cells, strict=True):
        kinds = [[output.output_type for output in cell.get("outputs", [])] for cell in (before, now)]
        assert kinds[0] == kinds[1], now.id
