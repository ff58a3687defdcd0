"""The C code of operations in integers of 8 bits.

A number is ``scale * (integer - zero)``. A value has one scale and one zero, which follow from its smallest
and its largest number on the calibration images. Weights have a scale for each output channel and the zero 0.
Products are summed in 32 bits. A sum becomes an output by a multiplication with an integer and a shift, so
that no floating-point unit is needed. Functions of one number are tables. The last operations, which only
change the outputs of the last layer, such as a softmax, are computed in float32.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import frexp, log2
from typing import Any

import numpy as np

from backends import Window
from cnn.data.preprocessing import BYTE, Preprocessing
from cnn.network import Network
from cnn.saving.c_code import floats
from cnn.saving.c_code.operations import Node, Operation, Program, Value
from cnn.saving.c_code.text import Code
from cnn.support.errors import ArgumentError

LOWEST, HIGHEST = -128, 127
LARGEST_SUM = 2**31 - 1
LARGEST_BIAS = 2**30
TAP_BITS = 20  # of weights of the taps of a resampling, as int8.c has it
PIXEL_BITS = 16  # of the scale of bytes of an image
SUM_BITS = 21  # of the scales of two addends: 255 times both is less than 2^31
IN_FLOATS = {
    "activate", "prelu", "scale_and_shift", "multiply", "normalize", "softmax", "log_softmax", "reshape",
}  # fmt: skip
"""Operations that are computed in float32 if only such ones follow."""
SAME_NUMBERS = {"pool_max", "pad_channels", "reshape"}
"""Operations whose output consists of numbers of the input, and zeros."""
RECTIFIABLE = {"convolve", "convolve_transposed", "dense", "add"}
"""Operations that can compute a ReLU after them in the same pass."""


@dataclass(frozen=True)
class Scale:
    """The number that an integer stands for: ``scale * (integer - zero)``."""

    scale: float
    zero: int

    @classmethod
    def of(cls, low: float, high: float) -> "Scale":
        """The scale with which the numbers from low to high, and 0, are integers of 8 bits."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / (HIGHEST - LOWEST) or 1.0
        return cls(scale, int(np.clip(round(LOWEST - low / scale), LOWEST, HIGHEST)))

    def integers(self, numbers: Any) -> Any:
        """The nearest integers."""
        return np.clip(np.rint(numbers / self.scale) + self.zero, LOWEST, HIGHEST).astype(np.int8)


