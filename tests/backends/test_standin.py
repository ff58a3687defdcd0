import copy
import inspect
import math
import pickle

import numpy as np
import pytest
from helpers import standin
from helpers.standin import Array, StandInBackend, xp

import backends
from backends import Window


@pytest.fixture
def device():
    backend = StandInBackend()
    backend.reset_counters()
    return backend


@pytest.fixture
def a(device):
    array = device.asarray(np.arange(3, dtype=np.float32))
    device.reset_counters()
    return array


@pytest.fixture
def cupy():
    return pytest.importorskip("cupy")


def assign(array, index, value):
    array[index] = value


IMPLICIT = {
    "asarray": lambda a: np.asarray(a),
    "array of arrays": lambda a: np.array([a, a]),
    "numpy function": lambda a: np.sum(a),
    "numpy shape": lambda a: np.shape(a),
    "numpy ufunc": lambda a: np.add(a, a),
    "numpy ufunc, mixed": lambda a: np.add(np.ones(3), a),
    "numpy scalar of it": lambda a: np.float32(a),
    "index of a numpy array": lambda a: np.ones(3)[a],
    "numpy on the right": lambda a: a + np.ones(3),
    "numpy on the left": lambda a: np.ones(3) + a,
    "numpy in place": lambda a: a.__iadd__(np.ones(3)),
    "numpy compared": lambda a: np.ones(3) == a,
    "numpy, zero dimensions": lambda a: a * np.array(2.0),
    "list": lambda a: xp.add(a, [1, 2, 3]),
    "None": lambda a: a == None,  # noqa: E711
    "numpy in xp": lambda a: xp.add(a, np.ones(3)),
    "numpy as out": lambda a: xp.add(a, a, out=np.ones(3)),
    "numpy to clip by": lambda a: xp.clip(a, np.zeros(3), 1),
    "numpy to choose from": lambda a: xp.where(a > 0, np.ones(3), 0),
    "numpy as a choice": lambda a: xp.where(np.ones(3, bool), a, 0),
    "numpy reduced by xp": lambda a: xp.sum(np.ones(3)),
    "numpy stacked": lambda a: xp.stack([a, np.ones(3)]),
    "numpy as a mask": lambda a: xp.copyto(a, 0, where=np.ones(3, bool)),
    "numpy copied": lambda a: xp.copyto(a, np.ones(3)),
    "numpy to fill with": lambda a: a.fill(np.array(1.0)),
    "numpy index": lambda a: a[np.array([0])],
    "list index": lambda a: a[[0]],
    "boolean index": lambda a: a[True],
    "boolean mask": lambda a: a[a > 1],
    "assignment by a mask": lambda a: assign(a, a > 1, 0),
    "assignment of numpy": lambda a: assign(a, 0, np.array(1.0)),
    "assignment of a list": lambda a: assign(a, ..., [1, 2, 3]),
    "length from the device": lambda a: range(a.sum()),
    "slice from the device": lambda a: a[: xp.argmax(a)],
    "transfer by xp": lambda a: xp.asarray(np.ones(3)),
    "transfer of a list by xp": lambda a: xp.asarray([1.0]),
    "transfer of a number by xp": lambda a: xp.asarray(1.0),
    "pickle": lambda a: pickle.dumps(a),
}

INDICES = {
    "element": (1, 2),
    "row": 1,
    "last": -1,
    "steps": (slice(None, None, -1), slice(0, None, 2)),
    "new axis": (..., None, 0),
    "ellipsis": ...,
    "empty": slice(0, 0),
}

WAITS = {
    "float": lambda a: float(a.sum()),
    "int": lambda a: int(a[0]),
    "bool": lambda a: bool(a[0] > 0),
    "if": lambda a: 1 if a[0] == 0 else 2,
    "math": lambda a: math.sqrt(a[2]),
    "item": lambda a: a[0].item(),
    "tolist": lambda a: a.tolist(),
    "get": lambda a: a.get(),
    "max of Python": lambda a: max(a[0], a[1]),
    "str": lambda a: str(a),
    "format": lambda a: f"{a[0]:.2f}",
}

