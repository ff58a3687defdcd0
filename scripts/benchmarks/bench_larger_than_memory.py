"""The speed of training on data in a file, compared with the same data in memory.

python scripts/benchmarks/bench_larger_than_memory.py [--gigabytes 1] [--rounds 3]

An epoch of LeNet-5 in four ways: the images in memory; in a file that is mapped, when all of it is in the
system's cache; from the disk; and with room in memory for half of the file, by a control group, which takes
root. Each is a process of its own, and they take turns; what is printed are medians. All must end with the
same weights, or the script exits 1.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import backends
import cnn
from cnn.data.readers.mapped import bytes_read

SHAPE = (1, 28, 28)
CLASSES = 10
CHUNK = 50_000  # images written at a time
ITSELF = 256 << 20  # bytes that a process needs in addition to the images
MEMORY, CACHE, DISK, SHORT = "memory", "file, in the cache", "file, from the disk", "file, room for half"
# where control groups are, and what limits one, in their two versions
GROUPS = (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max"))


def main() -> None:
    """Writes the file, lets all take turns, says what they took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=1.0, help="the size of the file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="default: cores")
    parser.add_argument("--folder", default=".", help="where the file is made, and removed again")
    parser.add_argument("--turn", help=argparse.SUPPRESS)  # the settings of a separate process, as JSON
    arguments = parser.parse_args()
    if arguments.turn:
        print(json.dumps(turn(**json.loads(arguments.turn))))
        return
    with (
        tempfile.TemporaryDirectory(dir=arguments.folder) as name,
        room_for(arguments.gigabytes / 2) as group,
    ):
        path = write_images(Path(name), arguments.gigabytes)
        ways = [MEMORY, CACHE, DISK, *([SHORT] if group else [])]
        results: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
        for number in range(1, arguments.rounds + 1):
            for way in ways:
                print(f"round {number}, {way}", file=sys.stderr, flush=True)
                prepare(path, way)
                results[way].append(in_its_own_process(path, way, group, arguments.threads))
    if len({result["weights"] for way in ways for result in results[way]}) > 1:
        sys.exit("error: not all ended with the same weights")
    print(f"all ended with the same weights; {arguments.gigabytes} GB, {arguments.rounds} rounds, medians")
    fastest = statistics.median(result["seconds"] for result in results[MEMORY])
    for way in ways:
        seconds = statistics.median(result["seconds"] for result in results[way])
        read = statistics.median(result["read"] for result in results[way]) / 1e9
        print(f"{way:20} {seconds:9.2f} s an epoch  {fastest / seconds:7.1%}  {read:8.2f} GB read meanwhile")


def write_images(folder: Path, gigabytes: float) -> Path:
    """A file of random images, on the disk."""
    image = int(np.prod(SHAPE))
    count = int(gigabytes * 1e9) // image
    path = folder / "x.npy"
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (count, *SHAPE))
    random = np.random.default_rng(0)
    for start in range(0, count, CHUNK):
        part = images[start : start + CHUNK]
        part[:] = random.integers(0, 256, part.shape, dtype=np.uint8)
    images.flush()
    return path


def prepare(path: Path, way: str) -> None:
    """Let the whole file be in the system's cache, or nothing of it."""
    with path.open("rb") as file:
        if way == CACHE:
            while file.read(1 << 24):
                pass
        else:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def room_for(gigabytes: float) -> Iterator[Path | None]:
    """A control group of processes that have so much beside what they need themselves; None without one."""
    for place, limit in GROUPS:
        group = Path(place) / f"bench-larger-than-memory-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(ITSELF + int(gigabytes * 1e9)))
        except OSError:
            group.rmdir()
            continue
        try:
            yield group
        finally:
            group.rmdir()
        return
    print("note: memory cannot be limited here, that part is left out", file=sys.stderr)
    yield None


def in_its_own_process(path: Path, way: str, group: Path | None, threads: int | None) -> dict[str, Any]:
    """What :func:`turn` finds."""
    told = {
        "path": str(path),
        "in_memory": way == MEMORY,
        "group": str(group) if way == SHORT else None,
        "threads": threads,
    }
    command = [sys.executable, __file__, "--turn", json.dumps(told)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"error: {way} failed, as stands above")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def turn(path: str, in_memory: bool, group: str | None, threads: int | None) -> dict[str, Any]:
    """Train an epoch; -> its seconds, the bytes read from disks meanwhile, and a digest of the weights."""
    if group:
        (Path(group) / "cgroup.procs").write_text(str(os.getpid()))
    device = backends.get("cpu", threads=threads)
    images = np.load(path, mmap_mode=None if in_memory else "r")
    data = cnn.data.Dataset(images, np.arange(len(images)) % CLASSES, CLASSES)
    net = cnn.models.lenet5()
    net.build(SHAPE, backend=device)
    before = bytes_read()
    (epoch,) = cnn.fit(net, data, callbacks=[])
    return {
        "seconds": epoch["seconds"],
        "read": bytes_read() - before,
        "weights": hashlib.sha256(net.flat.value.tobytes()).hexdigest(),
    }


if __name__ == "__main__":
    main()
