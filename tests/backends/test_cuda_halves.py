"""The CUDA kernels on 16-bit activations: computed in float32 and rounded once, in as many launches."""

import inspect

import numpy as np
import pytest
from helpers import host_cuda
from helpers.fenced import PLACES, device_at
from helpers.kernel_calls import CALLS
from helpers.kernel_calls.drawn import RANDOM
from helpers.standin import StandInBackend, counters

import backends
from backends.cuda.kernels import convolution
from backends.cuda.launch import FOLDER, Launcher
from backends.dtypes import is_half
from backends.kernels.contract import Kernels
from backends.kernels.losses import LossKernels
from backends.kernels.updates import UpdateKernels
from cnn.selftest.call import Call
from cnn.selftest.calls import calls

ml_dtypes = pytest.importorskip("ml_dtypes")
DTYPES = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype(np.float16)}
UNIT = {"bfloat16": 2.0**-8, "float16": 2.0**-11}  # the largest relative error of one rounding
SMALLEST = 2.0**-24  # of float16, in which the spaces between small numbers do not become smaller

ACTIVATIONS = {"x", "y", "dy", "dx", "out", "addend", "addend_grad", "out_weight"}
DOUBLES = {"drawn", "table"}  # in every network
WIDE = {  # kernels that get float32 only, or one of the others in a mixed-precision network
    *(set(vars(LossKernels)) | set(vars(UpdateKernels))),
    *("next_batch", "draw", "mix_targets", "mix_batch", "track", "matmul", "copy", "clear"),
}
COMPOSED = {"conv2d_activate", "conv2d_max_pool2d", "conv2d_epilogue_grad", "conv2d_moments"}
"""These also round the intermediate results of the kernels that they are composed of."""

SMALL = 20_000  # numbers


def numbers_of(call, kinds="f"):
    return [
        value for value in call.arguments.values() if getattr(value, "dtype", np.dtype(int)).kind in kinds
    ]


def named(name):
    """A call of tests/helpers/kernel_calls by the names of its arguments."""
    RANDOM.bit_generator.state = np.random.default_rng(0).bit_generator.state
    kernel, *arguments = CALLS[name]()
    names = list(inspect.signature(getattr(Kernels, kernel)).parameters)[1:]
    return Call(name, f"kernels.{kernel}", dict(zip(names, arguments, strict=False)))


def kernel_of(call):
    return call.function.removeprefix("kernels.")


def is_case(call):
    size = sum(value.size for value in call.arguments.values() if isinstance(value, np.ndarray))
    return call.function.startswith("kernels.") and kernel_of(call) not in WIDE and size < SMALL


CASES = [call for call in (*calls("float32"), *map(named, CALLS)) if is_case(call)]
KERNELS = sorted({call.function for call in CASES})


def cast(call, dtype_of):
    """The call with each array of floats in the dtype for its name; what is always float64 stays it."""
    arguments = dict(call.arguments)
    for name, value in arguments.items():
        is_float = isinstance(value, np.ndarray) and (value.dtype.kind == "f" or is_half(value))
        if is_float and name not in DOUBLES:
            arguments[name] = value.astype(dtype_of(name))
    return Call(call.name, call.function, arguments)


def stored(call, dtype):
    """The call as a network of ``dtype`` makes it: what has 16 bits, and what stays in float32."""
    halves = ACTIVATIONS | ({"weight"} if kernel_of(call).startswith("conv2d") else set())
    halves -= {"out"} if kernel_of(call) in ("sum_rows", "conv2d_grad_weight") else set()
    return cast(call, lambda name: DTYPES.get(dtype, dtype) if name in halves else np.float32)


def widened(call):
    """The same numbers in float64."""
    return cast(call, lambda name: np.float64)


@pytest.fixture(params=PLACES)
def device(request, monkeypatch):
    return device_at(request.param, monkeypatch)


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


CONVERSION = """
extern "C" __global__ void convert(const float *x, number *y, float *back, int size) {
    int at = flat_thread();
    if (at >= size) return;
    y[at] = x[at];
    back[at] = y[at];
}
"""


