"""Files made to hurt, one by one: what is said of each. All are held to their bound on memory."""

import gzip
import io
import json
import os
import re
import struct
import zipfile
import zlib

import numpy as np
import pytest

from fuzz import corpus, formats
from fuzz.corpus import IMAGES, LABELS
from fuzz.formats import png_chunks, png_of, safetensors_of, safetensors_parts, unzip, zip_of
from fuzz.run import try_file
from fuzz.targets import TARGETS, lay_out

pytest.importorskip("safetensors")

DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture
def outcome(tmp_path):
    """``outcome(name, data)`` of a file that the target ``name`` reads, after a valid one."""

    def read(name, data):
        target = TARGETS[name]
        for library in target.needs:
            pytest.importorskip(library)
        path = lay_out(target, tmp_path / "files")
        path.write_bytes(target.corpus()[0])
        target.read(path)  # it is accepted, and what is made once is there when memory is measured
        path.write_bytes(data)
        return try_file(target, path)

    return read


def check_table(outcome, name, make, message):
    """What a row says: a reader, a hostile file, and a part of the sentence, or None where it is harmless."""
    found = outcome(name, make())
    if message is None:
        assert found.result == "accepted", found
    else:
        assert found.result == "refused", found
        assert re.search(message, found.reason), found.reason


# IDX


def idx(sizes, data=b""):
    return struct.pack(f">{1 + len(sizes)}I", 0x0800 + len(sizes), *sizes) + data


HUGE = 2**32 - 1
IDX = {
    "sizes whose product overflows 64 bits": (
        "idx",
        lambda: idx([HUGE] * 4, bytes(8)),
        "promises 340,282,36",
    ),
    "a product that is 0 in 64 bits": (
        "idx",
        lambda: idx([2**31, 2**31, 4]),
        "promises 18,446,744,073,709,551,632",
    ),
    "more than the file has": (
        "idx",
        lambda: idx([9], bytes(8)),
        "promises 17 bytes, but the file holds fewer",
    ),
    "a gzip bomb behind the array": (
        "idx.gz",
        lambda: gzip.compress(idx([3], bytes(50_000_000))),
        "more data than the 11 bytes",
    ),
    "a gzip bomb that is the array": (
        "idx.gz",
        lambda: gzip.compress(idx([20_000_000], bytes(20_000_000))),
        None,
    ),
    "more than gzip can hold": (
        "idx.gz",
        lambda: gzip.compress(idx([HUGE, HUGE, 9])),
        "the file holds fewer",
    ),
    "gzip members without end": (
        "idx.gz",
        lambda: gzip.compress(idx([3], bytes(3))) + gzip.compress(b"") * 20_000,
        None,
    ),
}


@pytest.mark.parametrize("case", IDX)
def test_idx(outcome, case):
    check_table(outcome, *IDX[case])


# npz


def archive(method=zipfile.ZIP_DEFLATED, **replaced):
    """An .npz with some members replaced by bytes."""
    members = dict(unzip(corpus.npz()[0])) | {f"{name}.npy": data for name, data in replaced.items()}
    return zip_of(list(members.items()), method)


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def bomb():
    """An array that is 1000 times smaller in the file."""
    return npy(np.zeros((4_000_000, 2, 2), np.uint8))


def with_size(data, boast):
    """The uncompressed size of the first member, in both places, is another."""
    for signature, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        start = data.index(signature) + offset
        data = data[:start] + struct.pack("<I", boast) + data[start + 4 :]
    return data


