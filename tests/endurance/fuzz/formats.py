"""What can happen to a file by what it means: past its checksums, and in its structure.

As :func:`fuzz.damage.damage`, each takes a valid file, another one and a source of randomness.
"""

import gzip
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

from cnn.support.tensors import METADATA
from cnn.training.checkpoints import CHECKSUM, checksum
from fuzz.damage import damage, extreme

Mutator = Callable[[bytes, bytes, Random], bytes]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


# gzip, zip, PNG


def damage_inside_gzip(data: bytes, other: bytes, random: Random) -> bytes:
    """What was compressed is damaged, and compressed again: the checksums are right."""
    inside = damage(gzip.decompress(data), gzip.decompress(other), random)
    if random.random() < 0.1:
        inside += bytes(random.choice((100_000, 1_000_000)))  # a bomb
    cut = random.randint(0, len(inside)) if random.random() < 0.2 else 0
    parts = (inside[:cut], inside[cut:]) if cut else (inside,)
    return b"".join(gzip.compress(part, mtime=0) for part in parts)


def damage_inside_zip(data: bytes, other: bytes, random: Random) -> bytes:
    """Members are damaged, lost, renamed, repeated or exchanged; the archive around them is right."""
    members, others = unzip(data), unzip(other)
    for _ in range(random.choice((1, 1, 2, 3))):
        if not members:
            break
        index = random.randrange(len(members))
        name, contents = members[index]
        match random.randrange(6):
            case 0 | 1:
                members[index] = name, damage(contents, random.choice(others)[1], random)
            case 2:
                members[index] = name, with_other_npy_header(contents, random)
            case 3:
                members[index] = name, random.choice(others)[1]
            case 4:
                members[index] = random.choice(NAMES), contents
            case 5:
                members.insert(index, (name, random.choice(others)[1]))
    if random.random() < 0.2:
        members.pop(random.randrange(len(members)))
    return zip_of(members, random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def lie_in_zip(data: bytes, other: bytes, random: Random) -> bytes:
    """A field of a zip archive's own records says something else."""
    lying = bytearray(data)
    signature = random.choice((b"PK\1\2", b"PK\1\2", b"PK\3\4", b"PK\5\6"))
    starts = [match.start() for match in re.finditer(re.escape(signature), data)]
    start = random.choice(starts) + 4
    width = random.choice((2, 4))
    offset = start + 2 * random.randrange(22 if signature == b"PK\1\2" else 9)
    number = random.choice((extreme(random, len(data)), random.randrange(64), 1, 8, 12, 14))
    lying[offset : offset + width] = (number % (1 << 8 * width)).to_bytes(width, "little")
    return bytes(lying)


NAMES = (
    "../x_train.npy",
    "/x_train.npy",
    "x_train.npy",
    "x_train.npy/",
    "C:\\x.npy",
    "y_train",
    "classes.npy",
    "",
)


def unzip(data: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def zip_of(members: list[tuple[str, bytes]], method: int) -> bytes:
    """An archive, the same bytes every time."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, contents in members:
            info = zipfile.ZipInfo("-")
            info.filename, info.compress_type = name, method  # ZipInfo("") would be refused
            archive.NameToInfo.pop(name, None)  # else zipfile warns of a name that it has written before
            archive.writestr(info, contents)
    return stream.getvalue()


def with_other_npy_header(contents: bytes, random: Random) -> bytes:
    """An array whose header says something else, at its right length."""
    if contents[:6] != b"\x93NUMPY" or contents[6] != 1:
        return contents
    end = 10 + int.from_bytes(contents[8:10], "little")
    header = contents[10:end].decode("latin-1").rstrip()
    what, value = random.choice((("descr", random.choice(DTYPES)), ("shape", random.choice(SHAPES))))
    pattern = rf"'{what}': (\([^)]*\)|'[^']*')"
    header = re.sub(pattern, lambda _: f"'{what}': {value}", header)
    if random.random() < 0.1:
        header = random.choice(
            ("{}", "[]", "__import__('os')", "(" * 500, "{'a': " * 90, "", header + ",", "1" * 5000)
        )
    text = header.encode("latin-1").ljust(end - 11) + b"\n"
    return contents[:8] + struct.pack("<H", len(text)) + text + contents[end:]


DTYPES = (
    "'|O'", "'|u1'", "'<f8'", "'<f2'", "'>f4'", "'<U1'", "'<U1000000000'", "'|V8'", "'<c16'", "'<M8[s]'",
    "'|S0'", "'|b1'",
    "'<f16'", "[('a', '<f4')]", "[('a', '|O')]", "'i'", "'nonsense'", "7", "('<f4', (1000000, 1000000))",
    "''",
)  # fmt: skip
SHAPES = (
    "()", "(0,)", "(-1,)", "(4,)", "(8,)", "(8, 12)", "(9223372036854775807,)",
    "(4294967296, 4294967296)", "(1.5,)",
    "('8',)", "None", "(True,)", "(8, 3, 4, 1, 1)", "(1,) * 40", "(" + "1, " * 70 + ")",
    "(10000000000000000000000,)",
)  # fmt: skip


def damage_inside_png(data: bytes, other: bytes, random: Random) -> bytes:
    """Chunks are damaged, lost, repeated, exchanged or added; all checksums are right."""
    chunks, others = png_chunks(data), png_chunks(other)
    for _ in range(random.choice((1, 1, 2, 3))):
        index = random.randrange(len(chunks))
        kind, contents = chunks[index]
        match random.randrange(7):
            case 0:
                chunks[index] = kind, damage(contents, random.choice(others)[1], random)
            case 1:
                chunks[0] = b"IHDR", header_of_png(chunks[0][1], random)
            case 2:
                chunks = [
                    (kind, pixels_of_png(part, random) if kind == b"IDAT" else part) for kind, part in chunks
                ]
            case 3:
                chunks.insert(index, random.choice(others))
            case 4:
                chunks.insert(random.randint(1, len(chunks)), extra_chunk(random))
            case 5:
                other_index = random.randrange(len(chunks))
                chunks[index], chunks[other_index] = chunks[other_index], chunks[index]
            case 6:
                del chunks[index]
        chunks = chunks or png_chunks(data)[:1]
    return png_of(chunks)


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """The (name, contents) of a valid PNG."""
    chunks, start = [], len(PNG_SIGNATURE)
    while start < len(data):
        (length,) = struct.unpack_from(">I", data, start)
        chunks.append((data[start + 4 : start + 8], data[start + 8 : start + 8 + length]))
        start += 12 + length
    return chunks


def png_of(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG of these chunks, each with its right length and checksum."""
    return PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(contents)) + kind + contents + struct.pack(">I", zlib.crc32(kind + contents))
        for kind, contents in chunks
    )


