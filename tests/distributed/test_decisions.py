"""Processes decide together: when to stop, what to change, what is wrong; and what they send for it."""

import hashlib
import json
import tracemalloc
import warnings
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from helpers.together import needed, together

import backends
import cnn
from cnn.support import random
from cnn.training.distributed import Communicator

pytestmark = needed

SHARDS = 2
BATCH, STEPS = 16, 6  # of an epoch
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.random((BATCH * STEPS, 1, 8, 8), dtype=np.float32)
LABELS = RANDOM.integers(0, 3, BATCH * STEPS)


def fit(group, callbacks=(), images=IMAGES, labels=LABELS, **options):
    """Train; -> the network, what the history tells besides times, and the steps that were done."""
    net = cnn.Sequential(cnn.Conv2D(4, 3), cnn.ReLU(), cnn.Flatten(), cnn.Dropout(0.2), cnn.Dense(3))
    net.build(images.shape[1:], backend=backends.get("cpu", threads=1))
    steps = Steps()
    options = {"optimizer": cnn.SGD(0.1, momentum=0.9), "epochs": 3, "batch_size": BATCH} | options
    data = cnn.data.Dataset(images, labels, 3)
    history = cnn.fit(net, data, callbacks=[steps, *callbacks], processes=group, **options)
    learned = [{k: v for k, v in line.items() if "second" not in k} for line in history]
    return {"history": learned, "weights": digest(net), "steps": steps.done}


def digest(net):
    return hashlib.sha256(net.flat.value.tobytes()).hexdigest()


class Steps(cnn.Callback):
    """Notes the steps that this process does."""

    everywhere = True

    def __init__(self):
        self.done = []

    def on_step(self, run):
        self.done.append([run.epoch, run.step])


class At(cnn.Callback):
    """Does something to the run at its start, after a step or after an epoch."""

    def __init__(self, act, start=False, step=None, epoch=None, everywhere=False):
        self.act, self.start, self.step, self.epoch, self.everywhere = act, start, step, epoch, everywhere

    def on_start(self, run):
        if self.start:
            self.act(run)

    def on_step(self, run):
        if (run.epoch, run.step) == self.step:
            self.act(run)

    def on_epoch(self, run, record):
        if run.epoch == self.epoch:
            self.act(run)


def stop(run):
    run.stop = True


def halve_rate(run):
    run.training.optimizer.learning_rate /= 2


def change_momentum(run):
    run.training.optimizer.momentum = 0.5


def freeze(run):
    run.network.freeze("0.weight")


def double_weights(run):
    run.network.flat.value[...] *= 2


class StopInLast(cnn.Callback):
    """Lets the last process stop the run after a step, and no other."""

    everywhere = True

    def __init__(self, group):
        self.is_last = group.rank == group.size - 1

    def on_step(self, run):
        if self.is_last and (run.epoch, run.step) == (2, 3):
            run.stop = True


class Enlarge(cnn.training.gradients.GradientTransform):
    """Multiplies the gradient by a number with which the update overflows."""

    def apply(self, network):
        network.flat.grad[...] *= 1e30


def stopped_by_early_stopping(group):
    return fit(group, [cnn.EarlyStopping(patience=2, metric="loss")], optimizer=cnn.SGD(0), epochs=9)


def reads(group):
    """How many samples the sums have when a callback may read them."""
    found = []

    class Read(cnn.Callback):
        def on_step(self, run):
            if run.may_read(run.step >= 2 and not found):
                run.totals.read()
                found.append([run.step, run.totals.count])

    return {**fit(group, [Read()], epochs=1), "read": group.first(lambda: found)}


