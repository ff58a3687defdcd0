"""What version 0.1 wrote still opens: a run, its checkpoint, a network, a comparison of devices."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import cnn

FILES = Path(__file__).parent / "written_by_0_1"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A copy of the run of two epochs, next to its data."""
    shutil.copytree(FILES / "run", tmp_path / "run")
    shutil.copy(FILES / "data.npz", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def test_a_network_predicts_what_it_predicted():
    network = cnn.load(FILES / "network.safetensors", device="cpu")
    with np.load(FILES / "data.npz") as data, np.load(FILES / "predictions.npz") as expected:
        np.testing.assert_allclose(network.predict(data["x_test"]), expected["network"], rtol=1e-9)


def test_a_run_is_evaluated_as_it_was(run, command):
    code, out, err = command("evaluate", run, "--json")
    assert code == 0, err
    lines = (run / "metrics.csv").read_text().splitlines()
    last = dict(zip(lines[0].split(","), lines[-1].split(","), strict=True))
    assert json.loads(out)["accuracy"] == float(last["validation_accuracy"])


def test_a_run_has_a_report_and_is_exported(run, command):
    assert command("report", run)[0] == 0
    assert (run / "report.html").exists()
    if pytest.importorskip("onnx"):
        assert command("export", run, "model.onnx")[0] == 0


def test_a_run_is_resumed_to_the_weights_of_version_0_1(run, command):
    code, _, err = command("train", "--resume", run, "--epochs", 3, "--no-report")
    assert code == 0, err
    expected = load_file(FILES / "resumed.safetensors")
    found = load_file(run / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_comparison_is_shown(command):
    code, out, err = command("compare", FILES / "comparison.json")
    assert code == 0, err
    assert "notebook, batch 1" in out
