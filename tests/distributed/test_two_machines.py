"""Training over TCP between two network namespaces, as between two machines."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT
from helpers.together import ENVIRONMENT, MPIEXEC, needed

sys.path.append(str(ROOT / "scripts" / "benchmarks"))

from tcp_parts import wire as wires
from tcp_parts.measured import Processes, make_task, sent_in_a_step
from tcp_parts.wire import ADDRESSES, INTERFACE, CommandFailed, NoWire, Wire

import backends
import cnn
from cnn.comparison.scaling import sent_bytes
from cnn.training.distributed.mpiexec import Mpiexec

pytestmark = needed

STEPS = 5
TIMEOUT = 5  # seconds that a process waits for the other one
LOST = "lost"  # the file that says that the cable has been cut


@pytest.fixture(scope="module")
def processes():
    """What trains in one process, and in two that are joined by a cable."""
    if Mpiexec.find().is_open_mpi:
        pytest.skip("the cable is for MPICH's mpiexec")
    try:
        with Wire() as wire:
            yield Processes(wire, MPIEXEC)
    except NoWire as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def task():
    return make_task(6, 2, STEPS)


@pytest.fixture(scope="module")
def over_tcp(processes, task):
    return processes.train(2, task)


def test_the_weights_are_those_of_one_process(processes, task, over_tcp):
    assert over_tcp[0].weights == processes.train(1, task)[0].weights


def test_the_gradients_cross_the_cable_in_both_directions(over_tcp):
    trained, counted = over_tcp
    assert len(counted) == 2
    assert trained.vector > 4 * 61_706  # the parameters of LeNet-5
    expected = sent_bytes(2, trained.vector)
    assert sent_in_a_step(counted, STEPS, expected) > expected * (STEPS - 1) / STEPS


def test_gradients_that_take_another_way_are_noticed(processes, task, monkeypatch):
    """UCX finds the memory that two namespaces of one machine share."""
    monkeypatch.setattr(wires, "OVER_TCP", {})
    trained, counted = processes.train(2, task)
    with pytest.raises(CommandFailed, match="the processes did not exchange their gradients over TCP"):
        sent_in_a_step(counted, STEPS, sent_bytes(2, trained.vector))


class CutsTheCable(cnn.Callback):
    """Cuts the cable of its own namespace, in the first process, after a few steps."""

    def __init__(self, marker):
        self.marker = marker

    def on_step(self, run):
        if run.step == 4:
            subprocess.run(["ip", "link", "set", INTERFACE, "down"], check=True)
            Path(self.marker).touch()


def train_until_the_cable_is_cut(folder):
    """Runs in both processes."""
    group = cnn.distributed.communicator(timeout=TIMEOUT)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (4000, 1, 8, 8), dtype=np.uint8)
    network = cnn.Sequential(cnn.Flatten(), cnn.Dense(2))
    network.build((1, 8, 8), backend=backends.get("cpu", threads=1), seed=0)
    callbacks = [CutsTheCable(os.path.join(folder, LOST))]
    data = cnn.data.Dataset(images, random.integers(0, 2, len(images)))
    cnn.fit(network, data, batch_size=4, callbacks=callbacks, processes=group)


def python_processes(wire):
    """The processes in the namespaces that run Python."""
    found = []
    for name in wire.namespaces:
        for number in wires.call("ip", "netns", "pids", name).split():
            try:
                program = os.readlink(f"/proc/{number}/exe")
            except OSError:  # it has just ended
                continue
            if Path(program).name.startswith("python"):
                found.append(number)
    return found


def wait_for(condition, process, seconds=200):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "this does not happen"
        assert process.poll() is None or condition(), process.stderr.read()
        time.sleep(0.1)


def test_both_processes_end_when_the_cable_is_cut(tmp_path):
    """The launcher itself may wait for a namespace that it no longer reaches."""
    try:
        with Wire() as wire:
            job = "helpers.together", __file__, "train_until_the_cable_is_cut", str(tmp_path / "result")
            program = [sys.executable, "-P", "-m", *job, f'["{tmp_path}"]']
            process = subprocess.Popen(
                wire.across(MPIEXEC, program),
                env=os.environ | wires.OVER_TCP | ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            try:
                wait_for((tmp_path / LOST).exists, process)
                wait_for(lambda: not python_processes(wire), process)
            finally:
                process.kill()
                errors = process.communicate()[1]
    except NoWire as reason:
        pytest.skip(str(reason))
    assert f"has waited {TIMEOUT} s for the others: one of them hangs or cannot be reached" in errors
    assert not (tmp_path / "result").exists()


class TestNamespaces:
    def test_they_are_gone_afterwards(self, processes):
        with Wire() as wire:
            assert set(wire.namespaces) <= namespaces()
            sleeper = subprocess.Popen(wire.inside(1, ["sleep", "600"]))
        assert not set(wire.namespaces) & namespaces()
        assert sleeper.wait(60) == -9

    def test_each_reaches_the_other_and_nothing_else(self, processes):
        with Wire(rate=1e9, delay=1e-4) as wire:
            routes = wires.call(*wire.inside(0, ["ip", "route"]))
            assert routes.split()[0] == "10.99.0.0/24"
            assert routes.count("\n") == 1
            assert ADDRESSES[1] in wires.call(*wire.inside(1, ["ip", "address"]))

    def test_a_limit_is_set_on_both_ends(self, processes):
        with Wire(rate=1e9, delay=1e-4) as wire:
            for end in (0, 1):
                limit = wires.call(*wire.inside(end, ["tc", "qdisc", "show", "dev", INTERFACE]))
                assert "rate 1Gbit" in limit
                assert ("delay 100us" in limit) == bool(wire.delay)

    def test_half_made_ones_are_removed(self, processes, monkeypatch):
        call, made = wires.call, set()

        def fails(*command):
            if "add" in command and "netns" in command[:2]:
                made.add(command[-1])
            if "address" in command:
                raise subprocess.CalledProcessError(2, command, stderr="Operation not permitted\n")
            return call(*command)

        monkeypatch.setattr(wires, "call", fails)
        message = r"^`ip .* address add .*` failed \(Operation not permitted\)$"
        with pytest.raises(NoWire, match=message), Wire():
            pytest.fail("there is a wire")
        assert len(made) == 2
        assert not made & namespaces()

    @pytest.mark.parametrize(
        ("place", "value", "reason"),
        [
            ("sys.platform", "darwin", "network namespaces need Linux"),
            ("os.geteuid", lambda: 1000, "network namespaces need root"),
            ("shutil.which", lambda name: None, "network namespaces need the command ip, of iproute2"),
        ],
    )
    def test_the_reason_is_said_if_there_can_be_none(self, monkeypatch, place, value, reason):
        for name, fine in (("sys.platform", "linux"), ("os.geteuid", lambda: 0), (place, value)):
            monkeypatch.setattr(f"tcp_parts.wire.{name}", fine, raising=False)
        with pytest.raises(NoWire, match=f"^{reason}$"), Wire():
            pytest.fail("there is a wire")


def namespaces():
    """The names of all network namespaces."""
    return {line.split()[0] for line in subprocess.check_output(["ip", "netns"], text=True).splitlines()}
