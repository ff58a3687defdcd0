"""The command as its user meets it: what it prints where, its exit codes, its one-sentence errors."""

import gzip
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT
from helpers.small_run import SMALL
from typer.main import get_command
from typer.testing import CliRunner

import backends
import cnn
from backends import DeviceUnavailable
from cnn import cli
from cnn.runs.config import Config
from cnn.runs.folder import RunFolder
from cnn.runs.log import RunLog
from cnn.training import tensorboard


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


def test_evaluate_gives_what_train_gave(command, own_data):
    code, out, _ = command("train", *SMALL, "--data", own_data, "--out", "run", "--json")
    trained = json.loads(out)
    assert (code, trained["count"]) == (0, 40)
    code, out, _ = command("evaluate", "run", "--device", "cpu", "--json")
    found = json.loads(out)
    assert {name: found[name] for name in ("loss", "accuracy", "count")} == {
        name: trained[name] for name in ("loss", "accuracy", "count")
    }
    assert sum(map(sum, found["confusion"])) == 40
    assert list(found["per_class"]) == ["dark", "bright"]
    assert sum(row["count"] for row in found["per_class"].values()) == 40
    assert 0 <= found["calibration_error"] <= 1
    assert found["f1"] == sum(row["f1"] for row in found["per_class"].values()) / 2
    _, out, _ = command("evaluate", "run", "--device", "cpu")
    assert out == f"test accuracy {trained['accuracy']:.2%}, loss {trained['loss']:.4f}, on 40 images\n"


def test_classes_in_another_order_are_told_by_their_names(command, own_data, tmp_path):
    flags = ("--learning-rate", 0.1, "--out", "run", "--json")
    _, out, _ = command("train", *SMALL, "--data", own_data, *flags)
    arrays = dict(np.load(own_data))
    arrays |= {name: 1 - arrays[name] for name in ("y_train", "y_test")}
    arrays["classes"] = arrays["classes"][::-1]
    np.savez(tmp_path / "turned.npz", **arrays)
    _, again, _ = command("evaluate", "run", "--data", "turned.npz", "--json")
    assert json.loads(again)["accuracy"] == json.loads(out)["accuracy"] > 0.9


class TestDataAsPeopleHaveThem:
    """How the arrays of a file were understood is said before anything runs."""

    @pytest.fixture
    def arrays(self, own_data):
        return dict(np.load(own_data))

    def test_the_headline_says_it(self, command, arrays):
        arrays |= {name: arrays[name][..., None] for name in ("x_train", "x_test")}
        np.savez("last.npz", **arrays | {name: arrays[name][:, None] for name in ("y_train", "y_test")})
        code, out, _ = command("train", *SMALL, "--data", "last.npz", "--out", "run", "--dry-run")
        count = len(arrays["x_train"])
        assert code == 0
        notes = f"channels last, taken as ({count}, 1, 20, 20); labels ({count}, 1) taken as ({count},)"
        assert f"last.npz ({notes}); cpu" in out.splitlines()[0]

    def test_evaluate_says_it_and_takes_data_that_lack_a_class(self, command, arrays, own_data):
        assert command("train", *SMALL, "--data", own_data, "--out", "run")[0] == 0
        keep = arrays["y_test"] == 1
        arrays |= {"x_test": arrays["x_test"][keep, ..., None], "y_test": np.array(["bright"] * keep.sum())}
        arrays |= {"x_train": arrays["x_test"], "y_train": arrays["y_test"]}
        np.savez("other.npz", **{name: array for name, array in arrays.items() if name != "classes"})
        code, out, err = command("evaluate", "run", "--data", "other.npz", "--json")
        assert code == 0, err
        assert json.loads(out)["count"] == keep.sum()
        assert "note: channels last, taken as (" in err
        assert "note: labels are names: 'bright'" in err

    def test_a_run_whose_labels_count_from_1_can_be_evaluated(self, command, arrays):
        del arrays["classes"]
        np.savez("one.npz", **arrays | {name: arrays[name] + 1 for name in ("y_train", "y_test")})
        assert command("train", *SMALL, "--data", "one.npz", "--out", "run")[0] == 0
        code, out, _ = command("evaluate", "run", "--json")
        assert (code, json.loads(out)["count"]) == (0, 40)

    def test_images_in_another_range_are_told(self, command, arrays):
        wide = {name: arrays[name].astype(np.float32) for name in ("x_train", "x_test")}
        np.savez("wide.npz", **arrays | wide)
        for flags in (["--dry-run"], []):
            code, _, err = command("train", *SMALL, "--data", "wide.npz", "--out", "run", *flags)
            assert code == 0
            assert err.count("note: the training images are floats from 0 to ") == 1
            assert "validation images go" not in err

    def test_what_is_no_data_set_is_named(self, command, tmp_path):
        (tmp_path / "train.csv").write_text("label,pixel0\n5,0\n")
        code, out, err = command("train", *SMALL, "--data", "train.csv")
        assert (code, out) == (2, "")
        assert "train.csv: this is a table as text (CSV) with 2 columns" in err
        assert len(err.splitlines()) == 1


