"""``cnn train --whiten``."""

import numpy as np
import pytest

import cnn
from cnn.saving.weights import read_all

NETWORK = """
import cnn

def make(classes):
    return cnn.Sequential(
        cnn.Conv2D(8, 2), cnn.GELU(), cnn.Conv2D(4, 3, stride=2), cnn.GELU(),
        cnn.Flatten(), cnn.Dense(classes),
    )
"""
TRAIN = ("train", "--model", "mynet.py:make", "--whiten", "--normalize", "--device", "cpu", "--no-report")


@pytest.fixture(autouse=True)
def network(tmp_path):
    (tmp_path / "mynet.py").write_text(NETWORK)


def test_the_first_convolution_is_that_of_the_library_and_stays_so(command, own_data):
    for epochs, out in ((1, "short"), (3, "long")):
        code, _, err = command(*TRAIN, "--data", own_data, "--epochs", epochs, "--out", out)
        assert code == 0, err
    train, _ = cnn.data.load(str(own_data))
    net = cnn.Sequential(cnn.Conv2D(8, 2), cnn.Flatten(), cnn.Dense(2))
    net.build(train.shape, backend="cpu")
    net.preprocessing = cnn.Preprocessing.of(train)
    cnn.whiten(net, train)
    for out in ("short", "long"):
        weights = read_all(f"{out}/model.safetensors")[0]
        np.testing.assert_array_equal(weights["0.weight"], net.state_dict()["0.weight"])
        np.testing.assert_array_equal(weights["0.bias"], 0)


def test_a_resumed_run_is_the_same_bit_for_bit(command, own_data):
    options = *TRAIN, "--data", own_data, "--schedule", "constant", "--warmup", 0
    assert command(*options, "--epochs", 3, "--out", "whole")[0] == 0
    assert command(*options, "--epochs", 2, "--out", "run")[0] == 0
    code, _, err = command("train", "--resume", "run", "--epochs", 3, "--no-report")
    assert code == 0, err
    whole, resumed = (read_all(f"{run}/model.safetensors")[0] for run in ("whole", "run"))
    for name, value in whole.items():
        np.testing.assert_array_equal(resumed[name], value, err_msg=name)


def test_a_network_that_cannot_whiten_is_refused_before_training(command, own_data):
    code, _, err = command(
        "train", "--model", "mnist-pytorch", "--whiten", "--data", own_data, "--out", "run"
    )
    assert code == 2
    assert "error: layer 0 Conv2D has 32 filters, expected an even number of at most 18" in err


def test_whitening_a_network_that_is_fine_tuned_is_refused(command, own_data):
    assert command(*TRAIN, "--data", own_data, "--epochs", 1, "--out", "run")[0] == 0
    code, _, err = command("train", "--from", "run", "--whiten", "--data", own_data)
    assert code == 2
    assert "--whiten cannot be given with --from: it would replace the trained first layer" in err
