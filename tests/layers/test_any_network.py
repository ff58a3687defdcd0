"""Layers of any kind with any arguments, one after the other in any order: they work, or say why not."""

import json

import numpy as np
import pytest

pytest.importorskip("hypothesis")
from helpers.any_networks import KINDS, SHAPES, layer_calls, networks, output_of
from helpers.any_values import ODD, PLAIN_ODD, attempt, examples
from hypothesis import assume, given
from hypothesis import strategies as st

import backends
import cnn
from cnn.layers import initializers
from cnn.layers.description import describe, rebuild

DEVICES = st.sampled_from(["auto", "portable", "signal"]).map(lambda kernels: backends.get("cpu", kernels))
SEEDS = st.integers(0, 2**32)


DTYPES = st.sampled_from(["float32", "float64"])


@st.composite
def built_networks(draw):
    network, input_shape = draw(networks())
    assume(output_of(network, input_shape))
    network.build(
        input_shape, backend=draw(DEVICES), seed=draw(SEEDS), dtype=draw(DTYPES), fuse=draw(st.booleans())
    )
    return network


def batch_for(network, seed=0):
    random = np.random.default_rng(seed)
    return random.standard_normal((*network.input_shape, 3)).astype(network.dtype)


def is_described_by_data(network):
    return not any(type(layer) is cnn.Activation for layer in network.walk())


class TestConstructors:
    def test_every_kind_of_layer_is_tried(self):
        assert {cnn.Conv2D, cnn.MaxPool2D, cnn.AvgPool2D, cnn.Dense, cnn.ReLU, cnn.Reshape} <= set(KINDS)

    @examples(400)
    @given(layer_calls(ODD))
    def test_arguments_are_taken_or_the_one_that_is_refused_is_named(self, call):
        layer, refusal = attempt(call.make)
        if refusal:
            assert call.function.__name__ in str(refusal)
        elif type(layer) is not cnn.Activation:
            assert repr(rebuild(json.loads(json.dumps(describe(layer))))) == repr(layer)

    @pytest.mark.parametrize("count", [1, np.int64(2), np.uint8(3), np.array(4), 2**31 - 1])
    def test_a_size_is_any_whole_number_from_1(self, count):
        assert type(cnn.Dense(count).out_features) is int
        assert cnn.MaxPool2D([count, 1]).kernel_size == (int(count), 1)

    @pytest.mark.parametrize("count", [0, -1, True, np.True_, None, 2.0, "2", 2**31, [[2]], (2, 2, 2)])
    def test_anything_else_is_no_size(self, count):
        for make in (cnn.Dense, cnn.MaxPool2D, lambda count: cnn.Conv2D(1, 1, stride=count)):
            assert isinstance(attempt(make, count)[1], cnn.ArgumentError)

    @examples(100)
    @given(layer_calls())
    def test_documented_arguments_are_refused_for_one_another_alone(self, call):
        _, refusal = attempt(call.make)
        contradictions = (
            "multiple of groups", "untied_bias=True with bias=False", "half of the kernel",
            "'same' with a stride", "less than the stride", "align_corners=True with mode='nearest'",
        )  # fmt: skip
        assert refusal is None or any(words in str(refusal) for words in contradictions)

    @examples(60)
    @given(ODD)
    def test_sequential_takes_layers_alone(self, item):
        with pytest.raises(cnn.ArgumentError, match="expected a layer"):
            cnn.Sequential(cnn.ReLU(), item)

    @examples(60)
    @given(ODD)
    def test_initializers_and_models_go_by_their_names(self, name):
        for get in (initializers.get, lambda name: cnn.models.get(name, 2)):
            _, refusal = attempt(get, name)
            assert str(refusal).startswith("unknown ")

    @examples(60)
    @given(st.sampled_from(sorted(cnn.models.MODELS)), ODD)
    def test_a_model_is_for_a_number_of_classes(self, name, classes):
        network, refusal = attempt(cnn.models.get, name, classes)
        if not refusal:
            sizes = [layer.out_features for layer in network.layers if isinstance(layer, cnn.Dense)]
            assert sizes[-1] == int(classes)


class TestBuild:
    @examples(80)
    @given(networks(), DEVICES, SEEDS, st.booleans())
    def test_shapes_are_pytorchs_and_gradients_right(self, given_network, device, seed, fuse):
        network, input_shape = given_network
        expected = output_of(network, input_shape)
        if expected is None:
            _, refusal = attempt(network.build, input_shape, backend=device)
            assert isinstance(refusal, cnn.ShapeError)
            assert not network.built
            return
        assert network.build(input_shape, backend=device, seed=seed, dtype="float64", fuse=fuse) == expected
        assert network.forward(batch_for(network)).shape == (*expected, 3)
        for check in cnn.check_gradients(network, entries=5, seed=seed):
            assert check.passed, check

    @examples(150)
    @given(SHAPES, st.lists(layer_calls(ODD), max_size=3), ODD)
    def test_a_refusal_leaves_nothing_built(self, input_shape, calls, shape):
        attempts = [attempt(call.make) for call in calls]
        network = cnn.Sequential(*(layer for layer, refusal in attempts if not refusal))
        for wanted in (shape, input_shape):
            _, refusal = attempt(network.build, wanted, backend="cpu")
            assert all(layer.built is (refusal is None) for layer in (network, *network.walk()))
            if not refusal:
                break

    @examples(150)
    @given(st.sampled_from(["seed", "dtype", "backend", "fuse"]), PLAIN_ODD)
    def test_its_arguments(self, name, value):
        network = cnn.Sequential(cnn.Flatten(), cnn.Dense(2))
        _, refusal = attempt(network.build, (1, 2, 2), **{"backend": "cpu"} | {name: value})
        assert network.built is (refusal is None)
        if not refusal:
            assert network.forward(batch_for(network)).shape == (2, 3)

    def test_a_window_over_padding_alone_is_refused(self):
        network = cnn.Sequential(cnn.MaxPool2D(2, padding=1, dilation=3))
        with pytest.raises(cnn.ShapeError, match="a window would see padding alone"):
            network.build((1, 2, 2), backend="cpu")

    def test_windows_of_any_size_are_looked_at_at_once(self):
        network = cnn.Sequential(cnn.MaxPool2D((2**31 - 1, 1), padding=(2**30 - 1, 0)))
        assert network.build((1, 2, 2), backend="cpu") == (1, 1, 2)


