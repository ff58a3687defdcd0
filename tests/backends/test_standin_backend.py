"""The backend and the kernels of the stand-in device."""

import numpy as np
import pytest
from helpers.standin import StandInBackend, xp

import backends
from backends import Window

PASSES = {
    "conv2d": (lambda k, t, w: k.conv2d(t["x"], t["weight"], t["y"], w, groups=2), "y"),
    "conv2d_grad_weight": (
        lambda k, t, w: k.conv2d_grad_weight(t["x"], t["dy"], t["dweight"], w, groups=2),
        "dweight",
    ),
    "conv2d_grad_input": (
        lambda k, t, w: k.conv2d_grad_input(t["dy"], t["weight"], t["dx"], w, groups=2),
        "dx",
    ),
}
POOLS = {
    "max_pool2d": (lambda k, t, w: k.max_pool2d(t["x"], t["y"], t["winner"], w), "y"),
    "max_pool2d, winner": (lambda k, t, w: k.max_pool2d(t["x"], t["y"], t["winner"], w), "winner"),
    "max_pool2d, no winner": (lambda k, t, w: k.max_pool2d(t["x"], t["y"], None, w), "y"),
    "max_pool2d_grad": (
        lambda k, t, w: (
            k.max_pool2d(t["x"], t["y"], t["winner"], w),
            k.max_pool2d_grad(t["dy"], t["winner"], t["dx"], w),
        ),
        "dx",
    ),
}


class TestBackend:
    def test_is_a_backend(self, device, a):
        assert isinstance(device, backends.Backend)
        assert device.name == "standin:0"
        assert device.owns(a)
        assert not device.owns(np.ones(3))
        assert device.describe()["kernels"] == "portable"
        with device.active(), device.timer() as timer:
            pass
        assert timer.seconds >= 0

    def test_zeros_start_on_a_256_byte_boundary(self, device):
        for size in (1, 3, 1000):
            array = device.zeros(size, np.float32)
            assert array.data.ptr % 256 == 0
            assert array.base is None
            np.testing.assert_array_equal(device.to_host(array), np.zeros(size, np.float32))

    def test_matmul(self, device):
        x, y = np.arange(6.0).reshape(2, 3), np.arange(8.0).reshape(2, 4)
        dx, dy, out = device.asarray(x), device.asarray(y), device.asarray(np.zeros((3, 8)))
        device.matmul(dx.T, dy, out=out[:, 2:6])
        device.matmul(dx.T, dy, out=out[:, 2:6], accumulate=True)
        np.testing.assert_array_equal(device.to_host(out)[:, 2:6], 2 * x.T @ y)
        np.testing.assert_array_equal(device.to_host(out)[:, [0, 1, 6, 7]], 0)

    def test_matmul_refuses_what_cublas_cannot_take(self, device):
        square = xp.ones((4, 4))
        out = xp.zeros((4, 4))
        for a, b, into, error in (
            (square.astype(np.float32), square, out, TypeError),
            (square, square, out.astype(np.float32), TypeError),
            (square.astype(np.int32), square.astype(np.int32), out.astype(np.int32), TypeError),
            (square, xp.ones((1, 4, 4)), out, ValueError),
            (square, square[:, :2], out, ValueError),
            (xp.ones((8, 8))[::2, ::2], square, out, ValueError),
            (square[::-1], square, out, ValueError),
            (square, square, square, ValueError),
        ):
            with pytest.raises(error):
                device.matmul(a, b, out=into)

    def test_take_fills_out_with_rows(self, device):
        x = device.asarray(np.arange(6.0).reshape(3, 2))
        rows = device.asarray(np.array([2, 0, 3]))
        out = xp.empty((3, 2))
        assert device.take(x, rows, out=out) is out
        np.testing.assert_array_equal(device.to_host(out), [[4, 5], [0, 1], [0, 1]])
        with pytest.raises(TypeError, match="dtype"):
            device.take(x, rows, out=xp.empty((3, 2), dtype=xp.float32))

    @pytest.mark.parametrize("name", ["correlate", "convolve"])
    def test_signal_asks_for_the_method_beyond_one_dimension(self, device, name):
        x = xp.ones((3, 3))
        with pytest.raises(NotImplementedError, match="method"):
            getattr(device.signal, name)(x, x, mode="valid")
        for method in ("direct", "fft"):
            result = getattr(device.signal, name)(x, x, mode="valid", method=method)
            np.testing.assert_allclose(device.to_host(result), [[9]])

    def test_signal_takes_device_arrays_that_run_forwards(self, device):
        x = xp.ones((3, 3))
        with pytest.raises(TypeError, match="Unsupported type"):
            device.signal.correlate(x, np.ones((3, 3)), method="direct")
        with pytest.raises(ValueError, match="backwards"):
            device.signal.correlate(x, x[::-1], method="direct")

    def test_scratch_is_shared(self, device):
        first = device.workspace(100)
        device.reset_counters()
        assert device.workspace(50).base is first.base
        assert device.allocated_bytes == 0


