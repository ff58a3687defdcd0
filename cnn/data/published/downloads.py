"""Data sets that are downloaded once into the user's cache folder, and verified each time they are used."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from urllib.parse import urlsplit

from backends.cache import user_folder
from cnn.data.published.transfer import TransferError, received
from cnn.data.readers.common import unreadable
from cnn.support import system
from cnn.support.errors import DataError
from cnn.support.files import flush
from cnn.support.libraries import require
from cnn.support.streams import log
from cnn.support.terminal import live_console, write_line

CACHE_VARIABLE = "CNN_DATA"

_PART = ".part"  # the suffix of files that are being downloaded
_ABANDONED = 3600.0  # seconds without a new byte, after which a download is considered dead
_LONG = 10_000_000  # bytes; shorter downloads are not announced


@dataclass(frozen=True)
class PublishedFile:
    """A published file; ``size`` in bytes."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Published:
    """A data set: its files, and its mirrors in the order in which they are tried."""

    name: str
    files: tuple[PublishedFile, ...]
    mirrors: tuple[str, ...]  # URLs without the file's name

    def fetch(self) -> list[Path]:
        """The paths of its files in the cache, each verified; missing files are downloaded.

        Raises DataError if that fails.
        """
        folder = cache_folder() / self.name
        return [self._fetch(file, folder) for file in self.files]

    @property
    def is_here(self) -> bool:
        """Whether all files are in the cache, in their sizes; :meth:`fetch` verifies them."""
        paths = [(cache_folder() / self.name / file.name, file.size) for file in self.files]
        return all(path.is_file() and path.stat().st_size == size for path, size in paths)

    def _fetch(self, file: PublishedFile, folder: Path) -> Path:
        path = folder / file.name
        fault = _fault(path, file)
        if fault:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                _remove_abandoned(folder)
                self._from_a_mirror(file, path, fault)
            except OSError as error:
                raise DataError(
                    f"{folder} cannot store {file.name}, {file.size:,} bytes ({error.strerror or error}): "
                    f"free some space there, or name another folder for downloads in {CACHE_VARIABLE}"
                ) from error
        return path

    def _from_a_mirror(self, file: PublishedFile, path: Path, fault: str) -> None:
        refusals = []
        for mirror in self.mirrors:
            try:
                return _download(mirror + file.name, file, path)
            except TransferError as error:
                refusals.append(f"{mirror}{file.name}: {error}")
        names = ", ".join(each.name for each in self.files)
        raise DataError(
            f"{self.name}: {path} {fault} and cannot be downloaded ({'; '.join(refusals)}): "
            f"download {names} manually into that folder, or give the path of your own copy instead of "
            f"{self.name}; set {CACHE_VARIABLE} to use another folder for downloads than {path.parent.parent}"
        )


def cache_folder() -> Path:
    """The folder for downloads: the folder that CNN_DATA names, or else the user's cache folder."""
    named = os.path.expanduser(os.environ.get(CACHE_VARIABLE, ""))
    if named.startswith("~"):
        raise DataError(
            f"{CACHE_VARIABLE} is {named}, but there is no such home folder: give an absolute path"
        )
    if named:
        return Path(named).absolute()
    require("platformdirs", f"to find the folder for downloads if {CACHE_VARIABLE} names none")
    try:
        return user_folder()
    except FileNotFoundError as error:
        raise DataError(f"there is no folder for downloads, {error}: name one in {CACHE_VARIABLE}") from error


def _fault(path: Path, file: PublishedFile) -> str | None:
    """The fault of the file at ``path``; None if it is the published file."""
    if not os.path.exists(path):
        return "is missing"
    if not path.is_file():
        raise DataError(
            f"{path} is a folder or a device where the file {file.name} belongs: remove it, "
            f"or name another folder for downloads in {CACHE_VARIABLE}"
        )
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size != file.size:
                return f"is damaged ({size:,} bytes instead of {file.size:,})"
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from error
    return None if digest == file.sha256 else f"is damaged (sha256 {digest})"


def _download(url: str, file: PublishedFile, path: Path) -> None:
    """Download the file to ``path``; it appears there only when it is complete and verified."""
    part = path.with_name(f".{file.name}.{token_hex(8)}{_PART}")  # a unique name
    digest = hashlib.sha256()
    try:
        with part.open("xb") as out, _shown(url, file) as advance:
            for piece in received(url, file.size):
                out.write(piece)
                digest.update(piece)
                advance(len(piece))
            out.flush()
            flush(out.fileno())
        if digest.hexdigest() != file.sha256:
            raise TransferError(f"sends another file (sha256 {digest.hexdigest()})")
        system.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _remove_abandoned(folder: Path) -> None:
    """Remove the partial files of killed downloads."""
    for part in folder.glob(f".*{_PART}"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > _ABANDONED:
                part.unlink()


@contextmanager
def _shown(url: str, file: PublishedFile) -> Iterator[Callable[[int], object]]:
    """Announce a long download on standard error; on a terminal, also show its progress.

    Yields a function to call with the number of bytes received.
    """
    if file.size < _LONG:
        yield lambda count: None
        return
    decimal = require("rich.filesize", "to print").decimal
    write_line(f"downloading {file.name} ({decimal(file.size)}) from {urlsplit(url).hostname}", log())
    console = live_console()
    if console is None:
        yield lambda count: None
        return
    progress = require("rich.progress", "to show a bar")
    columns = progress.BarColumn(bar_width=24), progress.DownloadColumn(), progress.TimeRemainingColumn()
    with progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(file.name, total=file.size)
        yield lambda count: bar.advance(task, count)
