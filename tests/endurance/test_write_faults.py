"""Writes that fail: the run says so, keeps the last good checkpoint, ends with an error, and can go on."""

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cnn
from cnn.cli.signals import StopOnSignal
from cnn.support.files import making_whole, reason_of, require_place, write_whole
from cnn.training.checkpoints import SavedTraining

SMALL = ("--model", "notebook", "--kernels", "portable", "--batch-size", 16, "--epochs", 3, "--no-report")
WAYS = {errno.ENOSPC: "No space left on device", errno.EIO: "Input/output error"}


def failing(number, turn=1):
    """A function that fails when it is called for the ``turn``-th time, as the system would."""

    def install(monkeypatch, module, name):
        original, left = getattr(module, name), turn

        def call(*arguments, **more):
            nonlocal left
            left -= 1
            if left == 0:
                raise OSError(number, os.strerror(number), str(arguments[0]))
            return original(*arguments, **more)

        monkeypatch.setattr(module, name, call)

    return install


@pytest.mark.parametrize("number", WAYS)
@pytest.mark.parametrize(
    ("module", "name"),
    [(Path, "open"), (os, "fsync"), (os, "replace")],
)
def test_a_file_that_cannot_be_written_is_named_and_stays_what_it_was(
    tmp_path, monkeypatch, module, name, number
):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    failing(number)(monkeypatch, module, name)
    with pytest.raises(OSError, match=WAYS[number]) as caught:
        write_whole(path, b"after")
    assert (caught.value.errno, caught.value.filename) == (number, str(path))
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(os.name == "nt", reason="there a folder cannot be flushed")
def test_where_only_the_folder_cannot_be_flushed_that_is_said_and_the_new_file_is_there(
    tmp_path, monkeypatch
):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    failing(errno.EIO, turn=2)(monkeypatch, os, "fsync")
    with pytest.raises(OSError, match="Input/output error") as caught:
        write_whole(path, b"after")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"after"


class TestFileSystemsThatDoLess:
    """What such a one refuses and nobody needs is left: permissions, flushing, locks, renaming a folder."""

    @pytest.fixture
    def refuse(self, monkeypatch):
        """``refuse(name, number)`` lets every call of os.NAME fail so from now on."""

        def install(name, number, module=os):
            def refuses(*_, **__):
                raise OSError(number, os.strerror(number))

            monkeypatch.setattr(module, name, refuses)

        return install

    def test_the_usual_permissions_are_there_without_setting_them(self, refuse, tmp_path, monkeypatch):
        refuse("chmod", errno.EPERM)
        refuse("fchmod", errno.EPERM)
        before = os.umask(0o027)
        try:
            write_whole(tmp_path / "file", b"whole")
            with making_whole(tmp_path / "folder"):
                pass
        finally:
            os.umask(before)
        assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
        assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750

    @pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM])
    def test_what_cannot_be_flushed_is_written_all_the_same(self, refuse, tmp_path, number):
        refuse("fsync", number)
        write_whole(tmp_path / "file", b"whole")
        assert (tmp_path / "file").read_bytes() == b"whole"

    @pytest.mark.skipif(os.name == "nt", reason="there no folder is opened")
    def test_a_folder_that_cannot_be_opened_is_not_flushed(self, refuse, tmp_path):
        refuse("open", errno.EACCES)
        write_whole(tmp_path / "file", b"whole")
        assert (tmp_path / "file").read_bytes() == b"whole"

    @pytest.mark.parametrize("number", [errno.EMFILE, errno.EPERM, errno.ENOSYS])  # gcsfuse says the first
    def test_a_folder_that_cannot_be_renamed_is_filled_in_its_place(self, tmp_path, monkeypatch, number):
        rename = Path.rename

        def of_files_alone(self, target):
            if self.is_dir():
                raise OSError(number, os.strerror(number), str(self))
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", of_files_alone)
        with making_whole(tmp_path / "run") as beside:
            (beside / "file").write_bytes(b"whole")
        assert os.listdir(tmp_path) == ["run"]
        assert (tmp_path / "run/file").read_bytes() == b"whole"
        with pytest.raises(OSError, match=os.strerror(number)), making_whole(tmp_path / "run"):
            pass  # somebody else's folder is not filled
        assert os.listdir(tmp_path / "run") == ["file"]

    def test_permissions_that_say_too_little_do_not_keep_a_file_from_being_made(self, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "access", lambda *_: False)
        require_place(tmp_path / "file")
        assert os.listdir(tmp_path) == []
        with pytest.raises(cnn.ArgumentError, match=r"the folder .*none does not exist; name another"):
            require_place(tmp_path / "none" / "file")

    def test_a_training_run_on_such_a_file_system(self, refuse, command, own_data, monkeypatch):
        import fcntl

        refuse("chmod", errno.EPERM)
        refuse("fsync", errno.EINVAL)
        refuse("flock", errno.ENOTSUP, fcntl)
        monkeypatch.setattr(os, "access", lambda *_: False)
        code, _, err = command("train", *SMALL, "--data", own_data, "--out", "run", "--epochs", 1)
        assert code == 0, err
        assert Path("run/evaluation.safetensors").exists()
        for words in (("evaluate", "run"), ("export", "run", "x.onnx"), ("train", "--resume", "run")):
            assert command(*words)[0] == 0

    def test_no_command_refuses_a_path_for_its_permissions(self, command, monkeypatch):
        monkeypatch.setattr(os, "access", lambda *_: False)
        os.mkdir("some")
        for words in (
            *(["evaluate", "some"], ["report", "some"], ["predict", "some", "some"], ["import", "some"]),
            *(["export", "some", "some"], ["compare", "some"], ["compare", "--save", "some"]),
            *(["train", "--resume", "some"], ["train", "--config", "some"], ["train", "--out", "some"]),
            *(["report", "some", "--out", "some"], ["compare", "--plot", "some"]),
        ):
            code, _, err = command(*words)
            assert (code, "is not readable" in err) == (2, False)


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "parent" / "folder"

    def half(beside):
        (beside / "file").write_bytes(b"half")
        raise OSError(28, "full")

    with pytest.raises(OSError, match="full"), making_whole(path) as beside:
        half(beside)
    assert os.listdir(tmp_path / "parent") == []
    with making_whole(path) as beside:
        (beside / "file").write_bytes(b"whole")
        assert not path.exists()
    assert (path / "file").read_bytes() == b"whole"
    (tmp_path / "plain").mkdir()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(28, "No space left on device", "run/x"), "run/x: No space left on device"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("no terminal"), "no terminal"),
        (ValueError("a value"), "a value"),
    ],
)
def test_the_reason_of_an_error_has_no_number(error, sentence):
    assert reason_of(error) == sentence


