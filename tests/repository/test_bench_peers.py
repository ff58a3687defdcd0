"""scripts/benchmarks/bench_peers.py: it checks before it times, and its figures are what they are called."""

import dataclasses
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT

import cnn
from backends.cpu.threads import limit_threads
from cnn.inspection.timing import Spread
from cnn.support.errors import ArgumentError, DisagreementError

sys.path.append(str(ROOT / "scripts" / "benchmarks"))

import bench_peers
from peers import agreement, avx2, ours, page, scaling, timing
from peers.agreement import Job, Proof, prove
from peers.contenders import CONTENDERS, Contender
from peers.networks import NETWORKS, Network
from peers.peer import Absent
from peers.results import Memory, Results, describe_machine
from peers.task import Setting, Task, Training
from peers.timing import Call, Figure
from shared.markdown import markdown

SCRIPT = Path(bench_peers.__file__)


@pytest.fixture(autouse=True)
def one_thread():
    """What a contender takes in this process is given back."""
    pytest.importorskip("threadpoolctl")
    with limit_threads(1):
        yield


def run(*arguments, cwd):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    environment = os.environ | {"CNN_DEVICE": "cpu", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def setting(network="notebook", batch_size=1, threads=1, **others):
    return Setting(NETWORKS[network], batch_size, threads, **others)


def check(*jobs):
    return prove([Job(where, names) for where, names in jobs], say=lambda line: None)


def make_figure(**others):
    return Figure(
        **{
            "network": "notebook",
            "batch_size": 1,
            "threads": 1,
            "phase": "training",
            "peer": "portable",
            "seconds": Spread(0.002, 0.001, 0.004),
            "turns": 3,
            "images_per_second": 500.0,
            "pytorch": None,
            "times_pytorch": None,
            "product_flops": 1e11,
            "product_share": 0.5,
            "copy_bytes": 1e10,
            "copy_share": None,
            "first_seconds": 0.25,
        }
        | others
    )


@pytest.fixture
def altered(monkeypatch):
    """A contender whose network has another number in one place."""

    def start(task):
        peer = CONTENDERS["portable"].load("cpu")(task)
        peer.network.parameters["0.bias"].value[0, 3, 4] += 0.5
        return peer

    monkeypatch.setitem(CONTENDERS, "altered", Contender("the altered one", lambda device: start))


def test_it_writes_its_figures_for_programs_and_for_people(tmp_path):
    options = ["--networks", "notebook", "--batch-sizes", 2, "--rounds", 2, "--peers", "portable"]
    done = run(*options, "--threads", 1, "--json", "peers.json", "--markdown", "peers.md", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "peers.json").read_text())
    assert (found["format"], found["schema"], found["absent"]) == ("xpcnn peers", 2, {})
    assert found["machine"]["device"]["cores"] >= 1
    assert [(f["phase"], f["peer"], f["turns"]) for f in found["figures"]] == [
        ("training", "portable", 2),
        ("inference", "portable", 2),
    ]
    for f in found["figures"]:
        assert 0 < f["seconds"]["low"] <= f["seconds"]["median"] <= f["seconds"]["high"]
        assert f["images_per_second"] == pytest.approx(2 / f["seconds"]["median"])
        assert (f["pytorch"], f["times_pytorch"]) == (None, None)
    (memory,) = found["memory"]
    assert (memory["network"], memory["batch_size"], memory["peer"]) == ("notebook", 2, "portable")
    assert memory["bytes"] > 0
    text = (tmp_path / "peers.md").read_text()
    assert done.stdout.strip() in text
    assert "python scripts/benchmarks/bench_peers.py --networks notebook --batch-sizes 2 " in text
    assert str(tmp_path) not in text
    assert all(len(line) <= 110 for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    ("option", "value", "names"),
    [
        ("--networks", "resnet", "'resnet'"),
        ("--peers", "portable,theano", "'theano'"),
        ("--threads", "0", "'0'"),
        ("--batch-sizes", "32,many", "'many'"),
        ("--json", "nowhere/peers.json", "nowhere"),
        ("--plot", "picture.pdf", "picture.pdf"),
        ("--device", "tpu", "'tpu'"),
    ],
)
def test_a_mistake_is_one_sentence(option, value, names, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["bench_peers.py", option, value])
    with pytest.raises(SystemExit) as stop:
        bench_peers.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert line.startswith("error: ")
    assert names in line


