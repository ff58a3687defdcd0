"""recompute=True: blocks compute what is inside them again; the same bits with less memory."""

import gc
import warnings

import numpy as np
import pytest
from helpers.standin import StandInBackend, counters

import backends
import cnn
from cnn.data import Dataset
from cnn.inspection.memory import memory
from cnn.layers import Layer
from cnn.selftest.cases import LAYERS

RANDOM = np.random.default_rng(0)
TRAIN = Dataset(RANDOM.integers(0, 256, (22, 2, 8, 8), dtype=np.uint8), np.arange(22) % 3)
KERNELS = ["portable", "compiled"]


def block(channels, *more, stride=1):
    inside = [
        cnn.Conv2D(channels, 3, stride=stride, padding=1, bias=False), cnn.BatchNorm2D(), cnn.ReLU(),
        cnn.Dropout(0.2), *more, cnn.Conv2D(channels, 3, padding=1, bias=False), cnn.BatchNorm2D(),
    ]  # fmt: skip
    shortcut = cnn.Conv2D(channels, 1, stride=stride, bias=False) if stride > 1 else None
    return [cnn.Residual(*inside, shortcut=shortcut), cnn.ReLU()]


def resnet(*more):
    """Blocks of every kind: with and without a shortcut, nested, concatenated, in sequence, not joined."""
    return cnn.Sequential(
        cnn.Conv2D(4, 3, padding=1, bias=False), cnn.BatchNorm2D(), cnn.ReLU(),
        *block(4), *block(4), *block(6, *more, stride=2),
        cnn.Residual(*block(6), cnn.Dropout2D(0.1)),
        cnn.Parallel(cnn.Conv2D(2, 1), cnn.Sequential(), cnn.MaxPool2D(3, 1, 1), join="concatenate"),
        cnn.Sequential(cnn.Conv2D(5, 3), cnn.BatchNorm2D(momentum=None), cnn.GELU()),
        cnn.GlobalAvgPool2D(), cnn.Dense(3),
    )  # fmt: skip


def trained(recompute, made=None, kernels="portable", backend=None, fuse=True, **options):
    """(the state after some epochs, the history without its times, the network)"""
    net = made or resnet()
    if kernels == "compiled" and backend is None:
        pytest.importorskip("numba")
    net.build((2, 8, 8), backend=backend or backends.CpuBackend(kernels), seed=1, fuse=fuse)
    options = {"epochs": 2, "batch_size": 5, "callbacks": [], "validation": TRAIN} | options
    history = cnn.fit(net, TRAIN, recompute=recompute, **options)
    return net.state_dict(), [{k: v for k, v in line.items() if "second" not in k} for line in history], net


def assert_same(one, other):
    assert one[1] == other[1]
    for name, value in one[0].items():
        np.testing.assert_array_equal(value, other[0][name], err_msg=name)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("graph", [True, False])
def test_the_weights_the_statistics_and_the_history_are_the_same_bit_for_bit(kernels, graph):
    augment = [cnn.augment.Shift(1)]
    found, expected = (trained(each, kernels=kernels, graph=graph, augment=augment) for each in (True, False))
    assert_same(found, expected)
    assert found[0]["1.num_batches_tracked"] == found[0]["3.1.num_batches_tracked"] == 2 * 5


@pytest.mark.parametrize(
    "options", [{"accumulate": 2}, {"fuse": False}, {"optimizer": cnn.AdamW(0.01)}], ids=",".join
)
def test_the_same_holds_for_parts_of_batches_and_without_fusion(options):
    assert_same(*(trained(each, **options) for each in (True, False)))


