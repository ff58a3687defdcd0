"""cnn runs: what it lists, in which order, and what it leaves out."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.small_run import make_run

import backends
from cnn.runs.folder import RunFolder
from cnn.runs.report import Evaluation, examine
from cnn.support import system


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a finished run, and its result."""
    folder, network, test_set = make_run(tmp_path_factory.mktemp("trained") / "run")
    found = examine(network, test_set, 30)
    found.save(folder.evaluation)
    return folder, found


@pytest.fixture
def make(trained, tmp_path):
    """``make("a", accuracy=0.5, learning_rate=0.1)`` copies the run, with another result and settings."""

    def call(name, accuracy=None, **settings):
        folder = RunFolder(shutil.copytree(trained[0].path, tmp_path / "runs" / name))
        values = json.loads(folder.config.read_text())
        folder.config.write_text(json.dumps(values | settings))
        if accuracy is not None:
            replace(trained[1], accuracy=accuracy).save(folder.evaluation)
        return folder

    return call


def names(out):
    """The first cells of the lines of a table, without the headings."""
    return re.findall(r"^[a-z]\b", out.partition("\n\nin all runs")[0], re.MULTILINE)


def test_the_best_run_comes_first_and_settings_that_differ_are_columns(command, make):
    make("a", 0.5, learning_rate=0.1, optimizer="adam")
    make("b", 0.75, learning_rate=0.02)
    make("c", 0.25, learning_rate=0.003, augment=["flip", "shift=2"])
    code, out, err = command("runs")
    assert (code, err) == (0, "")
    assert names(out) == ["b", "a", "c"]
    assert re.search(r"run +accuracy +loss +optimizer +rate +augment\n", out)
    assert re.search(r"a +50\.00% +\d\.\d{4} +adam +0\.1 +-\n", out)
    assert re.search(r"c +25\.00% +\d\.\d{4} +sgd +0\.003 +flip,shift=2\n", out)
    *_, same = out.splitlines()
    assert re.fullmatch(
        r"in all runs: state finished, model notebook, data <b>\.npz, epochs 2, parameters [\d,]+, "
        r"date \d{4}-\d\d-\d\d \d\d:\d\d",
        same,
    )


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("accuracy", "bac"),
        ("run", "abc"),
        ("learning-rate", "cba"),
        ("learning_rate", "cba"),
        ("optimizer", "abc"),
        ("momentum", "bca"),  # adam has none
        ("augment", "cab"),
    ],
)
def test_any_column_or_setting_sorts(command, make, sort, order):
    make("a", 0.5, learning_rate=0.1, optimizer="adam", momentum=None)
    make("b", 0.75, learning_rate=0.02, momentum=0.5)
    make("c", 0.25, learning_rate=0.003, momentum=0.9, augment=["flip"])
    assert "".join(names(command("runs", "--sort", sort)[1])) == order


def test_json_has_everything(command, make, trained):
    make("a", 0.5)
    (run,) = json.loads(command("runs", "runs", "--json")[1])
    settings = run.pop("settings")
    assert settings == {
        name: value
        for name, value in json.loads(Path("runs/a/config.json").read_text()).items()
        if name not in ("input_shape", "class_names")
    }
    assert run == {
        "run": str(Path("runs/a")),
        "recipe": None,
        "model": "notebook",
        "data": "own/<b>.npz",
        "state": "finished",
        "failure": None,
        "epochs": 2,
        "accuracy": 0.5,
        "loss": trained[1].loss,
        "validation_accuracy": None,
        "parameters": 5 * 9 + 5 * 100 + 405 * 100 + 100 + 100 * 3 + 3,
        "date": json.loads(Path("runs/a/environment.json").read_text())["time"],
    }


def test_a_recipe_is_a_column_or_stands_below(command, make):
    make("a", 0.5)
    make("b", 0.75, recipe="fashion")
    _, out, _ = command("runs")
    assert re.search(r"run +accuracy +loss +recipe\n", out)
    assert re.search(r"b +75\.00% +\d\.\d{4} +fashion\n", out)
    assert re.search(r"a +50\.00% +\d\.\d{4} *\n", out)
    assert "state finished, recipe fashion, model notebook" in command("runs", "runs/b")[1]


