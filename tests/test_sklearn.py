"""The classifier for scikit-learn."""

import io
import pickle
import subprocess
import sys

import numpy as np
import pytest

import cnn

pytest.importorskip("sklearn", minversion="1.6")
joblib = pytest.importorskip("joblib")
from sklearn.base import clone  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import check_estimator  # noqa: E402

from cnn.sklearn import EXPECTED_FAILED_CHECKS, CNNClassifier, small  # noqa: E402

DIGITS, LABELS = load_digits(return_X_y=True)
TRAIN, TEST = slice(0, 600), slice(600, 900)


def classifier(**options):
    return CNNClassifier(**{"device": "cpu", "random_state": 0, "epochs": 6} | options)


def fitted(X=DIGITS[TRAIN], y=LABELS[TRAIN], sample_weight=None, **options):
    return classifier(**options).fit(X, y, sample_weight)


@pytest.fixture(scope="module")
def digits():
    return fitted()


def test_importing_cnn_does_not_import_it():
    code = "import sys, cnn; sys.exit('sklearn' in sys.modules or 'cnn.sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.filterwarnings("ignore")
def test_passes_the_checks_of_scikit_learn():
    estimator = CNNClassifier(device="cpu", epochs=8)
    results = check_estimator(
        estimator, expected_failed_checks=EXPECTED_FAILED_CHECKS, on_fail=None, on_skip=None
    )
    failed = {each["check_name"]: each["exception"] for each in results if each["status"] == "failed"}
    assert failed == {}
    assert {each["check_name"] for each in results if each["status"] == "xfail"} == set(
        EXPECTED_FAILED_CHECKS
    )


def test_learns_digits_given_as_rows(digits):
    assert digits.network_.input_shape == (1, 8, 8)
    assert digits.score(DIGITS[TEST], LABELS[TEST]) > 0.85
    assert [record["epoch"] for record in digits.history_] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("shape", [(-1, 8, 8), (-1, 1, 8, 8)])
def test_images_are_what_their_rows_are(digits, shape):
    images = DIGITS.reshape(shape)
    same = fitted(images[TRAIN])
    np.testing.assert_array_equal(same.predict_proba(images[TEST]), digits.predict_proba(DIGITS[TEST]))


def test_bytes_and_floats_are_the_same_numbers(digits):
    np.testing.assert_array_equal(
        digits.predict_proba(DIGITS[TEST].astype(np.uint8)), digits.predict_proba(DIGITS[TEST])
    )


def test_string_classes(digits):
    names = np.array([f"digit {label}" for label in LABELS])
    named = fitted(y=names[TRAIN])
    assert list(named.classes_) == sorted(set(names))
    assert list(named.predict(DIGITS[TEST])) == [f"digit {label}" for label in digits.predict(DIGITS[TEST])]
    assert named.network_.class_names == tuple(named.classes_)


@pytest.mark.parametrize(
    "model",
    [
        "mnist-small",
        cnn.Sequential(cnn.Flatten(), cnn.Dense(10)),
        lambda classes, input_shape: cnn.Sequential(cnn.Flatten(), cnn.Dense(classes)),
    ],
    ids=["name", "network", "function"],
)
def test_models(model):
    images = np.kron(DIGITS.reshape(-1, 8, 8), np.ones((2, 2)))[TRAIN]
    made = fitted(images, model=model, epochs=1)
    assert made.predict_proba(images).shape == (600, 10)
    assert clone(made).fit(images, LABELS[TRAIN]).network_.output_shape == (10,)


def test_a_network_that_is_built_is_fine_tuned(digits):
    few = LABELS < 3
    base = digits.network_
    before = base.state_dict()
    tuned = fitted(DIGITS[few][:90], LABELS[few][:90], model=base, epochs=1, learning_rate=0.0)
    for name, array in tuned.network_.state_dict().items():
        if "running" not in name and "batches" not in name and not name.startswith("11."):
            np.testing.assert_array_equal(array, before[name], err_msg=name)
    assert tuned.network_.output_shape == (3,)
    assert tuned.network_.preprocessing == base.preprocessing
    for name, array in base.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_the_random_state_decides(digits):
    again, other = fitted(), fitted(random_state=1)
    expected = digits.predict_proba(DIGITS[TEST])
    np.testing.assert_array_equal(again.predict_proba(DIGITS[TEST]), expected)
    assert not np.array_equal(other.predict_proba(DIGITS[TEST]), expected)


def test_pickles(digits):
    file = io.BytesIO()
    joblib.dump(digits, file)
    file.seek(0)
    for copy in (pickle.loads(pickle.dumps(digits)), joblib.load(file)):
        np.testing.assert_array_equal(copy.predict_proba(DIGITS[TEST]), digits.predict_proba(DIGITS[TEST]))