class TestKernels:
    """Both kernel sets run on the stand-in and give what they give on the CPU."""

    N, C, O, GROUPS = 3, 4, 6, 2
    H, W = 11, 9
    CONVOLUTION = Window(size=(3, 2), stride=(2, 1), padding=(2, 1), dilation=(2, 3))
    POOLING = Window(size=(3, 2), stride=(2, 2), padding=(1, 1), dilation=(1, 2))

    def tensors(self, window, channels_out):
        generator = np.random.default_rng(0)
        x = generator.standard_normal((self.C, self.H, self.W, self.N))
        dy = generator.standard_normal((channels_out, *window.output_size(self.H, self.W), self.N))
        weight = generator.standard_normal((self.O, self.C // self.GROUPS, *window.size))
        return {
            "x": x,
            "dy": dy,
            "weight": weight,
            "y": np.full_like(dy, np.nan),
            "dx": np.full_like(x, np.nan),
            "dweight": np.full_like(weight, np.nan),
            "winner": np.full(dy.shape, 255, np.uint8),
        }

    def both(self, kernels, run, window, channels_out, result):
        """What the pass gives on the CPU and on the stand-in, and the stand-in after a steady pass."""
        host = self.tensors(window, channels_out)
        # columns of a few output rows at a time, so that products are accumulated
        stand_in = StandInBackend(kernels, column_bytes=4096)
        on_device = {name: stand_in.asarray(tensor) for name, tensor in host.items()}
        run(stand_in.kernels, on_device, window)
        stand_in.reset_counters()
        run(stand_in.kernels, on_device, window)
        assert (stand_in.crossings, stand_in.synchronizations) == (0, 0)
        run(backends.get("cpu", kernels).kernels, host, window)
        return host[result], stand_in.to_host(on_device[result]), stand_in

    @pytest.mark.parametrize("kernels", ["portable", "signal"])
    @pytest.mark.parametrize(("run", "result"), PASSES.values(), ids=PASSES.keys())
    def test_convolution(self, kernels, run, result):
        expected, got, stand_in = self.both(kernels, run, self.CONVOLUTION, self.O, result)
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)
        if kernels == "portable":
            assert stand_in.allocated_bytes == 0

    @pytest.mark.parametrize(("run", "result"), POOLS.values(), ids=POOLS.keys())
    def test_pooling(self, run, result):
        expected, got, stand_in = self.both("portable", run, self.POOLING, self.C, result)
        np.testing.assert_array_equal(got, expected)
        assert stand_in.allocated_bytes == 0

    @pytest.mark.parametrize("dtype", [np.uint8, np.float32])
    def test_gathering_a_batch(self, device, dtype):
        images = np.arange(5 * 2 * 3 * 3).reshape(5, 2, 3, 3).astype(dtype)
        chosen = np.array([4, 0, 4])
        expected = np.empty((2, 3, 3, 3), np.float32)
        backends.get("cpu", "portable").kernels.gather_batch(images, chosen, expected)
        out = xp.empty((2, 3, 3, 3), dtype=xp.float32)
        device.kernels.gather_batch(device.asarray(images), device.asarray(chosen), out)
        np.testing.assert_array_equal(device.to_host(out), expected)
