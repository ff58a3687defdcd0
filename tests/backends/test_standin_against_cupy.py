"""The stand-in device has what CuPy has, with CuPy's keywords, types and views."""

import inspect
import re

import numpy as np
import pytest
from helpers import standin
from helpers.standin import Array, xp


@pytest.fixture
def cupy():
    return pytest.importorskip("cupy")


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


def parameters(function):
    """The names of a function's parameters; Cython writes them into the first line of the documentation."""
    try:
        return list(inspect.signature(function).parameters)
    except ValueError:
        return re.findall(r"(\w+)(?:=[^,)]*)?[,)]", function.__doc__.partition("\n")[0])


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
            theirs = parameters(self.find(cupy, name))
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
