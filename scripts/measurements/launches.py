"""Counts what a CUDA graph launches, by CUDA's driver."""

import ctypes
import sys

from backends import Backend

RECORDING = 1  # CU_STREAM_CAPTURE_STATUS_ACTIVE


def recorded_launches(backend: Backend) -> int | None:
    """How many nodes the current stream has recorded; None if it is not recording or nobody can tell.

    A node is a kernel, a copy or a fill. CuPy does not keep the graph that it has instantiated, so the nodes
    are counted at the end of the step while it is recorded.
    """
    if backend.name == "cpu":
        return None
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        stream = ctypes.c_void_p(backend.xp.cuda.get_current_stream().ptr)
        status, number, graph = ctypes.c_int(), ctypes.c_uint64(), ctypes.c_void_p()
        found = map(ctypes.byref, (status, number, graph))
        if driver.cuStreamGetCaptureInfo_v2(stream, *found, None, None) or status.value != RECORDING:
            return None
        count = ctypes.c_size_t()
        return None if driver.cuGraphGetNodes(graph, None, ctypes.byref(count)) else count.value
    except (AttributeError, OSError):  # of an older driver
        return None
