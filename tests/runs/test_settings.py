"""A setting of a run is one field of Config: its option, its key and its place in config.json follow."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cnn
from cnn.runs import build
from cnn.runs.config import Config
from cnn.runs.folder import RunFolder
from cnn.support.errors import ArgumentError

SMALL = ("--model", "notebook", "--epochs", "1", "--batch-size", "16", "--no-report")

WITH_ONE_MORE = """
import contextlib, io, json, sys
from dataclasses import dataclass
from cnn.runs import config

@dataclass(frozen=True)
class OneMore(config.Config):
    mix: float = config.setting(
        0.5, config.TRAINING, "Share of mixed images.", check=config.require_share, before=0.0
    )

config.Config = OneMore
from cnn import cli

answers = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["cnn", *words]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
    answers.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(answers))
"""


def with_one_more(*commands):
    """(Exit code, standard output, standard error) of each command if Config has the field ``mix`` too."""
    commands = json.dumps([list(map(str, words)) for words in commands])
    call = [sys.executable, "-c", WITH_ONE_MORE, commands]
    environment = {"PYTHONPATH": str(Path(cnn.__file__).parent.parent), "COLUMNS": "80"}
    done = subprocess.run(call, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout)


@pytest.fixture
def change(command, own_data):
    """``change(function)`` trains a run, and has ``function`` change the values of its config.json."""

    def changed(function):
        assert command("train", *SMALL, "--data", own_data, "--out", "run")[0] == 0
        path = Path("run/config.json")
        values = json.loads(path.read_text())
        function(values)
        path.write_text(json.dumps(values))

    return changed


def test_a_field_of_config_is_all_that_a_new_setting_needs(change, command, own_data, monkeypatch):
    change(lambda values: values)  # a run that is older than the setting
    train = ("train", *SMALL, "--data", own_data)
    usage, old, refused, new, again, resumed = with_one_more(
        ("train", "--help"),
        ("evaluate", "run"),
        (*train, "--mix", 2),
        (*train, "--mix", 0.25, "--out", "new"),
        ("train", "--config", "new", "--dry-run", "--json", "--out", "again"),
        ("train", "--resume", "new", "--mix", 0.25),
    )
    assert re.search(r"\n  --mix \S+ +Share of mixed images.  \[default: 0.5\]\n", usage[1])
    assert (old[0], old[2]) == (0, "")
    assert refused[::2] == [2, "error: --mix is 2: expected a share of the training images, such as 0.1\n"]
    assert new[0] == 0
    assert json.loads(Path("new/config.json").read_text())["mix"] == 0.25
    assert json.loads(again[1])["config"]["mix"] == 0.25
    assert (resumed[0], resumed[2].startswith("error: --mix cannot be given with --resume: ")) == (2, True)

    unknown = "new/config.json has settings that this version does not know (mix)"
    code, _, err = command("evaluate", "new")
    assert (code, err) == (0, f"note: {unknown}: they are ignored\n")
    code, _, err = command("train", "--resume", "new")
    assert (code, err) == (2, f"error: {unknown}: update xpcnn to resume the run\n")


@pytest.mark.parametrize(
    ("name", "value"),
    [("graph", True), ("tf32", False), ("stream", None), ("validation", 0.0), ("clip", 0.0)],
)
def test_a_run_that_is_older_than_a_setting(change, command, name, value):
    change(lambda values: values.pop(name))
    config, _, _ = RunFolder("run").read()
    assert getattr(config, name) == value
    assert command("evaluate", "run")[0] == 0
    assert command("train", "--resume", "run", "--no-report")[0] == 0
    _, out, _ = command("train", "--config", "run", "--dry-run", "--json", "--out", "again")
    assert json.loads(out)["config"][name] == value


def test_a_setting_that_every_run_has_is_missed(change, command):
    change(lambda values: values.pop("seed"))
    code, _, err = command("evaluate", "run")
    assert (code, err) == (2, "error: run/config.json lacks 'seed': it is damaged\n")


@pytest.mark.parametrize(
    ("settings", "warmup"),
    [({}, 100), ({"schedule": "one-cycle"}, 0), ({"schedule": "one-cycle", "warmup": 5}, 5)],
)
def test_one_cycle_has_no_warm_up_unless_it_is_asked_for(settings, warmup):
    assert build.make_schedule(cnn.runs.config.Config(**settings)).warmup == warmup


def test_nesterov_momentum():
    assert not build.make_optimizer(Config(), 1000).nesterov
    assert build.make_optimizer(Config(nesterov=True), 1000).nesterov
    assert build.make_optimizer(Config(optimizer="muon"), 1000).nesterov
    assert not Config(**Config.completed({})).nesterov  # as in a run that is older than the setting
    with pytest.raises(ArgumentError, match="adam has no Nesterov momentum: leave --nesterov out"):
        build.require_valid(Config(optimizer="adam", nesterov=True))


def test_balanced_class_weights():
    """Each class counts the same: those of scikit-learn's compute_class_weight("balanced")."""
    train = cnn.data.Dataset(np.zeros((10, 4, 4)), [0] * 6 + [1] * 3 + [3], classes=4)
    assert build.make_loss(Config(), train) is None
    weights = build.make_loss(Config(class_weights="balanced"), train).class_weights
    np.testing.assert_allclose(weights, [10 / 24, 10 / 12, 1, 10 / 4])
    with pytest.raises(ArgumentError, match="--class-weights is 'even', expected balanced"):
        build.require_valid(Config(class_weights="even"))


