"""Pooling, padding and convolution: what their arguments mean, and which of them are refused."""

import numpy as np
import pytest

import cnn


def build(layer, shape):
    network = cnn.Sequential(layer)
    network.build(shape, backend="cpu", dtype="float64")
    return network


class TestPooling:
    def test_dense_follows_global_pooling(self):
        network = cnn.Sequential(
            cnn.Conv2D(8, 3), cnn.ReLU(), cnn.GlobalAvgPool2D(), cnn.Dropout(0.2), cnn.Dense(10)
        )
        network.build((3, 9, 9), backend="cpu")
        assert network.output_shape == (10,)

    def test_rounded_up_the_last_window_sees_what_is_left(self):
        x = np.arange(5.0).reshape(1, 1, 5, 1)
        largest = build(cnn.MaxPool2D((1, 2), ceil_mode=True), (1, 1, 5)).forward(x)
        means = build(cnn.AvgPool2D((1, 2), ceil_mode=True), (1, 1, 5)).forward(x)
        assert largest.ravel().tolist() == [1, 3, 4]
        assert means.ravel().tolist() == [0.5, 2.5, 4]

    def test_a_window_that_would_begin_beyond_the_input_is_left_out(self):
        pool = cnn.MaxPool2D(1, stride=2, ceil_mode=True)
        assert build(pool, (1, 4, 4)).output_shape == (1, 2, 2)
        assert build(cnn.MaxPool2D(3, 3, 1, ceil_mode=True), (1, 4, 5)).output_shape == (1, 2, 2)

    def test_padding_counts_as_zeros_or_not_at_all(self):
        x = np.ones((1, 2, 2, 1))
        counted = build(cnn.AvgPool2D(2, 1, 1), (1, 2, 2)).forward(x)
        left_out = build(cnn.AvgPool2D(2, 1, 1, count_include_pad=False), (1, 2, 2)).forward(x)
        assert counted.ravel().tolist() == [0.25, 0.5, 0.25, 0.5, 1, 0.5, 0.25, 0.5, 0.25]
        assert (left_out == 1).all()

    def test_another_divisor(self):
        x = np.ones((1, 2, 2, 1))
        assert build(cnn.AvgPool2D(2, divisor_override=1), (1, 2, 2)).forward(x).item() == 4

    @pytest.mark.parametrize(
        "make",
        [
            cnn.GlobalAvgPool2D,
            cnn.GlobalMaxPool2D,
            lambda: cnn.AdaptiveAvgPool2D(2),
            lambda: cnn.AvgPool2D(2),
            lambda: cnn.MaxPool2D(2, ceil_mode=True),
        ],
    )
    def test_a_sample_that_is_no_image_is_refused(self, make):
        with pytest.raises(
            cnn.ShapeError,
            match=r"^layer 0 \w+: the input is \(7,\), expected an image .*put a Reshape before",
        ):
            build(make(), (7,))

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (
                lambda: cnn.AdaptiveAvgPool2D(0),
                r"AdaptiveAvgPool2D: output_size is 0, expected a whole number",
            ),
            (lambda: cnn.MaxPool2D(2, ceil_mode=1), r"MaxPool2D: ceil_mode is 1, expected True or False"),
            (
                lambda: cnn.AvgPool2D(2, divisor_override=0),
                r"AvgPool2D: divisor_override is 0, expected a whole",
            ),
        ],
    )
    def test_other_arguments_are_refused_by_name(self, make, message):
        with pytest.raises(cnn.ArgumentError, match=message):
            make()
