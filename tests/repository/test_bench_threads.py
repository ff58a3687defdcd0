"""scripts/benchmarks/bench_threads.py: it measures what it says."""

import sys

import pytest
from helpers import ROOT

pytest.importorskip("numba")
pytest.importorskip("threadpoolctl")

from backends.cpu import threads

sys.path.append(str(ROOT / "scripts" / "benchmarks"))

import bench_threads


def test_it_measures_launches_and_steps(monkeypatch, capsys):
    monkeypatch.setattr(bench_threads, "STEPS", 4)
    monkeypatch.setattr(bench_threads, "show_first_steps", lambda: None)
    monkeypatch.setattr("sys.argv", ["bench_threads.py", "--rounds", "1"])
    with threads.limit_threads(threads.count()):
        bench_threads.main()
    lines = capsys.readouterr().out.splitlines()
    cores = threads.available_cores()
    for beginning in ("launch, 1 parts", "step, one thread", f"step, {cores} threads, one core taken"):
        assert any(line.startswith(beginning) for line in lines)


def test_the_process_with_the_first_step_takes_one(monkeypatch):
    taken = []
    monkeypatch.setattr(bench_threads, "train", lambda network, batches: taken.append(batches))
    monkeypatch.setattr("sys.argv", ["bench_threads.py", bench_threads.FIRST_STEP])
    bench_threads.main()
    assert taken == [1]
