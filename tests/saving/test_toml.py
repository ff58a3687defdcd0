"""Architectures in TOML: what is printed gives the same network, can be edited, and mistakes are named."""

import json
import tomllib

import pytest

import cnn
from cnn import models
from cnn.layers.description import describe
from cnn.saving import toml
from cnn.selftest.cases import LAYERS

NESTED = cnn.Sequential(
    cnn.Conv2D(8, (3, 5), padding=(1, 2), bias=False),
    cnn.Residual(
        cnn.Residual(cnn.Conv2D(8, 1), cnn.ReLU()),
        cnn.Parallel(cnn.Sequential(), cnn.MaxPool2D(3, stride=1, padding=1), join="concatenate"),
        shortcut=cnn.Sequential(cnn.Conv2D(16, 1), cnn.LeakyReLU(0.125)),
    ),
    cnn.GlobalAvgPool2D(),
    cnn.Dense(10),
)
TEXT = """\
[[layers]]
type = "Conv2D"
out_channels = 8
kernel_size = [3, 5]
padding = [1, 2]
bias = false

[[layers]]
type = "Residual"

[[layers.layers]]
type = "Residual"

[[layers.layers.layers]]
type = "Conv2D"
out_channels = 8
kernel_size = 1

[[layers.layers.layers]]
type = "ReLU"

[[layers.layers]]
type = "Parallel"
join = "concatenate"

[[layers.layers.layers]]
type = "Sequential"

[[layers.layers.layers]]
type = "MaxPool2D"
kernel_size = 3
stride = 1
padding = 1

[layers.shortcut]
type = "Sequential"

[[layers.shortcut.layers]]
type = "Conv2D"
out_channels = 16
kernel_size = 1

[[layers.shortcut.layers]]
type = "LeakyReLU"
slope = 0.125

[[layers]]
type = "GlobalAvgPool2D"

[[layers]]
type = "Dense"
out_features = 10
"""


def again(network, path):
    path.write_text(toml.write(network), encoding="utf-8")
    return toml.read(path)


def test_it_has_what_is_not_the_default():
    assert toml.write(NESTED.fresh()) == TEXT


@pytest.mark.parametrize("name", models.MODELS)
def test_every_model_comes_back_the_same(name, tmp_path):
    network = models.make(name, 7)
    assert describe(again(network, tmp_path / "net.toml")) == describe(network)


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
def test_every_layer_comes_back_the_same(case, tmp_path):
    network = cnn.Sequential(case.make(), cnn.Residual(case.make(), shortcut=case.make()))
    try:
        described = describe(network)
    except cnn.CheckpointError:
        pytest.skip("a file cannot describe it")
    assert describe(again(network, tmp_path / "net.toml")) == described


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layers = 3", r"net\.toml: there are no layers: expected \[\[layers\]\], then lines such as type ="),
        ("", "there are no layers"),
        ("[[layer]]\ntype = 'ReLU'", "unknown key 'layer', expected .*; did you mean 'layers'"),
        ("[[layers]]\nkernel_size = 3", "layer 0 is .*, which has no type: expected one such as Conv2D"),
        ("layers = [1]", "layer 0 is 1, which has no type"),
        (
            "[[layers]]\ntype = 'Conv2d'",
            "0 has the unknown type 'Conv2d', .*; did you mean 'Conv2D'",
        ),
        ("[[layers]]\ntype = 'Layer'", "layer 0 has the unknown type 'Layer'"),
        ("[[layers]]\ntype = 3", "layer 0 has the unknown type 3"),
        (
            "[[layers]]\ntype = 'ReLU'\n[[layers]]\ntype = 'Conv2D'\nout_channels = 3\nkernel = 3",
            "layer 1 Conv2D has no argument 'kernel': expected out_channels, kernel_size, .*; did you mean",
        ),
        ("[[layers]]\ntype = 'Flatten'\nsize = 3", "layer 0 Flatten has no argument 'size': it has none"),
        ("[[layers]]\ntype = 'Dense'", "layer 0 Dense lacks out_features: expected a value for it"),
        (
            "[[layers]]\ntype = 'Conv2D'\nout_channels = 0\nkernel_size = 3",
            "0 Conv2D: .*out_channels is 0, exp",
        ),
        (
            "[[layers]]\ntype = 'Residual'\n[[layers.layers]]\ntype = 'ReLU'\n"
            "[[layers.layers]]\ntype = 'Dense'\nout_features = 'ten'",
            "layer 0.1 Dense: .*out_features is 'ten', expected a whole number",
        ),
        (
            "[[layers]]\ntype = 'Residual'\nshortcut = {type = 'Dense'}",
            "0.shortcut Dense lacks out_features",
        ),
        (
            "[[layers]]\ntype = 'Residual'\nshortcut = 1979-05-27",
            "0 Residual: .*shortcut is datetime.date",
        ),
        (
            "[[layers]]\ntype = 'Residual'\nlayers = 4",
            "0 Residual: layers is 4, expected a list",
        ),
        ("[[layers]]\ntype = 'ReLU'\nlayers = [{type = 'ReLU'}]", "layer 0 ReLU has no argument 'layers'"),
        ("[[layers]\ntype = 'ReLU'", r"net\.toml is not TOML \(.*line 1.*\): expected \[\[layers\]\]"),
        (".".join("a" * 300), r"net\.toml is not TOML \(line 1 has 299 dots"),
        ("layers = " + "[" * 5000 + "]" * 5000, r"net\.toml is not TOML"),
    ],
)
def test_mistakes_name_the_layer_and_the_argument(text, message, tmp_path):
    (tmp_path / "net.toml").write_text(text, encoding="utf-8")
    with pytest.raises(cnn.ArgumentError, match=message) as caught:
        toml.read(tmp_path / "net.toml")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(cnn.ArgumentError, match=r"nowhere\.toml cannot be read \(No such file"):
        toml.read(tmp_path / "nowhere.toml")


def test_a_layer_of_ones_own_is_named():
    network = cnn.Sequential(cnn.ReLU(), cnn.Activation(abs, abs))
    with pytest.raises(cnn.CheckpointError, match="Activation holds a function"):
        toml.write(network)


def test_the_command_prints_it_for_a_model_a_run_and_a_file(command, own_data, tmp_path):
    code, printed, err = command("summary", "--model", "notebook", "--toml", "--data", own_data)
    assert (code, err) == (0, "")
    (tmp_path / "net.toml").write_text(printed.replace("out_channels = 5", "out_channels = 6"))
    train = ("--epochs", 1, "--batch-size", 16, "--device", "cpu", "--no-report", "--out", "run")
    code, _, err = command("train", "--model", "net.toml", "--data", own_data, *train)
    assert code == 0, err
    assert err.startswith("net on 120 images of ")
    (tmp_path / "net.toml").unlink()
    for source in ("run", "run/model.safetensors"):
        code, again, _ = command("summary", source, "--toml")
        assert (code, tomllib.loads(again)["layers"][0]["out_channels"]) == (0, 6)
        rows = json.loads(command("summary", source, "--json")[1])["layers"]
        assert rows[0]["output_shape"] == [6, 18, 18]
        assert command("gradcheck", "--model", source, "--entries", 1)[0] == 0
    assert command("evaluate", "run")[0] == 0
    assert command("train", "--resume", "run", "--epochs", 2, "--no-report")[0] == 0
