"""scripts/measure_gpu.py: it ends in time with a page, whatever happens to its parts."""

import ctypes
import inspect
import json
import os
import select
import signal
import subprocess
import sys
import time
from importlib import import_module
from types import SimpleNamespace

import pytest
from helpers import ROOT, host_cuda
from helpers.devices import cuda_missing
from helpers.standin import StandInBackend, Tape

sys.path.append(str(ROOT / "scripts"))
sys.path.append(str(ROOT / "scripts" / "benchmarks"))

import bench_peers
import measure_gpu
from measurements import benchmark, crossover, launches, memory, page, processes, selftest, steps
from measurements import tests as gpu_tests
from measurements.part import measured
from measurements.plan import PARTS, Part
from measurements.record import (
    DONE,
    FAILED,
    KILLED,
    NO_DEVICE,
    NOT_STARTED,
    SKIPPED,
    Failed,
    Record,
    Skipped,
)
from peers import task
from peers.networks import NETWORKS
from peers.task import Setting

import backends
from cnn import comparison
from cnn.comparison import measure as comparing
from cnn.selftest import scorecard
from cnn.selftest.checks import Check
from cnn.support.errors import DeviceLost, DeviceUnavailable, DisagreementError
from cnn.support.libraries import LibraryError

SCRIPT = ROOT / "scripts" / "measure_gpu.py"
FEW_LIBRARIES = """
import runpy, sys
for name in ("matplotlib", "pydantic", "jinja2", "PIL", "numba", "threadpoolctl", "rich", "typer", "click",
             "safetensors", "platformdirs", "hypothesis", "onnx"):
    sys.modules[name] = None
sys.argv[:] = sys.argv[1:]
"""  # all that a Python with cupy, numpy, scipy and pytest lacks
AS_SCRIPT = "sys.path.insert(0, 'scripts'); runpy.run_path(sys.argv[0], run_name='__main__')"
AS_MODULE = "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
ENVIRONMENT = os.environ | {"OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

FILES = {  # tests that do what a broken kernel may do
    "conftest.py": """
import measurements.tests, os
def pytest_configure(config):
    config.addinivalue_line("markers", "gpu: here")
measurements.tests.is_lost = lambda: os.path.exists(f"lost.{os.getpid()}")
""",
    "test_a.py": """
import os, pytest
pytestmark = pytest.mark.gpu
def test_passes(): pass
def test_fails(): assert 1 == 2, "one is not two"
def test_skips(): pytest.skip("no")
def test_ends_the_process(): os._exit(3)
def test_passes_afterwards(): pass
def test_loses_the_device():
    open(f"lost.{os.getpid()}", "w").close()
    raise RuntimeError("lost")
def test_passes_on_a_new_device(): assert not os.path.exists(f"lost.{os.getpid()}")
""",
    "test_b.py": "import no_such_library",
    "test_c.py": "def test_of_the_cpu(): assert False",
    "test_d.py": "import pytest\n@pytest.mark.gpu\ndef test_left_out(): assert False",
}


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, SCRIPT, *map(str, arguments)],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def with_few_libraries(how, *arguments):
    command = [sys.executable, "-c", FEW_LIBRARIES + how, *map(str, arguments)]
    environment = ENVIRONMENT | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture
