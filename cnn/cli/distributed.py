"""``cnn train`` in several processes: starting them, and what differs between them."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any, NoReturn

from backends.cpu.threads import available_cores
from backends.text import quoted
from cnn.cli.output import say
from cnn.support.errors import ArgumentError, DeviceUnavailable
from cnn.support.files import reason_of
from cnn.support.streams import log
from cnn.support.system import HANG_UP, STOP_SIGNALS
from cnn.support.terminal import write_line
from cnn.training.callbacks import Callback
from cnn.training.distributed import Communicator, launcher
from cnn.training.distributed.mpiexec import Mpiexec
from cnn.training.distributed.start import leave
from cnn.training.run import Run

KILL = 9  # SIGKILL, which Windows does not have
TOLD = "CNN_STARTED"  # names the file in which the first process says what it has started
BANNER_BEGINS = re.compile(r"={60}|-{60}")  # MPICH's and Open MPI's, after the last line of ours
LAUNCHER = re.compile(r"\[mpiexec@|\[proxy:|Press Ctrl-C again")


def start(processes: int) -> int:
    """Run this command in several processes on this machine; -> the exit code."""
    if launcher.is_launched():
        raise ArgumentError(
            f"--processes is {processes}, but a launcher has started {launcher.size()} already: leave one of "
            "the two out"
        )
    mpiexec = Mpiexec.find()
    with tempfile.TemporaryDirectory(prefix="cnn-") as folder:
        told = Path(folder) / "started.json"
        command = mpiexec.command(processes, [sys.executable, "-P", "-m", "cnn", *sys.argv[1:]])
        with _passing_on_signals() as running:
            started = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=os.environ | {TOLD: str(told), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,  # Ctrl-C reaches it once, from here
            )
            running.append(started)
            streams = ((started.stdout, sys.stdout), (started.stderr, sys.stderr))
            copies = [threading.Thread(target=_copy, args=pair) for pair in streams]
            for copy in copies:
                copy.start()
            code = started.wait()
            for copy in copies:
                copy.join()
        number = _signal_of(code)
        if number:
            say(f"error: {_ended_by(number, processes, told)}")
            return 128 + number
        return code


def was_started_here() -> bool:
    """Whether :func:`start` has started this process, in a command line that still has --processes."""
    return TOLD in os.environ


@contextmanager
def _passing_on_signals() -> Iterator["list[subprocess.Popen[bytes]]"]:
    """Send the signals that stop this process to the processes in the list instead."""
    running: list[subprocess.Popen[bytes]] = []

    def receive(number: int, frame: FrameType | None) -> None:
        for process in running:
            process.send_signal(signal.SIGTERM if number == HANG_UP else number)

    heard = [number for number in STOP_SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, receive) for number in heard}
    try:
        yield running
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _copy(source: IO[bytes], target: IO[str]) -> None:
    """Copy lines as they come, except what the launcher says about a process that was ended."""
    in_banner = False
    for line in source:
        text = line.decode(errors="backslashreplace")
        in_banner = in_banner or bool(BANNER_BEGINS.match(text))
        if not in_banner and not LAUNCHER.match(text):
            with suppress(OSError, ValueError):
                target.write(text)
                target.flush()


def _signal_of(code: int) -> int:
    """The signal that has ended a process, from the launcher's exit code; 0 if none has."""
    number = -code if code < 0 else code % 128
    is_ours = code in (1, 2) or (code > 128 and number in STOP_SIGNALS)
    return number if number in signal.valid_signals() and not is_ours else 0


def _ended_by(number: int, processes: int, told: Path) -> str:
    """What to say if a signal has ended one of the processes."""
    cause = ", probably because the memory is too small" if number == KILL else ""
    what = f"one of {processes} processes was ended (signal {number}{cause})"
    try:
        run, shards = json.loads(told.read_text())
    except (OSError, ValueError):
        return f"{what} before the training run began"
    most = f"any number of processes up to {shards}"
    return f"{what}; `cnn train --resume {quoted(run)}` resumes from the last checkpoint, with {most}"


