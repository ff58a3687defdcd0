"""Pooling, padding and convolution: what their arguments mean, and which of them are refused."""

import numpy as np
import pytest

import cnn


def build(layer, shape):
    network = cnn.Sequential(layer)
    network.build(shape, backend="cpu", dtype="float64")
    return network


class TestPadding:
    def test_the_order_is_pytorchs(self):
        y = build(cnn.ZeroPad2D((1, 2, 0, 3)), (1, 1, 1)).forward(np.ones((1, 1, 1, 1)))
        assert y[0, :, :, 0].tolist() == [[0, 1, 0, 0], *[[0, 0, 0, 0]] * 3]

    def test_reflection_does_not_repeat_the_edge_and_replication_does(self):
        x = np.arange(3.0).reshape(1, 1, 3, 1)
        reflected = build(cnn.ReflectionPad2D((2, 1, 0, 0)), (1, 1, 3)).forward(x)
        replicated = build(cnn.ReplicationPad2D((2, 1, 0, 0)), (1, 1, 3)).forward(x)
        assert reflected.ravel().tolist() == [2, 1, 0, 1, 2, 1]
        assert replicated.ravel().tolist() == [0, 0, 0, 1, 2, 2]

    def test_same_puts_one_more_at_the_end(self):
        layer = cnn.Conv2D(1, (2, 4), padding="same")
        assert build(layer, (1, 5, 6)).output_shape == (1, 5, 6)
        assert (layer.padding, layer.window.padding, layer.window.end) == ("same", (0, 1), (1, 2))

    def test_a_convolution_with_reflected_padding_is_one_after_a_reflection(self):
        x = np.random.default_rng(0).standard_normal((2, 5, 4, 3))
        alone = build(cnn.Conv2D(3, 3, padding=((1, 2), (0, 3)), padding_mode="reflect"), (2, 5, 4))
        network = cnn.Sequential(cnn.ReflectionPad2D((0, 3, 1, 2)), cnn.Conv2D(3, 3))
        network.build((2, 5, 4), backend="cpu", dtype="float64")
        network.load_state_dict({f"1.{name[2:]}": array for name, array in alone.state_dict().items()})
        np.testing.assert_array_equal(alone.forward(x), network.forward(x))

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (
                lambda: cnn.Conv2D(3, 3, 2, "same"),
                r"Conv2D: padding is 'same' with a stride of \(2, 2\), expected a stride of 1: give",
            ),
            (lambda: cnn.Conv2D(3, 3, 1, "valid"), r"Conv2D: padding is 'valid', expected .* or 'same'"),
            (
                lambda: cnn.Conv2D(3, 3, 1, (1, 2, 3)),
                r"Conv2D: padding is \(1, 2, 3\), expected one number or",
            ),
            (
                lambda: cnn.Conv2D(3, 3, 1, ((1, 2), (3, -1))),
                r"Conv2D: padding is -1, expected a whole number",
            ),
            (lambda: cnn.Conv2D(3, 3, padding_mode="reflct"), r"padding_mode is 'reflct', .*reflect"),
            (
                lambda: cnn.ZeroPad2D((1, 2)),
                r"ZeroPad2D: padding is \(1, 2\), .*four: \(left, right, top, bottom\)",
            ),
            (
                lambda: cnn.ReflectionPad2D(-1),
                r"ReflectionPad2D: padding is -1, expected a whole number of at",
            ),
        ],
    )
    def test_other_arguments_are_refused_by_name(self, make, message):
        with pytest.raises(cnn.ArgumentError, match=message):
            make()

    @pytest.mark.parametrize(
        "make", [lambda: cnn.ReflectionPad2D(3), lambda: cnn.Conv2D(1, 3, 1, 3, padding_mode="reflect")]
    )
    def test_an_image_that_is_too_small_to_be_reflected_is_refused(self, make):
        with pytest.raises(cnn.ShapeError, match=r"^layer 0 .*the padding .*expected less than .* is 3x5$"):
            build(make(), (1, 3, 5))


@pytest.mark.parametrize(
    "make",
    [
        lambda: cnn.ZeroPad2D((0, 0, 2**31 - 1, 0)),
        lambda: cnn.Conv2D(1, 3, padding=((2**31 - 1, 0), (0, 0)), padding_mode="replicate"),
        lambda: cnn.AdaptiveAvgPool2D((2**31 - 1, 1)),
        lambda: cnn.Upsample2D((9e5, 1)),
    ],
)
def test_an_image_of_absurd_size_is_refused_at_once(make):
    with pytest.raises(cnn.ShapeError, match=r"^layer 0 .*the output is .*expected at most 1,048,576 rows"):
        build(make(), (1, 3, 5))


class TestEnlarging:
    def test_nearest_repeats_numbers_and_bilinear_weights_them(self):
        x = np.array([0.0, 4.0]).reshape(1, 1, 2, 1)
        nearest, bilinear, corners = (
            build(cnn.Upsample2D((1, 2), *how), (1, 1, 2)).forward(x).ravel().tolist()
            for how in [(), ("bilinear",), ("bilinear", True)]
        )
        assert nearest == [0, 0, 4, 4]
        assert bilinear == [0, 1, 3, 4]
        np.testing.assert_allclose(corners, [0, 4 / 3, 8 / 3, 4])

    def test_a_transposed_convolution_adds_the_kernel_for_each_number(self):
        network = build(cnn.ConvTranspose2D(1, (1, 2), (1, 2), output_padding=(0, 1), bias=False), (1, 1, 2))
        network.load_state_dict({"0.weight": np.array([[[[1.0, 10.0]]]])})
        y = network.forward(np.array([2.0, 3.0]).reshape(1, 1, 2, 1))
        assert y.ravel().tolist() == [2, 20, 3, 30, 0]

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: cnn.Upsample2D(0), r"Upsample2D: scale_factor is 0, expected a number of at least"),
            (
                lambda: cnn.Upsample2D((2, 2, 2)),
                r"Upsample2D: scale_factor is \(2, 2, 2\), expected one number or",
            ),
            (
                lambda: cnn.Upsample2D(2, "cubic"),
                r"Upsample2D: mode is 'cubic', expected nearest or bilinear",
            ),
            (
                lambda: cnn.Upsample2D(2, align_corners=True),
                r"align_corners=True with mode='nearest', expected",
            ),
            (
                lambda: cnn.ConvTranspose2D(3, 3, 2, output_padding=2),
                r"ConvTranspose2D: output_padding is 2, expected less than the stride \(2, 2\) or",
            ),
            (
                lambda: cnn.ConvTranspose2D(3, 3, groups=2),
                r"out_channels is 3, expected a multiple of groups, 2",
            ),
        ],
    )
    def test_other_arguments_are_refused_by_name(self, make, message):
        with pytest.raises(cnn.ArgumentError, match=message):
            make()

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (
                lambda: cnn.Upsample2D(0.2),
                r"layer 0 Upsample2D: an input of 3x5 times .* is 0x1; choose a larger",
            ),
            (
                lambda: cnn.ConvTranspose2D(2, 1, 1, 2),
                r"output of a 3x5 input would be -1x1; take less padding",
            ),
            (
                lambda: cnn.ConvTranspose2D(2, 1, groups=2),
                r"an input of 1 channels cannot be cut into 2 groups",
            ),
        ],
    )
    def test_an_input_that_does_not_fit_is_refused(self, make, message):
        with pytest.raises(cnn.ShapeError, match=message):
            build(make(), (1, 3, 5))


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
