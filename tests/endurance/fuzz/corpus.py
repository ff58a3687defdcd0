"""Small valid files of every format, the same bytes every time."""

import gzip
import io
import json
import struct
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import backends
import cnn
from cnn.comparison import results
from cnn.comparison.saved import as_plain
from cnn.inspection.timing import LayerTime, Spread
from cnn.runs.config import Config
from cnn.runs.report.evaluation import Evaluation, Mistakes
from cnn.runs.report.histogram import Histogram
from cnn.saving import onnx, toml
from cnn.support.tensors import METADATA, serialized
from cnn.training.checkpoints import CHECKSUM, checksum
from fuzz.formats import png_chunks, png_of

PIXELS = np.arange(24 * 20, dtype=np.uint8).reshape(24, 20) // 2
IMAGES, LABELS = np.arange(8 * 12, dtype=np.uint8).reshape(8, 3, 4), np.arange(8, dtype=np.uint8) % 3
SPREAD = Spread(0.002, 0.001, 0.003)


def idx() -> list[bytes]:
    arrays = IMAGES, LABELS, IMAGES.reshape(2, 4, 3, 4), IMAGES.reshape(8, 12)
    return [struct.pack(f">{1 + a.ndim}I", 0x0800 + a.ndim, *a.shape) + a.tobytes() for a in arrays]


def idx_gz() -> list[bytes]:
    whole = idx()
    in_two = gzip.compress(whole[0][:20], mtime=0) + gzip.compress(whole[0][20:], mtime=0)
    return [*(gzip.compress(data, mtime=0) for data in whole), in_two]


def npz() -> list[bytes]:
    plain = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:4], "y_test": LABELS[:4]}
    floats = plain | {"x_train": IMAGES / 255, "x_test": IMAGES[:4] / 255}
    one_hot = plain | {"y_train": np.eye(3)[LABELS], "y_test": np.eye(3)[LABELS[:4]]}
    named = plain | {"classes": np.array(["ant", "bee", "cat"]), "x_train": np.asfortranarray(IMAGES)}
    ours = [
        _npz(save, arrays)
        for save in (np.savez, np.savez_compressed)
        for arrays in (plain, floats, one_hot, named)
    ]
    return [*ours, *(_npz(np.savez, arrays) for arrays in _npz_of_others())]


def _npz_of_others() -> list[dict[str, Any]]:
    """Arrays under other names and in other layouts."""
    last = np.arange(8 * 5 * 6 * 3, dtype=np.uint8).reshape(8, 5, 6, 3)
    names = np.array(["ant", "bee", "cat"])[LABELS]
    return [
        {"train_images": last, "train_labels": LABELS[:, None], "test_images": last, "test_labels": LABELS},
        {"x_train": last, "y_train": names, "x_test": last, "y_test": names.astype("S")},
        {"X_train": last, "Y_train": LABELS > 0, "x_val": last, "y_val": LABELS > 0},
    ]


def _npz(save: Callable[..., None], arrays: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    save(stream, **arrays)
    return stream.getvalue()


def npy() -> list[bytes]:
    arrays = IMAGES, np.asfortranarray(IMAGES), IMAGES[:, None], IMAGES.astype(np.int64)
    return [_npy(array) for array in arrays]


NPY_BESIDE = {
    f"{name}.npy": partial(lambda array: [_npy(array)], array)
    for name, array in (("y_train", LABELS), ("x_test", IMAGES[:4]), ("y_test", LABELS[:4]))
}


def _npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def tables() -> list[bytes]:
    """Rows of numbers with a label first or last, with and without a header."""
    numbers = np.random.default_rng(0).integers(0, 256, (12, 9))
    rows = [[number % 3, *row] for number, row in enumerate(numbers.tolist())]
    named = [[*row[1:], "ab"[row[0] % 2]] for row in rows]
    head = ["label", *(f"pixel{place}" for place in range(9))]
    floats = [[f"{number / 7:.4f}" for number in row] for row in rows]
    return [_table([head, *rows], ","), _table(named, ";"), _table(floats, "\t")]


NAMED_IN_LISTS = ("1.png", "2.png", "3.png", "4.png")


def lists() -> list[bytes]:
    """Lists of four pictures and their classes, with and without a header, in each order."""
    rows = [[name, "ab"[number % 2]] for number, name in enumerate(NAMED_IN_LISTS)]
    turned = [row[::-1] for row in rows]
    return [
        _table(table, separator)
        for table in (rows, turned, [["file", "label"], *rows], [["picture", "kind"], *rows])
        for separator in ",;"
    ]


def small_pictures() -> list[bytes]:
    """A picture that a list names."""
    return pictures("png")[:1]


def decoded_pictures() -> list[bytes]:
    """The images of two decoded pictures."""
    return [_npy(np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5))]


