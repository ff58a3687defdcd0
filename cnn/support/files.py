"""Atomic writing of files and folders."""

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

UNFINISHED = ".unfinished"  # the suffix of files and folders that are being written
UNSUPPORTED = (EACCES, EBADF, EINVAL, ENOSYS, ENOTSUP, EOPNOTSUPP, EPERM)  # call not supported


def write_whole(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically: readers see the old or the new file, even after a crash.

    Raises OSError if the folder cannot be written or the disk is full.
    """
    path = Path(path)
    temporary = _temporary_path(path)
    try:
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                flush(file.fileno())
            system.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        flush_folder(path.parent)
    except OSError as error:  # it names the temporary file, which the user does not know
        raise OSError(error.errno, error.strerror, str(path)) from error


def flush(handle: int) -> None:
    """Flush a file to the disk; file systems that cannot do this are ignored."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def flush_folder(path: Path) -> None:
    """Flush the entries of a folder to the disk, if the system can open folders."""
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
    """Yields a folder to fill, which is renamed to ``path`` after the block; parent folders are created.

    Unfinished folders of processes that were killed or were too late are removed. Raises OSError if that
    fails, or if another process has created ``path`` in the meantime.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_path(path)
    temporary.mkdir()
    try:
        yield temporary
        _move_folder(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{UNFINISHED}"):
        shutil.rmtree(left, ignore_errors=True)


def _temporary_path(path: Path) -> Path:
    """A unique name next to ``path`` for a file or folder that is not finished yet."""
    return path.with_name(f".{path.name}.{token_hex(4)}{UNFINISHED}")


def _move_folder(source: Path, path: Path) -> None:
    """Rename a folder of files; if the file system cannot rename folders, rename its files one by one."""
    try:
        system.rename(source, path)
    except OSError as error:
        if error.errno not in (*UNSUPPORTED, EMFILE) or os.path.lexists(path):  # gcsfuse reports EMFILE
            raise
        path.mkdir()
        for file in source.iterdir():
            system.rename(file, path / file.name)
        source.rmdir()


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files that killed processes left in ``folder`` and below."""
    for left in folder.rglob(f".*{UNFINISHED}"):
        with suppress(OSError):
            left.unlink()


def reason_of(error: Exception) -> str:
    """The text of an error for a message; for an OSError the file and the reason, without its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def require_place(path: Path) -> None:
    """Raise ArgumentError unless a file can be written to ``path``; call this before doing the work."""
    if path.is_dir():
        raise ArgumentError(f"{path} is a folder: expected the name of a file")
    try:
        require_writable(path.parent)
    except OSError as error:
        what = f"cannot be written ({error.strerror})" if path.parent.exists() else "does not exist"
        raise ArgumentError(
            f"{path} cannot be written: the folder {path.parent} {what}; name another"
        ) from None


def require_writable(folder: Path) -> None:
    """Raise OSError unless a file can be created in ``folder``."""
    if not os.access(folder, os.W_OK | os.X_OK):  # some file systems show wrong permissions
        probe = _temporary_path(folder / "probe")
        probe.open("xb").close()
        probe.unlink()


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` to ``path`` as indented JSON."""
    write_whole(path, (to_json(value, indent=2) + "\n").encode())


def to_json(value: Any, indent: int | None = None) -> str:
    """``value`` as JSON; NaN and infinities, which JSON lacks, become null."""
    return json.dumps(_without_nan(value), indent=indent, allow_nan=False)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def leaves(value: Any) -> Iterator[Any]:
    """All names, strings and numbers in a JSON value."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    else:
        yield value
