"""The CUDA kernels without a GPU: compiled by NVIDIA's compiler, and run by the host's."""

import inspect
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT, host_cuda, nvrtc
from helpers.compiled_kernels import BUILDS, HALF, KERNELS, require_registers
from helpers.fenced import PLACES, device_at
from helpers.kernel_calls import CALLS
from helpers.kernel_calls.drawn import RANDOM, numbers
from helpers.standin import StandInBackend

import backends
import cnn
from backends import Window
from backends.cuda import kernels, launch
from backends.cuda.kernels import augmentation, convolution, launching, pooling
from backends.cuda.kernels.convolution import TILES
from backends.cuda.launch import THREADS, Launcher, definitions, sources
from backends.kernels import PortableKernels
from backends.kernels import augmentation as drawn
from backends.kernels.contract import Kernels
from backends.kernels.functions import RELU
from backends.kernels.losses import LossKernels

compiler = pytest.mark.skipif(
    nvrtc.library() is None, reason="NO CUDA KERNEL WAS COMPILED: no nvidia-cuda-nvrtc"
)


@compiler
@pytest.mark.parametrize(("concept", "dtype", "architecture"), HALF)
def test_every_kernel_compiles_and_keeps_its_numbers_in_registers(
    concept, dtype, architecture, record_property
):
    registers = require_registers(concept, dtype, architecture)
    listed = ", ".join(f"{name} {count}" for name, count in registers.items())
    record_property("cuda", f"{architecture} {dtype}: registers: {listed}")


def test_every_source_is_compiled_for_each_architecture_and_dtype():
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert {(build[one], build[other]) for build in HALF} == {
            (build[one], build[other]) for build in BUILDS
        }


@compiler
def test_what_the_compiler_refuses_is_seen():
    with pytest.raises(nvrtc.CompileError, match="nonsense"):
        nvrtc.compile_source("nonsense", "sm_90", definitions("float32"))


@compiler
def test_a_spill_is_seen():
    many = (
        'extern "C" __global__ void __launch_bounds__(1024, 2) spilling(double *x) {'
        + "".join(f"double a{i} = x[{i} * 7 + threadIdx.x];" for i in range(80))
        + "__syncthreads();"
        + "".join(f"x[{i} + threadIdx.x] = a{i} * a{79 - i};" for i in range(80))
        + "}"
    )
    assert nvrtc.compile_source(many, "sm_90", [])[1]["spilling"][1] > 0


ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}


@pytest.fixture(params=PLACES)
def device(request, monkeypatch):
    """What the kernels run on: the host, its threads one way round or the other, or a GPU."""
    return device_at(request.param, monkeypatch)


def on(device, arguments):
    return [device.asarray(a) if isinstance(a, np.ndarray) else a for a in arguments]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CALLS)
def test_what_a_step_does_besides_its_windows_is_as_in_plain_xp(name, dtype, device, monkeypatch):
    monkeypatch.setattr(launch, "GRID_ROWS", 16)
    RANDOM.bit_generator.state = np.random.default_rng(0).bit_generator.state
    method, *arguments = CALLS[name]()
    names = inspect.signature(getattr(device.kernels, method)).parameters

    def cast(name, argument):
        is_sum = method in vars(LossKernels) and name in ("sums", "counts")
        is_double = is_sum or name in ("table", "drawn")  # whatever the dtype
        if isinstance(argument, np.ndarray) and argument.dtype == float and not is_double:
            return argument.astype(dtype)
        return argument

    arguments = [cast(*pair) for pair in zip(names, arguments, strict=False)]
    given = on(device, arguments)
    getattr(device.kernels, method)(*given)
    expected = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
    getattr(PortableKernels(backends.get("cpu")), method)(*expected)
    # float64 shows that the arithmetic is the same, float32 that it is done in the right dtype
    tolerance = 1e-12 if dtype == "float64" else 1e-4
    for found, right in zip(given, expected, strict=True):
        if isinstance(right, np.ndarray):
            np.testing.assert_allclose(device.to_host(found), right, rtol=tolerance, atol=tolerance)
            if dtype == "float64":  # what is too small to matter has become 0
                np.testing.assert_array_equal(device.to_host(found) == 0, right == 0)