def unreadable_pictures() -> list[bytes]:
    """Why the others were not decoded."""
    return [b'{"a.png": "a.png: this is a text file"}']


def _table(rows: list[list[Any]], separator: str) -> bytes:
    return "".join(separator.join(map(str, row)) + "\n" for row in rows).encode()


def safetensors() -> list[bytes]:
    from safetensors.numpy import save

    some = {"0.weight": np.ones((2, 3), np.float32), "0.bias": np.zeros(2), "scalar": np.array(3, np.int64)}
    none = {"empty": np.zeros((0, 4), np.uint8)}
    return [save(some, {"xpcnn": "{}"}), save(none, {"a": "[0]"})]


def networks() -> list[bytes]:
    made = [
        cnn.Sequential(cnn.Conv2D(2, 3), cnn.ReLU(), cnn.MaxPool2D(2), cnn.Flatten(), cnn.Dense(3)),
        cnn.Sequential(
            cnn.Sequential(cnn.Reshape((64,)), cnn.Dense(4, bias=False)), cnn.Tanh(), cnn.Softmax()
        ),
        cnn.Sequential(cnn.Conv2D(4, (3, 2), 2, padding=1, groups=1, untied_bias=True), cnn.AvgPool2D(2, 1)),
    ]
    for network in made:
        network.build((1, 8, 8), backend=backends.get("cpu", "portable"), seed=0)
    return [_saved(network.save) for network in made]


def checkpoints() -> list[bytes]:
    return [_checkpoint(optimizer) for optimizer in (cnn.SGD(0.1), cnn.Adam(0.01))]


