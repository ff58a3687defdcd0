"""A new head on a trained network, and which layers are frozen."""

import numpy as np
import pytest

import cnn
from cnn.models import heads

RANDOM = np.random.default_rng(3)


def built(*layers, shape=(1, 8, 8), **options):
    net = cnn.Sequential(*layers)
    net.build(shape, backend="cpu", **options)
    return net


def small(**options):
    return built(
        cnn.Conv2D(4, 3, bias=False), cnn.BatchNorm2D(), cnn.ReLU(), cnn.MaxPool2D(2),
        cnn.Residual(cnn.Conv2D(4, 3, padding=1), cnn.ReLU()), cnn.Flatten(), cnn.Dense(3), cnn.Softmax(),
        **options,
    )  # fmt: skip


class TestReplaceHead:
    def test_keeps_everything_before_the_head(self):
        net = small(seed=1)
        net.preprocessing = cnn.Preprocessing(mean=(0.3,), std=(0.2,), fit="letterbox")
        net.class_names = ("a", "b", "c")
        x = RANDOM.random((1, 8, 8, 5)).astype("float32")
        net.forward(x, training=True)  # running statistics that are not the first ones
        before = net.state_dict()
        made = cnn.replace_head(net, 5, seed=2)
        after = made.state_dict()
        for name, array in before.items():
            if not name.startswith("6."):
                np.testing.assert_array_equal(array, after[name], err_msg=name)
            np.testing.assert_array_equal(array, net.state_dict()[name], err_msg=name)
        assert after["6.weight"].shape == (5, 36)
        assert made.preprocessing == net.preprocessing
        assert made.class_names is None
        assert made.predict(RANDOM.random((2, 1, 8, 8))).shape == (2, 5)

    def test_the_new_weights_follow_from_the_seed(self):
        net = small()
        first, again, other = (cnn.replace_head(net, 3, seed=seed).state_dict() for seed in (1, 1, 2))
        np.testing.assert_array_equal(first["6.weight"], again["6.weight"])
        assert not np.array_equal(first["6.weight"], other["6.weight"])
        assert not np.array_equal(first["6.weight"], net.state_dict()["6.weight"])

    def test_keeps_what_is_frozen_except_the_head(self):
        net = small()
        net.freeze("0", "1.weight", "6")
        assert cnn.replace_head(net, 2).frozen_names == ("0.weight", "1.weight")

    @pytest.mark.parametrize(
        ("layers", "head", "names"),
        [
            ([cnn.Flatten(), cnn.Dense(4), cnn.Softmax()], "1", ["1.weight", "1.bias"]),
            ([cnn.Conv2D(4, 3), cnn.GlobalAvgPool2D(), cnn.Rescale(0.5)], "0", ["0.weight", "0.bias"]),
            (
                [cnn.Flatten(), cnn.Dense(4, bias=False), cnn.BatchNorm1D(track_running_stats=False)],
                "1",
                ["1.weight", "2.weight", "2.bias"],
            ),
            (
                [cnn.Sequential(cnn.Flatten(), cnn.Dense(4)), cnn.Sequential(cnn.ReLU())],
                "0.1",
                ["0.1.weight", "0.1.bias"],
            ),
        ],
    )
    def test_finds_the_layer_with_a_number_of_outputs(self, layers, head, names):
        net = built(*(layer.fresh() for layer in layers))
        made = cnn.replace_head(net, 7)
        assert cnn.find_head(net) == cnn.find_head(made) == head
        assert heads.head_names(made) == names
        assert made.output_shape == (7,)

    @pytest.mark.parametrize("name", cnn.models.MODELS)
    def test_suits_every_model(self, name):
        whole = heads.with_head(cnn.models.make(name, 10), 3)
        assert whole.count_parameters((3, 32, 32)) == cnn.models.make(name, 3).count_parameters((3, 32, 32))

    def test_says_what_it_cannot_do(self):
        with pytest.raises(
            cnn.ArgumentError, match=r"layer 0 Parallel is the last one with weights and has branches"
        ):
            cnn.find_head(built(cnn.Parallel(cnn.Conv2D(2, 1), cnn.Conv2D(2, 1)), cnn.GlobalAvgPool2D()))
        with pytest.raises(cnn.ArgumentError, match=r"no layer that tells classes apart: expected one"):
            cnn.replace_head(built(cnn.Flatten()), 3)
        with pytest.raises(cnn.ShapeError, match=r"the network's output is \(3, 6, 6\): expected"):
            cnn.replace_head(built(cnn.Conv2D(2, 3)), 3)
        with pytest.raises(cnn.ArgumentError, match=r"classes is 0, expected a whole number of at least 1"):
            cnn.replace_head(small(), 0)
        with pytest.raises(cnn.ArgumentError, match=r"not built yet"):
            cnn.replace_head(cnn.models.lenet5(), 3)


class TestFreeze:
    @pytest.mark.parametrize(
        ("what", "frozen"),
        [("1", "0"), ("2", "01"), ("4", "01"), ("5", "014"), ("6", "014"), ("all-but-head", "014")],
    )
    def test_counts_layers_as_the_summary_does(self, what, frozen):
        net = small()
        net.freeze("6")
        heads.freeze(net, what)
        assert net.frozen_names == tuple(name for name in net.arrays if name[0] in frozen)

    @pytest.mark.parametrize(
        ("what", "message"),
        [
            ("7", r"--freeze is 7, but layer 6 tells the classes apart.*a number up to 6, or all-but-head"),
            ("0", r"--freeze is '0', expected the number of first layers"),
            ("-1", r"--freeze is '-1', expected"),
            ("all", r"--freeze is 'all', expected the number .*, or all-but-head"),
        ],
    )
    def test_refuses_what_leaves_nothing_to_train_or_is_no_number(self, what, message):
        with pytest.raises(cnn.ArgumentError, match=message):
            heads.freeze(small(), what)

    def test_refuses_layers_without_weights(self):
        net = built(cnn.MaxPool2D(2), cnn.Conv2D(2, 1), cnn.Flatten(), cnn.Dense(2))
        with pytest.raises(
            cnn.ArgumentError, match=r"includes no layer with weights: the first one is layer 1"
        ):
            heads.freeze(net, "1")
        with pytest.raises(cnn.ArgumentError, match=r"includes no layer with weights: only the head has any"):
            heads.freeze(built(cnn.Flatten(), cnn.Dense(2)), "all-but-head")
