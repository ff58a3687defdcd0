"""Imports of other libraries. If one is missing, broken or hidden, the message says how to repair it."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from functools import cache
from importlib import import_module
from importlib.metadata import distribution
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from traceback import walk_tb
from types import ModuleType, TracebackType

from backends.errors import ArgumentError, Notice
from backends.text import first_line, quoted

OURS = ("backends", "cnn")
LIBRARIES = (
    "PIL", "click", "jinja2", "llvmlite", "matplotlib", "ml_dtypes", "numba", "onnx", "platformdirs",
    "pydantic", "rich", "safetensors", "scipy", "sklearn", "tensorboard", "threadpoolctl", "typer",
)  # fmt: skip
PACKAGES = {"PIL": "pillow", "sklearn": "scikit-learn"}  # libraries whose package has another name
VARIABLES = {
    "numba": "NUMBA_",
    "matplotlib": "MPL",
}  # the prefixes of environment variables that configure a library


class LibraryError(ArgumentError, ImportError):
    """A library cannot be used; the message names it, its purpose, the reason and the remedy."""


def require(name: str, purpose: str, package: str | None = None) -> ModuleType:
    """Import the module ``name`` of the library ``package``; LibraryError if it cannot be used."""
    library, said = name.partition(".")[0], StringIO()
    with needing(library, purpose, package):
        with redirect_stderr(said):  # NumPy prints a traceback for a module that needs an older one
            import_module(library)
            module = import_module(name)
        if hasattr(module, "__path__") and not getattr(module, "__file__", None):
            raise ImportError(f"{name} is an empty folder")
    if said.getvalue():
        sys.stderr.write(said.getvalue())
    return module


def require_to_start(*names: str) -> None:
    """Import the required libraries; if that fails, the program prints one sentence and exits with code 2."""
    try:
        for name in names:
            require(name, "to start")
    except LibraryError:
        if not hasattr(sys, "ps1"):  # an interactive Python continues
            sys.excepthook = _end_in_a_sentence
        raise


@contextmanager
def needing(library: str, purpose: str, package: str | None = None) -> Iterator[None]:
    """Convert any exception of the block to a LibraryError about ``library``."""
    try:
        yield
    except (KeyboardInterrupt, MemoryError, LibraryError):
        raise
    except BaseException as error:  # a broken library may raise anything, for example SystemExit
        package = package or PACKAGES.get(library, library)
        culprit = at_fault(error) or library  # it may be a dependency
        packages = [package] if culprit == library else [package, PACKAGES.get(culprit, culprit)]
        broken = f"{package} is needed {purpose} and cannot be used ({_reason(error)})"
        raise LibraryError(f"{broken}: {_remedy(culprit, *packages)}") from error


def at_fault(error: BaseException) -> str | None:
    """The library that caused ``error``: a name is missing from it, or its code failed."""
    asked = error.obj if isinstance(error, AttributeError) else None
    named = asked.__name__ if isinstance(asked, ModuleType) else getattr(error, "name", None)
    frames = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    for module in (named, *reversed(frames)):
        library = str(module).partition(".")[0]
        if library in LIBRARIES:
            return library
        if library in OURS and module is not named:
            return None
    return None


def failure(library: str, error: BaseException) -> str:
    """The message for an ``error`` that ``library`` caused."""
    return f"{library} fails ({_reason(error)}): {_remedy(library, PACKAGES.get(library, library))}"


@cache
def note_once(text: str) -> None:
    """Show a note about a missing feature, once per process."""
    warnings.warn(text, Notice, stacklevel=2)


def version(package: str) -> str | None:
    """The version of ``package``; None if it is not installed or its metadata are damaged."""
    try:
        return distribution(package).version
    except Exception:
        return None


def _reason(error: BaseException) -> str:
    said, kind = first_line(error).rstrip("."), type(error).__name__
    return said if said and isinstance(error, ImportError) else f"{kind}: {said}" if said else kind


def _remedy(library: str, *packages: str) -> str:
    """How to repair ``library``: possible obstacles, and the command that installs it."""
    hints = []
    if found := _hiding(library, packages[-1]):
        hints.append(f"rename {found} if it is yours, since Python finds it first")
    settings = VARIABLES.get(packages[0])
    if settings and (names := sorted(name for name in os.environ if name.startswith(settings))):
        hints.append(f"unset {' and '.join(names)}")
    again = " --force-reinstall" * any(map(_site, packages))  # otherwise pip considers it installed
    return ", or ".join([*hints, f"{quoted(sys.executable)} -m pip install {' '.join(packages)}{again}"])


def _hiding(library: str, package: str) -> str | None:
    """The file or folder that Python finds instead of the installed library."""
    try:
        spec = find_spec(library)
    except (ImportError, ValueError):
        return None
    found = (spec.origin or next(iter(spec.submodule_search_locations or ()), None)) if spec else None
    if found is None or "site-packages" in found or "dist-packages" in found:
        return None
    path, site = Path(found), _site(package)
    if site and path.is_relative_to(site):
        return None
    return str(path.parent if path.stem == "__init__" else path)


def _site(package: str) -> Path | None:
    """The folder that ``package`` is installed in."""
    try:
        return Path(str(distribution(package).locate_file(""))).resolve()
    except Exception:  # it is not installed, or its metadata are damaged
        return None


def _end_in_a_sentence(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """An exception hook that prints one sentence."""
    if not isinstance(error, LibraryError):
        sys.__excepthook__(kind, error, trace)
        return
    sys.stderr.write(f"error: {error}\n")
    sys.exit(2)
