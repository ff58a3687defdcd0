"""Two network namespaces of this machine that are joined by a cable, as if they were two machines."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from secrets import token_hex
from types import TracebackType

INTERFACE = "wire0"  # in both namespaces
ADDRESSES = ("10.99.0.1", "10.99.0.2")
OVER_TCP = {"UCX_TLS": "tcp", "UCX_NET_DEVICES": INTERFACE}  # UCX sees through namespaces: no shared memory
BURST = 16_000  # bytes that the token bucket lets pass at once


class NoWire(Exception):
    """The namespaces cannot be made here; the message says why."""


class CommandFailed(Exception):
    """A program in the namespaces has failed; the message has what it said."""


class Wire:
    """``with Wire() as wire:`` makes the namespaces; they are removed afterwards.

    With ``rate`` (bits a second), packets leave each of them at this speed, and arrive ``delay`` seconds
    later. If the kernel has no netem, there is no delay, and :attr:`delay` is 0.
    """

    def __init__(self, rate: float | None = None, delay: float = 0.0) -> None:
        self.rate, self.delay = rate, delay
        token = token_hex(4)
        self.namespaces = [f"cnn-{token}-{end}" for end in "ab"]

    def __enter__(self) -> "Wire":
        if sys.platform != "linux":
            raise NoWire("network namespaces need Linux")
        if os.geteuid():
            raise NoWire("network namespaces need root")
        for tool in ("ip", "tc") if self.rate else ("ip",):
            if shutil.which(tool) is None:
                raise NoWire(f"network namespaces need the command {tool}, of iproute2")
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cnn-"))
            self._shell = Path(folder) / "shell"  # which the launcher calls in place of ssh
            stack.callback(self._remove)
            try:
                self._make()
            except subprocess.CalledProcessError as error:
                raise NoWire(f"`{' '.join(error.cmd)}` failed ({error.stderr.strip()})") from None
            self._cleanup = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def _make(self) -> None:
        first, second = self.namespaces
        for name in self.namespaces:
            call("ip", "netns", "add", name)
        ends = "netns", first, "type", "veth", "peer", "name", INTERFACE, "netns", second
        call("ip", "link", "add", INTERFACE, *ends)
        for name, address in zip(self.namespaces, ADDRESSES, strict=True):
            call("ip", "-n", name, "address", "add", f"{address}/24", "dev", INTERFACE)
            call("ip", "-n", name, "link", "set", "lo", "up")
            call("ip", "-n", name, "link", "set", INTERFACE, "up")
            if self.rate:
                self._limit(name, self.rate)
        self._wait_until_up()
        cases = zip(ADDRESSES, self.namespaces, strict=True)
        chosen = "".join(f"{address}) namespace={name} ;;\n" for address, name in cases)
        self._shell.write_text(
            f'#!/bin/sh\ncase $1 in\n{chosen}esac\nshift\nexec ip netns exec "$namespace" sh -c "$*"\n'
        )
        self._shell.chmod(0o700)

    def _wait_until_up(self) -> None:
        """Both ends are up a moment after they were set up; until then MPI does not find them."""
        until = time.monotonic() + 10
        while any(
            " UP " not in call("ip", "-n", name, "-br", "link", "show", INTERFACE) for name in self.namespaces
        ):
            if time.monotonic() > until:
                raise NoWire(f"the interfaces {INTERFACE} do not come up")
            time.sleep(0.05)

    def _limit(self, name: str, rate: float) -> None:
        limited = "tc", "-n", name, "qdisc", "add", "dev", INTERFACE, "root"
        bits = f"{rate:.0f}bit"
        if self.delay:
            try:
                call(*limited, "netem", "rate", bits, "delay", f"{self.delay * 1e6:g}us", "limit", "100000")
                return
            except subprocess.CalledProcessError:
                self.delay = 0.0
        call(*limited, "tbf", "rate", bits, "burst", str(BURST), "latency", "50ms")

    def _remove(self) -> None:
        for name in self.namespaces:
            with suppress(subprocess.CalledProcessError, ProcessLookupError):
                for process in call("ip", "netns", "pids", name).split():
                    os.kill(int(process), 9)
            with suppress(subprocess.CalledProcessError):
                call("ip", "netns", "delete", name)

    def inside(self, end: int, program: Sequence[str]) -> list[str]:
        """The command line that runs ``program`` in a namespace, 0 or 1."""
        return ["ip", "netns", "exec", self.namespaces[end], *program]

    def across(self, mpiexec: Path, program: Sequence[str]) -> list[str]:
        """The command line that runs ``program`` as two processes, one in each namespace; for MPICH."""
        launcher = "-launcher", "rsh", "-launcher-exec", str(self._shell), "-iface", INTERFACE
        return self.inside(
            0, [str(mpiexec), *launcher, "-hosts", ",".join(ADDRESSES), "-ppn", "1", "-n", "2", *program]
        )

    def run(
        self, mpiexec: Path, program: Sequence[str], variables: Mapping[str, str], seconds: float
    ) -> None:
        """Run ``program`` as two processes; CommandFailed unless both succeed within so many seconds."""
        command = self.across(mpiexec, program)
        with tempfile.TemporaryFile("w+") as errors:
            environment = {**os.environ, **OVER_TCP, **variables}
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
            )
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                raise CommandFailed(f"two processes over TCP did not end within {seconds:g} s") from None
            finally:
                process.kill()  # the others end with their namespaces
                process.wait()
            errors.seek(0)
            if code:
                raise CommandFailed(f"two processes over TCP ended with {code}:\n{errors.read()}")


def sent_and_received() -> tuple[int, int]:
    """The bytes that this namespace has sent and received over the cable so far, with their headers."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    (found,) = (line.partition(":")[2].split() for line in lines if line.strip().startswith(f"{INTERFACE}:"))
    return int(found[8]), int(found[0])


def _is_up(namespace: str) -> bool:
    return " UP " in call("ip", "-n", namespace, "-br", "link", "show", INTERFACE)


def call(*command: str) -> str:
    """What a command prints; CalledProcessError if it fails."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
