"""Averages of the weights over the steps: Lookahead and EMA."""

import copy
import json
import pickle

import numpy as np
import pytest
from helpers.standin import StandInBackend

import backends
import cnn
from cnn.saving.weights import load, read_all

RANDOM = np.random.default_rng(0)
DATA = cnn.data.Dataset(RANDOM.integers(0, 256, (40, 1, 4, 4), dtype=np.uint8), RANDOM.integers(0, 3, 40))
DEVICES = {
    "compiled": lambda: backends.get("cpu", "compiled"),
    "portable": lambda: backends.get("cpu", "portable"),
    "graph": lambda: StandInBackend("compiled"),
}
KINDS = {
    "lookahead": lambda: cnn.Lookahead(cnn.SGD(0.1, momentum=0.9), every=3),
    "ema": lambda: cnn.EMA(cnn.AdamW(0.01), decay=0.8),
}


def network(device=None):
    net = cnn.Sequential(cnn.Flatten(), cnn.BatchNorm1D(), cnn.Dense(3))
    net.build((1, 4, 4), backend=device or backends.get("cpu"), dtype="float64")
    return net


def trained(optimizer, device=None, **options):
    net = network(device)
    options = {"batch_size": 8, "epochs": 3, "callbacks": [], "validation": DATA} | options
    history = cnn.fit(net, DATA, optimizer=optimizer, **options)
    return net.state_dict(), [{k: v for k, v in line.items() if "second" not in k} for line in history]


class Weights(cnn.Callback):
    """The weights after each step."""

    def __init__(self):
        self.found = []

    def on_step(self, run):
        self.found.append(run.network.state_dict())


def after_each_step(name, optimizer, device):
    steps = Weights()
    trained(optimizer, device, callbacks=[steps])
    return [found[name] for found in steps.found]


@pytest.mark.parametrize("name", ["2.weight", "1.running_mean", "1.running_var"])
@pytest.mark.parametrize("device", DEVICES)
def test_lookahead_goes_back_by_half_after_three_steps(device, name):
    plain = after_each_step(name, cnn.SGD(0.1), DEVICES[device]())
    found = after_each_step(name, cnn.Lookahead(cnn.SGD(0.1), every=3, alpha=0.5), DEVICES[device]())
    np.testing.assert_array_equal(found[:2], plain[:2])
    expected = (network().state_dict()[name] + plain[2]) / 2
    np.testing.assert_allclose(found[2], expected, rtol=1e-10, atol=1e-12)
    assert not np.allclose(found[3], plain[3])


@pytest.mark.parametrize("device", DEVICES)
def test_ema_by_hand(device):
    steps = Weights()
    after, _ = trained(cnn.EMA(cnn.SGD(0.1), decay=0.8), DEVICES[device](), callbacks=[steps])
    for name in ("2.weight", "1.running_mean"):
        average = steps.found[0][name]
        for found in steps.found[1:]:
            average = 0.8 * average + 0.2 * found[name]
        np.testing.assert_allclose(after[name], average, rtol=1e-10, err_msg=name)
        assert not np.allclose(after[name], steps.found[-1][name])


