"""Training on targets other than one label for each image, with weights, in parts, streamed and resumed."""

import numpy as np
import pytest
from helpers.standin import StandInBackend

import backends
import cnn
from cnn.data import Dataset
from cnn.training.evaluation import make_loss

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (50, 1, 6, 6), dtype=np.uint8)
LABELS = RANDOM.integers(0, 4, 50)
SOFT = RANDOM.dirichlet(np.ones(4), 50)
SEVERAL = RANDOM.integers(0, 2, (50, 4))
WEIGHTS = RANDOM.uniform(0, 2, 50)

DEVICES = {
    "compiled": lambda: backends.get("cpu", "compiled"),
    "portable": lambda: backends.get("cpu", "portable"),
    "graph": lambda: StandInBackend("compiled"),
    "no graph": lambda: StandInBackend("portable"),
}
CASES = {  # the data, and the loss
    "smoothing": ({"labels": LABELS}, lambda: cnn.CrossEntropy(label_smoothing=0.1)),
    "weights of classes": ({"labels": LABELS}, lambda: cnn.CrossEntropy(class_weights=[1, 2, 0.5, 3])),
    "an ignored label": ({"labels": LABELS}, lambda: cnn.CrossEntropy(0.1, [1, 2, 0.5, 3], 1)),
    "weights": ({"labels": LABELS, "weights": WEIGHTS}, cnn.CrossEntropy),
    "weights of both": (
        {"labels": LABELS, "weights": WEIGHTS}, lambda: cnn.CrossEntropy(class_weights=[1, 2, 0.5, 3]),
    ),
    "soft labels": ({"labels": SOFT}, cnn.CrossEntropy),
    "focal": ({"labels": LABELS}, cnn.Focal),
    "several labels": ({"labels": SEVERAL, "weights": WEIGHTS}, cnn.BCEWithLogits),
    "vectors": ({"targets": RANDOM.standard_normal((50, 4))}, cnn.Huber),
}  # fmt: skip


@pytest.fixture(params=CASES.values(), ids=list(CASES))
def case(request):
    return request.param


def network(device="cpu", outputs=4, dtype="float64"):
    net = cnn.Sequential(cnn.Flatten(), cnn.Dense(8), cnn.Tanh(), cnn.Dropout(0.2), cnn.Dense(outputs))
    net.build((1, 6, 6), backend=device, dtype=dtype)
    return net


def trained(device, case, **options):
    """The weights and the history of a network after epochs with a short last batch."""
    net, (data, loss) = network(device), case
    options = {"optimizer": cnn.SGD(0.1, momentum=0.9), "epochs": 2, "batch_size": 20} | options
    data = Dataset(IMAGES, **data)
    if data.has_accuracy:
        options["metrics"] = [cnn.metrics.TopK(2), cnn.metrics.F1(), cnn.metrics.CalibrationError()]
    history = cnn.fit(net, data, validation=data, loss=loss(), **{"callbacks": []} | options)
    return net.state_dict(), [{k: v for k, v in line.items() if "second" not in k} for line in history]


def assert_same(one, other, rtol=0):
    for name, value in one[0].items():
        np.testing.assert_allclose(other[0][name], value, rtol=rtol, atol=rtol, err_msg=name)
    for before, after in zip(one[1], other[1], strict=True):
        assert after == pytest.approx(before, rel=1e-9)


@pytest.mark.parametrize("device", ["portable", "graph", "no graph"])
def test_every_device_learns_the_same(case, device):
    assert_same(trained(DEVICES["compiled"](), case), trained(DEVICES[device](), case), rtol=1e-9)


@pytest.mark.parametrize("device", ["compiled", "graph"])
def test_a_batch_in_parts_is_that_batch(case, device):
    """Parts of 7, 7 and 6, and of 7 and 3 in the last batch, whose weights have other sums."""
    whole = trained(DEVICES[device](), case)
    assert_same(whole, trained(DEVICES[device](), case, accumulate=3), rtol=1e-10)


def test_a_recorded_step_is_the_step(case):
    assert_same(*[trained(DEVICES["compiled"](), case, graph=graph) for graph in (True, False)])


