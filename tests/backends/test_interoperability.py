"""Arrays of other libraries: where they are, what is shared with them, and what is refused."""

import re

import numpy as np
import pytest
from helpers.fake_cupy import fake_cupy
from helpers.foreign_arrays import CPU, CUDA, Interface, Tensor, memory_by_dlpack, memory_by_interface

import backends
from backends import ArgumentError, DeviceLost
from backends.cuda.backend import CudaBackend
from backends.interoperability import as_array

PINNED, METAL = 3, 8  # DLPack's numbers of devices

ON_GPU = {"DLPack": Tensor, "__cuda_array_interface__": Interface}
ON_HOST = {
    "DLPack": lambda host: Tensor(host, (CPU, 0)),
    "pinned memory": lambda host: Tensor(host, (PINNED, 0)),
}
DTYPES = ["bool", "uint8", "int64", "float16", "float32", "float64", "complex64"]


def numbers(dtype="float32"):
    return np.arange(6).reshape(2, 3).astype(dtype)


def refused(*parts):
    return pytest.raises(ArgumentError, match=".*".join(map(re.escape, parts)))


class Convertible(Tensor):
    """A tensor with a conversion to NumPy."""

    def __array__(self, dtype=None, copy=None):
        return self.host


class Unshareable(Convertible):
    """An array that is converted to NumPy, but not shared by DLPack."""

    def __dlpack_device__(self):
        raise TypeError("DataType is not compatible with DLPack spec")


@pytest.fixture(params=ON_GPU.values(), ids=ON_GPU.keys())
def on_gpu(request):
    """Makes an array of another library on the GPU."""
    return request.param


@pytest.fixture(params=ON_HOST.values(), ids=ON_HOST.keys())
def on_host(request):
    """Makes an array of another library on the host."""
    return request.param


class TestOnTheDevice:
    def test_memory_is_shared_and_nothing_crosses(self, standin, on_gpu):
        memory = numbers()
        x = standin.asarray(on_gpu(memory))
        assert standin.owns(x)
        assert standin.crossings == 0
        memory[1, 2] = 7
        np.testing.assert_array_equal(standin.to_host(x), memory)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_every_dtype_of_numpy_is_taken(self, standin, on_gpu, dtype):
        x = standin.asarray(on_gpu(numbers(dtype)))
        assert x.dtype == dtype
        np.testing.assert_array_equal(standin.to_host(x), numbers(dtype))

    def test_strides_are_kept(self, standin, on_gpu):
        memory = np.arange(24.0).reshape(4, 6)
        x = standin.asarray(on_gpu(memory[::2, 1::2].T))
        assert x.strides == memory[::2, 1::2].T.strides
        np.testing.assert_array_equal(standin.to_host(x), memory[::2, 1::2].T)

    def test_another_dtype_is_a_copy_on_the_device(self, standin, on_gpu):
        memory = numbers()
        x = standin.asarray(on_gpu(memory), dtype="float64")
        memory[...] = 0
        assert standin.crossings == 0
        np.testing.assert_array_equal(standin.to_host(x), numbers("float64"))

    def test_an_array_can_be_filled_from_it(self, standin, on_gpu):
        out = standin.zeros(6, "float64").reshape(2, 3)
        assert standin.asarray(on_gpu(numbers()), out=out) is out
        assert standin.crossings == 0
        np.testing.assert_array_equal(standin.to_host(out), numbers())

    def test_own_arrays_are_returned_as_they_are(self, standin):
        x = standin.asarray(numbers())
        assert standin.asarray(x) is x
        assert standin.crossings == 1

    def test_the_backend_is_known(self, standin, on_gpu):
        assert backends.of(on_gpu(numbers())) is standin

    def test_the_memory_lives_as_long_as_its_array(self, standin, on_gpu):
        x = standin.asarray(on_gpu(np.full(1 << 16, 3.0)))
        np.full(1 << 16, 4.0)  # in freed memory, if it was freed
        assert (standin.to_host(x) == 3).all()

    def test_cupy_shares_it_on_the_gpu_that_it_is_on(self, machine):
        machine(["cupy-cuda12x"], 13000, fake_cupy(2))
        gpu, memory = CudaBackend(1), numbers()
        x = gpu.asarray(Tensor(memory, (CUDA, 1)))
        assert gpu.owns(x)
        assert gpu.crossings == 0
        assert np.shares_memory(x, memory)
        assert backends.of(Tensor(memory, (CUDA, 1))).name == "cuda:1"

    def test_cupy_finds_the_gpu_that_an_interface_does_not_tell(self, machine):
        machine(["cupy-cuda12x"], 13000, fake_cupy(2))
        memory = numbers()
        x = as_array(Interface(memory))
        assert backends.of(x) is backends.of(Interface(memory)) is backends.get("cuda:1")
        assert np.shares_memory(x, memory)

    def test_the_backends_own_memory_taken_by_dlpack(self, backend):
        """On a GPU, by CuPy itself."""

        class Wrapped:
            def __init__(self, array):
                self.__dlpack__, self.__dlpack_device__ = array.__dlpack__, array.__dlpack_device__

        x = backend.asarray(numbers())
        again = backend.asarray(Wrapped(x))
        again[0, 0] = 9
        assert backend.owns(again)
        np.testing.assert_array_equal(backend.to_host(x), [[9, 1, 2], [3, 4, 5]])


