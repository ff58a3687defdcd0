"""If standard error or output fails, the work continues without its log, and a lost result is reported."""

import errno
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from helpers import ROOT
from helpers.small_run import SMALL

import cnn
from cnn.support.streams import OutputLost, guarded, log

GONE = {"reader": errno.EPIPE, "disk": errno.ENOSPC, "terminal": errno.EIO, "closed": errno.EBADF}


class Broken(StringIO):
    """A stream that cannot be written, or one that keeps what it gets until it is flushed."""

    def __init__(self, number, buffers=False, terminal=False):
        super().__init__()
        self.number, self.buffers, self.terminal = number, buffers, terminal

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError  # as click finds out that it takes text
        return len(text) if self.buffers else self.flush()  # no text at all fails too without a buffer

    def flush(self):
        raise OSError(self.number, os.strerror(self.number))

    def isatty(self):
        return self.terminal


def closed():
    stream = StringIO()
    stream.close()
    return stream


STREAMS = [*(Broken(number) for number in GONE.values()), Broken(errno.EIO, terminal=True), closed(), None]


class TestLog:
    @pytest.mark.parametrize("stream", STREAMS)
    def test_training_in_python_goes_on_without_it(self, own_data, monkeypatch, stream):
        monkeypatch.setattr("sys.stderr", stream)
        train, _ = cnn.data.load(own_data)
        network = cnn.Sequential(cnn.Flatten(), cnn.Dense(2))
        history = cnn.fit(network, train, epochs=2, batch_size=32)
        assert [line["epoch"] for line in history] == [1, 2]

    @pytest.mark.parametrize("stream", [Broken(errno.EPIPE), Broken(errno.EIO, terminal=True), None])
    def test_a_run_goes_on_without_it(self, command, own_data, monkeypatch, stream):
        monkeypatch.setattr("sys.stderr", stream)
        code, out, _ = command("train", *SMALL, "--data", own_data, "--out", "run", "--kernels", "portable")
        assert (code, out.splitlines()[-1]) == (0, "run")
        assert Path("run/evaluation.safetensors").exists()

    def test_an_error_still_gives_its_exit_code(self, command, monkeypatch):
        monkeypatch.setattr("sys.stderr", Broken(errno.EPIPE))
        assert command("evaluate", "nowhere")[0] == 2

    def test_what_comes_once_it_can_be_written_again_is_there(self, monkeypatch, capsys):
        stream = log()
        with monkeypatch.context() as patch:
            patch.setattr(sys.stderr, "write", Broken(errno.ENOSPC).write)
            print("lost", file=stream)
        print("kept", file=stream)
        assert capsys.readouterr().err == "kept\n"


class TestOutput:
    @pytest.mark.parametrize("buffers", [False, True])
    @pytest.mark.parametrize("arguments", [("summary",), ("summary", "--json"), ("--help",)])
    def test_a_lost_result_is_an_error(self, command, monkeypatch, buffers, arguments):
        monkeypatch.setattr("sys.stdout", Broken(errno.ENOSPC, buffers))
        code, _, err = command(*arguments)
        assert (code, err) == (
            2,
            "error: standard output cannot be written (No space left on device): what was printed there is "
            "lost\n",
        )

    def test_a_reader_that_has_seen_enough_is_none_that_is_told(self, command, monkeypatch):
        monkeypatch.setattr("sys.stdout", Broken(errno.EPIPE))
        assert command("summary")[::2] == (1, "")

    def test_the_result_of_a_run_is_in_its_folder_too(self, command, own_data, monkeypatch):
        monkeypatch.setattr("sys.stdout", Broken(errno.ENOSPC, buffers=True))
        assert command("train", *SMALL, "--data", own_data, "--out", "run")[0] == 0
        assert Path("run/evaluation.safetensors").exists()

    def test_it_fails_once(self, monkeypatch):
        monkeypatch.setattr("sys.stdout", None)
        with guarded():
            sys.stdout.write("lost")
            with pytest.raises(OutputLost, match="Bad file descriptor"):
                sys.stdout.flush()
            sys.stdout.write("lost too")
            sys.stdout.flush()


@pytest.mark.skipif(os.name == "nt", reason="closes streams as a shell of Unix does")
def test_no_file_takes_the_number_of_a_stream_that_was_closed(tmp_path):
    program = (
        "from cnn.support.streams import guarded; import os\n"
        "with guarded():\n"
        "    raise SystemExit(os.open('file', os.O_WRONLY | os.O_CREAT))"
    )
    command = ["sh", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, program]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, cwd=tmp_path, env=environment).returncode > 2
