"""scripts/benchmarks/bench_peers.py --device cuda, as far as it can be seen without a GPU."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from helpers import ROOT
from helpers.devices import cuda_missing
from helpers.standin import StandInBackend

import backends
from cnn.inspection.timing import Spread
from cnn.support.errors import DisagreementError

sys.path.append(str(ROOT / "scripts" / "benchmarks"))

import bench_peers
from peers import agreement, page, task, timing
from peers.agreement import Record
from peers.networks import NETWORKS
from peers.peer import Absent
from peers.results import Results
from peers.task import Setting, Task
from peers.timing import Call, Figure

SCRIPT = Path(bench_peers.__file__)
MACHINE = {
    "xpcnn": "0.1.0",
    "python": "3.12.1",
    "system": "Linux",
    "time": "2030-01-02T03:04:05+0000",
    "device": {
        "device": "cuda:0",
        "gpu": "NVIDIA H100",
        "compute_capability": "9.0",
        "driver": "CUDA 12.9",
        "runtime": "CUDA 12.8",
        "cublas": "12.8.4",
        "tf32": True,
        "kernels": "compiled",
        "cupy": "14.2.0",
        "numpy": "2.3.0",
    },
    "peers": {"numba": None, "torch": "2.13.0+cu128", "jax": "0.10.2", "jaxlib": "0.10.2"},
}
FEW_LIBRARIES = """
import os, runpy, sys
for name in "matplotlib", "pydantic", "jinja2", "PIL", "numba", "threadpoolctl":
    sys.modules[name] = None
sys.argv[:] = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def setting(network="notebook", batch_size=4, device="cuda", **others):
    return Setting(NETWORKS[network], batch_size, None, device, **others)


def parse(*options):
    return bench_peers.make_parser().parse_args(["--device", "cuda", *options])


def settings(*options):
    arguments = parse(*options)
    made = [job.setting for job in bench_peers.make_jobs(arguments)]
    return [(s.network.name, s.batch_size, s.threads, s.device, s.tf32) for s in made]


def main(monkeypatch, *options):
    monkeypatch.setattr("sys.argv", ["bench_peers.py", *options])
    with pytest.raises(SystemExit) as stop:
        bench_peers.main()
    return stop.value.code


def make_results(**others):
    figure = Figure(
        network="vgg",
        batch_size=512,
        threads=None,
        phase="training",
        peer="compiled",
        seconds=Spread(0.002, 0.001, 0.004),
        turns=3,
        images_per_second=256_000.0,
        pytorch="pytorch",
        times_pytorch=Spread(1.5, 1.25, 1.75),
        product_flops=2e12,
        product_share=0.5,
        copy_bytes=3e11,
        copy_share=None,
        first_seconds=0.25,
    )
    figures = [figure, dataclasses.replace(figure, peer="pytorch", times_pytorch=Spread(1.0, 1.0, 1.0))]
    values = {"machine": MACHINE, "rounds": 2, "absent": {}, "figures": figures, "memory": [], "scaling": []}
    return Results(**values | others)


def test_each_network_has_its_own_batch_size():
    assert settings() == [
        ("notebook", 128, None, "cuda", False),
        ("lenet5", 512, None, "cuda", False),
        ("vgg", 512, None, "cuda", False),
    ]
    assert settings("--networks", "example,lenet5", "--tf32") == [
        ("example", 128, None, "cuda", True),
        ("lenet5", 512, None, "cuda", True),
    ]
    assert bench_peers.CUDA_BATCH_SIZES.keys() <= NETWORKS.keys()