@pytest.mark.parametrize(
    ("loss", "shape"),
    [
        ("cross_entropy", (7,)),
        ("cross_entropy", (40,)),
        ("squared_error", (7,)),
        ("squared_error", (3, 17, 23)),
    ],
)
def test_a_samples_loss_has_the_same_bits_in_every_batch(loss, shape, device):
    y, targets = numbers(*shape, 300), numbers(*shape, 300)
    results = []
    for N in (300, 5):
        arrays = [np.ascontiguousarray(array[..., :N]) for array in (y, targets)]
        results.append([device.asarray(array) for array in (*arrays, np.zeros(N), np.zeros(arrays[0].shape))])
        getattr(device.kernels, loss)(*results[-1], 7)
    for whole, few in zip(*results, strict=True):
        np.testing.assert_array_equal(device.to_host(whole)[..., :5], device.to_host(few))


def test_every_kernel_is_launched_here(device, monkeypatch):
    launched = set()
    function = Launcher.function
    monkeypatch.setattr(
        Launcher,
        "function",
        lambda self, name, dtype: launched.add(name) or function(self, name, dtype),
    )
    for make in CALLS.values():
        method, *arguments = make()
        getattr(device.kernels, method)(*on(device, arguments))
    for channels in TILES:
        launch_windows(device, channels)
    monkeypatch.setattr(convolution, "NARROW", 0)
    launch_windows(device, 2)
    assert launched == set().union(*KERNELS.values())


def launch_windows(device, channels):
    """All that has a window, of so many channels."""
    kernels = device.kernels
    x, weight, y, pooled = (
        device.asarray(numbers(*shape))
        for shape in (
            (channels, 5, 5, 2),
            (channels, channels, 2, 2),
            (channels, 4, 4, 2),
            (channels, 2, 2, 2),
        )
    )
    winner = device.asarray(np.zeros((channels, 2, 2, 2), np.uint8))
    window, pool = Window((2, 2)), Window((2, 2), (2, 2))
    kernels.conv2d(x, weight, y, window)
    kernels.conv2d_grad_weight(x, y, weight, window)
    kernels.conv2d_grad_input(y, weight, x, window)
    kernels.conv2d_max_pool2d(x, weight, None, pooled, winner, window, 1, pool, RELU)
    kernels.max_pool2d(y, pooled, winner, pool)
    kernels.max_pool2d_grad(pooled, winner, y, pool)


@host_cuda.needed
@pytest.mark.parametrize(("what", "limit"), [("largest", 100), ("SHARED_BYTES", 64)])
def test_what_is_too_large_for_a_kernel_goes_another_way_to_the_same_result(what, limit, monkeypatch):
    owner = kernels.CompiledKernels if what == "largest" else convolution
    results = []
    for limited in (False, True):
        with monkeypatch.context() as patch:
            if limited:
                patch.setattr(owner, what, limit)
            network = cnn.Sequential(
                cnn.Conv2D(3, 3), cnn.ReLU(), cnn.Conv2D(4, 2), cnn.ReLU(), cnn.MaxPool2D(2),
                cnn.Conv2D(2, 2, bias=False), cnn.AvgPool2D(2), cnn.Flatten(), cnn.Dense(3),
            )  # fmt: skip
            network.build((2, 9, 9), backend=StandInBackend("compiled"), dtype="float64")
            x = network.backend.asarray(np.random.default_rng(0).standard_normal((2, 9, 9, 3)))
            y = network.forward(x, training=True)
            dx = network.backward(network.backend.asarray(np.ones(y.shape)))
            results.append([network.backend.to_host(array) for array in (y, dx, network.flat.grad)])
    for plain, limited in zip(*results, strict=True):
        np.testing.assert_allclose(limited, plain, rtol=1e-10, atol=1e-10)


def launch_groups(kernels, asarray, groups):
    """All convolutions of two channels a group and their gradients; -> what they wrote."""
    random = np.random.default_rng(0)
    x, weight, y, pooled = (
        asarray(random.standard_normal(shape))
        for shape in (
            (2 * groups, 4, 4, 2),
            (2 * groups, 2, 2, 2),
            (2 * groups, 3, 3, 2),
            (2 * groups, 1, 1, 2),
        )
    )
    winner = asarray(np.zeros((2 * groups, 1, 1, 2), np.uint8))
    window, pool = Window((2, 2)), Window((2, 2))
    kernels.conv2d(x, weight, y, window, groups)
    kernels.conv2d_max_pool2d(x, weight, None, pooled, winner, window, groups, pool, RELU)
    gradients = asarray(np.zeros(x.shape)), asarray(np.zeros(weight.shape))
    kernels.conv2d_grad_input(y, weight, gradients[0], window, groups)
    kernels.conv2d_grad_weight(x, y, gradients[1], window, groups)
    return y, pooled, winner, *gradients