class TestCopies:
    @examples(40)
    @given(built_networks())
    def test_a_copy_gives_the_same_bits_and_goes_its_own_way(self, network):
        x = batch_for(network)
        y = network.forward(x).copy()
        twin = network.copy()
        np.testing.assert_array_equal(twin.forward(x), y)
        twin.flat.value += 1
        np.testing.assert_array_equal(network.forward(x), y)

    @examples(40)
    @given(built_networks())
    def test_a_file_gives_the_same_bits_back(self, tmp_path_factory, network):
        path = tmp_path_factory.mktemp("any") / "model.safetensors"
        network.save(path)
        if is_described_by_data(network):
            again = cnn.load(path, device=network.backend)
        else:
            with pytest.raises(cnn.CheckpointError, match="holds a function"):
                cnn.load(path, device=network.backend)
            again = network.fresh()
            again.build(network.input_shape, backend=network.backend, dtype=network.dtype)
            cnn.load(path, network=again)
        for name, array in network.state_dict().items():
            np.testing.assert_array_equal(again.state_dict()[name], array, err_msg=name)
        x = batch_for(network)
        if network.context.fuse:  # as in a loaded network; otherwise sums are rounded in other places
            np.testing.assert_array_equal(again.forward(x), network.forward(x))
        assert list(again.state_dict()) == list(network.state_dict())

    @examples(100)
    @given(built_networks(), st.data())
    def test_weights_are_taken_over_all_or_none(self, network, data):
        before = network.state_dict()
        state = {name: value + 1 for name, value in before.items()}
        name = data.draw(st.sampled_from([*state, "other.weight"]))
        state[name] = data.draw(st.one_of(ODD, st.just(before.get(name, 0))))
        _, refusal = attempt(network.load_state_dict, state)
        if refusal:
            assert isinstance(refusal, cnn.CheckpointError)
            assert name in str(refusal)
            state = before
        after = network.state_dict()
        assert list(after) == list(before)
        for name, value in after.items():
            np.testing.assert_array_equal(value, state[name])


class Counts(cnn.Tanh):
    """A layer that counts its training forwards."""

    def build(self, input_shape, context):
        super().build(input_shape, context)
        self.count = self.statistic("count", (1,), 0)
        return input_shape

    def forward(self, x, training=False):
        self.count += training
        return super().forward(x, training)


class TestGradientCheck:
    @pytest.mark.parametrize(
        ("input_shape", "layers"),
        [
            ((1, 3, 3), lambda: [cnn.Conv2D(2, 1, padding=1), cnn.ReLU()]),  # new biases on ReLU's kink
            ((1, 3, 3), lambda: [cnn.Conv2D(2, 1, initializer="zeros"), cnn.MaxPool2D(2, 1)]),  # all equal
            (
                (1,),
                lambda: [cnn.Dense(1), cnn.Dense(2, initializer="zeros"), cnn.Softmax()],
            ),  # nearly flat
        ],
    )
    def test_zeros_raise_no_alarm(self, input_shape, layers):
        network = cnn.Sequential(*layers())
        network.build(input_shape, backend="cpu", dtype="float64")
        before = network.flat.value.copy()
        for seed in range(20):
            for x in (None, np.zeros((2, *input_shape))):
                for check in cnn.check_gradients(network, x, seed=seed):
                    assert check.passed, check
        np.testing.assert_array_equal(network.flat.value, before)

    def test_what_training_changes_is_put_back(self):
        layer = Counts()
        network = cnn.Sequential(cnn.Dense(2), layer)
        network.build((3,), backend="cpu", dtype="float64")
        layer.count[:] = 7
        cnn.check_gradients(network)
        assert layer.count == 7

    def test_gradients_that_are_not_numbers_do_not_pass(self):
        network = cnn.Sequential(cnn.Activation(np.sin, lambda x: np.where(x > 0, np.nan, np.cos(x))))
        network.build((8,), backend="cpu", dtype="float64")
        (check,) = cnn.check_gradients(network)
        assert not check.passed

    @examples(100)
    @given(st.sampled_from(["x", "entries", "seed", "network"]), ODD)
    def test_its_arguments(self, name, value):
        network = cnn.Sequential(cnn.Flatten(), cnn.Dense(2))
        network.build((1, 2, 2), backend="cpu", dtype="float64")
        checks, refusal = attempt(cnn.check_gradients, **{"network": network} | {name: value})
        assert refusal or all(check.passed for check in checks)
