"""A stand-in device: NumPy with CuPy's manners, so that device code is tested where there is no GPU.

``Array`` wraps a NumPy array and refuses what CuPy's arrays refuse: to be converted by accident, to
mix with NumPy's. ``xp`` has only functions that CuPy has, with keywords that CuPy takes. Where CuPy
would wait for the device, copy or allocate without a word, the stand-in counts. ``StandInBackend``
makes a backend of them.
"""

from helpers.standin.arrays import Array
from helpers.standin.backend import StandInBackend
from helpers.standin.functions import UFUNCS
from helpers.standin.modules import Listed, signal, xp
from helpers.standin.work import ForbiddenWhileRecording, Tape, counters

__all__ = [
    "UFUNCS",
    "Array",
    "ForbiddenWhileRecording",
    "Listed",
    "StandInBackend",
    "Tape",
    "counters",
    "signal",
    "xp",
]