ALLOCATIONS = {
    "sum of two": (lambda a: a + a, 12),
    "comparison": (lambda a: a > 1, 3),
    "two of them": (lambda a: (a + a) * a, 24),
    "copy": (lambda a: a.copy(), 12),
    "reduction": (lambda a: a.sum(), 4),
    "gather": (lambda a: a[xp.arange(2)], 8 + 16),
    "fresh": (lambda a: xp.zeros((5, 2), dtype=xp.uint8), 10),
    "view": (lambda a: a[1:].reshape(2, 1).T, 0),
    "with out": (lambda a: xp.multiply(a, 2, out=a), 0),
    "in place": (lambda a: a.__isub__(1), 0),
    "filled": (lambda a: assign(a, slice(1), 0), 0),
    "element in place": (lambda a: assign(a, 0, a[0].__iadd__(1)), 0),
    "hidden copy of an operand that overlaps out": (lambda a: xp.add(a[1:], 1, out=a[:2]), 8),
    "hidden copy of a view of out": (lambda a: xp.add(a[...], 1, out=a), 12),
    "hidden copy of an assignment": (lambda a: assign(a, slice(2), a[1:]), 8),
}

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

VIEWS = {
    "rows": lambda a: a[1:3],
    "element": lambda a: a[0, 0],
    "view of a view": lambda a: a[1:][0][2:],
    "backwards": lambda a: a[::-1, None],
    "transposed": lambda a: a.T,
    "reshaped": lambda a: a[1:].reshape(2, -1),
    "bytes": lambda a: a[0].view(np.uint8),
    "nothing": lambda a: a[:0].view(np.uint8),
    "ravelled": lambda a: a.ravel(),
    "itself": lambda a: a[...],
    "iterated": lambda a: list(a)[2],
}


class TestWhatIsRefused:
    @pytest.mark.parametrize("use", IMPLICIT.values(), ids=IMPLICIT.keys())
    def test_nothing_converts_by_accident(self, a, use):
        with pytest.raises(TypeError):
            use(a)

    def test_a_numpy_array_takes_no_device_array(self, a):
        with pytest.raises((TypeError, ValueError)):
            np.ones(3)[:] = a

    def test_the_error_names_the_way_out(self, a):
        with pytest.raises(TypeError, match=r"Implicit conversion to a NumPy array is not allowed.*to_host"):
            np.asarray(a)

    @pytest.mark.parametrize("name", ["einsum", "dot", "matmul", "tensordot", "random", "linalg", "errstate"])
    def test_xp_has_what_is_on_its_list(self, name):
        with pytest.raises(AttributeError, match=f"{name} is not in CuPy, or not on the stand-in's list"):
            getattr(xp, name)

    def test_submodules_have_what_is_on_their_list(self):
        with pytest.raises(AttributeError, match="sliding_window_view is not in CuPy, or not"):
            xp.lib.stride_tricks.sliding_window_view  # noqa: B018

    def test_products_go_through_the_backend(self, a):
        for product in (lambda: a @ a, lambda: a @ np.ones(3), lambda: np.ones(3) @ a):
            with pytest.raises(AssertionError, match=r"backend\.matmul"):
                product()

    @pytest.mark.parametrize("keyword", ["where", "order", "initial"])
    def test_keywords_that_cupy_lacks(self, a, keyword):
        with pytest.raises(TypeError, match=keyword):
            xp.add(a, a, **{keyword: None})
        with pytest.raises(TypeError, match=keyword):
            xp.sum(a, **{keyword: None})

    def test_take_has_no_mode(self, a):
        with pytest.raises(TypeError, match="mode"):
            xp.take(a, 0, mode="clip")

    def test_out_has_the_shape_of_the_result(self, a):
        with pytest.raises(ValueError, match="mismatched"):
            xp.add(a, 1, out=xp.zeros((2, 3), dtype=xp.float32))

    def test_out_is_not_cast_unsafely(self, a):
        with pytest.raises(TypeError, match="cast"):
            xp.add(a, 1, out=xp.zeros(3, dtype=xp.int32))