def linked():
    """x_train is a symbolic link, as far as an archive can say so."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as zipped:
        for name, data in unzip(corpus.npz()[0]):
            info = zipfile.ZipInfo(name)
            if name == "x_train.npy":
                info.external_attr, data = 0o120777 << 16, b"/etc/passwd"
            zipped.writestr(info, data)
    return stream.getvalue()


def renamed(name):
    return zip_of([(name if old == "x_train.npy" else old, data) for old, data in unzip(corpus.npz()[0])], 0)


def zip64_lies():
    """The end of the archive says that its directory lies 2^63 bytes in and has 2^63 entries."""
    data = corpus.npz()[0]
    end = data.rindex(b"PK\5\6")
    record = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 2**63, 2**63, 2**63, 2**63)
    locator = b"PK\6\7" + struct.pack("<IQI", 0, end, 1)
    closing = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, HUGE, HUGE, 0)
    return data[:end] + record + locator + closing


def encrypted():
    data = bytearray(corpus.npz()[0])
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        for match in re.finditer(re.escape(signature), bytes(data)):
            data[match.start() + offset] |= 1
    return bytes(data)


def twice():
    members = unzip(corpus.npz()[0])
    return zip_of([*members, ("x_train.npy", members[0][1])], zipfile.ZIP_STORED)


NPZ = {
    "a bomb without its labels": (lambda: archive(x_train=bomb()), "there are 4,000,000 images but 8 labels"),
    "a bomb as labels": (lambda: archive(y_train=npy(np.zeros(9_000_000, np.uint8))), "9,000,000 labels"),
    "a bomb behind an array": (
        lambda: archive(x_train=npy(IMAGES) + bytes(30_000_000)),
        "x_train: its header promises 96 bytes for uint8",
    ),
    "a size too small for its deflate": (lambda: with_size(archive(), 200), "damaged .*x_train"),
    "a size beyond deflate": (
        lambda: with_size(archive(), HUGE - 1),
        "x_train: 4,294,967,294 bytes promised, more",
    ),
    "a size within deflate, and no data": (lambda: with_size(archive(), 50_000), "x_train: .*damaged"),
    "a link": (linked, "damaged"),
    "objects": (
        lambda: archive(x_train=npy(np.array([{}], dtype=object))),
        "holds Python objects, which are never",
    ),
    "objects in a record": (
        lambda: archive(x_train=npy(np.zeros(2, [("a", "u1"), ("b", "O")]))),
        "holds Python objects, which are never",
    ),
    "NaN in labels": (
        lambda: archive(y_train=npy(np.where(LABELS, np.nan, 0.0))),
        "y_train: nan at position 1",
    ),
    "infinity in labels": (
        lambda: archive(y_train=npy(np.where(LABELS, np.inf, 0.0))),
        "y_train: label inf at",
    ),
    "a member twice": (twice, "x_train occurs twice: expected each array once"),
    "zip64 that lies": (zip64_lies, "not a .npz file, or damaged"),
    "encrypted members": (encrypted, "damaged .*encrypted"),
    "5,000 members": (
        lambda: zip_of([(f"{n}.npy", b"") for n in range(5_000)], 0),
        "missing x_train, .* more$",
    ),
    "a name of 60,000 letters": (lambda: renamed("x" * 60_000 + ".npy"), "missing x_train"),
    "a shape beyond 64 bits": (
        lambda: archive(x_train=npy(IMAGES).replace(b"(8, 3, 4), }" + b" " * 30, b"(8, %d, 4), }" % 10**30)),
        "x_train: its header promises 32,000,000",
    ),
}


@pytest.mark.parametrize("case", NPZ)
def test_npz(outcome, case):
    check_table(outcome, "npz", *NPZ[case])


@pytest.mark.parametrize("name", ["../../x_train.npy", "/x_train.npy"])
def test_a_name_that_leads_elsewhere_is_a_name_alone(outcome, name):
    """Nothing is unpacked to a disk."""
    assert outcome("npz", renamed(name)).result == "accepted"


@pytest.mark.parametrize("name", ["../../x_train.npy", "/x_train.npy"])
def test_no_member_is_ever_put_on_the_disk(outcome, tmp_path, name):
    members = [*unzip(corpus.npz()[0]), (name, npy(IMAGES))]
    assert outcome("npz", zip_of(members, 0)).result == "accepted"
    assert [path.name for path in tmp_path.rglob("*")] == ["files", "a.npz"]


# safetensors


def tensors(header, data=b""):
    return safetensors_of(header if isinstance(header, bytes) else json.dumps(header).encode(), data)


def tensor(**changes):
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes


SAFETENSORS = {
    "a header of 2^63 bytes": (
        lambda: (2**63).to_bytes(8, "little") + b"{}",
        "9,223,372,036,854,775,808 bytes",
    ),
    "a header of 2^64 - 1 bytes": (lambda: b"\xff" * 8 + b"{}", "18,446,744,073,709,551,615 bytes"),
    "100 MB promised": (
        lambda: (100_000_000).to_bytes(8, "little") + b"{}",
        "100,000,000 bytes, expected at most",
    ),
    "20 MB of header": (
        lambda: tensors(b" " * 20_000_000 + b"{}"),
        "20,000,002 bytes, expected at most 16,777,216",
    ),
    "more promised than there is": (
        lambda: (1000).to_bytes(8, "little") + b"{}",
        "not a readable safetensors file",
    ),
    "half of a length": (lambda: b"\2\0\0", "not a readable safetensors file"),
    "a tensor twice": (
        lambda: tensors(b'{"a": %s, "a": %s}' % ((json.dumps(tensor()).encode(),) * 2), bytes(8)),
        None,
    ),
    "a tensor in two places": (
        lambda: tensors(
            b'{"a": %s, "a": %s}'
            % tuple(json.dumps(tensor(data_offsets=[n, n + 8])).encode() for n in (0, 8)),
            bytes(16),
        ),
        "not a readable safetensors file",
    ),
    "tensors in one place": (
        lambda: tensors({"a": tensor(), "b": tensor()}, bytes(8)),
        "not a readable safetensors",
    ),
    "tensors that overlap": (
        lambda: tensors({"a": tensor(), "b": tensor(data_offsets=[4, 12])}, bytes(12)),
        "not a readable safetensors file",
    ),
    "a negative size": (
        lambda: tensors({"a": tensor(shape=[-2])}, bytes(8)),
        "not a readable safetensors file",
    ),
    "half a number": (
        lambda: tensors({"a": tensor(shape=[2.5])}, bytes(8)),
        "not a readable safetensors file",
    ),
    "sizes that overflow": (
        lambda: tensors({"a": tensor(shape=[2**62, 8])}, bytes(8)),
        "not a readable safetensors",
    ),
    "places that go back": (
        lambda: tensors({"a": tensor(data_offsets=[8, 0])}, bytes(8)),
        "not a readable safetensors",
    ),
    "a place beyond the end": (
        lambda: tensors({"a": tensor(data_offsets=[2**40, 2**40 + 8])}, bytes(8)),
        "not a readable safetensors file",
    ),
    "a type that does not exist": (
        lambda: tensors({"a": tensor(dtype="F7")}, bytes(8)),
        "not a readable safetensors",
    ),
    "a type that NumPy lacks": (
        lambda: tensors({"a": tensor(dtype="F8_E4M3", shape=[8])}, bytes(8)),
        "a is F8_E4M3",
    ),
    "deep JSON": (lambda: tensors(b'{"a": ' + DEEP.encode() + b"}"), "not a readable safetensors file"),
    "not UTF-8": (lambda: tensors(b'{"\xff": 1}'), "not a readable safetensors file"),
}


@pytest.mark.parametrize("case", SAFETENSORS)
def test_safetensors(outcome, case):
    check_table(outcome, "safetensors", *SAFETENSORS[case])


def described(*layers, input_shape=(1, 8, 8)):
    """A file of weights with a description of another network in it."""
    header, data = safetensors_parts(corpus.networks()[0])
    values = json.loads(header)
    written = ", ".join(layer if isinstance(layer, str) else json.dumps(layer) for layer in layers)
    values["__metadata__"]["xpcnn"] = (
        f'{{"version": 1, "dtype": "float32", "input_shape": {json.dumps(input_shape)}, '
        f'"network": {{"type": "Sequential", "layers": [{written}]}}}}'
    )
    return tensors(values, data)


def nested(depth):
    return '{"type": "Sequential", "layers": [' * depth + '{"type": "ReLU"}' + "]}" * depth


NETWORKS = {
    "weights of 400 GB": (
        lambda: described({"type": "Dense", "out_features": 10**6}, input_shape=[10**5]),
        "it has 100,001,000,000 numbers, the file holds",
    ),
    "weights beyond 64 bits": (
        lambda: described({"type": "Dense", "out_features": 10**30}, input_shape=[3]),
        "out_features is 1000000000000000000000000000000, expected",
    ),
    "a bias for each of 10^12 places": (
        lambda: described(
            {"type": "Conv2D", "out_channels": 1, "kernel_size": 1, "untied_bias": True},
            input_shape=[1, 10**6, 10**6],
        ),
        "it has 1,000,000,000,001 numbers",
    ),
    "windows of 10^9 lines": (
        lambda: described({"type": "MaxPool2D", "kernel_size": [10**9, 1]}, input_shape=[1, 10**9, 1]),
        "which this network does not have",
    ),
    "10^9 windows": (
        lambda: described(
            {"type": "MaxPool2D", "kernel_size": [2, 1], "stride": 1}, input_shape=[1, 10**9, 1]
        ),
        "which this network does not have",
    ),
    "containers in containers": (lambda: described(nested(900)), "cannot be used .*recursion"),
    "a class that is no layer": (lambda: described({"type": "Context"}), "unknown type 'Context'"),
    "a name that is no text": (lambda: described({"type": ["ReLU"]}), "cannot be used"),
    "an argument that does not exist": (lambda: described({"type": "ReLU", "x": 1}), "cannot be used"),
}


@pytest.mark.parametrize("case", NETWORKS)
def test_networks(outcome, case):
    check_table(outcome, "network", *NETWORKS[case])


# JSON, TOML, tables


def put(name, value):
    """The first valid file of the target, one value replaced by raw text."""
    files = {
        "environment": corpus.environments,
        "comparison": corpus.comparisons,
        "flags.json": corpus.flags_as_json,
    }
    pairs = json.loads(files[name]()[0], object_pairs_hook=formats.Pairs)
    pairs[1] = pairs[1][0], formats.Raw(value)
    return formats.written(pairs).encode("utf-8", "surrogatepass")


READ_AS_JSON = ("environment", "comparison", "flags.json")
HOSTILE_JSON = {
    "nested 100,000 times": lambda name: put(name, DEEP),
    "a number of 100,000 digits": lambda name: put(name, "9" * 100_000),
    "not UTF-8": lambda name: b'{"epochs": "\xff"}',
    "no JSON": lambda name: b"epochs = 3",
    "nothing": lambda name: b"",
    "NUL": lambda name: b"\0" * 100,
    "20 MB of it": lambda name: put(name, "[" + "0," * 10_000_000 + "0]"),
    "20 MB of blanks": lambda name: put(name, "1") + b" " * 20_000_000,
    "no object": lambda name: b"[1, 2]",
}


@pytest.mark.parametrize("name", READ_AS_JSON)
@pytest.mark.parametrize("case", HOSTILE_JSON)
def test_json(outcome, name, case):
    check_table(outcome, name, lambda: HOSTILE_JSON[case](name), re.escape(TARGETS[name].file))


@pytest.mark.parametrize("value", ["NaN", "1e999", "-Infinity", '"\\ud800"', "-1e308", "[" * 500 + "]" * 500])
@pytest.mark.parametrize("name", ["comparison", "flags.json"])
def test_values_that_json_should_not_hold(outcome, name, value):
    assert outcome(name, put(name, value)).result == "refused"


@pytest.mark.parametrize("value", ["1" + "0" * 400, "-" + "9" * 4000, "1e999", "NaN"])
def test_numbers_that_are_no_measurement(outcome, value):
    text = corpus.comparisons()[0].decode()
    found = outcome("comparison", text.replace('"python": "3.11"', f'"python": {value}').encode())
    assert found.result == "refused"
    assert "damaged" in found.reason


def test_a_name_twice_in_json_is_one_value(outcome):
    assert outcome("flags.json", b'{"epochs": 3, "epochs": 4}').result == "accepted"


TOML = {
    "nested 100,000 times": ("epochs = " + DEEP, "is no TOML"),
    "a number of 100,000 digits": ("epochs = " + "9" * 100_000, "is no TOML"),
    "a hexadecimal number of 5,000 digits": ("epochs = 0x" + "f" * 5000, "epochs is refused .*limit"),
    "infinity": ("epochs = inf", "epochs is inf, which is refused"),
    "1e999": ("epochs = 1e999", "epochs is inf, which is refused"),
    "NaN": ("epochs = nan", "epochs is nan, which is refused"),
    "a name of 10,000 parts": ("a" + ".a" * 10_000 + " = 1", "line 1 has 10,000 dots, expected at most 200"),
    "a table of 10,000 parts": ("[a" + ".a" * 10_000 + "]", "line 1 has 10,000 dots, expected at most 200"),
    "names in names": ("epochs" + ".a" * 150 + " = 1", "epochs is .*which is refused"),
    "tables in tables": ("epochs = " + "{a = " * 150 + "1" + "}" * 150, "epochs is .*which is refused"),
    "a name twice": ("epochs = 1\nepochs = 2", "is no TOML"),
    "a date": ("epochs = 1979-05-27", "epochs is datetime.date"),
    "100 kB of it": ("#" * 100_000, "it has 100,000 bytes, expected at most 65,536"),
    "a text of 60,000 letters": ('dtype = "' + "y" * 60_000 + '"', None),
    "text for a number, 60,000 letters": ('epochs = "' + "y" * 60_000 + '"', "epochs is 'yy.*…, which is"),
    "half of a letter": ('epochs = "\\ud800"', "is no TOML"),
}  # fmt: skip


@pytest.mark.parametrize("case", TOML)
def test_toml(outcome, case):
    text, message = TOML[case]
    check_table(outcome, "flags.toml", text.encode, message)


def test_toml_that_is_no_utf_8(outcome):
    check_table(outcome, "flags.toml", lambda: b"epochs = '\xff'", "is no TOML")


HEAD = "epoch,loss,accuracy,seconds,images_per_second\r\n"
METRICS = {
    "NaN": (HEAD + "1,nan,0,1,1", "not finite"),
    "infinity": (HEAD + "1,1e999,0,1,1", "not finite"),
    "a cell of 200,000 letters": (HEAD + "1,2,3,4," + "9" * 200_000, "field larger than field limit"),
    "another number of cells": (HEAD + "1,2", "line 2 has a different number of cells"),
    "an open quote": (HEAD + '1,2,3,4,"5', "unexpected end of data"),
    "NUL": (HEAD + "1,\0,3,4,5", "could not convert|NUL"),
    "20 MB of it": (HEAD + "1,2,3,4,5\r\n" * 2_000_000, "expected at most 16,777,216"),
}


@pytest.mark.parametrize("case", METRICS)
def test_metrics(outcome, case):
    text, message = METRICS[case]
    check_table(outcome, "metrics", text.encode, message)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_text_with_a_byte_order_mark_is_read(outcome, encoding):
    texts = {name: put(name, "1").decode() for name in READ_AS_JSON}
    texts |= {"flags.toml": "epochs = 1", "metrics": HEAD + "1,2,0.5,4,5"}
    for name, text in texts.items():
        assert outcome(name, text.encode(encoding)).result == "accepted", name


# Pictures


def png(width=1, height=1, pixels=b"\0\0", interlaced=0, before=()):
    """Grey, 8 bits; all checksums are right."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, interlaced)
    return png_of([(b"IHDR", header), *before, (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")])


def animated(frames, width):
    """The second frame is so wide, and so many are promised."""
    pytest.importorskip("PIL")
    changed = []
    for kind, contents in png_chunks(corpus.pictures("png")[6]):
        if kind == b"acTL":
            contents = struct.pack(">I", frames) + contents[4:]
        if kind == b"fcTL" and any(name == b"fcTL" for name, _ in changed):
            contents = contents[:4] + struct.pack(">I", width) + contents[8:]
        changed.append((kind, contents))
    return png_of(changed)


BOMB = zlib.compress(bytes(50_000_000))
PNG = {
    "2^31 - 1 pixels a side": (lambda: png(2**31 - 1, 2**31 - 1), "too large: expected at most 89,478,485"),
    "2^32 - 1 pixels a side": (lambda: png(HUGE, HUGE), "too large|cannot be read|no picture"),
    "no pixels": (lambda: png(0, 0), "cannot be read|no picture"),
    "more pixels than its file can hold": (
        lambda: png(9000, 9000),
        r"too large, 9000 x 9000 pixels: expected at most 6,\d{3},\d{3} in a file of \d+ bytes",
    ),
    "more pixels than it holds": (lambda: png(1000, 1000), "cannot be read"),
    "a bomb for one pixel": (lambda: png(pixels=bytes(50_000_000)), None),
    "a bomb in zTXt": (lambda: png(before=[(b"zTXt", b"key\0\0" + BOMB)]), "Decompressed data too large"),
    "a bomb in iTXt": (
        lambda: png(before=[(b"iTXt", b"key\0\1\0en\0key\0" + BOMB)]),
        "Decompressed data too large",
    ),
    "a bomb as profile": (lambda: png(before=[(b"iCCP", b"name\0\0" + BOMB)]), "cannot be read"),
    "bombs in 80 texts": (
        lambda: png(
            before=[(b"zTXt", b"key%d\0\0" % n + zlib.compress(bytes(1_000_000))) for n in range(80)]
        ),
        "cannot be read .*Too much memory used in text chunks",
    ),
    "a chunk longer than the file": (
        lambda: png()[:33] + struct.pack(">I", 2**31 - 1) + b"tEXt",
        "cannot be read|no",
    ),
    "interlaced, with one pass": (lambda: png(100, 100, bytes(170), interlaced=1), "cannot be read"),
    "interlaced in no known way": (lambda: png(interlaced=7), None),
    "2^32 - 1 frames": (lambda: animated(HUGE, 20), None),
    "a second frame that is wider than the picture": (lambda: animated(3, 100_000), None),
    "no frames": (lambda: animated(0, 20), None),
}


@pytest.mark.parametrize("case", PNG)
def test_png(outcome, case):
    check_table(outcome, "png", *PNG[case])


OTHER_PICTURES = {
    "a GIF of 65,535 x 65,535": (
        "gif",
        lambda: b"GIF89a\xff\xff\xff\xff\0\0\0," + bytes(4) + b"\xff\xff\xff\xff\0\2\0;",
        "too large: expected at most 89,478,485",
    ),
    "a BMP of 40,000 x 2,000": (
        "bmp",
        lambda: b"BM" + struct.pack("<IIIIiiHHIIIIII", 99, 0, 54, 40, 40_000, 2000, 1, 24, 0, 0, 0, 0, 0, 0),
        "too large, 40000 x 2000 pixels",
    ),
    "a plain PPM without end": ("ppm", lambda: b"P3 2 2 255 " + b"1" * 100_000, "cannot be read"),
    "a box of 4 GB in JPEG 2000": (
        "jpeg2000",
        lambda: b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 \0\0\0\0jp2 " + b"\xf0\0\0\0jp2h",
        "cannot be read|no picture",
    ),
    "TIFF whose directory is its own next": (
        "tiff",
        lambda: b"II*\0\x08\0\0\0" + b"\0\0" + b"\x08\0\0\0",
        "cannot be read|no picture",
    ),
    "TIFF with 2^32 - 1 values in a tag": (
        "tiff",
        lambda: b"II*\0\x08\0\0\0" + b"\1\0" + struct.pack("<HHII", 256, 4, HUGE, 8) + bytes(4),
        "cannot be read|no picture",
    ),
}


@pytest.mark.parametrize("case", OTHER_PICTURES)
def test_other_pictures(outcome, case):
    check_table(outcome, *OTHER_PICTURES[case])


# What is no file


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
@pytest.mark.parametrize("name", list(TARGETS))
def test_a_pipe_is_not_waited_for(tmp_path, name):
    for library in TARGETS[name].needs:
        pytest.importorskip(library)
    path = lay_out(TARGETS[name], tmp_path / "files")
    os.mkfifo(path)
    with pytest.raises(ValueError, match="a folder or a device"):
        TARGETS[name].read(path)
