"""kernels.cu without a GPU: compiled by NVIDIA's compiler, and run by the host's."""

import inspect
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT, host_cuda, nvrtc
from helpers.guarded import guarded
from helpers.host_cuda import RawModule
from helpers.standin import Array, StandInBackend

import backends
import cnn
from backends import Window
from backends.cuda import kernels, launch
from backends.cuda.kernels import TILES
from backends.cuda.launch import SOURCE, THREADS, Launcher
from backends.kernels import PortableKernels
from backends.kernels.contract import Kernels
from backends.kernels.functions import RELU
from backends.kernels.sampling import Sampling
from cnn.selftest.calls import EACH_FUNCTION

CODE = SOURCE.read_text()
TILED = [f"{name}_{tile}" for name in ("convolve", "convolve_pool", "convolve_back") for tile in TILES]
KERNELS = {*re.findall(r"__global__ void (\w+)\(", CODE), *TILED}
ARCHITECTURES = ("sm_75", "sm_80", "sm_90")  # Turing, Ampere, Hopper
REALS = {"float32": "float", "float64": "double"}

compiler = pytest.mark.skipif(
    nvrtc.library() is None, reason="NO CUDA KERNEL WAS COMPILED: no nvidia-cuda-nvrtc"
)


@compiler
@pytest.mark.parametrize("real", REALS.values())
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kernel_compiles_and_keeps_its_numbers_in_registers(architecture, real, record_property):
    code, resources = nvrtc.compile_source(CODE, architecture, [f"-DREAL={real}"])
    registers = ", ".join(f"{name} {count}" for name, (count, _) in sorted(resources.items()))
    spilled = sum(count for _, count in resources.values())
    record_property("cuda", f"{architecture} {real}: {spilled} bytes spilled; registers: {registers}")
    assert set(resources) == KERNELS
    assert all(f".text.{name}".encode() in code for name in KERNELS)
    assert {name: spilled for name, (_, spilled) in resources.items() if spilled} == {}
    # 65,536 registers are shared by a block's threads
    assert max(count for count, _ in resources.values()) * THREADS <= 65536


@compiler
def test_what_the_compiler_refuses_is_seen():
    with pytest.raises(nvrtc.CompileError, match="nonsense"):
        nvrtc.compile_source(CODE + "\nnonsense", "sm_90", ["-DREAL=float"])


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
F, N = 7, 37
RANDOM = np.random.default_rng(0)


def numbers(*shape):
    return RANDOM.uniform(-2, 2, shape)


def labels(count=N, classes=F):
    return RANDOM.integers(0, classes, count)


def probabilities():
    raw = RANDOM.uniform(0, 1, (F, N))
    raw[0, :3], raw[1, 3:5] = 0, 1  # where the loss is cut off
    return raw


def momentum(nesterov, decay):
    return {"momentum": np.full(1, 0.9), "nesterov": nesterov, "weight_decay": decay}


def moments():
    return numbers(300), numbers(300), numbers(300), abs(numbers(300))


def adams(decoupled):
    return {"betas": (0.9, 0.999), "epsilon": 1e-8, "weight_decay": 0.01, "decoupled": decoupled}


