"""scripts/benchmarks/bench_layers.py: it compares the numbers before it times, and its figures are right."""

import json
import sys
from functools import partial

import numpy as np
import pytest
from helpers import ROOT

import backends
from backends.cpu.threads import limit_threads

sys.path.append(str(ROOT / "scripts" / "benchmarks"))

import bench_layers
from shared import passes
from shared.passes import PASSES, Convolution, Product


@pytest.fixture(autouse=True)
def one_thread():
    """What a library is limited to in this process is given back."""
    pytest.importorskip("threadpoolctl")
    with limit_threads(1):
        yield


@pytest.fixture
def run(monkeypatch, capsys):
    def called(*arguments):
        monkeypatch.setattr("sys.argv", ["bench_layers.py", *map(str, arguments)])
        try:
            bench_layers.main()
            code = 0
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return called


@pytest.mark.parametrize(
    "layer",
    [
        Convolution(3, 4, 9, padding=1),
        Convolution(2, 6, 8, kernel=5, stride=2, padding=2),
        Convolution(4, 8, 6, stride=2, padding=1, groups=4),
        Convolution(4, 5, 7, kernel=1, stride=2),
        Product(12, 7),
    ],
    ids=str,
)
@pytest.mark.parametrize("kernels", ["portable", "compiled"])
def test_all_passes_are_pytorchs(layer, kernels):
    pytest.importorskip("torch")
    given = layer.numbers(3)
    ours = layer.ours(backends.get("cpu", kernels).kernels, given)
    theirs = {layout: layer.theirs(layout, given) for layout in layer.layouts}
    passes.require_same(str(layer), PASSES, ours, theirs)


def test_a_number_that_differs_is_found():
    class Tensor:
        def numpy(self):
            return np.array([[1.0, 2.0], [3.0, 4.001]])

    ours = {"forward": lambda: np.array([[1.0, 3.0], [2.0, 4.0]])}
    theirs = {"channels_last": {"forward": Tensor}}
    with pytest.raises(SystemExit, match=r"a layer, forward: ours .*\(channels_last\) are 2\.5e-04 of"):
        passes.require_same("a layer", ["forward"], ours, theirs)


def test_the_work_of_a_pass_is_counted():
    assert Convolution(3, 24, 32, kernel=2).flops(8) == 2 * 8 * 24 * 31 * 31 * 3 * 4
    assert Convolution(16, 32, 32, stride=2, padding=1).flops(1) == 2 * 32 * 16 * 16 * 16 * 9
    assert Convolution(64, 64, 32, padding=1, groups=64).flops(1) == 2 * 64 * 32 * 32 * 9
    assert Product(400, 120).flops(128) == 2 * 400 * 120 * 128


def test_all_take_turns():
    order = []
    ticks = iter(range(1000))
    clock = bench_layers.Clock(lambda: next(ticks), pause=0)
    taken = clock.take_turns({name: partial(order.append, name) for name in "ab"}, rounds=3)
    assert taken == {"a": [1, 1, 1], "b": [1, 1, 1]}
    assert (
        "".join(order) == "aabb" + 3 * "aabb"
    )  # once to bring its numbers into the caches, once on the clock


def test_a_row_compares_with_pytorchs_faster_format():
    most = 2 * bench_layers.PRODUCT_SIZE**3
    taken = {"product": [most / 100] * 3, "ours": [0.5, 0.5, 1], "contiguous_format": [3, 3, 3]}
    row = bench_layers.make_row("dense-400-120", "forward", 10, taken | {"channels_last": [1, 1, 1]})
    assert (row.fastest, row.ratio.median, row.shares["ours"].median) == ("channels_last", 2, 0.2)
    cells = bench_layers.cells(row)
    assert cells[1:3] == ["400→120", "forward"]
    assert cells[7:11] == ["0.20", "0.03", "0.10", "2.00"]


def test_images_need_no_gradient():
    first = {name for name, layer in bench_layers.LAYERS.items() if bench_layers.is_first(layer)}
    assert {"notebook-conv", "airbench-whitening", "resnet20-3-16"} <= first
    assert not first & {"lenet5-conv2", "dense-400-120"}


def test_it_prints_a_table_and_writes_its_figures(run, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench_layers, "BLOCK", 0)
    monkeypatch.setattr(bench_layers, "limit_pytorch", lambda threads: None)  # the number would remain
    options = ("--layers", "lenet5-conv,dense-400", "--batch-size", 2, "--rounds", 1, "--json", "layers.json")
    code, out, err = run(*options)
    assert code == 0, err
    found = [
        (row["layer"], row["pass_name"]) for row in json.loads((tmp_path / "layers.json").read_text())["rows"]
    ]
    expected = [("lenet5-conv1", "forward"), ("lenet5-conv1", "grad weight")]
    expected += [(layer, one) for layer in ("lenet5-conv2", "dense-400-120") for one in PASSES]
    assert found == expected
    assert all(f"| {layer} " in out for layer, _ in expected)


@pytest.mark.parametrize(
    ("option", "value", "names"),
    [
        ("--layers", "lenet5,alexnet", "'alexnet'"),
        ("--rounds", "0", "'0'"),
        ("--threads", "many", "'many'"),
        ("--json", "nowhere/layers.json", "nowhere"),
    ],
)
def test_a_mistake_is_one_sentence(run, option, value, names):
    code, _, err = run(option, value)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: ")
    assert names in err
