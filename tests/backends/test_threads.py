"""How many threads there are when nobody has asked for a number, and what is said of that."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import mkdtemp

import pytest

import backends
from backends.cpu import threads
from backends.cpu.cgroup import cpu_quota

V2 = "41 31 0:38 {root} {point} rw,relatime - cgroup2 cgroup2 rw"
V1 = "32 31 0:29 {root} {point} rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct"


@pytest.fixture
def process(tmp_path):
    """``process(cgroup, mount, files)`` -> the folder of a process with these groups and these limits."""

    def make(cgroup, mount, files, root="/", point="mounted groups"):
        here = Path(mkdtemp(dir=tmp_path))
        folder = here / point
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        written = str(folder).replace(" ", "\\040")
        other = "33 31 0:30 / /sys/fs/memory rw - cgroup cgroup rw,memory\n22 27 0:21 / /proc rw - proc - rw"
        (here / "mountinfo").write_text(f"{other}\n{mount.format(root=root, point=written)}\n")
        (here / "cgroup").write_text(f"4:memory:/elsewhere\n{cgroup}\n")
        return here

    return make


def v1(quota, group=""):
    return {f"{group}cpu.cfs_quota_us": f"{quota}\n", f"{group}cpu.cfs_period_us": "100000\n"}


class TestQuota:
    def test_of_version_2(self, process):
        assert cpu_quota(process("0::/a", V2, {"a/cpu.max": "60000 100000\n"})) == 0.6

    def test_of_version_1(self, process):
        assert cpu_quota(process("1:cpu,cpuacct:/a", V1, v1(150000, "a/"))) == 1.5

    def test_the_smallest_of_nested_groups_holds(self, process):
        files = {"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000", "a/b/c/cpu.max": "200000 100000"}
        assert cpu_quota(process("0::/a/b/c", V2, files)) == 0.5
        assert cpu_quota(process("1:cpu:/a/b", V1, v1(300000, "a/") | v1(-1, "a/b/"))) == 3

    def test_a_container_sees_its_own_group_at_the_mount_point(self, process):
        assert cpu_quota(process("1:cpu:/docker/1f", V1, v1(50000), root="/docker/1f")) == 0.5
        assert cpu_quota(process("0::/../../pod", V2, {"cpu.max": "50000 100000"})) == 0.5
        assert cpu_quota(process("0::/", V2, {"cpu.max": "50000 100000"})) == 0.5

    def test_there_is_none(self, process, tmp_path):
        assert cpu_quota(process("0::/a", V2, {"a/cpu.max": "max 100000"})) is None
        assert cpu_quota(process("1:cpu:/", V1, v1(-1))) is None
        assert cpu_quota(process("0::/a", V2, {})) is None
        assert cpu_quota(process("0::/a", V2, {"a/cpu.max": "what?"})) is None
        assert cpu_quota(process("something else", "more of it", {})) is None
        assert cpu_quota(tmp_path / "not linux") is None

    def test_of_this_process_is_a_number_or_none(self):
        assert cpu_quota() is None or cpu_quota() > 0


class TestDefault:
    @pytest.fixture(autouse=True)
    def unlimited(self, monkeypatch):
        """Eight cores, and nothing in the environment that limits threads."""
        for name in (*threads.VARIABLES, *threads.BLAS_VARIABLES):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(threads, "available_cores", lambda: 8)
        monkeypatch.setattr(threads, "cpu_quota", lambda: None)
        monkeypatch.setattr(threads, "_asked", None)
        threads._granted.cache_clear()
        yield
        threads._granted.cache_clear()

    def test_all_cores(self):
        assert threads.limit() == (8, "cores")

    @pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OMP_THREAD_LIMIT"])
    def test_fewer_if_the_environment_says_so(self, monkeypatch, name):
        monkeypatch.setenv(name, "3")
        assert threads.limit() == (3, f"{name}=3")
        assert threads.count() == 3

    @pytest.mark.parametrize(
        ("value", "count"), [("2,4", 2), (" 5 ", 5), ("99", 8), ("", 8), ("0", 8), ("all", 8), ("-1", 8)]
    )
    def test_what_openmp_would_not_take_is_ignored(self, monkeypatch, value, count):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert threads.count() == count

    @pytest.mark.parametrize(("quota", "count"), [(0.05, 1), (0.6, 1), (1.5, 2), (2.0, 2), (40.0, 8)])
    def test_a_quota_is_rounded_up(self, monkeypatch, quota, count):
        monkeypatch.setattr(threads, "cpu_quota", lambda: quota)
        assert threads.limit() == (count, f"a CPU quota of {quota:g}" if count < 8 else "cores")

    def test_the_smallest_counts(self, monkeypatch):
        monkeypatch.setattr(threads, "cpu_quota", lambda: 3.5)
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        assert threads.limit() == (2, "OMP_NUM_THREADS=2")
        monkeypatch.setattr(threads, "available_cores", lambda: 1)
        assert threads.limit() == (1, "cores")

    def test_a_number_that_is_asked_for_wins(self, monkeypatch):
        pytest.importorskip("threadpoolctl")
        monkeypatch.setattr(threads, "cpu_quota", lambda: 0.6)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        with threads.limit_threads(2):
            assert threads.limit() == (2, "asked for")
            threads.limit_blas_to_quota()
            assert all(pool["num_threads"] == 2 for pool in threads.blas_libraries())
        assert threads.count() == 1

    def test_the_linear_algebra_library_learns_of_a_quota(self, monkeypatch):
        threadpoolctl = pytest.importorskip("threadpoolctl")
        with threadpoolctl.threadpool_limits(2, user_api="blas"):
            threads.limit_blas_to_quota()
            assert {pool["num_threads"] for pool in threads.blas_libraries()} <= {2}
            monkeypatch.setattr(threads, "cpu_quota", lambda: 0.6)
            threads.limit_blas_to_quota()
            assert {pool["num_threads"] for pool in threads.blas_libraries()} <= {1}

    def test_a_device_tells_the_number_and_the_reason(self, monkeypatch):
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        described = backends.get("cpu").describe()
        assert (described["threads"], described["thread_limit"]) == (1, "OMP_NUM_THREADS=1")

    def test_and_what_limits_the_linear_algebra_library_alone(self, monkeypatch):
        threadpoolctl = pytest.importorskip("threadpoolctl")
        if not threads.blas_libraries():
            pytest.skip("threadpoolctl does not know this linear algebra library")
        with threadpoolctl.threadpool_limits(1, user_api="blas"):
            monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
            described = backends.get("cpu", kernels="portable").describe()
        assert (described["threads"], described["thread_limit"]) == (1, "OPENBLAS_NUM_THREADS=1")


@pytest.mark.skipif(threads.available_cores() < 2, reason="there is one core")
def test_a_number_that_is_asked_for_is_used_even_above_the_environments():
    pytest.importorskip("numba")
    code = """
import numpy, backends, threading
from backends.cpu.compiled import jit
device = backends.get("cpu", kernels="compiled", threads=2)
print(jit.thread_count(jit.SMALL), end=" ")
out = numpy.zeros((200, 2000))
device.kernels.sum_rows(out, numpy.zeros(200))
print(sum(thread.name.startswith("kernels") for thread in threading.enumerate()) + 1)
"""
    alone = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | alone, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["2", "2"]