def test_the_same_holds_on_a_device_that_records_steps():
    device = StandInBackend()
    found = trained(True, backend=device)
    assert counters.graph_launches
    assert_same(found, trained(False, backend=StandInBackend()))


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
def test_every_layer_gives_the_same_bits_a_second_time(case):
    results = []
    for recompute in (True, False):
        net = cnn.Sequential(cnn.Sequential(case.make()), cnn.Sequential(case_after(case)))
        net.build(case.input_shape, backend=backends.CpuBackend("portable"), seed=1)
        random = np.random.default_rng(5)
        x = random.standard_normal((*case.input_shape, 4)).astype("float32")
        dy = random.standard_normal((*net.output_shape, 4)).astype("float32")
        with net.recomputing(recompute):
            found = {"y": net.forward(x, training=True).copy(), "dx": net.backward(dy).copy()}
        results.append(found | {"gradient": net.flat.grad} | net.state_dict())
    for name, value in results[0].items():
        np.testing.assert_array_equal(value, results[1][name], err_msg=name)


def case_after(case):
    """A layer for a second block, so that two blocks share their memory."""
    return cnn.Dropout(0.3) if len(case.output_shape) != 3 else cnn.BatchNorm2D()


def test_frozen_blocks_stay_as_they_are():
    results = []
    for recompute in (True, False):
        net = resnet()
        net.build((2, 8, 8), backend=backends.CpuBackend("portable"), seed=1)
        net.freeze("3", "5")
        cnn.fit(net, TRAIN, batch_size=5, callbacks=[], recompute=recompute)
        results.append((net.state_dict(), None))
    assert_same(*results)


def live_after_a_step(made, recompute, shape, batch):
    """Bytes of the arrays that a training step has made on the stand-in device."""
    gc.collect()  # those of other networks
    device = StandInBackend(column_bytes=1 << 14)
    made.build(shape, backend=device)
    x = device.zeros(int(np.prod(shape)) * batch, "float32").reshape(*shape, batch)
    before = counters.live_bytes
    with made.recomputing(recompute):
        y = made.forward(x, training=True)
        made.backward(y, input_grad=False)
        for scratch in vars(device._thread).values():  # of the portable kernels
            scratch.release()
        return counters.live_bytes - before


def test_the_memory_grows_with_the_blocks_outputs_alone():
    def deep(blocks):
        layers = [layer for _ in range(blocks) for layer in block(8)]
        return cnn.Sequential(cnn.Conv2D(8, 3, padding=1), *layers, cnn.GlobalAvgPool2D(), cnn.Dense(3))

    image = 8 * 8 * 8 * 4 * 16  # bytes of the output of a layer
    grown = {
        recompute: live_after_a_step(deep(7), recompute, (2, 8, 8), 16)
        - live_after_a_step(deep(3), recompute, (2, 8, 8), 16)
        for recompute in (True, False)
    }
    assert grown[True] == pytest.approx(4 * image, rel=0.03)  # each block keeps its output
    assert grown[False] == pytest.approx(4 * 4 * image, rel=0.03)  # two convolutions, dropout, the sum


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_blocks_share_the_padded_inputs_of_their_convolutions(mode):
    def padded(blocks):
        inside = (cnn.Residual(cnn.Conv2D(8, 3, padding=1, padding_mode=mode)) for _ in range(blocks))
        return cnn.Sequential(cnn.Conv2D(8, 3, padding=1), *inside, cnn.GlobalAvgPool2D(), cnn.Dense(3))

    def taken(blocks):
        return live_after_a_step(padded(blocks), True, (2, 8, 8), 16)

    image = 8 * 8 * 8 * 4 * 16  # bytes of the output of a layer
    assert taken(7) - taken(3) == pytest.approx(4 * image, rel=0.1)  # each block keeps its output alone


def test_resnet20_takes_less_memory_than_pytorch_by_the_arithmetic_of_the_docs():
    batch, A = 8, 16 * 32 * 32 * 4  # A, A / 2, A / 4: bytes of a layer's output in the three stages
    pytorch = 14 * A + 12 * A / 2 + (12 + 3) * A / 4  # inputs of BatchNorm, outputs of ReLU, three gradients
    nets = {recompute: cnn.models.make("resnet20", classes=10) for recompute in (True, False)}
    taken = {
        recompute: live_after_a_step(net, recompute, (3, 32, 32), batch) / batch
        for recompute, net in nets.items()
    }
    assert taken[True] == pytest.approx(13.1 * A, rel=0.01)  # docs/measurements/cuda.md
    assert taken[False] == pytest.approx(23.7 * A, rel=0.01)
    assert taken[False] < pytorch