class TestOnTheHost:
    def test_the_cpu_shares_their_memory(self, on_host):
        cpu, memory = backends.get("cpu"), numbers()
        assert np.shares_memory(cpu.asarray(on_host(memory)), memory)
        assert backends.of(on_host(memory)).name == "cpu"

    def test_a_device_copies_them_in_one_crossing(self, standin, on_host):
        memory = numbers()
        x = standin.asarray(on_host(memory))
        memory[...] = 0
        assert standin.crossed == [memory.nbytes]
        np.testing.assert_array_equal(standin.to_host(x), numbers())

    def test_a_librarys_own_conversion_to_numpy_comes_first(self):
        """DLPack may make arrays that cannot be written to."""
        tensor = Convertible(numbers(), (CPU, 0))
        assert backends.get("cpu").asarray(tensor) is tensor.host
        assert tensor.exports == 0

    @pytest.mark.parametrize(
        "values", [["a", "b"], [True, False], [1.0, None], [np.datetime64("2024-01-01")]]
    )
    def test_what_a_library_can_convert_but_not_share_is_converted(self, values):
        """PyArrow's arrays of strings and bools, and those with nulls, are such arrays."""
        expected = np.array(values)
        found = as_array(Unshareable(expected))
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)

    def test_a_dtype_of_another_name_is_taken_if_numpy_has_what_it_becomes(self):
        dated = np.array(["2024-01-01"], "datetime64[s]")
        found = as_array(Convertible(dated, (CPU, 0), dtype="datetime64[s]"))
        assert found is dated

    def test_labels_in_strings_of_pyarrow(self):
        pa = pytest.importorskip("pyarrow", reason="PyArrow is not installed")
        assert as_array(pa.array(["a", "b"])).tolist() == ["a", "b"]
        assert as_array(pa.array([True, False])).tolist() == [True, False]
        assert as_array(pa.array([1.0, None]))[0] == 1


class TestRefused:
    @pytest.mark.parametrize("place", [(CUDA, 0), (CPU, 0)])
    @pytest.mark.parametrize("dtype", ["torch.bfloat16", "torch.float8_e4m3fn", "bfloat16"])
    def test_dtypes_that_numpy_does_not_have(self, standin, place, dtype):
        with refused(f"array: dtype {dtype.removeprefix('torch.')}, which NumPy", "array.float() in PyTorch"):
            standin.asarray(Tensor(numbers("int16"), place, dtype))

    def test_bytes_that_cupy_shares(self, machine):
        """``__cuda_array_interface__`` describes bfloat16 as two bytes."""
        machine(["cupy-cuda12x"], 13000, fake_cupy(1))
        with refused("array: dtype void16, which NumPy does not have"):
            as_array(Interface(numbers("int16").view("V2")))

    def test_dtypes_that_a_package_adds_to_numpy(self):
        halves = pytest.importorskip("ml_dtypes").bfloat16
        with refused("array: dtype bfloat16, which NumPy does not have"):
            as_array(Convertible(numbers(halves), (CPU, 0), dtype="bfloat16"))

    @pytest.mark.parametrize(("dtype", "reason"), [
        ("torch.bfloat16", "array: dtype bfloat16, which NumPy does not have"),
        ("torch.float32", "array: this Failing cannot be shared (Got unsupported ScalarType)"),
    ])  # fmt: skip
    def test_arrays_whose_library_fails_to_convert_them(self, dtype, reason):
        class Failing(Unshareable):
            def __array__(self, dtype=None, copy=None):
                raise TypeError("Got unsupported ScalarType")

        with refused(reason):
            as_array(Failing(numbers(), (CPU, 0), dtype=dtype))

    @pytest.mark.parametrize("place", [(CUDA, 0), (CPU, 0)])
    def test_a_tensor_that_requires_grad(self, standin, place):
        with refused("array: this tensor requires grad", "give array.detach()"):
            standin.asarray(Tensor(numbers(), place, requires_grad=True))

    def test_another_kind_of_device(self):
        with refused("array: it is on mps:0, expected the host or a CUDA GPU: copy it to the host first"):
            backends.get("cpu").asarray(Tensor(numbers(), (METAL, 0)))

    @pytest.mark.parametrize("ask", [backends.of, lambda array: backends.get("cpu").asarray(array)])
    def test_a_gpu_that_cannot_be_used(self, machine, ask):
        machine()
        with refused("array: it is on cuda:0, which cannot be used here (", "): copy it to the host first"):
            ask(Tensor(numbers()))

    def test_an_array_on_a_gpu_by_the_cpu(self, standin, on_gpu):
        for array in on_gpu(numbers()), standin.xp.ones(3):
            with refused("array: it is on standin:0", "backends.of(array).to_host(array)"):
                backends.get("cpu").asarray(array)
        assert standin.crossings == 0

    def test_what_a_library_does_not_export(self, standin):
        class Sparse(Tensor):
            def __dlpack__(self, **options):
                raise BufferError("Can't export tensors with layout other than torch.strided\nmore")

        with refused("array: this Sparse cannot be shared (Can't export tensors", "torch.strided): expected"):
            standin.asarray(Sparse(numbers()))

    def test_a_lost_device_is_no_matter_of_the_array(self, standin):
        class Lost(Tensor):
            def __dlpack__(self, **options):
                raise DeviceLost("cuda:0 does not answer")

        with pytest.raises(DeviceLost):
            standin.asarray(Lost(numbers()))

    @pytest.mark.parametrize("other", [[1, 2], 3.0, None, "cuda:0", np.float32(1)])
    def test_what_is_no_array_has_no_backend(self, other):
        with refused(f"no backend owns a {type(other).__name__}: expected an array"):
            backends.of(other)