@pytest.mark.parametrize("parts", [1, 3])
def test_images_that_stay_on_the_host(case, parts):
    sets = [trained(DEVICES["graph"](), case, stream=stream, accumulate=parts) for stream in (False, True)]
    assert_same(*sets)


@pytest.mark.parametrize("device", ["compiled", "graph"])
def test_a_run_resumes_bit_for_bit(case, device, tmp_path):
    class Stop(cnn.Callback):
        def on_step(self, run):
            run.stop = (run.epoch, run.step) == (2, 1)

    path = tmp_path / "c.safetensors"
    whole = trained(DEVICES[device](), case)
    trained(DEVICES[device](), case, callbacks=[cnn.Checkpoint(path), Stop()])
    assert_same(whole, trained(DEVICES[device](), case, resume=path))


def test_another_loss_or_other_metrics_are_not_resumed(tmp_path):
    path = tmp_path / "c.safetensors"
    data, loss = CASES["smoothing"]
    options = {"epochs": 1, "optimizer": cnn.SGD(0.1)}
    cnn.fit(network(), Dataset(IMAGES, **data), loss=loss(), callbacks=[cnn.Checkpoint(path)], **options)
    for changed, what in (
        ({"loss": cnn.CrossEntropy()}, r"began with loss CrossEntropy\(label_smoothing=0.1\)"),
        (
            {"loss": loss(), "metrics": [cnn.metrics.TopK(2)]},
            r"began with metrics None, now it is \['top_2'\]",
        ),
    ):
        with pytest.raises(cnn.CheckpointError, match=what):
            cnn.fit(network(), Dataset(IMAGES, **data), callbacks=[], resume=path, **changed, **options)


def test_a_loss_with_a_constructor_of_its_own_is_trained_with():
    class Smoother(cnn.CrossEntropy):
        def __init__(self, strength):
            super().__init__(label_smoothing=strength / 2)

    assert Smoother(0.2).description == "Smoother"
    assert cnn.CrossEntropy(0.1).description == "CrossEntropy(label_smoothing=0.1)"
    data = Dataset(IMAGES, LABELS)
    histories = [
        cnn.fit(network(), data, loss=loss, optimizer=cnn.SGD(0.1), callbacks=[])
        for loss in (Smoother(0.2), cnn.CrossEntropy(0.1))
    ]
    assert histories[0][0]["loss"] == histories[1][0]["loss"]


def test_a_part_whose_samples_are_all_ignored():
    labels = np.array([1] * 5 + [0, 2, 3, 0, 2])
    data = Dataset(IMAGES[:10], labels)
    nets = [network(), network()]
    for net, parts in zip(nets, (1, 2), strict=True):
        options = {"optimizer": cnn.SGD(0.1), "batch_size": 10, "callbacks": [], "accumulate": parts}
        history = cnn.fit(net, data, loss=cnn.CrossEntropy(ignore_label=1), **options)
        assert np.isfinite(history[0]["loss"])
    np.testing.assert_allclose(nets[0].flat.value, nets[1].flat.value, rtol=1e-12)


def test_a_batch_whose_samples_are_all_ignored_changes_nothing():
    data = Dataset(IMAGES[:10], np.array([1] * 9 + [0]))
    net = network()
    before = net.state_dict()
    options = {"optimizer": cnn.SGD(0.1), "batch_size": 1, "callbacks": []}
    steps = []

    class Watch(cnn.Callback):
        def on_step(self, run):
            steps.append(not all(np.array_equal(v, before[k]) for k, v in net.state_dict().items()))

    cnn.fit(net, data, loss=cnn.CrossEntropy(ignore_label=1), **options | {"callbacks": [Watch()]})
    assert steps == sorted(steps)  # nothing changes before the only sample that counts
    assert sum(steps) == 10 - int(np.argmax(steps))


