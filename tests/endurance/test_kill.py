"""A training that is killed loses nothing: tests/endurance/kill_training.py in small, and its own checks."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

if os.name == "nt":
    pytest.skip("there is no SIGKILL", allow_module_level=True)

import kill_processes
import kill_training
from durability.training import RUN, faults, leftovers
from helpers.together import needed
from kill_training import Killer

from cnn.support.files import making_whole

KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT


def test_killed_again_and_again_each_run_comes_to_the_same_weights(tmp_path):
    killer = Killer(tmp_path, seed=3, epochs=2, reported=0)
    killer.undisturbed()
    for _ in killer.kill(4):
        pass
    tally = killer.tally
    assert tally.violations == []
    assert tally.kills == 4
    assert tally.equal == tally.finished >= 1


@pytest.fixture
def killer(tmp_path):
    """One whose run's folder may be filled at will."""
    killer = Killer(tmp_path, seed=0, epochs=2)
    killer.run.mkdir()
    return killer


def test_a_run_that_ends_with_other_weights_is_noticed(killer):
    for name in ("model", "evaluation"):
        (killer.run / f"{name}.safetensors").write_bytes(b"these")
    killer.weights = b"others"
    killer._finish("")
    assert (killer.tally.finished, killer.tally.equal) == (1, 0)
    assert killer.tally.violations == ["the weights of a finished run differ"]
    assert not killer.run.exists()


@pytest.mark.parametrize(
    ("code", "number", "said", "expected"),
    [
        (-9, KILL, "", True),
        (-9, KILL, "stopping after this batch\nstopped; `cnn train --resume run` goes on", False),
        (2, KILL, "error: ", False),
        (143, TERM, "stopping after this batch\nstopped; `cnn train --resume run` goes on", True),
        (130, INT, "stopping after this batch\nstopped; `cnn train --resume run` goes on", True),
        (143, INT, "stopping after this batch\nstopped; `cnn train --resume run` goes on", False),
        (143, TERM, "stopping after this batch\nTraceback", False),
        (-15, TERM, "", True),
        (143, TERM, "error: terminated", True),
        (143, TERM, "", False),
        (-15, TERM, "stopping after this batch\n", False),
        (130, INT, "interrupted before the test", True),
        (1, INT, "KeyboardInterrupt", True),
        (1, INT, "on 96 images of x\nKeyboardInterrupt", False),
        (1, INT, "", False),
    ],
)
def test_how_a_process_may_end(code, number, said, expected):
    assert kill_training._is_expected(code, number, said) is expected


@pytest.mark.parametrize(
    ("said", "files", "stage"),
    [
        ("", [], "start-up"),
        ("notebook on 96 images of x", ["checkpoint.safetensors"], "steps"),
        ("on 96 images of x\nepoch 2/2 ", ["checkpoint.safetensors"], "test"),
        ("on 96 images of x\nepoch 2/2 ", ["evaluation.safetensors"], "report"),
        ("run is finished", [], "test"),
        ("on 96 images of x", [".model.safetensors.k_3x.unfinished"], "writing model.safetensors"),
        ("", ["../.run.k_3x.unfinished"], "making the folder"),
    ],
)
def test_at_what_stage_it_ended(killer, said, files, stage):
    for file in files:
        (killer.run / file).write_bytes(b"")
    assert killer._stage(said, leftovers(killer.folder)) == stage


class TestFaults:
    @pytest.fixture
    def run(self, command, own_data):
        arguments = ("--model", "notebook", "--kernels", "portable", "--epochs", 1, "--validation", 0.25)
        command("train", *arguments, "--data", own_data, "--out", RUN, "--no-report")
        return Path(RUN)

    @pytest.mark.parametrize(
        "name",
        [
            "config.json",
            "environment.json",
            "metrics.csv",
            "model.safetensors",
            "best.safetensors",
            "checkpoint.safetensors",
            "evaluation.safetensors",
        ],
    )
    def test_half_a_file_is_one(self, run, name):
        assert faults(run) == []
        data = (run / name).read_bytes()
        (run / name).write_bytes(data[: len(data) // 2])
        assert len(faults(run)) == 1
        assert name in faults(run)[0]

    def test_a_folder_without_a_configuration_is_one(self, run):
        (run / "config.json").unlink()
        assert "it has no config.json" in faults(run)[0]

    def test_no_folder_is_none(self, tmp_path):
        assert faults(tmp_path / "none") == []


class TestLeftovers:
    def test_they_are_found_wherever_they_are_and_a_folder_counts_once(self, tmp_path):
        (tmp_path / ".run.a.unfinished").mkdir()
        (tmp_path / ".run.a.unfinished/.config.json.b.unfinished").touch()
        (tmp_path / "run/pictures").mkdir(parents=True)
        (tmp_path / "run/pictures/.curves.png.c.unfinished").touch()
        (tmp_path / "run/.hidden").touch()
        assert {path.name for path in leftovers(tmp_path)} == {
            ".run.a.unfinished",
            ".curves.png.c.unfinished",
        }

    def test_a_new_run_removes_those_of_its_own_name_alone(self, tmp_path):
        for name in (".run.a.unfinished", ".running.a.unfinished", ".run.settings"):
            (tmp_path / name).mkdir()
            np.save(tmp_path / name / "file.npy", np.zeros(3))
        with making_whole(tmp_path / "run"):
            pass
        assert sorted(os.listdir(tmp_path)) == [".run.settings", ".running.a.unfinished", "run"]

    @pytest.mark.parametrize("is_finished", [False, True])
    def test_a_run_that_goes_on_removes_all_in_its_folder(self, command, own_data, is_finished):
        arguments = ("--model", "notebook", "--kernels", "portable", "--epochs", 1, "--no-report")
        command("train", *arguments, "--data", own_data, "--out", RUN)
        if not is_finished:
            Path("run/checkpoint.safetensors").unlink()
            Path("run/evaluation.safetensors").unlink()
        Path("run/pictures").mkdir()
        mine = Path("run/.notes")
        mine.touch()
        for name in (".evaluation.safetensors.a", ".config.json.b", "pictures/.curves.png.c"):
            Path(RUN, f"{name}.unfinished").touch()
        assert command("train", "--resume", RUN, "--no-report")[0] == 0
        assert not leftovers(Path())
        assert mine.exists()


@needed
def test_one_of_several_processes_is_killed_again_and_again(tmp_path):
    killer = kill_processes.Killer(tmp_path, seed=1, epochs=2, most=2)
    killer.undisturbed()
    for _ in killer.kill(2):
        pass
    assert killer.tally.violations == []
