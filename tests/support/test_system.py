"""The branches for Windows, with stand-ins for what it lacks and for how it refuses."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import ROOT

from backends.text import quoted
from cnn.runs.folder import RunFolder
from cnn.support import files, system
from cnn.support.errors import ArgumentError


class Locking:
    """msvcrt's locks, kept by this process: a second one on the same file is refused."""

    LK_NBLCK = 2

    def __init__(self):
        self.held = set()

    def locking(self, handle, mode, count):
        assert (mode, count) == (self.LK_NBLCK, 1)
        identity = os.fstat(handle).st_ino
        if identity in self.held:
            raise PermissionError(errno.EACCES, "Permission denied")
        self.held.add(identity)


@pytest.fixture
def windows(monkeypatch):
    """As on Windows: msvcrt for fcntl, no folders that can be opened; gives the seconds slept."""
    slept = []
    monkeypatch.setattr(system, "_is_windows", lambda: True)
    monkeypatch.setattr(system, "fcntl", None)
    monkeypatch.setattr(system, "msvcrt", Locking())
    monkeypatch.setattr(system, "time", SimpleNamespace(sleep=slept.append))
    return slept


def refusing(monkeypatch, owner, name, times):
    """Let the next calls fail as they do while another program has the file open."""
    real, left = getattr(owner, name), [times]

    def refuse(*arguments):
        if left[0]:
            left[0] -= 1
            raise PermissionError(errno.EACCES, "Access is denied")
        return real(*arguments)

    monkeypatch.setattr(owner, name, refuse)


class TestWindows:
    def test_a_file_that_is_open_elsewhere_is_replaced_a_moment_later(self, windows, monkeypatch, tmp_path):
        refusing(monkeypatch, os, "replace", times=3)
        files.write_whole(tmp_path / "metrics.csv", b"epoch\n")
        assert (tmp_path / "metrics.csv").read_bytes() == b"epoch\n"
        assert list(tmp_path.iterdir()) == [tmp_path / "metrics.csv"]
        assert windows == [0.01, 0.02, 0.05]

    def test_one_that_stays_open_is_named(self, windows, monkeypatch, tmp_path):
        refusing(monkeypatch, os, "replace", times=100)
        with pytest.raises(PermissionError, match=r"Access is denied: '.*metrics\.csv'"):
            files.write_whole(tmp_path / "metrics.csv", b"epoch\n")
        assert list(tmp_path.iterdir()) == []
        assert 0.5 < sum(windows) < 1

    def test_a_new_folder_that_is_looked_at_is_renamed_a_moment_later(self, windows, monkeypatch, tmp_path):
        refusing(monkeypatch, Path, "rename", times=2)
        with files.making_whole(tmp_path / "run") as beside:
            (beside / "config.json").write_text("{}")
        assert [path.name for path in tmp_path.iterdir()] == ["run"]

    def test_two_processes_do_not_train_in_one_folder(self, windows, tmp_path):
        folder = RunFolder(tmp_path)
        with (
            folder.alone(),
            pytest.raises(ArgumentError, match="another process is training in"),
            folder.alone(),
        ):
            pass

    def test_the_lock_leaves_nothing(self, windows, tmp_path):
        with RunFolder(tmp_path).alone():
            assert [path.name for path in tmp_path.iterdir()] == [".lock"]
        assert list(tmp_path.iterdir()) == []

    def test_a_training_runs_to_its_end(self, windows, command, own_data):
        small = ("--model", "notebook", "--epochs", 1, "--device", "cpu", "--batch-size", 64, "--no-report")
        code, out, err = command("train", *small, "--data", own_data, "--out", "run")
        assert (code, out.splitlines()[-1]) == (0, "run"), err
        assert not list(Path("run").glob(".*"))


def test_a_folder_in_a_command_to_copy_is_quoted_as_the_shell_reads_it(monkeypatch):
    assert quoted("runs/my first") == "'runs/my first'"
    monkeypatch.setattr("backends.text.os.name", "nt")
    assert quoted("runs\\my first") == '"runs\\my first"'
    assert quoted("runs\\first") == "runs\\first"


def test_elsewhere_a_refusal_is_final(monkeypatch, tmp_path):
    refusing(monkeypatch, os, "replace", times=1)
    monkeypatch.setattr(system, "time", SimpleNamespace(sleep=lambda seconds: pytest.fail("it waits")))
    with pytest.raises(PermissionError):
        files.write_whole(tmp_path / "file", b"")


def test_a_system_without_locks_goes_on(monkeypatch, tmp_path):
    monkeypatch.setattr(system, "fcntl", None)
    with system.locked(tmp_path), system.locked(tmp_path):
        pass


def test_what_windows_lacks_is_not_needed_to_import_the_command(tmp_path):
    """No fcntl, resource, pwd; no SIGHUP; nothing that forks; and a console of code page 1252."""
    code = (
        "import os, signal, sys\n"
        "for name in ('fcntl', 'resource', 'pwd', 'grp', 'termios'): sys.modules[name] = None\n"
        "for name in ('SIGHUP', 'SIGUSR1', 'SIGALRM', 'SIGKILL', 'SIGQUIT'): delattr(signal, name)\n"
        "for name in ('fork', 'register_at_fork', 'sched_getaffinity', 'getuid', 'O_DIRECTORY'):\n"
        "    delattr(os, name)\n"
        "from cnn.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "info"],
        env=os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONPATH": str(ROOT)},
        capture_output=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"processor:" in done.stdout


def test_what_is_printed_fits_a_console_of_code_page_1252(command, monkeypatch):
    """The letters of tables and help, which other programs' screens show in that code page."""
    for arguments in (("summary",), ("train", "--help"), ("train", "--dry-run", "--device", "cpu")):
        code, out, _ = command(*arguments)
        assert code == 0
        out.encode("cp1252")


def test_the_signals_that_stop_are_those_that_there_are():
    assert signal.SIGINT in system.STOP_SIGNALS
    assert signal.SIGTERM in system.STOP_SIGNALS
    assert None not in system.STOP_SIGNALS