def test_nothing_is_timed_where_two_disagree(monkeypatch, capsys):
    def disagree(processes, jobs):
        raise DisagreementError("they do not compute the same")

    monkeypatch.setattr(bench_peers.Processes, "prove", disagree)
    monkeypatch.setattr(bench_peers.Processes, "measure", lambda *arguments: pytest.fail("was timed"))
    monkeypatch.setattr("sys.argv", ["bench_peers.py"])
    with pytest.raises(SystemExit) as stop:
        bench_peers.main()
    assert stop.value.code == 1
    assert capsys.readouterr().err == "error: they do not compute the same\n"


@pytest.mark.parametrize("network", NETWORKS)
def test_all_that_are_here_compute_the_same(network):
    names = {"compiled", "portable", "pytorch", "channels_last"}
    proof = check((setting(network, batch_size=2), sorted(names)))
    assert proof.absent.keys() <= {"compiled", "pytorch", "channels_last"}
    assert {name for _, name in proof.first_seconds} == names - proof.absent.keys()


@pytest.mark.parametrize(
    "training",
    [
        Training(label_smoothing=0.2, nesterov=True, weight_decay=0.01, clip=1.0),
        Training("adam", weight_decay=0.1),
        Training("adamw", weight_decay=0.1),
        Training("muon", nesterov=True, steps=3, weight_decay=0.01),
        Training("muon", nesterov=True, hidden_only=True, unit_rows=True),
    ],
    ids=lambda training: training.optimizer,
)
def test_all_compute_the_same_with_another_loss_and_update(training):
    pytest.importorskip("torch")
    names = ["channels_last", "portable", "pytorch"]
    where = Setting(NETWORKS["airbench93"], 2, 1, training=training)
    proof = check((where, names))
    assert proof.absent == {}


def test_a_bias_before_a_normalization_has_no_gradient_to_compare():
    biased = Network("biased", lambda: cnn.Sequential(
        cnn.Conv2D(3, 3), cnn.BatchNorm2D(), cnn.ReLU(), cnn.Flatten(), cnn.Dense(10)
    ))  # fmt: skip
    task = Task(Setting(biased, 8, 1))
    record = agreement.record_steps(task, "portable")
    noise = np.full(3, 1e-6, np.float32)
    other = dataclasses.replace(record, gradients=record.gradients | {"0.bias": noise})
    agreement.require_same(task.setting, {"portable": record, "signal": other})
    wrong = dataclasses.replace(record, gradients=record.gradients | {"0.bias": 1000 * noise})
    with pytest.raises(DisagreementError, match=r"the gradient of 0\.bias differs"):
        agreement.require_same(task.setting, {"portable": record, "signal": wrong})


def test_another_loss_is_found():
    pytest.importorskip("torch")
    tasks = [Task(Setting(NETWORKS["lenet5"], 2, 1, training=each)) for each in
             (Training(), Training(label_smoothing=0.1))]  # fmt: skip
    records = {
        name: agreement.record_steps(task, name)
        for task, name in zip(tasks, ("pytorch", "portable"), strict=True)
    }
    with pytest.raises(DisagreementError, match="the loss differs by"):
        agreement.require_same(tasks[0].setting, records)