@pytest.mark.parametrize("narrow", [convolution.NARROW, 0], ids=["directly", "by columns"])
def test_more_rows_of_blocks_than_a_grid_has_along_y_are_cut_into_layers(device, narrow, monkeypatch):
    right = launch_groups(device.kernels, device.asarray, groups=5)
    monkeypatch.setattr(convolution, "NARROW", narrow)
    monkeypatch.setattr(launch, "GRID_ROWS", 3)  # no multiple of the 5 or 8 rows
    found = launch_groups(device.kernels, device.asarray, groups=5)
    for one, other in zip(found, right, strict=True):
        np.testing.assert_allclose(device.to_host(one), device.to_host(other), rtol=1e-12, atol=1e-12)


def test_no_launch_is_larger_than_a_gpu_takes(monkeypatch):
    launches = []

    def function(self, name, dtype):
        return lambda blocks, threads, arguments, shared_mem: launches.append(
            (name, blocks, threads, shared_mem)
        )

    monkeypatch.setattr(Launcher, "function", function)
    device = StandInBackend("compiled")
    launch_groups(device.kernels, device.asarray, groups=70_000)
    device.kernels.sum_rows(*(device.asarray(np.zeros(shape)) for shape in ((70_000, 2), 70_000)))
    names = {name.rstrip("_148") for name, *_ in launches}
    assert names == {
        "convolve", "convolve_pool", "convolve_back", "grad_weight_parts", "grad_weight_sum", "sum_rows",
    }  # fmt: skip
    for name, (x, y, z), threads, shared in launches:
        assert max(y, z) <= 65_535
        assert max(x, y * z) >= 70_000 // THREADS
        assert (np.prod(threads) <= 1024, shared <= 48 << 10) == (True, True)
        if name.startswith("convolve"):
            assert 70_000 <= y * z <= 70_001


@pytest.mark.parametrize(
    ("blocks", "threads", "shared", "said"),
    [
        ((1 << 31,), (32,), 0, "2,147,483,648 blocks on standin:0, which takes at most 2,147,483,647"),
        (
            (1, 1 << 32),
            (32,),
            0,
            "4,294,967,296 rows of blocks on standin:0, which takes at most 4,294,836,225",
        ),
        ((1,), (64, 32), 0, "2,048 threads in a block on standin:0, which takes at most 1,024"),
        ((1,), (32,), 50_000, "50,000 bytes of shared memory on standin:0, which takes at most 49,152"),
    ],
)
def test_what_no_gpu_takes_is_refused_by_name(blocks, threads, shared, said):
    launcher = Launcher(StandInBackend("portable"))
    with pytest.raises(backends.ArgumentError) as refused:
        launcher.grid("tanh_grad", np.dtype("float32"), blocks, threads, (), shared)
    assert str(refused.value) == f'the kernel tanh_grad would need {said}: use kernels="portable"'


@host_cuda.needed
def test_a_network_without_parameters_is_updated_without_a_launch():
    device = StandInBackend("compiled")
    nothing, rate = device.zeros(0, "float32"), device.zeros(1, "float32")
    device.kernels.sgd(nothing, nothing, nothing, rate, rate, False, 0.0)
    device.kernels.clip_norm(nothing, 1.0)


def test_numbers_beyond_32_bits_are_refused_by_name():
    launcher = Launcher(StandInBackend("portable"))
    with pytest.raises(backends.ArgumentError, match="the kernel tanh_grad would need 2,147,483,500 numbers"):
        launcher.threads("tanh_grad", np.dtype("float32"), 2_147_483_500, ())


@pytest.mark.parametrize(
    ("name", "raised"), [("CompileException", backends.DeviceUnavailable), ("OutOfMemoryError", MemoryError)]
)
def test_kernels_that_cannot_be_compiled_are_told_from_other_trouble(name, raised, monkeypatch):
    error = type(name, (MemoryError if "Memory" in name else Exception,), {})

    def refuse(self, kernel):
        raise error("nvrtc: error: invalid value\nmore")

    device = StandInBackend("compiled")
    monkeypatch.setattr(type(device.xp.RawModule(code="")), "get_function", refuse)
    with pytest.raises(raised) as told:
        device.kernels.tanh_grad(*(device.asarray(np.ones(3)) for _ in range(3)))
    if raised is backends.DeviceUnavailable:
        said = "standin:0 cannot use the compiled kernels (nvrtc: error: invalid value)"
        assert str(told.value) == f'{said}: use kernels="portable"'


