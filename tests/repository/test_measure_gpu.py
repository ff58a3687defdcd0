"""scripts/measure_gpu.py: it ends in time with a page, whatever happens to its parts."""

import inspect
import json
import os
import select
import signal
import subprocess
import sys
import time
from importlib import import_module

import pytest
from helpers import ROOT
from helpers.devices import cuda_missing

sys.path.append(str(ROOT / "scripts"))
sys.path.append(str(ROOT / "scripts" / "benchmarks"))

import measure_gpu
from measurements import processes
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

from cnn.support.errors import DeviceLost, DeviceUnavailable
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
