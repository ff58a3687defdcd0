"""The cache of compiled kernels on disk, so that the next process need not compile them."""

import hashlib
import os
import pickle
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile, _CacheLocator

from backends.cache import user_folder

MONTH = 30 * 24 * 3600  # seconds


@cache
def stamp(module: str) -> bytes | None:
    """A hash of the code that the kernels of an imported module are made of; None if it cannot be read.

    It covers the module, those that it imports from its own package, and so on, and what these import from
    elsewhere in this project.
    """
    package, found, pending = module.rpartition(".")[0], {}, [module]
    with suppress(Exception):  # other loaders may not give out code
        while pending:
            name = pending.pop()
            if name not in found:
                found[name], imported = _read(name)
                pending += imported if name.rpartition(".")[0] == package else []
        return hashlib.sha256(repr(sorted(found.items())).encode()).digest()
    return None


@cache
def _read(module: str) -> tuple[str, list[str]]:
    """A hash of the file of an imported module, and the modules that it imports from its own project."""
    spec: Any = sys.modules[module].__spec__
    names = spec.loader.get_code(module).co_names  # of imported modules, of what is imported, and others
    project = [name for name in names if name.partition(".")[0] == module.partition(".")[0]]
    imported = [*project, *(f"{name}.{other}" for name in project for other in names)]
    return hashlib.sha256(spec.loader.get_data(spec.origin)).hexdigest(), list(filter(_is_file, imported))


def _is_file(module: str) -> bool:
    return module in sys.modules and not hasattr(sys.modules[module], "__path__")


class KernelFolder:
    """The cache folder, in the folder that NUMBA_CACHE_DIR names or else in the user's cache folder.

    It has a file for each kernel, dtype and state of the kernel's code; the first that this process writes
    removes those that are out of use. ``reason`` says why kernels cannot be cached, or is None.
    """

    def __init__(self, name: str | None) -> None:
        self.name = name
        self.reason: str | None = None
        self.say: Callable[[str], None] = lambda text: None  # called once if a kernel cannot be cached
        self._is_tidy = False
        try:
            self.path = (Path(name, "xpcnn") if name else user_folder()) / "kernels"
            self.path.mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=self.path).close()
        except Exception as error:  # a broken platformdirs may raise anything
            self.reason = _reason(error)

    @property
    def status(self) -> str:
        """A phrase that says whether compiled kernels are cached."""
        if self.reason is None:
            return "they are cached for the next time"
        return f"they cannot be cached ({self.reason}): set NUMBA_CACHE_DIR to a writable folder"

    def fail(self, error: Exception) -> None:
        """Show a note, once, that a kernel could not be cached."""
        if self.reason is None:
            self.reason = _reason(error)
            self.say(f"note: some compiled kernels are not cached; {self.status}")

    def remove_unused(self) -> None:
        """Remove, once, kernels that no process has loaded for a month.

        A process that needs them after all compiles them again.
        """
        if self._is_tidy:
            return
        self._is_tidy = True
        for entry in self.path.iterdir():
            with suppress(OSError):  # another process removes it too
                if time.time() - entry.stat().st_mtime < MONTH:
                    continue
                if entry.is_dir():  # earlier versions had a folder for each state of the code
                    shutil.rmtree(entry, ignore_errors=True)
                elif entry.suffix == ".nbc":
                    entry.unlink()


def _short_digest(*identity: Any) -> str:
    return hashlib.sha256(repr(identity).encode()).hexdigest()[:16]


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__


folder = KernelFolder(numba.config.CACHE_DIR)


def attach(compiler: Any, function: Callable[..., Any]) -> None:
    """Cache the compiled versions of ``function`` on disk, if there is a folder for it."""
    if stamp(function.__module__) is None:
        folder.reason = folder.reason or "their source code cannot be read"
    if folder.reason is None:
        with suppress(RuntimeError, OSError):  # from Numba's NUMBA_CACHE_LOCATOR_CLASSES
            compiler._cache = KernelCache(function)


class _Locator(_CacheLocator):
    """Gives Numba the cache folder; by default Numba uses a folder next to the code."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> "_Locator":
        return cls(py_func)

    def get_cache_path(self) -> str:
        return str(folder.path)

    def get_source_stamp(self) -> Any:
        return stamp(self._function.__module__)

    def get_disambiguator(self) -> str:
        return str(self._function.__code__.co_firstlineno)


class _Located(CompileResultCacheImpl):
    _locator_classes = (_Locator,)


class KernelCache(FunctionCache):
    """Numba's cache on disk, whose errors are ignored.

    If the folder is read-only, full or damaged, kernels are compiled again.
    """

    _impl_class = _Located

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = _CacheFiles(self.cache_path, self._impl.filename_base, stamp(function.__module__))

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        with suppress(Exception):  # if damaged, it is compiled and written again
            return super().load_overload(sig, target_context)

    def has(self, sig: Any, codegen: Any) -> bool:
        """Whether there is a file for this signature."""
        return self._cache_file.has(self._index_key(sig, codegen))

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
            folder.remove_unused()
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
        name = self._name(key)
        try:
            stamp, cached, check, data = self._load_data(name)
        except FileNotFoundError:
            return None
        with suppress(OSError):  # the file belongs to another user
            os.utime(self._data_path(name))  # records the time of the latest use
        whole = stamp, cached, check
        return pickle.loads(data) if whole == (self._source_stamp, key, _checksum(data)) else None

    def has(self, key: Any) -> bool:
        return os.path.exists(self._data_path(self._name(key)))

    def save(self, key: Any, data: Any) -> None:
        dumped = self._dump(data)
        self._save_data(self._name(key), (self._source_stamp, key, _checksum(dumped), dumped))

    def _name(self, key: Any) -> str:
        return f"{self._function}.{_short_digest(numba.__version__, self._source_stamp, key)}.nbc"


def _checksum(data: bytes) -> bytes:
    """The checksum of machine code, because a single wrong bit could crash the process."""
    return hashlib.sha256(data).digest()
