"""The CUDA backend keeps the contract of a device, on a fake CuPy."""

import numpy as np
import pytest
from helpers.fake_cupy import FakeDevice


class TestContract:
    """What can be seen of the contract without a GPU: crossings, devices, conversions."""

    def test_probing_is_no_crossing(self, gpu):
        assert gpu.crossings == 0

    def test_host_data_crosses_and_device_arrays_do_not(self, gpu):
        x = gpu.asarray([[1.5, 2.5]], dtype="float32")
        assert (x.dtype, gpu.owns(x), gpu.crossings) == (np.float32, True, 1)
        again = gpu.asarray(x, dtype="float64")
        assert (again.dtype, again.tolist(), gpu.crossings) == (np.float64, [[1.5, 2.5]], 1)
        gpu.asarray(x, out=again)
        assert gpu.crossings == 1
        host = gpu.to_host(x)
        assert (type(host), host.tolist(), gpu.crossings) == (np.ndarray, [[1.5, 2.5]], 2)
        host[...] = 0
        assert x.tolist() == [[1.5, 2.5]]

    @pytest.mark.parametrize("view", [np.s_[:, :], np.s_[::2, 1:3]])
    def test_data_is_cast_and_spread_into_out(self, gpu, view):
        room = gpu.xp.zeros((4, 4), "float32")
        out = room[view]
        rows = np.arange(out.size, dtype="int64").reshape(out.shape)
        assert gpu.asarray(rows, out=out) is out
        assert out.tolist() == rows.tolist()
        gpu.asarray(7, out=out)
        assert (out == 7).all()
        assert (room == 7).sum() == out.size
        assert gpu.crossings == 2

    def test_everything_is_made_on_the_backends_own_device(self, gpu):
        made = [
            gpu.zeros(3, "float32"),
            gpu.asarray([1]),
            gpu.workspace(8),
            gpu.asarray(np.ones(2), dtype="int8"),
        ]
        assert [array.device.id for array in made] == [1, 1, 1, 1]
        assert all(map(gpu.owns, made))
        assert not gpu.owns(gpu.xp.zeros(3))  # outside active(), on cuda:0
        assert not gpu.owns(np.zeros(3))
        assert not gpu.owns("cuda:1")

    def test_active_may_be_entered_again(self, gpu):
        with gpu.active():
            with gpu.active():
                gpu.zeros(1, "uint8")
            assert FakeDevice.current == 1
        assert FakeDevice.current == 0

    def test_take_gives_rows(self, gpu):
        rows = gpu.asarray(np.arange(6).reshape(3, 2))
        out = gpu.xp.zeros((2, 2), rows.dtype)
        assert gpu.take(rows, gpu.asarray([2, 0]), out) is out
        assert out.tolist() == [[4, 5], [0, 1]]

    def test_synchronize_waits_for_the_device(self, gpu):
        before = FakeDevice.synchronized
        gpu.synchronize()
        assert FakeDevice.synchronized == before + 1

    def test_timer_waits_for_the_end_and_gives_seconds(self, gpu):
        log = []

        class Event:
            def record(self):
                log.append(("record", FakeDevice.current))

            def synchronize(self):
                log.append("synchronize")

        gpu.xp.cuda.Event = Event
        gpu.xp.cuda.get_elapsed_time = lambda start, end: 0.0 if start is end else 1500.0
        with gpu.timer() as timer:
            assert timer.seconds == 0
            log.append("work")
        assert timer.seconds == 1.5
        assert log == [("record", 1), "synchronize", "work", ("record", 1), "synchronize"]

    def test_memory_and_description(self, gpu):
        assert gpu.memory() == {"used": 30, "free": 60, "total": 100}
        assert gpu.describe() == {
            "device": "cuda:1",
            "gpu": "A GPU",
            "compute_capability": "9.0",
            "driver": "CUDA 13.1",
            "runtime": "CUDA 12.9",
            "cublas": "12.9.2",
            "tf32": False,
            "kernels": gpu.kernels.name,
            "cupy": "14.2.0",
            "numpy": np.__version__,
        }
