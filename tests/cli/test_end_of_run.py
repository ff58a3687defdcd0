"""The end of ``cnn train``: its report and logs, and what happens if they fail."""

import os
import subprocess
import sys

import pytest
from helpers import ROOT
from helpers.small_run import SMALL

from cnn.training import tensorboard


def test_a_run_ends_with_its_report(command, own_data, tmp_path):
    for package in ("jinja2", "matplotlib"):
        pytest.importorskip(package)
    arguments = (argument for argument in SMALL if argument != "--no-report")
    code, out, err = command("train", *arguments, "--data", own_data, "--out", "run")
    assert code == 0, err
    assert err.splitlines()[-1] == "open run/report.html in a browser to see the report"
    assert out.endswith("\nrun\n")
    drawn = (tmp_path / "run" / "report.html").read_bytes()
    assert b"bright" in drawn
    (tmp_path / "run" / "report.html").unlink()
    assert command("report", "run")[0] == 0
    assert (tmp_path / "run" / "report.html").read_bytes() == drawn


def test_a_report_that_cannot_be_drawn_does_not_lose_the_run(command, own_data, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "run/report.html")

    monkeypatch.setattr("cnn.cli.job.write_report", full)
    arguments = (argument for argument in SMALL if argument != "--no-report")
    code, out, err = command("train", *arguments, "--data", own_data, "--out", "run")
    assert code == 0
    assert "no report: " in err
    assert "No space left on device" in err
    assert out.startswith("test accuracy")


@pytest.mark.parametrize("failing", ["on_start", "on_epoch", "on_end"])
def test_logs_that_cannot_be_written_do_not_end_a_run(command, own_data, monkeypatch, failing):
    pytest.importorskip("tensorboard")

    def fails(*_):
        raise TypeError("descriptors cannot be created directly")

    monkeypatch.setattr(tensorboard.TensorBoard, failing, fails)
    code, out, err = command("train", *SMALL, "--data", own_data, "--out", "run", "--epochs", 2)
    assert code == 0
    assert err.count("no more logs for TensorBoard: descriptors cannot be created directly") == 1
    assert out.startswith("test accuracy")


def test_a_broken_drawing_library_does_not_end_a_run(command, own_data, monkeypatch, tmp_path):
    for module in [module for module in sys.modules if module.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, module)
    (tmp_path / "matplotlib.py").write_text("raise RuntimeError('numpy was compiled against another API')")
    monkeypatch.syspath_prepend(tmp_path)
    arguments = (argument for argument in SMALL if argument != "--no-report")
    code, out, err = command("train", *arguments, "--data", own_data, "--out", "run")
    assert code == 0
    assert "no report: matplotlib is needed to make a report" in err
    assert out.endswith("run\n")


def test_ctrl_c_while_drawing_says_that_the_run_is_whole(command, own_data, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("cnn.cli.job.write_report", interrupted)
    arguments = (argument for argument in SMALL if argument != "--no-report")
    _, out, err = command("train", *arguments, "--data", own_data, "--out", "run")
    assert "interrupted while drawing the report: the run is complete, `cnn report run` draws it" in err
    assert out.startswith("test accuracy")


def test_a_screen_without_all_letters_gets_what_it_can_show(own_data, tmp_path):
    flags = [*SMALL, "--data", own_data, "--out", "é"]
    code = "import sys; from cnn.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "train", *map(str, flags)],
        env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\\xe9\n")
