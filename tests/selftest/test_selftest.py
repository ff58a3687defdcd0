"""``cnn selftest``: what it checks, and that it names the kernels that are wrong."""

import inspect
import json
import re

import numpy as np
import pytest
from helpers import host_cuda
from helpers.standin import StandInBackend

import backends
import cnn
from backends.kernels import SETS, SignalKernels
from backends.kernels.contract import Kernels
from cnn import layers, selftest
from cnn.inspection.differences import require_near
from cnn.network import Network
from cnn.selftest import parity
from cnn.selftest.calls import calls
from cnn.selftest.cases import NETWORKS as EXAMPLES
from cnn.selftest.checks import Check, carry_out

KERNELS = {name for name, _ in inspect.getmembers(Kernels, inspect.isfunction) if not name.startswith("_")}
NO_KERNELS = {"when_compiling", "prepare", "scratch", "uses_winograd"}
DEVICE = backends.CpuBackend("portable")
CHECKS = list(parity.checks(DEVICE))
FUNCTIONS = sorted({call.function for call in calls("float64")})
NETWORKS, TRAININGS = len(EXAMPLES), len(parity.OPTIMIZERS)


def scores(out):
    """{kernel set: (passed, failed)} by section, of what --json printed."""
    return {
        result["device"]["kernels"]: {
            name: (result[name]["passed"], [failure["name"] for failure in result[name]["failed"]])
            for name in ("gradients", "parity")
        }
        for result in json.loads(out)["results"]
    }


@pytest.fixture
def few_entries(monkeypatch):
    """Fewer finite differences, which take most of the time and are checked for each layer elsewhere."""
    monkeypatch.setattr("cnn.selftest.gradients.ENTRIES", 1)


@pytest.mark.usefixtures("few_entries")
def test_all_that_passes_is_counted(command, monkeypatch):
    monkeypatch.setattr(parity, "WIDE", ("float32",))  # both are checked where a kernel is broken
    code, out, err = command("selftest", "--device", "cpu", "--kernels", "portable", "--json")
    assert code == 0, err
    assert err.splitlines()[0] == "checking cpu portable"  # below it, each ten seconds, how far it is
    assert json.loads(out)["passed"] is True
    parities = len(list(calls("float32"))) + NETWORKS + TRAININGS
    assert scores(out)["portable"]["gradients"] == (NETWORKS, [])
    assert scores(out)["portable"]["parity"] == (parities, [])
    absent = "cpu does not compute in 16 bits"
    assert json.loads(out)["results"][0]["left_out"] == {"bfloat16": absent, "float16": absent}


@pytest.fixture
def one_check_each(monkeypatch):
    """Each section has a single check, which passes."""
    sections = {name: lambda backend: [Check("one", lambda: None)] for name in selftest.scorecard.SECTIONS}
    monkeypatch.setattr("cnn.selftest.scorecard.SECTIONS", sections)


@pytest.mark.usefixtures("one_check_each")
def test_the_scorecard_has_a_row_for_each_section(command):
    code, out, err = command("selftest", "--device", "cpu", "--kernels", "portable")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].startswith("cpu (")
    assert lines[2].startswith("gradients, by finite differences")
    assert lines[3].startswith("the same as the reference")
    assert all(line.split()[-3:] == ["1", "of", "1"] for line in lines[2:4])
    assert lines[4:] == ["bfloat16 and float16 left out: cpu does not compute in 16 bits"]


@pytest.mark.usefixtures("few_entries")
def test_a_broken_kernel_is_named_by_all_that_see_it(command, monkeypatch):
    right = SignalKernels.conv2d_grad_weight

    def wrong(self, x, dy, out, window, groups=1):
        right(self, x, dy, out, window, groups)
        out[...] *= 1.001

    monkeypatch.setattr(SignalKernels, "conv2d_grad_weight", wrong)
    code, out, err = command("selftest", "--device", "cpu", "--kernels", "signal")
    assert code == 1, err
    parity_row, gradient_row = "the same as the reference", "gradients, by finite differences"
    for row, check, reason in (
        (parity_row, "conv2d_grad_weight, plain, float32", "out is off by 1.0e-03, expected at most 1.5e-05"),
        (
            parity_row,
            "network, convolution, float64",
            r"gradient of 0.weight is off by \S+, expected at most 2.8e-14",
        ),
        (parity_row, "training with SGD", r"the trained 0.weight is off by \S+, expected at most 1.0e-09"),
        (
            gradient_row,
            "convolution, ReLU",
            r"the gradient of 0.weight is off by \S+, expected less than 1e-05",
        ),
    ):
        assert re.search(f"^WRONG on cpu signal: {row}: {check}: {reason}$", out, re.MULTILINE), check
    assert not re.search("WRONG.*(conv2d, |max_pool2d|network, dense)", out)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--kernels", "fast"), "unknown kernels 'fast': expected auto, compiled, portable or signal"),
        (("--device", "tpu"), "unknown device 'tpu'"),
        (("--threads", 0), "threads is 0, expected a whole number from 1"),
    ],
)
def test_what_is_not_there_is_one_sentence(command, flags, sentence):
    code, out, err = command("selftest", "--device", "cpu", *flags)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {sentence}")