class TestGivenToOthers:
    """Arrays of a backend have the protocols themselves."""

    def test_numpy_takes_those_of_the_cpu(self):
        x = backends.get("cpu").asarray(numbers())
        assert np.shares_memory(np.from_dlpack(x), x)

    @pytest.mark.parametrize("memory_of", [memory_by_dlpack, memory_by_interface])
    def test_other_libraries_find_the_memory_of_a_device(self, standin, memory_of):
        x = standin.asarray(numbers())
        memory_of(x)[0, 0] = 9
        np.testing.assert_array_equal(standin.to_host(x), [[9, 1, 2], [3, 4, 5]])

    def test_numpy_does_not_take_a_devices_memory(self, standin):
        with pytest.raises(BufferError):
            np.from_dlpack(standin.asarray(numbers()))


class TestPyTorch:
    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch", reason="PyTorch is not installed")

    @pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float32", "float64"])
    def test_memory_is_shared_in_both_directions(self, torch, dtype):
        cpu, tensor = backends.get("cpu"), torch.arange(6).reshape(2, 3).to(getattr(torch, dtype))
        x = cpu.asarray(tensor)
        assert x.dtype == dtype
        assert x.ctypes.data == tensor.data_ptr()
        assert torch.from_dlpack(x).data_ptr() == tensor.data_ptr()
        x[0, 0] = 1
        assert tensor[0, 0] == 1

    @pytest.mark.gpu
    def test_memory_of_a_gpu_is_shared_in_both_directions(self, torch):
        if not torch.cuda.is_available():
            pytest.skip("this PyTorch has no CUDA")
        gpu, tensor = backends.get("cuda"), torch.arange(6.0, device="cuda").reshape(2, 3)
        before = gpu.crossings
        x = gpu.asarray(tensor)
        assert backends.of(tensor).name == gpu.name
        assert x.data.ptr == tensor.data_ptr() == torch.from_dlpack(x).data_ptr()
        assert gpu.crossings == before

    def test_views_are_not_copied(self, torch):
        tensor = torch.arange(24.0).reshape(4, 6)[::2].T
        x = backends.get("cpu").asarray(tensor)
        assert x.ctypes.data == tensor.data_ptr()
        np.testing.assert_array_equal(x, np.arange(24.0).reshape(4, 6)[::2].T)

    def test_what_is_refused(self, torch):
        tensor = torch.ones(2, 3)
        for given, parts in (
            (tensor.to(torch.bfloat16), ["dtype bfloat16, which NumPy does not have", "array.float()"]),
            (tensor.clone().requires_grad_(), ["requires grad", "array.detach()"]),
            (tensor.to_sparse(), ["this Tensor cannot be shared", "a dense array"]),
            (tensor.to("meta"), ["this Tensor cannot be shared", "meta"]),
        ):
            with refused("array: ", *parts):
                backends.get("cpu").asarray(given)
            backends.get("cpu").asarray(tensor)


def test_jax_shares_the_memory_of_its_arrays_on_the_host():
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    array = jax.device_put(jax.numpy.arange(6.0).reshape(2, 3), jax.devices("cpu")[0])
    x = backends.get("cpu").asarray(array)
    assert x.ctypes.data == array.unsafe_buffer_pointer()
    with refused("array: dtype bfloat16", 'array.astype("float32") in JAX'):
        backends.get("cpu").asarray(array.astype("bfloat16"))
