"""Normalization and dropout."""

from itertools import product

import numpy as np

from backends.kernels.functions import RELU, Function
from helpers.kernel_calls.drawn import F, N, numbers

EPSILON = 0.1
SHAPES = {"short rows": (F, N), "long rows": (3, 90, N)}  # the second are split into parts


def moments(rows):
    return numbers(rows), numbers(rows) ** 2


def with_moments(shape):
    return numbers(*shape), *moments(shape[0])


def running():
    return numbers(F), numbers(F) ** 2, np.array(3)


def gradients(shape, formula=None, addend=False, addend_grad=False):
    rows = shape[0]
    after = formula, numbers(*shape) if addend else None, numbers(*shape) if addend_grad else None
    wanted = numbers(rows), numbers(rows), numbers(*shape)
    given = numbers(*shape), *with_moments(shape), numbers(rows), numbers(rows), EPSILON
    return "normalize_grad", *given, *wanted, *after


def groups(shape, count, weights):
    """x, weight, bias, mean and scale of so many groups."""
    affine = (None, None) if weights is None else (numbers(*weights), numbers(*weights))
    return numbers(*shape), *affine, numbers(count, shape[-1]), numbers(count, shape[-1]) ** 2


def normalized_groups(shape, count, weights):
    x, weight, bias, mean, scale = groups(shape, count, weights)
    return "normalize_groups", x, weight, bias, EPSILON, mean, scale, numbers(*shape)


def group_gradients(shape, count, weights, input_grad=True):
    x, weight, _, mean, scale = groups(shape, count, weights)
    grads = (None, None) if weights is None else (numbers(*weights), numbers(*weights))
    dx = numbers(*shape) if input_grad else None
    return "normalize_groups_grad", numbers(*shape), x, weight, mean, scale, *grads, dx


GROUPS = {  # shape of x, groups, shape of a weight
    "of all channels": ((6, 3, 2, N), 1, (6, 3, 2)),
    "of two channels": ((6, 5, 2, N), 3, (6,)),
    "of one channel, without weights": ((3, 4, 4, 2), 3, None),
    "of one image": ((4, 20, 20, 1), 2, (4,)),  # split into parts
    "of long rows": ((2, 8, 5, N), 1, (2,)),  # the sums of the weights are split into parts
}

CALLS = {
    **{
        f"moments of {name}": lambda shape=shape: (
            "moments", 100 + numbers(*shape), *moments(shape[0]),
        )
        for name, shape in SHAPES.items()
    },
    "moments of one number": lambda: ("moments", numbers(2, 1), *moments(2)),
    **{
        f"track with momentum {momentum}": lambda momentum=momentum: (
            "track", *running(), *moments(F), momentum, 1.1,
        )
        for momentum in (0.1, 0.0, None)
    },
    "normalize": lambda: ("normalize", *with_moments((F, 300)), None, None, EPSILON, numbers(F, 300)),
    "normalize with weight and bias": lambda: (
        "normalize", *with_moments((F, 3, N)), numbers(F), numbers(F), EPSILON, numbers(F, 3, N),
    ),
    **{
        f"normalize with {name}": lambda formula=formula, addend=addend: (
            "normalize", *with_moments((F, N)), numbers(F), numbers(F), EPSILON, numbers(F, N), formula,
            numbers(F, N) if addend else None,
        )
        for name, formula, addend in (
            ("ReLU", RELU, False), ("an addend", None, True), ("both", Function("silu"), True),
        )
    },
    **{
        f"normalize_and_track with momentum {momentum}": lambda momentum=momentum: (
            "normalize_and_track", *with_moments((F, 300)), numbers(F), numbers(F), EPSILON, numbers(F, 300),
            RELU, None, *running(), momentum, 1.1,
        )
        for momentum in (0.1, 0.0, None)
    },
    **{
        f"normalize_grad of {name}": lambda shape=shape: gradients(shape) for name, shape in SHAPES.items()
    },
    **{
        f"normalize_grad, {formula.name}{', addend' * addend}{', its gradient' * addend_grad}":
        lambda formula=formula, addend=addend, addend_grad=addend_grad: gradients(
            (F, N), formula, addend, addend_grad
        )
        for formula, (addend, addend_grad) in product(
            (RELU, Function("gelu")), ((False, False), (True, False), (True, True))
        )
    },
    "normalize_grad of the addend alone": lambda: (
        "normalize_grad", numbers(F, N), *with_moments((F, N)), None, None, EPSILON, None, None, None, RELU,
        numbers(F, N), numbers(F, N),
    ),
    "normalize_grad of the weights alone": lambda: (
        "normalize_grad", numbers(F, N), *with_moments((F, N)), None, None, EPSILON, numbers(F), numbers(F),
        None,
    ),
    "fold": lambda: (
        "fold", numbers(F, 3, 2, 2), numbers(F), *moments(F), numbers(F), numbers(F), EPSILON,
        numbers(F, 3, 2, 2), numbers(F),
    ),
    "fold without scale, shift and bias": lambda: (
        "fold", numbers(F, 300), None, *moments(F), None, None, EPSILON, numbers(F, 300), numbers(F),
    ),
    "fold with a bias for each place": lambda: (
        "fold", numbers(F, 2), numbers(F, 3, 3), *moments(F), numbers(F), numbers(F), EPSILON,
        numbers(F, 2), numbers(F, 3, 3),
    ),
    **{
        f"normalize_groups {name}": lambda given=given: normalized_groups(*given)
        for name, given in GROUPS.items()
    },
    **{
        f"normalize_groups_grad {name}": lambda given=given: group_gradients(*given)
        for name, given in GROUPS.items()
    },
    "normalize_groups_grad of the weights alone": lambda: group_gradients((F, 2, N), 1, (F,), False),
    **{
        f"dropout of {name}": lambda channels=channels: (
            "dropout", numbers(F, 3, 3, N), 0.4, 3_456_789_012, np.array([7, 4_000_000_000]),
            numbers(F, 3, 3, N), channels,
        )
        for name, channels in (("numbers", False), ("channels", True))
    },
}  # fmt: skip