def record(tmp_path):
    return Record(tmp_path, "device")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The results on a CPU, where most parts are cut short; two of them have then been measured again."""
    folder = tmp_path_factory.mktemp("measured")
    for options in (["--minutes", "0.3"], ["--minutes", "60", "--parts", "device,crossover"]):
        script = start("--out", folder, "--device", "cpu", *options)
        printed, said = script.communicate()
        assert (script.returncode, printed) == (0, ""), said
        assert said.splitlines()[-1] == f"wrote {folder / 'gpu.md'}"
    return folder


class TestWhole:
    def test_every_part_says_how_it_ended(self, folder):
        outcomes = {name: json.loads((folder / f"{name}.json").read_text())["outcome"] for name in PARTS}
        assert set(outcomes.values()) <= {DONE, SKIPPED, KILLED, NOT_STARTED}
        assert outcomes["device"] == DONE
        assert outcomes["crossover"] == SKIPPED

    def test_the_page_has_every_part_and_says_that_it_is_of_a_cpu(self, folder):
        text = (folder / "gpu.md").read_text()
        assert text.startswith("# Measurements on a CPU: ")
        assert "**Nothing on this page was measured on a GPU**" in text
        assert all(f"| `{name}`" in text for name in PARTS)
        assert "--device cpu --minutes 60 --parts device,crossover\n" in text
        assert "there is no second device to compare the CPU with" in text


@pytest.mark.skipif(not cuda_missing(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so_and_needs_few_libraries_to(tmp_path):
    done = with_few_libraries(AS_SCRIPT, SCRIPT, "--out", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    begun, line = done.stderr.splitlines()
    assert begun.startswith("device, at most ")
    assert line.startswith("error: ")
    assert any(word in line for word in ("CuPy", "NVIDIA", "CUDA"))  # whichever is missing here
    assert not (tmp_path / "gpu.md").exists()


def test_the_gpu_tests_need_few_libraries():
    options = ["--collect-only", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    done = with_few_libraries(AS_MODULE, "pytest", *options, "tests/training/test_gpu.py")
    assert "test_gpu.py::test_70_000_groups" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_a_page(number, tmp_path):
    script = start("--out", tmp_path, "--device", "cpu", "--minutes", "60", "--parts", "selftest,crossover")
    while not Record.read(tmp_path, "selftest").found:
        assert script.poll() is None
        time.sleep(0.05)
    script.send_signal(number)
    _, said = script.communicate()
    assert script.returncode == 130
    assert said.endswith(f"\ninterrupted; what was measured is in {tmp_path / 'gpu.md'}\n")
    assert "| `selftest` " in (tmp_path / "gpu.md").read_text()
    assert Record.read(tmp_path, "selftest").reason == "it was interrupted"
    assert not (tmp_path / "crossover.json").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--out", "x", "--minutes", "-1"], "error: --minutes is -1, expected a number above 0"),
        (["--out", SCRIPT], f"error: --out {SCRIPT} cannot be made (File exists): name another folder"),
        (["--out", "x", "--parts", "speed"], "unknown name 'speed'"),
        ([], "--out"),
    ],
)
def test_mistakes_are_answered_in_one_sentence(options, said, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["measure_gpu.py", *map(str, options)])
    with pytest.raises(SystemExit) as stop:
        measure_gpu.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert said in line
    assert not list(tmp_path.iterdir())


class TestPlan:
    @pytest.mark.parametrize("name", PARTS)
    def test_each_part_can_be_called(self, name):
        part = PARTS[name]
        measure = import_module(f"measurements.{part.module}").measure
        inspect.signature(measure).bind("cuda", Record(ROOT, name), **part.options)

    def test_the_tests_are_there_and_the_last_part_has_those_that_no_other_has(self):
        parts = [part for part in PARTS.values() if part.module == "tests"]
        *others, rest = (part.options for part in parts)
        named = [path for options in others for path in options["paths"]]
        assert len(named) == len(set(named))
        assert all((ROOT / "tests" / path).exists() for path in named)
        assert {*named, "repository"} == set(rest["without"])

    def test_each_network_is_compared_with_pytorch(self):
        compared = [part.options for part in PARTS.values() if part.module == "benchmark"]
        single = [each for each in compared if each["dtype"] == "float32"]
        networks = {(each["network"], each["tf32"], each["compiled"]) for each in single}
        names = ["notebook", "lenet5", "resnet20", "airbench94"]
        assert networks >= {(name, False, compiled) for name in names for compiled in (False, True)}
        assert networks >= {(name, True, compiled) for name in names[2:] for compiled in (False, True)}
        half = {(each["network"], each["dtype"], each["compiled"]) for each in compared if each not in single}
        assert half == {(name, "bfloat16", compiled) for name in names[2:] for compiled in (False, True)}

    def test_bfloat16_comes_after_tf32_and_the_compiler_after_eager(self):
        parts = list(PARTS)
        for network in ("resnet20", "airbench94"):
            kinds = ("tf32", "bfloat16", "compiled-tf32", "compiled-bfloat16")
            places = [parts.index(f"benchmark-{network}-{kind}") for kind in kinds]
            assert places == sorted(places)


class TestProcess:
    """Of a part."""

    PART = Part("device", "device", 0.1)
    NOTES = """
