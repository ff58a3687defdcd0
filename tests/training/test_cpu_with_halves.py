"""The CPU with 16 bits that accuracies are measured on: it rounds where the devices with 16 bits do."""

import numpy as np
import pytest
from helpers import host_cuda
from helpers.standin import StandInBackend

import backends
import cnn
from cnn.training.step import compute_gradients

pytest.importorskip("numba")
ml_dtypes = pytest.importorskip("ml_dtypes")

from helpers.cpu_with_halves import CpuWithHalves, convert  # noqa: E402

DTYPES = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype(np.float16)}
SAMPLES = 16


def convolution():
    return [cnn.Conv2D(8, 3, padding=1, bias=False), cnn.BatchNorm2D()]


def residual():
    """One block as those of ResNet-20. In deeper networks, the roundings of one sum in float32 spread."""
    return cnn.Sequential(
        *convolution(), cnn.ReLU(),
        cnn.Residual(*convolution(), cnn.ReLU(), *convolution()), cnn.ReLU(),
        cnn.GlobalAvgPool2D(), cnn.Dense(10),
    )  # fmt: skip


NETWORKS = {"LeNet-5": (cnn.models.lenet5, (1, 28, 28)), "residual": (residual, (3, 12, 12))}


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


@pytest.fixture(params=NETWORKS)
def model(request):
    return request.param


def gradient(model, dtype, device):
    """The gradient of all parameters in the first training step."""
    make, shape = NETWORKS[model]
    net, loss, random = make(), cnn.CrossEntropy(), np.random.default_rng(0)
    net.build(shape, backend=device, dtype=dtype)
    loss.build(net)
    x = device.asarray(random.random((*shape, SAMPLES)).astype(np.float32))
    compute_gradients(net, loss, x, device.asarray(random.integers(0, 10, SAMPLES)))
    return device.to_host(net.flat.grad).astype(np.float64)


def distance(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def test_portable_kernels_compute_a_step_as_on_the_stand_in_device(model, dtype):
    found, expected = (
        gradient(model, dtype, device("portable")) for device in (CpuWithHalves, StandInBackend)
    )
    assert distance(found, expected) < 1e-6


@host_cuda.needed
def test_compiled_kernels_round_a_step_where_the_cuda_kernels_do(model, dtype):
    """A sum in float32 that was computed in another order may be rounded to a neighbour, but rarely is."""
    expected = gradient(model, dtype, StandInBackend("compiled"))
    found, wide = (gradient(model, each, CpuWithHalves()) for each in (dtype, "float32"))
    assert distance(found, expected) < 0.05 * distance(wide, expected)


def test_numbers_are_converted_as_numpy_and_ml_dtypes_do(dtype):
    every = np.arange(1 << 16, dtype=np.uint16).view(DTYPES[dtype])
    wide = np.empty(every.shape, np.float32)
    convert(every, wide)
    np.testing.assert_array_equal(wide, every.astype(np.float32))
    finite = np.unique(wide[np.isfinite(wide)])
    halfway = ((finite[1:].astype(float) + finite[:-1]) / 2).astype(np.float32)
    x = np.concatenate([wide, halfway, np.nextafter(halfway, np.inf), np.nextafter(halfway, -np.inf)])
    found = np.empty(x.shape, DTYPES[dtype])
    convert(x, found)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(found.astype(np.float32), x.astype(DTYPES[dtype]).astype(np.float32))


def test_float32_is_computed_as_on_any_cpu(model):
    devices = CpuWithHalves(), backends.get("cpu", "compiled")
    found, expected = (gradient(model, "float32", device) for device in devices)
    np.testing.assert_array_equal(found, expected)