def test_classes_may_be_told_by_their_labels(command, own_data):
    arguments = ("train", *SMALL, "--data", own_data, "--out", "run", "--classes", "1,0")
    assert command(*arguments)[0] == 0
    assert json.loads(Path("run/config.json").read_text())["class_names"] == ["bright", "dark"]


def test_mnist_is_the_bundled_set_wherever_one_stands(command, tmp_path):
    (tmp_path / "mnist").mkdir()
    code, _, err = command("train", *SMALL, "--classes", "0,1", "--per-class", 8, "--out", "run")
    assert code == 0, err
    assert err.startswith("notebook on 16 images of mnist")


def test_adamw_decays_weights_by_its_own_measure(command, own_data):
    from cnn.runs.config import Config

    assert Config(optimizer="adamw").make_optimizer(9).weight_decay == 0.01
    assert Config(optimizer="adam").make_optimizer(9).weight_decay == 0
    assert Config().make_optimizer(9).momentum == 0.9


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


def test_summary(command):
    code, out, _ = command("summary", "--model", "notebook", "--classes", 2)
    assert code == 0
    assert "0 Conv2D" in out
    assert "316,227" in out  # 5*9 + 5*26*26 + 3125*100 + 100 + 100*2 + 2
    _, out, _ = command("summary", "--json")
    assert json.loads(out)["total"]["parameters"] == 61706


def test_compile(command, monkeypatch):
    kernels = pytest.importorskip("backends.cpu.kernels")
    asked = []

    def compile_all(self, dtypes):
        asked.append(dtypes)
        return {"compiled": 3, "present": 4, "folder": "/a/folder", "bytes": 2048}

    monkeypatch.setattr(kernels.CompiledKernels, "compile_all", compile_all)
    code, out, err = command("compile")
    assert (code, err) == (0, "")
    assert re.fullmatch(
        r"compiled 3 kernels in \d+\.\d s; 4 were there already; /a/folder has 2\.\d KB of kernels\n", out
    )
    found = json.loads(command("compile", "--dtype", "both", "--json")[1])
    assert {"compiled": 3, "present": 4, "folder": "/a/folder", "bytes": 2048}.items() <= found.items()
    assert asked == [["float32"], ["float32", "float64"]]
    code, _, err = command("compile", "--dtype", "float16")
    assert code == 2
    assert "--dtype is 'float16', expected float32, float64 or both" in err


def test_gradcheck(command):
    code, out, _ = command("gradcheck", "--device", "cpu", "--entries", 2)
    assert code == 0
    assert out.count("right") == 11
    _, out, _ = command("gradcheck", "--model", "notebook", "--device", "cpu", "--entries", 2, "--json")
    assert all(row["passed"] for row in json.loads(out))


def test_gradcheck_fails_where_a_gradient_is_wrong(command, monkeypatch):
    right = cnn.Dense.multiply_back

    def wrong(self, dy, input_grad):
        return right(self, dy * 1.1, input_grad)

    monkeypatch.setattr(cnn.Dense, "multiply_back", wrong)
    code, out, _ = command("gradcheck", "--device", "cpu", "--entries", 5)
    assert code == 1
    assert "WRONG" in out


def test_the_summary_shows_what_runs_in_one_pass(command):
    pytest.importorskip("numba")
    rows = json.loads(command("summary", "--json")[1])["layers"]
    assert [row["in_one_pass"] for row in rows[:4]] == [["0", "1", "2"]] * 3 + [["3", "4", "5"]]
    assert [row["bytes"] > 0 for row in rows[:3]] == [False, False, True]
    assert "0-2" in command("summary")[1]