def header_of_png(header: bytes, random: Random) -> bytes:
    width, height, *rest = struct.unpack(">IIBBBBB", header[:13].ljust(13, b"\0"))
    match random.randrange(4):
        case 0:
            width = extreme(random, width) % (1 << 32)
        case 1:
            height = extreme(random, height) % (1 << 32)
        case 2:
            width = height = random.choice((1, 100, 3000, 9000, 20_000))
        case 3:
            rest[random.randrange(5)] = random.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
    return struct.pack(">IIBBBBB", width, height, *rest)


def pixels_of_png(compressed: bytes, random: Random) -> bytes:
    try:
        pixels = zlib.decompress(compressed)
    except zlib.error:  # cut into several chunks, or damaged a moment ago
        return compressed
    return zlib.compress(damage(pixels, pixels[::-1], random) + bytes(random.choice((0, 0, 1_000_000))))


def extra_chunk(random: Random) -> tuple[bytes, bytes]:
    """A chunk that may be in a PNG, with something that should not be in it."""
    bomb = zlib.compress(bytes(random.choice((10, 1_000_000, 5_000_000))))
    junk = random.randbytes(random.choice((0, 1, 4, 26, 300)))
    return random.choice(
        (
            (b"zTXt", b"key\0\0" + bomb),
            (b"iTXt", b"key\0\1\0en\0key\0" + bomb),
            (b"iCCP", b"profile\0\0" + bomb),
            (b"tEXt", b"key\0" + bytes(random.choice((10, 100_000)))),
            (b"eXIf", b"II*\0\x08\0\0\0" + junk),
            (b"acTL", struct.pack(">II", extreme(random, 1) % (1 << 32), 0)),
            (
                b"fcTL",
                struct.pack(">IIIIIHHBB", 0, *(extreme(random, 9) % (1 << 32) for _ in "whxy"), 1, 1, 0, 0),
            ),
            (
                random.choice(
                    (b"PLTE", b"tRNS", b"gAMA", b"cHRM", b"pHYs", b"sRGB", b"fdAT", b"IDAT", b"ABCD")
                ),
                junk,
            ),
        )
    )


