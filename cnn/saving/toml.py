"""Architectures in TOML, to be read and edited: an array of tables ``[[layers]]``, without weights.

A layer has its ``type`` and the arguments that are not the defaults. Layers inside it have their own tables.
"""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backends.text import did_you_mean
from cnn.layers.description import describe, rebuild, shortened
from cnn.network import Network
from cnn.support.arguments import shown
from cnn.support.errors import ArgumentError, CheckpointError
from cnn.support.reading import parse_toml, read_text
from cnn.support.text import short

NONE = "None"  # TOML has no word for it
EXAMPLE = '[[layers]], then lines such as type = "Conv2D" and out_channels = 8'
MOST_TOML = 1 << 20  # bytes; a thousand layers take less than a tenth


def write(network: Network) -> str:
    """The architecture of ``network`` as TOML; CheckpointError if a layer cannot be described."""
    return "\n".join(_table(description, "layers") for description in map(_short, network.layers))


def read(path: Path) -> Network:
    """The network that a TOML file describes, not yet built.

    Raises ArgumentError, which names the layer and the argument, if the file does not describe one.
    """
    try:
        found = _layers(parse_toml(read_text(path, MOST_TOML)))
        return Network(*(rebuild(_with_none(layer), str(number)) for number, layer in enumerate(found)))
    except OSError as error:
        raise ArgumentError(f"{path} cannot be read ({error.strerror}): expected {EXAMPLE}") from None
    except CheckpointError as error:
        raise ArgumentError(f"{path}: {short(str(error), 1000)}") from None
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        raise ArgumentError(f"{path} is not TOML ({short(str(error), 200)}): expected {EXAMPLE}") from None


def _layers(values: dict[str, Any]) -> list[Any]:
    for name in values:
        if name != "layers":
            raise CheckpointError(
                f"unknown key {shown(name)}, expected {EXAMPLE}{did_you_mean(name, ['layers'])}"
            )
    found = values.get("layers")
    if not isinstance(found, list) or not found:
        raise CheckpointError(f"there are no layers: expected {EXAMPLE}")
    return found


def _with_none(value: Any) -> Any:
    """A value in which NONE stands for None."""
    if isinstance(value, dict):
        return {name: _with_none(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_with_none(part) for part in value]
    return None if value == NONE else value


def _short(layer: Any) -> dict[str, Any]:
    return shortened(describe(layer))


def _table(description: dict[str, Any], path: str) -> str:
    """The lines of a layer in the array ``path``, and of the layers inside it."""
    return f"[[{path}]]\n" + "".join(_lines(description, path))


def _lines(description: dict[str, Any], path: str) -> Iterator[str]:
    inside = {
        name: value for name, value in description.items() if name == "layers" or isinstance(value, dict)
    }
    for name, value in description.items():
        if name not in inside:
            plain = NONE if value is None else value
            yield f"{name} = {json.dumps(plain)}\n"  # text, finite numbers and lists are the same in TOML
    for name, value in inside.items():
        if isinstance(value, dict):
            yield "".join([f"\n[{path}.{name}]\n", *_lines(value, f"{path}.{name}")])
        else:
            yield from (f"\n{_table(part, f'{path}.{name}')}" for part in value)
