"""A classifier for scikit-learn (1.6 or later), which ``import cnn`` does not import.

It needs ``pip install scikit-learn``.
"""

from math import isqrt
from typing import Any

import numpy as np

from cnn import models
from cnn.data.checked import as_weights, channels_last_advice, looks_channels_last
from cnn.data.dataset import Dataset
from cnn.layers import BatchNorm2D, Conv2D, Dense, Flatten, MaxPool2D, ReLU
from cnn.layers.layer import Layer
from cnn.models.heads import replace_head
from cnn.network import Network
from cnn.support.arguments import shape, shown
from cnn.support.errors import ArgumentError
from cnn.support.libraries import needing
from cnn.training import defaults
from cnn.training.callbacks import Callback, NaNGuard, Progress
from cnn.training.fit import fit
from cnn.training.gradients import ClipNorm
from cnn.training.named import OPTIMIZERS
from cnn.training.optimizers import SGD, Optimizer
from cnn.training.schedules import SCHEDULES

with needing("sklearn", "for cnn.sklearn"):
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.class_weight import compute_sample_weight
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data

LEAST_SIDE = 8  # of a row of numbers that is taken for a square image
WIDTHS = 16, 32, 64  # of the convolutions of the default network

EXPECTED_FAILED_CHECKS = {
    "check_sample_weight_equivalence_on_dense_data": (
        "batches are drawn at random, so a sample of weight 2 trains otherwise than the sample twice"
    ),
}
"""Checks of scikit-learn's ``check_estimator`` that do not apply, with the reasons."""


