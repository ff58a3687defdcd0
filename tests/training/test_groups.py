"""Parameter groups and frozen layers."""

import pickle

import numpy as np
import pytest

import backends
import cnn
from cnn.training.groups import is_vector
from cnn.training.named import OPTIMIZERS

RANDOM = np.random.default_rng(0)
DATA = cnn.data.Dataset(RANDOM.integers(0, 256, (40, 1, 6, 6), dtype=np.uint8), RANDOM.integers(0, 3, 40))


def network():
    net = cnn.Sequential(
        cnn.Conv2D(3, 3), cnn.BatchNorm2D(), cnn.ReLU(), cnn.Flatten(),
        cnn.Sequential(cnn.Dense(5), cnn.Tanh()),
        cnn.Dense(3),
    )  # fmt: skip
    net.build((1, 6, 6), backend="cpu")
    return net


def trained(net, optimizer, **options):
    options = {"batch_size": 8, "epochs": 2, "callbacks": [], "transforms": [cnn.ClipNorm(1)]} | options
    cnn.fit(net, DATA, optimizer=optimizer, **options)
    return net.state_dict()


@pytest.mark.parametrize("named", OPTIMIZERS)
def test_one_group_of_everything_changes_no_bit(named):
    kind = OPTIMIZERS[named]
    plain = trained(network(), kind(0.01))
    grouped = trained(network(), kind(0.01, groups=[cnn.Group("*")]))
    for name, value in plain.items():
        np.testing.assert_array_equal(value, grouped[name], err_msg=name)


def test_a_learning_rate_of_its_own():
    before = network().state_dict()
    after = trained(network(), cnn.SGD(0.1, groups=[cnn.Group("4.*", rate=0)]))
    for name in before:
        assert np.array_equal(before[name], after[name]) == name.startswith("4."), name


def test_no_decay_for_biases_and_normalization():
    net = network()
    optimizer = cnn.SGD(1.0, weight_decay=0.5, groups=[cnn.Group(is_vector, weight_decay=0)])
    optimizer.build(net)
    for parameter in net.parameters.values():
        parameter.value[...] = 1
        parameter.grad[...] = 0
    optimizer.step(np.ones(1, np.float32))
    for name, parameter in net.parameters.items():
        expected = 0.5 if len(parameter.shape) > 1 else 1
        assert (parameter.value == expected).all(), name


def test_the_first_group_that_fits_counts():
    net = network()
    groups = [cnn.Group("0.*", rate=0), cnn.Group("*", rate=2)]
    optimizer = cnn.SGD(1.0, groups=groups)
    optimizer.build(net)
    net.flat.value[...] = 0
    for parameter in net.parameters.values():
        parameter.grad[...] = 1
    optimizer.step(np.ones(1, np.float32))
    for name, parameter in net.parameters.items():
        assert (parameter.value == (0 if name.startswith("0.") else -2)).all(), name


def test_a_run_with_groups_resumes_and_refuses_other_groups(tmp_path):
    path = tmp_path / "c.safetensors"
    groups = [cnn.Group(is_vector, weight_decay=0)]

    def run(groups=groups, **options):
        return trained(network(), cnn.Adam(0.01, weight_decay=0.1, groups=groups), **options)

    whole = run()
    run(epochs=1, callbacks=[cnn.Checkpoint(path)])
    for name, value in run(resume=path).items():
        np.testing.assert_array_equal(value, whole[name], err_msg=name)
    with pytest.raises(cnn.CheckpointError, match=r"began with groups \['is_vector: .* now it is None"):
        run(groups=(), resume=path)


@pytest.mark.parametrize("select", [3, None, ["a"]])
def test_a_group_of_nothing_is_refused(select):
    with pytest.raises(cnn.ArgumentError, match="select is "):
        cnn.Group(select)
    with pytest.raises(cnn.ArgumentError, match="groups is "):
        cnn.SGD(0.1, groups=[select])


def test_a_pattern_that_fits_nothing_is_noted():
    groups = [cnn.Group("*.bais", weight_decay=0), cnn.Group("*.bias")]
    with pytest.warns(
        cnn.errors.Notice, match=r"group '\*.bais' fits no parameter .* the names are '0.weight'"
    ):
        cnn.SGD(0.1, groups=groups).build(network())