def test_ours_has_the_update_that_is_asked_for():
    sgd = ours.make_optimizer(Training(momentum=0.8, nesterov=True, weight_decay=0.1))
    assert (type(sgd), sgd.momentum, sgd.nesterov, sgd.weight_decay) == (cnn.SGD, 0.8, True, 0.1)
    adam = ours.make_optimizer(Training("adam", momentum=0.8, weight_decay=0.1, betas=(0.7, 0.9)))
    assert (type(adam), adam.weight_decay, adam.betas) == (cnn.Adam, 0.1, (0.7, 0.9))
    muon = ours.make_optimizer(Training("muon", steps=3))
    assert (type(muon), muon.steps, muon.other_rate) == (cnn.Muon, 3, muon.learning_rate)


def test_the_notebooks_loops_start_from_the_same_network():
    proof = check((setting(), ["portable", "signal", "loops"]))
    assert {name for _, name in proof.first_seconds} == {"portable", "signal", "loops"}


def test_the_notebooks_loops_take_one_image_of_their_own_network():
    proof = check((setting(batch_size=2), ["loops"]), (setting("lenet5"), ["loops"]))
    assert proof.first_seconds == {}


@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_number_that_differs_is_found(altered, batch_size):
    with pytest.raises(DisagreementError, match=r"the altered one and ours, portable .* the loss differs by"):
        check((setting(batch_size=batch_size), ["portable", "altered"]))


def jobs(*options):
    made = bench_peers.make_jobs(bench_peers.make_parser().parse_args(options))
    return [(job.setting.network.name, job.setting.batch_size, job.phases) for job in made]


def test_each_network_is_measured_at_its_own_batch_sizes():
    both = ["training", "inference"]
    assert jobs() == [
        *((network, *rest) for network in ("notebook", "lenet5", "example")
          for rest in ((1, ["training"]), (128, both))),
        ("resnet20", 128, both),
        *((network, *rest) for network in ("airbench94", "airbench93")
          for rest in ((128, ["inference"]), (512, ["training"]))),
        ("vgg6", 128, both),
    ]  # fmt: skip
    assert jobs("--networks", "vgg", "--batch-sizes", "8,2") == [("vgg", 2, both), ("vgg", 8, both)]
    assert jobs("--networks", "lenet5", "--only", "inference") == [("lenet5", 128, ["inference"])]


def test_memory_is_that_of_the_largest_training(monkeypatch):
    measured = []

    def measure(setting, name):
        measured.append((setting.network.name, setting.batch_size, setting.threads, name))
        return None if name == "pytorch" else 7

    monkeypatch.setattr(bench_peers, "measure_growth", measure)
    arguments = bench_peers.make_parser().parse_args(["--networks", "airbench94,notebook", "--threads", "1"])
    found = bench_peers.measure_memory(bench_peers.make_jobs(arguments), ["compiled", "pytorch"])
    largest = [("airbench94", 512), ("notebook", 128)]
    expected = [(*what, bench_peers.CORES, name) for what in largest for name in ("compiled", "pytorch")]
    assert sorted(measured) == expected
    assert sorted(found, key=lambda m: m.network) == [Memory(*what, "compiled", 7) for what in largest]


def test_normalizations_start_from_statistics_of_the_images():
    task = Task(setting("vgg6", batch_size=2))
    variances = [value for name, value in task.weights.items() if name.endswith("running_var")]
    assert len(variances) == 6
    assert all((value > 0).all() and not (value == 1).any() for value in variances)
    scales = [value for name, value in task.weights.items() if name.endswith("weight") and value.ndim == 1]
    assert all(0.01 < value.std() < 0.3 for value in scales)


def test_a_frozen_layer_gives_outputs_of_mean_0_and_variance_1():
    task = Task(setting("airbench93", batch_size=2))
    first, *_ = task.network.layers
    assert task.network.frozen_names == ("0.weight", "0.bias")
    task.network.load_state_dict(task.weights)
    y = first.forward(np.moveaxis(task.x, 0, -1).copy())
    assert np.abs(y.mean(axis=(1, 2, 3))).max() < 0.2
    assert np.abs(y.var(axis=(1, 2, 3)) - 1).max() < 0.3


