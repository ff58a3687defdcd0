"""Writing files and folders whole or not at all."""

import glob
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EACCES, EBADF, EINVAL, EMFILE, ENOSYS, ENOTSUP, EOPNOTSUPP, EPERM
from math import isfinite
from pathlib import Path
from secrets import token_hex
from typing import Any

from cnn.support import system
from cnn.support.errors import ArgumentError

UNFINISHED = ".unfinished"  # how the name ends of what is being written
UNSUPPORTED = (EACCES, EBADF, EINVAL, ENOSYS, ENOTSUP, EOPNOTSUPP, EPERM)  # how file systems refuse a call


def write_whole(path: str | Path, data: bytes) -> None:
    """Put ``data`` at ``path``: readers see the old file or the new one, never a part, after a crash too.

    Raises OSError where the folder cannot be written or the disk is full.
    """
    path = Path(path)
    beside = _beside(path)
    try:
        try:
            with beside.open("xb") as file:
                file.write(data)
                file.flush()
                flush(file.fileno())
            system.replace(beside, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(beside)
            raise
        flush_folder(path.parent)
    except OSError as error:  # of the temporary file, which nobody has heard of
        raise OSError(error.errno, error.strerror, str(path)) from error


def flush(handle: int) -> None:
    """Have the disk keep what was written; a file system that has no such call is left to itself."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def flush_folder(path: Path) -> None:
    """Have the disk keep which files the folder holds, if the system lets a folder be opened."""
    try:
        handle = system.open_folder(path)
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return
        raise
    if handle is None:
        return
    try:
        flush(handle)
    finally:
        os.close(handle)


@contextmanager
def making_whole(path: Path) -> Iterator[Path]:
    """A folder to be filled, which is at ``path`` after the block, or not at all; its parents are made too.

    What others that were killed or come too late have begun is removed. Raises OSError if that fails, or if
    another process has put something at ``path`` meanwhile.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = _beside(path)
    beside.mkdir()
    try:
        yield beside
        _move_folder(beside, path)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{UNFINISHED}"):
        shutil.rmtree(left, ignore_errors=True)


def _beside(path: Path) -> Path:
    """A name that nobody else has, next to ``path``, for what is to be there when it is whole."""
    return path.with_name(f".{path.name}.{token_hex(4)}{UNFINISHED}")


def _move_folder(source: Path, path: Path) -> None:
    """Rename a folder of files; its files one by one if the file system cannot rename a folder."""
    try:
        system.rename(source, path)
    except OSError as error:
        if error.errno not in (*UNSUPPORTED, EMFILE) or os.path.lexists(path):  # gcsfuse says EMFILE
            raise
        path.mkdir()
        for file in source.iterdir():
            system.rename(file, path / file.name)
        source.rmdir()


def remove_unfinished(folder: Path) -> None:
    """Remove what writers of files in ``folder`` and below that were killed have left there."""
    for left in folder.rglob(f".*{UNFINISHED}"):
        with suppress(OSError):
            left.unlink()


def told(error: Exception) -> str:
    """An error as a sentence tells it: of the system's, the file and the reason without its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def require_place(path: Path) -> None:
    """Raise ArgumentError unless a file could be put at ``path``, before the work for it is done."""
    if path.is_dir():
        raise ArgumentError(f"{path} is a folder: expected the name of a file")
    try:
        require_writable(path.parent)
    except OSError as error:
        what = f"cannot be written ({error.strerror})" if path.parent.exists() else "does not exist"
        raise ArgumentError(f"{path} cannot be made, the folder {path.parent} {what}: name another") from None


def require_writable(folder: Path) -> None:
    """Raise OSError unless a file can be made in ``folder``."""
    if not os.access(folder, os.W_OK | os.X_OK):  # not every file system does what its permissions say
        probe = _beside(folder / "probe")
        probe.open("xb").close()
        probe.unlink()


def write_json(path: str | Path, value: Any) -> None:
    """Put ``value`` at ``path`` as JSON for people and programs."""
    write_whole(path, (to_json(value, indent=2) + "\n").encode())


def to_json(value: Any, indent: int | None = None) -> str:
    """``value`` as JSON, which has no NaN and no infinity: they become null."""
    return json.dumps(_without_nan(value), indent=indent, allow_nan=False)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def leaves(value: Any) -> Iterator[Any]:
    """All names, texts and numbers in JSON values."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    else:
        yield value
