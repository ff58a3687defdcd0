"""Layers made with ``trainable=False``, and where the backward pass ends."""

import inspect

import numpy as np
import pytest

import backends
import cnn

RANDOM = np.random.default_rng(5)
LAYERS = [getattr(cnn.layers, name) for name in cnn.layers.__all__]
WITH_PARAMETERS = [
    kind
    for kind in LAYERS
    if inspect.isclass(kind)
    and issubclass(kind, cnn.Layer)
    and "self.parameter(" in inspect.getsource(kind.build)
]
DATA = cnn.data.Dataset(RANDOM.integers(0, 256, (40, 1, 8, 8)).astype("uint8"), np.arange(40) % 3)


def layers(**first):
    return [
        cnn.Conv2D(4, 3, bias=False, **first), cnn.BatchNorm2D(**first), cnn.ReLU(), cnn.MaxPool2D(2),
        cnn.Conv2D(4, 2, bias=False), cnn.BatchNorm2D(), cnn.ReLU(), cnn.Flatten(), cnn.Dense(3),
    ]  # fmt: skip


def built(*members, **options):
    net = cnn.Sequential(*members)
    net.build((1, 8, 8), backend="cpu", **options)
    return net


def trained(net):
    cnn.fit(net, DATA, batch_size=16, epochs=2, optimizer=cnn.SGD(0.1, momentum=0.9), callbacks=[])
    return net.state_dict()


@pytest.mark.parametrize("kind", WITH_PARAMETERS, ids=lambda kind: kind.__name__)
def test_every_layer_with_parameters_takes_it(kind):
    assert inspect.signature(kind).parameters["trainable"].default is True
    assert kind(*[1] * len(_required(kind)), trainable=False).frozen
    with pytest.raises(cnn.ArgumentError, match=rf"{kind.__name__}: trainable is 1, expected True or False"):
        kind(*[1] * len(_required(kind)), trainable=1)


def _required(kind):
    return [each for each in inspect.signature(kind).parameters.values() if each.default is each.empty]


def test_training_changes_nothing_of_it():
    net = built(*layers(trainable=False))
    assert net.frozen_names == tuple(name for name in net.arrays if name.startswith(("0.", "1.")))
    before = net.state_dict()
    after = trained(net)
    for name in before:
        assert np.array_equal(before[name], after[name]) == name.startswith(("0.", "1.")), name


def test_it_is_the_flag_that_freeze_sets():
    frozen, declared = built(*layers()), built(*layers(trainable=False))
    frozen.freeze("0", "1")
    assert [layer.trainable for layer in frozen.layers] == [layer.trainable for layer in declared.layers]
    assert frozen.description == declared.description
    one, other = trained(frozen), trained(declared)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    declared.unfreeze("*")
    assert declared.frozen_names == ()
    assert declared.layers[0].trainable


def test_a_built_layer_refers_to_its_network():
    net = built(*layers())
    with pytest.raises(cnn.ArgumentError, match=r'layer 0 Conv2D has its place.*net.freeze\("0"\)'):
        net.layers[0].trainable = False


def test_files_copies_and_summaries_keep_it(tmp_path, capsys):
    net = built(*layers(trainable=False))
    net.save(tmp_path / "net.safetensors")
    for twin in (cnn.load(tmp_path / "net.safetensors", device="cpu"), net.copy()):
        assert twin.frozen_names == net.frozen_names
    net.summary()
    assert "layers 0, 1 are frozen: training changes" in capsys.readouterr().out


def test_a_layer_without_arrays_may_be_untrainable():
    net = built(
        cnn.Flatten(), cnn.BatchNorm1D(affine=False, track_running_stats=False, trainable=False), cnn.Dense(3)
    )
    assert net.frozen_names == ()


@pytest.mark.parametrize("kernels", ["compiled", "portable"])
@pytest.mark.parametrize("frozen", [("0",), ("0", "1"), ("0", "1", "4"), ("1",), ("4",), ("5",)])
def test_layers_in_one_pass_are_frozen_one_by_one(frozen, kernels):
    fused, apart = (built_with(kernels, fuse) for fuse in (True, False))
    for net in (fused, apart):
        net.freeze(*frozen)
    before = fused.state_dict()
    one, other = trained(fused), trained(apart)
    for name in before:
        np.testing.assert_allclose(one[name], other[name], rtol=2e-3, atol=1e-5, err_msg=name)
        assert np.array_equal(before[name], one[name]) == name.startswith(
            tuple(f"{each}." for each in frozen)
        ), name


def built_with(kernels, fuse):
    net = cnn.Sequential(*layers())
    net.build((1, 8, 8), backend=backends.get("cpu", kernels), fuse=fuse)
    return net


def watched(net):
    """The names of the layers whose backward runs, in the order of the calls."""
    called = []

    def watch(layer):
        backward = layer.backward

        def called_backward(*arguments, **named):
            called.append(layer.path)
            return backward(*arguments, **named)

        layer.backward = called_backward

    for layer in net.walk():
        watch(layer)
    return called


@pytest.mark.parametrize(
    ("frozen", "expected"),
    [
        ((), ["8", "7", "6", "5", "4", "3", "2", "1", "0"]),
        (("0", "1"), ["8", "7", "6", "5", "4"]),
        (("0", "1", "4"), ["8", "7", "6", "5"]),
        (("0", "1", "4", "5"), ["8"]),
    ],
)
def test_backward_ends_at_the_lowest_trained_layer(frozen, expected):
    net = built(*layers(), fuse=False)
    net.freeze(*frozen)
    whole = net.copy()
    for parameter in whole.parameters.values():
        parameter.frozen = False  # only this decides where backward ends
    called = watched(net)
    x, dy = RANDOM.random((1, 8, 8, 5)).astype("float32"), RANDOM.random((3, 5)).astype("float32")
    for each in (net, whole):
        each.forward(x, training=True)
        each.backward(dy, input_grad=False)
    assert called == expected
    for name, parameter in net.parameters.items():
        if not parameter.frozen:
            np.testing.assert_array_equal(parameter.grad, whole.parameters[name].grad, err_msg=name)


def test_backward_ends_there_in_fused_passes_too():
    net = built(*layers())
    net.freeze("0")
    net.forward(RANDOM.random((1, 8, 8, 5)).astype("float32"), training=True)
    net.flat.grad[...] = 7
    net.backward(RANDOM.random((3, 5)).astype("float32"), input_grad=False)
    assert (net.parameters["0.weight"].grad == 7).all()
    assert not (net.parameters["1.weight"].grad == 7).any()
