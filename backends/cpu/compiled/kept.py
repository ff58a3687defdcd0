"""Where the kernels' machine code is kept, so that the next process need not compile it."""

import hashlib
import os
import pickle
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile, _CacheLocator

from backends.cache import user_folder

MONTH = 30 * 24 * 3600  # seconds


def digest(package: str) -> bytes | None:
    """What the code of a package is, whether it lies in a folder or in a zip; None if that cannot be told."""
    found = hashlib.sha256()
    with suppress(Exception):  # loaders of other kinds may know of no files
        code = [file for file in files(package).iterdir() if file.name.endswith((".py", ".pyc"))]
        for file in sorted(code, key=lambda file: file.name):
            found.update(hashlib.sha256(file.read_bytes()).digest())
        return found.digest() if code else None
    return None


class KernelFolder:
    """A folder of the user's: in the one that NUMBA_CACHE_DIR names, or else in the user's cache folder.

    Each state of the code has a folder of its own there, and a new one has those removed that are out of use.
    ``stamp`` tells the code that the kernels are compiled from. ``obstacle`` says why nothing can be kept;
    None: it can.
    """

    def __init__(self, name: str | None, stamp: bytes | None) -> None:
        self.stamp = stamp
        self.obstacle = None if stamp else "the code that they are compiled from cannot be read"
        self.say: Callable[[str], None] = lambda text: None  # called once if something cannot be kept
        try:
            kernels = (Path(name, "xpcnn") if name else user_folder()) / "kernels"
            kernels.mkdir(parents=True, exist_ok=True)
            self.path = kernels / _short_digest(numba.__version__, stamp)
            is_new = not self.path.exists()
            self.path.mkdir(exist_ok=True)
            TemporaryFile(dir=self.path).close()
            with suppress(OSError):  # the folder is another user's
                os.utime(self.path)  # its time is that of its latest use
            if is_new:
                _remove_unused(kernels)
        except Exception as error:  # a broken platformdirs raises what it likes
            self.obstacle = _reason(error)

    @property
    def outlook(self) -> str:
        """Whether kernels that are compiled now are kept."""
        if self.obstacle is None:
            return "they are kept for the next time"
        return (
            f"they cannot be kept for the next time ({self.obstacle}): "
            "set NUMBA_CACHE_DIR to a folder that can be written"
        )

    def fail(self, error: Exception) -> None:
        """Say, the first time, that a kernel could not be kept."""
        if self.obstacle is None:
            self.obstacle = _reason(error)
            self.say(f"note: the compiled kernels are not all kept; {self.outlook}")


def _short_digest(*identity: Any) -> str:
    return hashlib.sha256(repr(identity).encode()).hexdigest()[:16]


def _remove_unused(kernels: Path) -> None:
    """Remove what other versions of the code have kept and no process has begun to use for a month.

    If a process is about to use it after all, it compiles its kernels again.
    """
    for entry in kernels.iterdir():
        with suppress(OSError):  # another process removes it too
            if time.time() - entry.stat().st_mtime < MONTH:
                continue
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.suffix == ".nbc":  # earlier versions had no folders
                entry.unlink()


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__


folder = KernelFolder(numba.config.CACHE_DIR, digest(__package__))


def keep(compiler: Any, function: Callable[..., Any]) -> None:
    """Let what is compiled of ``function`` be kept on disk, if there is a folder for it."""
    if folder.obstacle is None:
        with suppress(RuntimeError, OSError):  # from Numba's NUMBA_CACHE_LOCATOR_CLASSES
            compiler._cache = _KernelCache(function)


class _Locator(_CacheLocator):
    """Tells Numba the folder, which by itself it would look for next to the code."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._line = function.__code__.co_firstlineno

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> "_Locator":
        return cls(py_func)

    def get_cache_path(self) -> str:
        return str(folder.path)

    def get_source_stamp(self) -> Any:
        return folder.stamp

    def get_disambiguator(self) -> str:
        return str(self._line)


class _Located(CompileResultCacheImpl):
    _locator_classes = (_Locator,)


class _KernelCache(FunctionCache):
    """Numba's cache on disk, which never stands in the way.

    A folder that is read-only, full or damaged costs the time to compile and nothing else.
    """

    _impl_class = _Located

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = _CacheFiles(self.cache_path, self._impl.filename_base, folder.stamp)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        with suppress(Exception):  # damaged: it is compiled and written again
            return super().load_overload(sig, target_context)

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception as error:
            folder.fail(error)
            self.disable()


class _CacheFiles(IndexDataCacheFile):
    """The files of one function: one for each signature and state of the code, which says what it is of.

    Numba's index gives them numbers. Of two processes that compile for two dtypes at the same moment each
    finds the first number free, and what was compiled for one dtype is kept, and run, as that for the other.
    And Numba's stamp is of the function's own file, so it would not see a change in one that is called.
    """

    def __init__(self, path: str, function: str, stamp: bytes | None) -> None:
        super().__init__(path, function, stamp)
        self._function = function

    def load(self, key: Any) -> Any:
        try:
            stamp, kept, check, data = self._load_data(self._name(key))
        except FileNotFoundError:
            return None
        whole = stamp, kept, check
        return pickle.loads(data) if whole == (self._source_stamp, key, _checksum(data)) else None

    def save(self, key: Any, data: Any) -> None:
        dumped = self._dump(data)
        self._save_data(self._name(key), (self._source_stamp, key, _checksum(dumped), dumped))

    def _name(self, key: Any) -> str:
        return f"{self._function}.{_short_digest(numba.__version__, self._source_stamp, key)}.nbc"


def _checksum(data: bytes) -> bytes:
    """Of machine code: one wrong bit in it would end the process."""
    return hashlib.sha256(data).digest()