class TestNumbersAreTheSameAsNumpys:
    def test_scalars_of_python_and_numpy_are_operands(self, device, a):
        for result in (a * 2, 2 * a, a * np.float32(2), np.float32(2) * a):
            assert result.dtype == np.float32
            np.testing.assert_array_equal(device.to_host(result), [0, 2, 4])

    def test_a_float64_scalar_widens(self, a):
        assert (a * np.float64(2)).dtype == np.float64
        assert (np.float64(2) * a).dtype == np.float64
        assert (a * a.astype(np.float64).sum()).dtype == np.float64

    def test_operators(self, device):
        x, y = np.array([7, 2, 5]), np.array([2, 3, 1])
        dx, dy = device.asarray(x), device.asarray(y)
        for operation in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor"):
            for name in (f"__{operation}__", f"__r{operation}__"):
                expected, got = getattr(x, name)(y), getattr(dx, name)(dy)
                np.testing.assert_array_equal(device.to_host(got), expected, err_msg=name)
        for name in ("eq", "ne", "lt", "le", "gt", "ge"):
            expected, got = getattr(x, f"__{name}__")(y), getattr(dx, f"__{name}__")(dy)
            np.testing.assert_array_equal(device.to_host(got), expected, err_msg=name)
        for name in ("neg", "abs", "invert"):
            np.testing.assert_array_equal(
                device.to_host(getattr(dx, f"__{name}__")()), getattr(x, f"__{name}__")(), err_msg=name
            )
        dx += dy
        np.testing.assert_array_equal(device.to_host(dx), x + y)

    @pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "amax", "amin", "all", "any", "argmax"])
    @pytest.mark.parametrize("keepdims", [False, True])
    def test_reductions(self, device, name, keepdims):
        x = np.array([[3.0, 0.0, 5.0], [4.0, 4.0, 1.0]])
        dx = device.asarray(x)
        expected = np.asarray(getattr(np, name)(x, axis=1, keepdims=keepdims))
        out = device.asarray(np.zeros_like(expected))
        assert getattr(xp, name)(dx, axis=1, out=out, keepdims=keepdims) is out
        np.testing.assert_array_equal(device.to_host(out), expected)
        np.testing.assert_array_equal(
            device.to_host(getattr(xp, name)(dx, axis=1, keepdims=keepdims)), expected
        )

    @pytest.mark.parametrize("index", INDICES.values(), ids=INDICES.keys())
    def test_basic_indices_give_views(self, device, index):
        x = np.arange(12.0).reshape(3, 4)
        dx = device.asarray(x)
        device.reset_counters()
        assert dx[index].base is dx
        assert device.allocated_bytes == 0
        np.testing.assert_array_equal(device.to_host(dx[index]), x[index])
        dx[index] = 7
        x[index] = 7
        np.testing.assert_array_equal(device.to_host(dx), x)

    def test_indices_on_the_device_gather(self, device):
        x = np.arange(12.0).reshape(3, 4)
        rows = np.array([2, 0])
        dx, d_rows = device.asarray(x), device.asarray(rows)
        np.testing.assert_array_equal(device.to_host(dx[d_rows]), x[rows])
        np.testing.assert_array_equal(device.to_host(dx[..., d_rows]), x[..., rows])
        np.testing.assert_array_equal(device.to_host(dx[d_rows, d_rows]), x[rows, rows])
        assert dx[d_rows[0]].base is None
        dx[d_rows] = device.asarray(np.ones(4))
        x[rows] = 1
        np.testing.assert_array_equal(device.to_host(dx), x)

    def test_indices_out_of_range_wrap_silently(self, device):
        x, far = device.asarray(np.arange(3.0)), device.asarray(np.array([3, -1, 7]))
        for taken in (x[far], xp.take(x, far), xp.take_along_axis(x, far, 0)):
            np.testing.assert_array_equal(device.to_host(taken), [0, 2, 1])

    def test_plain_indices_out_of_range_do_not(self, a):
        with pytest.raises(IndexError):
            a[3]

    @pytest.mark.parametrize("bounds", [(1, 2), (None, 1), (1, None)])
    def test_clip(self, device, a, bounds):
        np.testing.assert_array_equal(device.to_host(xp.clip(a, *bounds)), np.clip(np.arange(3.0), *bounds))

    def test_choosing_and_joining(self, device, a):
        b = a + 10
        np.testing.assert_array_equal(device.to_host(xp.where(a > 1, a, -1)), [-1, -1, 2])
        np.testing.assert_array_equal(device.to_host(xp.concatenate([a, b])), [0, 1, 2, 10, 11, 12])
        np.testing.assert_array_equal(device.to_host(xp.stack([a, b], axis=1))[:, 1], [10, 11, 12])
        xp.copyto(b, a, where=a > 1)
        np.testing.assert_array_equal(device.to_host(b), [10, 11, 2])


