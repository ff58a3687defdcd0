"""Normalization, dropout and branches: what the checks of every layer cannot say of them."""

import numpy as np
import pytest
from helpers.standin import StandInBackend

import backends
import cnn

RANDOM = np.random.default_rng(0)


def network(backend=None, seed=3):
    made = cnn.Sequential(
        cnn.Conv2D(4, 3, padding=1, bias=False), cnn.BatchNorm2D(), cnn.ReLU(), cnn.MaxPool2D(2),
        cnn.Residual(cnn.Conv2D(4, 3, padding=1), cnn.BatchNorm2D(), cnn.ReLU(), cnn.Dropout(0.2)),
        cnn.Parallel(cnn.Conv2D(2, 1), cnn.Sequential(), join="concatenate"),
        cnn.Flatten(), cnn.Dropout(0.5), cnn.Dense(3),
    )  # fmt: skip
    made.build((1, 8, 8), backend=backend or backends.get("cpu"), seed=seed)
    return made


DATA = cnn.data.Dataset(RANDOM.integers(0, 256, (50, 1, 8, 8), dtype=np.uint8), np.arange(50) % 3)
SETTINGS = {"batch_size": 8, "callbacks": [], "seed": 1}


def assert_same_state(one, other):
    for name, value in one.state_dict().items():
        np.testing.assert_array_equal(value, other.state_dict()[name], err_msg=name)


class TestTraining:
    def test_it_is_resumed_bit_for_bit_in_the_middle_of_an_epoch(self, tmp_path):
        whole, first, second = network(), network(), network()
        cnn.fit(whole, DATA, epochs=3, **SETTINGS)

        class Stop(cnn.Callback):
            def on_step(self, run):
                run.stop = (run.epoch, run.step) == (2, 3)

        stopped = {**SETTINGS, "callbacks": [Stop(), cnn.Checkpoint(tmp_path / "c.safetensors")]}
        cnn.fit(first, DATA, epochs=3, **stopped)
        cnn.fit(second, DATA, epochs=3, resume=tmp_path / "c.safetensors", **SETTINGS)
        assert_same_state(second, whole)

    @pytest.mark.parametrize("kernels", ["compiled", "portable", "signal"])
    def test_a_recorded_step_ends_with_the_same_bits(self, kernels):
        if kernels == "compiled":
            pytest.importorskip("numba")
        results, losses = [], []
        for graph in (True, False):
            net = network(backends.get("cpu", kernels))
            history = cnn.fit(net, DATA, validation=DATA, epochs=2, graph=graph, **SETTINGS)
            losses.append([epoch["validation_loss"] for epoch in history])  # of weights folded in each epoch
            results.append(net)
        assert_same_state(*results)
        assert losses[0] == losses[1]
        assert losses[0][0] != losses[0][1]

    def test_a_device_that_never_converts_learns_the_same(self):
        nets = [network(backends.get("cpu", "portable")), network(StandInBackend())]
        for net in nets:
            cnn.fit(net, DATA, epochs=2, **SETTINGS)
        for name, value in nets[0].state_dict().items():
            np.testing.assert_allclose(nets[1].state_dict()[name], value, rtol=1e-3, atol=1e-5, err_msg=name)

    def test_a_device_that_never_converts_predicts_the_same(self):
        net, elsewhere = network(), network(StandInBackend())
        cnn.fit(net, DATA, epochs=1, **SETTINGS)
        elsewhere.load_state_dict(net.state_dict())
        np.testing.assert_allclose(elsewhere.predict(DATA.images), net.predict(DATA.images), atol=1e-5)

    def test_a_copy_and_a_file_predict_the_same(self, tmp_path):
        net = network()
        cnn.fit(net, DATA, epochs=1, **SETTINGS)
        net.save(tmp_path / "net.safetensors")
        for twin in (net.copy(), cnn.load(tmp_path / "net.safetensors", device="cpu")):
            np.testing.assert_array_equal(twin.predict(DATA.images), net.predict(DATA.images))