class CNNClassifier(ClassifierMixin, BaseEstimator):
    """A convolutional network as a classifier of scikit-learn.

    It takes images (N, C, H, W) or (N, H, W), or rows of numbers (N, features) as pipelines and tables have
    them, and works in ``Pipeline`` and ``GridSearchCV``. Training is as in ``cnn train``: in batches, with a
    clipped gradient and a learning rate that falls to 0. ::

        from cnn.sklearn import CNNClassifier
        from sklearn.datasets import load_digits
        from sklearn.model_selection import GridSearchCV

        X, y = load_digits(return_X_y=True)
        search = GridSearchCV(CNNClassifier(random_state=0), {"epochs": [5, 10], "batch_size": [16, 32]})
        search.fit(X, y)

    Parameters
    ----------
    model : str, Sequential or callable
        None: a small network that suits the shape of X, with up to three convolutions. Otherwise a name such
        as "lenet5", a network of one's own as in "mynet.py:make", a network, or a function of ``classes`` and
        ``input_shape`` that returns one. A network that is built already is fine-tuned: it keeps its weights
        and its preprocessing, and gets a new head if the number of classes differs.
    input_shape : tuple of int
        The images (C, H, W) that rows of X are. None: a row whose length is a square of at least 8 x 8 is a
        square grey image, every other row is an image of height 1.
    epochs, batch_size : int
        Passes over the training samples, and samples per step.
    optimizer : str or Optimizer
        A name as in ``cnn train``, such as "sgd" or "adamw", or an optimizer.
    learning_rate : float
        The peak learning rate, for an optimizer by name. None: its default.
    class_weight : dict or "balanced"
        The weight of each class, as in scikit-learn; it multiplies ``sample_weight``.
    normalize : bool
        Subtract the mean of the training samples from each channel and divide by their standard deviation.
    random_state : int, RandomState or None
        Decides the initial weights and the batches.
    device : str
        "auto", "cpu" or "cuda".
    verbose : int
        Above 0, training shows its progress.

    Attributes
    ----------
    classes_ : ndarray
        The classes, in the order of the columns of ``predict_proba``.
    n_features_in_ : int
        The features of a row, or the size of the first axis of an image.
    network_ : Sequential
        The trained network, which can be saved with ``network_.save(path)``.
    history_ : list of dict
        A dictionary for each epoch, as :func:`cnn.fit` returns it.
    """

    def __init__(
        self,
        model: Any = None,
        *,
        input_shape: tuple[int, int, int] | None = None,
        epochs: int = 20,
        batch_size: int = 32,
        optimizer: Any = "sgd",
        learning_rate: float | None = None,
        class_weight: Any = None,
        normalize: bool = True,
        random_state: Any = None,
        device: str = "auto",
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.input_shape = input_shape
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.class_weight = class_weight
        self.normalize = normalize
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "CNNClassifier":
        """Train a new network on the samples X and their classes y.

        ``sample_weight`` has a number for each sample, which multiplies its loss; samples of weight 0 are
        left out. Weights are divided by their mean, so they do not change the learning rate.
        """
        X, y = validate_data(self, X, y, allow_nd=True, dtype=np.float32)
        check_classification_targets(y)
        weights = None
        if sample_weight is not None or self.class_weight is not None:
            given = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
            if not given.any():
                raise ValueError("all sample weights are zero, so there is nothing to learn from")
            weights = as_weights(given, len(y))
            kept = weights > 0
            X, y, weights = X[kept], y[kept], weights[kept]
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class, {self.classes_[0]!r}: expected at least two classes")
        if self.class_weight is not None:
            weights = weights * compute_sample_weight(self.class_weight, y)
        if weights is not None:
            weights = None if (weights == weights[0]).all() else weights / weights.mean()
        data = Dataset(
            self._images(X), labels.astype(np.int64), [str(name) for name in self.classes_], weights
        )
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.network_, is_new = self._make_network(data, seed)
        callbacks: list[Callback] = [NaNGuard(), *([Progress()] if self.verbose else [])]
        self.history_ = fit(
            self.network_, data, optimizer=self._make_optimizer(len(y)), epochs=self.epochs,
            batch_size=self.batch_size, schedule=SCHEDULES[defaults.SCHEDULE](warmup=defaults.WARMUP),
            transforms=[ClipNorm(defaults.CLIP)], seed=seed, normalize=self.normalize and is_new,
            callbacks=callbacks,
        )  # fmt: skip
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probabilities of the classes: (N, classes)."""
        check_is_fitted(self)
        X = validate_data(self, X, allow_nd=True, dtype=np.float32, reset=False)
        return self.network_.predict(self._images(X))

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each sample: (N,)."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def _images(self, X: np.ndarray) -> np.ndarray:
        """X as images (N, C, H, W)."""
        if X.ndim > 2:
            if self.input_shape is None and looks_channels_last(X.shape):
                raise ValueError(f"X has the shape {X.shape}: {channels_last_advice(X.shape)}")
            images = X[:, None] if X.ndim == 3 else X
            if images.ndim != 4 or self.input_shape not in (None, images.shape[1:]):
                expected = (
                    "(N, C, H, W), (N, H, W) or (N, features)" if images.ndim != 4 else self.input_shape
                )
                raise ValueError(f"X has the shape {X.shape}, expected {expected}")
            return images
        features = X.shape[1]
        side = isqrt(features)
        if self.input_shape is not None:
            C, H, W = shape("input_shape", self.input_shape)
            if features != C * H * W:
                raise ValueError(f"X has rows of {features} features, expected {C * H * W} for {C}x{H}x{W}")
            return X.reshape(-1, C, H, W)
        is_square = side >= LEAST_SIDE and side * side == features
        return X.reshape(-1, 1, side, side) if is_square else X.reshape(-1, 1, 1, features)

    def _make_network(self, data: Dataset, seed: int) -> tuple[Network, bool]:
        """The network, built; and whether it has new weights."""
        classes = len(data.classes)
        network = _made(self.model, classes, data.shape)
        if network.built:
            is_same = network.output_shape == (classes,)
            return (network.copy() if is_same else replace_head(network, classes, seed)), False
        network.build(data.shape, backend=self.device, seed=seed)
        if network.output_shape != (classes,):
            raise ArgumentError(
                f"the output of the model is {network.output_shape}, but y has {classes} classes: give its "
                f"last layer {classes} outputs"
            )
        return network, True

    def _make_optimizer(self, samples: int) -> Optimizer:
        if isinstance(self.optimizer, Optimizer):
            return self.optimizer.fresh()
        if self.optimizer not in OPTIMIZERS:
            expected = f"expected an optimizer or one of {', '.join(OPTIMIZERS)}"
            raise ArgumentError(f"optimizer is {shown(self.optimizer)}, {expected}")
        kind: Any = OPTIMIZERS[self.optimizer]
        if kind is SGD:
            usual = defaults.learning_rate(self.batch_size, samples)
            return SGD(
                usual if self.learning_rate is None else self.learning_rate, momentum=defaults.MOMENTUM
            )
        arguments = {} if self.learning_rate is None else {"learning_rate": self.learning_rate}
        return kind(**arguments)


def _made(model: Any, classes: int, input_shape: tuple[int, ...]) -> Network:
    """The network of ``model``, which is one of the kinds that CNNClassifier takes."""
    if model is None:
        return small(classes, input_shape)
    if isinstance(model, str):
        return models.make(model, classes, input_shape)
    if isinstance(model, Network):
        return model if model.built else model.fresh()
    if callable(model):
        made = model(classes=classes, input_shape=input_shape)
        if isinstance(made, Network):
            return made
        model = made
    raise ArgumentError(
        f"model is {shown(model)}, expected a name such as 'lenet5', a network such as cnn.Sequential(...), "
        "or a function of classes and input_shape that returns one"
    )


def small(classes: int, input_shape: tuple[int, ...]) -> Network:
    """The default network: up to three convolutions, as many as images of this shape allow."""
    least, layers = min(input_shape[1:]), list[Layer]()
    for width in WIDTHS:
        if least < 4:
            break
        layers += [Conv2D(width, 3, padding=1, bias=False), BatchNorm2D(), ReLU(), MaxPool2D(2)]
        least //= 2
    return Network(*layers, Flatten(), Dense(64), ReLU(), Dense(classes))