class TestArraysAreLikeCupys:
    def test_reductions_and_indices_give_arrays_without_dimensions(self, a):
        for result in (a.sum(), a.max(), a.argmax(), a.mean(), a[0], xp.any(a), a[0] + a[1]):
            assert isinstance(result, Array)
            assert result.shape == ()

    def test_every_view_has_the_owner_as_base(self, device):
        owner = device.asarray(np.arange(24, dtype=np.float32).reshape(2, 3, 4))
        views = [
            owner[0],
            owner[0][1:][0, 2],
            owner.T,
            owner.reshape(6, 4)[2:].reshape(-1),
            owner.view(np.uint8),
            owner[:0].view(np.uint8),
            owner.ravel(),
            *owner[1],
            xp.moveaxis(owner, 0, 1),
            xp.transpose(owner, (2, 0, 1)),
            xp.broadcast_to(owner, (5, 2, 3, 4)),
            xp.lib.stride_tricks.as_strided(owner[1], (2, 2), (16, 4))[0],
        ]
        assert owner.base is None
        assert owner.flags.owndata
        assert [view.base is owner for view in views] == [True] * len(views)
        assert not any(view.flags.owndata for view in views)

    def test_copies_have_none(self, device):
        owner = device.asarray(np.arange(6.0).reshape(2, 3))
        copies = [owner.copy(), owner.T.ravel(), owner + 0, owner.astype(np.float32), copy.deepcopy(owner[0])]
        assert [array.base for array in copies] == [None] * len(copies)

    def test_what_needs_no_work_gives_the_array_itself(self, a):
        assert xp.asarray(a) is a
        assert xp.ascontiguousarray(a) is a
        assert a.astype(np.float32, copy=False) is a

    def test_a_view_writes_through(self, device):
        owner = device.asarray(np.zeros((2, 3), dtype=np.float32))
        element = owner[1, 2]
        element += 5
        owner.T[0, 0] = 3
        np.testing.assert_array_equal(device.to_host(owner), [[3, 0, 0], [0, 0, 5]])

    def test_addresses(self, device):
        owner = device.asarray(np.zeros((2, 3), dtype=np.float32))
        assert owner[1].data.ptr == owner.data.ptr + owner.strides[0]

    def test_no_iteration_over_zero_dimensions(self, a):
        with pytest.raises(TypeError, match="0-d"):
            iter(a.sum())

    def test_arrays_cannot_be_hashed(self, a):
        with pytest.raises(TypeError, match="unhashable"):
            hash(a)

    def test_what_nobody_wrote_does_not_look_like_zeros(self, device):
        for array in (xp.empty(3, dtype=xp.float32), xp.empty_like(xp.zeros((2, 2)))):
            assert np.isnan(device.to_host(array)).all()


class TestCounters:
    @pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS.keys())
    def test_conversions_that_wait_for_the_device_are_counted(self, device, a, wait):
        wait(a)
        assert device.synchronizations == 1

    def test_work_that_does_not_wait_is_not(self, device, a):
        xp.add(a[1:].reshape(2, 1), 1.0).sum(axis=0).copy().fill(0)
        repr(a)
        assert device.synchronizations == 0

    def test_a_wait_that_is_asked_for_counts(self, device):
        device.synchronize()
        assert device.synchronizations == 1

    def test_crossings(self, device):
        array = device.asarray([1.0, 2.0], dtype=np.float32)
        device.asarray(np.array([3, 4]), out=array)
        host = device.to_host(array)
        assert device.crossings == 3
        assert device.synchronizations == 0
        assert host.dtype == np.float32
        np.testing.assert_array_equal(host, [3, 4])

    def test_crossings_copy(self, device):
        host = np.zeros(3)
        array = device.asarray(host)
        host += 1
        device.to_host(array)[...] = 2
        np.testing.assert_array_equal(device.to_host(array), 0)

    def test_only_host_data_comes_on_and_only_device_arrays_go_off(self, device, a):
        with pytest.raises(TypeError, match="already"):
            device.asarray(a)
        with pytest.raises(TypeError, match="Unsupported type"):
            device.to_host(np.ones(3))

    def test_host_data_has_the_shape_of_out(self, device, a):
        with pytest.raises(ValueError, match="Shape mismatch"):
            device.asarray(1.0, out=a)

    @pytest.mark.parametrize(("use", "nbytes"), ALLOCATIONS.values(), ids=ALLOCATIONS.keys())
    def test_allocations(self, device, a, use, nbytes):
        use(a)
        assert device.allocated_bytes == nbytes

    def test_the_largest_allocation(self, device, a):
        xp.zeros(100, dtype=xp.uint8)
        xp.zeros(10, dtype=xp.uint8)
        assert device.largest_allocation == 100
        device.reset_counters()
        assert (device.largest_allocation, device.allocated_bytes, device.crossings) == (0, 0, 0)

    def test_memory_in_use_ends_with_the_last_view(self, device):
        before = device.memory()["used"]
        view = xp.zeros(1000, dtype=xp.uint8)[:10]
        assert device.memory()["used"] == before + 1000
        del view
        assert device.memory()["used"] == before


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