def test_the_accuracy_does_not_count_what_is_ignored():
    net = network()
    answers = net.predict(IMAGES).argmax(axis=1)
    labels = np.where(LABELS == 3, 4, answers)  # 4 is no class of the network
    found = cnn.evaluate(net, Dataset(IMAGES, labels), cnn.CrossEntropy(ignore_label=4))
    assert found["accuracy"] == 1
    kept = labels != 4
    only = cnn.evaluate(net, Dataset(IMAGES[kept], labels[kept]))
    assert found["loss"] == pytest.approx(only["loss"], rel=1e-12)


@pytest.mark.parametrize(
    ("data", "loss"),
    [
        ({"labels": LABELS}, cnn.CrossEntropy),
        ({"labels": SOFT}, cnn.CrossEntropy),
        ({"labels": SEVERAL}, cnn.BCEWithLogits),
        ({"targets": SOFT}, cnn.MeanSquaredError),
    ],
)
def test_the_usual_loss(data, loss):
    assert type(make_loss(network(), None, Dataset(IMAGES, **data))) is loss


@pytest.mark.parametrize("name", ["vectors", "several labels"])
def test_there_is_no_accuracy_without_one_class_each(name, capsys):
    data, _ = CASES[name]
    data = Dataset(IMAGES, **data)
    (record,) = cnn.fit(network(), data, validation=data)
    assert {"loss", "validation_loss"} <= set(record)
    assert not [key for key in record if "accuracy" in key]
    assert "accuracy" not in capsys.readouterr().err
    assert set(cnn.evaluate(network(), data)) == {"loss"}
    with pytest.raises(cnn.DataError, match="the metric top_2 needs a class for each image"):
        cnn.evaluate(network(), data, metrics=[cnn.metrics.TopK(2)])


@pytest.mark.parametrize(
    ("data", "loss", "what"),
    [
        ({"labels": SEVERAL}, cnn.CrossEntropy(), "CrossEntropy expects one class for each image"),
        ({"targets": SOFT}, cnn.Focal(), "Focal expects one class for each image"),
        ({"targets": SOFT[:, :3]}, cnn.L1(), r"have the shape \(3,\), the network's output is \(4,\)"),
        ({"labels": LABELS + 1}, None, "the labels go up to 4, the network's output has 4 classes"),
        ({"labels": LABELS * 0}, cnn.CrossEntropy(ignore_label=0), "all images have the label 0"),
    ],
)
def test_what_a_loss_cannot_compare_is_refused(data, loss, what):
    for call in (cnn.fit, cnn.evaluate):
        with pytest.raises(cnn.DataError, match=what):
            call(network(), Dataset(IMAGES, **data), loss=loss)


def test_labels_are_no_pictures():
    net = cnn.Sequential(cnn.Conv2D(4, 3))
    net.build((1, 6, 6), backend="cpu")
    with pytest.raises(cnn.DataError, match=r"has labels, but the network's output is \(4, 4, 4\)"):
        cnn.fit(net, Dataset(IMAGES, LABELS), loss=cnn.MeanSquaredError())


def test_the_range_test_takes_them(case):
    data, loss = case
    found = cnn.find_rate(network(), Dataset(IMAGES, **data), steps=10, batch_size=20, loss=loss())
    assert np.isfinite(found.losses).all()


def test_predictions_of_numbers_are_the_outputs():
    net = network()
    expected = net.forward(np.moveaxis(IMAGES / 255, 0, -1)).T
    np.testing.assert_allclose(net.predict(IMAGES, probabilities=False), expected, rtol=1e-12)
    assert not np.allclose(net.predict(IMAGES), expected)
    drawing = cnn.Sequential(cnn.Conv2D(1, 3, padding=1))
    drawing.build((1, 6, 6), backend="cpu")
    expected = drawing.forward(np.moveaxis(IMAGES / 255, 0, -1))
    np.testing.assert_allclose(drawing.predict(IMAGES), np.moveaxis(expected, -1, 0), rtol=1e-6)
    with pytest.raises(cnn.ArgumentError, match="probabilities is 1"):
        net.predict(IMAGES, probabilities=1)