import sys
sys.path[:0] = [{root!r}, {scripts!r}]
from pathlib import Path
from measurements.record import Record
record = Record(Path({folder!r}), "device")
record.outcome = "running"
record.note(half=1)
"""

    @pytest.fixture
    def run(self, tmp_path):
        def run(program, limit=60.0):
            notes = self.NOTES.format(root=str(ROOT), scripts=str(ROOT / "scripts"), folder=str(tmp_path))
            command = [sys.executable, "-c", notes + program.format(folder=str(tmp_path))]
            return processes.run(self.PART, tmp_path, command, limit)

        return run

    def test_what_hangs_is_killed_with_what_it_started_and_keeps_what_it_found(
        self, run, tmp_path, monkeypatch
    ):
        os.mkfifo(tmp_path / "fifo")
        reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        wait = subprocess.Popen.wait

        def wait_until_it_hangs(process, limit=None):
            if limit == processes.PATIENCE:
                return wait(process)
            select.select([reader], [], [])
            raise subprocess.TimeoutExpired("", limit)

        monkeypatch.setattr(subprocess.Popen, "wait", wait_until_it_hangs)
        sleeps = "import os, time; os.write(os.open(r'{folder}/fifo', os.O_WRONLY), b'x'); time.sleep(900)"
        found = run(f"import subprocess; subprocess.call([sys.executable, '-c', {sleeps!r}])", limit=15.0)
        os.set_blocking(reader, True)
        assert [os.read(reader, 10), os.read(reader, 10)] == [b"x", b""]  # nobody has it open any more
        os.close(reader)
        assert (found.outcome, found.reason) == (KILLED, "it had not ended after 15.0 s")
        assert Record.read(tmp_path, "device").found == {"half": 1}

    def test_what_ends_too_early_has_failed(self, run, tmp_path):
        found = run("print('last words', flush=True); import os; os._exit(3)")
        assert (found.outcome, found.reason) == (FAILED, "its process ended with code 3")
        assert found.found == {"half": 1}
        assert found.log.read_text() == "last words\n"

    def test_what_ends_by_itself_is_believed(self, run):
        found = run("record.end('done')")
        assert (found.outcome, found.reason, found.found) == (DONE, "", {"half": 1})
        assert found.seconds > 0

    def test_without_time_it_is_not_started(self, run, tmp_path):
        found = run("record.end('done')", limit=1.0)
        assert (found.outcome, found.reason) == (NOT_STARTED, "no time was left")
        assert not found.log.exists()

    def test_results_of_an_earlier_run_are_gone_before_the_first_part_begins(self, tmp_path, monkeypatch):
        for name in ("device", "steps", "memory"):
            Record(tmp_path, name).end(DONE)
        left = []

        def run(part, folder, command, limit):
            left.append(sorted(file.name for file in folder.iterdir()))

        monkeypatch.setattr(processes, "run", run)
        parts = [PARTS["device"], PARTS["steps"]]
        processes.run_all(parts, "cpu", tmp_path, 100.0, on_end=lambda record: None)
        assert left == [["memory.json"]] * 2

    def test_a_part_has_its_share_and_never_more_than_is_left(self, monkeypatch, tmp_path):
        clock, limits = iter([100.0, 100.0, 150.0, 190.0, 205.0]), []
        monkeypatch.setattr(processes.time, "monotonic", lambda: next(clock))
        monkeypatch.setattr(processes, "run", lambda part, folder, command, limit: limits.append(limit))
        parts = [Part(str(n), "device", share) for n, share in enumerate([0.5, 0.1, 0.5, 0.5])]
        processes.run_all(parts, "cpu", tmp_path, 100.0, on_end=lambda record: None)
        assert limits == [50.0, 10.0, 10.0, -5.0]


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (Skipped("not here"), SKIPPED, "not here"),
        (LibraryError("x is needed"), SKIPPED, "x is needed"),
        (Failed("2 of 3 failed"), FAILED, "2 of 3 failed"),
        (DeviceUnavailable("no GPU"), NO_DEVICE, "no GPU"),
        (DeviceLost("cuda:0 failed\nmore"), FAILED, "DeviceLost: cuda:0 failed"),
        (ZeroDivisionError("by zero"), FAILED, "ZeroDivisionError: by zero"),
    ],
)
def test_how_a_part_ends_by_its_error(error, outcome, reason, record, monkeypatch):
    def measure(device, record):
        raise error

    monkeypatch.setattr("measurements.device.measure", measure)
    assert measured(record, "cpu") == (outcome, reason)


class TestTests:
    """The part that runs tests."""

    def test_every_test_is_counted_once_whatever_it_does_to_its_process(self, record, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name, text in FILES.items():
            (tmp_path / name).write_text(text)
        with pytest.raises(Failed, match=r"^3 of 7 tests failed$"):
            gpu_tests.measure("cuda", record, ["."], ["test_d.py"], folder=tmp_path)
        found = Record.read(tmp_path, record.part).found
        assert (found["passed"], found["failed"], found["skipped"], found["running"]) == (3, 3, 1, None)
        assert found["failures"] == {
            "test_a.py::test_fails": "AssertionError: one is not two",
            "test_a.py::test_ends_the_process": "the test ended the process with code 3",
            "test_a.py::test_loses_the_device": "RuntimeError: lost",
        }
        assert list(found["not_collected"]) == ["test_b.py"]
        assert "no_such_library" in found["not_collected"]["test_b.py"]

    def test_on_a_cpu_they_are_skipped(self, record):
        with pytest.raises(Skipped, match="need a GPU"):
            gpu_tests.measure("cpu", record, ["."], [])

    def test_no_test_at_all_is_a_failure(self, record, tmp_path):
        with pytest.raises(Failed, match="no test was run"):
            gpu_tests.measure("cuda", record, ["."], [], folder=tmp_path)


@pytest.fixture
def on_the_standin(monkeypatch):
    """Settings of little data, on the stand-in device."""
    monkeypatch.setattr(task, "DATA_BYTES", 1 << 15)
    monkeypatch.setattr(steps, "BLOCK", 0.0)
    monkeypatch.setattr(Setting, "backend", lambda setting, kernels: made[kernels])
    made = {"portable": StandInBackend("portable")}
    if not host_cuda.MISSING:
        made["compiled"] = made["auto"] = StandInBackend("compiled")
    return lambda network: Setting(NETWORKS[network], 4, None, "cuda")


def taped(backend):
    """How much the stand-in device has recorded."""
    return None if Tape.current is None else len(Tape.current._works)


@pytest.mark.parametrize(
    ("network", "kernels", "expected"),
    [
        ("notebook", "portable", 111),
        pytest.param("notebook", "compiled", 23, marks=host_cuda.needed),
        pytest.param("lenet5", "compiled", 28, marks=host_cuda.needed),
    ],
)
def test_the_launches_of_a_step_are_counted_while_it_is_recorded(on_the_standin, network, kernels, expected):
    row = steps.measure_step(on_the_standin(network), kernels, rounds=2, count=taped)
    assert (row["network"], row["kernels"], row["launches"]) == (network, kernels, expected)
    assert row["not_recorded"] is None
    assert all(row[name]["median"] > 0 for name in ("plain", "recorded"))


def test_a_step_that_cannot_be_recorded_says_why(on_the_standin):
    with pytest.warns(RuntimeWarning, match="without a CUDA graph"):
        row = steps.measure_step(
            on_the_standin("notebook"), "portable", rounds=1, count=lambda device: device.synchronize()
        )
    assert row["launches"] is None


@host_cuda.needed
def test_memory_does_not_grow(on_the_standin):
    row = memory.measure_training(on_the_standin("lenet5"), steps=3)
    assert row["peak"] > row["built"] > 2 * 61_706 * 4  # LeNet-5's parameters and their gradients
    assert (row["growth"], row["crossings"]) == (0, 0)


def test_recomputed_blocks_take_less_memory(on_the_standin):
    plain, recomputed = (
        memory.measure_training(on_the_standin("resnet20"), "portable", steps=1, recompute=recompute)
        for recompute in (False, True)
    )
    assert (plain["recompute"], recomputed["recompute"]) == (False, True)
    most = [row["before"] + row["peak"] for row in (plain, recomputed)]  # kernels keep their workspaces
    assert most[1] < most[0]
    assert recomputed["growth"] == 0


def test_memory_is_measured_of_each_network_and_of_one_in_other_ways(monkeypatch, record):
    def training(setting, recompute):
        return {"network": setting.network.name, "dtype": setting.dtype, "recompute": recompute}

    monkeypatch.setattr(memory, "measure_training", training)
    monkeypatch.setattr(memory, "measure_pytorch", lambda setting: {"of": setting.dtype})
    monkeypatch.setattr(memory, "is_installed", lambda package: package == "ml_dtypes")
    memory.measure("cuda", record)
    assert [tuple(row.values()) for row in record.found["rows"]] == [
        ("airbench94", "float32", False, {"of": "float32"}),
        ("resnet20", "float32", False, {"of": "float32"}),
        ("lenet5", "float32", False, {"of": "float32"}),
        ("notebook", "float32", False, {"of": "float32"}),
        ("resnet20", "float32", True),
        ("resnet20", "bfloat16", False, {"of": "bfloat16"}),
    ]
    monkeypatch.setattr(memory, "is_installed", lambda package: False)
    memory.measure("cuda", record)
    assert {row["dtype"] for row in record.found["rows"]} == {"float32"}


class TestLaunches:
    """By CUDA's driver."""

    GPU = SimpleNamespace(
        name="cuda:0",
        xp=SimpleNamespace(cuda=SimpleNamespace(get_current_stream=lambda: SimpleNamespace(ptr=77))),
    )

    def count(self, monkeypatch, status=1, fails=()):
        def capture_info(stream, status_out, number, graph_out, dependencies, count):
            assert (stream.value, dependencies, count) == (77, None, None)
            status_out._obj.value, graph_out._obj.value = status, 88
            return int("info" in fails)

        def nodes(graph, nodes_out, count_out):
            assert (graph.value, nodes_out) == (88, None)
            count_out._obj.value = 28
            return int("nodes" in fails)

        driver = SimpleNamespace(cuStreamGetCaptureInfo_v2=capture_info, cuGraphGetNodes=nodes)
        monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
        return launches.recorded_launches(self.GPU)

    def test_of_a_recording_stream(self, monkeypatch):
        assert self.count(monkeypatch) == 28

    @pytest.mark.parametrize("how", [{"status": 0}, {"status": 2}, {"fails": ["info"]}, {"fails": ["nodes"]}])
    def test_are_unknown_if_it_does_not_record_or_the_driver_fails(self, monkeypatch, how):
        assert self.count(monkeypatch, **how) is None

    @pytest.mark.parametrize("error", [OSError, AttributeError])
    def test_are_unknown_without_the_driver_or_its_function(self, monkeypatch, error):
        def load(name):
            raise error

        monkeypatch.setattr(ctypes, "CDLL", load)
        assert launches.recorded_launches(self.GPU) is None


