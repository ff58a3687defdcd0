"""Who reads what: formats, their readers, how their files are spoiled, and how much memory one may take."""

import io
import os
import re
import shutil
import warnings
import zlib
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import backends
import cnn
from cnn import comparison
from cnn.data.readers import decoded
from cnn.data.readers.common import open_file
from cnn.data.readers.photographs import FORMATS, read_picture
from cnn.runs.folder import RunFolder
from cnn.runs.listing import list_runs
from cnn.runs.report.evaluation import Evaluation
from cnn.runs.report.record import RunRecord
from cnn.saving import onnx_reader, toml, weights
from cnn.support.errors import CheckpointError
from cnn.support.files import to_json
from cnn.training.checkpoints import SavedTraining
from fuzz import corpus, formats
from fuzz.damage import damage
from fuzz.formats import Mutator

MIB = 1 << 20
Corpus = Callable[[], list[bytes]]


@dataclass(frozen=True)
class Target:
    """A format, and the reader of ours that takes it."""

    name: str
    file: str  # what the file is called
    corpus: Corpus  # valid files
    mutators: tuple[Mutator, ...]
    read: Callable[[Path], object]
    bound: Callable[[Path], float]  # bytes of memory for reading the file
    beside: dict[str, Corpus] | None = None  # valid files next to it
    needs: tuple[str, ...] = ()  # libraries


# What a file can honestly hold, counted without the readers: each bound is a constant, since the interpreter
# and the libraries take some for themselves, and so many times that.


def held(path: Path, times: float) -> float:
    """A file that holds what it is long."""
    return 4 * MIB + times * path.stat().st_size


def held_in_gzip(path: Path, times: float) -> float:
    """What comes out of a .gz, up to where it is damaged."""
    data, count = memoryview(path.read_bytes()), path.stat().st_size
    while data:
        inflated, data = _inflated(data, 31)
        count += inflated
    return 4 * MIB + times * count


def held_in_zip(path: Path, times: float) -> float:
    """What comes out of all that looks like a member of the archive."""
    data = memoryview(path.read_bytes())
    count = len(data)
    for match in re.finditer(re.escape(b"PK\3\4"), data):
        member = data[match.start() :]
        name, extra = (int.from_bytes(member[at : at + 2], "little") for at in (26, 28))
        count += _inflated(member[30 + name + extra :], -15)[0]
    return 4 * MIB + times * count


def _inflated(data: memoryview, window: int) -> tuple[int, memoryview]:
    """How many bytes ``data`` inflates to, and what is left of it."""
    inflater, count, start = zlib.decompressobj(window), 0, 0
    try:
        while start < len(data) and not inflater.eof:
            piece: Any = data[start : start + 4096]
            start += len(piece)
            while piece and not inflater.eof:
                count += len(inflater.decompress(piece, MIB))
                piece = inflater.unconsumed_tail
    except zlib.error:
        return count, data[:0]
    return count, data[start - len(inflater.unused_data) :]


def held_in_picture(path: Path, times: float, aside: int) -> float:
    """So many bytes for each pixel, where the file may have that many, and some ``aside``."""
    from PIL import Image

    Image.init()
    pixels, formats = 0, [form for form in FORMATS if form in Image.OPEN]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(path.read_bytes()), formats=formats) as picture:
                pixels = picture.width * picture.height
        except Exception:  # whatever it is, it has no pixels
            pass
    most = min(Image.MAX_IMAGE_PIXELS or 0, (4 << 20) + (path.stat().st_size << 15))
    return aside + times * (pixels if pixels <= most else 0) + path.stat().st_size


def held_in_list(path: Path, aside: int) -> float:
    """A list, and what reading the pictures that it names takes."""
    return aside + held(path, times=40)


def read_folder(path: Path) -> None:
    cnn.data.load(path.parent)


def read_list(path: Path) -> None:
    with patch.dict(os.environ, CNN_DATA=str(path.parent / "cache")):
        cnn.data.load(path)


def read_decoded(path: Path) -> None:
    """Pictures in the cache, a copy of which is removed if it is damaged."""
    kept = path.parent / "kept"
    kept.mkdir(exist_ok=True)
    for name in (decoded.IMAGES, decoded.UNREADABLE):
        with open_file(path.parent / name) as file:
            (kept / name).write_bytes(file.read())
    found = decoded._read(kept, 2, (3, 4, 5))
    if found is None:
        raise cnn.DataError("the pictures are decoded again")
    assert found[0].sum() >= 0


def read_record(path: Path) -> None:
    record = RunRecord.read(RunFolder(path.parent))
    assert all(isinstance(text, str) for text in (record.title, record.device, *record.result))


def read_listed(path: Path) -> None:
    """As `cnn runs` lists and prints it."""
    from cnn.cli.runs import print_runs

    (found,) = list_runs(path.parent)
    if isinstance(found, CheckpointError):
        raise found
    to_json(found.figures)
    with redirect_stdout(io.StringIO()):
        print_runs([found])


def read_flags(path: Path) -> None:
    import typer

    from cnn.cli.config_file import take_defaults

    take_defaults(typer.Context(train_command()), path)


