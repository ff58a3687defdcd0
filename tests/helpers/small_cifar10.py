"""A small CIFAR-10: files of its format and names, and archives of them, right ones and ones that lie."""

import gzip
import io
import tarfile

import numpy as np

FOLDER = "cifar-10-batches-bin"
FILES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
COUNTS = (3, 2, 2, 2, 2, 10)


def record(label, red, green, blue):
    """One picture, each plane (32, 32), as the format has it."""
    return bytes([label]) + b"".join(plane.astype(np.uint8).tobytes() for plane in (red, green, blue))


def pictures():
    """{file: [(label, the three planes)]}; the test file has each label."""
    random = np.random.default_rng(0)
    return {
        name: [(label, random.integers(0, 256, (3, 32, 32))) for label in random.permutation(10)[:count]]
        for name, count in zip(FILES, COUNTS, strict=True)
    }


def contents():
    """{file: its bytes}."""
    return {
        name: b"".join(record(label, *planes) for label, planes in chosen)
        for name, chosen in pictures().items()
    }


def member(name, data=b"", **changes):
    """(TarInfo, data) of a file in an archive; what is in ``changes`` is put into its header."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in changes.items():
        setattr(info, field, value)
    return info, data


def members():
    """What the published archive holds, in its order."""
    folder = tarfile.TarInfo(FOLDER)
    folder.type = tarfile.DIRTYPE
    return [
        (folder, b""),
        *(member(f"{FOLDER}/{name}", data) for name, data in contents().items()),
        member(f"{FOLDER}/batches.meta.txt", b"airplane\n"),
    ]


def archive(entries):
    """A .tar.gz as bytes; what a header claims need not be true."""
    out = io.BytesIO()
    for info, data in entries:
        out.write(info.tobuf(tarfile.GNU_FORMAT))
        out.write(data + bytes(-len(data) % 512))
    out.write(bytes(1024))
    return gzip.compress(out.getvalue(), compresslevel=1, mtime=0)
