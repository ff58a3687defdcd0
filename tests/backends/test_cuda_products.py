"""The CUDA backend's products read memory rightly, however a matrix lies in it, on a fake cuBLAS."""

import itertools

import numpy as np
import pytest
from helpers.fake_cupy import FakeDevice, fake_cupy, gemm_ex

import backends
from backends.cuda.backend import CudaBackend, blas_layout

# How a (rows, columns) matrix may lie in a larger one: (shape of that, the way to the matrix).
TAKEN_AS_THEY_ARE = {
    "whole": lambda m, n: ((m, n), lambda x: x),
    "transposed": lambda m, n: ((n, m), lambda x: x.T),
    "rows": lambda m, n: ((m + 3, n), lambda x: x[2:-1]),
    "columns": lambda m, n: ((m, n + 3), lambda x: x[:, 1:-2]),
    "transposed columns": lambda m, n: ((n, m + 2), lambda x: x[:, 2:].T),
    "every second row": lambda m, n: ((2 * m, n), lambda x: x[::2]),
}
COPIED = {
    "every second column": lambda m, n: ((m, 2 * n), lambda x: x[:, ::2]),
    "rows backwards": lambda m, n: ((m, n), lambda x: x[::-1]),
}


class TestMatmul:
    @pytest.fixture
    def matrices(self, gpu):
        """``matrices(way, shape, dtype)`` -> (the larger matrix, the view in it), small whole numbers."""
        rng = np.random.default_rng(0)

        def make(way, shape, dtype):
            larger, view = way(*shape)
            if dtype == "bfloat16":
                pytest.importorskip("ml_dtypes")
            whole = gpu.asarray(rng.integers(-4, 5, larger), dtype=dtype)
            assert view(whole).shape == shape
            return whole, view(whole)

        return make

    @pytest.fixture
    def gemms(self, gpu, monkeypatch):
        """The calls of cuBLAS; the product that copies is not to be used."""
        calls = []

        def gemm(*args):
            calls.append(args)
            gemm_ex(*args)

        gpu.xp.cuda.cublas.gemmEx = gemm
        return calls

    @pytest.mark.parametrize(
        ("dtype", "out_dtype"),
        [
            ("float32", "float32"),
            ("float64", "float64"),
            ("float16", "float16"),
            ("float16", "float32"),
            ("bfloat16", "bfloat16"),
            ("bfloat16", "float32"),
        ],
    )
    @pytest.mark.parametrize("accumulate", [False, True])
    def test_is_one_gemm_for_every_view_that_blas_can_read(
        self, gpu, matrices, gemms, dtype, out_dtype, accumulate
    ):
        ways = itertools.product(TAKEN_AS_THEY_ARE.values(), repeat=3)
        sizes = itertools.cycle([(3, 4, 5), (1, 4, 5), (3, 1, 5), (3, 4, 1), (1, 1, 5), (2, 1, 1), (1, 1, 1)])
        count = 0
        for (a_way, b_way, out_way), (m, k, n) in zip(ways, sizes, strict=False):
            (_, a), (_, b) = matrices(a_way, (m, k), dtype), matrices(b_way, (k, n), dtype)
            room, out = matrices(out_way, (m, n), out_dtype)
            before, left, right = (np.array(array).astype(np.float64) for array in (out, a, b))
            expected, kept = before * accumulate + left @ right, np.array(room)
            assert gpu.matmul(a, b, out, accumulate) is out
            assert out.tolist() == expected.tolist()
            out[...] = out_way(m, n)[1](kept)
            assert room.tolist() == kept.tolist(), "wrote beside out"
            count += 1
        assert len(gemms) == count == 6**3

    @pytest.mark.parametrize("accumulate", [False, True])
    @pytest.mark.parametrize("way", COPIED)
    @pytest.mark.parametrize("strange", ["a", "b", "out"])
    def test_other_views_are_right_too(self, gpu, matrices, gemms, way, strange, accumulate):
        shapes = {"a": (3, 4), "b": (4, 5), "out": (3, 5)}
        a, b, out = (
            matrices(COPIED[way] if name == strange else TAKEN_AS_THEY_ARE["whole"], shape, "float32")[1]
            for name, shape in shapes.items()
        )
        expected = np.array(out) * accumulate + np.array(a) @ np.array(b)
        assert gpu.matmul(a, b, out, accumulate).tolist() == expected.tolist()
        assert gemms == []

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    @pytest.mark.parametrize("strange", ["a", "b", "out"])
    def test_other_views_of_16_bits_are_summed_in_float32(self, gpu, matrices, gemms, dtype, strange):
        shapes = {"a": (2, 4096), "b": (4096, 2), "out": (2, 2)}
        ways = {name: "every second column" if name == strange else "whole" for name in shapes}
        a, b, out = (
            matrices((COPIED | TAKEN_AS_THEY_ARE)[ways[name]], shape, dtype)[1]
            for name, shape in shapes.items()
        )
        a[...] = b[...] = 1  # in 16 bits, the sum would stay at 256 or 2048
        gpu.matmul(a, b, out)
        assert out.tolist() == [[4096.0] * 2] * 2
        assert [(call[8], call[15]) for call in gemms] == [(0, 0)]  # the types of a and of the product

    def test_gpus_before_ampere_multiply_bfloat16_in_float32(self, machine, monkeypatch):
        pytest.importorskip("ml_dtypes")
        kinds = []

        def gemm(*args):
            kinds.append((args[8], args[15]))  # the types of a and of the product
            gemm_ex(*args)

        machine(["cupy-cuda12x"], 12040, fake_cupy(gemm=gemm))
        monkeypatch.setattr(FakeDevice, "compute_capability", "75")
        gpu = CudaBackend()
        ones = gpu.asarray(np.ones((2, 300)), dtype="bfloat16")
        out = gpu.asarray(np.ones((2, 2)), dtype="bfloat16")
        assert gpu.matmul(ones, ones.T, out).tolist() == [[300.0] * 2] * 2
        assert gpu.matmul(ones, ones.T, out, accumulate=True).tolist() == [[600.0] * 2] * 2
        assert kinds[1:] == [(0, 0), (0, 0)]  # the first is the probe's

    @pytest.mark.parametrize("dtypes", [("int64",) * 3, ("float32", "float32", "float64")])
    def test_other_dtypes_are_right_too(self, gpu, matrices, gemms, dtypes):
        shapes = ((3, 4), (4, 5), (3, 5))
        whole = TAKEN_AS_THEY_ARE["whole"]
        a, b, out = (matrices(whole, shape, dtype)[1] for shape, dtype in zip(shapes, dtypes, strict=True))
        expected = np.array(a) @ np.array(b)
        assert gpu.matmul(a, b, out).tolist() == expected.tolist()
        assert gpu.matmul(a, b, out, accumulate=True).tolist() == (2 * expected).tolist()
        assert gemms == []

    def test_old_contents_of_out_do_not_matter(self, gpu, matrices):
        (_, a), (_, b) = (matrices(TAKEN_AS_THEY_ARE["whole"], (2, 2), "float32") for _ in range(2))
        out = gpu.asarray(np.full((2, 2), np.nan), dtype="float32")
        assert gpu.matmul(a, b, out).tolist() == (np.array(a) @ np.array(b)).tolist()

    def test_a_product_over_nothing_is_zero(self, gpu, gemms):
        full = gpu.xp.zeros((3, 3), "float32")
        out = gpu.xp.zeros((3, 3), "float32")
        out[...] = 7
        assert (gpu.matmul(full[:, :0], full[:0], out, accumulate=True) == 7).all()
        assert (gpu.matmul(full[:, :0], full[:0], out) == 0).all()
        assert gpu.matmul(full[:0], full, out[:0]).shape == (0, 3)
        assert gpu.matmul(full, full[:, :0], out[:, :0]).shape == (3, 0)
        assert gemms == []

    @pytest.mark.parametrize(
        "shapes",
        [((2, 3), (4, 5), (2, 5)), ((2, 3), (3, 5), (2, 4)), ((3,), (3, 2), (2,)), ((2, 3), (3,), (2,))],
    )
    def test_shapes_that_do_not_fit_are_refused(self, gpu, gemms, shapes):
        a, b, out = (gpu.zeros(int(np.prod(shape)), "float32").reshape(shape) for shape in shapes)
        with pytest.raises(backends.ArgumentError, match=r"expected \(m, k\) and \(k, n\) into \(m, n\)"):
            gpu.matmul(a, b, out)
        assert gemms == []

    def test_cupys_switch_for_tf32_holds_for_float32_only(self, machine, monkeypatch):
        kinds = []

        def gemm(*args):
            kinds.append(args[-2])
            gemm_ex(*args[:-2], {77: 68}.get(args[-2], args[-2]), args[-1])

        machine(["cupy-cuda12x"], 12040, fake_cupy(gemm=gemm))
        monkeypatch.setenv("CUPY_TF32", "1")
        gpu = CudaBackend()
        for dtype in ("float32", "float64"):
            one = gpu.xp.zeros((1, 1), dtype)
            gpu.matmul(one, one, gpu.xp.zeros((1, 1), dtype))
        assert kinds == [77, 77, 70]  # the first is the probe's
        assert gpu.describe()["tf32"] is True


