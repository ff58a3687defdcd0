"""Callbacks that end a run before its last epoch, and best weights by any metric."""

import json

import numpy as np
import pytest

import cnn
from cnn.saving.weights import epoch_of
from cnn.training.history import best_epoch

RANDOM = np.random.default_rng(0)
DATA = cnn.data.Dataset(RANDOM.integers(0, 256, (32, 1, 3, 3), dtype=np.uint8), np.arange(32) % 2)


def history_of(*callbacks, **options):
    net = cnn.Sequential(cnn.Flatten(), cnn.Dense(2))
    net.build((1, 3, 3), backend="cpu")
    options = {"epochs": 8, "batch_size": 8, "callbacks": [*callbacks]} | options
    return cnn.fit(net, DATA, optimizer=cnn.SGD(0.01), **options)


class Pretend(cnn.Callback):
    """Puts these validation losses into the history."""

    def __init__(self, *losses):
        self.losses = losses

    def on_epoch(self, run, record):
        loss = self.losses[run.epoch - 1]
        record |= {"validation_loss": loss, "validation_accuracy": 1 - loss / 10}


LOSSES = 5.0, 3.0, 3.5, 2.95, 3.2, 3.1, 3.0, 3.0


@pytest.mark.parametrize(("patience", "least_gain", "epochs"), [(2, 0, 6), (2, 0.1, 4), (4, 0, 8), (9, 0, 8)])
def test_early_stopping_waits_for_an_improvement(patience, least_gain, epochs):
    stop = cnn.EarlyStopping(patience, least_gain=least_gain)
    assert len(history_of(Pretend(*LOSSES), stop)) == epochs


def test_early_stopping_by_a_metric_that_grows():
    stop = cnn.EarlyStopping(2, metric="validation_accuracy")
    assert len(history_of(Pretend(*LOSSES), stop)) == 6


def test_a_metric_that_is_not_there_is_named():
    with pytest.raises(cnn.ArgumentError, match="no validation_loss: give validation data; it has epoch"):
        history_of(cnn.EarlyStopping())


@pytest.mark.parametrize(
    ("value", "metric", "epochs"), [(0.7, None, 2), (3.0, "validation_loss", 2), (2, None, 8)]
)
def test_a_run_ends_at_a_value(value, metric, epochs):
    assert len(history_of(Pretend(*LOSSES), cnn.StopAt(value, metric))) == epochs


def test_time_is_up_after_a_step():
    assert history_of(cnn.MaxTime(1e-9)) == []
    assert len(history_of(cnn.MaxTime(60))) == 8


def test_a_run_that_has_ended_is_not_trained_further_when_it_is_resumed(tmp_path):
    path = tmp_path / "c.safetensors"
    callbacks = [Pretend(*LOSSES), cnn.StopAt(0.7), cnn.Checkpoint(path)]
    assert len(history_of(*callbacks)) == 2
    assert len(history_of(*callbacks, resume=path)) == 2
    assert len(history_of(Pretend(*LOSSES), cnn.Checkpoint(path), resume=path)) == 8


@pytest.mark.parametrize(
    ("metric", "epoch"), [("validation_loss", 4), ("validation_accuracy", 4), ("loss", 8)]
)
def test_the_best_weights_by_any_metric(metric, epoch, tmp_path):
    path = tmp_path / "best.safetensors"
    history_of(Pretend(*LOSSES), cnn.BestWeights(path, metric))
    assert epoch_of(path) == epoch


def test_a_value_that_is_not_finite_is_never_the_best():
    history = [{"loss": np.nan}, {"loss": 2.0}, {"loss": np.inf}, {"loss": 2.0}]
    assert best_epoch(history, "loss") == 2
    assert best_epoch([{"loss": np.nan}], "loss") == 0


@pytest.mark.parametrize(
    ("flags", "epochs", "reason"),
    [
        (["--stop-at", "0.01"], 1, "the accuracy has reached 0.01"),
        (
            ["--patience", "1", "--validation", "0.3"],
            None,
            "validation_loss has not improved for 1 epoch",
        ),
        (["--max-minutes", "1e-9"], 0, "1e-09 minutes have passed"),
    ],
)
def test_the_command_ends_the_run_and_tests_it(command, own_data, flags, epochs, reason):
    code, out, err = command(
        "train", "--data", own_data, "--model", "notebook", "--epochs", "6", "--batch-size", "8", "--device",
        "cpu", "--no-report", "--out", "run", "--json", "--learning-rate", "0.3", *flags,
    )  # fmt: skip
    assert code in (0, 1), err  # 1: it learned nothing
    found = len(json.loads(out)["history"])
    assert epochs in (None, found)
    if found < 6:
        assert f"the training run ends after {found} of 6 epochs: {reason}" in err
    assert "accuracy" in json.loads(out)


def test_early_stopping_needs_validation_images(command, own_data):
    code, out, err = command("train", "--data", own_data, "--early-stopping", "2", "--device", "cpu")
    assert (code, out) == (2, "")
    assert "--patience (or --early-stopping) needs validation images" in err