def hashed(x):
    """ "lowbias32", in Python's own whole numbers."""
    x ^= x >> 16
    x = x * 0x7FEB352D & 0xFFFFFFFF
    x ^= x >> 15
    x = x * 0x846CA68B & 0xFFFFFFFF
    return x ^ x >> 16


class TestDropout:
    def dropout(self, p=0.3, features=40, backend="cpu", seed=7):
        made = cnn.Sequential(cnn.Dropout(p))
        made.build((features,), backend=backend, seed=seed, dtype="float64")
        return made

    def kept(self, net, count=30):
        x = net.backend.asarray(np.ones((*net.input_shape, count)))
        return net.backend.to_host(net.forward(x, training=True)) > 0

    def test_the_choice_is_the_hash_that_is_documented(self):
        net = self.dropout()
        stream = net.layers[0]._stream
        for update in range(2):
            found = self.kept(net, count=4)
            key = hashed(update ^ stream)
            for number in range(40):
                for sample in range(4):
                    bits = hashed(hashed(number) ^ hashed((sample + key) & 0xFFFFFFFF))
                    assert found[number, sample] == (bits >= int(0.3 * 2**32))
            net.count_update()

    def test_it_is_the_same_until_an_update_and_another_one_afterwards(self):
        net = self.dropout()
        first = self.kept(net)
        np.testing.assert_array_equal(self.kept(net), first)
        net.count_update()
        assert (self.kept(net) != first).mean() > 0.3

    def test_every_device_every_seed_and_every_layer(self):
        np.testing.assert_array_equal(
            self.kept(self.dropout(backend=StandInBackend())), self.kept(self.dropout())
        )
        assert (self.kept(self.dropout(seed=8)) != self.kept(self.dropout())).mean() > 0.3
        two = cnn.Sequential(cnn.Dropout(), cnn.Dropout())
        two.build((5,), backend="cpu")
        assert two.layers[0]._stream != two.layers[1]._stream

    def test_the_share_is_right_and_neighbours_are_independent(self):
        kept = self.kept(self.dropout(0.3, features=500), count=400)
        assert abs(kept.mean() - 0.7) < 0.005
        assert np.abs(kept.mean(axis=0) - 0.7).max() < 0.1
        for axis in (0, 1):
            both = np.take(kept, range(1, kept.shape[axis]), axis) & np.take(
                kept, range(kept.shape[axis] - 1), axis
            )
            assert abs(both.mean() - 0.49) < 0.01

    def test_the_whole_batch_decides_however_it_is_cut(self):
        net = self.dropout()
        whole = self.kept(net, 30)
        counters = net.context.draws.counters
        counters[1] = 12  # the position of the first sample
        np.testing.assert_array_equal(self.kept(net, 10), whole[:, 12:22])

    @pytest.mark.parametrize("p", [1, -0.1, "half", None, True])
    def test_a_probability_is_from_0_to_below_1(self, p):
        with pytest.raises(cnn.ArgumentError, match="Dropout: p is"):
            cnn.Dropout(p)


class TestBatchNorm:
    def test_a_batch_of_one_number_a_channel_gives_the_bias(self):
        net = cnn.Sequential(cnn.BatchNorm1D())
        net.build((3,), backend="cpu")
        y = net.forward(np.full((3, 1), 5, np.float32), training=True)
        np.testing.assert_array_equal(y, np.zeros((3, 1)))

    def test_the_number_of_batches_may_be_missing_in_weights_or_be_in_vain(self):
        net = network()
        state = {name: array for name, array in net.state_dict().items() if "num_batches" not in name}
        net.load_state_dict(state)
        net.load_state_dict(state | {"0.num_batches_tracked": np.array(3)})
        with pytest.raises(cnn.CheckpointError, match=r"lack 1\.running_mean"):
            net.load_state_dict({name: array for name, array in state.items() if name != "1.running_mean"})

    @pytest.mark.parametrize("layer", [cnn.BatchNorm1D, cnn.BatchNorm2D])
    def test_it_says_what_it_expects(self, layer):
        with pytest.raises(cnn.ShapeError, match="expected"):
            cnn.Sequential(layer()).build((3, 4), backend="cpu")
        for wrong in ({"eps": 0}, {"momentum": 2}, {"affine": "yes"}, {"track_running_stats": None}):
            with pytest.raises(cnn.ArgumentError, match=f"{layer.__name__}: {next(iter(wrong))} is"):
                layer(**wrong)