def test_the_summary_shows_what_runs_in_one_pass_in_inference(command):
    pytest.importorskip("numba")
    rows = json.loads(command("summary", "--model", "airbench93", "--json")[1])["layers"]
    assert rows[1]["in_one_pass"] == []
    assert rows[1]["in_one_pass_in_inference"] == ["0", "1"]
    assert rows[2]["in_one_pass"] == ["2", "3"]
    assert rows[2]["in_one_pass_in_inference"] == ["2", "3", "4", "5"]
    assert [row["layer"] for row in rows if row["adds_up_moments"]] == ["6 Conv2D", "13 Conv2D", "20 Conv2D"]
    shown = command("summary", "--model", "airbench93")[1]
    assert "in inference" in shown
    assert "layers 6, 13, 20 compute the mean and the variance" in " ".join(shown.split())
    assert "in inference" not in command("summary")[1]


def test_the_summary_shows_which_layers_use_winograds_algorithm(command):
    pytest.importorskip("numba")
    wide = command("summary", "--model", "resnet20", "--input-shape", "3,32,32")[1]
    *_, line = wide.strip().splitlines()
    assert line.startswith("Winograd F(4x4, 3x3) computes large batches of layers")
    assert "17.0, 17.3" in line
    assert "Winograd" not in command("summary", "--model", "lenet5")[1]
    exact = command("summary", "--model", "resnet20", "--input-shape", "3,32,32", "--dtype", "float64")[1]
    assert "Winograd" not in exact


def test_winograds_algorithm_is_turned_off_on_request(command, monkeypatch):
    pytest.importorskip("numba")
    built = []
    make = cnn.Sequential.build
    monkeypatch.setattr(
        cnn.Sequential, "build", lambda *given, **named: (built.append(named), make(*given, **named))[1]
    )
    few = ("--per-class", 20, "--epochs", 1, "--device", "cpu", "--no-report")
    command("train", *few, "--no-winograd", "--out", "run")
    assert json.loads(Path("run/config.json").read_text())["winograd"] is False
    command("evaluate", "run", "--device", "cpu")
    command("evaluate", "run", "--device", "cpu", "--winograd")
    roots = [named["winograd"] for named in built if "winograd" in named]
    assert roots == [False, False, True]


def test_layers_one_by_one_on_request(command):
    pytest.importorskip("numba")
    few = ("--per-class", 20, "--epochs", 1, "--kernels", "compiled", "--no-report")
    accuracy = []
    for flag in ("--fuse", "--no-fuse"):
        code, out, _ = command("train", *few, flag, "--out", f"run{flag}", "--json")
        assert code == 0
        accuracy.append(json.loads(out)["accuracy"])
    assert accuracy[0] == accuracy[1]
    assert json.loads(Path("run--no-fuse/config.json").read_text())["fuse"] is False


def test_slower_kernels_than_there_might_be_are_said_once_with_the_reason(command, monkeypatch):
    device = backends.get("cpu")
    monkeypatch.setattr(device, "slower", "the compiled kernels need Numba: pip install numba")
    _, _, err = command("train", "--per-class", 5, "--epochs", 1, "--device", "cpu", "--no-report")
    assert (
        err.count("run is slower than it could be: the compiled kernels need Numba: pip install numba") == 1
    )
    assert "slower_than_it_could" in command("info")[1]


def test_info_has_what_a_bug_report_needs(command):
    code, out, _ = command("info", "--json")
    report = json.loads(out)
    assert code == 0
    assert {"xpcnn", "python", "system", "packages", "devices"} <= set(report)
    cpu = report["devices"]["cpu"]
    assert cpu["usable"]
    assert {"processor", "cores", "threads", "blas", "kernels", "memory"} <= set(cpu)
    unusable = [device for device in report["devices"].values() if not device["usable"]]
    assert all(device["reason"] for device in unusable)
    _, out, _ = command("info")
    assert "processor:" in out


@pytest.mark.parametrize("name", get_command(cli.app).commands)
def test_help_shows_defaults(command, name):
    code, out, _ = command(name, "--help")
    assert code == 0
    assert "--json" in out
    if name == "train":
        for default in ("lenet5", "mnist", "128", "linear", "runs/MODEL-TIME"):
            assert default in out


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