def test_training_without_it_afterwards_is_as_before():
    _, _, net = trained(True)
    other = trained(False)[2]
    assert not net.recomputes
    for each in (net, other):
        cnn.fit(each, TRAIN, batch_size=5, callbacks=[])
    assert_same((net.state_dict(), None), (other.state_dict(), None))


def test_a_run_may_be_resumed_without_it(tmp_path):
    class Stop(cnn.Callback):
        def on_step(self, run):
            run.stop = (run.epoch, run.step) == (2, 2)

    callbacks = [Stop(), cnn.Checkpoint(tmp_path / "c.safetensors")]
    trained(True, callbacks=callbacks)
    resumed = trained(False, resume=tmp_path / "c.safetensors")
    np.testing.assert_equal(resumed[0], trained(True)[0])


def test_where_values_are_no_longer_finite_is_found_inside_blocks_too():
    messages = []
    for recompute in (True, False):
        options = {"optimizer": cnn.SGD(1e30), "callbacks": [cnn.NaNGuard()], "validation": None}
        with pytest.raises(cnn.TrainingError) as caught, np.errstate(all="ignore"):
            trained(recompute, **options)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert "first the" in messages[0]


class Counting(Layer):
    """Counts its training forwards."""

    def build(self, input_shape, context):
        self.count = 0
        return super().build(input_shape, context)

    def forward(self, x, training=False):
        self.count += training
        return x

    def backward(self, dy, input_grad=True):
        return dy


def test_a_block_with_a_layer_of_ones_own_is_not_recomputed():
    own = Counting()
    found = trained(True, resnet(own))
    assert own.count == 2 * 5
    assert_same(found, trained(False, resnet(Counting())))


def test_a_network_without_blocks_says_that_nothing_changes():
    plain = cnn.Sequential(cnn.Flatten(), cnn.Dense(3))
    with pytest.warns(UserWarning, match="recompute changes nothing: the network has no block"):
        trained(True, plain)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(True)


def noted(layer, outputs, values):
    """The layer's forward, which keeps its output and a copy of it."""
    forward = layer.forward

    def noting(*arguments, **named):
        outputs[layer] = forward(*arguments, **named)
        values[layer] = outputs[layer].copy()
        return outputs[layer]

    return noting


def test_layers_that_are_watched_meanwhile_have_memory_of_their_own():
    net = resnet()
    net.build((2, 8, 8), backend=backends.CpuBackend("portable"), seed=1)
    x = RANDOM.standard_normal((2, 8, 8, 4)).astype("float32")
    with net.recomputing():
        assert net.recomputes
        with net.unfused():
            assert not net.recomputes
            outputs, values = {}, {}
            for layer in net.walk():
                layer.forward = noted(layer, outputs, values)
            net.forward(x, training=True)
            for layer in outputs:
                del layer.forward
        assert net.recomputes
    assert len(outputs) > 20
    for layer, output in outputs.items():
        np.testing.assert_array_equal(output, values[layer], err_msg=layer.label)
    assert not net.recomputes


@pytest.mark.parametrize("recompute", [True, False])
def test_the_estimate_is_what_training_allocates(recompute):
    device = StandInBackend(column_bytes=1 << 14)
    images = RANDOM.integers(0, 256, (8, 3, 32, 32), dtype=np.uint8)
    data, optimizer = Dataset(images, np.arange(8) % 10), cnn.SGD(0.1)
    net = cnn.models.make("resnet8", classes=10)
    net.build((3, 32, 32), backend=device)
    said = memory(net, optimizer, data, data, 8, recompute=recompute)
    gc.collect()
    before = counters.live_bytes
    most = []

    class Watch(cnn.Callback):
        def on_epoch(self, run, record):
            most.append(counters.live_bytes - before)

    cnn.fit(
        net,
        data,
        data,
        optimizer=optimizer,
        batch_size=16,
        graph=False,
        callbacks=[Watch()],
        recompute=recompute,
    )
    assert 0.85 < (said.total - said.parameters - said.guard) / most[0] < 1.15