def foldable():
    """Each layer that a normalization can be folded into, alone and with what runs in the same pass."""
    return cnn.Sequential(
        cnn.Conv2D(4, 3, bias=False), cnn.BatchNorm2D(), cnn.ReLU(), cnn.MaxPool2D(2),
        cnn.Conv2D(3, 2, untied_bias=True), cnn.BatchNorm2D(0.1), cnn.ReLU(),
        cnn.Conv2D(4, 2, padding=1, padding_mode="reflect"), cnn.BatchNorm2D(affine=False), cnn.Tanh(),
        cnn.Flatten(), cnn.Dense(6, bias=False), cnn.BatchNorm1D(), cnn.ReLU(),
        cnn.Dense(5), cnn.BatchNorm1D(), cnn.BatchNorm1D(track_running_stats=False),
    )  # fmt: skip


def normalized(activation):
    """Normalizations with an activation after them, alone and at the end of residual blocks."""
    return cnn.Sequential(
        cnn.Conv2D(4, 3, padding=1, bias=False), cnn.BatchNorm2D(), activation(),
        cnn.Residual(
            cnn.Conv2D(4, 3, padding=1), cnn.BatchNorm2D(), activation(),
            cnn.Conv2D(4, 3, padding=1, bias=False), cnn.BatchNorm2D(affine=False),
        ),
        activation(),
        cnn.Residual(
            cnn.Conv2D(6, 3, stride=2, padding=1), cnn.BatchNorm2D(), shortcut=cnn.Conv2D(6, 1, stride=2)
        ),
        activation(),
        cnn.Residual(cnn.Conv2D(6, 1), cnn.BatchNorm2D()),
        cnn.Residual(cnn.Dropout(0.2), cnn.Sequential(cnn.BatchNorm2D(track_running_stats=False))),
        activation(),
        cnn.Conv2D(5, 2), cnn.MaxPool2D(2), cnn.BatchNorm2D(), activation(),
        cnn.Flatten(), cnn.Dense(4), cnn.BatchNorm1D(), activation(),
    )  # fmt: skip


EACH_ACTIVATION = {
    "ReLU": cnn.ReLU, "GELU": cnn.GELU, "SiLU": cnn.SiLU, "Tanh": cnn.Tanh, "ELU": lambda: cnn.ELU(0.7),
    "Softplus": cnn.Softplus,
}  # fmt: skip


