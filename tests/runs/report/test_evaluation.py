"""What is found out about a finished network, against what predict says, and the file it is kept in."""

import json
from collections import Counter

import numpy as np
import pytest
from helpers.standin import StandInBackend, counters
from safetensors.numpy import save_file

import cnn
from cnn.runs.report import Evaluation, examine
from cnn.runs.report.histogram import Histogram
from cnn.support.errors import CheckpointError, DataError, ShapeError
from cnn.support.tensors import METADATA


def network_on(device, *layers):
    network = cnn.Sequential(
        cnn.Conv2D(2, kernel_size=3), cnn.Sequential(cnn.ReLU(), cnn.Flatten()), cnn.Dense(4), *layers
    )
    network.build((1, 6, 6), backend=device, seed=3)
    return network


@pytest.fixture(scope="module")
def test_set():
    random = np.random.default_rng(0)
    return cnn.data.Dataset(
        random.integers(0, 256, (300, 6, 6), dtype=np.uint8), random.integers(0, 4, 300), 4
    )


@pytest.fixture(params=["logits", "probabilities"])
def network(backend, request):
    return network_on(backend, *([cnn.Softmax()] if request.param == "probabilities" else []))


def test_loss_and_accuracy_are_those_of_evaluate(network, test_set):
    found = examine(network, test_set)
    assert {"loss": found.loss, "accuracy": found.accuracy} == cnn.evaluate(network, test_set)
    assert found.count == 300


def test_the_confusion_matrix_counts_pairs_of_true_and_predicted_classes(network, test_set):
    pairs = Counter(zip(test_set.labels, network.predict(test_set.images).argmax(axis=1), strict=True))
    expected = [[pairs[true, predicted] for predicted in range(4)] for true in range(4)]
    assert examine(network, test_set).confusion.tolist() == expected


def test_mistakes_are_the_wrong_images_with_the_least_probable_truth(network, test_set):
    probabilities = network.predict(test_set.images)
    wrong = [n for n, label in enumerate(test_set.labels) if probabilities[n].argmax() != label]
    worst = sorted(wrong, key=lambda n: probabilities[n][test_set.labels[n]])[:16]
    found = examine(network, test_set).mistakes
    assert found.positions.tolist() == worst
    assert np.array_equal(found.images, test_set.images[worst])
    assert np.array_equal(found.labels, test_set.labels[worst])
    assert np.array_equal(found.predicted, probabilities[worst].argmax(axis=1))
    np.testing.assert_allclose(found.probabilities, probabilities[worst], rtol=1e-5)


def test_where_few_are_wrong_there_are_few_mistakes(network, test_set, tmp_path):
    right = network.predict(test_set.images).argmax(axis=1)
    right[:2] = (right[:2] + 1) % 4
    almost = cnn.data.Dataset(test_set.images, right, 4)
    assert sorted(examine(network, almost).mistakes.positions) == [0, 1]
    right[:2] = (right[:2] - 1) % 4
    examine(network, cnn.data.Dataset(test_set.images, right, 4)).save(tmp_path / "file")
    assert len(Evaluation.load(tmp_path / "file").mistakes.images) == 0


def test_activations_are_the_outputs_of_every_layer_that_computes(network, test_set):
    found = examine(network, test_set).activations
    labels = ["0 Conv2D", "1.0 ReLU", "2 Dense", "3 Softmax"]
    assert [histogram.layer for histogram in found] == labels[: 4 if network.gives_probabilities else 3]
    if network.gives_probabilities:
        probabilities = network.predict(test_set.images[::2])  # at most 256, from all over the set
        expected = Histogram.of("3 Softmax", probabilities)
        assert np.array_equal(found[-1].counts, expected.counts)
        assert (found[-1].low, found[-1].high) == pytest.approx((expected.low, expected.high))
    assert found[1].low > 0
    assert found[1].counts.sum() == round((1 - found[1].zeros) * 150 * 2 * 4 * 4)


def test_its_metrics_are_those_of_evaluate(network, test_set, tmp_path):
    metrics = [cnn.metrics.F1(), cnn.metrics.CalibrationError()]
    expected = cnn.evaluate(network, test_set, metrics=metrics)
    found = examine(network, test_set)
    names = ["precision", "recall", "f1", "calibration_error"]
    assert found.metrics == pytest.approx({name: expected[name] for name in names})
    found.save(tmp_path / "file")
    assert Evaluation.load(tmp_path / "file").metrics == found.metrics


def test_every_layer_is_timed_on_a_batch(network, test_set):
    found = examine(network, test_set, batch_size=1000)
    assert found.batch_size == 300  # as many as there are
    assert [time.layer for time in found.times] == [layer.label for layer in network.walk()]
    assert all(time.forward.median > 0 for time in found.times)


def test_the_weights_stay_as_they_are(network, test_set):
    before = network.state_dict()
    examine(network, test_set)
    assert all(np.array_equal(before[name], value) for name, value in network.state_dict().items())
    assert not any({"forward", "backward"} & set(vars(layer)) for layer in network.walk())