# JSON, TOML, tables


class Raw(str):
    """Text that stands in a file as it is."""


class Pairs(list[tuple[str, Any]]):
    """A JSON object, in which a name may be there twice."""


TEXTS = (
    '""', '"x"', '"\\ud800"', '"\\u0000"', '"\\u001b[2J"', '"../../x"', '"\\u202e"', '"1e999"', '"%s{}"',
    f'"{"y" * 70_000}"',
)  # fmt: skip
NUMBERS = (
    "0", "1", "-1", "2", "1000", "100000", "-0.0", "0.5", "1e-320", "1e308", "1e999", "-1e999", "255",
    "65536", "2147483648", "4294967295",
    "4294967296", "9007199254740993", "9223372036854775807", "9223372036854775808",
    "18446744073709551616", "1" + "0" * 30,
    "1" + "0" * 400, "9" * 4300, "9" * 100_000,
)  # fmt: skip
JSON_VALUES = (
    *TEXTS, *NUMBERS, "null", "true", "false", "NaN", "Infinity", "-Infinity", "[]", "{}", "[[]]",
    "[null]", "[0, 0, 0]",
    '{"a": 1}', '{"a": 1, "a": 2}', "[" * 40 + "]" * 40, "[" * 100_000 + "]" * 100_000, "[" * 900 + "]" * 900,
    '{"a": ' * 900 + "1" + "}" * 900, '{"a":' * 50_000 + "1" + "}" * 50_000, "[" + "0, " * 5000 + "0]",
    "'x'", "", "01", "+1",
)  # fmt: skip
TOML_VALUES = (
    *TEXTS, *NUMBERS, "true", "false", "inf", "nan", "-inf", "[]", "{}", "[1, 2]", "['a', 'b']",
    "{a = 1}", "0x" + "f" * 5000,
    "1979-05-27T07:32:00Z", "07:32:00", '"""' + "\n" * 50 + '"""', "'''x'''", "[" * 900 + "]" * 900,
    "[" * 20_000, "1__0", "",
    "{a = " * 400 + "1" + "}" * 400, "9999-99-99",
)  # fmt: skip
TOML_LINES = (
    "[table]", "[[tables]]", "[table.table]", "epochs.x = 1", '"" = 1', "a" + ".a" * 300 + " = 1",
    "a" + ".a" * 5000 + " = 1",
    "out = 'x'", "config = 'x'", "help = true", "epochs = 1", "#" * 1000, "= 1", "epochs",
    '"\\ud800" = 1', "\x00", "batch_size = 1",
)  # fmt: skip
CELLS = (
    "", "0", "-1", "nan", "inf", "1e999", "1" * 5000, "x", '"', '"a\nb"', "1_0", " 1 ", "0x1", "\x00",
    "\u0661", "1e308", "loss",
    "z" * 140_000, "-0", "1,2",
)  # fmt: skip


def damage_json(data: bytes, other: bytes, random: Random) -> bytes:
    """One to three values of a JSON file are others, lost, repeated, exchanged, or have other names."""
    root = [json.loads(data, object_pairs_hook=Pairs)]
    for _ in range(random.choice((1, 1, 2, 3))):
        _change_value(root, random)
    return encoded(written(root[0]) if root else "", random)


def _change_value(root: list[Any], random: Random) -> None:
    places = list(_places(root))
    if not places:
        return
    container, index = random.choice(places)
    name, value = container[index] if isinstance(container, Pairs) else (None, container[index])
    there, position = random.choice(places)
    elsewhere = there[position][1] if isinstance(there, Pairs) else there[position]
    strange = Raw(random.choice(JSON_VALUES))
    action = random.randrange(10)
    if action == 6:
        del container[index]
    elif action == 7:
        container.append(container[index])
    elif action == 8 and name is not None:
        container[index] = random.choice(("", "x", name.upper(), name + "\u0000", "__class__")), value
    else:
        new = strange if action < 6 else elsewhere if not isinstance(elsewhere, list) else [value]
        container[index] = new if name is None else (name, new)