class Int8:
    """Writes a program in integers; the ranges of its values must have been measured."""

    name, element, itemsize, sources = "int8", "int8_t", 1, ("shared.c", "int8.c", "floats.c")

    def __init__(
        self, program: Program, preprocessing: Preprocessing | None, network: Network, has_bytes: bool
    ) -> None:
        """``has_bytes`` says whether calibration images are bytes, whose range is known."""
        self.input, self.output = program.input, program.output
        self.multiply_adds = program.multiply_adds
        self._preprocessing, self._backend = preprocessing, network.backend
        head, tail = _cut(program.nodes)
        head = _rectified([_as_convolution(node) for node in head])
        self._scales = {self.input: self._input_scale(has_bytes)}
        for node in head:
            self._scales[node.output] = self._scale_of(node)
        if head and head[-1].kind == "dense":
            head[-1] = replace(head[-1], operation=replace(head[-1].operation, kind="dense_to_floats"))
        else:
            integers = tail[0].inputs[0] if tail else program.output
            result = Value(integers.shape)
            head.append(Node(Operation("to_floats"), (integers,), result, network))
            if tail:
                tail[0] = replace(tail[0], inputs=(result,))
            else:
                self.output = result
        self.nodes = [*head, *tail]
        self._in_floats = {id(node) for node in tail}

    def write(self, code: Code, node: Node) -> None:
        """Write one operation."""
        if id(node) in self._in_floats:
            floats.EMITTERS[node.kind](code, node)
        elif node.kind in EMITTERS:
            EMITTERS[node.kind](self, code, node)
        else:
            raise ArgumentError(
                f"layer {node.layer.label} cannot be computed in integers: export the network without int8"
            )

    def prepare(self, code: Code) -> None:
        """Write how the input of either kind becomes integers in the work buffer."""
        x, place, (scale, zero) = self.input, code.address(self.input), self._of(self.input)
        if self._preprocessing is None:
            shift, factor, sizes = np.zeros(1), np.ones(1), (1, x.size)
        else:
            sizes = x.channels, x.positions
            shift, factor = self._preprocessing.arrays(np.dtype(np.uint8), "float64")
            factor, unit = factor / scale, 1 << PIXEL_BITS
            code.begin("prepare_bytes")
            names = [
                code.array(f"bytes_{name}", None, np.rint(unit * numbers).astype(np.int32))
                for name, numbers in (("scale", factor), ("shift", zero - shift * factor))
            ]
            code.call("prepare_bytes", "image", *names, *sizes, place)
            shift, factor = self._preprocessing.arrays(np.dtype(np.float32), "float64")
        code.begin("prepare_floats")
        names = [
            code.array(f"floats_{name}", None, np.float32(numbers))
            for name, numbers in (("shift", shift), ("scale", factor / scale))
        ]
        code.call("prepare_floats", "image", *names, *sizes, zero, place)

    def _input_scale(self, has_bytes: bool) -> Scale:
        if self._preprocessing is None or not has_bytes:
            return Scale.of(self.input.low, self.input.high)
        shift, scale = self._preprocessing.arrays(np.dtype(np.uint8), "float64")
        return Scale.of(min(-shift * scale), max((BYTE - shift) * scale))

    def _scale_of(self, node: Node) -> Scale:
        """The scale of the output of an operation."""
        settings, before = node.operation.settings, self._scales[node.inputs[0]]
        if node.kind == "multiply":
            return replace(before, scale=before.scale * settings["factor"])
        if node.kind in SAME_NUMBERS or (node.kind == "resample" and _is_mean(settings)):
            return before
        return Scale.of(node.output.low, node.output.high)

    def _of(self, value: Value) -> tuple[float, int]:
        return self._scales[value].scale, self._scales[value].zero

    def _lowest(self, node: Node) -> int:
        """The lowest integer of the output."""
        return self._scales[node.output].zero if "rectified" in node.operation.settings else LOWEST

    def convolution(self, code: Code, node: Node) -> None:
        """A convolution of either kind."""
        _, biases, structure = self._weights(code, node)
        window = code.window(node, biases)
        code.call(node.kind, window, structure, code.address(node.inputs[0]), code.address(node.output))

    def dense(self, code: Code, node: Node) -> None:
        """A dense layer."""
        (x,), y = node.inputs, node.output
        structure = self._weights(code, node)[2]
        code.call("dense", structure, code.address(x), x.size, y.size, code.address(y))

    def dense_to_floats(self, code: Code, node: Node) -> None:
        """A dense layer whose outputs are floats."""
        (x,), y, (scale, zero) = node.inputs, node.output, self._of(node.inputs[0])
        weight, bias, scales = self._integers(node)
        names = code.array("weight", node, weight), code.array("bias", node, bias)
        factors = code.array("scales", node, np.float32(scale * scales))
        code.call(node.kind, *names, factors, code.address(x), zero, x.size, y.size, code.address(y))

    def to_floats(self, code: Code, node: Node) -> None:
        """The end of the operations in integers."""
        (x,), y, (scale, zero) = node.inputs, node.output, self._of(node.inputs[0])
        code.call("to_floats", code.address(x), zero, float(scale), x.size, code.address(y))

    def _weights(self, code: Code, node: Node) -> tuple[str, int, str]:
        """Define weights and what is done to sums; -> (weights, biases for each channel, structure)."""
        (scale, zero), (out_scale, out_zero) = self._of(node.inputs[0]), self._of(node.output)
        weight, bias, scales = self._integers(node)
        multipliers, shifts = np.transpose([_fixed_point(scale * each / out_scale) for each in scales])
        names = [
            code.array("weight", node, weight),
            code.array("bias", node, bias),
            code.array("multipliers", node, multipliers.astype(np.int32)),
            code.array("shifts", node, shifts.astype(np.uint8)),
        ]
        members = *names, zero, out_zero, self._lowest(node)
        return names[0], bias.size // len(scales), code.structure("quantized", "quantized", node, members)

    def _integers(self, node: Node) -> tuple[Any, Any, Any]:
        """The weights and the bias as integers, and the scale of each output channel's weights."""
        outputs = node.output.channels
        bias = node.operation.arrays.get("bias", np.zeros(outputs)).astype(np.float64).reshape(outputs, -1)
        scale = self._scales[node.inputs[0]].scale
        rows = _rows(node)
        scales = np.maximum(abs(rows).max(axis=1) / HIGHEST, abs(bias).max(axis=1) / (scale * LARGEST_BIAS))
        scales[scales == 0] = 1.0
        integers = np.rint(rows / scales[:, None])
        biases = np.rint(bias / (scale * scales[:, None]))
        largest = (BYTE * abs(integers).sum(axis=1) + abs(biases).max(axis=1)).max()
        if largest > LARGEST_SUM:
            raise ArgumentError(
                f"layer {node.layer.label} sums up too many products for 32-bit integers: "
                "export the network without int8"
            )
        return _from_rows(node, integers).astype(np.int8), biases.astype(np.int32), scales

    def max_pooling(self, code: Code, node: Node) -> None:
        """The largest numbers; their scale stays."""
        code.call("pool_max", code.window(node), code.address(node.inputs[0]), code.address(node.output))

    def average(self, code: Code, node: Node) -> None:
        """The means of channels."""
        (x,), y, (scale, zero), (out_scale, out_zero) = (
            node.inputs, node.output, self._of(node.inputs[0]), self._of(node.output),
        )  # fmt: skip
        factor = _fixed_point(scale / out_scale / x.positions)
        code.call(
            "average", code.address(x), zero, x.channels, x.positions, *factor, out_zero, code.address(y)
        )

    def resampling(self, code: Code, node: Node) -> None:
        """Weighted sums of rows and columns; the change of the scale is part of the rows' weights."""
        (x,), (scale, zero), (out_scale, out_zero) = (
            node.inputs,
            self._of(node.inputs[0]),
            self._of(node.output),
        )
        factors = {"rows": scale / out_scale, "columns": 1.0}
        samplings = []
        for name, factor in factors.items():
            sampling = node.operation.settings[name]
            weights = np.rint(np.array(sampling.lists[1]) * factor * (1 << TAP_BITS))
            samplings.append(code.sampling(name, node, sampling, weights.astype(np.int32)))
        code.call(
            "resample", *samplings, code.address(x), zero, x.channels, out_zero, code.address(node.output)
        )

    def channel_padding(self, code: Code, node: Node) -> None:
        """Channels of zeros; the scale stays."""
        (x,), y, before = node.inputs, node.output, node.operation.settings["before"]
        sizes = before, x.channels, y.channels, x.positions
        code.call("pad_channels", code.address(x), self._scales[x].zero, *sizes, code.address(y))

    def activation(self, code: Code, node: Node) -> None:
        """A function of one number, as a table."""
        function = node.operation.settings["function"]
        x = self._backend.asarray(self._numbers(node.inputs[0])[:, None], dtype="float64")
        y = self._backend.zeros(x.size, "float64").reshape(x.shape)
        with self._backend.active():
            self._backend.kernels.activate(x, function, y)
        self._look_up(code, node, self._backend.to_host(y).T)

    def prelu(self, code: Code, node: Node) -> None:
        """Each channel has a table."""
        x, slopes = self._numbers(node.inputs[0]), node.operation.arrays["weight"][:, None]
        self._look_up(code, node, np.where(x > 0, x, slopes * x))

    def _numbers(self, value: Value) -> Any:
        """The numbers for which the integers from the lowest to the highest stand."""
        scale, zero = self._of(value)
        return scale * (np.arange(LOWEST, HIGHEST + 1, dtype=np.float64) - zero)

    def _look_up(self, code: Code, node: Node, results: Any) -> None:
        (x,), y = node.inputs, node.output
        name = code.array("table", node, self._scales[y].integers(results))
        sizes = len(results), x.size // len(results)
        code.call("look_up", name, code.address(x), *sizes, code.address(y))

    def sum(self, code: Code, node: Node) -> None:
        """Two addends, brought to the scale of the sum."""
        y, (out_scale, out_zero) = node.output, self._of(node.output)
        factors = [self._scales[each].scale / out_scale for each in node.inputs]
        shift = int(np.clip(SUM_BITS - 1 - int(log2(max(factors))), 1, 60))
        addends: list[Any] = []
        for value, factor in zip(node.inputs, factors, strict=True):
            addends += [code.address(value), self._scales[value].zero, round(factor * 2.0**shift)]
        code.call("add", *addends, shift, out_zero, self._lowest(node), y.size, code.address(y))

    def concatenation(self, code: Code, node: Node) -> None:
        """Each part is brought to the scale of the result."""
        offset, y, (out_scale, out_zero) = 0, node.output, self._of(node.output)
        for part in node.inputs:
            scale, zero = self._of(part)
            place = f"{code.address(y)} + {offset}"
            factor = _fixed_point(scale / out_scale)
            code.call("requantize", code.address(part), zero, *factor, out_zero, part.size, place)
            offset += part.size

    def view(self, code: Code, node: Node) -> None:
        """The same integers."""
        code.copy(code.address(node.inputs[0]), node.output)