def failed(group, callbacks, **options):
    """The error that ends the run in this process."""
    nets = []
    keep = At(lambda run: nets.append(run.network), start=True, everywhere=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            fit(group, [keep, *callbacks], **options)
        except Exception as error:
            return {"error": str(error), "weights": [digest(net) for net in nets]}
    return {"error": "none"}


def place_in_last():
    """An image that step 3 has in the last shard."""
    order = random.generator(0, random.SHUFFLE, 0).permutation(len(IMAGES))
    return order[2 * BATCH + BATCH - 1]


def faulty_image():
    """The images, one of which overflows."""
    images = IMAGES.copy()
    images[place_in_last()] = 3e38
    return images


class Faulty(cnn.metrics.Metric):
    """A metric whose sum is infinite as soon as there is an image of class 2."""

    def shape(self, classes):
        return (1,)

    def add(self, y, targets, shares):
        self.sums += np.inf if (targets == 2).any() else 0

    def result(self, sums):
        return {"faulty": float(sums[0])}


def faulty_sum(group):
    """Only the sums of one process become infinite: no other value tells the others of it."""
    labels = LABELS % 2
    labels[place_in_last()] = 2
    return failed(group, [guard(100)], labels=labels, metrics=[Faulty()])


def guard(steps):
    made = cnn.NaNGuard()
    made.seconds, made.steps = 0, steps
    return made


SCENARIOS = {
    "undisturbed": fit,
    "stop in a step": lambda group: fit(group, [At(stop, step=(2, 3))]),
    "stop in the last step of an epoch": lambda group: fit(group, [At(stop, step=(2, STEPS))]),
    "stop after an epoch": lambda group: fit(group, [At(stop, epoch=2)]),
    "stop at the start": lambda group: fit(group, [At(stop, start=True)]),
    "stop in the last process alone": lambda group: fit(group, [StopInLast(group)]),
    "early stopping": stopped_by_early_stopping,
    "another rate": lambda group: fit(group, [At(halve_rate, epoch=1)]),
    "another rate at the start": lambda group: fit(group, [At(halve_rate, start=True)]),
    "another momentum": lambda group: fit(group, [At(change_momentum, epoch=1)]),
    "a frozen layer": lambda group: fit(group, [At(freeze, epoch=1)]),
    "other weights everywhere": lambda group: fit(group, [At(double_weights, epoch=1, everywhere=True)]),
    "sums are read": reads,
    "a value overflows": lambda group: failed(group, [guard(100)], images=faulty_image()),
    "a value overflows, found in a step": lambda group: failed(group, [guard(1)], images=faulty_image()),
    "a sum overflows": faulty_sum,
    "weights overflow": lambda group: failed(
        group, [guard(1)], optimizer=cnn.SGD(1e30), transforms=[Enlarge()]
    ),
}


def other_weights(epoch, start=False):
    return lambda group: failed(group, [At(double_weights, epoch=epoch, start=start)])


def messages(group):
    """Everything that is sent in each step of an epoch, and how often data cross between host and device."""
    from mpi4py import MPI

    spy = Spy(MPI.COMM_WORLD)
    spied = Communicator(spy, group.shards)
    steps, crossings = [], []

    def note(run):
        steps.append(len(spy.calls))
        crossings.append(run.network.backend.crossings)

    callbacks = [At(note, step=(2, step), everywhere=True) for step in range(1, STEPS + 1)]
    fit(spied, callbacks, epochs=2)
    sent = [spy.calls[first:stop] for first, stop in pairwise(steps)]
    return {"sent": sent, "crossings": crossings[-1] - crossings[0]}


class Spy:
    """The communicator of mpi4py, which notes what is called and how many bytes go out or come in."""

    def __init__(self, mpi):
        self._mpi, self.calls = mpi, []

    def __getattr__(self, name):
        found = getattr(self._mpi, name)
        if not callable(found):
            return found

        def call(*arguments, **named):
            self.calls.append([name, getattr(arguments[0], "nbytes", None)])
            return found(*arguments, **named)

        return call


def memory(group):
    """The peak of what is allocated in a run in this process alone, and in shards; and a gradient's size."""
    found = {}
    for name, shards in (("alone", None), ("2", 2), ("4", 4)):
        processes = shards and group
        group.shards = shards
        for trace in (False, True):  # the first time, modules are imported and kernels loaded
            net = cnn.Sequential(cnn.Flatten(), cnn.Dense(256), cnn.ReLU(), cnn.Dense(3))
            net.build((1, 32, 32), backend=backends.get("cpu", threads=1))
            images = np.zeros((16, 1, 32, 32), np.uint8)
            images[:, :, 3] = 255
            data = cnn.data.Dataset(images, LABELS[:16], 3)
            if trace:
                tracemalloc.start()
            cnn.fit(
                net, data, optimizer=cnn.SGD(0.1, momentum=0.9), epochs=3, batch_size=8, callbacks=[],
                processes=processes,
            )  # fmt: skip
        found[name] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    group.shards = SHARDS
    return found | {"gradient": net.flat.grad.nbytes}


def job():
    """The results of each scenario, of all processes."""
    group = cnn.distributed.communicator(shards=SHARDS)
    found = {name: group.gather(scenario(group)) for name, scenario in SCENARIOS.items()}
    found["other weights"] = group.gather(other_weights(2)(group))
    found["other weights at the start"] = group.gather(other_weights(None, start=True)(group))
    found["messages"] = group.gather(messages(group))
    found["memory"] = group.gather(memory(group))
    return found | {"host": group.host}


@cache
def results():
    return together(2, job)


@cache
def alone(name):
    """What one process gives that has all shards."""
    return json.loads(json.dumps(SCENARIOS[name](Communicator(shards=SHARDS))))


def both(name):
    """What both processes give, which is the same."""
    first, second = results()[name]
    assert first == second
    return first


@pytest.mark.parametrize("name", SCENARIOS)
def test_two_processes_do_what_one_does(name):
    assert both(name) == alone(name)


class TestStopping:
    def test_what_a_process_wants_after_a_step_all_do_after_the_next(self):
        assert both("stop in a step")["steps"][-1] == [2, 4]
        assert both("stop in the last process alone")["steps"][-1] == [2, 4]

    def test_after_the_last_step_the_epoch_is_completed(self):
        found = both("stop in the last step of an epoch")
        assert found["steps"][-1] == [2, STEPS]
        assert len(found["history"]) == 2

    def test_after_an_epoch_and_at_the_start_it_is_at_once(self):
        assert both("stop after an epoch")["steps"][-1] == [2, STEPS]
        assert both("stop at the start")["steps"] == []

    def test_early_stopping_ends_all_after_the_same_epoch(self):
        assert 3 <= len(both("early stopping")["history"]) < 9


class TestChanges:
    def test_another_rate_holds_for_all_from_the_next_epoch_on(self):
        rates = [line["learning_rate"] for line in both("another rate")["history"]]
        assert rates == [0.1, 0.05, 0.05]
        rates = [line["learning_rate"] for line in both("another rate at the start")["history"]]
        assert rates == [0.05, 0.05, 0.05]

    @pytest.mark.parametrize(
        "name", ["another rate", "another momentum", "a frozen layer", "other weights everywhere"]
    )
    def test_they_change_what_is_learned_after_the_first_epoch(self, name):
        changed, undisturbed = both(name), both("undisturbed")
        assert changed["history"][0] == undisturbed["history"][0]
        assert changed["history"][1]["loss"] != undisturbed["history"][1]["loss"]

    @pytest.mark.parametrize("name", ["other weights", "other weights at the start"])
    def test_weights_that_one_process_changes_are_an_error_in_all(self, name):
        first, second = results()[name]
        assert first["error"] == second["error"]
        assert first["error"].startswith(f"process 1 on {results()['host']} has other weights than process 0")
        assert first["error"].endswith("a callback that changes weights must set everywhere = True")


class TestSums:
    def test_they_are_those_of_all_shards_after_the_step_that_follows(self):
        assert both("sums are read")["read"] == [[3, 3 * BATCH]]


class TestNaNGuard:
    @pytest.mark.parametrize("name", ["a value overflows", "a value overflows, found in a step"])
    def test_it_names_the_step_and_the_layer_in_all(self, name):
        assert "in epoch 1, step 3: first the output of layer" in both(name)["error"]

    def test_it_finds_what_only_one_process_has(self):
        assert "in epoch 1, step 3; training has diverged" in both("a sum overflows")["error"]

    def test_it_finds_faults_of_the_update_too(self):
        found = both("weights overflow")["error"]
        assert "in epoch 1, step 1: first the weights of layer" in found
        assert "(update)" in found


class TestMessages:
    def test_a_step_has_one_exchange_of_the_gradient_and_one_small_message_that_nobody_waits_for(self):
        network = cnn.Sequential(cnn.Conv2D(4, 3), cnn.ReLU(), cnn.Flatten(), cnn.Dense(3))
        network.build((1, 8, 8), backend="cpu")
        half = network.flat.grad.nbytes // 2
        expected = [["Iallreduce", 8], ["Irecv", half], ["Isend", half], ["Allgatherv", None]]
        for found in results()["messages"]:
            assert found["sent"] == [expected] * (STEPS - 1)

    def test_nothing_crosses_between_host_and_device(self):
        assert [found["crossings"] for found in results()["messages"]] == [0, 0]


class TestMemory:
    @pytest.mark.parametrize("shards", ["2", "4"])
    def test_a_process_has_no_more_than_one_alone_and_two_gradients(self, shards):
        for found in results()["memory"]:
            assert found["gradient"] > 1_000_000
            assert found[shards] <= found["alone"] + 2 * found["gradient"] + 65_536
