"""A process that waits too long for the others prints one sentence and exits."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import ROOT
from helpers.together import end_of, needed

import backends
import cnn
from cnn.training.distributed import watchdog
from cnn.training.distributed.watchdog import Watchdog

SENTENCE = (
    "error: process 1 on HOST has waited {} s for the others: one of them hangs or cannot be reached; "
    "start again from the last checkpoint\n"
)
WAITING = """
import sys, time
from cnn.training.distributed import watchdog
watchdog.LEAST_FOR_FIRST_STEP = float(sys.argv[1])
waiting = watchdog.Watchdog("process 1 on HOST", 1, float(sys.argv[2]))
if sys.argv[3:] == ["warm"]:
    waiting.be_strict()
with waiting:
    time.sleep(300)
"""


def waits(least, seconds, *more):
    """How a process ends that waits for 300 s: the exit code, and what it says."""
    ended = subprocess.run(
        [sys.executable, "-c", WAITING, str(least), str(seconds), *more],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    return ended.returncode, ended.stdout, ended.stderr


def test_a_process_that_waits_in_vain_exits_with_75_and_one_sentence():
    assert waits(0.1, 0.5) == (75, "", SENTENCE.format("0.5"))


def test_the_first_wait_is_longer_since_others_may_have_to_compile():
    assert waits(0.75, 0.1) == (75, "", SENTENCE.format("0.75"))
    assert watchdog.LEAST_FOR_FIRST_STEP == 600


def test_it_is_as_short_as_asked_for_after_the_first_step():
    assert waits(600, 0.25, "warm") == (75, "", SENTENCE.format("0.25"))


def test_the_advice_may_be_another(monkeypatch):
    ended = []
    system = SimpleNamespace(_exit=ended.append, write=lambda *written: ended.append(written))
    monkeypatch.setattr(watchdog, "os", system)
    waiting = Watchdog("process 0 on HOST", 0, 60)
    waiting.advice = "do something else"
    waiting._end()
    (file, text), code = ended
    assert (file, code) == (2, 75)
    assert text.decode().endswith("cannot be reached; do something else\n")


class Over(Exception):
    """Nothing more happens."""


@pytest.fixture
def ends(monkeypatch):
    """ends(story): whether a watchdog ends the process that waits for half a second at most.

    In the story, "(" begins a wait, ")" ends it, and "." is one of its looks, every tenth of a second.
    """
    monkeypatch.setattr(watchdog, "LEAST_FOR_FIRST_STEP", 0)
    thread = SimpleNamespace(start=lambda: None)
    monkeypatch.setattr(watchdog, "threading", SimpleNamespace(Thread=lambda **options: thread))

    def told(story):
        waiting, rest, ended = Watchdog("process 0 on HOST", 0, 0.5), list(story), []

        def sleep(seconds):
            assert seconds == 0.1
            while rest:
                if (happens := rest.pop(0)) == ".":
                    return
                waiting.__enter__() if happens == "(" else waiting.__exit__(None, None, None)
            raise Over

        monkeypatch.setattr(watchdog, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
        monkeypatch.setattr(waiting, "_end", lambda: ended.append(True))
        with suppress(Over):
            waiting._look()
        return bool(ended)

    return told


@pytest.mark.parametrize(
    ("story", "expected"),
    [
        ("(..........", True),
        (".....(..........", True),
        ("(....)" * 10, False),
        ("(....)....." * 10, False),
        ("....................", False),
        ("(....)....................", False),
        ("....................(....)", False),
    ],
)
def test_each_wait_has_its_own_time_and_work_between_waits_has_none(ends, story, expected):
    assert ends(story) is expected


def test_the_seconds_of_all_waits_are_added(monkeypatch):
    waiting = Watchdog("process 0 on HOST", 0, 60)
    for _ in range(2):
        with suppress(OSError), waiting:
            time.sleep(0.05)
            raise OSError
    assert waiting.waited >= 0.1


class StopsStill(cnn.Callback):
    """Lets process 1 stand still in the second epoch."""

    everywhere = True

    def __init__(self, group):
        self.group = group

    def on_step(self, run):
        if self.group.rank == 1 and run.epoch == 2:
            os.kill(os.getpid(), signal.SIGSTOP)


def job(folder):
    """A training run in which a process stands still."""
    group = cnn.distributed.communicator(timeout=5)
    with open(os.path.join(folder, str(group.rank)), "w") as file:
        file.write(str(os.getpid()))
    net = cnn.Sequential(cnn.Flatten(), cnn.Dense(2))
    net.build((1, 4, 4), backend=backends.get("cpu", "portable", threads=1))
    data = cnn.data.Dataset(np.full((16, 1, 4, 4), 100, np.uint8), np.arange(16) % 2)
    cnn.fit(
        net,
        data,
        optimizer=cnn.SGD(0.1),
        epochs=3,
        batch_size=4,
        callbacks=[StopsStill(group)],
        processes=group,
    )


@needed
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped")
def test_a_process_that_stands_still_ends_all(tmp_path):
    ended = end_of(2, job, str(tmp_path))
    assert ended.code == 75
    said = [line for line in ended.errors.splitlines() if "has waited" in line]
    assert len(said) == 1
    assert said[0].startswith("error: process 0 on ")
    assert "has waited 5 s for the others" in said[0]
    for rank in "01":
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / rank).read_text()), 0)