EMITTERS: dict[str, Callable[[Int8, Code, Node], None]] = {
    "convolve": Int8.convolution,
    "convolve_transposed": Int8.convolution,
    "dense": Int8.dense,
    "dense_to_floats": Int8.dense_to_floats,
    "to_floats": Int8.to_floats,
    "pool_max": Int8.max_pooling,
    "average": Int8.average,
    "resample": Int8.resampling,
    "pad_channels": Int8.channel_padding,
    "activate": Int8.activation,
    "prelu": Int8.prelu,
    "multiply": Int8.view,
    "reshape": Int8.view,
    "add": Int8.sum,
    "concatenate": Int8.concatenation,
}
"""The method that writes each kind of operation; functions of whole samples are only in the tail."""


def _cut(nodes: list[Node]) -> tuple[list[Node], list[Node]]:
    """The operations in integers, and those at the end that are computed in floats."""
    start = len(nodes)
    while start and nodes[start - 1].kind in IN_FLOATS:
        if start < len(nodes) and nodes[start].inputs != (nodes[start - 1].output,):
            break
        start -= 1
    return nodes[:start], nodes[start:]


def _as_convolution(node: Node) -> Node:
    """A scale and a shift of each channel as a depthwise 1x1 convolution; other nodes as they are."""
    if node.kind != "scale_and_shift":
        return node
    arrays = node.operation.arrays
    return replace(
        node,
        operation=Operation(
            "convolve",
            {"weight": arrays["scale"].reshape(-1, 1, 1, 1), "bias": arrays["shift"]},
            {"window": Window((1, 1)), "groups": node.output.channels},
        ),
    )


