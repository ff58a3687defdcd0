"""Host memory between pages that nobody may touch: what reaches beyond an array ends the process."""

import ctypes
import mmap
import weakref

import numpy as np

PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_UNTOUCHABLE = 0


def guarded(array, at_end=True):
    """A copy of ``array`` that ends at such a page, or with ``at_end=False`` begins after one."""
    pages = -(-array.nbytes // PAGE) * PAGE
    size = pages + 2 * PAGE
    start = _libc.mmap(
        None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0
    )
    assert start not in (None, ctypes.c_void_p(-1).value)
    for page in (start, start + PAGE + pages):
        assert _libc.mprotect(page, PAGE, _UNTOUCHABLE) == 0
    place = start + PAGE + (pages - array.nbytes if at_end else 0)
    memory = (ctypes.c_char * array.nbytes).from_address(place)
    weakref.finalize(memory, _libc.munmap, start, size)
    copy = np.frombuffer(memory, array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
