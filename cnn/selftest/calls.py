"""Every kernel, called with numbers that show what it does."""

from collections.abc import Iterator
from itertools import chain, product
from typing import Any

import numpy as np

import backends
from backends import Window
from backends.dtypes import HALVES
from backends.kernels.augmentation import (
    BLEND,
    BOX_LEFT,
    BOX_SIZE,
    BOX_TOP,
    BOXES,
    COLOUR,
    COLUMNS,
    GAIN,
    GEOMETRY,
    SHARE,
    TARGET_SHARE,
    UNIT,
    Step,
    rows_drawn,
)
from backends.kernels.functions import FUNCTIONS, RELU, Function
from backends.kernels.sampling import Sampling
from cnn.selftest.call import Call


def calls(dtype: str) -> Iterator[Call]:
    """Each kernel in several shapes, with numbers of ``dtype``; what is called large is shared by threads.

    In 16 bits, the calls are those that networks make with activations of this dtype.
    """
    with_activations = (
        _convolutions, _fused, _poolings, _resamplings, _products, _activations, _normalizations, _batches,
    )  # fmt: skip
    others = _losses, _targets, _metrics, _updates
    if dtype not in HALVES:
        for part in with_activations + others:
            yield from part(_Numbers(dtype))
        return
    parts = [part(_Numbers("float32")) for part in with_activations]
    parts += [part(_Numbers("float32"), WIDE_CONVOLUTIONS) for part in (_convolutions, _fused)]
    for call in chain(*parts):
        yield from call.in_16_bits(dtype)