def _checkpoint(optimizer: cnn.Optimizer) -> bytes:
    network = cnn.Sequential(cnn.Flatten(), cnn.Dense(3))
    network.build((1, 3, 4), backend=backends.get("cpu", "portable"))
    data = cnn.data.Dataset(IMAGES, LABELS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        cnn.fit(network, data, optimizer=optimizer, batch_size=4, callbacks=[cnn.Checkpoint(path)])
        arrays, metadata = cnn.saving.weights.read_all(path)
    description = json.loads(metadata[METADATA])
    description |= {"seconds": 1.5, "history": [{"epoch": 1, "loss": 0.5}]}  # the clock has no part in it
    del description[CHECKSUM]
    return serialized(arrays, description | {CHECKSUM: checksum(arrays, description)})


def evaluations() -> list[bytes]:
    mistakes = Mistakes(
        np.array([3, 1]),
        IMAGES[:2, None],
        np.array([0, 2]),
        np.array([1, 1]),
        np.array([[0.1, 0.8, 0.1]] * 2),
    )
    none = Mistakes(*(array[:0] for array in vars(mistakes).values()))
    histogram = Histogram("0 Conv2D", np.arange(4), -1.0, 1.0, 0.25)
    times = [LayerTime("0 Conv2D", SPREAD, None), LayerTime("1 ReLU", SPREAD, SPREAD)]
    confusion = np.arange(9).reshape(3, 3)
    return [
        _saved(Evaluation(0.5, 0.75, 8, confusion, found, [histogram], times, 8).save)
        for found in (mistakes, none)
    ]


def _saved(save: Callable[[Path], None]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        save(path)
        return path.read_bytes()


def run_configs() -> list[bytes]:
    plain = asdict(Config(model="lenet5", epochs=3, batch_size=128)) | {
        "input_shape": [1, 28, 28],
        "class_names": list("0123456789"),
    }
    named = asdict(Config(model="notebook", classes=["ant", "bee"], momentum=0.9, stream=True))
    return [_json(plain), _json(named | {"input_shape": [3, 8, 9], "class_names": ["ant", "bee"]})]


def environments() -> list[bytes]:
    device = {"device": "cpu", "processor": "a processor", "threads": 2, "reason": "as asked for"}
    return [
        _json(
            {
                "xpcnn": "0.1.0",
                "packages": {"numpy": "2.4", "onnx": None},
                "device": device,
                "command": ["cnn"],
            }
        )
    ]


def metrics() -> list[bytes]:
    short = "epoch,loss,accuracy,seconds,images_per_second,learning_rate\r\n1,0.5,0.9,1.5,2000,0.1\r\n"
    whole = (
        "epoch,loss,accuracy,validation_loss,validation_accuracy,seconds,images_per_second,learning_rate\r\n"
        "1,0.51,0.91,0.61,0.81,1.5,2000.5,0.1\r\n2,0.41,0.92,0.51,0.82,1.25,2100,0.01\r\n"
    )
    return [short.encode(), whole.encode()]


def comparisons() -> list[bytes]:
    work = [results.Work("0 Dense", 100, 200, 300, 400)]
    agreement = results.Agreement(1e-12, 1e-12, 1e-12, 1e-6)
    layers = [LayerTime("0 Dense", SPREAD, None)]
    sweep = [results.SweepPoint(size, SPREAD) for size in (1, 4)]
    columns = [
        results.Column(
            name, {"processor": "one"}, [2.0, 1.5], found, layers, SPREAD, 0.5, moved, SPREAD, 1e9, 1e9, sweep
        )
        for name, found, moved in (("cpu", None, None), ("cuda:0", agreement, SPREAD))
    ]
    comparison = results.Comparison("lenet5", 8, "float32", 2, 8, {"python": "3.11"}, work, columns)
    return [_json(as_plain(comparison))]


def flags_as_json() -> list[bytes]:
    return [
        _json({"epochs": 3, "batch-size": 8, "classes": ["0", "1"], "fuse": False, "learning_rate": 0.1}),
        *run_configs(),
    ]


def flags_as_toml() -> list[bytes]:
    return [
        b"# a run\nepochs = 3\nbatch-size = 8\nclasses = ['0', '1']\nfuse = false\nlearning_rate = 1e-2\n",
        b'model = "notebook"\nseed = 7\nper-class = 100\ndtype = "float64"\nwarmup = 0.2\ntf32 = true\n',
    ]


def models_as_toml() -> list[bytes]:
    return [toml.write(cnn.models.make(name)).encode() for name in ("lenet5", "resnet8", "mobilenet-small")]


def models_as_onnx() -> list[bytes]:
    found = []
    for name in ("mnist-small", "resnet8"):
        network = cnn.models.make(name)
        network.build((1, 28, 28), backend=backends.get("cpu", "portable"))
        with tempfile.TemporaryDirectory() as folder:
            onnx.export(network, Path(folder) / "a.onnx", tuple("0123456789"))
            found.append((Path(folder) / "a.onnx").read_bytes())
    return found


def _json(values: dict[str, Any]) -> bytes:
    return json.dumps(values, indent=2).encode()


def pictures(form: str) -> list[bytes]:
    """One small picture in the modes and ways that ``form`` has."""
    from PIL import Image

    grey = Image.fromarray(PIXELS)
    colours = Image.merge("RGB", (grey, grey.transpose(Image.Transpose.FLIP_TOP_BOTTOM), grey))
    clear = colours.convert("RGBA")
    clear.putalpha(grey)
    black = grey.convert("1")
    deep = Image.fromarray(PIXELS.astype(np.uint16) * 257)
    frames: dict[str, Any] = {"save_all": True, "append_images": [colours.rotate(90), colours]}
    exif = Image.Exif()
    exif[0x0112] = 6
    ways: dict[str, list[tuple[Any, dict[str, Any]]]] = {
        "png": [
            (grey, {}), (colours, {}), (clear, {}), (black, {}), (deep, {}), (grey.convert("P"),
            {"transparency": 3}),
            (colours, frames), (grey, {"exif": exif}),
        ],
        "jpeg": [(grey, {}), (colours, {"progressive": True}), (colours.convert("CMYK"), {}), (colours,
        {"exif": exif})],
        "gif": [(grey, {}), (colours, frames), (grey.convert("P"), {"interlace": True, "transparency": 3})],
        "bmp": [(grey, {}), (colours, {}), (clear, {}), (black, {})],
        "tiff": [
            *((grey, {"compression": how}) for how in ("raw", "tiff_lzw", "tiff_adobe_deflate",
            "packbits", "lzma")),
            *((black, {"compression": how}) for how in ("group3", "group4", "tiff_ccitt")),
            (colours, {"compression": "jpeg"}), (colours, frames), (clear, {}), (deep, {}), (colours,
            {"big_tiff": True}),
            (Image.fromarray(PIXELS.astype(np.float32)), {}), (Image.fromarray(PIXELS.astype(np.int32)), {}),
            (colours.convert("YCbCr"), {"compression": "tiff_adobe_deflate"}), (colours.convert("CMYK"), {}),
        ],
        "webp": [(colours, {}), (clear, {"lossless": True}), (colours, frames), (clear, {"exif": exif})],
        "ppm": [(grey, {}), (colours, {}), (black, {}), (deep, {}),
        (Image.fromarray(PIXELS.astype(np.float32)), {})],
        "tga": [(grey, {}), (colours, {"compression": "tga_rle"}), (clear, {}), (grey.convert("P"), {}),
        (black, {})],
        "jpeg2000": [(grey, {}), (colours, {"irreversible": True}), (clear, {}), (colours,
        {"no_jp2": True}), (deep, {})],
        "avif": [(colours, {}), (clear, {}), (colours, frames)],
        "mpo": [(colours, frames), (grey, {"save_all": True, "append_images": [grey], "exif": exif})],
    }  # fmt: skip
    more = {
        "png": [_interlaced_png(), _png_with_texts(grey)],
        "ppm": [b"P3\n# c\n2 2\n9\n" + b"1 2 3 4 5 6 " * 2],
    }
    return [_picture(picture, form, options) for picture, options in ways[form]] + more.get(form, [])


def _picture(picture: Any, form: str, options: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


def _png_with_texts(picture: Any) -> bytes:
    chunks = png_chunks(_picture(picture, "png", {}))
    profile = b"name\0\0" + zlib.compress(bytes(128))
    chunks[1:1] = [
        (b"iCCP", profile),
        (b"zTXt", b"key\0\0" + zlib.compress(b"text")),
        (b"tEXt", b"key\0text"),
    ]
    return png_of(chunks)


def _interlaced_png() -> bytes:
    """PIXELS in the seven passes of Adam7: the PNG specification, section 8.2."""
    passes = (
        (0, 8, 0, 8),
        (0, 8, 4, 8),
        (4, 8, 0, 4),
        (0, 4, 2, 4),
        (2, 4, 0, 2),
        (0, 2, 1, 2),
        (1, 2, 0, 1),
    )
    lines = [
        b"\0" + line.tobytes() for top, down, left, right in passes for line in PIXELS[top::down, left::right]
    ]
    header = struct.pack(">IIBBBBB", PIXELS.shape[1], PIXELS.shape[0], 8, 0, 0, 0, 1)
    return png_of([(b"IHDR", header), (b"IDAT", zlib.compress(b"".join(lines))), (b"IEND", b"")])