@pytest.mark.parametrize("make", [cnn.MeanSquaredError, cnn.L1, cnn.Huber, cnn.BCEWithLogits])
def test_an_autoencoder_learns(make):
    net = cnn.Sequential(cnn.Flatten(), cnn.Dense(36), cnn.Reshape((1, 6, 6)))
    net.build((1, 6, 6), backend="cpu")
    history = cnn.fit(
        net, Dataset(IMAGES, targets=IMAGES), loss=make(), optimizer=cnn.Adam(0.01), epochs=30, callbacks=[]
    )
    assert history[-1]["loss"] < 0.9 * history[0]["loss"]


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: cnn.CrossEntropy(label_smoothing=1), "label_smoothing is 1"),
        (lambda: cnn.CrossEntropy(label_smoothing=-0.1), "label_smoothing is -0.1"),
        (lambda: cnn.CrossEntropy(class_weights=2), "class_weights is 2, expected a list"),
        (lambda: cnn.CrossEntropy(class_weights=[1, -1]), r"class_weights\[1\] is -1"),
        (lambda: cnn.CrossEntropy(class_weights=[0, 0]), "not all 0"),
        (lambda: cnn.CrossEntropy(class_weights="12"), "class_weights is '12'"),
        (lambda: cnn.CrossEntropy(ignore_label="a"), "ignore_label is 'a'"),
        (lambda: cnn.Focal(gamma=-1), "gamma is -1"),
        (lambda: cnn.Focal(alpha=[1, "a"]), r"alpha\[1\] is 'a'"),
        (lambda: cnn.Huber(0), "delta is 0"),
        (lambda: cnn.BCEWithLogits("a"), "pos_weight is 'a'"),
        (lambda: cnn.CrossEntropy(class_weights=[1, 2]).build(network()), "2 numbers, the network has 4 cl"),
        (lambda: cnn.BCEWithLogits([1, 2]).build(network()), "pos_weight has 2 numbers"),
    ],
)
def test_arguments_that_cannot_be(make, what):
    with pytest.raises(cnn.ArgumentError, match=what):
        make()


@pytest.mark.parametrize(
    "loss",
    [
        cnn.CrossEntropy(0.2, [1, 2, 3, 4], 2), cnn.Focal(1.5, [1, 2, 3, 4]), cnn.Focal(0.5),
        cnn.BCEWithLogits(3), cnn.Huber(0.5),
    ],
    ids=lambda loss: loss.description,
)  # fmt: skip
@pytest.mark.parametrize("kind", ["labels", "numbers"])
def test_gradients_agree_with_finite_differences(loss, kind):
    loss.build(network())
    random = np.random.default_rng(0)
    y = random.normal(0, 2, (4, 6))
    targets = random.integers(0, 4, 6) if kind == "labels" else random.dirichlet(np.ones(4), 6).T.copy()
    weights = random.uniform(0, 2, 6)

    def mean(y):
        losses = loss.forward(y, targets, weights=weights)
        return losses.sum() / (6 if loss.total is None else loss.total[0])

    mean(y)
    dy, step = loss.backward().copy(), 1e-6
    for entry in np.ndindex(y.shape):
        above, below = y.copy(), y.copy()
        above[entry] += step
        below[entry] -= step
        assert dy[entry] == pytest.approx((mean(above) - mean(below)) / (2 * step), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("soft", "augment", "reason"),
    [
        (False, [cnn.augment.Mixup(0.2)], "an augmentation blends labels"),
        (False, [cnn.augment.CutMix(1)], "an augmentation blends labels"),
        (True, [], "has probabilities"),
    ],
)
def test_no_label_can_be_ignored_in_shares_of_labels(soft, augment, reason):
    labels = np.full((6, 3), 0.25) + np.eye(3)[np.arange(6) % 3] / 4 if soft else np.arange(6) % 3
    data = cnn.data.Dataset(np.zeros((6, 1, 4, 4), np.uint8), labels)
    net = cnn.Sequential(cnn.Flatten(), cnn.Dense(3))
    with pytest.raises(cnn.DataError, match=f"ignores the label 1, but .*{reason}"):
        cnn.fit(net, data, loss=cnn.CrossEntropy(ignore_label=1), callbacks=[], augment=augment)
