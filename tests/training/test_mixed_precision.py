"""Training in 16 bits: what is stored as what, repeatable, resumed, as accurate as float32; loss scaling."""

import numpy as np
import pytest
from helpers import host_cuda
from helpers.standin import StandInBackend

import backends
import cnn
from backends.dtypes import HALVES
from cnn.training.checkpoints import SavedTraining
from cnn.training.step import compute_gradients

ml_dtypes = pytest.importorskip("ml_dtypes")
RANDOM = np.random.default_rng(0)
DATA = cnn.data.Dataset(RANDOM.integers(0, 256, (70, 1, 10, 10), dtype=np.uint8), RANDOM.integers(0, 4, 70))

OPTIMIZERS = {
    "SGD": lambda: cnn.SGD(0.05, momentum=0.9),
    "NAdam": cnn.NAdam,
    "EMA of AdamW": lambda: cnn.EMA(cnn.AdamW()),
    "Muon": cnn.Muon,
}
IN_PARTS = {
    "parts": lambda: {"accumulate": 2},
    "shards": lambda: {"processes": cnn.distributed.communicator(2)},
}


@pytest.fixture(params=HALVES)
def dtype(request):
    return request.param


def network(dtype, device=None):
    """A small one with every kind of state: statistics, random numbers, products of both kinds."""
    made = cnn.Sequential(
        cnn.Conv2D(4, 3, padding=1, bias=False), cnn.BatchNorm2D(), cnn.ReLU(), cnn.MaxPool2D(2),
        cnn.Residual(cnn.Conv2D(4, 3, padding=1), cnn.ReLU()), cnn.Dropout(0.2),
        cnn.Flatten(), cnn.Dense(6), cnn.Tanh(), cnn.Dense(4),
    )  # fmt: skip
    made.build((1, 10, 10), backend=device or StandInBackend(), dtype=dtype)
    return made


def fit(net, callbacks=(), **more):
    arguments = {"epochs": 3, "batch_size": 16, "optimizer": cnn.SGD(0.05, momentum=0.9), "seed": 5}
    return cnn.fit(net, DATA, validation=DATA, callbacks=callbacks, **arguments | more)


def learned(history):
    """What a history tells besides the time that it took."""
    return [{k: v for k, v in line.items() if "second" not in k} for line in history]


def assert_same_weights(net, other):
    for name, array in other.state_dict().items():
        np.testing.assert_array_equal(net.state_dict()[name], array, err_msg=name)


class StopAfter(cnn.Callback):
    """Stops the training after a number of steps."""

    def __init__(self, steps):
        self.left = steps

    def on_step(self, run):
        self.left -= 1
        run.stop = self.left == 0


class Watch(cnn.Callback):
    """Keeps the run."""

    def on_start(self, run):
        self.run = run


