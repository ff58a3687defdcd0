"""A network of one's own: every command that takes a model takes it, and its run is used like any other."""

import json
import re

import pytest

import cnn

NETWORK = """
import cnn
from parts import channels

def make(classes, input_shape):
    assert input_shape in ((1, 20, 20), (1, 28, 28))
    return cnn.Sequential(
        cnn.Conv2D(channels, 3), cnn.BatchNorm2D(), cnn.ReLU(),
        cnn.Residual(cnn.Conv2D(channels, 3, padding=1)), cnn.GlobalAvgPool2D(), cnn.Dense(classes),
    )

def plain():
    return make(2, (1, 28, 28))

ready = cnn.Sequential(cnn.Flatten(), cnn.Dense(2))
number = 7
branches = cnn.Parallel(cnn.Flatten(), cnn.Flatten())

class Doubled(cnn.ReLU):
    def forward(self, x, training=False):
        y = super().forward(x, training)
        y *= 2
        return y

def unknown(classes):
    return cnn.Sequential(Doubled(), cnn.Flatten(), cnn.Dense(classes))

def broken(classes):
    return cnn.Dens(classes)
"""
TRAIN = ("train", "--epochs", 2, "--batch-size", 16, "--device", "cpu", "--no-report", "--out", "run")


@pytest.fixture(autouse=True)
def files(tmp_path):
    (tmp_path / "Meine Netze").mkdir()
    (tmp_path / "Meine Netze" / "mynet.py").write_text(NETWORK)
    (tmp_path / "Meine Netze" / "parts.py").write_text("channels = 6\n")


def model(name):
    return f"Meine Netze/mynet.py:{name}"


@pytest.mark.parametrize("name", ["make", "plain", "plain()", "ready"])
def test_a_run_of_it_is_used_like_any_other(command, own_data, name, tmp_path):
    code, _, err = command(*TRAIN, "--model", model(name), "--data", own_data)
    assert code == 0, err
    assert err.startswith("mynet on 120 images of ")
    for own in (tmp_path / "Meine Netze").iterdir():  # the run is complete without it
        if own.is_file():
            own.unlink()
    found = json.loads(command("evaluate", "run", "--json")[1])
    assert found["count"] == 40
    assert command("export", "run", "model.onnx")[0] == 0
    assert command("report", "run")[0] == 0


def test_its_default_folder_has_the_name_of_the_file(command, own_data, tmp_path):
    assert command(*TRAIN[:-2], "--model", model("make"), "--data", own_data)[0] == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"mynet-\d{8}-\d{6}", folder.name)


def test_a_layer_that_a_file_cannot_describe_is_made_by_the_python_file_again(command, own_data):
    assert command(*TRAIN, "--model", model("unknown"), "--data", own_data)[0] == 0
    first = command("evaluate", "run", "--json")
    assert first[0] == 0
    assert command("train", "--resume", "run", "--epochs", 3, "--no-report")[0] == 0


def test_other_commands_take_it(command):
    code, out, _ = command("summary", "--model", model("make"))
    assert code == 0
    assert "Conv2D" in out
    assert command("gradcheck", "--model", model("make"), "--entries", 1)[0] == 0


def test_a_file_of_weights_is_a_model_without_its_weights(command, own_data, tmp_path):
    assert command(*TRAIN, "--model", model("make"), "--data", own_data)[0] == 0
    again = "--model", "run/model.safetensors", "--out", "again"
    assert command(*TRAIN[:-2], *again, "--data", own_data, "--epochs", 1, "--seed", 5)[0] == 0
    one, other = (cnn.load(tmp_path / run / "model.safetensors", device="cpu") for run in ("run", "again"))
    assert one.shapes == other.shapes
    assert (one.flat.value != other.flat.value).any()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "nowhere.py:make",
            "--model is '.*nowhere.py:make', but there is no file .*nowhere.py: give the path",
        ),
        (model("missing"), r"mynet.py:missing' fails \(NameError: name 'missing' is not defined"),
        (
            model("broken"),
            r"mynet.py:broken' fails in line 29 \(AttributeError: module 'cnn' has no",
        ),
        (model("number"), "mynet.py:number' is int, expected a network such as cnn.Sequential"),
        (
            model("unknown(7)"),
            "the network has 7 outputs, but the data have 2 classes: give its last layer 2 outputs",
        ),
        (model("branches"), "mynet.py:branches' is Parallel, expected a network"),
        ("nowhere.safetensors", "nowhere.safetensors does not exist"),
        ("mynet", "unknown model 'mynet': expected notebook, .* or your own: mynet.py:make, a .toml"),
    ],
)
def test_mistakes_are_one_sentence(command, own_data, name, message, tmp_path):
    code, out, err = command(*TRAIN, "--model", name, "--data", own_data)
    assert (code, out) == (2, "")
    assert re.search(message, err), err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()