class TestOnePass:
    """A normalization, the sum of a residual block and an activation are computed in one pass."""

    X = np.random.default_rng(0).standard_normal((2, 12, 12, 9))

    def results(self, kernels, activation, fuse, frozen=(), input_grad=True):
        net = normalized(activation)
        net.build((2, 12, 12), backend=backends.get("cpu", kernels), seed=3, dtype="float64", fuse=fuse)
        net.freeze(*frozen)
        y = net.forward(self.X.copy(), training=True)
        dy = np.random.default_rng(1).standard_normal(y.shape)
        y = y.copy()
        net.forward(self.X[..., :2].copy())  # changes nothing that backward reads
        found = {"y": y, "dx": net.backward(dy, input_grad=input_grad)}
        found["dx"] = None if found["dx"] is None else found["dx"].copy()
        found |= {name: parameter.grad.copy() for name, parameter in net.parameters.items()}
        found |= net.state_dict() | {"inference": net.forward(self.X.copy()).copy()}
        with net.unfused():
            found["unfused"] = net.forward(self.X.copy()).copy()
        return found

    def same(self, *arguments, **named):
        apart = self.results("portable", *arguments, fuse=False, **named)
        for kernels in ("portable", "compiled"):
            if kernels == "compiled":
                pytest.importorskip("numba")
            together = self.results(kernels, *arguments, fuse=True, **named)
            for name, expected in apart.items():
                if expected is None:
                    assert together[name] is None
                else:
                    np.testing.assert_allclose(together[name], expected, rtol=1e-8, atol=1e-9, err_msg=name)

    @pytest.mark.parametrize("activation", EACH_ACTIVATION)
    def test_it_gives_what_the_layers_give_apart(self, activation):
        self.same(EACH_ACTIVATION[activation])

    @pytest.mark.parametrize("activation", ["ReLU", "GELU"])
    @pytest.mark.parametrize("frozen", [["1", "3"], ["3.1", "5"], ["0", "1", "3", "5.0", "5.1"]])
    @pytest.mark.parametrize("input_grad", [True, False])
    def test_frozen_layers_too(self, activation, frozen, input_grad):
        self.same(EACH_ACTIVATION[activation], frozen=frozen, input_grad=input_grad)

    def test_the_passes(self):
        net = normalized(cnn.GELU)
        net.build((2, 12, 12), backend="cpu")
        passes = [[layer.kind for layer in together] for together in net.walk_passes()]
        assert passes[:7] == [
            ["Conv2D"], ["BatchNorm2D", "GELU"], ["Conv2D"], ["BatchNorm2D", "GELU"], ["Conv2D"],
            ["BatchNorm2D", "Residual", "GELU"], ["Conv2D"],
        ]  # fmt: skip
        assert passes[-6:] == [
            ["BatchNorm2D", "Residual", "GELU"], ["Conv2D", "MaxPool2D"], ["BatchNorm2D", "GELU"],
            ["Flatten"], ["Dense"], ["BatchNorm1D", "GELU"],
        ]  # fmt: skip

    def test_an_activation_of_ones_own_runs_by_itself(self):
        class Own(cnn.GELU):
            def function(self, x, out):
                out[...] = x + 1

        net = cnn.Sequential(cnn.BatchNorm2D(), Own())
        net.build((1, 3, 3), backend="cpu", dtype="float64")
        y = net.forward(self.X[:1, :3, :3].copy(), training=True)
        np.testing.assert_allclose(y.mean(), 1)

    def test_moments_of_an_interrupted_step_are_not_used(self, monkeypatch):
        net = cnn.Sequential(cnn.Conv2D(3, 3), cnn.BatchNorm2D())
        net.build((2, 12, 12), backend="cpu", dtype="float64")

        def interrupted(*arguments):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(net.layers[0], "forward_with_moments", interrupted)
            with pytest.raises(KeyboardInterrupt):
                net.forward(self.X.copy(), training=True)
        with net.unfused():
            y = net.forward(self.X.copy(), training=True)
        np.testing.assert_allclose(y.var(axis=(1, 2, 3)), 1, rtol=1e-3)

    @pytest.mark.parametrize("size", [1, 2047, 2048, 5000])
    def test_moments_of_far_away_numbers_keep_their_digits(self, size):
        kernels = backends.get("cpu").kernels
        rows = np.random.default_rng(0).normal([[0], [1e4]], [[1], [0.01]], (2, size)).astype(np.float32)
        rows[1, size // 2 :] += 1  # another level further on
        rows[0, 0] = 50  # what the sums begin with is unlike the rest
        mean, variance = np.zeros(2, np.float32), np.zeros(2, np.float32)
        kernels.moments(rows, mean, variance)
        exact = rows.astype(np.float64)
        np.testing.assert_allclose(mean, exact.mean(axis=1), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(variance, exact.var(axis=1), rtol=1e-4, atol=1e-7)


class TestFolding:
    """In inference a normalization is part of the weights of the layer before it."""

    IMAGES = np.random.default_rng(0).standard_normal((1, 12, 12, 9))

    def built(self, backend, dtype="float64", fuse=True):
        made = foldable()
        made.build((1, 12, 12), backend=backend, seed=3, dtype=dtype, fuse=fuse)
        self.change(made)
        return made

    def change(self, net, seed=5):
        random = np.random.default_rng(seed)
        state = {name: random.normal(0.2, 0.5, array.shape) for name, array in net.state_dict().items()}
        net.load_state_dict({name: abs(a) + 0.1 if "var" in name else a for name, a in state.items()})

    def test_every_kernel_set_gives_what_the_layers_give_apart(self, kernels):
        if kernels == "compiled":
            pytest.importorskip("numba")
        together, apart = (self.built(backends.get("cpu", kernels), fuse=fuse) for fuse in (True, False))
        for _ in range(2):  # the second time with other weights and statistics
            x = self.IMAGES.copy()
            np.testing.assert_allclose(together.forward(x), apart.forward(x), rtol=1e-10, atol=1e-10)
            for net in (together, apart):
                self.change(net, seed=6)

    def test_a_device_that_never_converts_gives_the_same(self):
        device = StandInBackend()
        found = self.built(device).forward(device.asarray(self.IMAGES))
        expected = self.built(backends.get("cpu"), fuse=False).forward(self.IMAGES.copy())
        np.testing.assert_allclose(device.to_host(found), expected, rtol=1e-10, atol=1e-10)

    def test_the_normalization_is_not_run(self):
        net = self.built(backends.get("cpu", "portable"))
        called = []

        def normalize(x, mean, *arguments):
            if mean.any():  # without a mean it is the function after a dense layer
                called.append("normalize")

        net.backend.kernels.normalize = normalize
        net.backend.kernels.fold = lambda *arguments: called.append("fold")
        try:
            net.forward(self.IMAGES.copy())
        finally:
            for name in ("normalize", "fold"):
                delattr(net.backend.kernels, name)
        assert called == ["fold"] * 5 + ["normalize"]  # the last one has no running averages

    def test_training_keeps_what_the_passes_give(self):
        net = self.built(backends.get("cpu"))
        passes = [[layer.kind for layer in together] for together in net.walk_passes()]
        assert passes[:3] == [["Conv2D"], ["BatchNorm2D", "ReLU"], ["MaxPool2D"]]

    def test_a_class_of_ones_own_is_not_folded(self):
        class Own(cnn.BatchNorm2D):
            def forward(self, x, training=False):
                return 2 * super().forward(x, training)

        nets = [cnn.Sequential(cnn.Conv2D(2, 3), kind()) for kind in (Own, cnn.BatchNorm2D)]
        for net in nets:
            net.build((1, 5, 5), backend="cpu", dtype="float64")
        x = np.random.default_rng(1).standard_normal((1, 5, 5, 3))
        np.testing.assert_allclose(nets[0].forward(x), 2 * nets[1].forward(x))


class TestGroups:
    def test_one_group_is_a_layer_normalization_and_as_many_as_channels_an_instance_normalization(self):
        x = np.random.default_rng(0).normal(3, 2, (6, 4, 5, 7))
        for layer, axes in ((cnn.LayerNorm(), (0, 1, 2)), (cnn.GroupNorm(6), (1, 2))):
            net = cnn.Sequential(layer)
            net.build(x.shape[:-1], backend="cpu", dtype="float64")
            y = net.forward(x.copy())
            np.testing.assert_allclose(y.mean(axis=axes), 0, atol=1e-12)
            np.testing.assert_allclose(y.std(axis=axes), 1, atol=1e-4)

    @pytest.mark.parametrize(("kernels", "digits"), [("compiled", 2e-4), ("portable", 2e-3)])
    def test_large_means_cost_few_digits(self, kernels, digits):
        if kernels == "compiled":
            pytest.importorskip("numba")
        x = np.random.default_rng(0).normal(1000, 1, (4, 5, 5, 100)).astype("float32")
        for layer in (cnn.LayerNorm(), cnn.GroupNorm(2), cnn.BatchNorm2D()):
            net = cnn.Sequential(layer)
            net.build(x.shape[:-1], backend=backends.get("cpu", kernels))
            wide = cnn.Sequential(layer.fresh())
            wide.build(x.shape[:-1], backend=backends.get("cpu", "portable"), dtype="float64")
            y, exact = net.forward(x.copy(), training=True), wide.forward(x.astype("d"), training=True)
            np.testing.assert_allclose(y, exact, atol=digits)

    @pytest.mark.parametrize(
        ("make", "problem"),
        [
            (lambda: cnn.GroupNorm(0), "GroupNorm: groups is 0"),
            (lambda: cnn.GroupNorm(2, 0), "GroupNorm: eps is 0, expected a number above 0"),
            (lambda: cnn.LayerNorm(-1), "LayerNorm: eps is -1"),
            (lambda: cnn.LayerNorm(bias=None), "LayerNorm: bias is None, expected True or False"),
            (lambda: cnn.Dropout2D(1), "Dropout2D: p is 1"),
        ],
    )
    def test_wrong_arguments_are_named(self, make, problem):
        with pytest.raises(cnn.ArgumentError, match=problem):
            make()

    def test_groups_divide_the_channels(self):
        with pytest.raises(cnn.ShapeError, match=r"0 GroupNorm: an input of 5 channels cannot be cut into 2"):
            cnn.Sequential(cnn.GroupNorm(2)).build((5, 4, 4), backend="cpu")

    def test_dropped_channels_are_whole(self):
        net = cnn.Sequential(cnn.Dropout2D(0.4))
        net.build((50, 4, 5), backend="cpu")
        y = net.forward(np.ones((50, 4, 5, 30), np.float32), training=True)
        kept = (y > 0).all(axis=(1, 2))
        assert (kept | (y == 0).all(axis=(1, 2))).all()
        assert abs(kept.mean() - 0.6) < 0.05
        with pytest.raises(cnn.ShapeError, match="expected an image"):
            cnn.Sequential(cnn.Dropout2D()).build((5,), backend="cpu")


class TestBranches:
    def test_parameters_of_the_layers_come_first_then_the_shortcuts(self):
        net = cnn.Sequential(cnn.Residual(cnn.Dense(3), cnn.Tanh(), cnn.Dense(4), shortcut=cnn.Dense(4)))
        net.build((2,), backend="cpu")
        names = ["0.0.weight", "0.0.bias", "0.2.weight", "0.2.bias", "0.shortcut.weight", "0.shortcut.bias"]
        assert list(net.parameters) == names

    def test_neighbours_inside_run_in_one_pass(self):
        net = cnn.Sequential(cnn.Residual(cnn.Conv2D(1, 3, padding=1), cnn.ReLU()))
        net.build((1, 5, 5), backend="cpu")
        assert [len(together) for together in net.walk_passes()] == [2, 1]

    @pytest.mark.parametrize(
        ("layer", "problem"),
        [
            (
                lambda: cnn.Residual(cnn.Dense(3)),
                r"the branches give \(3,\) and \(2,\) for",
            ),
            (lambda: cnn.Parallel(cnn.Dense(3), cnn.Dense(2)), "cannot be joined by 'add'"),
        ],
    )
    def test_outputs_that_do_not_fit_are_named(self, layer, problem):
        with pytest.raises(cnn.ShapeError, match=problem):
            cnn.Sequential(layer()).build((2,), backend="cpu")

    @pytest.mark.parametrize(
        ("make", "problem"),
        [
            (lambda: cnn.Parallel(), "no branches"),
            (
                lambda: cnn.Parallel(cnn.ReLU(), join="multiply"),
                "join is 'multiply', expected add or",
            ),
            (lambda: cnn.Residual(cnn.ReLU(), "tanh"), "Residual: item 1 is 'tanh', expected a layer"),
            (lambda: cnn.Residual(cnn.ReLU(), shortcut=5), "Residual: shortcut is 5, expected a Layer"),
        ],
    )
    def test_wrong_arguments_are_named(self, make, problem):
        with pytest.raises(cnn.ArgumentError, match=problem):
            make()


def batch_of_one_feature(values, dtype):
    return np.array(values, dtype)[None, :]


ACTIVATIONS = {
    "LeakyReLU": cnn.LeakyReLU, "ELU": cnn.ELU, "SELU": cnn.SELU, "GELU": cnn.GELU,
    "GELU tanh": lambda: cnn.GELU("tanh"), "SiLU": cnn.SiLU, "Sigmoid": cnn.Sigmoid,
    "Softplus": cnn.Softplus, "HardSigmoid": cnn.HardSigmoid, "HardSwish": cnn.HardSwish,
    "PReLU": cnn.PReLU, "LogSoftmax": cnn.LogSoftmax,
}  # fmt: skip


class TestActivations:
    def built(self, name, kernels, dtype):
        if kernels == "compiled":
            pytest.importorskip("numba")
        made = cnn.Sequential(ACTIVATIONS[name]())
        made.build((1,), backend=backends.get("cpu", kernels), dtype=dtype)
        return made

    @pytest.mark.parametrize("kernels", ["compiled", "portable"])
    @pytest.mark.parametrize("name", ACTIVATIONS)
    def test_float32_is_float64_but_for_rounding(self, name, kernels):
        x = batch_of_one_feature(np.linspace(-12, 12, 5001), "float32")
        dy = np.ones_like(x)
        narrow, wide = self.built(name, kernels, "float32"), self.built(name, "portable", "float64")
        for function in (lambda net: net.forward(x, training=True), lambda net: net.backward(dy)):
            found, exact = function(narrow), function(wide)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, exact, rtol=4e-7, atol=2e-6)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("kernels", ["compiled", "portable"])
    @pytest.mark.parametrize("name", ACTIVATIONS)
    def test_large_numbers_do_not_overflow_and_nan_stays(self, name, kernels, dtype):
        net = self.built(name, kernels, dtype)
        x = batch_of_one_feature([-1e4, -100, -0.0, 0, 100, 1e4, np.nan], dtype)
        with np.errstate(over="raise", divide="raise"):
            y = net.forward(x, training=True)
            dx = net.backward(np.ones_like(x))
        assert np.isfinite(y[0, :-1]).all()
        assert np.isfinite(dx[0, :-1]).all()
        assert np.isnan(y[0, -1])
        ends = {"Sigmoid": [0, 1], "HardSigmoid": [0, 1], "LogSoftmax": [0, 0]}
        if name in ("GELU", "GELU tanh", "SiLU", "HardSwish", "Softplus"):
            np.testing.assert_allclose(y[0, [0, 5]], [0, 1e4], atol=1e-30)
        elif name in ends:
            np.testing.assert_allclose(y[0, [0, 5]], ends[name], atol=1e-30)

    @pytest.mark.parametrize(
        ("make", "problem"),
        [
            (lambda: cnn.LeakyReLU(-1), "LeakyReLU: slope is -1, expected a number of at least 0"),
            (lambda: cnn.ELU("1"), "ELU: alpha is '1'"),
            (lambda: cnn.GELU("erf"), "GELU: approximate is 'erf', expected none or tanh"),
            (lambda: cnn.Softplus(0), "Softplus: beta is 0, expected a number above 0"),
            (lambda: cnn.Softplus(threshold=-1), "Softplus: threshold is -1"),
            (lambda: cnn.PReLU(0), "PReLU: num_parameters is 0"),
        ],
    )
    def test_wrong_arguments_are_named(self, make, problem):
        with pytest.raises(cnn.ArgumentError, match=problem):
            make()

    def test_prelu_has_one_weight_or_one_for_each_channel(self):
        with pytest.raises(cnn.ShapeError, match=r"0 PReLU: num_parameters is 2, expected 1 or .* 3"):
            cnn.Sequential(cnn.PReLU(2)).build((3, 4, 4), backend="cpu")
        net = cnn.Sequential(cnn.PReLU(3, init=0.5))
        net.build((3,), backend="cpu")
        assert net.state_dict()["0.weight"].tolist() == [0.5] * 3