class TestWhatIsStored:
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_everything_that_a_step_changes_is_float32_or_a_count(self, dtype, optimizer):
        watch = Watch()
        fit(network(dtype), callbacks=[watch], optimizer=OPTIMIZERS[optimizer](), epochs=1)
        training = watch.run.training
        found = {str(array.dtype) for array in training.state.values()}
        assert found == {"float32", "float64", "int64"}  # sums over an epoch are in float64
        kept = {name: array for name, array in training.arrays.items() if array.dtype.kind == "f"}
        sums = {name for name, array in kept.items() if array.dtype == np.float64}
        assert sums == {f"training/{name}" for name in watch.run.totals.arrays}
        assert training.loss.losses.dtype == training.loss.backward().dtype == np.float32

    def test_the_batch_has_16_bits_and_its_other_numbers_have_32(self, dtype):
        images, targets = RANDOM.random((20, 1, 10, 10)), RANDOM.random((20, 4)).astype(np.float32)
        data = cnn.data.Dataset(images, targets, weights=RANDOM.random(20))
        watch = Watch()
        cnn.fit(network(dtype), data, callbacks=[watch], batch_size=10)
        feed = watch.run.training.feed
        (x, targets), *_ = list(feed)
        assert x.dtype.name == dtype
        assert targets.dtype == feed.weights.dtype == feed.rate.dtype == np.float32

    def test_products_read_the_parameters_rounded_and_follow_them(self, dtype):
        net = network(dtype)
        weight = net.parameters["9.weight"]
        net.backend.kernels.scale(net.flat.value, 1.0009765, net.flat.value)
        net.forward(net.backend.asarray(np.zeros((1, 10, 10, 2), np.float32)))
        expected = net.backend.to_host(weight.value).astype(dtype)
        np.testing.assert_array_equal(net.backend.to_host(weight.operand), expected)

    @pytest.mark.parametrize("wide", ["float32", "float64"])
    def test_in_32_and_64_bits_the_parameters_are_not_copied(self, wide):
        net = network(wide, backends.get("cpu", "portable"))
        assert net.flat.operand is net.flat.value
        assert all(np.shares_memory(each.operand, net.flat.value) for each in net.parameters.values())

    def test_the_network_gives_and_takes_float32(self, dtype):
        net = network(dtype)
        x = net.backend.asarray(RANDOM.standard_normal((1, 10, 10, 3)).astype(np.float32))
        y = net.forward(x, training=True)
        dx = net.backward(net.backend.asarray(np.ones((4, 3), np.float32)))
        assert y.dtype == dx.dtype == np.float32
        assert net.predict(DATA.images[:3]).dtype == np.float32


class TestRepeatable:
    @pytest.mark.parametrize("kernels", ["portable", pytest.param("compiled", marks=host_cuda.needed)])
    def test_the_same_seed_gives_the_same_bits_recorded_or_not(self, dtype, kernels):
        first, second, plain = (network(dtype, StandInBackend(kernels)) for _ in range(3))
        histories = [learned(fit(first)), learned(fit(second)), learned(fit(plain, graph=False))]
        assert histories[0] == histories[1] == histories[2]
        assert_same_weights(first, second)
        assert_same_weights(first, plain)

    def test_a_resnet_is_evaluated_to_the_same_bits_recorded_or_not(self, dtype):
        """Its running averages are float32."""
        net = cnn.models.resnet8(classes=4)
        net.build(DATA.shape, backend=StandInBackend(), dtype=dtype)
        cnn.fit(net, DATA, batch_size=32, callbacks=[])
        statistics = {a.dtype for name, a in net.state_dict().items() if "running" in name}
        assert statistics == {np.dtype(np.float32)}
        results = [cnn.evaluate(net, DATA, batch_size=8, graph=graph) for graph in (True, False)]
        assert results[0] == results[1]
        predictions = [net.predict(DATA.images, 8, graph=graph) for graph in (True, False)]
        np.testing.assert_array_equal(*predictions)

    @pytest.mark.parametrize("steps", [2, 7])
    def test_a_resumed_run_ends_with_the_same_bits(self, dtype, steps, tmp_path):
        whole, half, rest = network(dtype), network(dtype), network(dtype)
        history = fit(whole)
        path = tmp_path / "checkpoint.safetensors"
        fit(half, callbacks=[StopAfter(steps), cnn.Checkpoint(path)])
        assert learned(fit(rest, resume=path)) == learned(history)
        assert_same_weights(rest, whole)

    def test_a_run_cannot_be_resumed_in_another_dtype(self, dtype, tmp_path):
        path = tmp_path / "checkpoint.safetensors"
        fit(network(dtype), epochs=1, callbacks=[cnn.Checkpoint(path)], transforms=[cnn.LossScaling()])
        with pytest.raises(cnn.CheckpointError, match=f"began with dtype {dtype}, now it is float32"):
            fit(network("float32"), resume=path, transforms=[cnn.LossScaling()])

    @pytest.mark.parametrize("cut", IN_PARTS)
    def test_parts_and_shards_add_up_to_the_batch_but_for_rounding(self, dtype, cut):
        nets = [cnn.Sequential(cnn.Flatten(), cnn.Dense(6), cnn.Tanh(), cnn.Dense(4)) for _ in range(2)]
        for net, how in zip(nets, ({}, IN_PARTS[cut]()), strict=True):
            net.build((1, 10, 10), backend=StandInBackend(), dtype=dtype)
            fit(net, **how)
        for name, array in nets[0].state_dict().items():
            np.testing.assert_allclose(nets[1].state_dict()[name], array, atol=2e-2, err_msg=name)


