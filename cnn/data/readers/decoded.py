"""Decodes many pictures once, in parallel, into an array in the cache folder, which is then memory-mapped."""

import hashlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backends.cpu import threads
from cnn.data.fitting import fitted
from cnn.data.published.downloads import cache_folder
from cnn.data.readers.photographs import decode, tolerating_faults
from cnn.support.errors import DataError, Notice
from cnn.support.files import making_whole, write_json
from cnn.support.libraries import require
from cnn.support.streams import log
from cnn.support.terminal import live_console, write_line

Array = np.ndarray

IMAGES, UNREADABLE = "images.npy", "unreadable.json"  # the files in a folder of the cache
FORMAT = 1  # changes with the way in which pictures are read or fitted
AT_ONCE = 256  # pictures that wait for a thread or have been decoded
MOST_UNREADABLE = 0.1  # of all pictures; beyond that they are refused
NAMED = 5  # unreadable pictures that the note names
MANY = 1000  # pictures whose decoding is announced if there is no terminal for a bar
MONTH = 30 * 24 * 3600  # seconds after which arrays that were not used are removed


class Decoded(NamedTuple):
    """The images (N, C, H, W) of the pictures that can be read, in order, and which pictures these are."""

    images: Array
    is_readable: Array


def decoded(root: Path, names: Sequence[str], shape: tuple[int, int, int], fit: str) -> Decoded:
    """The pictures ``names`` in the folder ``root``, each fitted to ``shape``; uint8, mapped if possible.

    They are decoded again only if the name, the size or the time of one of them has changed. A note names
    those that cannot be read. Raises DataError if more than a tenth of them cannot be read.
    """
    try:
        folder = cache_folder() / "pictures" / key_of(root, names, shape, fit)
        images, reasons = _read(folder, len(names), shape) or _make(folder, root, names, shape, fit)
    except OSError as error:
        warnings.warn(
            f"the decoded pictures are not cached ({error.strerror or error}): they are decoded again the "
            "next time, and have to fit into memory",
            Notice,
            stacklevel=2,
        )
        images = np.empty((len(names), *shape), np.uint8)
        reasons = _fill(images, root, names, shape, fit)
    _note_unreadable(root, reasons, len(names))
    is_readable = np.array([name not in reasons for name in names])
    return Decoded(images[: is_readable.sum()], is_readable)


def _read(folder: Path, count: int, shape: tuple[int, ...]) -> tuple[Array, dict[str, str]] | None:
    """The images in a folder of the cache, and why others cannot be read.

    If the folder is missing, incomplete or damaged, the result is None, and the folder is removed.
    """
    try:
        images = np.load(folder / IMAGES, mmap_mode="r")
        reasons = json.loads((folder / UNREADABLE).read_text("utf-8"))
        if (images.shape, images.dtype) == ((count, *shape), np.uint8) and isinstance(reasons, dict):
            os.utime(folder)  # it is in use
            return images, {str(name): str(reason) for name, reason in reasons.items()}
    except Exception:  # a damaged file may raise nearly anything inside NumPy
        pass
    shutil.rmtree(folder, ignore_errors=True)
    return None


def _make(
    folder: Path, root: Path, names: Sequence[str], shape: tuple[int, ...], fit: str
) -> tuple[Array, dict[str, str]]:
    remove_unused(folder.parent)
    with making_whole(folder) as unfinished:
        images = np.lib.format.open_memmap(unfinished / IMAGES, "w+", np.uint8, (len(names), *shape))
        reasons = _fill(images, root, names, shape, fit)
        images.flush()
        del images  # Windows does not rename a folder with a mapped file
        write_json(unfinished / UNREADABLE, reasons)
    return np.load(folder / IMAGES, mmap_mode="r"), reasons


def key_of(root: Path, names: Sequence[str], *settings: Any) -> str:
    """A hash of how the pictures are treated, and of their names, sizes and times."""
    pillow = require("PIL", "to read pictures", "pillow").__version__
    digest = hashlib.sha256(json.dumps([FORMAT, pillow, *settings]).encode())
    for name in names:
        try:
            found = (root / name).stat()
        except OSError:  # the reader will say why
            continue
        digest.update(json.dumps([name, found.st_size, found.st_mtime_ns]).encode())
    return digest.hexdigest()[:32]


def _fill(
    images: Array, root: Path, names: Sequence[str], shape: tuple[int, ...], fit: str
) -> dict[str, str]:
    """Write the pictures that can be read into ``images``, in order.

    Returns why the others cannot be read, by name.
    """

    def image(name: str) -> Array | DataError:
        try:
            picture = decode(root / name)
        except DataError as error:
            return error
        try:
            return fitted(picture, shape, fit)
        except DataError as error:
            return DataError(f"{root / name}: fit is {fit!r}: {error}")

    count, reasons = 0, {}
    with _shown(len(names)) as advance, tolerating_faults(), _pool() as pool:
        for first in range(0, len(names), AT_ONCE):
            some = names[first : first + AT_ONCE]
            for name, found in zip(some, pool.map(image, some), strict=True):
                if isinstance(found, DataError):
                    reasons[name] = str(found)
                else:
                    images[count] = found
                    count += 1
                advance(1)
            _require_few(root, reasons, len(names))
    return reasons


@contextmanager
def _pool() -> Iterator[ThreadPoolExecutor]:
    """Threads that decode; after an exception, such as Ctrl-C, waiting pictures are not decoded."""
    pool = ThreadPoolExecutor(threads.count())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _require_few(root: Path, reasons: dict[str, str], total: int) -> None:
    if len(reasons) > max(1, MOST_UNREADABLE * total):
        raise DataError(
            f"{root}: more than {MOST_UNREADABLE:.0%} of the {total:,} pictures cannot be used, such as "
            f"{next(iter(reasons.values()))}"
        )


def _note_unreadable(root: Path, reasons: dict[str, str], total: int) -> None:
    _require_few(root, reasons, total)
    if len(reasons) == total:
        raise DataError(f"{root}: no picture can be read: {next(iter(reasons.values()))}")
    if reasons:
        more = f"; and {len(reasons) - NAMED:,} more" if len(reasons) > NAMED else ""
        which = "; ".join(list(reasons.values())[:NAMED])
        warnings.warn(f"skipped {len(reasons):,} of {total:,} pictures: {which}{more}", Notice, stacklevel=3)


@contextmanager
def _shown(total: int) -> Iterator[Callable[[int], object]]:
    """Show on standard error how many pictures have been decoded: a bar on a terminal, a line elsewhere.

    Yields a function to call with the number of further pictures.
    """
    console = live_console()
    if console is None:
        if total >= MANY:
            write_line(f"decoding {total:,} pictures", log())
        yield lambda count: None
        return
    progress = require("rich.progress", "to show a bar")
    columns = (
        progress.TextColumn("decoding pictures"),
        progress.BarColumn(bar_width=24),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)


def remove_unused(folder: Path) -> None:
    """Remove the folders and files in ``folder`` that have not been used for a month."""
    with suppress(OSError):
        for each in folder.iterdir():
            if time.time() - each.stat().st_mtime > MONTH:
                shutil.rmtree(each) if each.is_dir() else each.unlink()