@pytest.mark.usefixtures("one_check_each")
def test_it_takes_every_kernel_set_and_says_which_cannot_be_had(command, monkeypatch):
    get = backends.get

    def without_numba(spec, kernels="auto", threads=None):
        if kernels == "compiled":
            raise backends.DeviceUnavailable("the compiled kernels need Numba")
        return get(spec, "portable" if kernels == "auto" else kernels, threads)

    monkeypatch.setattr(backends, "get", without_numba)
    code, out, err = command("selftest", "--device", "cpu")
    assert code == 0, err
    assert err.splitlines()[0] == "note: the compiled kernels need Numba"
    assert out.splitlines()[1].split() == ["passed", *(name for name in SETS if name != "compiled")]
    assert out.count("1 of 1") == 2 * (len(SETS) - 1)


@pytest.mark.usefixtures("few_entries")
@pytest.mark.parametrize("kernels", ["portable", pytest.param("compiled", marks=host_cuda.needed)])
def test_it_passes_on_a_device_that_never_converts(kernels, monkeypatch):
    monkeypatch.setattr(parity, "reference_of", lambda backend: DEVICE)  # as exact as scipy.signal and faster
    monkeypatch.setattr(parity, "WIDE", ("float32",))  # its kernels in float64: test_cuda_kernels.py
    device = StandInBackend(kernels)
    device.has_halves = False  # test_selftest_in_16_bits.py
    card = selftest.run(device)
    assert [section.failed for section in card.values()] == [[], []]
    assert card["gradients"].passed == NETWORKS


@pytest.mark.gpu
def test_it_passes_on_a_gpu(kernels):
    card = selftest.run(backends.get("cuda", kernels))
    assert [section.failed for section in card.values()] == [[]] * len(card)


def test_every_kernel_is_called():
    assert {function.removeprefix("kernels.") for function in FUNCTIONS} == KERNELS - NO_KERNELS


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_kernel_that_is_a_thousandth_off_is_named(function, dtype, monkeypatch):
    owner = DEVICE.kernels if function.startswith("kernels.") else DEVICE
    name = function.removeprefix("kernels.")
    right = getattr(owner, name)

    def wrong(**arguments):
        before = {key: np.copy(value) for key, value in arguments.items() if isinstance(value, np.ndarray)}
        right(**arguments)
        for key, array in before.items():
            if array.dtype.kind == "f" and not np.array_equal(array, arguments[key], equal_nan=True):
                arguments[key] *= 1.001
                arguments[key] += 0.001 * (name == "clear")
            elif name.startswith("count_"):  # they write whole numbers alone
                arguments[key] += 1

    monkeypatch.setattr(owner, name, wrong)
    called = [check for check in CHECKS if check.name.startswith(f"{name}, ")]
    section = carry_out(lambda _: [check for check in called if check.name.endswith(dtype)], DEVICE)
    assert section.passed == 0
    assert len(section.failed) >= 2
    assert all("is off by" in failure.reason for failure in section.failed)


def with_children(layer):
    yield layer
    for child in getattr(layer, "children", {}).values():
        yield from with_children(child)


def test_every_layer_is_in_the_small_networks_with_all_its_options():
    seen = {}
    for example in EXAMPLES:
        for layer in with_children(example.network()):
            for option, value in layer.config.items():
                seen.setdefault((type(layer), option), set()).add(str(value))
            seen.setdefault((type(layer), None), set())
    kinds = {
        kind for kind in vars(layers).values() if inspect.isclass(kind) and issubclass(kind, layers.Layer)
    }
    assert {kind for kind, _ in seen} - {Network} == kinds - {layers.Layer}
    never_varied = {"initializer", "f", "f_prime", "trainable"}
    alone = {(kind.__name__, option) for (kind, option), values in seen.items() if option and len(values) < 2}
    assert {(kind, option) for kind, option in alone if option not in never_varied} == set()


def test_what_fails_in_any_way_is_a_failure_and_the_rest_goes_on():
    def no_kernel():
        raise IndexError("out of\nbounds")

    checks = [Check("breaks", no_kernel), Check("right", lambda: None)]
    section = carry_out(lambda backend: checks, backends.get("cpu"))
    assert section.passed == 1
    assert [(failure.name, failure.reason) for failure in section.failed] == [
        ("breaks", "IndexError: out of bounds")
    ]


@pytest.mark.parametrize("error", [cnn.DeviceLost("gone"), cnn.OutOfMemory("cuda:0", None, None, "")])
def test_a_device_that_is_gone_ends_it(error):
    def lost():
        raise error

    with pytest.raises(type(error)):
        carry_out(lambda backend: [Check("lost", lost)], backends.get("cpu"))


@pytest.mark.parametrize("found", [np.array([1, 2.1]), np.array([1, np.nan]), np.array([1.0])])
def test_nothing_but_the_same_is_near(found):
    require_near("it", np.array([1, 2.0]), np.array([1, 2 + 1e-9]), 1e-6)
    with pytest.raises(cnn.errors.DisagreementError, match=r"^it (is off|has the shape) "):
        require_near("it", np.array([1, 2.0]), found, 1e-6)