def test_all_libraries_are_held_to_avx2(monkeypatch):
    monkeypatch.setattr(avx2.platform, "machine", lambda: "x86_64")
    environment = {"NUMBA_CACHE_DIR": "kernels"}
    monkeypatch.setattr(avx2.os, "environ", environment)
    avx2.hold_to_avx2()
    assert environment["NUMBA_CPU_NAME"] == "haswell"
    assert "avx512" not in environment["NUMBA_CPU_FEATURES"]
    assert environment["ATEN_CPU_CAPABILITY"] == "avx2"
    assert environment["NUMBA_CACHE_DIR"] == os.path.join("kernels", "avx2")
    monkeypatch.setattr(avx2.platform, "machine", lambda: "aarch64")
    with pytest.raises(ArgumentError, match="--avx2 is about x86 processors, and this one is aarch64"):
        avx2.hold_to_avx2()


def test_the_page_says_that_all_are_held_to_avx2():
    results = Results(describe_machine(avx2=True), 2, {}, [], [], [])
    assert " cores, all libraries held to AVX2; " in page.machine_line(results)
    assert "AVX2" not in page.machine_line(Results(describe_machine(), 2, {}, [], [], []))
    arguments = bench_peers.make_parser().parse_args(["--avx2", "--networks", "notebook"])
    assert bench_peers.command(arguments).endswith("bench_peers.py --networks notebook --avx2")


@pytest.mark.parametrize("what", ["gradients", "updates"])
def test_another_step_from_the_same_weights_is_found(what):
    record = agreement.record_steps(Task(setting()), "portable")
    changed = getattr(record, what) | {"4.weight": 1.1 * getattr(record, what)["4.weight"]}
    other = dataclasses.replace(record, **{what: changed})
    with pytest.raises(DisagreementError, match=r"4\.weight differs by 1\.0e-01"):
        agreement.require_same(setting(), {"portable": record, "signal": other})


def test_nan_is_no_agreement():
    record = agreement.record_steps(Task(setting()), "portable")
    other = dataclasses.replace(record, losses=(np.nan, np.nan))
    with pytest.raises(DisagreementError, match="nan"):
        agreement.require_same(setting(), {"portable": record, "signal": other})


def test_who_is_absent_says_why(monkeypatch):
    def load(device):
        raise Absent("it is not installed")

    monkeypatch.setitem(CONTENDERS, "missing", Contender("the missing one", load))
    proof = check((setting(), ["missing", "portable"]))
    assert proof.absent == {"missing": "it is not installed"}
    results = Results(describe_machine(), 2, proof.absent | {"jax": "no JAX"}, [], [], [])
    lines = "- the missing one: not measured: it is not installed\n- JAX jit: not measured: no JAX\n"
    assert lines in page.make_tables(results)


@pytest.mark.parametrize("training", [Training("adam"), Training(label_smoothing=0.1), Training(clip=1)])
def test_who_has_another_step_than_is_asked_for_is_absent(training):
    proof = check((setting(training=training), ["loops", "portable"]))
    assert proof.absent == {"loops": "its step has plain SGD alone, without label smoothing or clipping"}


def test_who_goes_image_by_image_is_left_out_where_it_is_slow(monkeypatch):
    monkeypatch.setattr(agreement, "SLOWEST", 0.0)
    tried = []
    record_steps = agreement.record_steps
    monkeypatch.setattr(
        agreement, "record_steps", lambda task, name: tried.append(name) or record_steps(task, name)
    )
    proof = check((setting(), ["portable", "signal"]), (setting(batch_size=2), ["portable", "signal"]))
    assert tried == ["portable", "signal", "portable"]
    assert {name for _, name in proof.first_seconds} == {"portable"}