class TestCommand:
    @pytest.fixture
    def train(self, command, own_data):
        """``train(...)`` -> (exit code, standard output, standard error) of a new run."""
        return lambda *more: command("train", *SMALL, "--data", own_data, "--out", "run", *more)

    @pytest.fixture
    def strike(self, monkeypatch):
        """``strike(act)`` lets that happen in the second epoch, once."""

        def install(act):
            def on_step(self, run):
                if (run.epoch, run.step) == (2, 1):
                    act()
                original(self, run)

            monkeypatch.setattr(StopOnSignal, "on_step", on_step)

        original = StopOnSignal.on_step
        return install

    @pytest.fixture
    def weights(self, command, own_data):
        """Of a run to which nothing happened."""
        command("train", *SMALL, "--data", own_data, "--out", "whole")
        return Path("whole/model.safetensors").read_bytes()

    def test_a_folder_that_vanishes(self, train, strike):
        strike(lambda: shutil.rmtree("run"))
        code, out, err = train()
        assert (code, out) == (2, "")
        assert re.fullmatch(
            r"error: run/\S+: No such file or directory; there is no folder run to resume from",
            err.splitlines()[-1],
        )
        assert not Path("run").exists()

    def test_one_that_gets_another_name_goes_on_under_that(self, train, strike, command, weights):
        strike(lambda: os.rename("run", "moved"))
        assert train()[0] == 2
        assert SavedTraining.read("moved/checkpoint.safetensors").position == "the end of epoch 1"
        strike(lambda: None)
        assert command("train", "--resume", "moved", "--no-report")[0] == 0
        assert Path("moved/model.safetensors").read_bytes() == weights

    @pytest.mark.parametrize("number", WAYS)
    def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(
        self, train, strike, command, weights, monkeypatch, number
    ):
        with monkeypatch.context() as patch:

            def fail_from_here():
                patch.setattr(cnn.Checkpoint, "seconds", 0)
                patch.setattr(cnn.Checkpoint, "share", float("inf"))
                failing(number)(patch, os, "fsync")

            strike(fail_from_here)
            code, _, err = train()
        assert (code, err.splitlines()[-1]) == (
            2,
            f"error: run/checkpoint.safetensors: {WAYS[number]}; `cnn train --resume run` resumes from the "
            "end of epoch 1",
        )
        strike(lambda: None)
        assert command("train", "--resume", "run", "--no-report")[0] == 0
        assert Path("run/model.safetensors").read_bytes() == weights

    def test_what_the_test_found_is_dispensable_and_can_be_had_later(self, train, command, monkeypatch):
        with monkeypatch.context() as patch:

            def full(self, path):
                raise OSError(28, "No space left on device", str(path))

            patch.setattr("cnn.runs.report.evaluation.Evaluation.save", full)
            code, out, err = train()
        assert (code, err.splitlines()[-1]) == (
            0,
            "no report: run/evaluation.safetensors: No space left on device; "
            "`cnn train --resume run` draws it",
        )
        assert command("train", "--resume", "run", "--no-report")[:2] == (0, out)
        assert Path("run/evaluation.safetensors").exists()

    def test_where_that_is_interrupted_the_run_goes_on_with_the_test(self, train, command, monkeypatch):
        with monkeypatch.context() as patch:

            def interrupt(self, path):
                raise KeyboardInterrupt

            patch.setattr("cnn.runs.report.evaluation.Evaluation.save", interrupt)
            code, out, err = train()
        assert (code, out, err.splitlines()[-1]) == (
            130,
            "",
            "interrupted; `cnn train --resume run` resumes from the end of epoch 3",
        )
        assert command("train", "--resume", "run", "--no-report")[0] == 0
        assert Path("run/evaluation.safetensors").exists()

    def test_logs_that_cannot_be_written_name_the_file_and_the_reason(self, train, monkeypatch):
        def full(self, run):
            raise OSError(28, "No space left on device", "run/tensorboard/events")

        pytest.importorskip("tensorboard")
        monkeypatch.setattr("cnn.training.tensorboard.TensorBoard.on_start", full)
        code, _, err = train()
        assert code == 0
        assert "no more logs for TensorBoard: run/tensorboard/events: No space left on device\n" in err

    @pytest.mark.skipif(os.name == "nt", reason="there are no such locks")
    def test_a_file_system_without_locks_is_trained_on_all_the_same(self, train, monkeypatch):
        failing(errno.ENOLCK)(monkeypatch, sys.modules["fcntl"], "flock")
        assert train()[0] == 0


