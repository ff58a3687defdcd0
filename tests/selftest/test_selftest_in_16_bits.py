"""``cnn selftest`` in bfloat16 and float16: what it checks, and which mistakes it finds."""

import json
import sys

import numpy as np
import pytest
from helpers import host_cuda
from helpers.standin import StandInBackend

import backends
import cnn
from backends.dtypes import is_half
from backends.kernels import PortableKernels
from cnn import selftest
from cnn.network import Network
from cnn.selftest import halves, rounding
from cnn.selftest.call import Call
from cnn.selftest.calls import calls
from cnn.selftest.cases import LAYERS
from cnn.selftest.checks import Check, carry_out

ml_dtypes = pytest.importorskip("ml_dtypes")
DTYPES = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype(np.float16)}
CALLS = {dtype: list(calls(dtype)) for dtype in DTYPES}


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


@pytest.fixture(autouse=True)
def calls_made_once(monkeypatch):
    monkeypatch.setattr(halves, "calls", CALLS.get)


def failures(dtype, *words, device=None):
    """The reasons, by name, of the checks that fail among those whose names begin with one of ``words``."""
    chosen = [
        check
        for check in halves.checks(dtype, device or StandInBackend())
        if check.name.startswith(words or "")
    ]
    assert chosen
    section = carry_out(lambda _: chosen, device)
    return {failure.name: failure.reason for failure in section.failed}, len(chosen)


class TestWhatIsRight:
    def test_passes_with_the_portable_kernels(self, dtype):
        found, count = failures(dtype)
        assert found == {}
        assert count == len(CALLS[dtype]) + len(LAYERS) + 2

    @host_cuda.needed
    def test_passes_with_cuda_kernels_whose_other_calls_are_in_test_cuda_halves(self, dtype):
        device = StandInBackend("compiled")
        few = "matmul", "copy", "conv2d, ", "conv2d_max_pool2d, wide", "normalize, "
        found, _ = failures(dtype, *few, "layer", device=device)
        assert found == {}

    def test_each_kernel_that_networks_call_in_16_bits_is_among_the_calls(self, dtype, monkeypatch):
        called = set()
        device = StandInBackend()

        def noting(name, right):
            def call(*arguments, **named):
                values = (*arguments, *named.values())
                if any(device.owns(value) and is_half(value) for value in values):
                    called.add(name)
                right(*arguments, **named)

            return call

        for name in {call.kernel for each in ("float32", dtype) for call in calls(each)}:
            monkeypatch.setattr(device.kernels, name, noting(name, getattr(device.kernels, name)))
        found, _ = failures(dtype, "layer", "training", device=device)
        assert found == {}
        assert called <= {call.kernel for call in CALLS[dtype]}
        assert len(called) > 25

    def test_what_layers_add_up_stays_in_float32_in_the_calls(self, dtype):
        kinds = {}
        for call in CALLS[dtype]:
            for name, value in call.arguments.items():
                if isinstance(value, np.ndarray) and (is_half(value) or value.dtype == np.float32):
                    kinds.setdefault((call.kernel, name), set()).add(is_half(value))
        half = {of for of, found in kinds.items() if found == {True}}
        assert {
            ("conv2d", "weight"),
            ("relu", "x"),
            ("fold", "out_weight"),
            ("add_activate", "addend"),
        } <= half
        both = {of for of, found in kinds.items() if len(found) == 2}
        assert both == {("matmul", "out"), ("copy", "x"), ("copy", "out")}
        assert not {name for _, name in half} & {"bias", "mean", "variance", "scale", "weight_grad", "sums"}


class TestTheBounds:
    def test_are_those_of_the_dtypes(self, dtype):
        about = ml_dtypes.finfo(DTYPES[dtype])
        assert rounding.unit(dtype) == float(about.eps) / 2
        assert rounding.LEAST[dtype] == float(about.smallest_subnormal) / 2

    def test_one_rounding_passes_and_cutting_off_does_not(self, dtype):
        exact = np.random.default_rng(0).standard_normal(1000)
        nearest = exact.astype(DTYPES[dtype])
        rounding.require_exact("it", exact, nearest, dtype)
        rounding.require_exact("it", exact.astype(nearest.dtype).astype(float), nearest, dtype)
        with pytest.raises(cnn.errors.DisagreementError, match=r"a number in it is off by .*, one rounding"):
            rounding.require_exact("it", exact, cut_off(exact, nearest.dtype), dtype)

    @pytest.mark.parametrize("wrong", [np.nan, np.inf])
    def test_nothing_else_is_near(self, dtype, wrong):
        exact = np.array([0, 1.0])
        for found in ([wrong, 1], [0, wrong], [1e-3, 1]):
            with pytest.raises(cnn.errors.DisagreementError):
                rounding.require_exact("it", exact, np.array(found).astype(DTYPES[dtype]), dtype)

    def test_numbers_below_the_smallest_may_be_lost(self):
        exact = np.array([1e-8, -(2.0**-25)])
        rounding.require_exact("it", exact, exact.astype(np.float16), "float16")
        assert exact.astype(np.float16).tolist() == [0, 0]

    def test_few_choices_may_turn_on_a_rounding(self, dtype):
        exact = np.zeros(100, np.uint8)
        found = exact.copy()
        found[:3] = 1
        rounding.require_exact("winner", exact, found, dtype, between=True)
        with pytest.raises(cnn.errors.DisagreementError, match="winner is off by"):
            rounding.require_exact("winner", exact, found, dtype)
        found[:9] = 1
        with pytest.raises(cnn.errors.DisagreementError, match="9% of winner differs, expected at most 5%"):
            rounding.require_exact("winner", exact, found, dtype, between=True)


