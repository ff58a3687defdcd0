"""Arrays of libraries that are not installed, known only by their protocols for sharing memory.

Their memory is the host's, whatever device they say it is on, so that a stand-in for a GPU can take them.
"""

from types import SimpleNamespace

import numpy as np

CPU, CUDA = 1, 2  # DLPack's numbers of devices


class Tensor:
    """Has DLPack and what PyTorch's tensors say of themselves; the conversions to NumPy fail."""

    def __init__(self, host, device=(CUDA, 0), dtype=None, requires_grad=False):
        self.host = host
        self.requires_grad = requires_grad
        self.dtype = f"torch.{host.dtype}" if dtype is None else dtype
        self.device = {CPU: "cpu", CUDA: f"cuda:{device[1]}"}.get(device[0], "mps:0")
        self._device = device
        self.exports = 0

    def __dlpack_device__(self):
        return self._device

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        assert not copy
        if (stream is None) == (self._device[0] == CUDA):
            raise BufferError("a stream is for GPUs, which need one")
        self.exports += 1
        return self.host.__dlpack__(max_version=max_version)


class Interface:
    """Has ``__cuda_array_interface__`` alone, as Numba's device arrays."""

    def __init__(self, host):
        self.host = host

    @property
    def __cuda_array_interface__(self):
        return self.host.__array_interface__ | {"version": 3, "stream": 1}


class _Capsule:
    """What DLPack hands over, for NumPy."""

    def __init__(self, array):
        self._array = array

    def __dlpack_device__(self):
        return CPU, 0

    def __dlpack__(self, *, max_version=None, **options):
        return self._array.__dlpack__(stream=1, max_version=max_version)


def memory_by_dlpack(array):
    """The memory of an array on a GPU that only says so, as one of NumPy."""
    return np.from_dlpack(_Capsule(array))


def memory_by_interface(array):
    """The same by ``__cuda_array_interface__``."""
    return np.asarray(SimpleNamespace(__array_interface__=array.__cuda_array_interface__, owner=array))
