"""ONNX's own conformance cases through our layers; cases.toml lists what becomes of each."""

import tomllib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers import host_cuda
from helpers.devices import get
from helpers.standin import StandInBackend

import backends
from cnn.selftest.checks import Check, carry_out
from cnn.support.errors import DisagreementError
from conformance.cases import Case, cases, onnx
from conformance.node import NotOurs
from conformance.operators import OPERATORS

LISTED = tomllib.loads((Path(__file__).parent / "cases.toml").read_text(encoding="utf-8"))
PASSING = [name for names in LISTED["passing"].values() for name in names]
SKIPPED = {name: reason for reason, names in LISTED["skipped"].items() for name in names}

if not onnx.__version__.startswith(LISTED["onnx"] + "."):
    pytest.skip(
        f"cases.toml lists the cases of onnx {LISTED['onnx']}, this is {onnx.__version__}: "
        f"pip install 'onnx=={LISTED['onnx']}.*'",
        allow_module_level=True,
    )


@pytest.mark.parametrize("name", PASSING)
def test_it_passes(name, kernels):
    cases()[name].run(get("cpu", kernels))


@pytest.mark.parametrize("name", SKIPPED)
def test_it_is_skipped_for_its_reason(name):
    with pytest.raises(NotOurs) as why:
        cases()[name].run(backends.get("cpu", "portable"))
    assert str(why.value) == SKIPPED[name]


def test_every_case_that_is_made_of_our_operators_is_listed_once():
    assert sorted([*PASSING, *SKIPPED]) == sorted(cases())


def test_every_operator_that_is_ours_is_seen_to_work():
    assert list(LISTED["passing"]) == [name for _, name in OPERATORS]
    assert all(LISTED["passing"].values())


def require_all_to_pass(backend):
    section = carry_out(
        lambda device: [Check(name, partial(cases()[name].run, device)) for name in PASSING], backend
    )
    assert section.failed == []
    assert section.passed == len(PASSING)


@pytest.mark.parametrize("kernels", ["portable", "signal", pytest.param("compiled", marks=host_cuda.needed)])
def test_all_pass_on_a_device_that_never_converts(kernels):
    require_all_to_pass(StandInBackend(kernels))


@pytest.mark.gpu
def test_all_pass_on_a_gpu(kernels):
    require_all_to_pass(backends.get("cuda", kernels))


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("test_relu", lambda x, out: np.copyto(out, np.abs(x))),
        (
            "test_softmax_axis_0",
            lambda x, out: np.copyto(out, np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)),
        ),
    ],
)
def test_a_kernel_that_computes_something_else_does_not_pass(name, broken, monkeypatch):
    device = backends.CpuBackend("portable")
    monkeypatch.setattr(device.kernels, name.split("_")[1], broken)
    with pytest.raises(DisagreementError, match=r"output 0 is off by \d\.\de[+-]\d+, expected at most 1e-07"):
        cases()[name].run(device)


def test_a_result_of_another_shape_does_not_pass():
    case = cases()["test_relu"]
    ((inputs, (wanted,)),) = case.data_sets
    wrong = Case(case.name, case.model, [(inputs, [wanted[:1]])], case.rtol, case.atol)
    with pytest.raises(DisagreementError, match=r"is float32 \(3, 4, 5\), expected float32 \(1, 4, 5\)"):
        wrong.run(backends.get("cpu", "portable"))