def cut_off(values, dtype):
    """Rounded towards 0."""
    values = np.asarray(values)
    nearest = values.astype(dtype)
    below = np.nextafter(nearest, np.array(0, dtype))
    return np.where(abs(nearest.astype(float)) > abs(values.astype(float)), below, nearest).astype(dtype)


def rounded_by(rounded, right, device):
    """A kernel that writes what ``rounded(values, dtype)`` makes of its results in float32."""

    def wrong(**arguments):
        wide = {
            name: device.asarray(device.to_host(value).astype(np.float32))
            if device.owns(value) and is_half(value)
            else value
            for name, value in arguments.items()
        }
        right(**wide)
        for name, value in arguments.items():
            if value is not wide[name]:
                device.asarray(rounded(device.to_host(wide[name]), value.dtype), out=value)

    return wrong


def rounded_twice(values, dtype):
    """First to a bit more than the dtype has."""
    mantissa, exponent = np.frexp(values)
    bits = rounding.BITS[dtype.name] + 1
    return np.ldexp(np.rint(mantissa * 2.0**bits) / 2.0**bits, exponent).astype(dtype)


@pytest.mark.parametrize("rounded", [cut_off, rounded_twice])
@pytest.mark.parametrize("kernel", ["conv2d", "normalize", "softmax", "resample", "tanh", "add"])
def test_a_kernel_that_rounds_in_another_way_is_named(kernel, rounded, dtype, monkeypatch):
    device = StandInBackend()
    wrong = rounded_by(rounded, getattr(device.kernels, kernel), device)
    monkeypatch.setattr(device.kernels, kernel, wrong)
    found, count = failures(dtype, f"{kernel}, ", device=device)
    assert count >= 3
    assert len(found) >= count // 2  # some results are exact
    unit = f"{rounding.unit(dtype):.1e}"
    for reason in found.values():
        assert reason.startswith("a number in ")
        assert reason.endswith(f"expected at most {unit}, one rounding")


def test_weights_that_are_cut_off_are_found(dtype, monkeypatch):
    right = PortableKernels.copy

    def wrong(self, x, out):
        if is_half(out):
            self.device.asarray(cut_off(self.device.to_host(x), out.dtype), out=out)
        else:
            right(self, x, out)

    monkeypatch.setattr(PortableKernels, "copy", wrong)
    found, _ = failures(dtype, "copy, ")
    assert len(found) == 3
    assert all("out in 16 bits" in name for name in found)


def summed_in_16_bits(a, b, dtype):
    total = np.zeros((len(a), b.shape[1]), dtype)
    for k in range(a.shape[1]):
        total = (total + (a[:, k : k + 1].astype(np.float32) * b[k]).astype(dtype)).astype(dtype)
    return total


class TestSumsKeptIn16Bits:
    def test_in_products_are_found(self, dtype, monkeypatch):
        def matmul(self, a, b, out, accumulate=False):
            total = summed_in_16_bits(a._host, b._host, DTYPES[dtype] if is_half(a) else a.dtype)
            out._host[...] = total + out._host if accumulate else total

        monkeypatch.setattr(StandInBackend, "matmul", matmul)
        found, count = failures(dtype, "matmul, ")
        assert len(found) == count

    def test_of_channels_are_found(self, dtype, monkeypatch):
        def sum_rows(self, x, out):
            host = self.device.to_host(x)
            self.device.asarray(host.reshape(out.size, -1).sum(axis=1, dtype=host.dtype), out=out)

        monkeypatch.setattr(PortableKernels, "sum_rows", sum_rows)
        found, count = failures(dtype, "sum_rows, ")
        assert len(found) == count == 3
        assert all(reason.endswith("expected at most 1.5e-05") for reason in found.values())


