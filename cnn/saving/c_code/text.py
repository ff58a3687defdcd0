"""C code as text: constants, strings, identifiers, and the functions of this folder's C files."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import numpy as np

from cnn.saving.c_code.operations import Node, Value
from cnn.saving.c_code.planning import Plan

WIDTH = 112  # of lines of constants
TYPES = {"float32": "float", "int8": "int8_t", "uint8": "uint8_t", "int32": "int32_t", "int64": "int"}
BYTES = {"float": 4, "int8_t": 1, "uint8_t": 1, "int32_t": 4, "int": 4}


@dataclass
class Code:
    """The constants and the statements of a C file under construction."""

    plan: Plan
    constants: list[str] = field(default_factory=list)
    statements: dict[str, list[str]] = field(default_factory=dict)  # of each function, by its name
    functions: set[str] = field(default_factory=set)  # those that the statements call
    constant_bytes: int = 0
    _names: set[str] = field(default_factory=set)

    def begin(self, function: str) -> None:
        """Begin this function; the next statements are added to it."""
        self._current = self.statements.setdefault(function, [])

    def address(self, value: Value) -> str:
        """The C expression for the place of a value."""
        offset = self.plan.places[value]
        return "probabilities" if offset is None else f"work + {offset}" if offset else "work"

    def array(self, name: str, node: Node | None, values: Any) -> str:
        """Define an array of constants; -> its name."""
        kind = TYPES[values.dtype.name]
        self.constant_bytes += values.size * BYTES[kind]
        name = self._name(name, node)
        self.constants.append(array(f"static const {kind} {name}[{values.size}]", values))
        return name

    def structure(self, kind: str, name: str, node: Node, members: Sequence[Any]) -> str:
        """Define a constant structure; -> its address."""
        name = self._name(name, node)
        self.constants.append(f"static const {kind} {name} = {{{', '.join(map(str, members))}}};")
        return f"&{name}"

    def window(self, node: Node, biases: int = 0) -> str:
        """Define the window of a convolution or pooling; -> its address."""
        settings, before, after = node.operation.settings, node.inputs[0].shape, node.output.shape
        window = settings["window"]
        shapes = *(*before, 1, 1)[:3], *(*after, 1, 1)[:3]  # a global pooling has no height and no width
        sides = *window.size, *window.stride, *window.padding, *window.dilation
        return self.structure("window", "window", node, (*shapes, *sides, settings.get("groups", 1), biases))

    def sampling(self, name: str, node: Node, sampling: Any, weights: Any) -> str:
        """Define how an axis is resampled, with these weights of its taps; -> its address."""
        places, _ = sampling.lists
        count = len(sampling) + 1
        starts, sources = (np.array(part or [0], np.int64) for part in (places[:count], places[count:]))
        names = [
            self.array(f"{name}_{part}", node, values)
            for part, values in (("starts", starts), ("sources", sources), ("weights", weights))
        ]
        return self.structure("sampling", name, node, (sampling.size, len(sampling), *names))

    def call(self, function: str, *arguments: Any) -> None:
        """Add the call of a function of the C files."""
        self.functions.add(function)
        self._current.append(f"{function}({', '.join(map(literal, arguments))});")

    def copy(self, source: str, value: Value, offset: int = 0, count: int | None = None) -> None:
        """Add a copy of numbers to a place in ``value``, unless they are there already."""
        place = self.address(value)
        place = f"{place} + {offset}" if offset else place
        if place != source:
            self._current.append(f"memcpy({place}, {source}, {count or value.size} * sizeof *({place}));")

    def comment(self, node: Node) -> None:
        """Add a comment on the statements that follow."""
        layer = node.layer.label if node.layer.path else "output"
        activation = " and ReLU" if "rectified" in node.operation.settings else ""
        shapes = f"{in_words(node.inputs[0].shape)} -> {in_words(node.output.shape)}"
        self._current.append(f"/* {layer}{activation}: {shapes} */")

    def _name(self, name: str, node: Node | None) -> str:
        path = node.layer.path if node is not None else ""
        wanted = unique = f"{name}_{path}".replace(".", "_").rstrip("_")
        number = 2
        while unique in self._names:
            unique, number = f"{wanted}_{number}", number + 1
        self._names.add(unique)
        return unique


def in_words(shape: Sequence[int]) -> str:
    """A shape, such as "1 x 28 x 28"."""
    return " x ".join(map(str, shape))


def literal(value: Any) -> str:
    """A number as C has it; text stays as it is."""
    return f"{value:#.9g}f" if isinstance(value, float) else str(value)


def array(declaration: str, values: Any) -> str:
    """The definition of an array; floats have as many digits as are needed to read the same numbers."""
    numbers = values.ravel().tolist()
    texts = [literal(number) for number in numbers]
    longest = max(map(len, texts)) + 2
    count = max(1, (WIDTH - 4) // longest)
    rows = (", ".join(texts[start : start + count]) for start in range(0, len(texts), count))
    return "\n".join([f"{declaration} = {{", *(f"    {row}," for row in rows), "};"])


def string(text: str) -> str:
    """A string literal with the UTF-8 bytes of ``text``; all but printable ASCII characters are escaped."""
    kept = set(range(32, 127)) - set(b'"\\?')  # two question marks begin a trigraph
    inside = "".join(
        chr(byte) if byte in kept else f"\\{byte:03o}" for byte in text.encode("utf-8", "replace")
    )
    return f'"{inside}"'


def identifier(stem: str) -> str:
    """A C identifier made of a file's name."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", stem).strip("_")
    return name if name and not name[0].isdigit() else f"model_{name}".rstrip("_")


def library(needed: Collection[str], sources: Iterable[str]) -> Iterator[str]:
    """The functions and types of C files that are ``needed``, and what these need, in order.

    If several files define a name, the first definition is used.
    """
    blocks: dict[str, str] = {}
    for source in sources:
        for name, block in _blocks(files("cnn.saving.c_code").joinpath(source).read_text("utf-8")):
            blocks.setdefault(name, block)
    missing, found = set(needed), set()
    while missing:
        name = missing.pop()
        found.add(name)
        words = set(re.findall(r"\w+", re.sub(r"/\*.*?\*/", "", blocks[name], flags=re.DOTALL)))
        missing |= (words & blocks.keys()) - found
    yield from (block for name, block in blocks.items() if name in found)


def _blocks(source: str) -> Iterator[tuple[str, str]]:
    """Each definition of a C file with the comment before it, by its name."""
    for block in re.split(r"\n+(?=/\*)", source.strip()):
        match = re.search(r"^static [^(;]*?(\w+)\(|^} (\w+);", block, flags=re.MULTILINE)
        assert match, block
        yield match[1] or match[2], block
