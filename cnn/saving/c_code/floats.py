"""The C code of operations in float32."""

from collections.abc import Callable

import numpy as np

from cnn.data.preprocessing import Preprocessing
from cnn.saving.c_code.operations import Node, Program
from cnn.saving.c_code.text import Code

CONSTANTS = {"leaky_relu": "a", "elu": "ab", "softplus": "ab"}  # that functions with constants take


def _convolution(code: Code, node: Node) -> None:
    arrays = node.operation.arrays
    bias = arrays.get("bias")
    biases = 0 if bias is None else bias.size // node.output.channels
    window, names = code.window(node, biases), _weights(code, node)
    code.call(node.kind, window, *names, code.address(node.inputs[0]), code.address(node.output))


def _dense(code: Code, node: Node) -> None:
    (x,), y = node.inputs, node.output
    code.call("dense", *_weights(code, node), code.address(x), x.size, y.size, code.address(y))


def _weights(code: Code, node: Node) -> list[str]:
    """The names of the weight and the bias."""
    arrays = node.operation.arrays
    return [code.array(name, node, arrays[name]) if name in arrays else "NULL" for name in ("weight", "bias")]


def _max_pooling(code: Code, node: Node) -> None:
    code.call("pool_max", code.window(node), code.address(node.inputs[0]), code.address(node.output))


def _resampling(code: Code, node: Node) -> None:
    (x,), settings = node.inputs, node.operation.settings
    samplings = [
        code.sampling(name, node, settings[name], np.array(settings[name].lists[1], np.float32))
        for name in ("rows", "columns")
    ]
    code.call("resample", *samplings, code.address(x), x.channels, code.address(node.output))


def _by_channel(code: Code, node: Node) -> None:
    """A function of the channels and the positions of its input."""
    (x,), y = node.inputs, node.output
    code.call(node.kind, code.address(x), x.channels, x.positions, code.address(y))


def _channel_padding(code: Code, node: Node) -> None:
    (x,), y, before = node.inputs, node.output, node.operation.settings["before"]
    sizes = before, x.channels, y.channels, x.positions
    code.call("pad_channels", code.address(x), *sizes, code.address(y))


def _activation(code: Code, node: Node) -> None:
    (x,), function = node.inputs, node.operation.settings["function"]
    constants = [float(getattr(function, name)) for name in CONSTANTS.get(function.name, "")]
    code.call(f"activate_{function.name}", code.address(x), x.size, *constants, code.address(node.output))


def _prelu(code: Code, node: Node) -> None:
    (x,), slopes = node.inputs, node.operation.arrays["weight"]
    name = code.array("slopes", node, slopes)
    code.call(
        "activate_prelu", code.address(x), name, slopes.size, x.size // slopes.size, code.address(node.output)
    )


def _affine(code: Code, node: Node) -> None:
    (x,), arrays = node.inputs, node.operation.arrays
    names = [code.array(name, node, arrays[name]) for name in ("scale", "shift")]
    code.call("scale_and_shift", code.address(x), *names, x.channels, x.positions, code.address(node.output))


def _multiplication(code: Code, node: Node) -> None:
    (x,), factor = node.inputs, float(node.operation.settings["factor"])
    code.call("multiply", code.address(x), factor, x.size, code.address(node.output))


def _normalization(code: Code, node: Node) -> None:
    (x,), y, settings, arrays = node.inputs, node.output, node.operation.settings, node.operation.arrays
    groups = settings["groups"]
    size = x.size // groups
    code.call("normalize", code.address(x), groups, size, float(settings["eps"]), code.address(y))
    if "weight" in arrays:
        weight = arrays["weight"]
        scale = code.array("scale", node, weight)
        shift = code.array("shift", node, arrays.get("bias", np.zeros_like(weight)))
        sizes = weight.size, x.size // weight.size
        code.call("scale_and_shift", code.address(y), scale, shift, *sizes, code.address(y))


def _sum(code: Code, node: Node) -> None:
    (a, b), y = node.inputs, node.output
    code.call("add", code.address(a), code.address(b), y.size, code.address(y))


def _concatenation(code: Code, node: Node) -> None:
    offset = 0
    for part in node.inputs:
        code.copy(code.address(part), node.output, offset, part.size)
        offset += part.size


def _view(code: Code, node: Node) -> None:
    code.copy(code.address(node.inputs[0]), node.output)


EMITTERS: dict[str, Callable[[Code, Node], None]] = {
    "convolve": _convolution,
    "convolve_transposed": _convolution,
    "dense": _dense,
    "pool_max": _max_pooling,
    "average": _by_channel,
    "resample": _resampling,
    "pad_channels": _channel_padding,
    "activate": _activation,
    "prelu": _prelu,
    "scale_and_shift": _affine,
    "multiply": _multiplication,
    "normalize": _normalization,
    "softmax": _by_channel,
    "log_softmax": _by_channel,
    "add": _sum,
    "concatenate": _concatenation,
    "reshape": _view,
}
"""The function that writes each kind of operation."""


class Float32:
    """Writes a program in float32."""

    name, element, itemsize, sources = "float32", "float", 4, ("shared.c", "floats.c")

    def __init__(self, program: Program, preprocessing: Preprocessing | None) -> None:
        """``preprocessing`` is that of images; None: the input is no image."""
        self.nodes, self.input, self.output = program.nodes, program.input, program.output
        self.multiply_adds = program.multiply_adds
        self._preprocessing = preprocessing

    def write(self, code: Code, node: Node) -> None:
        """Write one operation."""
        EMITTERS[node.kind](code, node)

    def prepare(self, code: Code) -> None:
        """Write how the input of either kind is brought into the work buffer."""
        x, place = self.input, code.address(self.input)
        if self._preprocessing is None:
            code.begin("prepare_floats")
            code.copy("image", x)
            return
        for name, dtype in (("bytes", np.uint8), ("floats", np.float32)):
            code.begin(f"prepare_{name}")
            shift, scale = self._preprocessing.arrays(np.dtype(dtype), "float32")
            names = [
                code.array(f"{name}_{each}", None, array)
                for each, array in (("shift", shift), ("scale", scale))
            ]
            code.call(f"prepare_{name}", "image", *names, x.channels, x.positions, place)
