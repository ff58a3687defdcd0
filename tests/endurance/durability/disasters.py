"""What really happens to a run's folder in the middle of a training."""

import ctypes
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from durability.bench import MIDDLE, Bench, at_step
from durability.training import RUN, faults


class Unavailable(Exception):
    """Something cannot be made to happen here: for want of a program, or of root's rights."""


@dataclass(frozen=True)
class Disaster:
    """Something that happens, and is repaired."""

    name: str
    reason: str  # the system's; "" where the training is to come to its end all the same
    strike: Callable[[Path], object]  # given the run's folder, in the training's process
    repair: Callable[[Path], object] = lambda run: None
    on_own_disk: bool = False


def suffer(bench: Bench, disaster: Disaster) -> list[str]:
    """Let it happen; -> what was otherwise than it should be. Raises Unavailable."""
    shutil.rmtree(bench.tried, ignore_errors=True)
    bench.tried.mkdir()
    if not disaster.on_own_disk:
        return _suffer(bench, disaster)
    with own_disk(bench.tried):
        return _suffer(bench, disaster)


def _suffer(bench: Bench, disaster: Disaster) -> list[str]:
    run = bench.tried / RUN
    outcome = bench.command(bench.tried, "--no-report", before=at_step(MIDDLE, lambda: disaster.strike(run)))
    how = (
        "`cnn train --resume run` resumes from " if run.exists() else "there is no folder run to resume from"
    )
    disaster.repair(run)
    found = faults(run)
    if disaster.reason:
        sentence = rf"error: {RUN}/\S+: {disaster.reason}; {how}"
        is_told = outcome.errors == [outcome.last] and re.match(sentence, outcome.last)
        is_right = outcome.code == 2 and is_told
    else:
        is_right = outcome.code == 0 and not outcome.errors
    if not is_right or "Traceback" in outcome.err:
        found.append(f"it ended with {outcome.code} and said: {outcome.err!r}")
    return found + bench.wrong_resumption(bench.tried)


@contextmanager
def own_disk(folder: Path) -> Iterator[None]:
    """A small disk at ``folder``; Unavailable where none can be had."""
    _run("mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder)
    try:
        yield
    finally:
        _run("umount", folder)


def _run(*command: str | Path) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unavailable(str(error)) from error


def _change_rights(path: Path, mode: int) -> None:
    """Make them count for this process too where it is root's, by giving its privileges up (capset(2))."""
    path.chmod(mode)
    libc = ctypes.CDLL(None, use_errno=True)
    header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if libc.capset(header, nothing):
        raise OSError(ctypes.get_errno(), "capset")


def _fill_disk(run: Path) -> None:
    with suppress(OSError), open(run.parent / "filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))


def _limit_files(run: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))


def _moved(run: Path) -> Path:
    return run.with_name("moved")


DISASTERS = [
    Disaster("the folder is removed", "No such file or directory", shutil.rmtree),
    Disaster(
        "the folder is renamed",
        "No such file or directory",
        lambda run: run.rename(_moved(run)),
        lambda run: _moved(run).rename(run),
    ),
    Disaster(
        "the folder may not be written",
        "Permission denied",
        lambda run: _change_rights(run, 0o555),
        lambda run: run.chmod(0o755),
    ),
    Disaster(
        "the checkpoint may not be written",
        "",
        lambda run: _change_rights(run / "checkpoint.safetensors", 0o444),
    ),
    Disaster("files may be no larger than 1 KB", "File too large", _limit_files),
    Disaster(
        "the checkpoint may not be replaced",
        "Operation not permitted",
        lambda run: _run("chattr", "+i", run / "checkpoint.safetensors"),
        lambda run: _run("chattr", "-i", run / "checkpoint.safetensors"),
    ),
    Disaster(
        "the disk is full",
        "No space left on device",
        _fill_disk,
        lambda run: os.unlink(run.parent / "filler"),
        on_own_disk=True,
    ),
    Disaster(
        "the disk can only be read from then on",
        "Read-only file system",
        lambda run: _run("mount", "-o", "remount,ro", run.parent),
        lambda run: _run("mount", "-o", "remount,rw", run.parent),
        on_own_disk=True,
    ),
]