@host_cuda.needed
def test_the_cuda_kernels_pass_on_the_arrays_that_they_do_not_take(dtype):
    losses = [
        [line["loss"] for line in fit(network(dtype, StandInBackend(kernels)))]
        for kernels in ("compiled", "portable")
    ]
    np.testing.assert_allclose(*losses, rtol=1e-2)


@pytest.fixture(scope="module")
def digits():
    """Training and test images."""
    train, test = cnn.data.load("mnist")
    return train.only(per_class=100), test.only(per_class=100)


def smaller(data):
    """The images at half the size."""
    images = data.images.reshape(-1, 1, 14, 2, 14, 2).mean(axis=(3, 5)).astype(np.uint8)
    return cnn.data.Dataset(images, data.labels, data.classes)


@pytest.mark.parametrize("model", ["lenet5", "resnet8"])
def test_as_accurate_as_float32(digits, model):
    """Within three standard errors of a difference of two accuracies.

    tests/endurance/compare_dtypes.py trains for longer, and ResNet-20 on photographs.
    """
    pytest.importorskip("numba")
    from helpers.cpu_with_halves import CpuWithHalves

    train, test = map(smaller, digits) if model == "resnet8" else digits
    found = {}
    for dtype in ("float32", *HALVES):
        net = cnn.models.make(model, classes=10)
        net.build(train.shape, backend=CpuWithHalves(), dtype=dtype)
        cnn.fit(net, train, epochs=4, batch_size=16, callbacks=[cnn.NaNGuard()])
        found[dtype] = cnn.evaluate(net, test)["accuracy"]
    share = found["float32"]
    assert share > 0.7
    noise = 3 * (2 * share * (1 - share) / len(test)) ** 0.5
    assert max(abs(found[dtype] - share) for dtype in HALVES) < noise, found


def one_layer(dtype="float32", device=None):
    net = cnn.Sequential(cnn.Dense(1, bias=False))
    net.build((3,), backend=device or backends.get("cpu"), dtype=dtype)
    return net


def put_gradient(net, gradient):
    net.flat.grad[:] = 0
    net.backend.asarray([gradient], out=net.parameters["0.weight"].grad)


@pytest.fixture(params=["compiled", "portable", "stand-in"])
def net(request):
    """One layer on each set of kernels."""
    return one_layer(
        device=StandInBackend() if request.param == "stand-in" else backends.get("cpu", request.param)
    )