def batches(position):
    cursor, order = np.array([position, position // 5]), RANDOM.permutation(23)
    return cursor, order, labels(23), numbers(4), np.zeros(5, int), np.zeros(5, int), np.zeros(1)


def without_labels(position):
    cursor, order, _, rates, chosen, _, rate = batches(position)
    return cursor, order, None, rates, chosen, None, rate


ROWS = Sampling(4, (((1, 0.5), (3, 2.0)), (), ((0, 1.0),)))
COLUMNS = Sampling(3, (((2, 1.5),), ((0, 0.25), (1, 0.25), (2, 0.5))))

# What a kernel set does besides its windows, with arrays that may be written to: all are compared afterwards.
STEPS = {
    "resample": lambda: ("resample", numbers(F, 4, 3, N), numbers(F, 3, 2, N), ROWS, COLUMNS),
    "resample, transposed": lambda: (
        "resample", numbers(F, 3, 2, N), numbers(F, 4, 3, N), ROWS.transposed, COLUMNS.transposed,
    ),
    "add_bias": lambda: ("add_bias", numbers(F, 5, N), numbers(F)),
    "add_bias and ReLU": lambda: ("add_bias", numbers(F, 5, N), numbers(F), True),
    "sum_rows, short": lambda: ("sum_rows", numbers(F, 5), np.zeros(F)),
    "sum_rows, long": lambda: ("sum_rows", numbers(2, 9, 500), np.zeros(2)),
    "sum_rows, many": lambda: ("sum_rows", numbers(250, 3), np.zeros(250)),
    "relu": lambda: ("relu", numbers(F, N), numbers(F, N)),
    "relu_grad": lambda: ("relu_grad", numbers(F, 3, 3, N), numbers(F, 3, 3, N), numbers(F, 3, 3, N)),
    "relu_grad with sums": lambda: ("relu_grad", *(numbers(F, 300) for _ in range(3)), np.zeros(F)),
    "tanh_grad": lambda: ("tanh_grad", numbers(F, N), numbers(F, N), numbers(F, N)),
    **{
        f"activate, {function.name}": lambda function=function: (
            "activate", 3 * numbers(F, N), function, numbers(F, N),
        )
        for function in EACH_FUNCTION
    },
    **{
        f"activate_grad, {function.name}": lambda function=function: (
            "activate_grad", numbers(F, N), 3 * numbers(F, N), function, numbers(F, N),
        )
        for function in EACH_FUNCTION
    },
    "log_softmax": lambda: ("log_softmax", 100 * numbers(F, 3, N), numbers(F, 3, N)),
    "log_softmax_grad": lambda: ("log_softmax_grad", numbers(F, N), numbers(F, N), numbers(F, N)),
    "softmax": lambda: ("softmax", 100 * numbers(F, 3, N), numbers(F, 3, N)),
    "softmax_grad": lambda: ("softmax_grad", numbers(F, N), numbers(F, N), numbers(F, N)),
    "cross_entropy": lambda: ("cross_entropy", 50 * numbers(F, N), labels(), numbers(N), numbers(F, N), 7),
    "cross_entropy with sums": lambda: (
        "cross_entropy", numbers(F, 300), labels(300), numbers(300), numbers(F, 300), 300, numbers(3),
    ),
    "binary_cross_entropy": lambda: (
        "binary_cross_entropy", probabilities(), labels(), numbers(N), numbers(F, N), 7, numbers(3),
    ),
    "cross_entropy of numbers": lambda: (
        "cross_entropy", 50 * numbers(F, N), abs(numbers(F, N)), numbers(N), numbers(F, N), 7, numbers(3),
    ),
    "class_targets": lambda: (
        "class_targets", labels(), abs(numbers(F)), 0.1, 2, numbers(F, N), numbers(N),
    ),
    "class_targets of labels that are no class": lambda: (
        "class_targets", labels() * 2 - 5, abs(numbers(F)), 0.1, None, numbers(F, N), numbers(N),
    ),
    "next_batch without labels": lambda: ("next_batch", *without_labels(10)),
    "tally": lambda: ("tally", numbers(300), numbers(F, 300).round(), labels(300), numbers(3)),
    "sgd": lambda: ("sgd", numbers(300), numbers(300), None, numbers(1), *momentum(False, 0.1).values()),
    "sgd with momentum": lambda: (
        "sgd", numbers(300), numbers(300), numbers(300), numbers(1), *momentum(False, 0.1).values(),
    ),
    "sgd with nesterov": lambda: (
        "sgd", numbers(300), 1e-33 * numbers(300), 1e-30 * numbers(300), numbers(1),
        *momentum(True, 0.0).values(),
    ),
    "sgd, without a gradient that is a number": lambda: (
        "sgd", numbers(9), np.full(9, np.nan), numbers(9), numbers(1), *momentum(False, 0.1).values(),
    ),
    "next_powers": lambda: ("next_powers", np.array([0.9, 0.999]), (0.9, 0.999)),
    "adam": lambda: (
        "adam", *moments(), np.array([0.9, 0.999]), numbers(1), *adams(False).values(),
    ),
    "adam, without a gradient that is a number": lambda: (
        "adam", numbers(9), np.full(9, np.nan), numbers(9), numbers(9), np.array([0.9, 0.999]), numbers(1),
        *adams(False).values(),
    ),
    "adamw": lambda: (
        "adam", *moments(), np.array([0.81, 0.998]), numbers(1), *adams(True).values(),
    ),
    "next_batch": lambda: ("next_batch", *batches(10)),
    "next_batch beyond the end": lambda: ("next_batch", *batches(20)),
    "gather_batch of bytes": lambda: (
        "gather_batch", RANDOM.integers(0, 256, (50, 3, 5, 7), dtype=np.uint8), labels(N, 50),
        numbers(3, 5, 7, N),
    ),
    "gather_batch of bytes, normalized": lambda: (
        "gather_batch", RANDOM.integers(0, 256, (50, 3, 5, 7), dtype=np.uint8), labels(N, 50),
        numbers(3, 5, 7, N), numbers(3), numbers(3),
    ),
    "gather_batch of numbers, normalized": lambda: (
        "gather_batch", numbers(50, 3, 9, 9), labels(N, 50), numbers(3, 9, 9, N), numbers(3), numbers(3),
    ),
    "gather_batch of many numbers": lambda: (
        "gather_batch", numbers(9, 1, 23, 23), labels(N, 9), numbers(1, 23, 23, N),
    ),
    "gather_batch of numbers": lambda: (
        "gather_batch", numbers(50, 1, 9, 9), labels(N, 50), numbers(1, 9, 9, N),
    ),
}  # fmt: skip


class Fenced(StandInBackend):
    """Brings data between pages that nobody may touch: what reaches beyond an array ends the process."""

    def asarray(self, host, dtype=None, out=None):
        return Array(guarded(np.asarray(host, dtype), at_end=not RawModule.backwards))


PLACES = [
    pytest.param("forwards", marks=host_cuda.needed),
    pytest.param("backwards", marks=host_cuda.needed),
    pytest.param("on a GPU", marks=pytest.mark.gpu),
]


@pytest.fixture(params=PLACES)
def device(request, monkeypatch):
    """What the kernels run on: the host, its threads one way round or the other, or a GPU."""
    if request.param == "on a GPU":
        return backends.get("cuda", "compiled")
    monkeypatch.setattr(RawModule, "backwards", request.param == "backwards")
    return Fenced("compiled")


def on(device, arguments):
    return [device.asarray(a) if isinstance(a, np.ndarray) else a for a in arguments]


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("name", STEPS)
def test_what_a_step_does_besides_its_windows_is_as_in_plain_xp(name, dtype, device, monkeypatch):
    monkeypatch.setattr(launch, "GRID_ROWS", 16)
    RANDOM.bit_generator.state = np.random.default_rng(0).bit_generator.state
    method, *arguments = STEPS[name]()
    sums_at = len(arguments) - 1 if method in ("cross_entropy", "binary_cross_entropy", "tally") else None

    def cast(position, argument):
        if isinstance(argument, np.ndarray) and argument.dtype == float and position != sums_at:
            return argument.astype(dtype)
        return argument

    arguments = [cast(position, argument) for position, argument in enumerate(arguments)]
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


def test_every_kernel_is_launched_here(device, monkeypatch):
    launched = set()
    function = Launcher.function
    monkeypatch.setattr(
        Launcher,
        "function",
        lambda self, name, dtype: launched.add(name) or function(self, name, dtype),
    )
    for make in STEPS.values():
        method, *arguments = make()
        getattr(device.kernels, method)(*on(device, arguments))
    for channels in TILES:
        launch_windows(device, channels)
    monkeypatch.setattr(kernels, "NARROW", 0)
    launch_windows(device, 2)
    assert launched == KERNELS


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
    owner = kernels.CompiledKernels if what == "largest" else kernels
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


@pytest.mark.parametrize("narrow", [kernels.NARROW, 0], ids=["directly", "by columns"])
def test_more_rows_of_blocks_than_a_grid_has_along_y_are_cut_into_layers(device, narrow, monkeypatch):
    right = launch_groups(device.kernels, device.asarray, groups=5)
    monkeypatch.setattr(kernels, "NARROW", narrow)
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
    assert str(refused.value) == f"the kernel tanh_grad would need {said}: use the portable kernels"


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
        assert str(told.value) == f"{said}: use the portable kernels"


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
    for name in ("GATHER_SIDE", "O_TILE", "TAP_TILE", "WARP"):
        assert re.search(rf"\b{name} = {getattr(kernels, name)}\b", CODE)
    fields = re.findall(r"struct (\w+) \{(.*?)\}", CODE, re.DOTALL)
    names = {struct: re.findall(r"\b([A-Za-z]+)[,;]", re.sub("//.*", "", body)) for struct, body in fields}
    window = names["Window"]
    assert [*names["Convolution"][:-1], *window] == list(kernels.CONVOLUTION.names)
    assert [*names["Pooling"][:-1], *window] == list(kernels.POOLING.names)


def test_the_set_has_no_kernel_that_is_not_declared():
    declared = {name for name, _ in inspect.getmembers(Kernels, inspect.isfunction)}
    own = {name for name in vars(kernels.CompiledKernels) if not name.startswith("_")}
    attributes = {"name", "largest", "thread_limit", "compile_seconds"}
    assert own - attributes <= declared
