"""``cnn.fit(run=...)`` leaves the folder of a run, which the commands take."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cnn
from cnn.runs import build
from cnn.runs.folder import RunFolder


@pytest.fixture
def sets(own_data):
    return cnn.data.load(str(own_data))


def network():
    return cnn.Sequential(
        cnn.Conv2D(4, 3), cnn.ReLU(), cnn.Residual(cnn.Conv2D(4, 1)), cnn.GlobalAvgPool2D(), cnn.Dense(2)
    )


@pytest.fixture
def small(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CNN_DEVICE", "cpu")


pytestmark = pytest.mark.usefixtures("small")


def test_the_commands_take_the_run(command, sets, own_data):
    train, test = sets
    optimizer = cnn.EMA(cnn.Adam(0.01), 0.5)
    net, schedule, augment = network(), cnn.schedules.Cosine(warmup=2), [cnn.augment.Shift(1)]
    settings = {
        "optimizer": optimizer,
        "schedule": schedule,
        "augment": augment,
        "normalize": True,
        "seed": 3,
    }
    history = cnn.fit(net, train, test, run="runs/mine", epochs=2, batch_size=40, callbacks=[], **settings)
    assert len(history) == 2
    assert {path.name for path in Path("runs/mine").iterdir()} >= {
        "config.json", "environment.json", "metrics.csv", "model.safetensors", "checkpoint.safetensors",
        "evaluation.safetensors", "report.html", "pictures",
    }  # fmt: skip
    config, shape, names = RunFolder("runs/mine").read()
    assert (shape, names) == ((1, 20, 20), ("dark", "bright"))
    chosen = config.optimizer, config.learning_rate, config.ema, config.schedule, config.warmup, config.seed
    assert chosen == ("adam", 0.01, 0.5, "cosine", 2, 3)
    assert "own network on own data" in Path("runs/mine/report.html").read_text()
    found = json.loads(command("evaluate", "runs/mine", "--data", own_data, "--json")[1])
    assert found["accuracy"] == pytest.approx(cnn.evaluate(net, test)["accuracy"])
    assert command("export", "runs/mine", "model.onnx")[0] == 0
    assert command("report", "runs/mine")[0] == 0
    assert command("summary", "runs/mine", "--toml")[1].startswith('[[layers]]\ntype = "Conv2D"')
    assert (
        command("train", "--model", "runs/mine", "--data", own_data, "--dry-run", "--device", "cpu")[0] == 0
    )
    code, _, err = command("evaluate", "runs/mine")
    assert (code, err) == (
        2,
        "error: the run does not say where its data are: give their path with --data\n",
    )
    code, _, err = command("train", "--resume", "runs/mine", "--epochs", 3)
    assert code == 2
    assert re.match(r"error: runs.mine was trained in Python: resume it there, with cnn\.fit\(", err)


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (cnn.Muon(hidden_only=True, steps=3), ["steps=3", "hidden_only=true"]),
        (cnn.EMA(cnn.Adam(betas=(0.7, 0.9))), ["betas=0.7:0.9"]),
        (cnn.SGD(0.1, momentum=0.9, nesterov=True, groups=[cnn.Group("*.bias", 2)]), None),
    ],
)
def test_its_settings_have_the_further_arguments_of_the_optimizer_and_the_loss(sets, optimizer, expected):
    cnn.fit(network(), sets[0], run="run", optimizer=optimizer, loss=cnn.CrossEntropy(0.1), callbacks=[])
    config, _, _ = RunFolder("run").read()
    assert (config.optimizer_options, config.label_smoothing) == (expected, 0.1)
    made = build.make_optimizer(config, len(sets[0])).present_settings
    assert made | {"groups": None} == optimizer.present_settings | {"groups": None}


def test_it_is_resumed_in_another_folder(sets):
    train, _ = sets
    cnn.fit(network(), train, run="half", epochs=1, optimizer=cnn.SGD(0.1), callbacks=[])
    history = cnn.fit(
        network(), train, run="rest", epochs=2, optimizer=cnn.SGD(0.1), callbacks=[],
        resume="half/checkpoint.safetensors",
    )  # fmt: skip
    straight = network()
    assert len(history) == 2
    cnn.fit(straight, train, epochs=2, optimizer=cnn.SGD(0.1), callbacks=[])
    again = cnn.load("rest/model.safetensors", device="cpu")
    np.testing.assert_array_equal(again.flat.value, straight.flat.value)


def test_a_folder_that_exists_is_never_touched(sets):
    Path("mine").mkdir()
    with pytest.raises(cnn.ArgumentError, match="the output folder mine exists: give run another name"):
        cnn.fit(network(), sets[0], run="mine")
    assert not list(Path("mine").iterdir())
    with pytest.raises(cnn.ArgumentError, match=r'run is 3, expected a folder such as "runs/mine"'):
        cnn.fit(network(), sets[0], run=3)


def test_wrong_arguments_leave_no_folder(sets):
    with pytest.raises(cnn.ArgumentError, match="epochs is 0"):
        cnn.fit(network(), sets[0], run="mine", epochs=0)
    with pytest.raises(cnn.DataError, match="run needs a class for each image"):
        cnn.fit(network(), cnn.data.Dataset(sets[0].images, targets=np.zeros((120, 2))), run="mine")
    assert not Path("mine").exists()


class Interrupt(cnn.Callback):
    def on_step(self, run):
        if run.step == 2:
            raise KeyboardInterrupt


def test_an_interrupted_run_is_a_run(command, sets, own_data):
    with pytest.raises(KeyboardInterrupt):
        cnn.fit(network(), sets[0], sets[1], run="mine", batch_size=16, callbacks=[Interrupt()])
    assert command("evaluate", "mine", "--data", own_data)[0] == 0
    assert command("report", "mine")[0] == 0


class Doubled(cnn.ReLU):
    def forward(self, x, training=False):
        y = super().forward(x, training)
        y *= 2
        return y


def test_layers_of_ones_own_have_a_report(command, sets):
    net = cnn.Sequential(cnn.Flatten(), Doubled(), cnn.Dense(2))
    cnn.fit(net, sets[0], sets[1], run="mine", callbacks=[])
    assert "layers of its own program" in Path("mine/report.html").read_text()
    code, _, err = command("export", "mine", "model.onnx")
    assert code == 2
    assert "layer 1 Doubled is of a class that this library does not have" in err


def test_the_signature_and_the_documentation_have_it():
    assert list(inspect.signature(cnn.fit).parameters)[-1] == "run"
    assert "run : str or Path\n        A folder for the run" in cnn.fit.__doc__


def test_importing_the_library_imports_nothing_more():
    code = "import cnn, sys; print(*sys.modules)"
    names = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "cnn.runs.fit" in names
    assert not {"cnn.runs.fit_in_folder", "cnn.runs.config", "matplotlib", "jinja2"} & set(names)