def _rectified(nodes: list[Node]) -> list[Node]:
    """The same operations; a ReLU is part of the operation before it if that has no other use."""
    uses = Counter(value for node in nodes for value in node.inputs)
    found: list[Node] = []
    for node in nodes:
        function = node.operation.settings.get("function")
        before = found[-1] if found else None
        if (
            before is not None
            and function is not None
            and function.name == "relu"
            and before.kind in RECTIFIABLE
            and node.inputs == (before.output,)
            and uses[before.output] == 1
        ):
            settings = before.operation.settings | {"rectified": True}
            operation = replace(before.operation, settings=settings)
            found[-1] = replace(before, operation=operation, output=node.output)
        else:
            found.append(node)
    return found


def _rows(node: Node) -> Any:
    """The weights as one row for each output channel."""
    weight, channels = node.operation.arrays["weight"].astype(np.float64), node.output.channels
    if node.kind == "convolve_transposed":
        groups = node.operation.settings["groups"]
        weight = weight.reshape(groups, len(weight) // groups, channels // groups, -1).transpose(0, 2, 1, 3)
    return weight.reshape(channels, -1)


def _from_rows(node: Node, rows: Any) -> Any:
    """Such rows in the order of the weights."""
    weight = node.operation.arrays["weight"]
    if node.kind == "convolve_transposed":
        groups, channels = node.operation.settings["groups"], node.output.channels
        shape = groups, channels // groups, len(weight) // groups, -1
        rows = rows.reshape(shape).transpose(0, 2, 1, 3)
    return rows.reshape(weight.shape)


def _fixed_point(factor: float) -> tuple[int, int]:
    """(multiplier, shift) so that multiplier / 2^shift is the factor, to 30 bits."""
    mantissa, exponent = frexp(factor)
    return round(mantissa * 2**30), max(1, min(30 - exponent, 62))


def _is_mean(settings: dict[str, Any]) -> bool:
    """Whether the weights of a resampling add up to 1 or less, so that results are in the input's range."""
    taps = (taps for name in ("rows", "columns") for taps in settings[name].taps)
    return all(sum(weight for _, weight in each) < 1 + 1e-9 for each in taps)