def test_batch_sizes_that_are_asked_for_are_every_networks():
    assert [
        (name, size) for name, size, *_ in settings("--networks", "vgg,lenet5", "--batch-sizes", "32,1")
    ] == [
        ("vgg", 1),
        ("vgg", 32),
        ("lenet5", 1),
        ("lenet5", 32),
    ]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--device", "cuda", "--threads", "1"], "--threads"),
        (["--device", "cuda", "--plot", "picture.png"], "--plot"),
        (["--device", "cuda", "--avx2"], "--avx2"),
        (["--device", "cuda", "--peers", "compiled,signal"], "'signal'"),
        (["--device", "cuda", "--peers", "loops"], "'loops'"),
        (["--tf32"], "--device cuda"),
        (["--dtype", "bfloat16"], "--device cuda"),
        (["--device", "cuda", "--dtype", "bfloat16", "--tf32"], "--tf32"),
    ],
)
def test_what_is_not_for_the_device_is_refused_in_one_sentence(options, names, monkeypatch, capsys):
    assert main(monkeypatch, *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert names in line


def test_without_a_gpu_it_says_so_and_needs_few_libraries_to(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FEW_LIBRARIES, SCRIPT, "--device", "cuda"],
        cwd=tmp_path,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert any(word in line for word in ("CuPy", "NVIDIA", "CUDA"))  # whichever is missing here


def test_the_call_that_measures_the_same_again():
    expected = "python scripts/benchmarks/bench_peers.py --device cuda --networks vgg --rounds 3 --tf32"
    assert (
        bench_peers.command(parse("--networks", "vgg", "--rounds", "3", "--tf32", "--json", "x")) == expected
    )


def test_the_call_in_bfloat16_measures_in_bfloat16_again():
    options = ["--networks", "resnet20", "--dtype", "bfloat16"]
    command = bench_peers.command(parse(*options))
    assert command == f"python scripts/benchmarks/bench_peers.py --device cuda {' '.join(options)}"
    (job,) = bench_peers.make_jobs(parse(*options))
    assert job.setting.dtype == "bfloat16"


def test_memory_is_not_measured(monkeypatch):
    class Idle:
        def __init__(self, threads):
            assert set(threads) == {None}

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            pass

        def prove(self, jobs):
            assert {name for job in jobs for name in job.names} == {
                "compiled", "portable", "pytorch", "torch.compile", "jax",
            }  # fmt: skip
            return {}

        def measure(self, jobs, rounds):
            return []

    monkeypatch.setattr(bench_peers, "Processes", Idle)
    monkeypatch.setattr(bench_peers, "describe_machine", lambda device, *how: {"device": {"gpu": device}})
    monkeypatch.setattr(bench_peers, "measure_growth", lambda *arguments: pytest.fail("was measured"))
    results = bench_peers.run(parse("--dtype", "bfloat16"))
    assert (results.memory, results.scaling, results.on_cuda) == ([], [], True)
    assert results.as_plain()["dtype"] == "bfloat16"


def test_ours_is_made_on_the_gpu_with_tf32_or_without(monkeypatch):
    asked = []
    monkeypatch.setattr("backends.get", lambda device, **options: asked.append((device, options)))
    setting(tf32=True).backend("compiled")
    setting().backend("portable")
    assert asked == [
        ("cuda", {"kernels": "compiled", "threads": None, "tf32": True}),
        ("cuda", {"kernels": "portable", "threads": None, "tf32": False}),
    ]


def test_a_setting_says_where_it_is():
    assert str(setting()) == "notebook, batch 4, cuda"
    assert str(setting(tf32=True)) == "notebook, batch 4, cuda with TF32"
    assert str(setting(dtype="bfloat16")) == "notebook, batch 4, cuda in bfloat16"


def test_the_page_speaks_of_the_gpu_and_not_of_threads():
    text = page.make_page(make_results(), bench_peers.command(parse("--tf32")), None, Path("peers.md"))
    assert "NVIDIA H100, compute capability 9.0, driver CUDA 12.9, products of float32 with TF32" in text
    assert "CuPy 14.2.0 with CUDA 12.8, NumPy 2.3.0, torch 2.13.0+cu128, jax 0.10.2" in text
    assert "\n### vgg, training\n" in text
    assert "A large product: 2,000 GFLOP/s; a large copy: 300 GB/s.\n" in text
    assert "python scripts/benchmarks/bench_peers.py --device cuda --tf32\n" in text
    assert "thread" not in text
    assert "\nEverything is in float32.\n" in text
    assert all(len(line) <= 110 for line in text.splitlines() if not line.startswith(("Machine", "|")))


def test_the_page_says_what_is_in_bfloat16():
    results = make_results(dtype="bfloat16")
    text = page.make_page(results, bench_peers.command(parse("--dtype", "bfloat16")), None, Path("peers.md"))
    assert "Activations and products are in bfloat16" in text
    assert "driver CUDA 12.9, networks in bfloat16; Linux" in text
    assert "python scripts/benchmarks/bench_peers.py --device cuda --dtype bfloat16\n" in text
    assert "Everything is in float32" not in text
    assert "TF32" not in text


def test_the_figures_for_programs_have_no_threads():
    plain = make_results().as_plain()
    assert [figure["threads"] for figure in plain["figures"]] == [None, None]
    assert plain["machine"]["device"]["gpu"] == "NVIDIA H100"


@pytest.mark.parametrize(("tf32", "what"), [(True, 0.003), (False, 2e-6)])
def test_tf32_may_be_further_apart(tf32, what):
    def record(scale):
        return Record((scale, scale), np.full((2, 2), scale), {}, {}, {}, 0.0)

    def require_same(apart):
        agreement.require_same(setting(tf32=tf32), {"pytorch": record(1.0), "jax": record(1 + apart)})

    require_same(what)
    with pytest.raises(DisagreementError, match=r"notebook, batch 4, cuda"):
        require_same(10 * what)


@pytest.fixture
def in_software(monkeypatch):
    """Little data; networks in bfloat16 are on the stand-in device, and others on the CPU."""
    pytest.importorskip("ml_dtypes")
    devices = {"float32": backends.get("cpu", "portable"), "bfloat16": StandInBackend("portable")}
    monkeypatch.setattr(Setting, "backend", lambda setting, kernels: devices[setting.dtype])
    monkeypatch.setattr(task, "DATA_BYTES", 1 << 15)


def records_of(name, network, *dtypes, batch_size=8):
    settings = [setting(network, batch_size, "cpu", dtype=dtype) for dtype in dtypes]
    return [agreement.record_steps(Task(where), name) for where in settings]


class TestBfloat16:
    @pytest.mark.parametrize("network", ["notebook", "lenet5"])
    def test_rounding_explains_how_far_ours_is_from_itself_in_float32(self, network, in_software):
        single, half = records_of("portable", network, "float32", "bfloat16")
        agreement.require_same(setting(network, 8, dtype="bfloat16"), {"pytorch": single, "portable": half})
        with pytest.raises(DisagreementError, match=r"cuda\): the loss differs"):
            agreement.require_same(setting(network, 8), {"pytorch": single, "portable": half})

    @pytest.mark.parametrize("wrong", [0.0, -1.0, 2.0])
    @pytest.mark.parametrize("what", ["gradients", "updates"])
    @pytest.mark.parametrize("network", ["lenet5", "resnet20"])
    def test_a_wrong_factor_is_found(self, network, what, wrong):
        right = {"0.weight": np.ones(3)}
        both = {"gradients": right, "updates": right}
        record = Record((1.0, 1.0), np.ones((2, 2)), **both, first_seconds={}, step_seconds=0.0)
        other = dataclasses.replace(record, **{what: {"0.weight": wrong * np.ones(3)}})
        with pytest.raises(DisagreementError, match=r"in bfloat16\): .* 0\.weight differs"):
            agreement.require_same(setting(network, dtype="bfloat16"), {"pytorch": record, "jax": other})

    def test_a_deep_network_may_be_further_apart(self):
        shallow, deep = (
            agreement.allowed_in(setting(name, dtype="bfloat16")) for name in ("lenet5", "resnet20")
        )
        assert all(shallow[kind] < deep[kind] for kind in shallow)
        assert deep["output"] == pytest.approx(0.104, abs=1e-3)
        assert deep["gradient"] == pytest.approx(0.829, abs=1e-3)

    @pytest.mark.parametrize("network", ["lenet5", "airbench94"])
    def test_ours_and_the_modes_of_pytorch_compute_the_same(self, network, in_software, monkeypatch):
        pytest.importorskip("torch")
        from peers import pytorch

        monkeypatch.setattr(pytorch.Eager, "synchronize", lambda peer: None)
        where = setting(network, 2, "cpu", dtype="bfloat16")
        proof = agreement.prove(
            [agreement.Job(where, ["portable", "pytorch", "channels_last"])], say=lambda line: None
        )
        assert {name for _, name in proof.first_seconds} == {"portable", "pytorch", "channels_last"}

    def test_parameters_of_pytorch_stay_in_float32(self, monkeypatch):
        torch = pytest.importorskip("torch")
        from peers import pytorch

        monkeypatch.setattr(pytorch, "compiled", lambda function, mode: function)
        monkeypatch.setattr(task, "DATA_BYTES", 1 << 15)
        made = Task(setting("lenet5", device="cpu", dtype="bfloat16"))
        eager, *others = (
            kind(made)
            for kind in (pytorch.Eager, pytorch.ChannelsLast, pytorch.Compiled, pytorch.CompiledStep)
        )
        expected = eager.to_host(eager.step())
        for peer in others:
            assert peer.to_host(peer.step()) == pytest.approx(expected, rel=agreement.UNIT)
        for peer in (eager, *others):
            assert peer.infer().dtype == torch.bfloat16
            assert {value.dtype for value in peer.network.parameters()} == {torch.float32}

    def test_jax_is_left_out_with_a_reason(self, monkeypatch):
        fake = SimpleNamespace(Jit=lambda task: pytest.fail("was made"), require=lambda device: None)
        monkeypatch.setitem(sys.modules, "peers.jax", fake)
        start = bench_peers.CONTENDERS["jax"].load("cuda")
        with pytest.raises(Absent, match="in float32 alone, not in bfloat16"):
            start(SimpleNamespace(setting=setting(dtype="bfloat16")))


@pytest.mark.skipif(not cuda_missing(), reason="there is a CUDA device")
@pytest.mark.parametrize("library", ["pytorch", "jax"])
def test_who_finds_no_gpu_is_absent(library):
    pytest.importorskip({"pytorch": "torch"}.get(library, library))
    with pytest.raises(Absent, match="finds no GPU"):
        bench_peers.CONTENDERS[library].load("cuda")


def test_ours_without_a_gpu_is_absent():
    if not cuda_missing():
        pytest.skip("there is a CUDA device")
    with pytest.raises(Absent) as absent:
        bench_peers.CONTENDERS["compiled"].load("cuda")
    assert str(absent.value) == cuda_missing()


def test_the_step_that_is_compiled_as_one_is_the_eager_one(monkeypatch):
    pytest.importorskip("torch")
    from peers import pytorch

    monkeypatch.setattr(pytorch, "compiled", lambda function, mode: function)
    monkeypatch.setattr(pytorch.Eager, "synchronize", lambda peer: None)
    where = setting(device="cpu")
    task = Task(where)
    eager, whole = pytorch.Eager(task), pytorch.CompiledStep(task)
    for _ in range(3):
        assert whole.to_host(whole.step()) == pytest.approx(eager.to_host(eager.step()), rel=1e-6)
    for name, value in eager.weights().items():
        np.testing.assert_allclose(whole.weights()[name], value, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(whole.probabilities(), eager.probabilities(), rtol=1e-5)
    assert whole.gradients() == {}


def test_the_update_of_a_network_with_normalizations_is_not_compiled(monkeypatch):
    pytest.importorskip("torch")
    from peers import pytorch

    modes = []
    monkeypatch.setattr(pytorch, "compiled", lambda function, mode: modes.append(mode) or function)
    monkeypatch.setattr(pytorch, "require", lambda device: None)
    monkeypatch.setattr(task, "DATA_BYTES", 1 << 15)
    monkeypatch.setattr(pytorch.Tensor, "to", lambda tensor, device: tensor)
    monkeypatch.setattr(pytorch.nn.Module, "to", lambda module, device, memory_format: module)
    start = bench_peers.CONTENDERS["torch.compile"].load("cuda")
    whole, parts = (start(Task(setting(name))) for name in ("notebook", "airbench94"))
    assert (type(whole), type(parts)) == (pytorch.CompiledStep, pytorch.Compiled)
    assert set(modes) == {"max-autotune"}
    assert all(np.isfinite(peer.to_host(peer.step())) for peer in (whole, parts))


def test_jax_waits_for_its_device_only_when_told(monkeypatch):
    jax = pytest.importorskip("jax")
    from peers.jax import Jit, require

    require("cpu")
    before = jax.config.jax_default_matmul_precision
    try:
        peer = Jit(Task(setting(tf32=True)))
        assert jax.config.jax_default_matmul_precision == "tensorfloat32"
        peer = Jit(Task(setting()))
        assert jax.config.jax_default_matmul_precision == "highest"
    finally:
        jax.config.update("jax_default_matmul_precision", before)
    waits = []
    monkeypatch.setattr("jax.block_until_ready", waits.append)
    loss = peer.step()
    assert waits == []
    peer.synchronize()
    ((_, latest),) = waits
    assert latest is loss


def test_the_devices_own_product_and_copy_are_waited_for():
    class Backend:
        xp = np
        waits = 0
        multiplied: ClassVar = set()

        def asarray(self, host, dtype=None):
            return host if dtype is None else host.astype(dtype)

        def matmul(self, a, b, out):
            np.matmul(a, b, out=out)
            Backend.multiplied.add(a.dtype.name)

        def synchronize(self):
            Backend.waits += 1

    assert timing.measure_product(Backend(), 8, "float32") > 0
    assert timing.measure_copy(Backend(), 4096) > 0
    assert Backend.waits == 2 * 2 * 7
    assert Backend.multiplied == {"float32"}
    assert timing.measure_product(Backend(), 8, "float16") > 0
    assert "float16" in Backend.multiplied


def test_a_large_copy_is_measured_on_a_gpu(monkeypatch):
    asked = []
    monkeypatch.setattr(Setting, "backend", lambda setting, kernels: None)
    monkeypatch.setattr(timing, "measure_copy", lambda backend, nbytes: asked.append(nbytes) or 1e9)
    where = setting()
    proof = agreement.Proof(first_seconds={(where, "jax"): {"training": 1.0}})
    (figure,) = timing.make_figures(where, "training", {"jax": [0.5]}, proof, product_flops=1e12)
    assert (asked, figure.threads) == ([timing.CUDA_COPY_BYTES], None)


def test_a_peer_is_waited_for_in_its_turns(monkeypatch):
    class Fake:
        def __init__(self, task):
            self.waits = 0

        def step(self):
            pass

        def synchronize(self):
            self.waits += 1

    made = []
    contender = bench_peers.CONTENDERS["jax"]
    monkeypatch.setitem(
        bench_peers.CONTENDERS,
        "jax",
        dataclasses.replace(contender, load=lambda device: lambda task: made.append(Fake(task)) or made[0]),
    )
    call = timing.start_all(setting(), "training", ["jax"])["jax"]
    assert isinstance(call, Call)
    call.seconds(5)
    assert made[0].waits == 2