def test_states(command, make):
    make("a", 0.5)
    interrupted = make("b")
    interrupted.evaluation.unlink()
    lines = interrupted.metrics.read_text().splitlines()
    interrupted.metrics.write_text("\n".join(lines[:2]))
    begun = make("c")
    for file in (begun.evaluation, begun.metrics, begun.weights, begun.checkpoint, begun.environment):
        file.unlink()
    running = make("d")
    with running.alone():
        found = {run["run"][-1]: run for run in json.loads(command("runs", "--json")[1])}
        table = command("runs")[1]
    assert [found[name]["state"] for name in "abcd"] == ["finished", "interrupted", "interrupted", "running"]
    assert not system.is_locked(running.path)
    assert "1/2" in table
    last = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))
    assert found["b"]["accuracy"] == float(
        last["validation_accuracy"]
    )  # of the test set, since none was held out
    assert found["c"]["accuracy"] is found["c"]["parameters"] is found["c"]["date"] is None
    assert names(table)[-1] == "c"


def test_a_run_that_has_diverged_has_failed_until_it_is_resumed(command, own_data):
    train = ("train", "--data", own_data, "--model", "notebook", "--batch-size", 16, "--no-report")
    assert command(*train, "--learning-rate", 1e30, "--clip", 0, "--out", "runs/a")[0] == 1
    (run,) = json.loads(command("runs", "--json")[1])
    assert run["state"] == "failed"
    assert "lower the learning rate" in run["failure"] or "lower learning rate" in run["failure"]
    assert "state failed" in command("runs")[1]
    network, config, class_names = RunFolder("runs/a").load(backends.get("cpu"))
    RunFolder("runs/a").resume(config, network, class_names)
    assert not RunFolder("runs/a").failure.exists()


def test_the_validation_accuracy_is_that_of_the_tested_weights(command, make, trained):
    folder = make("a", validation=0.1)
    replace(trained[1], weights="best", epoch=1).save(folder.evaluation)
    first = dict(zip(*(line.split(",") for line in folder.metrics.read_text().splitlines()[:2]), strict=True))
    (run,) = json.loads(command("runs", "--json")[1])
    assert run["validation_accuracy"] == float(first["validation_accuracy"])
    folder.evaluation.unlink()  # the validation images say nothing about the test set
    (run,) = json.loads(command("runs", "--json")[1])
    assert run["accuracy"] is None


def test_what_is_not_a_run_is_skipped_with_a_note(command, make):
    make("a", 0.5)
    for name in ("config.json", "metrics.csv", "model.safetensors", "evaluation.safetensors"):
        (make(f"damaged {name}").path / name).write_bytes(b"epoch,loss\n1\n")
    Path("runs/pictures").mkdir()
    Path("runs/comparison").mkdir()  # which cnn report writes: it needs no note
    Path("runs/.a.1234.unfinished").mkdir()
    Path("runs/a-learning-rates.png").write_bytes(b"")
    code, out, err = command("runs")
    assert code == 0
    assert names(out) == ["a"]
    notes = err.splitlines()
    assert len(notes) == 5
    assert all(note.startswith("note: ") and note.endswith("; it is skipped") for note in notes)
    assert "pictures is not the folder of a run" in notes[-1]
    assert "comparison" not in err


def test_a_run_alone(command, make):
    make("a", 0.5)
    out = command("runs", "runs/a")[1]
    assert names(out) == ["a"]
    assert "state finished, model notebook" in out.splitlines()[-1]


def test_no_weights_are_read(command, make, monkeypatch):
    make("a", 0.5)
    for owner in (RunFolder, Evaluation):
        monkeypatch.setattr(owner, "load", lambda *_: pytest.fail("the weights are read"))
    monkeypatch.setattr("cnn.saving.weights.read_all", lambda *_: pytest.fail("the weights are read"))
    assert command("runs")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "there is no folder nowhere: give the folder that has your runs in it"),
        (["--sort", "acuracy"], "--sort is 'acuracy', expected .*did you mean 'accuracy'"),
    ],
)
def test_mistakes(command, arguments, said):
    code, out, err = command("runs", *arguments)
    assert (code, out) == (2, "")
    assert re.search(said, err)


def test_an_empty_folder(command, tmp_path):
    assert command("runs", tmp_path) == (0, "", f"note: there are no runs in {tmp_path}\n")
    assert command("runs", tmp_path, "--json")[1] == "[]\n"
