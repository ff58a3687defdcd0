"""16-bit arrays in kernels: computed in float32 and rounded once, on the stand-in device."""

import sys

import numpy as np
import pytest
from helpers.standin import StandInBackend

import backends
from backends.graph import recordable
from cnn.selftest.calls import calls

ml_dtypes = pytest.importorskip("ml_dtypes")
DTYPES = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype(np.float16)}
UNIT = {"bfloat16": 2.0**-8, "float16": 2.0**-11}  # the largest relative error of one rounding
SMALL = 20_000  # numbers
CALLS = [
    call
    for call in calls("float32")
    if sum(value.size for value in call.arguments.values() if isinstance(value, np.ndarray)) < SMALL
]
KERNELS = sorted({call.function for call in CALLS})
OF_SIGNAL = [("signal", name) for name in KERNELS if "conv2d" in name]  # it has convolutions of its own


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


def halved(value, dtype):
    """Numbers in float32 as 16 bits; everything else as it is."""
    return value.astype(DTYPES[dtype]) if getattr(value, "dtype", None) == np.float32 else value


def widened(value):
    return value.astype(np.float32) if getattr(value, "dtype", None) in DTYPES.values() else value


def with_arguments(call, change):
    arguments = {name: change(value) for name, value in call.arguments.items()}
    return type(call)(call.name, call.function, arguments)


@pytest.mark.parametrize(("kernels", "kernel"), [*(("portable", name) for name in KERNELS), *OF_SIGNAL])
def test_each_kernel_gives_what_it_gives_in_float32_rounded_once(kernel, kernels, dtype):
    device = StandInBackend(kernels)
    for call in (call for call in CALLS if call.function == kernel):
        half = with_arguments(call, lambda value: halved(value, dtype))
        found = half.run(device)
        expected = with_arguments(half, widened).run(device)
        for name, array in found.items():
            assert array.dtype == half.arguments[name].dtype, (call.name, name)
            with np.errstate(over="ignore"):
                rounded = expected[name].astype(array.dtype)
            np.testing.assert_array_equal(array, rounded, f"{call.name}: {name}")


def test_an_array_that_is_given_twice_is_one_array(device, dtype):
    x = device.asarray(np.array([-1, 2, -3], DTYPES[dtype]))
    device.kernels.relu(x, x)
    assert device.to_host(x).tolist() == [0, 2, 0]
    y = device.asarray(np.array([1, 1, 4], DTYPES[dtype]))
    device.kernels.add(y, x, y)
    assert device.to_host(y).tolist() == [1, 3, 4]
    assert device.to_host(x).tolist() == [0, 2, 0]


def test_an_output_may_be_another_view_of_an_input(device, dtype):
    x = device.asarray(np.array([-1, 2, -3], DTYPES[dtype]))
    device.kernels.relu(x, x.reshape(3))
    assert device.to_host(x).tolist() == [0, 2, 0]


def test_biases_and_moments_stay_in_float32(device, dtype):
    third = np.array([1 / 3], np.float32)
    y = device.asarray(np.zeros((1, 2), DTYPES[dtype]))
    bias, mean, variance = (device.asarray(third) for _ in range(3))
    device.kernels.add_bias(y, bias)
    device.kernels.moments(y, mean, variance)
    assert device.to_host(bias) == third
    assert device.to_host(mean) == device.to_host(y)[0, 0].astype(np.float32)
    assert device.to_host(variance) == 0


def test_the_copies_are_allocated_once(device, dtype):
    x, y = (device.asarray(np.ones(1000, DTYPES[dtype])) for _ in range(2))
    device.kernels.add(x, y, y)
    device.reset_counters()
    before = device.allocations
    device.kernels.add(x, y, y)
    assert (device.allocated_bytes, device.allocations) == (0, before)


def test_a_list_of_kernel_calls_repeats_them_with_their_casts():
    cpu = backends.get("cpu", "portable")
    x, y = np.zeros(3, np.float16), np.zeros(3, np.float16)
    repeat = cpu.graph(recordable(lambda: cpu.kernels.scale(x, 2.0, y)))
    for number in (1, 2, 3):
        x.fill(number)
        repeat()
        assert y.tolist() == [2 * number] * 3


class TestProducts:
    @pytest.mark.parametrize("out_dtype", ["the same", "float32"])
    @pytest.mark.parametrize("accumulate", [False, True])
    def test_sum_in_float32_and_round_once(self, device, dtype, out_dtype, accumulate):
        random = np.random.default_rng(0)
        a, b, c = (random.standard_normal(s).astype(DTYPES[dtype]) for s in ((7, 300), (300, 9), (7, 9)))
        c = c.astype(np.float32) if out_dtype == "float32" else c
        out = device.asarray(c)
        device.matmul(device.asarray(a), device.asarray(b), out, accumulate)
        a, b, c = (array.astype(np.float64) for array in (a, b, c))
        expected = a @ b + accumulate * c
        sums = 302 * 2.0**-24 * (abs(a) @ abs(b) + abs(c))
        unit = 2.0**-24 if out_dtype == "float32" else UNIT[dtype]
        found = device.to_host(out).astype(np.float64)
        assert (abs(found - expected) <= sums + unit * abs(expected)).all()

    def test_a_long_sum_of_ones_does_not_stop_at_the_precision_of_the_factors(self, device, dtype):
        ones = np.ones((1, 4096), DTYPES[dtype])
        out = device.asarray(np.zeros((1, 1), DTYPES[dtype]))
        device.matmul(device.asarray(ones), device.asarray(ones.T.copy()), out)
        assert device.to_host(out).item() == 4096


class TestDtypes:
    def test_the_cpu_refuses_16_bits_in_a_sentence(self, dtype):
        with pytest.raises(backends.ArgumentError) as caught:
            backends.get("cpu").require_support(dtype)
        assert str(caught.value) == (
            f"dtype is {dtype}, expected float32 or float64 on cpu: only CUDA GPUs compute in 16 bits"
        )

    def test_a_gpu_takes_them(self, gpu, device, dtype):
        gpu.require_support(dtype)
        device.require_support(dtype)

    @pytest.mark.parametrize("wide", ["float32", "float64"])
    def test_every_device_takes_32_and_64_bits(self, gpu, device, wide):
        for each in (gpu, device, backends.get("cpu")):
            each.require_support(wide)

    def test_bfloat16_needs_ml_dtypes_and_float16_does_not(self, device, monkeypatch):
        monkeypatch.setitem(sys.modules, "ml_dtypes", None)
        device.require_support("float16")
        with pytest.raises(backends.ArgumentError, match="ml_dtypes is needed for bfloat16") as caught:
            device.require_support("bfloat16")
        assert "-m pip install" in str(caught.value)