class _Numbers:
    """Makes arrays of one dtype."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.random = np.random.default_rng(0)

    def normal(self, *shape: int) -> Any:
        """Random numbers."""
        return self.random.standard_normal(shape).astype(self.dtype)

    def shares(self, *shape: int) -> Any:
        """Random columns that add up to 1."""
        values = abs(self.normal(*shape))
        return values / values.sum(axis=0)

    def below(self, end: int, *shape: int) -> Any:
        """Random whole numbers."""
        return self.random.integers(0, end, shape)

    def unset(self, *shape: int) -> Any:
        """What a kernel is to write to: whatever it leaves out shows."""
        return np.full(shape, np.nan, self.dtype)


def _kernel(function: str, variant: str, **arguments: Any) -> Call:
    return Call(f"{function}, {variant}", f"kernels.{function}", arguments)


Convolutions = dict[
    str, tuple[tuple[int, int, int, int], int, Window, int]
]  # (C, H, W, N), O, window, groups
CONVOLUTIONS: Convolutions = {
    "plain": ((3, 8, 9, 5), 4, Window((3, 3)), 1),
    "one image": ((1, 12, 12, 1), 6, Window((5, 5), padding=(2, 2)), 1),
    "all options": ((4, 9, 8, 6), 6, Window((3, 2), (2, 1), (1, 2), (1, 2)), 2),
    "depthwise, all options": (
        (3, 9, 8, 17),
        6,
        Window((3, 2), (2, 3), (2, 0), (1, 2), end=(1, 3)),
        3,
    ),
    "depthwise, one image, strided": ((4, 9, 11, 1), 4, Window((3, 3), (2, 2), (1, 1)), 4),
    "depthwise, large": ((16, 16, 16, 32), 16, Window((3, 3), (2, 2), (1, 1)), 16),
    "depthwise": ((5, 7, 7, 9), 5, Window((3, 3), padding=(1, 1)), 5),
    "1x1": ((7, 5, 4, 8), 3, Window((1, 1)), 1),
    "large": ((8, 16, 16, 8), 12, Window((3, 3), padding=(1, 1)), 1),
}
WIDE_CONVOLUTIONS: Convolutions = {"wide": ((40, 6, 5, 4), 36, Window((3, 3), padding=(1, 1)), 1)}
"""With so many channels, a GPU computes them as products, which in 16 bits use the tensor cores."""


def _convolutions(numbers: _Numbers, convolutions: Convolutions = CONVOLUTIONS) -> Iterator[Call]:
    for variant, (shape, O, window, groups) in convolutions.items():
        C, H, W, N = shape
        y_shape = O, *window.output_size(H, W), N
        x, dy, weight = (numbers.normal(*s) for s in (shape, y_shape, (O, C // groups, *window.size)))
        how = {"window": window, "groups": groups}
        yield _kernel("conv2d", variant, x=x, weight=weight, out=numbers.unset(*y_shape), **how)
        yield _kernel("conv2d_grad_input", variant, dy=dy, weight=weight, out=numbers.unset(*shape), **how)
        yield _kernel("conv2d_grad_weight", variant, x=x, dy=dy, out=numbers.unset(*weight.shape), **how)


def _fused(numbers: _Numbers, convolutions: Convolutions = CONVOLUTIONS) -> Iterator[Call]:
    for variant, (shape, O, window, groups) in convolutions.items():
        C, H, W, N = shape
        OH, OW = window.output_size(H, W)
        x, weight = numbers.normal(*shape), numbers.normal(O, C // groups, *window.size)
        biases = {
            "bias": numbers.normal(O),
            "bias for each place": numbers.normal(O, OH, OW),
            "no bias": None,
        }
        pool = Window((2, 2), (2, 2))
        PH, PW = pool.output_size(OH, OW)
        for kind, bias in biases.items():
            given = {"x": x, "weight": weight, "bias": bias, "window": window, "groups": groups}
            yield _kernel(
                "conv2d_activate", f"{variant}, {kind}, GELU", **given, formula=Function("gelu"),
                out=numbers.unset(O, OH, OW, N),
            )  # fmt: skip
            if bias is None or bias.ndim == 1:
                yield _kernel(
                    "conv2d_max_pool2d", f"{variant}, {kind}, scale and GELU", **given, pool=pool,
                    out=numbers.unset(O, PH, PW, N), winner=None, formula=Function("gelu"),
                    scale=numbers.normal(O),
                )  # fmt: skip
            yield _kernel(
                "conv2d_activate", f"{variant}, {kind}", **given, formula=None,
                out=numbers.unset(O, OH, OW, N),
            )  # fmt: skip
            plain = _kernel(
                "conv2d_activate", f"{variant}, {kind}, ReLU", **given, formula=RELU,
                out=numbers.unset(O, OH, OW, N),
            )  # fmt: skip
            yield _kernel(
                "conv2d_moments", f"{variant}, {kind}", **given, out=numbers.unset(O, OH, OW, N),
                mean=numbers.unset(O), variance=numbers.unset(O),
            )  # fmt: skip
            yield _kernel(
                "finish", f"{variant}, {kind}", y=numbers.normal(O, OH, OW, N), bias=bias,
                formula=Function("gelu"), scale=numbers.normal(O),
            )  # fmt: skip
            winner = np.zeros((O, PH, PW, N), np.uint8)
            pooled, rectified = (
                _kernel(
                    "conv2d_max_pool2d", f"{variant}, {kind}, {name}", **given, pool=pool, winner=winner,
                    out=numbers.unset(O, PH, PW, N), formula=RELU if name == "ReLU" else None,
                )
                for name in ("no ReLU", "ReLU")
            )  # fmt: skip
            for name, call in (("ReLU", plain), ("pooling", pooled), ("ReLU and pooling", rectified)):
                yield call
                after = call.run(backends.get("cpu", "portable"))
                yield _kernel(
                    "conv2d_epilogue_grad", f"{variant}, {kind}, {name}",
                    dy=numbers.normal(*after["out"].shape),
                    x=x, y=None if name == "pooling" else after["out"], winner=after.get("winner"),
                    weight=weight, window=window, groups=groups, pool=call.arguments.get("pool"),
                    weight_grad=numbers.unset(*weight.shape),
                    bias_grad=None if bias is None else numbers.unset(*bias.shape), dx=numbers.unset(*shape),
                )  # fmt: skip


POOLINGS = {  # (C, H, W, N), window
    "plain": ((3, 8, 6, 7), Window((2, 2), (2, 2))),
    "overlapping": ((2, 7, 8, 5), Window((3, 3), (1, 1))),
    "padded": ((2, 9, 6, 4), Window((3, 2), (2, 2), (1, 1))),
    "lines left over": ((2, 8, 7, 3), Window((2, 2), (3, 3))),
    "dilated": ((2, 8, 9, 4), Window((2, 2), (1, 2), (0, 1), (2, 3))),
    "rounded up": ((2, 7, 5, 6), Window((2, 2), (2, 2)).rounded_up(7, 5)),
    "17x17 taps": ((1, 18, 19, 2), Window((17, 17), (1, 1))),
    "large": ((8, 24, 24, 32), Window((2, 2), (2, 2))),
}


def _poolings(numbers: _Numbers) -> Iterator[Call]:
    for variant, (shape, window) in POOLINGS.items():
        C, H, W, N = shape
        y_shape = C, *window.output_size(H, W), N
        x, dy = numbers.normal(*shape), numbers.normal(*y_shape)
        y, dx = numbers.unset(*y_shape), numbers.unset(*shape)
        winner = np.zeros(y_shape, np.uint8 if window.taps <= 256 else np.int32)
        yield _kernel("max_pool2d", f"{variant}, without winners", x=x, out=y, winner=None, window=window)
        forward = _kernel("max_pool2d", variant, x=x, out=y, winner=winner, window=window)
        yield forward
        winner = forward.run(backends.get("cpu", "portable"))["winner"]
        yield _kernel("max_pool2d_grad", variant, dy=dy, winner=winner, out=dx, window=window)


SAMPLINGS = {  # (C, H, W, N), the taps of each row, those of each column
    "means": ((3, 4, 6, 5), [[(0, 0.5), (1, 0.5)], [(2, 0.5), (3, 0.5)]], [[(i, 1 / 6) for i in range(6)]]),
    "turned round, with zeros": ((2, 3, 2, 7), [[], [(2, 1.0)], [(1, 1.0)], [(0, 1.0)]], [[(1, 2.0)], []]),
    "large": (
        (8, 24, 24, 16),
        [[(i // 2, 0.75), ((i + 1) // 2, 0.25)] for i in range(1, 46)],
        [[(i, 0.25), (i + 3, 0.5)] for i in range(0, 21, 2)],
    ),
}


def _resamplings(numbers: _Numbers) -> Iterator[Call]:
    for variant, (shape, *taps) in SAMPLINGS.items():
        C, H, W, N = shape
        rows, columns = (Sampling(n, tuple(map(tuple, axis))) for n, axis in zip((H, W), taps, strict=True))
        x, dy = numbers.normal(*shape), numbers.normal(C, len(rows), len(columns), N)
        yield _kernel("resample", variant, x=x, out=numbers.unset(*dy.shape), rows=rows, columns=columns)
        yield _kernel(
            "resample", f"{variant}, transposed", x=dy, out=numbers.unset(*shape), rows=rows.transposed,
            columns=columns.transposed,
        )  # fmt: skip


PRODUCTS = {"small": (3, 7, 5), "one column": (10, 84, 1), "long": (6, 1100, 9), "large": (120, 400, 128)}


def _products(numbers: _Numbers) -> Iterator[Call]:
    for variant, (m, k, n) in PRODUCTS.items():
        a, b, out = numbers.normal(m, k), numbers.normal(k, n), numbers.unset(m, n)
        yield _kernel("matmul", variant, a=a, b=b, out=out)
        yield _kernel("matmul", f"{variant}, added", a=a, b=b, out=numbers.normal(m, n), accumulate=True)


CONSTANTS = {"leaky_relu": (0.2,), "elu": (1.5, 1.1), "softplus": (2.0, 1.5)}
EACH_FUNCTION = [Function(name, *CONSTANTS.get(name, ())) for name in FUNCTIONS]

ACTIVATIONS = {"image": (3, 5, 4, 7), "vector": (10, 33), "large": (16, 24, 24, 16)}


def _activations(numbers: _Numbers) -> Iterator[Call]:
    for variant, shape in ACTIVATIONS.items():
        x, dy, bias = numbers.normal(*shape), numbers.normal(*shape), numbers.normal(shape[0])
        out, sums = numbers.unset(*shape), numbers.unset(shape[0])
        yield _kernel("add_bias", variant, y=x, bias=bias)
        yield _kernel("add_bias", f"{variant}, ReLU", y=x, bias=bias, rectify=True)
        yield _kernel("sum_rows", variant, x=x, out=sums)
        yield _kernel("relu", variant, x=x, out=out)
        yield _kernel("relu_grad", variant, dy=dy, y=np.maximum(x, 0), out=out)
        yield _kernel("relu_grad", f"{variant}, sums", dy=dy, y=np.maximum(x, 0), out=out, sums=sums)
        yield _kernel("copy", variant, x=x, out=out)
        yield _kernel("clear", variant, x=x)
        yield _kernel("scale", variant, x=x, factor=0.3, out=out)
        yield _kernel("add", variant, x=x, y=dy, out=out)
        yield _kernel("tanh", variant, x=x, out=out)
        yield _kernel("tanh_grad", variant, dy=dy, y=np.tanh(x), out=out)
        for formula in EACH_FUNCTION:
            name = f"{variant}, {formula.name}"
            yield _kernel("activate", name, x=3 * x, formula=formula, out=out)
            yield _kernel("activate_grad", name, dy=dy, x=3 * x, formula=formula, out=out)
            yield _kernel("add_activate", name, x=x, addend=dy, formula=formula, out=out)
        yield _kernel("add_activate", variant, x=x, addend=dy, formula=None, out=out)
        for weight in (numbers.normal(1), numbers.normal(shape[0])):
            given = {"x": x, "weight": weight}
            yield _kernel("prelu", f"{variant}, {len(weight)} weights", **given, out=out)
            yield _kernel(
                "prelu_grad", f"{variant}, {len(weight)} weights", dy=dy, **given,
                weight_grad=numbers.unset(len(weight)), dx=out,
            )  # fmt: skip
        yield _kernel("log_softmax", variant, x=10 * x, out=out)
        yield _kernel("log_softmax_grad", variant, dy=dy, y=-(x**2), out=out)
        yield _kernel("softmax", variant, x=10 * x, out=out)
        yield _kernel("softmax_grad", variant, dy=dy, y=np.tanh(x) ** 2, out=out)


def _normalizations(numbers: _Numbers) -> Iterator[Call]:
    for variant, shape in ACTIVATIONS.items():
        x, dy, out = numbers.normal(*shape), numbers.normal(*shape), numbers.unset(*shape)
        mean, variance = numbers.normal(shape[0]), numbers.normal(shape[0]) ** 2
        weight, bias = numbers.normal(shape[0]), numbers.normal(shape[0])
        sums = {"mean": numbers.unset(shape[0]), "variance": numbers.unset(shape[0])}
        yield _kernel("moments", variant, x=x, **sums)
        moments = {"mean": mean, "variance": variance}
        for momentum in (0.1, None):
            yield _kernel(
                "track", f"{variant}, momentum {momentum}", running_mean=bias, running_variance=weight**2,
                batches=np.array(3), **moments, momentum=momentum, unbiased=1.1,
            )  # fmt: skip
        for name, affine in (("affine", (weight, bias)), ("plain", (None, None))):
            given = {"x": x, **moments, "weight": affine[0], "bias": affine[1], "epsilon": 0.1}
            grads = [None if part is None else numbers.unset(shape[0]) for part in affine]
            wanted = {"weight_grad": grads[0], "bias_grad": grads[1], "dx": out}
            yield _kernel("normalize", f"{variant}, {name}", **given, out=out)
            yield _kernel("normalize_grad", f"{variant}, {name}", dy=dy, **given, **wanted)
            after = {"formula": Function("silu"), "addend": numbers.normal(*shape)}
            wanted["addend_grad"] = numbers.unset(*shape)
            yield _kernel("normalize", f"{variant}, {name}, function", **given, out=out, **after)
            yield _kernel("normalize_grad", f"{variant}, {name}, function", dy=dy, **given, **wanted, **after)
            for momentum in (0.1, None):
                yield _kernel(
                    "normalize_and_track", f"{variant}, {name}, momentum {momentum}", **given, **after,
                    out=out, running_mean=numbers.normal(shape[0]),
                    running_variance=numbers.normal(shape[0]) ** 2, batches=np.array(3), momentum=momentum,
                    unbiased=1.1,
                )  # fmt: skip
            yield _kernel(
                "fold", f"{variant}, {name}", weight=x, bias=None if affine[0] is None else dy, **moments,
                scale=affine[0], shift=affine[1], epsilon=0.1, out_weight=out, out_bias=out,
            )  # fmt: skip
        yield from _group_normalizations(numbers, variant, shape)
        counters = np.array([5, 1000])
        given = {"x": x, "p": 0.3, "stream": 123456789, "counters": counters, "out": out}
        yield _kernel("dropout", variant, **given)
        yield _kernel("dropout", f"{variant}, channels", **given, channels=True)


def _group_normalizations(numbers: _Numbers, variant: str, shape: tuple[int, ...]) -> Iterator[Call]:
    x, dy, out = numbers.normal(*shape), numbers.normal(*shape), numbers.unset(*shape)
    for groups, affine in ((1, shape[:-1]), (shape[0], shape[:1]), (1, None)):
        name = f"{variant}, {groups} groups, {'plain' if affine is None else 'affine'}"
        weight, bias, *grads = (
            (None,) * 4
            if affine is None
            else (*(numbers.normal(*affine) for _ in range(2)), *(numbers.unset(*affine) for _ in range(2)))
        )
        moments = {"mean": numbers.unset(groups, shape[-1]), "scale": numbers.unset(groups, shape[-1])}
        forward = _kernel(
            "normalize_groups", name, x=x, weight=weight, bias=bias, epsilon=0.1, **moments, out=out
        )
        yield forward
        after = forward.run(backends.get("cpu", "portable"))
        yield _kernel(
            "normalize_groups_grad", name, dy=dy, x=x, weight=weight, mean=after["mean"],
            scale=after["scale"], weight_grad=grads[0], bias_grad=grads[1], dx=out,
        )  # fmt: skip


LOSSES = {"small": (3, 5), "large": (10, 2000)}


def _losses(numbers: _Numbers) -> Iterator[Call]:
    for variant, (classes, N) in LOSSES.items():
        y, sums = numbers.normal(classes, N), np.array([1.0, 2, 3])
        targets = {"labels": numbers.below(classes, N), "numbers": numbers.shares(classes, N)}
        inputs = {
            "cross_entropy": (10 * y, {}),
            "focal": (y, {"gamma": 2.0}),
            "binary_cross_entropy": (1 / (1 + np.exp(-y)), {}),
            "logistic_loss": (10 * y, {"positive": abs(numbers.normal(classes))}),
            "squared_error": (y, {}),
            "absolute_error": (y, {}),
            "huber": (y, {"delta": 0.5}),
        }
        for (function, (given, more)), (kind, t) in product(inputs.items(), targets.items()):
            results = {"losses": numbers.unset(N), "dy": numbers.unset(classes, N), "divisor": N + 1}
            arrays = {"y": given, "targets": t, **more, **results}
            yield _kernel(function, f"{variant}, {kind}", **arrays)
            yield _kernel(function, f"{variant}, {kind}, sums", **arrays, sums=sums)
        for kind, t in targets.items():
            arrays = {"losses": numbers.normal(N), "y": y, "targets": t}
            yield _kernel("tally", f"{variant}, {kind}", **arrays, sums=sums)
            shares, five = numbers.below(3, N).astype(numbers.dtype), np.array([1.0, 2, 3, 4, 5])
            yield _kernel("tally", f"{variant}, {kind}, shares", **arrays, sums=five, shares=shares)
    pictures, results = numbers.normal(2, 3, 4, 5), {"losses": numbers.unset(5), "divisor": 5}
    for function, more in (("squared_error", {}), ("absolute_error", {}), ("huber", {"delta": 0.5})):
        arrays = {"y": pictures, "targets": numbers.normal(2, 3, 4, 5), "dy": numbers.unset(2, 3, 4, 5)}
        yield _kernel(function, "pictures", **arrays, **more, **results)


def _targets(numbers: _Numbers) -> Iterator[Call]:
    for variant, (classes, N) in LOSSES.items():
        given = {"labels": numbers.below(classes, N), "numbers": numbers.shares(classes, N)}
        weights = abs(numbers.normal(classes))
        for (kind, targets), ignored in product(given.items(), (None, 1)):
            yield _kernel(
                "class_targets", f"{variant}, {kind}, {ignored} ignored", targets=targets,
                class_weights=weights, smoothing=0.1, ignored=ignored, out=numbers.unset(classes, N),
                shares=numbers.unset(N),
            )  # fmt: skip
        losses, dy, factors = numbers.normal(N), numbers.normal(classes, N), abs(numbers.normal(N))
        yield _kernel("weigh", variant, losses=losses, dy=dy, weights=factors)
        total = {"total": np.array([2.0], numbers.dtype)}
        yield _kernel("add_up", variant, shares=factors, **total)
        yield _kernel("divide", variant, x=dy, **total)


def _metrics(numbers: _Numbers) -> Iterator[Call]:
    for variant, (classes, N) in LOSSES.items():
        y, shares = numbers.shares(classes, N), numbers.below(2, N).astype(numbers.dtype)
        given = {"labels": numbers.below(classes + 1, N), "numbers": numbers.shares(classes, N)}
        for (kind, targets), counted in product(given.items(), (None, shares)):
            name = f"{variant}, {kind}{'' if counted is None else ', shares'}"
            arrays = {"targets": targets, "shares": counted}
            yield _kernel("count_top", name, y=y, **arrays, k=2, sums=np.array([1.0, 2]))
            yield _kernel("count_pairs", name, y=y, **arrays, counts=np.ones((classes, classes)))
            yield _kernel("count_confidence", name, p=y, **arrays, sums=np.ones((3, 15)))


UPDATES = {"small": 67, "large": 200_000}


def _updates(numbers: _Numbers) -> Iterator[Call]:
    for variant, size in UPDATES.items():
        value, grad, state = numbers.normal(size), numbers.normal(size), numbers.normal(size)
        yield _kernel("count_update", variant, counters=np.array([7, 3]))
        yield _kernel("count_samples", variant, counters=np.array([7, 3]), samples=5)
        for limit in (0.5, 2.0):
            for name in ("clip_norm", "clip_value"):
                yield _kernel(name, f"{variant}, limit {limit:g}", grad=grad, limit=limit)
        factor = np.array([3], numbers.dtype)
        yield _kernel("multiply", variant, x=grad, factor=factor)
        scaled = {"scale": np.array([64], numbers.dtype), "counts": np.array([4, 2])}
        for name, number in (("finite", 1.0), ("NaN", np.nan), ("infinite", np.inf)):
            gradient = grad.copy()
            gradient[size // 2] = number
            for every in (5, 6):
                yield _kernel("unscale", f"{variant}, {name}, {every}", grad=gradient, **scaled, every=every)
        arrays = {"value": value, "grad": grad, "rate": np.array([0.1], numbers.dtype)}
        none, some = (np.array([momentum], numbers.dtype) for momentum in (0, 0.9))
        plain = {"momentum": none, "nesterov": False, "weight_decay": 0.0}
        heavy = {"momentum": some, "nesterov": False, "weight_decay": 0.01}
        yield _kernel("sgd", variant, **arrays, velocity=None, **plain)
        yield _kernel("sgd", f"{variant}, momentum", **arrays, velocity=state, **heavy)
        yield _kernel("sgd", f"{variant}, Nesterov", **arrays, velocity=state, **{**heavy, "nesterov": True})
        yield from _adaptive_updates(numbers, variant, arrays)


def _adaptive_updates(numbers: _Numbers, variant: str, arrays: dict[str, Any]) -> Iterator[Call]:
    """The optimizers after SGD; ``arrays`` are value, grad and rate."""
    size = arrays["value"].size
    mean, square = numbers.normal(size), numbers.normal(size) ** 2
    powers = np.array([0.9**100, 0.999**100], numbers.dtype)  # early ones magnify rounding
    yield _kernel("scale_to_norm", variant, value=numbers.normal(size), norm=3.0)
    yield _kernel("next_powers", variant, powers=powers, factors=(0.9, 0.999))
    moments = {"mean": mean, "square": square}
    betas = {"betas": (0.9, 0.999)}
    settings = betas | {"epsilon": 1e-8, "weight_decay": 0.01}
    adam = arrays | moments | {"powers": powers} | settings
    yield _kernel("adam", variant, **adam, decoupled=False)
    yield _kernel("adam", f"{variant}, decoupled", **adam, decoupled=True)
    yield _kernel("lamb", variant, **adam)
    progress = np.array([100, 0.01, 0.8, 0.81, 0.9], numbers.dtype)
    yield _kernel("next_nadam", variant, progress=progress, beta=0.9, beta_square=0.999, decay=0.004)
    yield _kernel("nadam", variant, **arrays, **moments, progress=progress, **settings)
    yield _kernel("lion", variant, **arrays, mean=mean, **betas, weight_decay=0.01)
    yield _kernel("adagrad", variant, **arrays, square=square, epsilon=1e-10, weight_decay=0.01)
    more = {"alpha": 0.99, "epsilon": 1e-8, "momentum": 0.9, "weight_decay": 0.01}
    yield _kernel("rmsprop", variant, **arrays, square=square, mean=None, velocity=None, **more)
    centered = {"mean": mean / 10, "velocity": numbers.normal(size)}  # the mean's square is the smaller one
    yield _kernel("rmsprop", f"{variant}, centered", **arrays, square=square + 1, **centered, **more)
    for rows in (3, 20):
        matrices = {name: numbers.normal(rows, 9) for name in ("value", "grad", "velocity")}
        matrices |= {"rate": arrays["rate"], "momentum": np.array([0.9], numbers.dtype)}
        named = f"{variant}, {rows} rows"
        yield _kernel("muon", named, **matrices, nesterov=True, weight_decay=0.01, steps=5)
    value, slow = numbers.normal(size), numbers.normal(size)
    for count in (0, 4):
        counted = np.array([count])
        named = f"{variant}, after {count} steps"
        yield _kernel("count_average", named, count=counted)
        yield _kernel("average", named, value=value, mean=slow, count=counted, decay=0.9)
        every = count + 1  # else it changes nothing
        yield _kernel("lookahead", named, value=value, slow=slow, count=counted, every=every, alpha=0.5)


def _augmentations(
    numbers: _Numbers, variant: str, kinds: dict[str, Any], chosen: Any, out: Any
) -> Iterator[Call]:
    """What is drawn for a batch, and what becomes of its images."""
    C, H, W, N = out.shape
    turns = numbers.random.integers(-1 << 16, 1 << 16, (20, COLUMNS)) / (1 << 16)
    places = turns * (H, 0, H, W, 0, W)
    table = np.concatenate([turns, places])
    kinds_of_steps = (GEOMETRY, COLOUR, BLEND, BOX_SIZE, BOX_TOP, BOX_LEFT)
    program = (
        *(
            Step(kind, 20 * (kind > COLOUR), 20, 30 << 16, False, box)
            for box in (0, 1)
            for kind in kinds_of_steps
        ),
        Step(GEOMETRY, 3, 2, 2 << 16, alternates=True),
    )
    drawn = np.zeros((rows_drawn(program), N))
    draws = {"keys": np.array([(1 << 32) - 3, 5, 7]), "program": program, "table": table, "size": (H, W)}
    for k in (1, 2):
        samples = np.stack([chosen, chosen[::-1]])[:k]
        unset = np.full((k, *drawn.shape), np.nan)
        yield _kernel("draw", f"{variant}, {k} rows", samples=samples, **draws, drawn=unset)
    drawn[[0, 4, GAIN, SHARE]] = 1
    moved = drawn.copy()
    moved[[2, 5]] = numbers.random.integers(-2, 3, (2, N))
    turned = drawn.copy()
    turned[:6] += numbers.random.integers(-1 << 14, 1 << 14, (6, N)) / UNIT  # as in tables
    for rows in (moved, turned):
        rows[[GAIN, SHARE, TARGET_SHARE]] = numbers.random.integers(0, 1 << 16, (3, N)) / (1 << 16)
        rows[BOXES:] = numbers.random.integers(0, H, rows[BOXES:].shape)
    for kind, images in kinds.items():
        for reflect in (False, True):
            arrays = {"images": images, "indices": chosen, "reflect": reflect, "out": out}
            arrays |= {"shift": numbers.normal(C), "scale": numbers.normal(C)}
            name = f"{variant}, {kind}{', reflected' if reflect else ''}"
            yield _kernel("augment_batch", name, **arrays, drawn=moved, smooth=False)
            yield _kernel("augment_batch", f"{name}, smooth", **arrays, drawn=turned, smooth=True)
            arrays["indices"] = np.stack([chosen, chosen[::-1]])
            pairs = np.stack([turned, moved])
            yield _kernel("augment_pairs", f"{name}, smooth", **arrays, drawn=pairs, smooth=True)
    pair = {"x": numbers.normal(*out.shape), "others": numbers.normal(*out.shape)}
    yield _kernel("mix_batch", variant, **pair, drawn=turned)
    for kind, own in {"labels": numbers.below(10, N), "numbers": numbers.normal(10, N)}.items():
        pair = {"own": own, "others": np.ascontiguousarray(own[..., ::-1])}
        yield _kernel("mix_targets", f"{variant}, {kind}", **pair, drawn=turned, out=numbers.unset(10, N))


BATCHES = {"small": (9, (2, 3, 4), 5), "large": (50, (3, 28, 28), 64)}  # images, the shape of one, a batch


def _batches(numbers: _Numbers) -> Iterator[Call]:
    for variant, (count, shape, N) in BATCHES.items():
        chosen, out = numbers.below(count, N), numbers.unset(*shape, N)
        scans = numbers.below(256, count, *shape).astype(np.uint8)
        kinds = {"bytes": scans, "floats": numbers.normal(count, *shape)}
        for kind, images in kinds.items():
            arrays = {"images": images, "indices": chosen, "out": out}
            yield _kernel("gather_batch", f"{variant}, {kind}", **arrays)
            arrays |= {"shift": numbers.normal(len(out)), "scale": numbers.normal(len(out))}
            yield _kernel("gather_batch", f"{variant}, {kind}, normalized", **arrays)
        rows = numbers.normal(count, 7)
        yield from _augmentations(numbers, variant, kinds, chosen, out)
        yield _kernel(
            "gather_batch", f"{variant}, rows", images=rows, indices=chosen, out=numbers.unset(7, N)
        )
        yield _kernel(
            "gather_batch", f"{variant}, numbers", images=rows[:, 0].copy(), indices=chosen,
            out=numbers.unset(N),
        )  # fmt: skip
        batch = {
            "cursor": np.array([count - 2, 1]),  # an epoch ends within the batch
            "order": np.stack([numbers.random.permutation(count) for _ in range(3)]),
            "rates": np.array([0.1, 0.2, 0.3], numbers.dtype),
            "chosen": np.zeros((3, N), np.int64),
            "rate": numbers.unset(1),
        }
        labels = {"labels": numbers.below(10, count), "chosen_labels": np.zeros(N, np.int64)}
        yield _kernel("next_batch", variant, **batch, **labels)
        yield _kernel("next_batch", f"{variant}, without labels", **batch, **dict.fromkeys(labels))