def advise(group: Communicator, run: Path) -> None:
    """Let the watchdog say how to resume this run."""
    again = f"`cnn train --resume {quoted(str(run))}`"
    group.watchdog.advice = f"{again} resumes from the last checkpoint, if there is one"


class Started(Callback):
    """Lets the process that has started this one know the folder of the run."""

    def __init__(self, run: Path, shards: int) -> None:
        self._told = json.dumps([str(run), shards])

    def on_start(self, run: Run) -> None:
        if path := os.environ.get(TOLD):
            Path(path).write_text(self._told)


def own_device(group: Communicator, device: str) -> str:
    """The device that this process takes: each of several on a machine has a GPU of its own.

    Raises ArgumentError for a GPU that several would share.
    """
    everyone = group.gather((group.host, os.environ.get("CUDA_VISIBLE_DEVICES")))
    asked = (os.environ.get("CNN_DEVICE") or device) if device == "auto" else device
    here = [rank for rank, (host, _) in enumerate(everyone) if host == group.host]
    visible = {shown for host, shown in everyone if host == group.host}
    are_shared_out = len(visible) > 1  # by the launcher
    if len(here) == 1 or are_shared_out or not re.match("auto|cuda", asked):
        return device
    if asked.startswith("cuda:"):
        raise ArgumentError(
            f"the device is {asked}, but there are {len(here)} processes on this machine, which need a GPU "
            "each: take cuda"
        )
    gpus = _count_gpus()
    if 0 < gpus < len(here):
        raise ArgumentError(
            f"{len(here)} processes on {group.host} share {gpus} GPU{'s' * (gpus > 1)}, but each needs one: "
            f"start {gpus}, or take --device cpu"
        )
    return f"cuda:{here.index(group.rank)}" if gpus else device


def _count_gpus() -> int:
    try:
        from backends.cuda import backend  # which takes a moment to import

        return backend.count()
    except DeviceUnavailable:
        return 0


def end_all(group: Communicator, error: BaseException, code: int) -> NoReturn:
    """End all processes because of an error that this one has and the others may not have."""
    what = reason_of(error) if isinstance(error, OSError) else str(error)
    fail(f"{what}; {group.watchdog.advice}", code)


def fail(message: str, code: int) -> NoReturn:
    """End all processes with the message of this one."""
    if rank := launcher.rank():
        if "mpi4py.MPI" not in sys.modules and launcher.local_rank() > 0:
            leave(code)  # before it begins, all processes of a machine have the same error
        time.sleep(5)  # if the first process has the same error, it says so and ends this one
        message = f"{Communicator.name_of(rank, socket.gethostname())}: {message}"
    write_line(f"error: {message}", log())
    leave(code)


def notes(group: Communicator, processor: Any) -> list[str]:
    """What slows the processes down, or makes them differ."""
    found = []
    own = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(available_cores())
    everyone = group.gather((group.host, set(own), processor))
    here = [cores for host, cores, _ in everyone if host == group.host]
    cores = len(set().union(*here))
    if len(here) > cores:
        shared = f"{cores} core{'s' * (cores > 1)}"
        found.append(f"{len(here)} processes share {shared}; {cores} would be as fast")
    for rank, (_, _, other) in enumerate(everyone):
        if other != processor and group.is_first:
            found.append(
                f"process {rank} runs on another processor than process 0: the weights will not be the same "
                "bits as on one machine"
            )
            break
    return found


def say_slowest(group: Communicator, seconds: float, waited_before: float) -> None:
    """Say which process the others have waited for, if they have waited long in so many seconds."""
    shares = group.gather(((group.watchdog.waited - waited_before) / seconds, group.host))
    slowest = min(range(len(shares)), key=lambda rank: shares[rank][0])
    others = [share for rank, (share, _) in enumerate(shares) if rank != slowest]
    if others and min(others) > 0.25 + shares[slowest][0]:
        name = group.name_of(slowest, shares[slowest][1])
        say(f"note: {name} is the slowest: the others wait {sum(others) / len(others):.0%} of the time")