class TestConfigFile:
    def test_every_flag_can_come_from_toml(self, command, own_data, tmp_path):
        (tmp_path / "mine.toml").write_text(
            'model = "notebook"\nepochs = 1\nbatch-size = 16\nlearning_rate = 0.03\nreport = false\n'
            f'classes = ["bright", "dark"]\ndata = "{own_data}"\ndevice = "cpu"\nout = "run"\njson = true\n'
        )
        code, out, err = command("train", "--config", "mine.toml")
        assert code == 0, err
        assert json.loads(out)["run"] == "run"
        config = json.loads(Path("run/config.json").read_text())
        assert (config["batch_size"], config["learning_rate"]) == (16, 0.03)
        assert config["class_names"] == ["bright", "dark"]

    def test_flags_win_over_the_file(self, command, own_data, tmp_path):
        (tmp_path / "mine.toml").write_text("batch-size = 16\nseed = 3\n")
        arguments = ("--config", "mine.toml", *SMALL, "--data", own_data, "--batch-size", 8, "--out", "run")
        assert command("train", *arguments)[0] == 0
        config = json.loads(Path("run/config.json").read_text())
        assert (config["batch_size"], config["seed"]) == (8, 3)

    @pytest.mark.parametrize("given", ["run/config.json", "run"])
    def test_a_runs_own_config_starts_the_same_run_again(self, command, own_data, tmp_path, given):
        flags = ("--optimizer", "adamw", "--classes", "bright,dark", "--per-class", 20, "--seed", 5)
        assert command("train", *SMALL, "--data", own_data, *flags, "--out", "run")[0] == 0
        code, _, err = command("train", "--config", given, "--out", "again", "--no-report")
        assert code == 0, err
        first, again = (tmp_path / name / "model.safetensors" for name in ("run", "again"))
        assert first.read_bytes() == again.read_bytes()
        assert (tmp_path / "run/config.json").read_text() == (tmp_path / "again/config.json").read_text()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("epocs = 3", "mine.toml: unknown flag 'epocs': expected one of accumulate, augment, batch-size"),
            ("config = 'other.toml'", "mine.toml: unknown flag 'config'"),
            ("epochs = ", "mine.toml is no TOML"),
            ("seed = {a = 1}", "mine.toml: seed is {'a': 1}, which is refused"),
            ("epochs = 'three'", "mine.toml: epochs is 'three', which is refused: "),
            ("epochs = 2.5", "mine.toml: epochs is 2.5, which is refused: "),
            ("epochs = true", "mine.toml: epochs is True, which is refused: "),
            ("batch-size = 1\nbatch_size = 2", "mine.toml: batch_size is given twice"),
            ("model = 'resnet'", "unknown model 'resnet'"),
        ],
    )
    def test_mistakes_in_it_are_named(self, command, tmp_path, text, message):
        (tmp_path / "mine.toml").write_text(text)
        code, out, err = command("train", "--config", "mine.toml")
        assert (code, out) == (2, "")
        assert err.startswith(f"error: {message}"), err
        assert err.count("\n") == 1

    def test_a_file_that_is_not_there_is_named(self, command):
        code, _, err = command("train", "--config", "nowhere.toml")
        assert code == 2
        assert err == "error: --config nowhere.toml cannot be read: No such file or directory\n"


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