def _places(container: list[Any]) -> Any:
    """All (list or object, position) of values in JSON data."""
    for index, item in enumerate(container):
        yield container, index
        value = item[1] if isinstance(container, Pairs) else item
        if isinstance(value, list):
            yield from _places(value)


def written(value: Any) -> str:
    """JSON of what :func:`json.loads` made with ``Pairs``, and of raw text in it."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Pairs):
        return "{" + ", ".join(f"{json.dumps(name)}: {written(inner)}" for name, inner in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value)


def damage_toml(data: bytes, other: bytes, random: Random) -> bytes:
    """One to three lines of a TOML file are others, lost, repeated or added."""
    return encoded(
        "\n".join(_changed(data.decode().splitlines(), _changed_setting, TOML_LINES, random)), random
    )


def _changed_setting(line: str, random: Random) -> str:
    return f"{line.partition('=')[0]}= {random.choice(TOML_VALUES)}"


def damage_csv(data: bytes, other: bytes, random: Random) -> bytes:
    """One to three lines of a table have other cells, or are lost, repeated or added."""
    return encoded("\r\n".join(_changed(data.decode().splitlines(), _changed_cells, CELLS, random)), random)


def _changed_cells(line: str, random: Random) -> str:
    return ",".join(_changed(line.split(","), lambda _, random: random.choice(CELLS), CELLS, random))


def _changed(
    parts: list[str], change: Callable[[str, Random], str], more: tuple[str, ...], random: Random
) -> list[str]:
    for _ in range(random.choice((1, 1, 2, 3))):
        index = random.randrange(len(parts)) if parts else 0
        match random.randrange(7):
            case 0:
                del parts[index : index + 1]
            case 1:
                parts.insert(index, random.choice(more))
            case 2:
                parts[index:index] = parts[index : index + 1]
            case _ if parts:
                parts[index] = change(parts[index], random)
    return parts


def encoded(text: str, random: Random) -> bytes:
    """As UTF-8, mostly."""
    data = text.encode("utf-8", "surrogatepass")
    match random.randrange(24):
        case 0:
            return b"\xef\xbb\xbf" + data
        case 1:
            return text.encode("utf-16", "surrogatepass")
        case 2:
            cut = random.randint(0, len(data))
            return (
                data[:cut]
                + random.choice((b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xe2\x82", b"\0"))
                + data[cut:]
            )
    return data


# safetensors


def damage_safetensors_header(data: bytes, other: bytes, random: Random) -> bytes:
    """Tensors have other types, shapes, places or names; the header's length is right."""
    header, tensors = safetensors_parts(data)
    return safetensors_of(damage_json(header, header, random), tensors)


def damage_safetensors_metadata(data: bytes, other: bytes, random: Random) -> bytes:
    """The JSON in the metadata says something else; all around it is right."""
    header, tensors = safetensors_parts(data)
    values = json.loads(header)
    metadata = values["__metadata__"]
    name = random.choice(sorted(metadata))
    metadata[name] = damage_json(metadata[name].encode(), b"", random).decode("utf-8", "replace")
    return safetensors_of(json.dumps(values).encode(), tensors)


def damage_checkpoint(data: bytes, other: bytes, random: Random) -> bytes:
    """As :func:`damage_safetensors_metadata`, with the checksum of what it says then."""
    from safetensors.numpy import load

    damaged = damage_safetensors_metadata(data, other, random)
    header, tensors = safetensors_parts(damaged)
    values = json.loads(header)
    try:
        description = json.loads(values["__metadata__"][METADATA])
        description.pop(CHECKSUM)
        description[CHECKSUM] = checksum(load(data), description)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return damaged
    values["__metadata__"][METADATA] = json.dumps(description)
    return safetensors_of(json.dumps(values).encode(), tensors)


def safetensors_parts(data: bytes) -> tuple[bytes, bytes]:
    """The header and the numbers of a valid safetensors file."""
    end = 8 + int.from_bytes(data[:8], "little")
    return data[8:end], data[end:]


def safetensors_of(header: bytes, tensors: bytes) -> bytes:
    """A file whose header has the length that it says it has."""
    return len(header).to_bytes(8, "little") + header + tensors