class TestBenchmark:
    @pytest.fixture
    def run(self, monkeypatch, record):
        """``run(absent, error, **options)`` -> the arguments that bench_peers was called with."""
        asked = []

        def run(absent=None, error=None, tf32=False, compiled=False, dtype="float32"):
            def measure(arguments):
                asked.append(arguments)
                if error:
                    raise error
                return SimpleNamespace(as_plain=lambda: {"figures": [], "absent": {}}, absent={})

            monkeypatch.setattr(benchmark, "why_absent", lambda device: absent)
            monkeypatch.setattr(bench_peers, "run", measure)
            monkeypatch.setattr(bench_peers, "require_device", lambda arguments: None)
            benchmark.measure("cuda", record, "resnet20", 512, tf32, compiled, dtype)
            (arguments,) = asked
            return arguments

        return run

    def test_eager_comes_without_the_slow_compiler(self, run):
        arguments = run()
        assert (arguments.device, arguments.networks, arguments.batch_sizes) == ("cuda", ["resnet20"], [512])
        assert (arguments.peers, arguments.tf32, arguments.only) == (["compiled", "pytorch"], False, None)

    def test_the_compiler_is_compared_with_eager_too(self, run):
        arguments = run(compiled=True, tf32=True)
        assert arguments.peers == ["compiled", "pytorch", "torch.compile"]
        assert (arguments.tf32, arguments.only) == (True, "training")

    def test_bfloat16_is_asked_for_and_a_cpu_skips_it(self, run, record):
        assert run(dtype="bfloat16").dtype == "bfloat16"
        assert "--dtype bfloat16" in record.found["command"]
        with pytest.raises(Skipped, match="bfloat16"):
            benchmark.measure("cpu", record, "resnet20", 512, False, False, "bfloat16")

    def test_without_pytorch_the_portable_kernels_are_what_is_agreed_with(self, run, record):
        assert run(absent="PyTorch is not installed").peers == ["compiled", "portable"]
        assert record.found["absent"] == {"pytorch": "PyTorch is not installed"}
        with pytest.raises(Skipped, match="not installed"):
            run(absent="PyTorch is not installed", compiled=True)

    def test_a_disagreement_is_a_failure(self, run):
        with pytest.raises(Failed, match="apart"):
            run(error=DisagreementError("they are apart"))