class TestAgainstCupy:
    """CuPy itself, where it is installed; none of these needs a GPU."""

    def listed(self, module, path=""):
        for name, value in vars(module).items():
            if isinstance(value, standin.Listed):
                yield from self.listed(value, f"{path}{name}.")
            elif not name.startswith("_"):
                yield path + name, value

    def find(self, cupy, path):
        for name in path.split("."):
            cupy = getattr(cupy, name)
        return cupy

    def test_every_name_on_the_list_is_in_cupy(self, cupy):
        names = [name for name, _ in self.listed(xp)]
        assert len(names) > 80
        missing = []
        for name in names:
            try:
                self.find(cupy, name)
            except AttributeError:
                missing.append(name)
        assert missing == []

    def test_cupy_takes_every_keyword(self, cupy):
        functions = [(n, f) for n, f in self.listed(xp) if inspect.isfunction(f) and n not in standin.UFUNCS]
        assert len(functions) > 25
        for name, function in functions:
            theirs = list(inspect.signature(self.find(cupy, name)).parameters)
            for position, parameter in enumerate(inspect.signature(function).parameters.values()):
                assert parameter.name in theirs, f"{name}({parameter.name}=)"
                if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
                    assert theirs[position] == parameter.name, f"{name}, argument {position}"

    def test_every_ufunc_is_one_of_cupys_with_as_many_operands(self, cupy):
        for name in standin.UFUNCS:
            assert isinstance(getattr(cupy, name), cupy.ufunc), name
            assert getattr(cupy, name).nin == getattr(np, name).nin, name

    def test_types_and_constants_are_the_same(self, cupy):
        for name in ("dtype", "float32", "float64", "int32", "int64", "uint8", "uint32", "bool_", "newaxis"):
            assert getattr(xp, name) is getattr(cupy, name), name
        assert (xp.inf, xp.pi) == (cupy.inf, cupy.pi)

    def test_every_attribute_of_an_array_is_one_of_cupys(self, cupy):
        names = [name for name in vars(Array) if not name.startswith("_")]
        assert len(names) > 25
        assert [name for name in names if not hasattr(cupy.ndarray, name)] == []

    def test_what_an_array_lacks_cupys_lacks_too(self, cupy):
        for name in ("__index__", "__array_interface__", "__array_struct__", "__buffer__"):
            assert not hasattr(cupy.ndarray, name)
            assert not hasattr(Array, name)

    @pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
    def test_views(self, cupy, device, view):
        host = np.zeros((4, 8), dtype=np.float32)  # lent to CuPy: making views touches no memory
        memory = cupy.cuda.UnownedMemory(host.ctypes.data, host.nbytes, host, 0)
        theirs = cupy.ndarray(host.shape, host.dtype, cupy.cuda.MemoryPointer(memory, 0))
        ours = device.asarray(host)
        their_view, our_view = view(theirs), view(ours)
        assert our_view.shape == their_view.shape
        assert our_view.dtype == their_view.dtype
        assert our_view.strides == their_view.strides
        assert our_view.data.ptr - ours.data.ptr == their_view.data.ptr - theirs.data.ptr
        assert our_view.flags.c_contiguous == their_view.flags.c_contiguous
        assert our_view.flags.owndata == their_view.flags.owndata
        assert (our_view.base is ours) == (their_view.base is theirs)