def test_searches_a_pipeline():
    pipeline = make_pipeline(StandardScaler(), classifier(epochs=2))
    grid = {"cnnclassifier__epochs": [1, 3], "cnnclassifier__optimizer": ["sgd", "adam"]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(DIGITS[TRAIN], LABELS[TRAIN])
    assert search.best_params_["cnnclassifier__epochs"] == 3
    assert search.score(DIGITS[TEST], LABELS[TEST]) > 0.7


class TestWeights:
    RANDOM = np.random.default_rng(0)
    X = np.concatenate([RANDOM.normal(0, 1, (60, 2)), RANDOM.normal(0.5, 1, (60, 2))])
    y = np.repeat([0, 1], 60)

    def share(self, **options):
        """How often the second of two overlapping classes is predicted."""
        return fitted(self.X, self.y, **options).predict(self.X).mean()

    def test_of_samples_and_of_classes_are_the_same(self):
        weights = np.where(self.y == 1, 9.0, 1.0)
        proba = [
            fitted(self.X, self.y, **options).predict_proba(self.X)
            for options in (
                {"sample_weight": weights},
                {"class_weight": {0: 1, 1: 9}},
                {"sample_weight": 5 * weights},
            )
        ]
        np.testing.assert_array_equal(proba[0], proba[1])
        np.testing.assert_allclose(proba[0], proba[2], atol=1e-5)

    def test_favour_what_weighs_more(self):
        plain = self.share()
        assert self.share(class_weight={0: 1, 1: 20}) > max(plain, 0.8)
        assert self.share(class_weight={0: 20, 1: 1}) < min(plain, 0.2)

    def test_balanced(self):
        kept = np.arange(120) < 70
        X, y = self.X[kept], self.y[kept]
        plain, balanced = (
            fitted(X, y, class_weight=each, epochs=10).predict(X).mean() for each in (None, "balanced")
        )
        assert plain < balanced

    def test_of_0_leave_samples_out(self):
        weights = np.ones(120)
        weights[::3] = 0
        kept = weights > 0
        np.testing.assert_array_equal(
            fitted(self.X, self.y, weights).predict_proba(self.X),
            fitted(self.X[kept], self.y[kept]).predict_proba(self.X),
        )

    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            (np.ones(3), r"weights: shape \(3,\)"),
            (-np.ones(120), r"weights: -1.0 at position 0: expected a finite number of at least 0"),
            (np.zeros(120), r"all sample weights are zero"),
            (np.repeat([0, 1], 60), r"y has one class"),
        ],
    )
    def test_that_cannot_be(self, weights, message):
        with pytest.raises(ValueError, match=message):
            fitted(self.X, self.y, weights)


@pytest.mark.parametrize(
    ("X", "options", "message"),
    [
        (
            DIGITS.reshape(-1, 4, 4, 2, 2),
            {},
            r"X has the shape \(1797, 4, 4, 2, 2\), expected \(N, C, H, W\), ",
        ),
        (np.ones((1797, 16, 16, 3)), {}, r"this looks like channels last"),
        (DIGITS, {"input_shape": (1, 9, 9)}, r"X has rows of 64 features, expected 81 for 1x9x9"),
        (DIGITS.reshape(-1, 8, 8), {"input_shape": (1, 9, 9)}, r"expected \(1, 9, 9\)"),
        (DIGITS, {"model": "lenet"}, r"unknown model 'lenet'"),
        (DIGITS, {"model": 3}, r"model is 3, expected a name such as 'lenet5'"),
        (
            DIGITS,
            {"model": cnn.Sequential(cnn.Flatten(), cnn.Dense(2))},
            r"output of the model is \(2,\), but y has 10",
        ),
        (DIGITS, {"optimizer": "best"}, r"optimizer is 'best', expected an optimizer or one of sgd, adam"),
        (DIGITS, {"epochs": 0}, r"epochs is 0, expected"),
    ],
)
def test_what_does_not_fit_is_said(X, options, message):
    with pytest.raises(ValueError, match=message):
        fitted(X, LABELS, **options)


def test_it_has_to_be_fitted_first():
    with pytest.raises(NotFittedError):
        classifier().predict(DIGITS)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 7), (1, 4, 4), (1, 8, 8), (3, 32, 32), (1, 5, 40)])
def test_the_default_network_suits_every_shape(shape):
    assert small(3, shape).count_parameters(shape) < 300_000


def test_a_missing_scikit_learn_is_named():
    code = "import sys; sys.modules['sklearn'] = None; import cnn.sklearn"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert "scikit-learn is needed for cnn.sklearn" in done.stderr
