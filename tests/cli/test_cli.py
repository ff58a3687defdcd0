"""The other commands as their user meets them: what they print, their help, examples and completion."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.small_run import make_run
from typer.main import get_command
from typer.testing import CliRunner

import backends
import cnn
from cnn import cli


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


def test_compile_for_a_model_trains_and_predicts_with_it(command, monkeypatch, tmp_path):
    kernels = pytest.importorskip("backends.cpu.kernels")
    run, seen = make_run(tmp_path / "run", epochs=1, tta="mirror")[0].path, []

    def compile_used_by(self, uses):
        for use in uses:
            use()
        return {"compiled": 3, "present": 4, "folder": "/a/folder", "bytes": 2048}

    def fit(network, data, **settings):
        seen.append((network.input_shape, str(network.dtype), len(data), settings["batch_size"]))

    monkeypatch.setattr(kernels.CompiledKernels, "compile_used_by", compile_used_by)
    monkeypatch.setattr(cli.compile, "fit", fit)
    monkeypatch.setattr(cnn.Sequential, "predict", lambda self, images, tta: seen.append((len(images), tta)))
    assert command("compile", "--model", "lenet5")[0] == 0
    small = ("compile", "--model", "resnet20", "--input-shape", "3,16,16", "--batch-size", 8)
    assert command(*small, "--dtype", "both")[0] == 0
    assert seen == [
        ((1, 28, 28), "float32", 128, 128), (128, None), (1, None),
        ((3, 16, 16), "float32", 8, 8), (8, None), (1, None),
        ((3, 16, 16), "float64", 8, 8), (8, None), (1, None),
    ]  # fmt: skip
    network = cnn.Sequential(cnn.Flatten(), cnn.Dense(3))
    network.build((1, 4, 4), backend="cpu")
    network.save(tmp_path / "own.safetensors")
    assert command("compile", "--model", tmp_path / "own.safetensors")[0] == 0
    assert seen[9:] == [((1, 4, 4), "float32", 128, 128), (128, None), (1, None)]
    assert command("compile", "--model", run)[0] == 0
    assert seen[12:] == [((1, 12, 12), "float32", 30, 30), (30, "mirror"), (1, "mirror")]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--batch-size", 8), "--batch-size and --input-shape need --model: name the network to compile for"),
        (("--model", "lenet6"), "unknown model 'lenet6'"),
        (("--model", "lenet5", "--input-shape", "28x28"), "--input-shape is '28x28', expected numbers"),
        (("--model", "mynet.py", "--input-shape", "1,8,8"), "unknown model 'mynet.py'"),
        (("--model", "flat.safetensors"), "--model has an input of the shape (4,), expected the channels"),
    ],
)
def test_compile_for_a_model_with_arguments_that_do_not_fit(
    command, arguments, expected, tmp_path, monkeypatch
):
    pytest.importorskip("backends.cpu.kernels")
    from backends.cpu.compiled import kernel_cache

    monkeypatch.setattr(kernel_cache.folder, "reason", None)  # kernels of other tests may not be cached
    monkeypatch.chdir(tmp_path)
    Path("mynet.py").write_text("import cnn\n")
    flat = cnn.Sequential(cnn.Dense(3))
    flat.build((4,), backend="cpu")
    flat.save("flat.safetensors")
    code, _, err = command("compile", *arguments)
    assert code == 2
    assert expected in err


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
        ("cnn train --recipe ", "cifar10"),
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


def test_help_is_whole_though_python_drops_docstrings():
    code = """
from cnn.cli import app
print(all(each.help for each in (app.registered_callback, *app.registered_commands)))
"""
    done = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
