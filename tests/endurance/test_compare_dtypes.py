"""tests/endurance/compare_dtypes.py: its figures are what they are called, and no run is repeated."""

import json
import sys

import numpy as np
import pytest
import scipy.stats

pytest.importorskip("numba")
pytest.importorskip("ml_dtypes")

import compare_dtypes
from helpers.cpu_with_halves import CpuWithHalves

import cnn

ACCURACIES = {"float32": [0.5, 0.7, 0.6], "bfloat16": [0.5, 0.8, 0.6], "float16": [0.4, 0.7, 0.6]}


def run_of(dtype, seed):
    scales = [[0, 65536.0], [3, 32768.0 / (1 + seed)]] if dtype == "float16" else []
    found = {"accuracy": ACCURACIES[dtype][seed], "scales": scales, "overflows": seed}
    return {"network": "lenet5", "dtype": dtype, "seed": seed} | found


@pytest.fixture
def trained(monkeypatch):
    """The (dtype, seed) that the script trains with, which takes no time."""
    found = []

    def train(task, data, dtype, seed):
        found.append((dtype, seed))
        return run_of(dtype, seed)

    monkeypatch.setattr(compare_dtypes, "train", train)
    monkeypatch.setattr(compare_dtypes, "load", lambda task, cifar10: None)
    return found


def call(monkeypatch, *arguments):
    """The script's exit code."""
    monkeypatch.setattr(sys, "argv", ["compare_dtypes.py", "--networks", "lenet5", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        compare_dtypes.main()
    return ended.value.code


def test_accuracies_are_compared_seed_by_seed():
    rows = compare_dtypes.compare([run_of(dtype, seed) for seed in range(3) for dtype in ACCURACIES])
    wide, bfloat16, float16 = rows
    assert (wide["accuracy"], wide["spread"]) == pytest.approx((0.6, 0.1))
    assert bfloat16["difference"] == pytest.approx(0.1 / 3)
    assert bfloat16["standard_error"] == pytest.approx(scipy.stats.sem([0, 0.1, 0]))
    assert bfloat16["p"] == pytest.approx(scipy.stats.ttest_1samp([0, 0.1, 0], 0).pvalue)
    assert float16["overflows"] == [0, 1, 2]
    assert "| lenet5 | bfloat16 | 63.33% | 15.28 | +3.33 ± 3.33 | 0.42 |  |  |" in compare_dtypes.table(rows)
    assert compare_dtypes.table(rows).endswith("| 0 to 2 | 10,923 to 32,768 |")


def test_a_difference_that_is_none_of_chance_is_the_exit_code(trained, monkeypatch):
    assert call(monkeypatch, "--seeds", 2) == 0
    monkeypatch.setitem(ACCURACIES, "bfloat16", [0.3, 0.5001, 0.4])
    assert call(monkeypatch, "--seeds", 3) == 1


def test_runs_that_are_in_the_file_are_not_repeated(trained, monkeypatch, tmp_path):
    file = tmp_path / "runs.json"
    call(monkeypatch, "--seeds", 2, "--json", file)
    assert trained == [(dtype, seed) for seed in range(2) for dtype in ("float32", "bfloat16", "float16")]
    trained.clear()
    call(monkeypatch, "--seeds", 3, "--json", file, "--markdown", tmp_path / "table.md")
    assert {seed for _, seed in trained} == {2}
    assert len(json.loads(file.read_text())) == 9
    assert (tmp_path / "table.md").read_text().startswith("| network | dtype |")
    trained.clear()
    call(monkeypatch, "--seeds", 2, "--json", file, "--images", 100)
    assert len(trained) == 6


@pytest.fixture(scope="module")
def digits():
    train, test = compare_dtypes.load(compare_dtypes.Task("lenet5", "mnist", 200, 1), "cifar10")
    return train, test.only(per_class=5)


@pytest.mark.parametrize(("dtype", "scales"), [("float32", []), ("float16", [(0, 65536)])])
def test_a_run_is_trained_and_tested(dtype, scales, digits):
    task = compare_dtypes.Task("lenet5", "mnist", 200, epochs=2)
    found = compare_dtypes.train(task, digits, dtype, seed=0)
    assert 0 <= found["accuracy"] <= 1
    assert len(found["training_loss"]) == 2
    assert (found["scales"], found["overflows"]) == (scales, 0)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy; a device does not warn
def test_every_change_of_the_scale_is_noted_with_its_step(digits):
    scales, scaling = compare_dtypes.Scales(), cnn.LossScaling(2.0**24, growth_interval=3)
    network = cnn.models.lenet5()
    network.build((1, 28, 28), backend=CpuWithHalves(), dtype="float16")
    cnn.fit(network, digits[0], batch_size=20, callbacks=[scales], transforms=[scaling])
    steps, found = zip(*scales.changes, strict=True)
    changes = np.diff(np.log2(found))
    assert (steps[0], found[0], found[-1]) == (0, 2.0**24, scaling.scale)
    assert list(steps) == sorted(set(steps))
    assert set(changes) == {-1, 1}
    assert (changes == -1).sum() == scaling.overflows