class TestLossScaling:
    def test_the_gradient_is_divided_by_the_scale_that_it_was_multiplied_by(self, net):
        scaling = cnn.LossScaling()
        scaling.build(net)
        dy = net.backend.asarray(np.array([[0.5, -3]], np.float32))
        scaling.before_backward(net, dy)
        assert net.backend.to_host(dy).tolist() == [[0.5 * 65536, -3 * 65536]]
        put_gradient(net, [65536.0, 1, -3])
        scaling.apply(net)
        grad = net.backend.to_host(net.parameters["0.weight"].grad)
        assert grad.tolist() == [[1, 2.0**-16, -3 * 2.0**-16]]
        assert (scaling.scale, scaling.overflows) == (65536, 0)

    @pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
    def test_a_spike_halves_the_scale_and_only_the_momentum_moves_the_weights(self, net, bad):
        scaling, optimizer = cnn.LossScaling(), cnn.SGD(0.1, momentum=0.5)
        scaling.build(net)
        optimizer.build(net)
        for gradient in ([65536.0, 0, 0], [bad, 1, 2]):
            before = net.backend.to_host(net.parameters["0.weight"].value)
            put_gradient(net, gradient)
            scaling.apply(net)
            optimizer.step(0.1)
        moved = net.backend.to_host(net.parameters["0.weight"].value) - before
        np.testing.assert_allclose(moved, [[-0.1 * 0.5, 0, 0]], atol=1e-7)
        assert (scaling.scale, scaling.overflows) == (32768, 1)

    @pytest.mark.parametrize("every", [1, 3])
    def test_so_many_good_steps_in_a_row_double_the_scale(self, net, every):
        scaling = cnn.LossScaling(growth_interval=every)
        scaling.build(net)
        scales = []
        for gradient in [1.0] * every + [np.inf] + [1.0] * (2 * every):
            put_gradient(net, [gradient, 0, 0])
            scaling.apply(net)
            scales.append(scaling.scale / 65536)
        assert scales[:every] == [1.0] * (every - 1) + [2]
        assert scales[every] == 1
        assert scales[every + 1 :] == [1.0] * (every - 1) + [2] * every + [4]
        assert scaling.overflows == 1

    def test_the_usual_number_of_good_steps_is_2000(self):
        assert (cnn.LossScaling().init_scale, cnn.LossScaling().growth_interval) == (65536, 2000)

    @pytest.mark.parametrize(("initial", "gradient"), [(2.0**24, 1.0), (2.0**-24, np.nan)])
    def test_the_scale_stays_where_it_can_be_multiplied_exactly(self, net, initial, gradient):
        scaling = cnn.LossScaling(initial, growth_interval=1)
        scaling.build(net)
        put_gradient(net, [gradient, 0, 0])
        scaling.apply(net)
        assert scaling.scale == initial

    def test_it_keeps_gradients_that_float16_would_lose(self):
        tiny = 2.0**-30
        found = {}
        for transforms in ((), (cnn.LossScaling(),)):
            net = one_layer("float16", StandInBackend())
            loss = cnn.MeanSquaredError()
            loss.build(net)
            for each in transforms:
                each.build(net)
            x = net.backend.asarray(np.ones((3, 1), np.float32))
            y = net.backend.to_host(net.forward(x))
            targets = net.backend.asarray(y - np.float32(1))
            compute_gradients(net, loss, x, targets, divisor=round(2 / tiny), transforms=transforms)
            for each in transforms:
                each.apply(net)
            found[len(transforms)] = net.backend.to_host(net.parameters["0.weight"].grad).ravel()
        assert found[0].tolist() == [0, 0, 0]
        np.testing.assert_allclose(found[1], tiny, rtol=2.0**-10)

    def test_it_is_kept_for_the_same_network_and_starts_again_for_another(self, net):
        scaling = cnn.LossScaling()
        scaling.build(net)
        put_gradient(net, [np.inf, 0, 0])
        scaling.apply(net)
        scaling.build(net)
        assert scaling.scale == 32768
        scaling.build(one_layer())
        assert scaling.scale == 65536

    def test_clipping_comes_after_it(self):
        watch = Watch()
        fit(network("float16"), callbacks=[watch], transforms=[cnn.ClipNorm(1)], epochs=1)
        kinds = [type(each) for each in watch.run.training.transforms]
        assert kinds == [cnn.LossScaling, cnn.ClipNorm]

    @pytest.mark.parametrize("other", ["float32", "bfloat16"])
    def test_only_float16_gets_it_without_being_asked(self, other):
        watch = Watch()
        fit(network(other), callbacks=[watch], epochs=1)
        assert list(watch.run.training.transforms) == []

    def test_it_must_be_the_first_transform(self):
        with pytest.raises(
            cnn.ArgumentError, match="LossScaling is number 2 of the transforms, expected it first"
        ):
            fit(network("float16"), transforms=[cnn.ClipNorm(1), cnn.LossScaling()])

    @pytest.mark.parametrize(("arguments", "message"), [
        ({"init_scale": 3}, "LossScaling: init_scale is 3, expected a power of 2 from 2\\^-24 to 2\\^24"),
        ({"init_scale": 2.0**25}, "LossScaling: init_scale is 3.35544e\\+07"),
        ({"growth_interval": 0}, "LossScaling: growth_interval is 0"),
    ])  # fmt: skip
    def test_arguments(self, arguments, message):
        with pytest.raises(cnn.ArgumentError, match=message):
            cnn.LossScaling(**arguments)


