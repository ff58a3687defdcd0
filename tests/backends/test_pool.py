"""The threads that compute the parts of kernels: each part exactly once, and nobody waits for ever."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

pytest.importorskip("numba")

import backends
from backends.cpu.compiled import pool as threads_of_kernels
from backends.cpu.compiled.jit import Indices, Kernel
from backends.cpu.compiled.pool import CLAIM, DONE, MOST_PARTS, SLEEPERS, launch, pool

PATIENCE = 60  # seconds after which something is taken to hang


@Kernel
def count(counts: Indices, delays: Indices, part: int, parts: int) -> None:
    """Count how often each part is computed, each after a delay."""
    x = 0
    for step in range(delays[part]):
        x = x * 3 + step
    counts[part] += 1
    counts[parts + part] = x


def counted(parts, delays):
    counts = np.zeros(2 * parts, np.intp)
    count(np.dtype("float32"), (counts, np.resize(delays, parts).astype(np.intp)), parts)
    return counts[:parts].tolist()


def patiently(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never happens"
        time.sleep(0.001)


@pytest.mark.parametrize("parts", [1, 2, 3, 17, MOST_PARTS, MOST_PARTS + 1])
def test_each_part_is_computed_once(monkeypatch, parts):
    monkeypatch.setattr(pool, "start", lambda parts, start=pool.start: start(min(parts, 4)))
    assert counted(parts, [0]) == [1] * parts


@pytest.mark.parametrize("pause", [0, 1e-5, 3e-4])
def test_each_part_is_computed_once_with_delays_and_two_callers(pause):
    wrong = []

    def launch_many(seed):
        rng = np.random.default_rng(seed)
        for _ in range(1500):
            parts = int(rng.integers(1, 5))
            found = counted(parts, rng.integers(0, 3000, parts) * rng.integers(0, 2, parts))
            if found != [1] * parts:
                wrong.append(found)
            if pause and rng.random() < 0.1:
                time.sleep(pause)

    callers = [threading.Thread(target=launch_many, args=(seed,), daemon=True) for seed in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(PATIENCE)
    assert not any(caller.is_alive() for caller in callers)
    assert not wrong


def test_a_worker_computes_what_its_caller_leaves_to_it():
    """A worker has its own part, and the caller takes it only if the worker is late."""
    pool.start(2)

    def shared():
        before = pool._get(CLAIM)
        counted(2, [300_000_000, 0])
        return pool._get(CLAIM) > before

    patiently(shared)


def test_workers_sleep_when_there_is_nothing_to_do():
    counted(3, [0])
    patiently(lambda: pool._get(SLEEPERS) == len(pool._workers))


def test_workers_that_have_no_part_sleep_while_others_work():
    counted(5, [0])
    workers = len(pool._workers)

    def others_sleep():
        counted(2, [2000])
        return pool._get(SLEEPERS) >= workers - 1

    patiently(others_sleep)


def test_without_workers_the_caller_computes_everything(monkeypatch):
    def refused(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    assert counted(len(pool._workers) + 3, [100]) == [1] * (len(pool._workers) + 3)


def test_a_busy_pool_is_left_alone():
    pool._set(threads_of_kernels.BUSY, 1)
    before = pool._get(DONE), pool._get(threads_of_kernels.TICKET)
    try:
        assert counted(2, [0]) == [1, 1]
    finally:
        pool._set(threads_of_kernels.BUSY, 0)
    assert (pool._get(DONE), pool._get(threads_of_kernels.TICKET)) == before


COMPUTE = """
import numpy, sys, threading, time
import backends
from backends.cpu.compiled.pool import pool
kernels = backends.get("cpu", kernels="compiled").kernels
x, sums = numpy.ones((200, 2000)), numpy.zeros(200)
pool.start(3)
def compute():
    kernels.sum_rows(x, sums)
    return sums.sum()
compute()
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("", 0),
        ("time.sleep(0.3)", 0),  # the workers sleep
        ("sys.exit(3)", 3),
        ("1 / 0", 1),
        ("import os; os._exit(4)", 4),
        ("import atexit; atexit.register(compute)", 0),
        ("pool.end(); compute(); pool.start(9)", 0),
        ("[threading.Thread(target=lambda: [compute() for _ in iter(int, 1)], daemon=True).start() "
         "for _ in range(2)]; time.sleep(0.1)", 0),
    ],
)  # fmt: skip
def test_a_process_ends_as_without_threads(end, code):
    done = subprocess.run(
        [sys.executable, "-c", COMPUTE + end], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == code, done.stderr
    assert bool(done.stderr) == (code == 1), done.stderr


def child(method):
    """What a child process of a pool that has computed gives; it ends by itself."""
    with multiprocessing.get_context(method).Pool(2) as children:
        return children.map(sum_in_a_child, [1, 2], chunksize=1)


def sum_in_a_child(number):
    sums = np.zeros(200)
    backends.get("cpu", kernels="compiled").kernels.sum_rows(np.full((200, 2000), float(number)), sums)
    return sums.sum()


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_processes_of_multiprocessing_compute_and_end(method):
    sum_in_a_child(1)
    assert child(method) == [400000.0, 800000.0]


def test_nothing_of_numbas_threads_is_needed():
    """Neither OpenMP nor TBB nor Numba's own pool is loaded, whatever Numba's variables say."""
    code = (
        COMPUTE
        + """
layers = {f"numba.np.ufunc.{name}" for name in ("omppool", "tbbpool", "workqueue")} & sys.modules.keys()
try:
    loaded = "libgomp" in open("/proc/self/maps").read()
except OSError:
    loaded = False
print(layers, loaded, compute(), backends.get("cpu").describe()["threads"] == backends.cpu.threads.count())
"""
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"NUMBA_THREADING_LAYER": "nonsense"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stdout.split() == ["set()", "False", "400000.0", "True"], done.stderr


def test_a_launch_of_one_part_needs_no_pool():
    counts, delays = np.zeros(2, np.intp), np.zeros(1, np.intp)
    words = np.array([counts.ctypes.data, delays.ctypes.data], np.intp)
    launch(count.address(np.dtype("float32")), words.ctypes.data, 2, 1, 0)
    assert counts[0] == 1