def test_further_arguments_of_the_optimizer():
    muon = Config(optimizer="muon", optimizer_options=["steps=3", "hidden_only=true", "other_rate=0.5"])
    found = build.make_optimizer(muon, 1000)
    assert (found.steps, found.hidden_only, found.other_rate) == (3, True, 0.5)
    adam = build.make_optimizer(Config(optimizer="adam", optimizer_options=["betas=0.7:0.9"]), 1000)
    assert adam.betas == (0.7, 0.9)


@pytest.mark.parametrize(
    ("optimizer", "option", "message"),
    [
        ("muon", "step=3", r"has 'step=3' for muon: expected some of .*steps=.*; did you mean 'steps'\?"),
        ("muon", "steps", r"has 'steps' for muon: expected some of "),
        (
            "adam",
            "learning_rate=3",
            r"has 'learning_rate=3' for adam: expected some of betas=\.\.\., epsilon=",
        ),
        ("sgd", "steps=3", "sgd has no further options: leave --optimizer-options out"),
        ("adam", "betas=0.7:0.9,betas=0.5:0.9", "has betas twice: leave one of them out"),
        ("muon", "steps=0.5", r"steps is 0\.5, expected a whole number"),
        ("adam", "betas=0.7", r"betas is 0\.7, expected two numbers"),
    ],
)
def test_further_arguments_that_make_no_sense_are_refused(optimizer, option, message):
    with pytest.raises(ArgumentError, match=message):
        build.require_valid(Config(optimizer=optimizer, optimizer_options=option.split(",")))


@pytest.mark.parametrize("old_rate", [1, 0.1])
@pytest.mark.parametrize("decay_biases", [True, False])
def test_the_rate_of_biases(decay_biases, old_rate):
    """Each parameter's factor of the learning rate, and its weight decay."""
    net = cnn.Sequential(cnn.Flatten(), cnn.Dense(4), cnn.BatchNorm1D(), cnn.Dense(3))
    net.build((1, 2, 2), backend="cpu")
    config = Config(bias_rate=64, decay_biases=decay_biases, old_rate=old_rate, weight_decay=0.1)
    groups = build.make_groups(config, net)
    found = {}
    for name, parameter in net.parameters.items():
        group = next((group for group in groups if group.fits(parameter)), cnn.Group("*"))
        found[name] = group.rate, group.weight_decay
    of_vectors = None if decay_biases else 0
    assert found == {
        "1.weight": (old_rate, None),
        "1.bias": (64 * old_rate, of_vectors),
        "2.weight": (64 * old_rate, of_vectors),
        "2.bias": (64 * old_rate, of_vectors),
        "3.weight": (1, None),
        "3.bias": (64, of_vectors),
    }