def test_the_work_of_a_step_is_counted():
    network = NETWORKS["notebook"]
    convolution, dense = 5 * 9 * 26 * 26, 3125 * 100 + 100 * 2
    assert network.flops("inference", 8) == 2 * 8 * (convolution + dense)
    assert network.flops("training", 8) == 2 * 8 * (2 * convolution + 3 * dense)
    first, *others = network.parameter_bytes()
    assert [first, *others] == [4 * (5 * 9 + 5 * 26 * 26), 4 * (3125 * 100 + 100), 4 * (100 * 2 + 2)]
    assert network.moved_bytes("inference") == first + sum(others)
    assert network.moved_bytes("training") == 7 * first + 8 * sum(others)


def test_all_take_turns(monkeypatch):
    monkeypatch.setattr(timing, "PAUSE", 0)
    monkeypatch.setattr(timing, "BLOCK", 0)
    order = []
    calls = {
        name: Call(partial(order.append, name), partial(order.append, f"|{name}")) for name in ("a", "b")
    }
    taken = timing.take_turns(calls, rounds=3)
    assert {name: len(seconds) for name, seconds in taken.items()} == {"a": 3, "b": 3}
    # one to wake up, and between two waits for the device one that counts
    assert "".join(order).endswith("a|aa|ab|bb|b" * 3)


def test_nothing_waits_for_the_device_between_the_steps_of_a_turn(monkeypatch):
    order, clock = [], iter([10.0, 14.0])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: order.append("clock") or next(clock))
    call = Call(partial(order.append, "step"), partial(order.append, "wait"))
    assert call.seconds(times=2) == 2.0
    assert order == ["wait", "clock", "step", "step", "wait", "clock"]


def test_who_is_slow_takes_fewer_turns_and_is_compared_in_those(monkeypatch):
    monkeypatch.setattr(timing, "PAUSE", 0)
    monkeypatch.setattr(timing, "PATIENCE", 0)
    (seconds,) = timing.take_turns({"slow": Call(int, int)}, rounds=9).values()
    assert len(seconds) == timing.LEAST_TURNS
    assert timing.times_as_fast([1.0, 2.0, 4.0], [2.0, 2.0, 2.0, 100.0]) == Spread(1.0, 0.75, 1.5)


def test_a_long_call_is_neither_warmed_up_nor_woken_up(monkeypatch):
    monkeypatch.setattr(timing, "PAUSE", 0)
    monkeypatch.setattr(timing, "LONG", 0)
    calls = []
    timing.take_turns({"long": Call(partial(calls.append, 1), int)}, rounds=1)
    assert len(calls) <= 2 + timing.ceil(timing.BLOCK / 1e-7)
    lasting = iter([2.0, 3.0])
    monkeypatch.setattr(Call, "seconds", lambda call, times: next(lasting))
    calls.clear()
    assert timing.take_turns({"long": Call(partial(calls.append, 1), int)}, rounds=1) == {"long": [3.0]}
    assert calls == [1]  # what happens only once is not timed


def test_figures_are_shares_and_ratios():
    where = setting(batch_size=1)
    taken = {"portable": [0.5, 0.5], "pytorch": [2.0, 2.0], "channels_last": [1.0, 1.0]}
    once = {"training": 3.0, "inference": 2.0}
    proof = Proof(first_seconds={(where, name): once for name in taken})
    flops = where.network.flops("inference", 1)
    ours, eager, theirs = timing.make_figures(where, "inference", taken, proof, product_flops=4 * flops)
    assert [f.times_pytorch.median for f in (ours, eager, theirs)] == [2.0, 0.5, 1.0]
    assert {f.pytorch for f in (ours, eager, theirs)} == {"channels_last"}
    assert (ours.images_per_second, ours.product_share, ours.first_seconds) == (2.0, 0.5, 2.0)
    assert ours.copy_share == pytest.approx(2 * theirs.copy_share)


def rows_of(text):
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"
    ]