class TestTheStandInForCuda:
    """cuda_on_host.h catches what would go wrong on a GPU."""

    pytestmark = host_cuda.needed

    def run(self, code, threads=64, shared=0):
        """Run the kernel ``k`` in a process of its own, which it may end."""
        launch = f"((1,), ({threads},), (), shared_mem={shared})"
        script = (
            f"from helpers import host_cuda; host_cuda.RawModule(code={code!r}).get_function('k'){launch}"
        )
        return subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True)

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (
                "if (threadIdx.x < 40) __syncthreads(); else __shfl_xor_sync(~0u, 1, 1);",
                "a shuffle without some",
            ),
            ("shared_memory[8] = 1;", "beyond the shared memory"),
            ("if (threadIdx.x == 3) __shfl_xor_sync(~0u, 1, 1);", "a shuffle without some"),
        ],
    )
    def test_a_mistake_ends_the_process(self, body, said):
        done = self.run(f'extern "C" __global__ void k() {{ {body} }}', shared=64)
        assert said in done.stderr
        assert done.returncode != 0

    @pytest.mark.parametrize("at_end", [True, False])
    def test_a_number_beyond_an_array_ends_the_process(self, at_end):
        index = "5" if at_end else "-1"
        code = f'extern "C" __global__ void k(double *x) {{ x[0] = x[{index}]; }}'
        script = (
            "import numpy; from helpers import host_cuda; from helpers.guarded import guarded; "
            "from helpers.standin import Array; "
            f"x = Array(guarded(numpy.ones(5), at_end={at_end})); "
            f"host_cuda.RawModule(code={code!r}).get_function('k')((1,), (1,), (x,))"
        )
        done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True)
        assert done.returncode == -signal.SIGSEGV

    def test_a_launch_that_no_gpu_takes(self):
        done = self.run('extern "C" __global__ void k() {}', threads=2048)
        assert "a launch that no GPU takes" in done.stderr

    def test_arguments_are_counted(self):
        module = host_cuda.RawModule(code='extern "C" __global__ void k(int a) {}')
        with pytest.raises(TypeError, match="k has 1 parameters, 2 arguments"):
            module.get_function("k")((1,), (32,), (1, 2))


def test_the_constants_of_both_languages_are_the_same():
    code = "".join(sources().values())
    shared = {
        augmentation: ["MOST_STEPS"],
        convolution: ["O_TILE", "TAP_TILE"],
        drawn: ["AFFINE", "GAIN", "OFFSET", "SHARE", "TARGET_SHARE", "BOXES", "COLUMNS", "FINE", "UNIT"],
        launching: ["WARP", "GATHER_SIDE"],
    }
    for module, names in shared.items():
        for name in names:
            assert re.search(rf"\b{name} = {getattr(module, name)}\b", code)
    fields = re.findall(r"struct (\w+) \{(.*?)\}", code, re.DOTALL)
    names = {struct: re.findall(r"\b([A-Za-z]+)[,;]", re.sub("//.*", "", body)) for struct, body in fields}
    assert names["Augmentation"] == list(augmentation.AUGMENTATION.names)
    assert names["Step"] == list(drawn.Step._fields)
    kinds = re.search(r"enum Kind \{(.*?)\}", code)[1].split(", ")
    assert [getattr(drawn, kind.strip()) for kind in kinds] == list(range(len(kinds)))
    window = names["Window"]
    assert [*names["Convolution"][:-1], *window] == list(convolution.CONVOLUTION.names)
    assert [*names["Pooling"][:-1], *window] == list(pooling.POOLING.names)


def test_the_set_has_no_kernel_that_is_not_declared():
    declared = {name for name, _ in inspect.getmembers(Kernels, inspect.isfunction)}
    own = {
        name
        for base in kernels.CompiledKernels.__mro__
        if base.__module__.startswith("backends.cuda")
        for name in vars(base)
        if not name.startswith("_")
    }
    attributes = {"name", "largest", "thread_limit", "compile_seconds", "takes_halves"}
    assert own - attributes <= declared
