"""Sequential: building, names, flat vectors, states, copies, predictions."""

import copy
import pickle
import threading

import numpy as np
import pytest

import backends
import cnn
from cnn.layers.layer import Layer


def small(seed=0, dtype="float32", device="cpu"):
    network = cnn.Sequential(cnn.Conv2D(3, 3), cnn.ReLU(), cnn.MaxPool2D(2), cnn.Flatten(), cnn.Dense(4))
    network.build((1, 8, 8), backend=device, seed=seed, dtype=dtype)
    return network


IMAGES = np.random.default_rng(0).integers(0, 256, (11, 1, 8, 8), dtype=np.uint8)


def test_parameters_have_pytorchs_names_and_shapes():
    shapes = {name: parameter.shape for name, parameter in small().parameters.items()}
    assert shapes == {"0.weight": (3, 1, 3, 3), "0.bias": (3,), "4.weight": (4, 27), "4.bias": (4,)}


def test_a_network_in_a_network_adds_its_place_to_the_names():
    network = cnn.Sequential(cnn.Flatten(), cnn.Sequential(cnn.Dense(3), cnn.Dense(2)))
    network.build((2, 2, 2), backend="cpu")
    assert list(network.parameters) == ["1.0.weight", "1.0.bias", "1.1.weight", "1.1.bias"]
    assert [layer.label for layer in network.walk()] == ["0 Flatten", "1.0 Dense", "1.1 Dense"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parameters_are_views_of_one_vector_each_on_a_256_byte_boundary(dtype):
    network = small(dtype=dtype)
    for vector, field in ((network.flat.value, "value"), (network.flat.grad, "grad")):
        vector[:] = 0
        for parameter in network.parameters.values():
            view = getattr(parameter, field)
            assert np.shares_memory(view, vector)
            assert view.ctypes.data % 256 == 0
            view += 1
        assert vector.sum() == sum(parameter.size for parameter in network.parameters.values())


def test_padding_between_parameters_stays_zero_in_training():
    network = small()
    data = cnn.data.Dataset(IMAGES, np.arange(11) % 4)
    cnn.fit(network, data, optimizer=cnn.AdamW(0.01), epochs=2, batch_size=4, callbacks=[])
    inside = sum(np.count_nonzero(parameter.value) for parameter in network.parameters.values())
    assert np.count_nonzero(network.flat.value) == inside


def test_the_seed_decides_the_first_weights():
    first, same, other = small(3), small(3), small(4)
    np.testing.assert_array_equal(first.flat.value, same.flat.value)
    assert not np.array_equal(first.flat.value, other.flat.value)


def test_initial_weights_have_the_variance_of_their_fan_in():
    network = cnn.Sequential(
        cnn.Conv2D(64, 5, initializer="he_normal"), cnn.Flatten(), cnn.Dense(50, initializer="lecun_uniform")
    )
    network.build((8, 12, 12), backend="cpu")
    weight = network.parameters["0.weight"].value
    assert np.var(weight) == pytest.approx(2 / (8 * 5 * 5), rel=0.05)  # kernel area counted
    weight = network.parameters["2.weight"].value
    assert np.var(weight) == pytest.approx(1 / (64 * 8 * 8), rel=0.05)
    assert np.abs(weight).max() <= np.sqrt(3 / (64 * 8 * 8)) * (1 + 1e-6)
    assert not network.parameters["2.bias"].value.any()


def test_a_state_goes_out_and_in():
    network, other = small(1), small(2)
    other.load_state_dict(network.state_dict())
    np.testing.assert_array_equal(other.predict(IMAGES), network.predict(IMAGES))


def test_a_state_is_a_copy():
    network = small()
    state = network.state_dict()
    state["4.bias"][:] = 9
    assert not network.parameters["4.bias"].value.any()


def test_a_state_is_cast_to_the_networks_dtype():
    network = small(dtype="float32")
    network.load_state_dict({name: value.astype(np.float64) for name, value in network.state_dict().items()})
    assert {parameter.value.dtype for parameter in network.parameters.values()} == {np.dtype("float32")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("4.bias"), r"lack 4\.bias, which this network has with shape \(4,\)"),
        (
            lambda state: state.update({"9.weight": np.zeros(3)}),
            r"have 9\.weight, which this network does not",
        ),
        (lambda state: state.update({"4.bias": np.zeros(5)}), r"4\.bias with shape \(5,\).* shape \(4,\)"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_whole(change, message):
    network = small()
    before = network.flat.value.copy()
    state = {name: value + 1 for name, value in network.state_dict().items()}
    change(state)
    with pytest.raises(cnn.CheckpointError, match=message):
        network.load_state_dict(state)
    np.testing.assert_array_equal(network.flat.value, before)


def test_a_copy_has_the_same_weights_and_its_own_memory():
    network = small()
    twin = network.copy()
    np.testing.assert_array_equal(twin.predict(IMAGES), network.predict(IMAGES))
    twin.flat.value[:] = 0
    assert network.flat.value.any()


def test_copies_work_side_by_side_in_threads():
    network = small()
    expected = network.predict(IMAGES)
    wrong = []

    def work(mine):
        for _ in range(30):
            if not np.array_equal(mine.predict(IMAGES), expected):
                wrong.append(1)

    threads = [threading.Thread(target=work, args=(network.copy(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_predictions_are_probabilities_image_by_image():
    probabilities = small().predict(IMAGES)
    assert probabilities.shape == (11, 4)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    one_by_one = np.concatenate([small().predict(image[None]) for image in IMAGES])
    np.testing.assert_allclose(one_by_one, probabilities, rtol=1e-5)


def test_bytes_are_scaled_and_floats_taken_as_they_are():
    network = small()
    np.testing.assert_allclose(network.predict(IMAGES / 255), network.predict(IMAGES), rtol=1e-5)
    assert not np.allclose(network.predict(IMAGES.astype(float)), network.predict(IMAGES))


def test_integers_count_as_bytes():
    network = small()
    np.testing.assert_array_equal(network.predict(IMAGES.astype(np.int64)), network.predict(IMAGES))


def test_images_that_are_none_are_refused():
    for images in ([["a"]], np.zeros((0, 1, 8, 8)), np.full((1, 8, 8), np.nan), np.full((1, 8, 8), 300)):
        with pytest.raises(cnn.DataError):
            small().predict(images)


def test_a_softmax_at_the_end_is_not_applied_twice():
    logits = small()
    ended = cnn.Sequential(*logits.fresh().layers, cnn.Softmax())
    ended.build((1, 8, 8), backend="cpu")
    ended.load_state_dict(logits.state_dict())
    np.testing.assert_allclose(ended.predict(IMAGES), logits.predict(IMAGES), rtol=1e-5)


def test_inference_needs_two_arrays_however_deep_the_network():
    network = cnn.Sequential(*(cnn.Conv2D(2, 3, padding=1) for _ in range(6)))
    network.build((2, 16, 16), backend="cpu")
    outputs = set()
    x = np.ones((2, 16, 16, 4), dtype=np.float32)
    for layer in network.layers:
        x = layer.forward(x)
        outputs.add(x.ctypes.data)
    assert len(outputs) == 2


def test_layers_before_the_first_parameters_are_spared_backward():
    class Unwilling(cnn.ReLU):
        def backward(self, dy, input_grad=True):
            raise AssertionError("nobody needs this gradient")

    network = cnn.Sequential(Unwilling(), cnn.Dense(2))
    network.build((3,), backend="cpu")
    network.forward(np.ones((3, 2), dtype=np.float32), training=True)
    assert network.backward(np.ones((2, 2), dtype=np.float32), input_grad=False) is None


def test_a_layer_of_ones_own_needs_three_methods():
    class Scale(Layer):
        def build(self, input_shape, context):
            super().build(input_shape, context)
            self.scale = self.parameter("scale", (1,), "he_normal")
            return input_shape

        def forward(self, x, training=False):
            y = self.output(x, training)
            self.backend.xp.multiply(x, self.scale.value, out=y)
            self.x = x
            return y

        def backward(self, dy, input_grad=True):
            self.backend.xp.sum(dy * self.x, out=self.scale.grad.reshape(()))
            dx = self.input_gradient(dy)
            return self.backend.xp.multiply(dy, self.scale.value, out=dx)

    network = cnn.Sequential(cnn.Dense(4), Scale(), cnn.Dense(2))
    network.build((3,), backend="cpu", dtype="float64")
    assert "1.scale" in network.parameters
    assert all(check.error < 1e-7 for check in cnn.check_gradients(network))


class TestRefusals:
    """One sentence that names the layer, both shapes and what would fit."""

    @pytest.mark.parametrize(
        ("layers", "shape", "message"),
        [
            ([cnn.ReLU(), cnn.Conv2D(2, 5)], (1, 3, 4),
             r"layer 1 Conv2D: a 5x5 kernel does not fit a 3x4 input; the largest that fits is 3x4"),
            ([cnn.Conv2D(2, 3, dilation=3, padding=1)], (1, 4, 4),
             r"a 7x7 kernel \(dilation included\) does not fit a 6x6 input \(padding included\)"),
            ([cnn.MaxPool2D(4)], (1, 3, 3), r"layer 0 MaxPool2D: a 4x4 kernel does not fit a 3x3 input"),
            ([cnn.MaxPool2D(2, 1, padding=1, dilation=2)], (1, 1, 4),
             r"layer 0 MaxPool2D: on a 1x4 input a window would see padding alone; take less dilation"),
            ([cnn.Conv2D(4, 3, groups=2)], (3, 8, 8), r"input of 3 channels cannot be cut into 2 groups"),
            ([cnn.Conv2D(4, 3)], (9,), r"layer 0 Conv2D: the input is \(9,\), expected an image"),
            ([cnn.Dense(4)], (1, 8, 8), r"layer 0 Dense: .*expected a vector .*Flatten"),
            ([cnn.Reshape((5, 5))], (1, 4, 4), r"16 numbers and cannot take the shape \(5, 5\)"),
        ],
    )  # fmt: skip
    def test_shapes(self, layers, shape, message):
        with pytest.raises(cnn.ShapeError, match=message):
            cnn.Sequential(*layers).build(shape, backend="cpu")

    def test_a_network_that_did_not_fit_can_be_built_on_another_shape(self):
        network = cnn.models.lenet5()
        with pytest.raises(cnn.ShapeError):
            network.build((1, 8, 8), backend="cpu")
        assert network.build((1, 28, 28), backend="cpu") == (10,)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: cnn.Conv2D(0, 3), "Conv2D: out_channels is 0, expected a whole number of at least 1"),
            (lambda: cnn.Conv2D(4, 2.5), "kernel_size is 2.5"),
            (lambda: cnn.Conv2D(4, (1, 2, 3)), r"kernel_size is \(1, 2, 3\), expected one number or two"),
            (lambda: cnn.Conv2D(4, 3, stride=0), "stride is 0"),
            (lambda: cnn.Conv2D(4, 3, padding=-1), "padding is -1, expected a whole number of at least 0"),
            (lambda: cnn.Conv2D(4, 3, groups=3), "out_channels is 4, expected a multiple of groups, 3"),
            (lambda: cnn.MaxPool2D(2, padding=2), "MaxPool2D: padding is 2, expected at most half"),
            (lambda: cnn.Conv2D(4, 3, bias=False, untied_bias=True), "untied_bias=True with bias=False"),
            (lambda: cnn.Dense(-1), "Dense: out_features is -1"),
            (lambda: cnn.Sequential(cnn.Dense(3), "relu"), "item 1 is 'relu', expected a layer"),
            (lambda: small(dtype="int8"), "dtype is 'int8', expected float32, float64, bfloat16 or float16"),
            (lambda: cnn.Sequential(cnn.Dense(4)).build((0,)), "input_shape is 0, expected a whole number"),
            (lambda: cnn.Sequential(cnn.Dense(4)).build(784), "input_shape is 784, expected a shape such as"),
            (lambda: cnn.Sequential(cnn.Dense(4)).build((1,), backend=3), "backend is 3, expected a device"),
            (lambda: cnn.Reshape(3), "Reshape: shape is 3, expected a shape such as"),
            (lambda: small(seed=-1), "seed is -1, expected a whole number of at least 0"),
            (lambda: small(seed=0.5), "seed is 0.5"),
            (lambda: small().predict(IMAGES, batch_size=0), "batch_size is 0"),
            (lambda: cnn.Sequential(cnn.Dense(3, initializer="no")).build((2,), backend="cpu"),
             "unknown initializer 'no': expected one of he_normal"),
        ],
    )  # fmt: skip
    def test_arguments(self, make, message):
        with pytest.raises(cnn.ArgumentError, match=message):
            make()

    def test_one_layer_object_in_two_places(self):
        shared = cnn.ReLU()
        with pytest.raises(cnn.ArgumentError, match="layer 0 ReLU is built already"):
            cnn.Sequential(shared, shared).build((3,), backend="cpu")

    def test_a_network_that_is_not_built(self):
        network = cnn.models.lenet5()
        calls = (
            lambda: network.forward(IMAGES),
            lambda: network.backward(IMAGES),
            lambda: network.predict(IMAGES),
        )
        for use in (network.state_dict, network.copy, network.summary, *calls):
            with pytest.raises(cnn.ArgumentError, match="not built yet"):
                use()

    def test_an_input_of_another_shape(self):
        with pytest.raises(
            cnn.ShapeError, match=r"the input is \(1, 7, 8, 2\), the network expects \(1, 8, 8, N\)"
        ):
            small().forward(np.zeros((1, 7, 8, 2), dtype=np.float32))

    def test_a_gradient_of_another_shape(self):
        network = small()
        network.forward(np.zeros((1, 8, 8, 2), dtype=np.float32), training=True)
        with pytest.raises(cnn.ShapeError, match=r"the gradient is \(2, 4\), the network expects \(4, N\)"):
            network.backward(np.zeros((2, 4), dtype=np.float32))

    def test_an_input_of_another_device(self):
        with pytest.raises(cnn.ArgumentError, match=r"the input is a builtins.list, the network is on cpu"):
            small().forward([1, 2])

    def test_images_of_another_shape(self):
        with pytest.raises(
            cnn.ShapeError, match=r"the images are \(2, 3, 8, 8\), the network was built for \(N, 1, 8, 8\)"
        ):
            small().predict(np.zeros((2, 3, 8, 8)))


def test_input_of_another_dtype_is_cast_at_the_border():
    network = small()
    x = np.random.default_rng(0).standard_normal((1, 8, 8, 2))
    assert network.forward(x).dtype == np.float32


def test_the_summary_counts_what_can_be_counted_by_hand(capsys):
    network = cnn.models.lenet5()
    network.build((1, 28, 28), backend="cpu")
    network.summary()
    text = capsys.readouterr().out
    # weights: 6*25+6, 16*150+16, 120*400+120, 84*120+84, 10*84+10
    assert "61,706" in text
    # multiply-adds: 6*25*784, 16*150*100, 400*120, 120*84, 84*10
    assert "416,520" in text
    for column in ("layer", "output shape", "parameters", "multiply-adds", "memory"):
        assert column in text


def test_winograds_algorithm_can_be_turned_off():
    pytest.importorskip("numba")
    x = np.random.default_rng(0).standard_normal((32, 12, 12, 32), dtype=np.float32)
    networks = {}
    for name, how in {"usual": {}, "off": {"winograd": False}, "exact": {"dtype": "float64"}}.items():
        networks[name] = cnn.Sequential(cnn.Conv2D(32, 3, padding=1))
        networks[name].build((32, 12, 12), backend="cpu", **how)
    y = {name: network.forward(x).copy() for name, network in networks.items()}
    largest = np.abs(y["exact"]).max()
    error = {name: np.abs(y[name] - y["exact"]).max() / largest for name in ("usual", "off")}
    assert 4 * error["off"] < error["usual"] < 5e-5
    for twin in (networks["off"].copy(), pickle.loads(pickle.dumps(networks["off"]))):
        np.testing.assert_array_equal(twin.forward(x), y["off"])


def test_every_backend_gives_the_same_first_weights(backend):
    expected = small(5)
    network = small(5, device=backend)
    np.testing.assert_array_equal(backend.to_host(network.flat.value), expected.flat.value)


def test_a_device_name_will_do():
    assert small(device="cpu").backend is backends.get("cpu")


class TestBackwardIsChecked:
    """What does not belong to the latest training forward is refused, never read past its end."""

    def test_a_batch_of_another_size(self):
        network = small()
        network.forward(np.zeros((1, 8, 8, 4), dtype=np.float32), training=True)
        network.forward(np.zeros((1, 8, 8, 9), dtype=np.float32))  # not a training forward
        with pytest.raises(cnn.ShapeError, match="batch of 9, the latest training forward had 4"):
            network.backward(np.zeros((4, 9), dtype=np.float32))

    def test_no_training_forward_at_all(self):
        with pytest.raises(cnn.ShapeError, match="the latest training forward had 0"):
            small().backward(np.zeros((4, 2), dtype=np.float32))


class Residual(cnn.Sequential):
    """y = x + inner(x); both branches' arrays outlive the buffers that layers take turns with."""

    def forward(self, x, training=False):
        kept = self.buffer("x", x.shape)
        kept[...] = x
        y = self.buffer("sum", x.shape)
        return self.backend.xp.add(kept, super().forward(kept, training), out=y)

    def backward(self, dy, input_grad=True):
        kept = self.buffer("dy", dy.shape)
        kept[...] = dy
        dx = self.buffer("dx", dy.shape)
        return self.backend.xp.add(kept, super().backward(kept, True), out=dx)


def residual_network(dtype="float64"):
    network = cnn.Sequential(
        cnn.Conv2D(3, 3, padding=1),
        Residual(cnn.Conv2D(3, 3, padding=1), cnn.ReLU(), cnn.Conv2D(3, 3, padding=1)),
        cnn.Flatten(),
        cnn.Dense(2),
    )
    network.build((1, 6, 6), backend="cpu", dtype=dtype)
    return network


def test_a_container_of_ones_own_with_branches():
    network = residual_network()
    assert all(check.passed for check in cnn.check_gradients(network))
    x = np.random.default_rng(0).standard_normal((1, 6, 6, 3))
    np.testing.assert_array_equal(network.forward(x), network.forward(x, training=True))


def test_a_container_of_ones_own_is_copied_as_what_it_is(tmp_path):
    network = residual_network()
    images = np.random.default_rng(0).standard_normal((3, 1, 6, 6))
    for twin in (network.copy(), copy.deepcopy(network)):
        np.testing.assert_array_equal(twin.predict(images), network.predict(images))
    network.save(tmp_path / "m.safetensors")
    with pytest.raises(
        cnn.CheckpointError, match="layer 1 Residual is of a class that this library does not"
    ):
        cnn.load(tmp_path / "m.safetensors")


def test_a_nested_network_that_did_not_fit_can_be_built_on_another_shape():
    network = cnn.Sequential(cnn.Sequential(cnn.Conv2D(4, 3)), cnn.Flatten(), cnn.Dense(3))
    with pytest.raises(cnn.ShapeError):
        network.build((1, 2, 2), backend="cpu")
    assert network.build((1, 8, 8), backend="cpu") == (3,)


def test_a_state_of_words_changes_nothing():
    network = small()
    before = network.flat.value.copy()
    state = network.state_dict() | {"4.bias": np.array(["a", "b", "c", "d"])}
    with pytest.raises(cnn.CheckpointError, match=r"4\.bias as <U1, expected real numbers"):
        network.load_state_dict(state)
    np.testing.assert_array_equal(network.flat.value, before)


def test_numpys_own_types_do_as_arguments(tmp_path):
    network = cnn.Sequential(cnn.Flatten(), cnn.Dense(np.int64(3), bias=np.True_))
    network.build(np.array([1, 4, 4]), backend="cpu", dtype=np.dtype("float64"))
    network.save(tmp_path / "m.safetensors")
    assert cnn.load(tmp_path / "m.safetensors", device="cpu").dtype == "float64"


@pytest.mark.parametrize(
    "ask",
    [
        lambda net: net.flat,
        lambda net: net.state,
        lambda net: net.cut(np.zeros(9)),
        lambda net: net.summary(),
        lambda net: cnn.SGD(0.1).build(net),
    ],
)
def test_what_only_the_outermost_network_has(ask):
    inner = cnn.Sequential(cnn.Dense(3), cnn.Tanh())
    with pytest.raises(cnn.ArgumentError, match="not built yet"):
        ask(inner)
    cnn.Sequential(inner, cnn.Dense(2)).build((4,), backend="cpu")
    with pytest.raises(cnn.ArgumentError, match="layer 0 Sequential is part of another network"):
        ask(inner)


@pytest.mark.parametrize("ask", [lambda net: net.description, lambda net: net.count_update()])
def test_a_network_without_a_place_says_so(ask):
    with pytest.raises(cnn.ArgumentError, match="not built yet"):
        ask(cnn.Sequential(cnn.Dense(3)))


def test_a_vector_of_another_network():
    net = cnn.Sequential(cnn.Dense(3))
    net.build((4,), backend="cpu")
    with pytest.raises(cnn.ShapeError, match=r"the vector is \(9,\), expected \(\d+,\) as net\.flat"):
        net.cut(np.zeros(9))