@cache
def train_command() -> Any:
    """``cnn train``, whose flags a file may hold."""
    import typer

    from cnn.cli import app

    return typer.main.get_command(app).commands["train"]  # type: ignore[attr-defined]


def read_network(path: Path) -> None:
    cnn.load(path, device=backends.get("cpu", "portable"))


def read_graph(path: Path) -> None:
    onnx_reader.read(path, backends.get("cpu", "portable"))


def read_model(path: Path) -> None:
    toml.read(path).count_parameters((3, 32, 32))


def _picture_target(form: str) -> Target:
    mutators = (damage, formats.damage_inside_png, formats.damage_inside_png) if form == "png" else (damage,)
    # Pillow's own limit of all texts in a PNG is 64 MiB
    bound = partial(held_in_picture, times=32, aside=72 * MIB if form == "png" else 16 * MIB)
    return Target(
        form, f"a.{form}", partial(corpus.pictures, form), mutators, read_picture, bound, needs=("PIL",)
    )


LISTED_FILES = dict.fromkeys(corpus.NAMED_IN_LISTS, corpus.small_pictures)
DECODED, IMAGES = (
    {decoded.UNREADABLE: corpus.unreadable_pictures},
    {decoded.IMAGES: corpus.decoded_pictures},
)
CONFIG = {"config.json": corpus.run_configs}
JSON = (damage, formats.damage_json, formats.damage_json)
SAFETENSORS = (damage, formats.damage_safetensors_header, formats.damage_safetensors_metadata)
CHECKPOINT = (*SAFETENSORS, formats.damage_checkpoint)
ZIP = (damage, formats.damage_inside_zip, formats.damage_inside_zip, formats.lie_in_zip)
GZIP = (damage, formats.damage_inside_gzip)
TOML, CSV = (
    (damage, formats.damage_toml, formats.damage_toml),
    (damage, formats.damage_csv, formats.damage_csv),
)
THRICE, TEXT, MANY = partial(held, times=3), partial(held, times=40), partial(held, times=500)
LISTED = partial(held_in_list, aside=16 * MIB)

TARGETS = {
    target.name: target
    for target in (
        Target("idx", "a", corpus.idx, (damage,), cnn.data.read_idx, THRICE),
        Target("idx.gz", "a.gz", corpus.idx_gz, GZIP, cnn.data.read_idx, partial(held_in_gzip, times=3)),
        Target("npz", "a.npz", corpus.npz, ZIP, cnn.data.load, partial(held_in_zip, times=24)),
        Target("table", "a.csv", corpus.tables, CSV, cnn.data.load, TEXT),
        Target("list", "a.csv", corpus.lists, CSV, read_list, LISTED, LISTED_FILES, needs=("PIL",)),
        Target("decoded", decoded.IMAGES, corpus.decoded_pictures, (damage,), read_decoded, THRICE, DECODED),
        Target(
            "unreadable", decoded.UNREADABLE, corpus.unreadable_pictures, JSON, read_decoded, TEXT, IMAGES
        ),
        Target("safetensors", "a.safetensors", corpus.safetensors, SAFETENSORS, weights.read, TEXT),
        Target("network", "a.safetensors", corpus.networks, SAFETENSORS, read_network, MANY),
        Target("checkpoint", "a.safetensors", corpus.checkpoints, CHECKPOINT, SavedTraining.read, TEXT),
        Target("npy", "x_train.npy", corpus.npy, (damage,), read_folder, THRICE, corpus.NPY_BESIDE),
        Target("evaluation", "a.safetensors", corpus.evaluations, SAFETENSORS, Evaluation.load, TEXT),
        Target(
            "config",
            "config.json",
            corpus.run_configs,
            JSON,
            lambda path: RunFolder(path.parent).read(),
            TEXT,
        ),
        Target("runs.config", "config.json", corpus.run_configs, JSON, read_listed, TEXT),
        Target("runs.network", "model.safetensors", corpus.networks, SAFETENSORS, read_listed, MANY, CONFIG),
        Target(
            "runs.test",
            "evaluation.safetensors",
            corpus.evaluations,
            SAFETENSORS,
            read_listed,
            TEXT,
            CONFIG,
        ),
        Target("environment", "environment.json", corpus.environments, JSON, read_record, TEXT, CONFIG),
        Target("metrics", "metrics.csv", corpus.metrics, CSV, read_record, TEXT, CONFIG),
        Target("comparison", "a.json", corpus.comparisons, JSON, comparison.load, MANY, needs=("pydantic",)),
        Target("flags.json", "a.json", corpus.flags_as_json, JSON, read_flags, TEXT),
        Target("flags.toml", "a.toml", corpus.flags_as_toml, TOML, read_flags, partial(held, times=400)),
        Target("onnx", "a.onnx", corpus.models_as_onnx, (damage,), read_graph, MANY, needs=("onnx",)),
        Target("model.toml", "a.toml", corpus.models_as_toml, TOML, read_model, partial(held, times=400)),
        *map(
            _picture_target,
            ("png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm", "tga", "jpeg2000", "avif", "mpo"),
        ),
    )
}


def lay_out(target: Target, folder: Path) -> Path:
    """Where the file is to be put, in a folder with the other files that belong to it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, files in (target.beside or {}).items():
        (folder / name).write_bytes(files()[0])
    return folder / target.file
