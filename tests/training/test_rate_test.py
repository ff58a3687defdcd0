"""The learning-rate range test."""

import json

import numpy as np
import pytest

import cnn

RANDOM = np.random.default_rng(0)
LABELS = np.arange(64) % 4
IMAGES = np.clip(60 * LABELS[:, None, None, None] + RANDOM.integers(0, 40, (64, 1, 6, 6)), 0, 255)
DATA = cnn.data.Dataset(IMAGES.astype(np.uint8), LABELS)


def network():
    net = cnn.Sequential(cnn.Flatten(), cnn.Dense(16), cnn.ReLU(), cnn.Dropout(0.2), cnn.Dense(4))
    net.build((1, 6, 6), backend="cpu")
    return net


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_it_stops_before_the_loss_explodes_and_suggests_a_rate_that_learns():
    found = cnn.find_rate(network(), DATA, batch_size=16)
    assert len(found.rates) == len(found.losses) == len(found.smoothed) < 100
    assert np.isfinite(found.losses).all()
    assert found.rates[0] == pytest.approx(1e-5)
    lowest = found.rates[int(np.argmin(found.smoothed))]
    assert found.suggestion == pytest.approx(lowest / 10)
    history = cnn.fit(
        network(),
        DATA,
        optimizer=cnn.SGD(found.suggestion, momentum=0.9),
        epochs=60,
        batch_size=16,
        callbacks=[],
    )
    assert history[-1]["loss"] < 0.4 * history[0]["loss"]


@pytest.mark.parametrize(
    "make", [lambda: cnn.SGD(0.1, momentum=0.9), lambda: cnn.AdamW(), lambda: cnn.EMA(cnn.Adam())]
)
def test_network_and_optimizer_stay_as_they_were(make):
    net, optimizer = network(), make()
    cnn.fit(net, DATA, optimizer=optimizer, batch_size=16, callbacks=[])
    before = net.state_dict(), optimizer.state_dict(), optimizer.present_settings
    cnn.find_rate(net, DATA, optimizer, batch_size=16, steps=5, highest=0.1)
    for kept, now in zip(before[:2], (net.state_dict(), optimizer.state_dict()), strict=True):
        for name, value in kept.items():
            np.testing.assert_array_equal(now[name], value, err_msg=name)
    assert optimizer.present_settings == before[2]


def test_it_is_the_same_each_time():
    results = [cnn.find_rate(network(), DATA, batch_size=16, steps=9, highest=0.1, seed=3) for _ in range(2)]
    assert results[0] == results[1]
    assert results[0] != cnn.find_rate(network(), DATA, batch_size=16, steps=9, highest=0.1, seed=4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 1}, "steps is 1"),
        ({"lowest": 0}, "lowest is 0 and highest is 10"),
        ({"lowest": 2, "highest": 1}, "expected 0 < lowest < highest"),
        ({"optimizer": 0.1}, "optimizer"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(cnn.ArgumentError, match=message):
        cnn.find_rate(network(), DATA, **options)


def test_the_command_draws_it_and_trains_nothing(command, own_data, tmp_path):
    code, out, err = command(
        "train", "--data", own_data, "--find-rate", "--device", "cpu", "--out", tmp_path / "run",
        "--batch-size", "16", "--json",
    )  # fmt: skip
    assert code == 0, err
    found = json.loads(out)
    assert found["suggestion"] == pytest.approx(found["rates"][int(np.argmin(found["smoothed"]))] / 10)
    assert (tmp_path / "run-learning-rates.png").read_bytes()[:4] == b"\x89PNG"
    assert not (tmp_path / "run").exists()


def test_the_images_are_augmented_as_in_training():
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)
    data = cnn.data.Dataset(images, np.arange(60) % 3)
    net = cnn.Sequential(cnn.Flatten(), cnn.Dense(3))
    net.build((1, 8, 8), backend="cpu")
    plain, same, moved = (
        cnn.find_rate(net, data, steps=5, batch_size=20, augment=augment).losses
        for augment in ((), (), [cnn.augment.Shift(3)])
    )
    assert plain == same != moved