class TestFreezing:
    def test_leaves_parameters_and_statistics_alone(self):
        net = network()
        trained(net, cnn.SGD(0.1))
        net.freeze("0", "1", "4")
        before = net.state_dict()
        after = trained(net, cnn.SGD(0.1, momentum=0.9, weight_decay=0.1))
        for name in before:
            assert np.array_equal(before[name], after[name]) != name.startswith("5."), name

    def test_a_frozen_layer_in_the_middle_passes_the_gradient_on(self):
        nets = network(), network()
        nets[0].freeze("4")
        x, loss = RANDOM.random((1, 6, 6, 9)), cnn.CrossEntropy()
        for net in nets:
            loss.build(net)
            loss.forward(net.forward(x, training=True), np.arange(9) % 3)
            net.backward(loss.backward())
        np.testing.assert_array_equal(
            nets[0].parameters["0.weight"].grad, nets[1].parameters["0.weight"].grad
        )

    def test_clipping_is_of_what_is_trained(self):
        net = network()
        net.freeze("0", "1", "4")
        net.flat.grad[...] = 100
        net.clear_frozen()
        trained_size = sum(p.size for name, p in net.parameters.items() if name.startswith("5."))
        inside = net.parameters["5.weight"].grad, net.parameters["5.bias"].grad
        assert sum(int((grad == 100).sum()) for grad in inside) == trained_size
        assert not net.parameters["0.weight"].grad.any()

    @pytest.mark.parametrize("kernels", ["compiled", "portable"])
    @pytest.mark.parametrize("rectify", [False, True])
    def test_batch_norm_uses_its_running_statistics(self, rectify, kernels):
        relu = [cnn.ReLU()] if rectify else []
        net = cnn.Sequential(cnn.Flatten(), cnn.BatchNorm1D(), *relu, cnn.Dense(3))
        net.build((1, 6, 6), backend=backends.get("cpu", kernels), dtype="float64")
        x = RANDOM.random((1, 6, 6, 9))
        net.forward(x, training=True)
        net.freeze("1")
        np.testing.assert_allclose(net.forward(x, training=True), net.forward(x), rtol=1e-12)
        dy = RANDOM.random((3, 9))
        dx = net.backward(dy).copy()
        step = 1e-6 * RANDOM.standard_normal(x.shape)
        after, before = (net.forward(x + sign * step).copy() for sign in (1, -1))
        change = (after - before) / 2
        np.testing.assert_allclose((dx * step).sum(), (dy * change).sum(), rtol=1e-6)

    @pytest.mark.parametrize("rectify", [False, True])
    def test_batch_norm_differentiates_what_its_latest_forward_did(self, rectify):
        layers = [cnn.Flatten(), cnn.Dense(4), cnn.BatchNorm1D(), *[cnn.ReLU()] * rectify, cnn.Dense(3)]
        net = cnn.Sequential(*layers)
        net.build((1, 6, 6), backend="cpu", dtype="float64")
        x, dy = RANDOM.random((1, 6, 6, 9)), RANDOM.random((3, 9))
        for before, after in (net.freeze, net.unfreeze), (net.unfreeze, net.freeze):
            before("2")
            net.forward(x, training=True)
            expected = net.backward(dy).copy()
            net.forward(x, training=True)
            after("2")
            np.testing.assert_array_equal(net.backward(dy), expected)

    def test_is_possible_for_a_single_parameter(self):
        net = network()
        net.freeze("0.weight", "1.weight")
        before = net.state_dict()
        after = trained(net, cnn.SGD(0.1))
        for name in before:
            assert np.array_equal(before[name], after[name]) == (name in ("0.weight", "1.weight")), name

    def test_of_everything_is_noted(self):
        net = network()
        net.freeze("*")
        before = net.state_dict()
        with pytest.warns(cnn.errors.Notice, match=r"all parameters are frozen") as caught:
            after = trained(net, cnn.EMA(cnn.Muon()))
        assert caught[0].filename == __file__
        for name in before:
            np.testing.assert_array_equal(before[name], after[name], err_msg=name)

    def test_can_be_taken_back(self):
        net = network()
        net.freeze("0", "4.*")
        assert net.frozen_names == ("0.weight", "0.bias", "4.0.weight", "4.0.bias")
        net.unfreeze("*")
        assert net.frozen_names == ()
        before = net.state_dict()
        for name, value in trained(net, cnn.SGD(0.1)).items():
            assert not np.array_equal(before[name], value), name

    def test_between_two_epochs_takes_effect(self):
        net = network()

        class Freeze(cnn.Callback):
            def on_epoch(self, run, record):
                run.network.freeze("4")
                self.kept = run.network.state_dict()

        freeze = Freeze()
        after = trained(net, cnn.SGD(0.1), callbacks=[freeze])
        before = network().state_dict()
        assert not np.array_equal(before["4.0.weight"], after["4.0.weight"])
        np.testing.assert_array_equal(freeze.kept["4.0.weight"], after["4.0.weight"])
        assert not np.array_equal(before["5.weight"], after["5.weight"])

    def test_statistics_are_frozen_with_their_layer_alone(self):
        net = network()
        with pytest.raises(cnn.ArgumentError, match=r'1.running_mean is a statistic.*freeze\("1"\)'):
            net.freeze("0", "1.running_mean")
        assert net.frozen_names == ()
        net.freeze("1")
        net.unfreeze("1.weight")
        assert net.frozen_names == ("1.bias",)
        before = net.state_dict()
        assert not np.array_equal(before["1.running_mean"], trained(net, cnn.SGD(0.1))["1.running_mean"])

    def test_a_resumed_run_has_the_same_frozen_layers(self, tmp_path):
        path = tmp_path / "c.safetensors"

        class Unfreeze(cnn.Callback):
            def on_epoch(self, run, record):
                if run.epoch == 1:
                    run.network.unfreeze("1")

        def run(frozen=("0", "1"), **options):
            net = network()
            if frozen:
                net.freeze(*frozen)
            return trained(net, cnn.SGD(0.1), **options)

        expected = run(epochs=4, callbacks=[Unfreeze()])
        run(callbacks=[Unfreeze(), cnn.Checkpoint(path)])
        for name, value in run(epochs=4, resume=path).items():
            np.testing.assert_array_equal(value, expected[name], err_msg=name)
        with pytest.raises(cnn.CheckpointError, match=r"began with frozen .*, now it is None"):
            run(frozen=(), epochs=4, resume=path)

    def test_copies_and_pickles_stay_frozen(self):
        net = network()
        net.freeze("4")
        frozen = ("4.0.weight", "4.0.bias")
        assert net.copy().frozen_names == pickle.loads(pickle.dumps(net)).frozen_names == frozen

    @pytest.mark.parametrize("name", ["9", "conv", 3, "2"])
    def test_a_layer_that_is_not_there_is_named(self, name):
        with pytest.raises(cnn.ArgumentError, match=r"no layer or parameter .* expected one of '0.weight'"):
            network().freeze(name)
