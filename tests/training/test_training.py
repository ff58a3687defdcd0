"""fit and evaluate: learning, repeating, crossings, allocation, refusals."""

import tracemalloc
import warnings

import numpy as np
import pytest
from helpers.standin import StandInBackend

import backends
import cnn
from cnn.support.errors import Notice
from cnn.training.run import Run


def blobs(count=200, seed=0, size=8):
    """Images whose class is the quarter that is bright."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, count)
    images = random.integers(0, 60, (count, 1, size, size), dtype=np.uint8)
    half = size // 2
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[0, row * half : (row + 1) * half, column * half : (column + 1) * half] += 150
    return cnn.data.Dataset(images, labels, classes=4)


def small(device="cpu", seed=0, dtype="float32"):
    network = cnn.Sequential(
        cnn.Conv2D(4, 3), cnn.ReLU(), cnn.MaxPool2D(2), cnn.Flatten(), cnn.Dense(16), cnn.Tanh(), cnn.Dense(4)
    )
    network.build((1, 8, 8), backend=device, seed=seed, dtype=dtype)
    return network


def weights(network):
    return network.backend.to_host(network.flat.value)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: cnn.SGD(0.1, momentum=0.9),
        lambda: cnn.SGD(0.1, momentum=0.9, nesterov=True),
        lambda: cnn.Adam(0.01),
        lambda: cnn.AdamW(0.01),
    ],
)
def test_it_learns(backend, optimizer):
    network = small(backend)
    history = cnn.fit(
        network,
        blobs(),
        validation=blobs(100, 1),
        optimizer=optimizer(),
        epochs=6,
        batch_size=16,
        callbacks=[],
    )
    assert history[-1]["validation_accuracy"] == 1
    assert history[-1]["loss"] < history[0]["loss"] / 3
    assert cnn.evaluate(network, blobs(100, 1)) == {
        "loss": history[-1]["validation_loss"],
        "accuracy": history[-1]["validation_accuracy"],
    }


def test_the_history_is_one_dict_an_epoch():
    history = cnn.fit(small(), blobs(), epochs=2, callbacks=[])
    assert [record["epoch"] for record in history] == [1, 2]
    assert set(history[0]) == {"epoch", "loss", "accuracy", "learning_rate", "seconds", "images_per_second"}


def test_the_same_seed_gives_the_same_weights_bit_for_bit(backend):
    results = []
    for seed in (0, 0, 1):
        network = small(backend)
        cnn.fit(network, blobs(), epochs=2, batch_size=32, seed=seed, callbacks=[])
        results.append(weights(network))
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


def test_devices_agree(backend):
    results = []
    for device in ("cpu", backend):
        network = small(device, dtype="float64")
        cnn.fit(network, blobs(), optimizer=cnn.Adam(0.01), epochs=2, batch_size=32, callbacks=[])
        results.append(weights(network))
    np.testing.assert_allclose(results[1], results[0], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kernels", ["portable", "signal"])
@pytest.mark.parametrize("loss", [cnn.CrossEntropy, cnn.MeanSquaredError])
@pytest.mark.parametrize("optimizer", [lambda: cnn.SGD(0.1, momentum=0.9), lambda: cnn.AdamW(0.01)])
def test_a_whole_training_runs_where_nothing_converts_by_accident(kernels, loss, optimizer):
    data, results = blobs(90), []
    for device in (backends.get("cpu", kernels=kernels), StandInBackend(kernels=kernels)):
        network = small(device, dtype="float64")
        cnn.fit(
            network,
            data,
            validation=data,
            loss=loss(),
            optimizer=optimizer(),
            epochs=2,
            batch_size=32,
            callbacks=[],
        )
        results.append((weights(network), network.predict(data.images)))
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-9, atol=1e-11)


def test_the_notebooks_network_runs_there_too():
    device = StandInBackend()
    network = cnn.models.notebook()
    network.build((1, 28, 28), backend=device)
    train, _ = cnn.data.load("mnist")
    pair = train.only((0, 1), per_class=20)
    history = cnn.fit(network, pair, epochs=1, batch_size=8, callbacks=[])
    assert np.isfinite(history[0]["loss"])


class Watch(cnn.Callback):
    """Notes a figure after every step."""

    def __init__(self, figure):
        self.figure, self.seen = figure, []

    def on_step(self, run: Run):
        self.seen.append(self.figure())


@pytest.mark.parametrize("optimizer", [lambda: cnn.SGD(0.1, momentum=0.9), lambda: cnn.Adam(0.01)])
def test_a_steady_step_crosses_zero_times(optimizer):
    device = StandInBackend()
    watch = Watch(lambda: (device.crossings, device.synchronizations))
    cnn.fit(small(device), blobs(200), optimizer=optimizer(), epochs=1, batch_size=32, callbacks=[watch])
    assert len(watch.seen) == 7
    assert len(set(watch.seen)) == 1  # neither number moves between steps, the short last one included


def test_an_epoch_crosses_a_fixed_number_of_times():
    counts = []
    for images in (64, 640):
        device = backends.CpuBackend()
        network = small(device)
        before = device.crossings
        cnn.fit(network, blobs(images), epochs=1, batch_size=32, callbacks=[])
        counts.append(device.crossings - before)
    assert counts[0] == counts[1]


def test_a_steady_step_allocates_nothing_of_the_size_of_an_activation():
    network = cnn.models.lenet5()
    network.build((1, 28, 28), backend="cpu")
    train, _ = cnn.data.load("mnist")
    data = cnn.data.Dataset(train.images[:2560], train.labels[:2560], classes=10)

    peaks = []

    class Peak(cnn.Callback):
        def on_step(self, run):
            current, peak = tracemalloc.get_traced_memory()
            peaks.append(peak - current)
            tracemalloc.reset_peak()

    tracemalloc.start()
    try:
        cnn.fit(network, data, epochs=1, batch_size=256, callbacks=[Peak()])
    finally:
        tracemalloc.stop()
    smallest_image = 16 * 5 * 5 * 256 * 4  # the smallest activation that is still an image
    assert len(peaks) == 10
    assert max(peaks[2:]) < smallest_image / 4  # NumPy's own casting buffers, 100 KB whatever the batch


def test_on_a_device_nothing_that_large_is_allocated_either():
    device = StandInBackend()
    network = cnn.models.lenet5()
    network.build((1, 28, 28), backend=device)
    train, _ = cnn.data.load("mnist")
    data = cnn.data.Dataset(train.images[:320], train.labels[:320], classes=10)
    largest = []

    class Largest(cnn.Callback):
        def on_step(self, run):
            largest.append(device.largest_allocation)
            device.reset_counters()

    cnn.fit(network, data, epochs=1, batch_size=64, callbacks=[Largest()])
    assert max(largest[1:]) < 16 * 5 * 5 * 64 * 4 / 2


def test_a_short_last_batch_and_an_evaluation_add_no_second_set_of_buffers():
    def allocations(network):
        buffers = [buffer for layer in network.layers for buffer in layer._buffers._buffers.values()]
        return [*(buffer._storage for buffer in buffers), *(c.storage for c in network.context.arena._chunks)]

    network = small()
    cnn.fit(network, blobs(64), validation=blobs(300), epochs=1, batch_size=32, callbacks=[])
    before = allocations(network)
    cnn.fit(network, blobs(40), validation=blobs(299), epochs=2, batch_size=32, callbacks=[])
    after = allocations(network)
    assert network.context.arena._chunks
    assert all(now is then for now, then in zip(after, before, strict=True))


def test_everything_happens_on_the_networks_own_device():
    device = StandInBackend()
    device.reset_counters()
    network = small(device, dtype="float64")
    data = blobs(40)
    for optimizer in (cnn.SGD(0.1, momentum=0.9), cnn.AdamW(0.01)):
        cnn.fit(network, data, validation=data, optimizer=optimizer, callbacks=[])
    cnn.evaluate(network, data)
    network.predict(data.images)
    network.load_state_dict(network.state_dict())
    network.copy().predict(data.images)
    cnn.check_gradients(network, entries=2)
    assert device.allocated_bytes > 0
    assert device.elsewhere == 0  # with two GPUs it might have been the other one


def test_every_image_is_seen_once_an_epoch():
    network = small()
    data, seen = blobs(70), []

    class Labels(cnn.CrossEntropy):
        def evaluate(self, y, labels, *rest):
            seen.extend(labels.tolist())
            super().evaluate(y, labels, *rest)

    cnn.fit(network, data, loss=Labels(), epochs=1, batch_size=32, callbacks=[])
    assert sorted(seen) == sorted(data.labels.tolist())
    assert seen != data.labels.tolist()


def test_a_network_that_is_not_built_is_built_for_the_images(monkeypatch):
    monkeypatch.setenv("CNN_DEVICE", "cpu")
    network = cnn.Sequential(cnn.Flatten(), cnn.Dense(4))
    cnn.fit(network, blobs(20), callbacks=[])
    assert network.input_shape == (1, 8, 8)


def test_a_network_that_ends_in_softmax_gets_the_notebooks_loss():
    network = cnn.Sequential(cnn.Flatten(), cnn.Dense(4), cnn.Softmax())
    network.build((1, 8, 8), backend="cpu")
    chosen = cnn.evaluate(network, blobs(20))
    assert chosen == cnn.evaluate(network, blobs(20), loss=cnn.BinaryCrossEntropy())


def test_a_loss_that_expects_other_outputs_than_the_networks_is_noted():
    logits = cnn.Sequential(cnn.Flatten(), cnn.Sequential(cnn.Dense(4), cnn.Flatten()))
    shares = cnn.Sequential(cnn.Flatten(), cnn.Dense(4), cnn.Softmax())
    bounded = cnn.Sequential(cnn.Flatten(), cnn.Dense(4), cnn.Tanh())
    for network in (logits, shares, bounded):
        network.build((1, 8, 8), backend="cpu")
    with pytest.warns(
        Notice, match=r"expects probabilities, but the network ends in 1\.0 Dense: add"
    ) as noted:
        cnn.evaluate(logits, blobs(20), loss=cnn.BinaryCrossEntropy())
    with pytest.warns(Notice, match="expects logits, but the network ends in Softmax"):
        cnn.evaluate(shares, blobs(20), loss=cnn.CrossEntropy())
    assert noted[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cnn.evaluate(shares, blobs(20), loss=cnn.BinaryCrossEntropy())
        cnn.evaluate(bounded, blobs(20), loss=cnn.BinaryCrossEntropy())


def test_a_loss_that_is_no_number_stops_the_training():
    network = small()
    with (
        pytest.raises(cnn.TrainingError, match=r"the loss became .* in epoch .*a lower learning rate"),
        np.errstate(all="ignore"),
    ):
        cnn.fit(network, blobs(), optimizer=cnn.SGD(1e38), epochs=5, callbacks=[cnn.NaNGuard()])


def test_weights_from_before_a_loss_that_is_no_number_are_kept(tmp_path):
    class Poison(cnn.Callback):
        def on_epoch(self, run, record):
            run.network.flat.value[:] = np.nan

    network = small()
    callbacks = [cnn.NaNGuard(), cnn.Checkpoint(tmp_path / "m.safetensors"), Poison()]
    with pytest.raises(cnn.TrainingError, match="in epoch 2"):
        cnn.fit(network, blobs(), epochs=3, callbacks=callbacks)
    assert np.isfinite(cnn.load(tmp_path / "m.safetensors", device="cpu").flat.value).all()


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"])
def test_progress_is_a_line_an_epoch_where_there_is_no_terminal(capsys, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")  # colours or a width are not a terminal
    monkeypatch.setattr(cnn.Progress, "interval", 0)
    cnn.fit(small(), blobs(), validation=blobs(20), epochs=2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "\x1b" not in captured.err
    lines = captured.err.split("\n")[:-1]
    assert [line[:9] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert all("images/s" in line and "validation loss" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"batch_size": 0}, cnn.ArgumentError, "batch_size is 0, expected a whole number of at least 1"),
        ({"epochs": 0}, cnn.ArgumentError, "epochs is 0"),
        ({"seed": -3}, cnn.ArgumentError, "seed is -3"),
        (
            {"validation": blobs(5, size=6)},
            cnn.ShapeError,
            r"images are \(5, 1, 6, 6\).*built for \(N, 1, 8, 8\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_changes(arguments, error, message):
    network = small()
    before = weights(network)
    with pytest.raises(error, match=message):
        cnn.fit(network, blobs(10), callbacks=[], **arguments)
    np.testing.assert_array_equal(weights(network), before)


def test_classes_in_another_order_than_the_networks_are_refused():
    """As of a validation set whose labels are strings, and which lacks the first class."""
    data = blobs(40)
    names = np.array(["ant", "bee", "cat", "dog"])
    train = cnn.data.Dataset(data.images, names[data.labels])
    rest = data.labels > 0
    texts = names[data.labels[rest]]
    other = cnn.data.Dataset(data.images[rest], texts)
    network = small("cpu")
    message = r"class 'bee' has the label 0 in Dataset\(.*\), but 1 in the network's training set"
    with pytest.raises(cnn.DataError, match=message):
        cnn.fit(network, train, validation=other, callbacks=[])
    cnn.fit(network, train, validation=train, epochs=1, callbacks=[])
    with pytest.raises(cnn.DataError, match=message):
        cnn.evaluate(network, other)
    same = cnn.data.Dataset(data.images[rest], texts, train.classes)
    numbers = cnn.data.Dataset(data.images[rest], data.labels[rest])  # nothing says what they mean
    assert cnn.evaluate(network, same) == cnn.evaluate(network, numbers)


def test_labels_beyond_the_networks_classes_are_refused():
    data = cnn.data.Dataset(np.zeros((3, 1, 8, 8), dtype=np.uint8), [0, 4, 1])
    with pytest.raises(cnn.DataError, match="labels go up to 4, the network's output has 4 classes"):
        cnn.fit(small(), data, callbacks=[])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "ce"}, "loss is 'ce', expected a Loss such as cnn.CrossEntropy"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd', expected an Optimizer"),
        ({"schedule": "linear"}, "schedule is 'linear', expected a Schedule such as cnn.schedules.Linear"),
        ({"callbacks": [len]}, "callbacks is .*expected a Callback"),
        ({"validation": ([], [])}, r"data is \(\[\], \[\]\), expected a Dataset"),
        ({"seed": None}, "seed is None, expected a whole number"),
    ],
)
def test_arguments_of_another_kind_are_refused(arguments, message):
    with pytest.raises(cnn.ArgumentError, match=message):
        cnn.fit(small(), blobs(10), **{"callbacks": [], **arguments})


def test_compiling_is_not_counted_as_training(monkeypatch):
    network = small()
    compiled = {"seconds": 0.0}
    kernels = type(network.backend.kernels)
    monkeypatch.setattr(kernels, "compile_seconds", property(lambda self: compiled["seconds"]))

    class Compile(cnn.Callback):
        def on_step(self, run):
            compiled["seconds"] += 1000

    (record,) = cnn.fit(network, blobs(), batch_size=len(blobs()), callbacks=[Compile()])
    assert -1000 < record["seconds"] < -900  # 1000 more than passed were taken off