def test_nothing_leaves_a_device_by_accident(test_set):
    device = StandInBackend()
    network = network_on(device)
    counters.reset()
    found = examine(network, test_set)
    assert device.elsewhere == 0
    expected = examine(network_on("cpu"), test_set)
    assert np.array_equal(found.confusion, expected.confusion)
    assert [histogram.layer for histogram in found.activations] == ["0 Conv2D", "1.0 ReLU", "2 Dense"]


def test_data_that_do_not_fit_are_refused(network, test_set):
    with pytest.raises(ShapeError, match="built for"):
        examine(network, cnn.data.Dataset(test_set.images[:, :, 1:], test_set.labels))
    with pytest.raises(DataError, match="4 classes"):
        examine(network, cnn.data.Dataset(test_set.images, test_set.labels + 1))


def test_a_histogram_counts_zeros_apart_and_survives_what_is_not_finite():
    found = Histogram.of("layer", np.array([0, 0, -1, 3, np.nan, np.inf, 1, 1]))
    assert (found.low, found.high, found.zeros, found.counts.sum()) == (-1, 3, 0.25, 4)
    assert (found.counts[0], found.counts[-1]) == (1, 1)
    assert found.edges[0] == -1
    assert found.edges[-1] == 3
    assert Histogram.of("dead", np.zeros(5)).counts.sum() == 0
    assert Histogram.of("constant", np.full(5, 2.0)).counts.sum() == 5


@pytest.fixture(scope="module")
def found(test_set):
    return examine(network_on("cpu"), test_set)


class TestFile:
    """RUN/evaluation.safetensors."""

    def test_it_comes_back_as_it_was(self, found, tmp_path):
        found.save(tmp_path / "file")
        again = Evaluation.load(tmp_path / "file")
        for name in ("loss", "accuracy", "count", "times", "batch_size"):
            assert getattr(again, name) == getattr(found, name), name
        assert np.array_equal(again.confusion, found.confusion)
        for name, array in vars(found.mistakes).items():
            assert np.array_equal(getattr(again.mistakes, name), array), name
            assert getattr(again.mistakes, name).dtype == array.dtype
        for one, other in zip(again.activations, found.activations, strict=True):
            assert np.array_equal(one.counts, other.counts)
            assert (one.layer, one.low, one.high, one.zeros) == (
                other.layer,
                other.low,
                other.high,
                other.zeros,
            )
        again.save(tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == (tmp_path / "file").read_bytes()

    @pytest.mark.parametrize(
        "damage",
        [
            lambda arrays, facts: arrays.pop("confusion"),
            lambda arrays, facts: arrays.pop("activations.0"),
            lambda arrays, facts: arrays.pop("mistakes.images"),
            lambda arrays, facts: facts.pop("loss"),
            lambda arrays, facts: facts.update(version=2),
            lambda arrays, facts: facts.update(loss="low"),
            lambda arrays, facts: facts.update(count=float("inf")),
            lambda arrays, facts: facts.update(times=[["0 Conv2D"]]),
            lambda arrays, facts: facts.update(times=[["0 Conv2D", ["a", 0, 0], None]]),
            lambda arrays, facts: facts.update(activations=3),
            lambda arrays, facts: arrays.update(confusion=arrays["confusion"][1:]),
            lambda arrays, facts: arrays.update(confusion=arrays["confusion"].astype(float)),
            lambda arrays, facts: arrays.update({"mistakes.labels": arrays["mistakes.labels"] + 4}),
            lambda arrays, facts: arrays.update({"mistakes.labels": arrays["mistakes.labels"][1:]}),
            lambda arrays, facts: arrays.update(
                {"mistakes.probabilities": arrays["mistakes.probabilities"][:, 1:]}
            ),
        ],
    )
    def test_what_is_damaged_is_refused_in_a_sentence(self, found, tmp_path, damage):
        found.save(tmp_path / "file")
        arrays, metadata = cnn.saving.weights.read(tmp_path / "file")
        facts = json.loads(metadata[METADATA])
        damage(arrays, facts)
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        save_file(arrays, tmp_path / "file", {METADATA: json.dumps(facts)})
        with pytest.raises(
            CheckpointError, match=r"file is not an evaluation of a run, or it is damaged \(.+\): delete it"
        ):
            Evaluation.load(tmp_path / "file")

    def test_a_file_cut_short_and_a_file_of_weights_are_refused(self, found, tmp_path):
        found.save(tmp_path / "file")
        (tmp_path / "cut").write_bytes((tmp_path / "file").read_bytes()[:-100])
        with pytest.raises(CheckpointError, match="cut is not a readable safetensors file"):
            Evaluation.load(tmp_path / "cut")
        network_on("cpu").save(tmp_path / "weights")
        with pytest.raises(CheckpointError, match="weights is not an evaluation of a run"):
            Evaluation.load(tmp_path / "weights")


def test_a_histogram_takes_numbers_that_hardly_differ():
    for numbers in (np.array([1.7e20, 1.7e20 * (1 + 1e-12)]), np.array([5e37, 3e38], dtype=np.float32)):
        found = Histogram.of("0 Dense", numbers)
        assert found.counts.sum() == 2
        assert found.low < found.high