class Impatient(cnn.NaNGuard):
    """Checks after each step."""

    seconds, steps = 0.0, 1


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy; a device does not warn
class TestSpikesInTraining:
    """A scale of 2^24 is too large for float16 at first: the gradients of some steps overflow."""

    def spiky(self, **options):
        watch, scaling, net = Watch(), cnn.LossScaling(2.0**24), network("float16")
        history = fit(net, callbacks=[watch, Impatient()], transforms=[scaling], **options)
        return net, history, scaling

    def test_they_neither_stop_the_run_nor_reach_the_weights(self):
        net, history, scaling = self.spiky(epochs=6)
        assert scaling.overflows > 0
        assert scaling.scale == 2.0 ** (24 - scaling.overflows)
        assert all(np.isfinite(array).all() for array in net.state_dict().values())
        assert history[-1]["loss"] < history[0]["loss"]

    def test_a_recorded_step_skips_them_too(self):
        recorded, history, _ = self.spiky()
        plain, same, scaling = self.spiky(graph=False)
        assert scaling.overflows > 0
        assert learned(history) == learned(same)
        assert_same_weights(recorded, plain)

    def test_the_scale_is_in_the_checkpoint_and_goes_on(self, tmp_path):
        path = tmp_path / "checkpoint.safetensors"
        whole, history, expected = self.spiky()
        half, rest, scaling = network("float16"), network("float16"), cnn.LossScaling(2.0**24)
        stop = [StopAfter(3), cnn.Checkpoint(path)]
        fit(half, callbacks=stop, transforms=[cnn.LossScaling(2.0**24)])
        kept = SavedTraining.read(path).arrays
        assert kept["training/loss_scaling/scale"] < 2.0**24
        assert kept["training/loss_scaling/counts"][1] > 0
        assert learned(fit(rest, resume=path, transforms=[scaling])) == learned(history)
        assert (scaling.scale, scaling.overflows) == (expected.scale, expected.overflows)
        assert_same_weights(rest, whole)

    @pytest.mark.parametrize("cut", IN_PARTS)
    def test_parts_and_shards_are_skipped_together(self, cut):
        net, _, scaling = self.spiky(**IN_PARTS[cut]())
        assert scaling.overflows > 0
        assert all(np.isfinite(array).all() for array in net.state_dict().values())

    @pytest.mark.parametrize("half", HALVES)
    def test_a_run_that_diverges_is_still_stopped(self, half):
        with pytest.raises(cnn.TrainingError, match="training has diverged"):
            fit(network(half), callbacks=[Impatient()], optimizer=cnn.SGD(1e38), epochs=6)


class Broken(cnn.layers.Layer):
    """Passes its input on, and NaN as the gradient."""

    def forward(self, x, training=False):
        y = self.output(x, training)
        self.backend.kernels.copy(x, y)
        return y

    def backward(self, dy, input_grad=True):
        dx = self.input_gradient(dy)
        dx.fill(np.nan)
        return dx


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy; a device does not warn
def test_a_gradient_that_no_scale_makes_finite_stops_the_run_and_is_found():
    net = cnn.Sequential(cnn.Flatten(), cnn.Dense(6), Broken(), cnn.Dense(4))
    net.build(DATA.shape, backend=StandInBackend(), dtype="float16")
    with pytest.raises(cnn.TrainingError, match=r"the gradients of layer 2 Broken \(backward\)"):
        fit(net, callbacks=[Impatient()], transforms=[cnn.LossScaling(2.0**-22)])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_search_for_the_rate_scales_the_loss_and_leaves_the_callers_scale_alone():
    scaling, net = cnn.LossScaling(2.0**24), network("float16")
    fit(net, transforms=[scaling])
    before = scaling.scale, scaling.overflows
    cnn.find_rate(net, DATA, batch_size=16, steps=4, transforms=[scaling])
    assert (scaling.scale, scaling.overflows) == before