def test_numbers_are_converted_as_numpy_and_ml_dtypes_do(dtype, device):
    every = np.arange(1 << 16, dtype=np.uint16).view(DTYPES[dtype]).astype(np.float32)
    finite = np.unique(every[np.isfinite(every)])
    middle = (finite[1:].astype(float) + finite[:-1]) / 2  # halfway between neighbours, and next to that
    random = np.random.default_rng(0).integers(0, 1 << 32, 50_000, dtype=np.uint32).view(np.float32)
    halfway = middle.astype(np.float32)
    x = np.concatenate(
        [every, halfway, np.nextafter(halfway, np.inf), np.nextafter(halfway, -np.inf), random]
    )
    with np.errstate(all="ignore"):
        expected = x.astype(DTYPES[dtype])
    code = (FOLDER / "common.cuh").read_text() + CONVERSION
    module = device.xp.RawModule(code=code, options=("-std=c++17", f"-DNUMBER={dtype}", "-DREAL=float"))
    given, y, back = device.asarray(x), device.asarray(np.zeros(x.shape, DTYPES[dtype])), device.asarray(x)
    module.get_function("convert")((-(-x.size // 256),), (256,), (given, y, back, x.size))
    nan = np.isnan(x)
    found = device.to_host(y)
    np.testing.assert_array_equal(found.view(np.uint16)[~nan], expected.view(np.uint16)[~nan])
    assert np.isnan(found[nan].astype(np.float32)).all()
    np.testing.assert_array_equal(device.to_host(back), expected.astype(np.float32))


def test_a_sum_may_be_written_into_either_of_its_parts(dtype, device):
    x, y = np.arange(300).astype(DTYPES[dtype]), np.ones(300, DTYPES[dtype])
    for number in (0, 1):
        parts = device.asarray(x), device.asarray(y)
        device.kernels.add(*parts, parts[number])
        np.testing.assert_array_equal(device.to_host(parts[number]), x + y)


@pytest.mark.parametrize(
    ("kernel", "narrow"),
    [
        *((kernel, convolution.NARROW) for kernel in KERNELS),
        *((kernel, 0) for kernel in KERNELS if "conv2d" in kernel),  # by columns
    ],
)
def test_a_kernel_gives_what_exact_arithmetic_gives_rounded_once(kernel, narrow, dtype, device, monkeypatch):
    monkeypatch.setattr(convolution, "NARROW", narrow)
    for call in (stored(call, dtype) for call in CASES if call.function == kernel):
        found, exact = call.run(device), widened(call).run(backends.get("cpu", "portable"))
        for name, array in found.items():
            given = call.arguments[name]
            assert array.dtype == given.dtype
            if given.dtype.kind not in "iu":
                require_rounded(array, exact[name], dtype, rounds_between(call), f"{call.name}: {name}")


def rounds_between(call):
    """Whether a result comes from numbers that have been rounded, as those written to ``addend_grad``."""
    return kernel_of(call) in COMPOSED or call.arguments.get("addend_grad") is not None


def require_rounded(found, exact, dtype, rounds_between, what):
    """Each number is the exact one as far as float32 knows it, rounded to its dtype."""
    exact = exact.astype(np.float64)
    largest = np.max(abs(exact), initial=0, where=np.isfinite(exact))
    unit = UNIT[dtype] if found.dtype.itemsize == 2 else 0
    error = unit * abs(exact) + 1e-5 * largest + SMALLEST
    if rounds_between:
        error = 4 * UNIT[dtype] * largest
    wrong = ~(abs(found.astype(np.float64) - exact) <= error)
    assert not wrong.any(), (what, found[wrong][:5], exact[wrong][:5])


@host_cuda.needed
@pytest.mark.parametrize("kernel", KERNELS)
def test_what_should_be_float32_may_have_16_bits_too(kernel, dtype):
    """Such a call, which no network makes, goes to the portable kernel."""
    call = next(call for call in CASES if call.function == kernel)
    halved = cast(call, lambda name: DTYPES[dtype])
    found, exact = (
        halved.run(StandInBackend("compiled")),
        widened(halved).run(backends.get("cpu", "portable")),
    )
    for name, array in found.items():
        assert array.dtype == halved.arguments[name].dtype
        if array.dtype.kind not in "iu":
            require_rounded(array, exact[name], dtype, True, f"{call.name}: {name}")


@host_cuda.needed
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_takes_as_many_launches_as_in_float32(kernel, dtype, monkeypatch):
    def count(*arguments, **named):  # nothing is computed
        counters.work()

    monkeypatch.setattr(Launcher, "function", lambda self, name, dtype: count)
    monkeypatch.setattr(StandInBackend, "matmul", count)
    for call in (call for call in CASES if call.function == kernel and "17x17 taps" not in call.name):
        asked = []
        for each in (dtype, "float32"):
            device = StandInBackend("compiled")
            before = counters.works
            stored(call, each).run(device)
            asked.append(counters.works - before)
        assert asked[0] == asked[1], call.name