def test_tables_have_a_dash_where_there_is_no_figure():
    slow = [
        make_figure(peer="signal"),
        make_figure(),
        make_figure(batch_size=32, times_pytorch=Spread(2.5, 2.0, 3.0)),
    ]
    memory = [Memory("notebook", 128, "portable", 12_300_000)]
    text = page.make_tables(Results(describe_machine(), 2, {}, slow, memory, []))
    spread = ["2.00", "1.00 to 4.00", "500"]
    rows = rows_of(text)
    assert rows[2] == ["notebook", "128", "12.3", "-"]  # the memory
    assert rows[5:9] == [
        ["1", "ours, portable", *spread, "-", "50.0%", "-", "0.250"],
        ["1", "ours, signal", *spread, "-", "50.0%", "-", "0.250"],
        ["32", "ours, portable", *spread, "2.50", "50.0%", "-", "0.250"],
        ["32", "ours, signal", *"-------"],
    ]
    assert "## Ours and PyTorch" not in text


def test_ours_is_next_to_the_fastest_mode_of_pytorch():
    same = {"pytorch": "channels_last", "batch_size": 128}
    figures = [
        make_figure(peer="compiled", times_pytorch=Spread(2.0, 1.75, 2.25), **same),
        make_figure(peer="pytorch", seconds=Spread(0.008, 0.007, 0.009), product_share=0.125, **same),
        make_figure(peer="channels_last", seconds=Spread(0.004, 0.003, 0.005), product_share=0.25, **same),
    ]
    grown = {"compiled": 100_000_000, "pytorch": 400_000_000, "channels_last": 200_000_000}
    memory = [Memory("notebook", 128, name, nbytes) for name, nbytes in grown.items()]
    text = page.make_tables(Results(describe_machine(), 2, {}, figures, memory, []))
    rows = rows_of(text)
    setting = ["notebook", "training", "128", "1"]
    assert [*setting, "2.00", "4.00", "PyTorch channels_last", "2.00", "1.75 to 2.25"] in rows
    assert [*setting, "0.100", "100", "50.0%", "12.5%", "25.0%"] in rows
    assert ["notebook", "128", "100", "400", "200", "0.500"] in rows
    assert "| PyTorch channels_last * |" in text
    assert "| PyTorch eager           |" in text


def test_the_picture_has_an_axis_for_each_thing_that_varies(tmp_path):
    panels = scaling.make_panels(cores=2)
    figures = [
        make_figure(network=s.network.name, batch_size=s.batch_size, threads=s.threads, peer=name)
        for panel in panels
        for s in panel.settings.values()
        for name in ("portable", "pytorch")
    ]
    drawing = scaling.make_drawing(panels, figures)
    for panel, axes in zip(panels, drawing.axes, strict=True):
        assert (axes.get_xscale(), axes.get_yscale(), axes.get_xlabel()) == ("log", "log", panel.axis)
        for line in axes.get_lines():
            sizes = [s.batch_size for s in panel.settings.values()]
            assert list(line.get_xdata()) == list(panel.settings)
            assert line.get_ydata() == pytest.approx([2000 / size for size in sizes])
    (legend,) = drawing.legends
    assert [text.get_text() for text in legend.get_texts()] == ["ours, portable", "PyTorch eager"]
    for path in scaling.draw(panels, figures, tmp_path / "scaling.png"):
        assert path.stat().st_size > 0


def test_a_table_that_is_too_wide_comes_in_parts_with_its_names():
    rows = [
        ["1", "this library", "0.123", "0.1 to 0.2", "8,000"],
        ["32", "PyTorch", "12.3", "12.1 to 12.9", "2,600"],
    ]
    headings = ["batch", "peer", "ms", "quartiles", "images/s"]
    whole = markdown(headings, rows, 80, names=2)
    assert whole == markdown(headings, rows)
    parts = markdown(headings, rows, 40, names=2).split("\n\n")
    assert len(parts) == 3
    assert all("PyTorch" in part for part in parts)
    assert max(len(line) for part in parts for line in part.splitlines()) <= 40
    cells = {cell for part in parts for cell in part.replace("|", "  ").split("  ") if cell}
    assert {"0.123", "12.1 to 12.9", "2,600"} <= {cell.strip() for cell in cells}
