"""``cnn train`` in several processes: the same results, one voice, and an end for all if one of them ends."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT
from helpers.together import ENVIRONMENT, MPIEXEC, needed

import cnn
from cnn.training.checkpoints import SavedTraining

pytestmark = needed

CNN = [sys.executable, "-P", "-m", "cnn"]
SMALL = (
    "train", "--model", "notebook", "--data", "data.npz", "--device", "cpu", "--kernels", "portable",
    "--batch-size", "16", "--threads", "1", "--no-report",
)  # fmt: skip
LONG = (*SMALL, "--epochs", "100000", "--out", "run", "--timeout", "6")
GONE = 5  # seconds in which all processes end


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a data set of 48 images."""
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (60, 12, 12), dtype=np.uint8), np.arange(60) % 3
    np.savez(
        tmp_path / "data.npz",
        x_train=images[:48],
        y_train=labels[:48],
        x_test=images[48:],
        y_test=labels[48:],
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def started(*words, launcher=(), **variables):
    """The command, which has just been started."""
    return subprocess.Popen(
        [*map(str, launcher), *CNN, *map(str, words)],
        env=os.environ | ENVIRONMENT | {"COLUMNS": "200"} | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(*words, launcher=(), **variables):
    """(exit code, standard output, standard error) of the command."""
    process = started(*words, launcher=launcher, **variables)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def mpiexec(processes):
    return MPIEXEC, "-n", processes


def weights(run):
    return cnn.load(Path(run, "model.safetensors"), device="cpu").state_dict()


def assert_same_weights(run, other):
    expected = weights(other)
    for name, value in weights(run).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


class TestResults:
    def test_they_are_those_of_one_process_and_printed_once(self, place):
        options = ("--epochs", 2, "--validation", 0.2, "--shards", 2)
        code, out, err = said(*SMALL, *options, "--out", "alone")
        assert code == 0, err
        code, several_out, several_err = said(*SMALL, *options, "--out", "several", "--processes", 2)
        assert code == 0, several_err
        assert several_out.replace("several", "alone") == out
        assert [line.split()[0] for line in several_err.splitlines() if line.startswith("epoch")] == [
            "epoch"
        ] * 2
        assert_same_weights("several", "alone")
        assert (place / "several/best.safetensors").exists()

    def test_a_run_of_two_is_resumed_by_one_to_the_same_bits(self, place):
        same = (*SMALL, "--schedule", "constant", "--warmup", 0)  # for any number of epochs
        assert said(*same, "--epochs", 3, "--out", "whole", launcher=mpiexec(2))[0] == 0
        assert said(*same, "--epochs", 1, "--out", "parts", launcher=mpiexec(2))[0] == 0
        code, _, err = said("train", "--resume", "parts", "--epochs", 3, "--no-report")
        assert code == 0, err
        assert_same_weights("parts", "whole")
        assert '"shards": 2' in Path("parts/config.json").read_text()


class TestMistakes:
    """One sentence, exit code 2, and no process is left."""

    @pytest.fixture
    def mistake(self, place):
        def told(*words, **named):
            code, out, err = said(*words, **named)
            assert (code, out, len(err.splitlines())) == (2, "", 1), err
            return err.strip()

        return told

    def test_more_processes_than_shards(self, mistake):
        assert mistake(*SMALL, "--shards", 1, "--processes", 2) == (
            "error: 2 processes, but this run cuts each batch into 1 shard: start at most 1"
        )

    def test_a_folder_that_exists_is_found_by_the_first_alone(self, mistake, place):
        (place / "run").mkdir()
        told = mistake(*SMALL, "--out", "run", launcher=mpiexec(2))
        assert told == "error: the output folder run exists: give --out another name"

    def test_data_that_do_not_exist(self, mistake):
        assert "nowhere.npz" in mistake("train", "--data", "nowhere.npz", "--out", "run", launcher=mpiexec(2))

    def test_a_mistake_that_another_process_alone_has(self, mistake, place):
        words = ("train", "--data", "data.npz", "--out", "run", "--no-report", "--model", "notebook")
        own = [*CNN, *words]
        launcher = [MPIEXEC, "-n", 1, *own, ":", "-n", 1, "env", "CNN_DEVICE=none"]
        told = mistake(*words, launcher=launcher)
        assert re.match(r"error: process 1 on \S+: unknown device 'none' in the environment variable", told)

    def test_more_shards_than_images_in_a_batch(self, mistake):
        told = mistake(*SMALL, "--shards", 17, "--out", "run", launcher=mpiexec(2))
        assert told.startswith("error: 17 shards are more than the 16 images of a batch")

    def test_a_command_that_several_would_only_repeat(self, mistake):
        told = mistake("summary", "lenet5", launcher=mpiexec(2))
        assert told == (
            "error: 2 processes were started, but only `cnn train` runs in several: start `cnn summary` "
            "without the launcher"
        )

    def test_processes_of_a_launcher_and_of_the_command(self, mistake):
        told = mistake(*SMALL, "--processes", 2, launcher=mpiexec(2))
        assert told.startswith("error: --processes is 2, but a launcher has started 2 already")

    def test_no_mpi(self, mistake, place):
        (place / "mpi4py").mkdir()
        (place / "mpi4py/__init__.py").write_text("raise ImportError('no library')")
        path = os.pathsep.join([str(place), str(ROOT)])
        told = mistake(*SMALL, PMI_SIZE="2", PMI_RANK="0", PYTHONPATH=path)
        assert told == (
            "error: training in several processes needs MPI (no library): pip install mpi4py mpich"
        )

    def test_a_launcher_of_another_mpi(self, mistake):
        told = mistake(*SMALL, OMPI_COMM_WORLD_SIZE="2", OMPI_COMM_WORLD_RANK="0")
        assert told.startswith("error: this mpiexec belongs to another MPI than Python's, which is MPICH")

    def test_no_mpiexec(self, mistake, place, monkeypatch):
        script = (
            "import sys; sys.executable = '/nowhere/python'; "
            "sys.argv = ['cnn', 'train', '--processes', '2']; import cnn.cli; cnn.cli.main()"
        )
        monkeypatch.setenv("PATH", str(place))
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (
            2,
            "error: training in several processes needs MPI, but there is no mpiexec: pip install mpi4py "
            "mpich\n",
        )


class TestEnds:
    """However one of the processes ends, all of them do."""

    @pytest.fixture
    def run(self, place):
        """A run in two processes that has finished an epoch."""
        process = started(*LONG, "--processes", 2)
        while not Path("run/checkpoint.safetensors").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        yield process
        for found in ranks(place):
            with contextlib.suppress(ProcessLookupError):
                os.kill(found, signal.SIGKILL)
        if process.poll() is None:
            process.kill()

    def end_of(self, process, place):
        """(exit code, standard error) of the run, whose processes have all ended soon."""
        _, err = process.communicate(timeout=100)
        until = time.monotonic() + GONE
        while ranks(place) and time.monotonic() < until:
            time.sleep(0.05)
        assert ranks(place) == []
        return process.returncode, [
            line for line in err.splitlines() if not line.startswith(("epoch", "note: "))
        ][1:]

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_a_signal_stops_all_after_a_checkpoint(self, run, place, number, code):
        run.send_signal(number)
        ended, told = self.end_of(run, place)
        assert (ended, told[0]) == (code, "stopping after the current batch; a second signal stops at once")
        saved = SavedTraining.read("run/checkpoint.safetensors")
        assert told[1:] == [f"stopped; `cnn train --resume run` resumes from {saved.position}"]

    @pytest.mark.parametrize("rank", [0, 1])
    def test_a_process_that_is_killed(self, run, place, rank):
        os.kill(ranks(place)[rank], signal.SIGKILL)
        code, told = self.end_of(run, place)
        assert (code, told) == (
            137,
            [
                "error: one of 2 processes was ended (signal 9, probably because the memory is too small); "
                "`cnn train --resume run` resumes from the last checkpoint, with any number of processes up "
                "to 2"
            ],
        )
        SavedTraining.read("run/checkpoint.safetensors")

    @pytest.mark.parametrize("rank", [0, 1])
    def test_a_process_that_hangs(self, run, place, rank):
        os.kill(ranks(place)[rank], signal.SIGSTOP)
        code, told = self.end_of(run, place)
        assert code == 75
        assert len(told) == 1
        assert re.fullmatch(
            rf"error: process {1 - rank} on \S+ has waited 6 s for the others: one of them hangs or cannot "
            r"be reached; `cnn train --resume run` resumes from the last checkpoint, if there is one",
            told[0],
        )


def ranks(place):
    """The processes that train in the folder, in the order of their ranks."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            variables = (folder / "environ").read_bytes().split(b"\0")
            if (folder / "cwd").resolve() == place and (folder / "stat").read_text().split()[2] != "Z":
                found |= {
                    int(value[9:]): int(folder.name) for value in variables if value.startswith(b"PMI_RANK=")
                }
    return [found[rank] for rank in sorted(found)]
