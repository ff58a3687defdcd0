"""Hypothesis strategies for arguments: documented ones, drawn from signatures, and all others."""

import inspect
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import inf, nan
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import cnn
from cnn.layers.initializers import INITIALIZERS

OURS = (
    cnn.ArgumentError,
    cnn.CheckpointError,
    cnn.DataError,
    cnn.DeviceUnavailable,
    cnn.OutOfMemory,
    cnn.ShapeError,
    cnn.TrainingError,
)

# Some of it is good for some arguments. A whole number is small, or more than any machine has bytes.
PLAIN_ODD = st.one_of(
    st.sampled_from([0, -1, 1, True, False, None, 2**50, 2**63, 10**30, -(10**30)]),
    st.sampled_from([2.0, 2.5, -0.0, 5e-324, 1e-300, 1e300, nan, inf, -inf, 1j, Decimal(2), Fraction(1, 2)]),
    st.sampled_from(["", "2", "same", "a\nb", b"ab", object(), int, len]),
    st.sampled_from([(), (1,), (2, 2), [2, 2], (0, 1), (-1, 2), (2, 2.0), (1, 2**50), ("a", "b")]),
    st.sampled_from([{}, {"a": 1}, {1, 2}, range(2)]),
    st.sampled_from([np.int64(2), np.uint8(1), np.int8(-1), np.float32(0.5), np.bool_(True)]),
)
ODD = st.one_of(
    PLAIN_ODD,
    st.sampled_from([np.array(2), np.array([2, 2]), np.array([[1.0]]), np.array([]), [[1], [2, 3]]]),
    st.sampled_from([1, -1]).map(lambda sign: sign * 10**5000),  # of more digits than Python prints
    st.sampled_from(["x" * 5000, list(range(5000)), np.zeros((40, 40))]),
)

SMALL = st.integers(1, 4)
WHOLE = st.one_of(SMALL, SMALL.map(np.int64))
SHARE = st.floats(0, 0.99)

BY_NAME = {
    "initializer": st.sampled_from(sorted(INITIALIZERS)),
    "padding_mode": st.sampled_from(["zeros", "reflect", "replicate"]),
    "factor": st.floats(0.01, 0.99),
    "scale_factor": st.floats(0.5, 3) | st.tuples(st.floats(0.5, 3), st.integers(1, 3)),
    "mode": st.sampled_from(["nearest", "bilinear"]),
    "output_padding": st.integers(0, 1),
    "groups": st.integers(1, 2),
    "f": st.just(np.sin),
    "f_prime": st.just(np.cos),
    "betas": st.tuples(SHARE, SHARE),
    "every": st.floats(0.001, 1),
    "growth": st.floats(0.5, 2),
    "end": st.floats(0.001, 1),
    "peak": st.floats(0.1, 0.9),
    "eps": st.floats(0.05, 1),
    "beta": st.floats(0.1, 2),
    "approximate": st.sampled_from(["none", "tanh"]),
    "metric": st.sampled_from(["loss", "accuracy"]),
}
PADDING = {
    int: st.integers(0, 2),
    tuple[int, int]: st.tuples(*[st.integers(0, 2)] * 2),
    tuple[tuple[int, int], tuple[int, int]]: st.tuples(*[st.tuples(*[st.integers(0, 2)] * 2)] * 2),
    tuple[int, int, int, int]: st.tuples(*[st.integers(0, 2)] * 4),
    str: st.just("same"),
}
BY_TYPE = {
    int: WHOLE,
    bool: st.booleans(),
    float: SHARE,
    type(None): st.none(),
    tuple[int, int]: st.one_of(st.tuples(WHOLE, WHOLE), st.lists(SMALL, min_size=2, max_size=2)),
    Sequence[int]: st.lists(WHOLE, min_size=1, max_size=4).map(tuple),
}


@dataclass(frozen=True)
class Call:
    """A function or class of the library, and what it is to be called with."""

    function: Callable[..., Any]
    arguments: dict[str, Any]

    def make(self) -> Any:
        """Make the call."""
        return self.function(**self.arguments)


@st.composite
def a_call(draw: Any, function: Callable[..., Any], odd: st.SearchStrategy[Any] | None = None) -> Call:
    """``function`` with documented arguments, or one or two ``odd`` ones; those with a default may lack."""
    hints = get_type_hints(function.__init__ if isinstance(function, type) else function)
    parameters = inspect.signature(function).parameters
    arguments = {
        name: draw(_documented(name, hints[name]))
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty or draw(st.booleans())
    }
    if odd is not None and parameters:
        for name in draw(st.lists(st.sampled_from(list(parameters)), max_size=2)):
            arguments[name] = draw(odd)
    return Call(function, arguments)


def _documented(name: str, hint: Any) -> st.SearchStrategy[Any]:
    """Values that a parameter's name or annotation promises to take."""
    if name == "padding":
        return st.one_of([PADDING[kind] for kind in get_args(hint)])
    if name in BY_NAME:
        return BY_NAME[name]
    if get_origin(hint) in (Union, types.UnionType):
        return st.one_of([_documented("", kind) for kind in get_args(hint)])
    return BY_TYPE[hint]


def attempt(do: Callable[..., Any], *arguments: Any, **named: Any) -> tuple[Any, Exception | None]:
    """(what the call gives, None), or (None, the error of ours that refuses it in one sentence)."""
    try:
        return do(*arguments, **named), None
    except OURS as error:
        refusal = error
    assert 10 < len(str(refusal)) < 500, refusal
    assert str(refusal).isprintable(), refusal
    return None, refusal


def examples(count: int) -> settings:
    """``count`` examples; more by as much as the profile asked for has more than the usual 100."""
    return settings(
        max_examples=max(1, count * settings().max_examples // 100),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
