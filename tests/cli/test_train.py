"""``cnn train``: the folder of a run, its data and flags, and what does not end it."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.small_run import SMALL

import cnn
from cnn.runs import build
from cnn.runs.config import Config
from cnn.runs.folder import RunFolder
from cnn.runs.log import RunLog


def test_a_run_leaves_its_folder(command, own_data, tmp_path):
    code, out, err = command("train", *SMALL, "--data", own_data, "--out", "a/run", "--epochs", 2)
    assert code == 0, err
    folder = tmp_path / "a" / "run"
    tables = {f"{name}.safetensors" for name in ("model", "checkpoint", "evaluation")}
    names = {"config.json", "environment.json", "metrics.csv", *tables}
    assert {path.name for path in folder.iterdir()} - {"tensorboard"} == names
    config = json.loads((folder / "config.json").read_text())
    assert (config["model"], config["batch_size"], config["class_names"]) == (
        "notebook",
        16,
        ["dark", "bright"],
    )
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["device"]["device"] == "cpu"
    assert environment["packages"]["numpy"] == np.__version__
    lines = (folder / "metrics.csv").read_text().splitlines()
    assert lines[0].startswith("epoch,loss,accuracy")
    assert len(lines) == 3
    assert re.match(r"test accuracy \d+\.\d\d%, loss \d\.\d+, on 40 images\na/run\n$", out)
    assert "epoch 2/2" in err
    assert cnn.load(folder / "model.safetensors", device="cpu").output_shape == (2,)


def test_what_was_left_to_the_optimizer_is_written_down(command, own_data):
    assert command("train", *SMALL, "--data", own_data, "--out", "run", "--optimizer", "adamw")[0] == 0
    saved = json.loads(Path("run/config.json").read_text())
    assert (saved["learning_rate"], saved["weight_decay"], saved["momentum"]) == (0.001, 0.01, None)


def test_a_folder_that_cannot_take_its_first_file_does_not_stay(command, own_data, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "run/config.json")

    monkeypatch.setattr("cnn.runs.folder.write_json", full)
    code, _, err = command("train", *SMALL, "--data", own_data, "--out", "run")
    assert code == 2
    assert "cannot be written (No space left on device)" in err
    assert not (tmp_path / "run").exists()


def test_a_disk_that_fills_up_later_keeps_the_last_good_weights(command, own_data, tmp_path, monkeypatch):
    save, saves = cnn.Sequential.save, []

    def fills_up(self, path, more=None):
        saves.append(path)
        if len(saves) > 1:
            raise OSError(28, "No space left on device", str(path))
        save(self, path, more)

    monkeypatch.setattr(cnn.Sequential, "save", fills_up)
    code, _, err = command("train", *SMALL, "--epochs", 3, "--data", own_data, "--out", "run")
    assert code == 2
    assert "model.safetensors: No space left on device" in err
    assert cnn.load(tmp_path / "run" / "model.safetensors", device="cpu").output_shape == (2,)


def test_a_run_without_out_gets_a_folder_of_its_own(command, own_data, tmp_path):
    for _ in range(2):
        assert command("train", *SMALL, "--data", own_data)[0] == 0
    assert len(list((tmp_path / "runs").glob("notebook-*"))) == 2


class TestRunsBegunInTheSameSecond:
    @pytest.fixture(autouse=True)
    def _clock(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("time.strftime", lambda *_: "20260102-030405")

    def begin(self, folder):
        network = cnn.Sequential(cnn.Dense(2))
        network.build((3,), backend="cpu")
        folder.start(Config(), network, ("a", "b"))

    def test_each_gets_a_folder_of_its_own(self):
        folders = [RunFolder.default("lenet5") for _ in range(3)]  # none of them has been made yet
        for folder in folders:
            self.begin(folder)
        names = ["lenet5-20260102-030405", "lenet5-20260102-030405-2", "lenet5-20260102-030405-3"]
        assert [folder.path.name for folder in folders] == names == sorted(os.listdir("runs"))
        assert all(folder.config.parent == folder.path for folder in folders)

    def test_one_that_another_process_takes_at_the_last_moment(self, monkeypatch):
        mine, others = RunFolder.default("lenet5"), RunFolder.default("lenet5")
        describe, begin = RunFolder.describe, self.begin

        def be_overtaken(self, *described):
            describe(self, *described)
            monkeypatch.setattr(RunFolder, "describe", describe)
            begin(others)

        monkeypatch.setattr(RunFolder, "describe", be_overtaken)
        self.begin(mine)
        assert (mine.path.name, others.path.name) == ("lenet5-20260102-030405-2", "lenet5-20260102-030405")
        assert sorted(os.listdir("runs")) == [others.path.name, mine.path.name]

    def test_an_out_folder_is_one_processs_alone(self):
        mine, others = RunFolder("run"), RunFolder("run")
        self.begin(others)
        with pytest.raises(cnn.ArgumentError, match="the output folder run exists: give --out another name"):
            self.begin(mine)

    def test_the_command_says_which_it_took(self, command, own_data):
        made, begin = [], self.begin

        class Overtaken(RunLog):
            def on_start(self, run):
                begin(RunFolder.default("notebook"))
                super().on_start(run)
                made.extend([self.folder.path, *(part.path.parent for part in self._parts)])

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("cnn.cli.job.RunLog", Overtaken)
            code, out, err = command("train", *SMALL, "--data", own_data)
        assert (code, out.splitlines()[-1]) == (0, "runs/notebook-20260102-030405-2"), err
        assert set(map(str, made)) == {"runs/notebook-20260102-030405-2"}
        assert Path("runs/notebook-20260102-030405-2/evaluation.safetensors").exists()


def test_adamw_decays_weights_by_its_own_measure(command, own_data):
    from cnn.runs.config import Config

    assert build.make_optimizer(Config(optimizer="adamw"), 9).weight_decay == 0.01
    assert build.make_optimizer(Config(optimizer="adam"), 9).weight_decay == 0
    assert build.make_optimizer(Config(), 9).momentum == 0.9


def test_the_same_command_gives_the_same_weights_bit_for_bit(command, own_data, tmp_path):
    for out in ("one", "two"):
        assert command("train", *SMALL, "--data", own_data, "--seed", 7, "--out", out)[0] == 0
    one, two = ((tmp_path / out / "model.safetensors").read_bytes() for out in ("one", "two"))
    assert one == two


@pytest.mark.parametrize(
    "flags",
    [
        ("--optimizer", "adam", "--learning-rate", 0.001),
        ("--optimizer", "adamw", "--weight-decay", 0.1),
        ("--schedule", "cosine", "--warmup", 0.1),
        ("--dtype", "float64"),
        ("--kernels", "signal", "--per-class", 4),
        ("--momentum", 0),
        ("--weight-decay", 0.1),
        ("--threads", 1),
        ("--classes", "bright,dark"),
    ],
)
def test_flags(command, own_data, flags):
    if "--threads" in flags:
        pytest.importorskip("threadpoolctl")
    code, _, err = command("train", *SMALL, "--data", own_data, "--out", "run", *flags)
    assert code == 0, err
    saved = json.loads(Path("run/config.json").read_text())
    name, value = flags[0].lstrip("-").replace("-", "_"), flags[1]
    assert saved[name] == (value.split(",") if name == "classes" else value)


def test_classes_and_per_class_choose_the_images(command):
    arguments = ("train", *SMALL, "--classes", "7,1", "--per-class", 8, "--out", "run", "--json")
    code, out, err = command(*arguments)
    assert code == 0, err
    assert json.loads(out)["count"] == 1028 + 1135  # the test set stays whole for the chosen classes
    assert json.loads(Path("run/config.json").read_text())["class_names"] == ["7", "1"]


class TestDryRun:
    def test_it_says_what_would_happen_and_does_nothing(self, command, own_data, tmp_path):
        arguments = ("train", *SMALL, "--data", own_data, "--dry-run", "--out", "run", "--epochs", 2)
        code, out, err = command(*arguments)
        assert code == 0, err
        for part in (
            "notebook on 120 images",
            "epochs: 2, each of 8 steps",
            "0 Conv2D",
            "memory on cpu: about",
        ):
            assert part in out
        assert "would write run" in out
        assert not (tmp_path / "run").exists()

    def test_for_programs(self, command, own_data):
        _, out, _ = command("train", *SMALL, "--data", own_data, "--dry-run", "--json")
        plan = json.loads(out)
        assert plan["steps"] == 8
        assert plan["memory"]["total"] == sum(v for k, v in plan["memory"].items() if k != "total")
        assert plan["config"]["learning_rate"] == pytest.approx(0.05 / 8**0.5)

    def test_recomputed_blocks_take_less_memory(self, command, own_data):
        plans = []
        for flags in ((), ("--recompute",)):
            wanted = ("--model", "resnet20", "--data", own_data, *flags, "--dry-run", "--json")
            code, out, err = command("train", *wanted)
            assert code == 0, err
            plans.append(json.loads(out)["memory"])
        assert plans[1]["activations"] < 0.9 * plans[0]["activations"]
        assert plans[1]["parameters"] == plans[0]["parameters"]

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (("--epochs", 0), "epochs is 0"),
            (("--batch-size", 0), "batch_size is 0"),
            (("--warmup", 1.5), "warmup is 1.5"),
            (("--augment", "shift=100"), "Shift: pixels is 100, which is too large for images of"),
            (("--tta", "shifts=100"), "tta moves images by 100 pixels, which is too large for images of"),
            (("--label-smoothing", 0.1), "label_smoothing is 0.1, but notebook ends in Softmax"),
            (("--find-rate",), "--dry-run and --find-rate cannot be given together"),
            (("--out", "."), "the output folder . exists"),
            (("--out", "file/run"), "the output folder file/run cannot be written"),
        ],
    )
    def test_what_would_stop_a_run_stops_it_too(self, command, own_data, tmp_path, flags, message):
        (tmp_path / "file").write_text("")
        code, out, err = command("train", *SMALL, "--data", own_data, "--dry-run", *flags)
        assert (code, out) == (2, "")
        assert err.startswith(f"error: {message}")
