"""The cache of compiled kernels on disk, so that the next process need not compile them."""

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
    """A hash of the code of a package in a folder or a zip file; None if it cannot be read."""
    found = hashlib.sha256()
    with suppress(Exception):  # other loaders may not support files
        code = [file for file in files(package).iterdir() if file.name.endswith((".py", ".pyc"))]
        for file in sorted(code, key=lambda file: file.name):
            found.update(hashlib.sha256(file.read_bytes()).digest())
        return found.digest() if code else None
    return None


class KernelFolder:
    """The cache folder, in the folder that NUMBA_CACHE_DIR names or else in the user's cache folder.

    Each version of the code has its own folder in it; creating a new one removes those that are out of use.
    ``stamp`` identifies the code of the kernels. ``obstacle`` says why kernels cannot be cached, or is None.
    """

    def __init__(self, name: str | None, stamp: bytes | None) -> None:
        self.stamp = stamp
        self.obstacle = None if stamp else "their source code cannot be read"
        self.say: Callable[[str], None] = lambda text: None  # called once if a kernel cannot be cached
        try:
            kernels = (Path(name, "xpcnn") if name else user_folder()) / "kernels"
            kernels.mkdir(parents=True, exist_ok=True)
            self.path = kernels / _short_digest(numba.__version__, stamp)
            is_new = not self.path.exists()
            self.path.mkdir(exist_ok=True)
            TemporaryFile(dir=self.path).close()
            with suppress(OSError):  # the folder belongs to another user
                os.utime(self.path)  # records the time of the latest use
            if is_new:
                _remove_unused(kernels)
        except Exception as error:  # a broken platformdirs may raise anything
            self.obstacle = _reason(error)

    @property
    def outlook(self) -> str:
        """A phrase that says whether compiled kernels are cached."""
        if self.obstacle is None:
            return "they are kept for the next time"
        return (
            f"they cannot be kept for the next time ({self.obstacle}): "
            "set NUMBA_CACHE_DIR to a writable folder"
        )

    def fail(self, error: Exception) -> None:
        """Show a note, once, that a kernel could not be cached."""
        if self.obstacle is None:
            self.obstacle = _reason(error)
            self.say(f"note: some compiled kernels are not kept; {self.outlook}")


def _short_digest(*identity: Any) -> str:
    return hashlib.sha256(repr(identity).encode()).hexdigest()[:16]


def _remove_unused(kernels: Path) -> None:
    """Remove kernels of other versions of the code that no process has started to use for a month.

    A process that needs them after all compiles them again.
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
    """Cache the compiled versions of ``function`` on disk, if there is a folder for it."""
    if folder.obstacle is None:
        with suppress(RuntimeError, OSError):  # from Numba's NUMBA_CACHE_LOCATOR_CLASSES
            compiler._cache = _KernelCache(function)


class _Locator(_CacheLocator):
    """Gives Numba the cache folder; by default Numba uses a folder next to the code."""

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
    """Numba's cache on disk, whose errors are ignored.

    If the folder is read-only, full or damaged, kernels are compiled again.
    """

    _impl_class = _Located

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = _CacheFiles(self.cache_path, self._impl.filename_base, folder.stamp)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        with suppress(Exception):  # if damaged, it is compiled and written again
            return super().load_overload(sig, target_context)

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception as error:
            folder.fail(error)
            self.disable()


class _CacheFiles(IndexDataCacheFile):
    """The files of one function: one for each signature and version of the code, which its name identifies.

    Numba's own index numbers the files. If two processes compile for two dtypes at the same time, both use
    the first free number, and the code for one dtype is later run for the other. Numba's stamp also covers
    only the function's own file, so it misses changes in functions that it calls.
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
    """The checksum of machine code, because a single wrong bit could crash the process."""
    return hashlib.sha256(data).digest()
