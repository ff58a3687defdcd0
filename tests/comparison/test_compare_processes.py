"""Comparing numbers of processes: the proof, the measurements, and what they predict for several machines."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from math import isnan
from pathlib import Path

import numpy as np
import pytest
from helpers.together import needed

import backends
import cnn
from backends.cpu import threads
from cnn.comparison import processes
from cnn.comparison.processes import Processes, compare_processes
from cnn.comparison.scaling import LINKS, Column, Link, Scaling, as_plain, sent_bytes
from cnn.comparison.scaling_table import show
from cnn.comparison.worker import Task, Trained
from cnn.inspection.timing import Spread
from cnn.support.errors import ArgumentError, DisagreementError, TrainingError
from cnn.training.distributed.exchange import Exchange
from cnn.training.distributed.mpiexec import Mpiexec

CORES = threads.available_cores()
pytestmark = pytest.mark.usefixtures("few_steps")


@pytest.fixture(scope="module")
def few_steps():
    """A comparison takes as little as it can: what is measured stays the same."""
    pytest.importorskip("threadpoolctl")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("STEPS", 3), ("BLOCK", 0), ("FEWEST", 1), ("PATIENCE", 600)):
            patch.setattr(processes, name, value)
        yield


@pytest.fixture(scope="module")
def found(few_steps):
    """One process and two, compared for real."""
    return compare_processes([2, 1, 2], "notebook", batch_size=5, rounds=1)


@pytest.fixture
def meddle(tmp_path, monkeypatch):
    """``meddle(code)`` runs this code at the start of each process that is started."""

    def write(code):
        (tmp_path / "sitecustomize.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return write


def column(count, seconds, wait=0.0, sent=0.0):
    spread = partial(Spread.of)
    return Column(count, 1, spread([seconds]), spread([wait]), spread([wait]), sent)


def scaling(*columns, vector=1_000_000, batch_size=128, cores=2):
    return Scaling(
        "lenet5", batch_size, "float32", 12, 4, 1, cores, vector, {}, {"processor": "A CPU"}, list(columns)
    )


@needed
class TestMeasurements:
    def test_there_is_a_column_for_each_number_the_smallest_first(self, found):
        assert [each.name.partition(",")[0] for each in found.columns] == ["1 process", "2 processes"]

    def test_the_processes_share_the_cores(self, found):
        assert found.cores == threads.count()
        assert [each.threads for each in found.columns] == [found.cores, max(1, found.cores // 2)]

    def test_the_proof_has_a_shard_for_each_process_of_the_largest_number(self, found):
        assert (found.shards, found.proof_threads) == (2, max(1, found.cores // 2))
        assert found.steps == 2 + 3

    def test_one_process_exchanges_nothing(self, found):
        one = found.columns[0]
        assert (one.wait.median, one.sent, one.share) == (0, 0, 0)
        assert one.step.median > 0

    def test_two_processes_exchange_within_their_steps(self, found):
        two = found.columns[1]
        assert 0 < two.least_wait.median <= two.wait.median < two.step.median
        assert two.share == two.wait.median / two.step.median

    def test_the_bytes_are_those_of_the_gradient(self, found):
        network = cnn.models.make("notebook", classes=10)
        network.build((1, 28, 28), backend=backends.get("cpu"))
        assert found.vector == network.flat.grad.nbytes
        assert found.columns[1].sent == network.flat.grad.nbytes


@needed
class TestProof:
    """Nothing is timed before all numbers of processes give the same weights."""

    @pytest.fixture(autouse=True)
    def _nothing_is_timed(self, monkeypatch):
        monkeypatch.setattr(processes, "_take_turns", lambda *_: pytest.fail("timed before the proof"))

    def test_another_order_of_adding_up_is_seen(self, meddle):
        meddle(
            "import os\n"
            "if 'PMI_RANK' in os.environ or 'OMPI_COMM_WORLD_RANK' in os.environ:\n"
            "    from cnn.training.distributed import tree\n"
            "    tree.middle = lambda first, stop: first + 1\n"
        )
        message = (
            "^3 processes and 1 process do not compute the same: after 5 steps with 3 shards, their weights "
            "differ, so nothing was timed$"
        )
        with pytest.raises(DisagreementError, match=message):
            compare_processes([1, 3], "notebook", batch_size=6)

    def test_the_first_number_that_differs_is_named(self, monkeypatch):
        started = []

        def other_weights(self, task):
            started.append(self.count)
            return Trained(0.1, [0.0] * self.count, 1000, "others" if self.count >= 3 else "these")

        monkeypatch.setattr(Processes, "train", other_weights)
        message = "^3 processes and 1 process do not compute the same"
        with pytest.raises(DisagreementError, match=message):
            compare_processes([1, 2, 3, 4], "notebook", batch_size=4)
        assert started == [1, 2, 3]


class TestTurns:
    def test_all_take_turns_and_a_slow_number_takes_three(self, monkeypatch):
        order = []
        clock = iter(range(0, 10_000, 100))
        monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
        monkeypatch.setattr(processes, "PATIENCE", 250)
        monkeypatch.setattr(Processes, "train", lambda self, task: order.append((self.count, task)))
        tasks = {Processes(count, None): f"task {count}" for count in (1, 2)}
        processes._take_turns(tasks, 5, lambda text: None)
        assert order == 3 * [(1, "task 1"), (2, "task 2")]

    @pytest.mark.parametrize(("seconds", "steps"), [(0.1, 5), (0.001, 500), (1e-6, 1000), (60, 2)])
    def test_a_turn_takes_as_many_steps_as_half_a_second_has(self, monkeypatch, seconds, steps):
        monkeypatch.setattr(processes, "BLOCK", 0.5)
        monkeypatch.setattr(processes, "FEWEST", 2)
        assert processes._steps(processes.Trained(seconds, [0.0], 0, "")) == steps


class TestPrediction:
    def test_the_exchange_of_two_machines_sends_the_vector_once_in_two_turns(self):
        assert Link(1e9, 50e-6).exchange_seconds(2, 250_000) == pytest.approx(2e-3 + 2 * 50e-6)

    def test_the_exchange_of_many_machines(self):
        assert Link(1e9, 1e-3).exchange_seconds(8, 1e6) == pytest.approx(2 * 7 / 8 * 8e-3 + 2 * 3 * 1e-3)
        assert Link(1e9, 1e-3).exchange_seconds(5, 1e6) == pytest.approx(2 * 4 / 5 * 8e-3 + 2 * 3 * 1e-3)

    def test_all_machines_and_networks_are_predicted(self):
        rows = scaling(column(1, 0.1), column(2, 0.2)).predictions
        assert [(each.machines, each.link.name) for each in rows] == [
            (machines, name)
            for machines in (8, 64)
            for name in ("1 Gbit/s, 50 µs", "10 Gbit/s, 20 µs", "100 Gbit/s, 3 µs")
        ]

    def test_a_step_is_a_share_of_the_first_columns_and_the_exchange(self):
        row = scaling(column(1, 0.8), column(2, 0.2)).predictions[0]
        assert row.exchange == LINKS[0].exchange_seconds(8, 1_000_000)
        assert row.step == pytest.approx(0.1 + row.exchange)
        assert row.speed == pytest.approx(0.8 / row.step)

    def test_with_the_batch_size_that_is_named_machines_compute_for_four_fifths_of_the_time(self):
        one = 128e-3  # a millisecond for each image
        for row in scaling(column(1, one), column(2, one)).predictions:
            computing = row.batch_size * 1e-3 / row.machines
            assert computing / (computing + row.exchange) >= 0.8
            if row.batch_size > row.machines:
                assert (computing - 1e-3) / (computing - 1e-3 + row.exchange) < 0.8

    def test_each_machine_has_an_image(self):
        slow = scaling(column(1, 128.0), column(2, 64.0))
        assert [row.batch_size for row in slow.predictions] == [8, 8, 8, 64, 64, 64]

    def test_a_batch_with_fewer_images_than_machines_has_no_step(self):
        small = scaling(column(1, 0.1), column(2, 0.1), batch_size=16).predictions
        assert [isnan(row.step) for row in small] == [False] * 3 + [True] * 3
        assert [isnan(row.speed) for row in small] == [False] * 3 + [True] * 3

    @pytest.mark.parametrize("count", [2, 3, 4, 7])
    def test_the_bytes_are_those_that_the_exchange_sends(self, count):
        size = 4200
        sent = []

        class Counting:
            is_recordable = True

            def exchange(self, sends, receives):
                sent.append(sum(array.nbytes for array, _, _ in sends))

            def share(self, vector, edges):
                own = edges[rank + 1] - edges[rank]
                sent.append((count - 1) * own * vector.itemsize)  # to each of the others

        for rank in range(count):
            vector = np.zeros(size, np.float32)
            Exchange(Counting(), rank, count, backends.get("cpu", "portable"), count, size, "float32")(
                [vector]
            )
            assert sum(sent) == sent_bytes(count, vector.nbytes)
            sent.clear()


class TestTable:
    def test_it_says_what_was_compared_and_what_was_found(self, capsys):
        columns = column(1, 0.010), column(2, 0.008, wait=0.002, sent=1_000_000)
        show(scaling(*columns))
        out = capsys.readouterr().out
        assert "A CPU, with 2 cores\n" in out
        assert "after 12 steps with 4 shards and 1 thread in each process" in out
        assert re.search(r"^speed relative to A +1\.00 +1\.25$", out, re.MULTILINE)
        assert re.search(r"^  share of the step +- +25%$", out, re.MULTILINE)
        assert re.search(r"^sent by a process, kB +- +1,000$", out, re.MULTILINE)

    def test_more_processes_than_cores_are_said(self, capsys):
        show(scaling(column(2, 1.0), column(4, 2.0)))
        out = capsys.readouterr().out
        assert "  A  2 processes, 1 thread each\n" in out
        assert "  B  4 processes, 1 thread each, which share 2 cores" in out

    def test_a_disturbed_measurement_is_said(self, capsys):
        calm = column(1, 1.0)
        show(scaling(calm, replace(column(2, 1.0), step=Spread(2, 1, 4))))
        assert "B: the steps vary a lot, other programs" in capsys.readouterr().out
        show(scaling(calm, column(2, 1.0)))
        assert "vary a lot" not in capsys.readouterr().out


class TestFailures:
    TASK = Task("notebook", 4, "float32", True, 2, 1, 3, "")

    @pytest.fixture
    def two(self):
        return Processes(2, Mpiexec.find())

    @needed
    def test_a_mistake_in_a_process_is_its_sentence(self, two):
        with pytest.raises(ArgumentError, match=r"^9 shards are more than the 4 images of a batch"):
            two.train(replace(self.TASK, shards=9))

    @needed
    def test_python_without_mpi_is_one_sentence(self, two, meddle, tmp_path):
        meddle("import sys; sys.modules['mpi4py'] = None")
        with pytest.raises(ArgumentError, match=r"^training in several processes needs MPI \(.*pip install"):
            two.train(self.TASK)

    @needed
    def test_a_process_that_is_killed_is_an_error(self, two, meddle):
        meddle(
            "import os, signal\n"
            "if os.environ.get('PMI_RANK', os.environ.get('OMPI_COMM_WORLD_RANK')) == '1':\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        with pytest.raises(TrainingError, match=r"^2 processes ended with exit code "):
            two.train(self.TASK)

    def test_an_error_that_nobody_expects_shows_what_it_is(self, meddle):
        meddle("import cnn.data.dataset as d\nd.Dataset.__init__ = lambda *a, **k: 1 / 0\n")
        message = "^1 process ended with exit code 1: ZeroDivisionError: division by zero$"
        with pytest.raises(TrainingError, match=message):
            Processes(1, None).train(replace(self.TASK, shards=1))

    @needed
    @pytest.mark.skipif(os.name == "nt", reason="processes are found by signals")
    def test_an_interruption_ends_the_processes(self, two, meddle, tmp_path, monkeypatch):
        meddle(
            "import os, time\n"
            "if any(name in os.environ for name in ('PMI_RANK', 'OMPI_COMM_WORLD_RANK')):\n"
            f"    open(os.path.join({str(tmp_path)!r}, f'{{os.getpid()}}.pid'), 'w').close()\n"
            "    time.sleep(600)\n"
        )

        def interrupted(process):
            wait_for(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
            raise KeyboardInterrupt

        monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            two.train(self.TASK)
        numbers = [int(path.stem) for path in tmp_path.glob("*.pid")]
        wait_for(lambda: not any(map(is_alive, numbers)))


def wait_for(condition, seconds=100):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "this does not happen"
        time.sleep(0.05)


def is_alive(number):
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


class TestCommand:
    @pytest.fixture
    def compare(self, command):
        return partial(command, "compare")

    @needed
    def test_it_prints_tables_and_saves_what_it_measured(self, compare, monkeypatch, tmp_path):
        measured = Trained(0.1, [0.01], 1000, "the same")  # for real: TestMeasurements
        monkeypatch.setattr(Processes, "train", lambda *_: measured)
        options = ("--model", "notebook", "--batch-size", 4, "--rounds", 1, "--processes", "1,2")
        code, out, err = compare(*options, "--save", "both.json", "--json")
        assert code == 0, err
        assert "\ntiming 1 rounds of steps\n" in err
        assert err.endswith("wrote both.json\n")
        saved = json.loads((tmp_path / "both.json").read_text())
        assert json.loads(out) == saved
        assert [each["processes"] for each in saved["columns"]] == [1, 2]
        assert len(saved["predictions"]) == 6
        code, _, err = compare("both.json")
        assert (code, err.count("\n")) == (2, 1)
        assert err.startswith("error: both.json: a comparison of processes")

    def test_without_json_it_shows_the_tables(self, compare, monkeypatch):
        measured = scaling(column(1, 0.1), column(2, 0.2))
        monkeypatch.setattr(cnn.cli.compare, "compare_processes", lambda *_: measured)
        code, out, _ = compare("--processes", "1,2")
        assert code == 0
        assert "\nThe whole step\n" in out

    def test_a_saved_comparison_of_processes_is_overwritten_and_another_file_is_not(
        self, compare, monkeypatch, tmp_path
    ):
        measured = scaling(column(1, 0.1), column(2, 0.2))
        monkeypatch.setattr(cnn.cli.compare, "compare_processes", lambda *_: measured)
        for word in ("wrote", "overwrote"):
            code, _, err = compare("--processes", "1,2", "--save", "both.json")
            assert (code, err) == (0, f"{word} both.json\n")
        assert json.loads((tmp_path / "both.json").read_text())["columns"] == as_plain(measured)["columns"]
        (tmp_path / "diary.txt").write_text("today")
        code, _, err = compare("--processes", "1,2", "--save", "diary.txt")
        assert code == 2
        assert "diary.txt exists and is not a saved comparison of processes" in err

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("1",), "processes needs at least two different numbers to compare, as in 1,2,4"),
            (("2,2",), "processes needs at least two different numbers to compare, as in 1,2,4"),
            (("0,2",), "processes is 0, expected a whole number of at least 1"),
            (("1,two",), "--processes is '1,two', expected numbers as in 1,2"),
            (("1,8", "--batch-size", 4), "8 processes are more than the 4 images of a batch: take larger"),
            (("1,2", "--model", "lenet9"), "unknown model 'lenet9'"),
            (("1,2", "--rounds", 0), "rounds is 0, expected a whole number of at least 1"),
            (("1,2", "--sweep"), "--sweep is for comparing devices: leave it out with --processes"),
            (("1,2", "--device", "cpu"), "--device is for comparing devices"),
            (("1,2", "--threads", "1"), "--threads is for comparing devices"),
            (("1,2", "--plot", "x.png"), "--plot is for comparing devices"),
            (("1,2", "saved.json"), "--processes is for measuring: leave it out to compare saved files"),
        ],
    )
    def test_a_mistake_is_one_sentence_before_anything_is_started(
        self, compare, monkeypatch, options, message
    ):
        monkeypatch.setattr(Processes, "train", lambda *_: pytest.fail("it starts processes"))
        code, out, err = compare("--processes", *options)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"error: {message}")

    def test_without_mpiexec_it_says_how_to_install_one(self, compare, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        code, _, err = compare("--processes", "1,2")
        assert code == 2
        assert "there is no mpiexec" in err
        assert "pip install" in err