def test_the_selftest_needs_no_command_line_and_counts_what_is_wrong(monkeypatch, record):
    def wrong():
        raise ValueError("another number")

    def checks(backend):
        return [Check("right", lambda: None), Check("wrong", wrong)]

    monkeypatch.setattr(scorecard, "SECTIONS", {"parity": checks})
    monkeypatch.setattr(selftest, "kernel_sets", lambda device, note: ["portable"])
    with pytest.raises(Failed, match=r"^1 of 2 checks failed$"):
        selftest.measure("cpu", record)
    parity = record.found["results"]["portable"]["parity"]
    assert (parity["passed"], [each["name"] for each in parity["failed"]]) == (1, ["wrong"])
    assert record.found["running"] == "portable: wrong"


def test_the_crossover_is_between_the_cpu_and_the_device(monkeypatch, record):
    two = [comparison.Setup(backends.get("cpu", "portable")), comparison.Setup(StandInBackend())]
    monkeypatch.setattr(comparison, "setups", lambda devices: two if devices == ["cpu", "cuda"] else [])
    monkeypatch.setattr(crossover, "MODELS", ["notebook"])
    monkeypatch.setattr(crossover, "BATCH_SIZE", 2)
    for name, value in {"ALL_BATCH_SIZES": (1, 2), "BLOCK": 0.001, "LONG_ENOUGH": 0.0, "PAUSE": 0.0}.items():
        monkeypatch.setattr(comparing, name, value)
    crossover.measure("cuda", record)
    found = record.found["models"]["notebook"]
    assert [each["batch_size"] for each in found["times"]] == [1, 2]
    assert [column["name"] for column in found["comparison"]["columns"]] == [setup.name for setup in two]


