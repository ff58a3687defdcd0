"""Damaged files by the hundreds: each is read or refused in a sentence, within its bound on memory.

``python tests/endurance/fuzz_readers.py`` tries more of them.
"""

import mmap
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from fuzz import run
from fuzz.run import Outcome, Report, fuzz, spoiled, try_file, work
from fuzz.targets import TARGETS

pytest.importorskip("safetensors")

INPUTS, SEED = 150, 1


@pytest.mark.parametrize("name", TARGETS)
def test_no_file_hurts(name):
    for library in TARGETS[name].needs:
        pytest.importorskip(library)
    report = fuzz(name, SEED, 0, INPUTS)
    assert not report.failures, "\n".join(report.failures)
    assert report.accepted + report.refused == INPUTS
    assert report.accepted >= 2  # inputs of both kinds are tried
    assert report.refused > 30


class TestTheFuzzerItself:
    """It sees what it is there to see."""

    @pytest.fixture
    def outcome(self, tmp_path):
        """``outcome(reader)`` of a file of 10 bytes."""
        path = tmp_path / "a"
        path.write_bytes(bytes(10))
        return lambda read: try_file(replace(TARGETS["idx"], read=read), path)

    def test_another_error_is_a_failure(self, outcome):
        found = outcome(lambda path: {}["no such key"])
        assert found.result == "FAILED"
        assert "Traceback" in found.reason
        assert "KeyError: 'no such key'" in found.reason

    @pytest.mark.parametrize("take", [lambda: bytearray(9 << 20), lambda: np.empty(9 << 20, np.uint8)])
    def test_too_much_memory_is_a_failure(self, outcome, take):
        found = outcome(lambda path: take())
        assert found.result == "FAILED"
        assert found.share > 2

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the highest mark")
    def test_memory_that_python_knows_nothing_of_is_seen(self, outcome):
        def read(path):
            with mmap.mmap(-1, 9 << 20) as memory:
                memory.write(b"x" * (1 << 20) * 9)

        assert outcome(read).result == "FAILED"

    def test_a_message_that_fills_the_screen_is_a_failure(self, outcome):
        def read(path):
            raise run.OURS[0]("x" * 5000)

        assert outcome(read).result == "FAILED"

    def test_inputs_are_the_same_every_time_and_differ(self):
        target = TARGETS["npz"]
        files = target.corpus()
        inputs = [spoiled(target, 3, number, files) for number in range(40)]
        assert inputs == [spoiled(target, 3, number, files) for number in range(40)]
        assert len(set(inputs)) > 35
        assert inputs != [spoiled(target, 4, number, files) for number in range(40)]

    def test_an_input_that_ends_the_process_is_named_and_the_rest_goes_on(self, monkeypatch, tmp_path):
        (tmp_path / "sitecustomize.py").write_text(
            "import os, sys\n"
            "if 'fuzz.run' in sys.orig_argv:\n"
            "    import cnn.data, fuzz.targets\n"
            "    honest, count = cnn.data.read_idx, iter(range(99))\n"
            "    def fatal(path):\n"
            "        os.abort() if next(count) == 6 else honest(path)\n"
            "    from dataclasses import replace\n"
            "    targets = fuzz.targets.TARGETS\n"
            "    targets['idx'] = replace(targets['idx'], read=fatal)\n"
        )
        monkeypatch.setattr(run, "SEARCHED", (str(tmp_path), *run.SEARCHED))
        report = fuzz("idx", 0, 0, 5)  # after four valid files
        (failure,) = report.failures
        assert failure.startswith("idx, seed 0, number 2: the process ended with")
        assert "python tests/endurance/fuzz_readers.py --format idx --seed 0 --number 2" in failure
        assert report.accepted + report.refused == 4

    @pytest.mark.skipif(not hasattr(run.signal, "setitimer"), reason="no alarms on this system")
    def test_an_input_that_takes_for_ever_ends_the_process_with_a_traceback(self):
        program = "import fuzz.run\nfuzz.run.PATIENCE = 0.2\nwith fuzz.run.patience():\n    while True: pass"
        done = subprocess.run(
            [sys.executable, "-c", program], env=run.environment(), capture_output=True, text=True
        )
        assert done.returncode == -run.signal.SIGALRM
        assert "line 4 in <module>" in done.stderr

    def test_valid_files_are_accepted_as_they_are(self, monkeypatch):
        monkeypatch.setattr(run, "limit_to", lambda more: None)  # it would hold for the other tests too
        monkeypatch.setattr(run, "spoiled", lambda target, seed, number, files: files[number])
        count = len(TARGETS["npz"].corpus())
        assert [outcome.result for outcome in work("npz", 0, 0, count)] == ["accepted"] * count


class TestScript:
    """tests/endurance/fuzz_readers.py: the same for longer, and one input again."""

    @pytest.fixture
    def script(self, monkeypatch, capsys):
        """``script("--inputs", 5)`` -> (exit code, standard output, standard error)."""
        import fuzz_readers

        def call(*arguments):
            monkeypatch.setattr("sys.argv", ["fuzz_readers.py", *map(str, arguments)])
            with pytest.raises(SystemExit) as stop:
                fuzz_readers.main()
            return stop.value.code, *capsys.readouterr()

        return call

    def test_a_line_for_each_format(self, script):
        code, out, err = script("--format", "idx", "--inputs", 30)
        assert (code, err) == (0, "")
        header, line = out.splitlines()
        assert header.split() == ["format", "inputs", "accepted", "refused", "failed", "memory"]
        name, inputs, accepted, refused, failed, _ = line.split()
        assert (name, inputs, failed) == ("idx", "30", "0")
        assert int(accepted) + int(refused) == 30

    def test_a_failure_is_told_and_the_exit_code_is_1(self, script, monkeypatch):
        import fuzz_readers

        def fails(name, seed, first, last):
            report = Report(name, seed)
            report.add(Outcome(7, "FAILED", "it burst", 0.5))
            return report

        monkeypatch.setattr(fuzz_readers, "fuzz", fails)
        code, _, err = script("--format", "idx", "--inputs", 30, "--seed", 5)
        assert code == 1
        assert "idx, seed 5, number 7: it burst" in err
        assert "python tests/endurance/fuzz_readers.py --format idx --seed 5 --number 7" in err

    def test_one_input_is_tried_again(self, script):
        target = TARGETS["idx"]
        refused = next(
            number for number in range(99) if spoiled(target, 0, number, target.corpus())[:3] != b"\0\0\b"
        )
        code, out, _ = script("--format", "idx", "--number", refused)
        assert code == 0
        assert out.startswith("refused, ")
        assert "magic number" in out

    def test_a_number_without_a_format_is_a_mistake(self, script):
        code, _, err = script("--number", 3)
        assert code == 2
        assert "give --format too" in err
