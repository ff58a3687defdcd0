"""What the parts of scripts/measure_gpu.py measure, and the page of what was found."""

import ctypes
import sys
from types import SimpleNamespace

import pytest
from helpers import ROOT, host_cuda
from helpers.standin import StandInBackend, Tape

sys.path.append(str(ROOT / "scripts"))
sys.path.append(str(ROOT / "scripts" / "benchmarks"))

import bench_peers
from measurements import benchmark, crossover, launches, memory, page, selftest, steps
from measurements.plan import PARTS
from measurements.record import (
    DONE,
    KILLED,
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
from cnn.support.errors import DisagreementError


@pytest.fixture
def record(tmp_path):
    return Record(tmp_path, "device")


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
