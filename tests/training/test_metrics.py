"""Metrics by their definitions."""

import numpy as np
import pytest

import backends
import cnn
from cnn.training.metrics import F1, CalibrationError, Confusion, Metric, TopK

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (300, 1, 4, 4), dtype=np.uint8)
LABELS = RANDOM.integers(0, 6, 300)
ALL = [TopK(1), TopK(2), TopK(3), F1(), Confusion(), CalibrationError()]


def network(kernels="auto"):
    net = cnn.Sequential(cnn.Flatten(), cnn.Dense(7))
    net.build((1, 4, 4), backend=backends.get("cpu", kernels), dtype="float64")
    return net


@pytest.fixture(scope="module")
def found():
    return cnn.evaluate(network(), cnn.data.Dataset(IMAGES, LABELS, 7), metrics=ALL, batch_size=64)


@pytest.fixture(scope="module")
def probabilities():
    return network().predict(IMAGES)


def assert_same(one, other):
    assert one == {
        name: pytest.approx(v, rel=1e-12) if isinstance(v, float) else v for name, v in other.items()
    }


def test_top_k(found, probabilities):
    order = np.argsort(-probabilities, axis=1)
    for k in (1, 2, 3):
        assert found[f"top_{k}"] == (order[:, :k] == LABELS[:, None]).any(axis=1).mean()
    assert found["top_1"] == found["accuracy"]


def test_confusion(found, probabilities):
    counts = np.zeros((7, 7), int)
    np.add.at(counts, (LABELS, probabilities.argmax(axis=1)), 1)
    assert found["confusion"] == counts.tolist()


def test_f1(found, probabilities):
    answers = probabilities.argmax(axis=1)
    f1 = []
    for label, row in enumerate(found["per_class"]):
        right = ((answers == label) & (label == LABELS)).sum()
        precision, recall = right / max(1, (answers == label).sum()), right / max(1, (label == LABELS).sum())
        assert row["precision"] == precision
        assert row["recall"] == recall
        assert row["count"] == (label == LABELS).sum()
        assert row["f1"] == pytest.approx(2 * precision * recall / max(1e-9, precision + recall))
        f1.append(row["f1"])
    known = np.isin(np.arange(7), [*LABELS, *answers])  # class 6 never occurs
    assert found["f1"] == pytest.approx(np.mean(np.array(f1)[known]))


def test_classes_that_do_not_occur_are_left_out_of_the_means():
    f1 = F1()
    result = f1.result(np.diag([2.0, 3, 0]))
    assert (result["precision"], result["recall"], result["f1"]) == (1, 1, 1)
    assert result["per_class"][2] == {"precision": 0, "recall": 0, "f1": 0, "count": 0}
    assert np.isnan(f1.result(np.zeros((3, 3)))["f1"])


def test_calibration_error(found, probabilities):
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == LABELS
    error = 0
    for low in np.arange(15) / 15:
        chosen = (confidence > low) & (confidence <= low + 1 / 15)
        if chosen.any():
            error += chosen.mean() * abs(right[chosen].mean() - confidence[chosen].mean())
    assert found["calibration_error"] == pytest.approx(error, rel=1e-12)


def test_soft_labels_count_by_their_most_probable_class(found):
    soft = np.full((300, 7), 0.05)
    soft[np.arange(300), LABELS] = 0.7
    again = cnn.evaluate(network(), cnn.data.Dataset(IMAGES, soft), metrics=ALL)
    assert_same({**again, "loss": 0}, {**found, "loss": 0})


def test_ignored_samples_do_not_count(found):
    labels = np.concatenate([LABELS, np.full(300, 6)])
    data = cnn.data.Dataset(np.concatenate([IMAGES, IMAGES]), labels, 7)
    again = cnn.evaluate(network(), data, cnn.CrossEntropy(ignore_label=6), metrics=ALL)
    assert_same(again, found)


def test_they_are_in_the_history_and_in_the_csv(kernels, tmp_path):
    data = cnn.data.Dataset(IMAGES, LABELS, 7)
    history = cnn.fit(
        network(kernels), data, validation=data, metrics=ALL, epochs=2, optimizer=cnn.SGD(0.0),
        callbacks=[cnn.CSVLog(tmp_path / "m.csv")],
    )  # fmt: skip
    names = {"top_1", "top_2", "top_3", "precision", "recall", "f1", "calibration_error"}
    expected = cnn.evaluate(network(), data, metrics=ALL)
    for record in history:
        assert names | {f"validation_{name}" for name in names} <= set(record)
        for name in names:
            assert record[name] == pytest.approx(expected[name], rel=1e-12)
            assert record[f"validation_{name}"] == pytest.approx(record[name], rel=1e-12)
    assert names <= set((tmp_path / "m.csv").read_text().splitlines()[0].split(","))


def test_a_metric_of_ones_own():
    class Mean(Metric):
        def shape(self, classes):
            return (2,)

        def add(self, y, targets, shares):
            self.sums += np.array([y.max(axis=0).sum(), y.shape[1]])

        def result(self, sums):
            return {"mean_of_highest": float(sums[0] / sums[1])}

    data = cnn.data.Dataset(IMAGES, LABELS, 7)
    history = cnn.fit(network(), data, metrics=[Mean()], optimizer=cnn.SGD(0.0), callbacks=[], batch_size=20)
    images = np.moveaxis(IMAGES / 255, 0, -1)
    expected = network().forward(images).max(axis=0).mean()
    assert history[0]["mean_of_highest"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("metrics", "what"),
    [
        (TopK(5), "metrics is .*TopK.*, expected a list"),
        (["f1"], "metrics is 'f1', expected a Metric"),
        ([TopK(2), TopK(2)], "metrics has top_2 twice"),
        ("f1", "metrics is 'f1', expected a list"),
    ],
)
def test_what_is_no_list_of_metrics_is_refused(metrics, what):
    for call in (cnn.fit, cnn.evaluate):
        with pytest.raises(cnn.ArgumentError, match=what):
            call(network(), cnn.data.Dataset(IMAGES, LABELS), metrics=metrics)


@pytest.mark.parametrize("make", [lambda: TopK(0), lambda: TopK("5"), lambda: CalibrationError(0)])
def test_arguments_that_cannot_be(make):
    with pytest.raises(cnn.ArgumentError, match=r"(k|bins) is"):
        make()
