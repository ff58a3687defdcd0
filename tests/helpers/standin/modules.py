"""The modules of the stand-in device. They have what functions.py puts on their lists, and nothing else."""

from types import ModuleType
from typing import Any


class Listed(ModuleType):
    """A module that has what was put on its list and nothing else."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{self.__name__}.{name} is not in CuPy, or not on the stand-in's list")


xp = Listed("xp")
xp.lib = Listed("xp.lib")
xp.lib.stride_tricks = Listed("xp.lib.stride_tricks")
signal = Listed("signal")
special = Listed("special")