COMMANDS = get_command(cli.app).commands


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_in_help_are_commands_that_exist(name):
    lines = (COMMANDS[name].epilog or "").splitlines()
    examples = [shlex.split(line)[1:] for line in lines if line.startswith("  cnn ")]
    assert examples
    for command_name, *arguments in examples:
        flags = {flag for parameter in COMMANDS[command_name].params for flag in parameter.opts}
        assert {argument for argument in arguments if argument.startswith("--")} <= flags


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("cnn ", "compare"),
        ("cnn train --model ", "lenet5"),
        ("cnn train --optimizer a", "adamw"),
        ("cnn train --schedule ", "cosine"),
        ("cnn evaluate --device c", "cuda"),
        ("cnn compare --dtype ", "float64"),
    ],
)
def test_the_shell_completes(words, offered):
    environment = {
        "_CNN_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    done = CliRunner().invoke(cli.app, prog_name="cnn", env=environment)
    assert offered in done.stdout.split()


class TestMistakes:
    """One clear sentence on standard error, exit code 2, nothing left behind."""

    def refused(self, command, tmp_path, message, *arguments):
        before = set(tmp_path.rglob("*"))
        code, out, err = command(*arguments)
        assert (code, out) == (2, ""), err
        assert "Traceback" not in err
        sentences = err.splitlines()
        assert len(sentences) == 1, err
        assert sentences[0].startswith("error: ")
        assert re.search(message, sentences[0]), sentences[0]
        assert set(tmp_path.rglob("*")) == before

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (("--device", "gpu"), "unknown device 'gpu': expected auto, cpu, cuda or cuda:N"),
            (("--kernels", "fast"), "unknown kernels 'fast': expected auto, compiled, portable or signal"),
            (("--model", "resnet"), "unknown model 'resnet': expected notebook, lenet5, "),
            (("--optimizer", "lbfgs"), "unknown optimizer 'lbfgs': expected sgd, adam, adamw"),
            (("--schedule", "zigzag"), "unknown schedule 'zigzag'"),
            (("--batch-size", 0), "batch_size is 0, expected a whole number of at least 1"),
            (("--epochs", -1), "epochs is -1"),
            (("--threads", 0), "threads is 0"),
            (("--seed", -1), "seed is -1"),
            (("--learning-rate", -0.1), "learning_rate is -0.1"),
            (("--momentum", 1), "momentum is 1"),
            (("--dtype", "int8"), "dtype is 'int8'"),
            (("--warmup", 1.5), "warmup is 1.5"),
            (("--stop-at", 99), "stop_at is 99.0, expected a number of at least 0 and at most 1"),
            (("--optimizer", "adam", "--momentum", 0.9), "momentum is 0.9, but adam has none"),
            (("--per-class", 0), "per_class is 0"),
            (("--classes", "0,11"), "unknown class '11'"),
            (("--data", "nowhere"), "nowhere"),
        ],
    )
    def test_in_flags(self, command, tmp_path, flags, message):
        self.refused(command, tmp_path, message, "train", "--model", "notebook", *flags)

    @pytest.mark.parametrize(
        "flags",
        [
            ("--optimizer", "SGD"),
            ("--schedule", "zigzag"),
            ("--model", "resnet"),
            ("--dtype", "int8"),
            ("--kernels", "fast"),
            ("--epochs", "0"),
            ("--batch-size", "0"),
            ("--seed", "-1"),
            ("--validation", "2"),
            ("--clip", "-1"),
            ("--warmup", "1.5"),
        ],
    )
    @pytest.mark.parametrize("dry", [(), ("--dry-run",)])
    def test_in_flags_before_the_data_are_loaded(self, command, monkeypatch, flags, dry):
        monkeypatch.setattr(cnn.data, "load", lambda source: pytest.fail("the data are loaded"))
        code, out, err = command("train", "--device", "cpu", *flags, *dry)
        assert (code, out, err[:7], err.count("\n")) == (2, "", "error: ", 1)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("zz",), "no such command 'zz': `cnn --help` shows"),
            (("train", "--zz"), "no such option: --zz.*: `cnn train --help` shows"),
            (("train", "--epochs", "x"), "invalid value for '--epochs'.*: `cnn train --help` shows"),
            (("train", "--epochs"), "option '--epochs' requires an argument"),
            (("evaluate",), "missing argument"),
            (("info", "more"), "unexpected extra argument"),
        ],
    )
    def test_in_what_is_typed(self, command, tmp_path, arguments, message):
        self.refused(command, tmp_path, message, *arguments)

    def test_cuda_where_there_is_none(self, command, tmp_path):
        if not isinstance(backends.available().get("cuda"), DeviceUnavailable):
            pytest.skip("there is a CUDA device here")
        self.refused(command, tmp_path, "CUDA|CuPy|driver", "train", "--device", "cuda")

    def test_a_kernel_that_does_not_fit_the_images(self, command, tmp_path):
        images, labels = np.zeros((4, 9, 9), dtype=np.uint8), np.array([0, 1, 0, 1])
        np.savez(tmp_path / "tiny.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
        message = r"layer 3 Conv2D: a 5x5 kernel does not fit a 4x4 input; the largest that fits is 4x4"
        self.refused(command, tmp_path, message, "train", "--data", "tiny.npz")

    def test_an_output_folder_that_exists(self, command, tmp_path, own_data):
        (tmp_path / "taken").mkdir()
        arguments = ("train", *SMALL, "--data", own_data, "--out", "taken")
        self.refused(command, tmp_path, "the output folder taken exists: give --out another name", *arguments)

    def test_an_output_folder_that_cannot_be_written(self, command, tmp_path, own_data):
        (tmp_path / "file").write_text("")
        arguments = ("train", *SMALL, "--data", own_data, "--out", "file/run")
        self.refused(command, tmp_path, "output folder file/run cannot be written", *arguments)

    def test_damaged_data(self, command, tmp_path, own_data):
        whole = own_data.read_bytes()
        (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
        self.refused(command, tmp_path, r"cut\.npz", "train", "--data", "cut.npz")
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        (tmp_path / "flipped.npz").write_bytes(flipped)
        self.refused(command, tmp_path, r"flipped\.npz", "train", "--data", "flipped.npz")

    def test_a_labels_file_that_holds_images(self, command, tmp_path):
        folder = tmp_path / "digits"
        folder.mkdir()
        image = (0x803).to_bytes(4, "big") + b"".join((n).to_bytes(4, "big") for n in (1, 2, 2)) + bytes(4)
        for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
            (folder / f"{name}-ubyte.gz").write_bytes(gzip.compress(image))
        self.refused(command, tmp_path, "train-labels-idx1-ubyte.gz", "train", "--data", "digits")

    def test_an_npz_that_holds_objects_is_never_unpickled(self, command, tmp_path):
        class Trap:
            def __reduce__(self):
                return (open, (str(tmp_path / "sprung"), "w"))

        np.savez(tmp_path / "trap.npz", x_train=np.array([Trap()], dtype=object))
        self.refused(command, tmp_path, "trap.npz", "train", "--data", "trap.npz")
        assert not (tmp_path / "sprung").exists()

    def test_labels_out_of_range(self, command, tmp_path):
        images = np.zeros((4, 28, 28), dtype=np.uint8)
        for bad in (-1, 1000):
            labels = np.array([0, 1, bad, 1])
            np.savez(tmp_path / "bad.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
            self.refused(
                command, tmp_path, rf"{bad} at position 2.*out of range", "train", "--data", "bad.npz"
            )

    @pytest.mark.parametrize("labels", [[3, 7], [1], [0, 9]])
    def test_labels_with_more_gaps_than_classes(self, command, tmp_path, labels):
        images, labels = np.zeros((len(labels), 28, 28), dtype=np.uint8), np.array(labels)
        np.savez(tmp_path / "gaps.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
        self.refused(command, tmp_path, "no image.*`classes`", "train", "--data", "gaps.npz")

    def test_evaluate_of_what_is_no_run(self, command, tmp_path):
        self.refused(
            command, tmp_path, "not the folder of a run, it has no config.json", "evaluate", "nowhere"
        )
        (tmp_path / "config.json").write_text("{}")
        self.refused(command, tmp_path, "config.json lacks 'model': it is damaged", "evaluate", ".")
        (tmp_path / "config.json").write_text("{")
        self.refused(command, tmp_path, "config.json cannot be read", "evaluate", ".")

    def test_weights_of_another_architecture(self, command, tmp_path, own_data):
        assert command("train", *SMALL, "--data", own_data, "--out", "run")[0] == 0
        other = cnn.models.lenet5()
        other.build((1, 28, 28), backend="cpu")
        other.save(tmp_path / "run" / "model.safetensors")
        self.refused(command, tmp_path, r"run/model\.safetensors: the weights", "evaluate", "run")

    def test_images_of_another_shape(self, command, tmp_path, own_data):
        assert command("train", *SMALL, "--data", own_data, "--out", "run")[0] == 0
        arrays = dict(np.load(own_data))
        for part in ("x_train", "x_test"):
            arrays[part] = arrays[part][:, :15]
        np.savez(tmp_path / "short.npz", **arrays)
        arguments = ("evaluate", "run", "--data", "short.npz")
        self.refused(
            command, tmp_path, r"images are \(40, 1, 15, 20\).*built for \(N, 1, 20, 20\)", *arguments
        )

    def test_a_training_that_diverges_says_so(self, command, tmp_path, own_data):
        arguments = ("train", *SMALL, "--data", own_data, "--model", "lenet5", "--learning-rate", 1e20)
        with np.errstate(all="ignore"):
            code, out, err = command(*arguments, "--out", "run")
        assert (code, out) == (1, "")
        assert "the loss became" in err
        assert "start again with a lower learning rate" in err
        shutil.rmtree("run")


def test_help_is_whole_though_python_drops_docstrings():
    code = """
from cnn.cli import app
print(all(each.help for each in (app.registered_callback, *app.registered_commands)))
"""
    done = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