def test_the_averages_are_validated():
    net = network()
    history = cnn.fit(
        net, DATA, validation=DATA, optimizer=cnn.EMA(cnn.SGD(0.1), decay=0.8), batch_size=8, callbacks=[]
    )
    assert history[-1]["validation_loss"] == pytest.approx(cnn.evaluate(net, DATA)["loss"], rel=1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_resumes_bit_for_bit(kind, device, tmp_path):
    path = tmp_path / "c.safetensors"

    class Stop(cnn.Callback):
        def on_step(self, run):
            run.stop = (run.epoch, run.step) == (2, 2)

    whole = trained(KINDS[kind](), DEVICES[device]())
    trained(KINDS[kind](), DEVICES[device](), callbacks=[cnn.Checkpoint(path), Stop()])
    resumed = trained(KINDS[kind](), DEVICES[device](), resume=path)
    for name, value in whole[0].items():
        np.testing.assert_array_equal(value, resumed[0][name], err_msg=name)
    assert whole[1] == resumed[1]
    with pytest.raises(cnn.CheckpointError, match="began with optimizer "):
        trained(cnn.SGD(0.1), DEVICES[device](), resume=path)


def test_a_learning_rate_set_from_outside_reaches_the_optimizer_inside():
    optimizer = KINDS["ema"]()
    optimizer.learning_rate = 0.5
    assert optimizer.optimizer.learning_rate == 0.5
    assert optimizer.present_settings["learning_rate"] == 0.5


def test_it_can_be_pickled_in_the_middle():
    optimizer, net = KINDS["ema"](), network()
    cnn.fit(net, DATA, optimizer=optimizer, batch_size=8, callbacks=[])
    twin = pickle.loads(pickle.dumps(optimizer))
    for name, value in optimizer.state_dict().items():
        np.testing.assert_array_equal(twin.state_dict()[name], value, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_another_network_in_between_does_not_separate_the_optimizer_inside(kind):
    optimizer, net = KINDS[kind](), network()
    cnn.fit(net, DATA, optimizer=optimizer, callbacks=[])
    cnn.fit(network(), DATA, optimizer=optimizer.optimizer, callbacks=[])
    cnn.fit(net, DATA, optimizer=optimizer, callbacks=[])
    for name, array in optimizer.optimizer.arrays.items():
        np.testing.assert_array_equal(optimizer.arrays[name], array, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_leaves_the_original_alone(kind):
    optimizer, net = KINDS[kind](), network()
    cnn.fit(net, DATA, optimizer=optimizer, callbacks=[])
    twin = copy.deepcopy((net, optimizer))
    cnn.fit(network(), DATA, optimizer=copy.copy(optimizer), callbacks=[])
    for each in (net, optimizer), twin:
        cnn.fit(each[0], DATA, optimizer=each[1], callbacks=[])
    for name, value in optimizer.state_dict().items():
        np.testing.assert_array_equal(value, twin[1].state_dict()[name], err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_is_built_again_starts_the_averages_again(kind):
    optimizer, net = KINDS[kind](), network()
    cnn.fit(net, DATA, optimizer=optimizer, callbacks=[])
    net.unbuild()
    net.build((1, 4, 4), backend=backends.get("cpu"), dtype="float64")
    cnn.fit(net, DATA, optimizer=optimizer, callbacks=[])
    for name, value in trained(KINDS[kind](), epochs=1, batch_size=128)[0].items():
        np.testing.assert_array_equal(net.state_dict()[name], value, err_msg=name)


def test_two_averages_are_refused():
    with pytest.raises(cnn.ArgumentError, match="which averages already"):
        cnn.EMA(KINDS["lookahead"]())
    with pytest.raises(cnn.ArgumentError, match="decay is 1, expected"):
        cnn.EMA(cnn.SGD(0.1), decay=1)
    with pytest.raises(cnn.ArgumentError, match="optimizer is 'sgd', expected"):
        cnn.Lookahead("sgd")


def test_a_run_of_the_command_keeps_the_averages(command, own_data):
    code, _, err = command(
        "train", "--data", own_data, "--model", "notebook", "--epochs", "2", "--ema", "0.9", "--out", "run",
        "--batch-size", "8", "--device", "cpu", "--no-report",
    )  # fmt: skip
    assert code == 0, err
    averages = load("run/model.safetensors", device="cpu").state_dict()
    arrays, _ = read_all("run/checkpoint.safetensors")
    for name, value in averages.items():
        np.testing.assert_array_equal(arrays[f"training/optimizer/average/{name}"], value, err_msg=name)
        assert not np.array_equal(arrays[name], value)
    found = [
        command(*line, "run", "--device", "cpu", "--json") for line in (["evaluate"], ["train", "--resume"])
    ]
    assert [code for code, _, _ in found] == [0, 0]
    assert json.loads(found[0][1])["accuracy"] == json.loads(found[1][1])["accuracy"]