class TestADtypeThatIsWrong:
    def test_of_what_a_layer_gives_on_is_found(self, dtype, monkeypatch):
        def output(self, x, training):
            return self.buffer("y", (*self.output_shape, x.shape[-1]), "float32")

        monkeypatch.setattr(cnn.Tanh, "output", output)
        found, _ = failures(dtype, "layer, tanh", "layer, relu")
        assert found == {
            f"layer, tanh, {dtype}": f"the result of 0 Tanh is float32, expected {dtype}",
        }

    def test_of_a_networks_results_is_found(self, dtype, monkeypatch):
        monkeypatch.setattr(Network, "_in", lambda self, dtype, array, name: array)
        found, _ = failures(dtype, "layer, relu")
        assert found == {f"layer, relu, {dtype}": f"the output is {dtype}, expected float32"}

    def test_of_an_array_on_the_device_is_found(self, dtype, monkeypatch):
        right = StandInBackend.to_host
        monkeypatch.setattr(StandInBackend, "to_host", lambda self, x: right(self, x).astype(np.float32))
        found, count = failures(dtype, "relu, ")
        assert len(found) == count
        assert set(found.values()) <= {f"{name} is float32, expected {dtype}" for name in ("x", "out")}


class TestTrainingThatIsWrong:
    def test_in_the_size_of_a_gradient_is_found(self, dtype, monkeypatch):
        right = PortableKernels.conv2d_grad_weight

        def wrong(self, x, dy, out, window, groups=1):
            right(self, x, dy, out, window, groups)
            if is_half(x):
                out *= 1.1

        monkeypatch.setattr(PortableKernels, "conv2d_grad_weight", wrong)
        found, _ = failures(dtype, "training, ")
        (reason,) = found.values()
        assert reason.startswith(("the change of 0.weight is off by ", "the mean loss is off by "))

    def test_in_a_bit_that_changes_from_run_to_run_is_found(self, dtype, monkeypatch):
        right, count = StandInBackend.matmul, [0]

        def wrong(self, a, b, out, accumulate=False):
            count[0] += 1
            right(self, a, b, out, accumulate)
            if count[0] % 50 == 0:
                out *= 1 + 2.0**-6
            return out

        monkeypatch.setattr(StandInBackend, "matmul", wrong)
        found, _ = failures(dtype, "training twice")
        (reason,) = found.values()
        assert reason.startswith("training again gives other bits of ")

    def test_in_what_is_recorded_is_found(self, dtype, monkeypatch):
        right = StandInBackend._capture

        def twice(self, step):
            launch = right(self, step)
            return lambda: (launch(), launch())

        monkeypatch.setattr(StandInBackend, "_capture", twice)
        found, _ = failures(dtype, "training twice")
        (reason,) = found.values()
        assert reason.startswith("training without recording a step gives other bits of ")


@pytest.fixture
def few_checks(monkeypatch):
    """A check each, and the stand-in device in place of the CPU."""
    sections = {name: lambda backend: [Check("one", lambda: None)] for name in selftest.scorecard.SECTIONS}
    monkeypatch.setattr("cnn.selftest.scorecard.SECTIONS", sections)
    monkeypatch.setattr(backends, "get", lambda spec, kernels="auto", threads=None: StandInBackend())


@pytest.mark.usefixtures("few_checks")
class TestTheScorecard:
    def test_has_a_row_for_each_dtype(self, command, terminal):
        terminal(80)
        code, out, err = command("selftest", "--kernels", "portable")
        assert code == 0, err
        rows = [line.rpartition("1 of 1")[0].strip() for line in out.splitlines()[2:]]
        assert rows == [
            "gradients, by finite differences",
            "the same as the reference",
            "the same in bfloat16",
            "the same in float16",
        ]

    def test_has_them_for_programs_too(self, command):
        code, out, err = command("selftest", "--kernels", "portable", "--json")
        assert code == 0, err
        (result,) = json.loads(out)["results"]
        assert set(result) == {"device", "gradients", "parity", "bfloat16", "float16", "left_out"}
        assert result["float16"] == {"passed": 1, "failed": []}
        assert result["left_out"] == {}

    def test_says_what_bfloat16_needs(self, command, monkeypatch):
        monkeypatch.setitem(sys.modules, "ml_dtypes", None)
        code, out, err = command("selftest", "--kernels", "portable")
        assert code == 0, err
        assert "the same in float16" in out
        assert "the same in bfloat16" not in out
        assert out.splitlines()[-1].startswith("bfloat16 left out: ml_dtypes is needed for bfloat16")


def test_a_call_in_float32_has_no_16_bits():
    call = Call("tally", "kernels.mix_targets", {"out": np.zeros(3, np.float32)})
    assert list(call.in_16_bits("float16")) == []
