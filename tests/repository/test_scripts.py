"""The scripts start from a checkout, from any folder."""

import json
import os
import subprocess
import sys

from helpers import ROOT

SCRIPTS = ROOT / "scripts"


def run(name, *arguments, cwd):
    command = [sys.executable, str(SCRIPTS / name), *map(str, arguments)]
    environment = os.environ | {"CNN_DEVICE": "cpu", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_train_is_cnn_train(tmp_path):
    done = run(
        "train.py", "--per-class", 5, "--epochs", 1, "--out", "run", "--json", "--no-report", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"] == "run"
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_compare_devices_is_cnn_compare(tmp_path):
    done = run("compare_devices.py", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "layer by layer" in done.stdout


def test_the_notebooks_experiment_runs_both_ways(tmp_path):
    arguments = ("--per-class", 4, "--test-images", 10, "--epochs", 1)
    done = run("reproduce_notebook.py", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    header, _, _, epoch = done.stdout.splitlines()
    assert "0 and 1" in header
    assert epoch.split()[0] == "1"
    assert float(epoch.split()[-2].rstrip("%")) > 99  # this library, on the whole of both classes
