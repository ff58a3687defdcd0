"""A file that is there: overwritten with a word if it is of the same kind, refused if it is of another."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

import backends
from backends import registry
from cnn import comparison
from cnn.cli import output
from cnn.comparison.setups import setups
from cnn.support.errors import ArgumentError
from cnn.support.outputs import COMPARISON, JSON, MARKDOWN, ONNX, PAGE, PNG, SVG, require_output

STARTS = {
    COMPARISON: b'{\n  "format": "xpcnn comparison",\n',
    JSON: b'{"figures": []}',
    MARKDOWN: b"# Next to PyTorch\n",
    ONNX: b"\x08\x08\x12\x05xpcnn",
    PAGE: b"<!DOCTYPE html>\n",
    PNG: b"\x89PNG\r\n\x1a\n",
    SVG: b'<?xml version="1.0"?>\n<svg>',
}
KINDS = pytest.mark.parametrize("kind", STARTS, ids=lambda kind: kind.name)


@KINDS
def test_a_new_or_empty_file_is_written(kind, tmp_path):
    path = tmp_path / "file"
    assert require_output(path, kind) == f"wrote {path}"
    path.touch()  # as mktemp does
    assert require_output(path, kind) == f"wrote {path}"


@KINDS
def test_a_file_of_the_same_kind_is_overwritten_and_that_is_said(kind, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(STARTS[kind])
    assert require_output(path, kind) == f"overwrote {path}"


@KINDS
def test_a_file_of_another_kind_is_refused(kind, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"Dear diary, ...")
    with pytest.raises(ArgumentError, match=f"file exists and is not {kind.name}: name another file"):
        require_output(path, kind)


def test_what_is_no_regular_file_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="null exists and is not a regular file: name another file"):
        require_output(Path("/dev/null"), PNG)
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    with pytest.raises(ArgumentError, match="nowhere exists and is not a regular file"):
        require_output(tmp_path / "nowhere", PNG)


class TestCommands:
    @pytest.fixture
    def run(self, command, own_data):
        small = ("--model", "notebook", "--epochs", 1, "--device", "cpu", "--batch-size", 64, "--no-report")
        assert command("train", *small, "--data", own_data, "--out", "runs/one")[0] == 0
        return Path("runs/one")

    def test_export(self, command, run):
        pytest.importorskip("onnx")
        assert command("export", run, "one.onnx")[2] == ""
        assert command("export", run, "one.onnx")[2] == "overwrote one.onnx\n"
        code, _, err = command("export", run, "runs/one/config.json")
        assert code == 2
        assert "config.json exists and is not an ONNX file" in err
        assert json.loads((run / "config.json").read_text())["model"] == "notebook"

    def test_report_in_a_folder_with_another_page(self, command, run):
        for package in ("jinja2", "matplotlib"):
            pytest.importorskip(package)
        Path("page").mkdir()
        Path("page/report.html").write_text("Quarterly report")
        code, _, err = command("report", run, "--out", "page")
        assert code == 2
        assert "page/report.html exists and is not an HTML page" in err

    def test_report_of_a_folder_of_runs_skips_what_is_no_run(self, command, run, monkeypatch):
        """As `cnn report runs/*` does once it has made runs/comparison."""

        def write(folder, out):
            return SimpleNamespace(page=folder.path / "report.html", pictures=[])

        monkeypatch.setattr("cnn.cli.report.write_report", write)
        Path("runs/comparison").mkdir()
        Path("runs/notes.txt").touch()
        code, out, err = command("report", *sorted(Path("runs").iterdir()), "--json")
        assert code == 0, err
        assert json.loads(out)["report"] == "runs/one/report.html"
        assert err.splitlines() == [
            "note: runs/comparison is not the folder of a run, it is skipped",
            "note: runs/notes.txt is not the folder of a run, it is skipped",
        ]

    def test_report_of_no_run_at_all_is_refused(self, command):
        for runs in (["nowhere", "neither"], [".", "nowhere"]):
            code, _, err = command("report", *runs)
            assert code == 2
            assert "error: nowhere is not the folder of a run" in err

    def test_compare_refuses_before_it_measures(self, command, monkeypatch):
        monkeypatch.setattr(comparison, "compare", lambda *_: pytest.fail("it measures"))
        Path("diary.txt").write_text("Dear diary, ...")
        code, _, err = command("compare", "--save", "diary.txt")
        assert code == 2
        assert "diary.txt exists and is not a saved comparison" in err
        Path("diary.svg").write_text("Dear diary, ...")
        code, _, err = command("compare", "--plot", "diary.png")
        assert code == 2
        assert "diary.svg exists and is not an SVG picture" in err


def test_without_numba_the_sets_that_there_are_are_compared(monkeypatch):
    pytest.importorskip("threadpoolctl")

    def missing(self):
        raise backends.DeviceUnavailable("the compiled kernels need Numba")

    monkeypatch.setattr(backends.CpuBackend, "compiled_kernels", missing)
    monkeypatch.setattr(registry, "_made", {})
    found = setups(["cpu"])
    assert {setup.backend.kernels.name for setup in found} == {"portable", "signal"}
    assert "Numba" in found[0].backend.slower


class TestStatus:
    def test_a_terminal_shows_the_last_in_one_line(self, terminal, capsys):
        terminal(20)
        status = output.Status()
        for turn in range(3):
            status.show(f"round {turn} of a very long phase")
        status.clear()
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 0
        assert all(len(line.replace("\x1b[K", "")) < 20 for line in err.split("\r"))

    def test_a_phase_is_in_that_line_too(self, terminal, capsys):
        terminal(40)
        status = output.Status()
        status.begin("checking")
        status.show("timing")
        status.clear()
        assert capsys.readouterr().err == "\rchecking\x1b[K\rtiming\x1b[K\r\x1b[K"

    def test_a_phase_has_a_line_of_its_own_in_a_log(self, capsys):
        status = output.Status()
        for phase in ("checking", "timing"):
            status.begin(phase)
        assert capsys.readouterr().err == "checking\ntiming\n"

    def test_a_log_gets_a_line_now_and_then(self, capsys, monkeypatch):
        now = [0.0]
        monkeypatch.setattr(output.time, "monotonic", lambda: now[0])
        status = output.Status()
        for second in range(25):
            now[0] = float(second)
            status.show(f"round {second}")
            status.show("")
        assert capsys.readouterr().err == "round 10\nround 20\n"