def test_the_page_shows_what_was_found(tmp_path):
    own = {"median": 0.002, "low": 0.001, "high": 0.003}
    figure = {"network": "lenet5", "phase": "training", "batch_size": 512, "seconds": own}
    half = {"median": 0.008, "low": 0.001, "high": 0.003}
    found = {
        "device": {
            "device": {"device": "cuda:0", "gpu": "NVIDIA X100"},
            "memory": {"total": 80_000_000_000},
            "machine": {"xpcnn": "1.0", "python": "3.12", "packages": {"numpy": "2.3"}, "time": "2030"},
            "commit": "abc1234",
            "missing": {"torch": "to compare with PyTorch"},
            "nvidia_smi": [{"clocks.sm": "1980 MHz"}],
        },
        "tests-kernels": {
            "passed": 5, "failed": 1, "skipped": 2, "failures": {"a::b": "1 | 2\nmore"}, "not_collected": {},
            "running": "a::c",
        },
        "steps": {
            "rows": [
                {
                    "network": "lenet5", "batch_size": 512, "kernels": "compiled", "launches": 28,
                    "not_recorded": None, "first_seconds": 1.5, "record_seconds": 0.5, "plain": half,
                    "recorded": own, "device_seconds": 0.0015,
                }
            ]
        },
        "benchmark-lenet5": {
            "machine": {"device": {"tf32": False}},
            "figures": [figure | {"peer": "compiled"}, figure | {"peer": "pytorch", "seconds": half}],
            "absent": {},
        },
        "benchmark-resnet20-bfloat16": {
            "machine": {"device": {"tf32": False}},
            "dtype": "bfloat16",
            "figures": [figure | {"network": "resnet20", "peer": "compiled"}],
            "absent": {},
        },
        "memory": {
            "rows": [
                {
                    "network": "resnet20", "batch_size": 512, "dtype": "float32", "recompute": True,
                    "built": 60_000_000, "peak": 80_000_000, "steps": 200, "growth": 0, "crossings": 0,
                },
                {
                    "network": "lenet5", "batch_size": 512, "dtype": "float32", "recompute": False,
                    "built": 60_000_000, "peak": 90_000_000, "steps": 200, "growth": 0, "crossings": 0,
                    "pytorch": {"reserved": 120_000_000, "allocated": 110_000_000},
                }
            ]
        },
        "crossover": {
            "models": {
                "lenet5": {
                    "crossover": 8, "times": [{"batch_size": 8, "first": 0.004, "other": 0.002}],
                    "comparison": {"columns": [{"name": "cpu compiled"}, {"name": "cuda:0 compiled"}]},
                }
            }
        },
    }  # fmt: skip
    records = []
    for name in PARTS:
        record = Record(tmp_path, name)
        record.outcome = KILLED if name == "tests-kernels" else DONE
        record.found = found.get(name, {})
        records.append(record)
    text = page.make(records, "cuda", "python scripts/measure_gpu.py --out x")
    squeezed = [" ".join(line.split()) for line in text.splitlines()]
    assert squeezed[0] == "# Measurements on NVIDIA X100"
    for line in (
        "| nvidia-smi: clocks.sm | 1980 MHz |",
        "| commit | abc1234 |",
        "| tests-kernels | 5 | 1 | 2 |",
        "- failed: `a::b`: 1 \\| 2 more",
        "`tests-kernels` ended during `a::c`.",
        "| lenet5 | 512 | compiled | 28 | 2.00 | 1.00 to 3.00 | 1.50 | 8.00 | 4.00 | 1.50 | 0.500 |",
        "| lenet5 | training | 512 | float32 | 2.00 | 1.00 to 3.00 | PyTorch eager | 8.00 | 4.00 |",
        "| resnet20 | training | 512 | bfloat16 | 2.00 | 1.00 to 3.00 | - | - | - |",
        "| resnet20 | 512 | float32, recompute | 60.0 | 80.0 | - | - | 200 | 0 | 0 |",
        "| lenet5 | 512 | float32 | 60.0 | 90.0 | 120 | 110 | 200 | 0 | 0 |",
        "lenet5: cuda:0 compiled is always faster than cpu compiled from batch size 8 on.",
        "| 8 | 4.00 | 2.00 |",
    ):
        assert line in squeezed
    assert "on a CPU" not in text
