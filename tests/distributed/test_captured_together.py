"""Processes that exchange gradients inside a captured step, on the stand-in for a GPU."""

import hashlib
import warnings

import numpy as np
import pytest
from helpers.standin import StandInBackend
from helpers.standin.arrays import host_of
from helpers.standin.work import do
from helpers.together import needed, together

import cnn
from backends.graph import CapturedStep, CaptureError
from cnn.training.distributed.communicator import Communicator

BATCH, STEPS = 8, 6  # of an epoch
RANDOM = np.random.default_rng(0)
DATA = cnn.data.Dataset(
    RANDOM.integers(0, 256, (BATCH * STEPS, 1, 6, 6), dtype=np.uint8), RANDOM.integers(0, 3, BATCH * STEPS), 3
)


class OnTheStream:
    """A transport whose messages are work of the device: a recording keeps them, as it keeps NCCL's."""

    is_recordable = True

    def __init__(self, host):
        self.host, self.size = host, host.size

    def exchange(self, sends, receives):
        sends, receives = ([(host_of(array), *rest) for array, *rest in part] for part in (sends, receives))
        do(lambda: self.host.exchange(sends, receives))

    def share(self, vector, edges):
        do(lambda: self.host.share(host_of(vector), edges))


class Watched(StandInBackend):
    """Notes in which step it captures; in the first ``failing`` attempts it cannot."""

    def __init__(self, failing=0):
        super().__init__()
        self.captures, self.failing, self.now = [], failing, None

    def _capture(self, step):
        self.captures.append(self.now)
        launch = super()._capture(step)
        if len(self.captures) <= self.failing:
            raise CaptureError("it cannot")
        return launch


class Follow(cnn.Callback):
    """Tells the device which step comes next, and moves a buffer after a step if it is asked to."""

    everywhere = True

    def __init__(self, backend, moves_after):
        self.backend, self.moves_after = backend, moves_after

    def on_start(self, run):
        self.backend.now = [0, 0]

    def on_step(self, run):
        self.backend.now = [run.epoch, run.step]
        if self.backend.now == self.moves_after:
            self.backend.allocations += 1


def trained(graph=True, moving=None, moves_after=None, failing=None):
    """Train, in all processes; -> for each of them its captures, launches, notes and a checksum."""
    from cnn.training.distributed.transport import HostTransport

    class Group(Communicator):
        def _make_transport(self, backend):
            return OnTheStream(HostTransport(self._mpi, self.watchdog))

    group = cnn.distributed.communicator(shards=2)
    group.__class__ = Group
    backend = Watched(failing=99 if failing == group.rank else 0)
    net = cnn.Sequential(cnn.Conv2D(2, 3), cnn.ReLU(), cnn.Flatten(), cnn.Dropout(0.2), cnn.Dense(3))
    net.build((1, 6, 6), backend=backend)
    follow = Follow(backend, moves_after if moving == group.rank else None)
    launches = []
    original = CapturedStep.__call__
    CapturedStep.__call__ = lambda step: launches.append(1) or original(step)
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        cnn.fit(
            net, DATA, epochs=2, batch_size=BATCH, optimizer=cnn.SGD(0.1, momentum=0.9), graph=graph,
            callbacks=[follow], processes=group,
        )  # fmt: skip
    CapturedStep.__call__ = original
    notes = [str(note.message) for note in notes if "CUDA graph" in str(note.message)]
    weights = hashlib.sha256(backend.to_host(net.flat.value).tobytes()).hexdigest()
    return group.gather(
        {"captures": backend.captures, "launches": len(launches), "notes": notes, "weights": weights}
    )


def without_a_graph():
    return trained(graph=False)


def captured():
    return trained()


def moved():
    return trained(moving=1, moves_after=[2, 2])


def refused():
    return trained(failing=1)


@pytest.fixture(scope="module")
def plain():
    """The checksum of the weights of a run without a graph."""
    first, second = together(2, without_a_graph)
    assert (first["captures"], first["launches"]) == ([], 0)
    assert first["weights"] == second["weights"]
    return first["weights"]


@needed
class TestCapturedTogether:
    def test_a_step_with_its_messages_is_captured_once_and_launched(self, plain):
        for found in together(2, captured):
            assert len(found["captures"]) == 1
            assert found["launches"] >= 2 * STEPS - 3
            assert found["weights"] == plain
            assert found["notes"] == []

    def test_all_capture_again_in_the_same_step_if_one_has_to(self, plain):
        one, other = together(2, moved)
        assert one["captures"] == other["captures"]
        assert len(one["captures"]) == 2
        assert one["weights"] == other["weights"] == plain

    def test_all_go_on_without_a_graph_if_one_cannot_capture(self, plain):
        one, other = together(2, refused)
        assert [len(found["captures"]) for found in (one, other)] == [1, 1]
        assert one["launches"] == other["launches"] == 0
        assert (one["notes"], len(other["notes"])) == ([], 1)
        assert one["weights"] == other["weights"] == plain