def test_a_sample_of_all_calls_of_a_training(tmp_path):
    shim = pytest.importorskip("durability.shim")
    if shim.compiler() is None:
        pytest.skip("it takes Linux and a C compiler")
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("fail_writes.py")), "--sample", "5", "--seed", "2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^ +all +5 +\d+ +\d+ +0 *$", done.stdout, re.MULTILINE), done.stdout


class TestEnding:
    """What tests/endurance/fail_writes.py finds wrong in how a training ends."""

    NAME = "run/.model.safetensors.k_3.unfinished"
    AGAIN = "`cnn train --resume run` resumes from epoch 1, step 1 of 3"

    @pytest.fixture
    def wrong(self, tmp_path):
        """``wrong(code, standard error, failed call)``."""
        pytest.importorskip("durability.bench", reason="it takes POSIX")
        from durability.bench import Outcome, wrong_ending
        from durability.shim import Call

        (tmp_path / "run").mkdir()
        return lambda code, err, name="write", way=errno.EIO, path=self.NAME: wrong_ending(
            Outcome(code, err), [Call(name, way, path)], tmp_path / "run"
        )

    def test_an_error_in_one_line_is_right(self, wrong):
        assert wrong(2, f"epoch 1\nerror: run/model.safetensors: Input/output error; {self.AGAIN}\n") == []

    @pytest.mark.parametrize(
        ("code", "err"),
        [
            (1, f"error: run/model.safetensors: Input/output error; {AGAIN}\n"),
            (2, f"error: run/model.safetensors: No space left on device; {AGAIN}\n"),
            (2, f"error: run/metrics.csv: Input/output error; {AGAIN}\n"),
            (2, f"error: {NAME}: Input/output error; {AGAIN}\n"),
            (2, "error: run/model.safetensors: Input/output error\n"),
            (2, f"error: a\nerror: run/model.safetensors: Input/output error; {AGAIN}\n"),
            (2, f"Traceback\nerror: run/model.safetensors: Input/output error; {AGAIN}\n"),
            (2, f"error: run/model.safetensors: Input/output error; {AGAIN}\nmore\n"),
            (99, "Traceback\n"),
            (0, ""),
            (0, "no report: Input/output error\n"),
            (0, "Traceback\nno report: run/model.safetensors: Input/output error\n"),
        ],
    )
    def test_anything_else_is_not(self, wrong, code, err):
        assert len(wrong(code, err)) == 1

    def test_what_is_dispensable_has_to_be_named(self, wrong):
        assert wrong(0, "no report: run/model.safetensors: Input/output error; and so on\n") == []

    def test_where_there_are_no_locks_nothing_has_to_be_said(self, wrong):
        assert wrong(0, "", name="flock", way=errno.ENOLCK) == []

    def test_a_short_write_is_not_to_be_noticed(self, wrong):
        assert wrong(0, "", way=-1) == []
        assert len(wrong(2, "error: half\n", way=-1)) == 1
