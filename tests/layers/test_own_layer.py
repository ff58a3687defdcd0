"""A layer of a user's own: the example of CONTRIBUTING.md, and layers that are wrong."""

import re
from pathlib import Path

import numpy as np
import pytest

import cnn
from cnn.inspection.layer_checks import CHECKS
from cnn.layers.container import Container

GUIDE = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLE = re.search(r"## Add a layer.*?```python\n(.*?)```", GUIDE, re.S)[1]


@pytest.fixture
def scale(tmp_path):
    """The file with the layer of the guide, and its class."""
    path = tmp_path / "scale.py"
    path.write_text(EXAMPLE, encoding="utf-8")
    names = {}
    exec(compile(EXAMPLE, str(path), "exec"), names)
    return path, names["Scale"]


def test_the_example_of_the_guide_passes_all_checks(scale):
    _, Scale = scale
    checks = cnn.check_layer(Scale(), (3, 4, 5))
    assert [check.name for check in checks] == list(CHECKS)
    assert [check.problem for check in checks] == [None] * len(checks)


def test_the_command_of_the_guide_checks_it(scale, command):
    path, _ = scale
    code, out, err = command(
        "gradcheck", "--device", "cpu", "--layer", f"{path}:Scale()", "--input-shape", "3,4,5"
    )
    assert (code, err) == (0, "")
    assert out.count("right  ") == len(CHECKS)


def test_it_trains_between_layers_of_the_library(scale):
    _, Scale = scale
    net = cnn.Sequential(cnn.Conv2D(2, 3), cnn.ReLU(), Scale(), cnn.Flatten(), cnn.Dense(2))
    images = np.random.default_rng(0).integers(0, 256, (32, 1, 6, 6), dtype=np.uint8)
    net.build((1, 6, 6), backend="cpu")
    cnn.fit(net, cnn.data.Dataset(images, np.arange(32) % 2), epochs=2, batch_size=4, callbacks=[])
    factors = net.state_dict()["2.factor"]
    assert np.isfinite(factors).all()
    assert (factors != 1).any()


class Wrong(cnn.Layer):
    """Passes everything on."""

    def forward(self, x, training=False):
        return x.copy()

    def backward(self, dy, input_grad=True):
        return dy.copy()


class WrongGradient(Wrong):
    def backward(self, dy, input_grad=True):
        return 2 * dy


class WritesIntoItsInput(Wrong):
    def forward(self, x, training=False):
        x += 0.5
        return x


class ChangesTheDtype(Wrong):
    def forward(self, x, training=False):
        return x.astype("float64")


class Adds(Wrong):
    def build(self, input_shape, context):
        super().build(input_shape, context)
        self.bias = self.parameter("bias", input_shape, "zeros")
        return input_shape

    def backward(self, dy, input_grad=True):
        self.bias.grad += dy.sum(axis=-1)
        return dy.copy()


class MixesSamples(Wrong):
    def forward(self, x, training=False):
        return x - x.mean(axis=-1, keepdims=True)


class Breaks(Wrong):
    def forward(self, x, training=False):
        raise IndexError("out of\nbounds")


@pytest.mark.parametrize(
    ("kind", "check", "problem"),
    [
        (WrongGradient, "gradients agree with finite differences", "gradient of input is off by 5.0e-01"),
        (WritesIntoItsInput, "input and dy are not written to", "input is written to"),
        (ChangesTheDtype, "the dtype is kept", "output is float64 in a float32 network"),
        (Adds, "gradients are written, not added", "is off by"),
        (MixesSamples, "the result does not depend on how the batch is cut", "is off by"),
        (Breaks, "a batch of one sample works", "IndexError: out of bounds"),
    ],
)
def test_what_is_wrong_is_said(kind, check, problem):
    found = {result.name: result for result in cnn.check_layer(kind(), (3,))}
    assert not found[check].passed
    assert problem in found[check].problem


class Total(Container):
    """The sum of what two layers give, which copies all that it needs while one of them runs."""

    def __init__(self, first, second):
        self.first, self.second = first, second

    def keep(self, array):
        return array.copy()

    @property
    def children(self):
        return {"first": self.first, "second": self.second}

    def fresh(self):
        return type(self)(self.first.fresh(), self.second.fresh())

    def build(self, input_shape, context):
        super().build(input_shape, context)
        self.output_shape = [self.build_child(name, input_shape, context) for name in self.children][-1]
        return self.output_shape

    def forward(self, x, training=False):
        x = x.copy()
        return self.keep(self.first.forward(x, training)) + self.second.forward(x, training)

    def backward(self, dy, input_grad=True):
        dy = dy.copy()
        return self.keep(self.first.backward(dy)) + self.second.backward(dy)


class CopiesNothing(Total):
    def keep(self, array):
        return array


@pytest.mark.parametrize(("kind", "is_right"), [(Total, True), (CopiesNothing, False)])
def test_a_container_copies_the_gradient_of_a_child_before_the_next_one_runs(kind, is_right):
    layer = kind(cnn.Residual(cnn.Dense(3)), cnn.Residual(cnn.Dense(3)))
    found = {check.name: check.problem for check in cnn.check_layer(layer, (3,))}
    assert (found["gradients agree with finite differences"] is None) == is_right


class ForgetsInInference(Total):
    """Is right in training, where outputs stay."""

    def forward(self, x, training=False):
        return self.first.forward(x, training) + self.second.forward(x, training)


class RunsOneInInference(Total):
    """Gives in training what only inference may give: an output that the next layer's gradient overwrites."""

    def forward(self, x, training=False):
        return self.first.forward(x)

    def backward(self, dy, input_grad=True):
        return dy


@pytest.mark.parametrize(
    ("kind", "what"), [(ForgetsInInference, "output of inference"), (RunsOneInInference, "gradient of")]
)
def test_reading_what_another_layer_has_overwritten_is_found_where_layers_share_memory(kind, what):
    found = {check.name: check.problem for check in cnn.check_layer(kind(cnn.Dense(3), cnn.Dense(3)), (3,))}
    problem = found["nothing is read that another layer has overwritten"]
    assert what in problem
    assert "is wrong where layers share memory: hold what is read after" in problem


@pytest.mark.parametrize(
    ("layer", "problem"),
    [("Dense(3)", "layer is 'Dense"), (cnn.Dense, "layer is <class"), (None, "layer is None")],
)
def test_something_that_is_no_layer_is_refused(layer, problem):
    with pytest.raises(cnn.ArgumentError, match=problem):
        cnn.check_layer(layer, (3,))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            ("--layer", "nowhere.py:Scale()", "--input-shape", "3"),
            "there is no file nowhere.py: give",
        ),
        (("--layer", "nowhere.py:Scale()"), "belong together"),
        (("--input-shape", "3"), "belong together"),
        (("--layer", "{}:Scale()", "--input-shape", "three"), "--input-shape is 'three'"),
        (("--layer", "{}:Scales()", "--input-shape", "3"), "NameError: name 'Scales' is not defined"),
        (("--layer", "{}:5", "--input-shape", "3"), "--layer is 5, expected a Layer"),
    ],
)
def test_the_command_says_what_is_wrong_with_its_arguments(scale, command, arguments, problem):
    path, _ = scale
    code, out, err = command("gradcheck", "--device", "cpu", *(part.format(path) for part in arguments))
    assert (code, out) == (2, "")
    assert problem in err