class TestBlasLayout:
    @pytest.mark.parametrize("itemsize", [4, 8])
    @pytest.mark.parametrize("shape", [*itertools.product(range(1, 5), repeat=2)])
    def test_leads_to_every_number_that_the_strides_lead_to(self, shape, itemsize):
        bytes_apart = sorted({*range(-9, 10), *range(-2 * itemsize, 7 * itemsize, itemsize)})
        for strides in itertools.product(bytes_apart, repeat=2):
            found = blas_layout(shape, strides, itemsize)
            steps = [step / itemsize for step in strides]
            readable = [
                (shape[axis] == 1 or steps[axis] == 1)
                and (shape[other] == 1 or (steps[other].is_integer() and steps[other] >= shape[axis]))
                for axis, other in ((0, 1), (1, 0))
            ]
            assert (found is not None) == any(readable), strides
            if found is not None:
                by_columns, leading = found
                assert leading >= shape[0 if by_columns else 1], strides
                for i, j in itertools.product(*map(range, shape)):
                    place = j * leading + i if by_columns else i * leading + j
                    assert place * itemsize == i * strides[0] + j * strides[1], strides

    @pytest.mark.parametrize(
        ("matrix", "expected"),
        [
            (np.zeros((3, 4)), (False, 4)),
            (np.zeros((3, 4)).T, (True, 4)),
            (np.zeros((3, 9))[:, 2:5], (False, 9)),
            (np.zeros((3, 9))[:, 2:3], (False, 9)),  # a column of a matrix
            (np.zeros((3, 9))[:1, ::2], (True, 2)),  # a row with gaps is a column-major matrix of one row
            (np.broadcast_to(np.zeros((1, 4)), (3, 4)), None),
            (np.zeros((3, 4))[::-1], None),
            (np.zeros((6, 8))[::2, ::2], None),
        ],
    )
    def test_by_example(self, matrix, expected):
        assert blas_layout(matrix.shape, matrix.strides, matrix.itemsize) == expected
