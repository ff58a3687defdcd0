"""Arrays of the stand-in device: what is refused, what is counted, and that the numbers are NumPy's."""

import copy
import math
import pickle

import numpy as np
import pytest
from helpers.standin import Array, xp


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

    def test_only_host_data_crosses_and_only_device_arrays_go_off(self, device, a):
        assert device.asarray(a) is a
        assert device.crossings == 0
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
