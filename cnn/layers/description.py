"""Layers as plain data, so that a file can say how to make them again."""

import inspect
from typing import Any

from backends.text import did_you_mean
from cnn import layers
from cnn.layers.container import Container
from cnn.layers.layer import Layer
from cnn.support.arguments import shown
from cnn.support.errors import CheckpointError

KINDS = {
    name: kind
    for name, kind in vars(layers).items()
    if name in layers.__all__ and issubclass(kind, Layer) and kind not in (Layer, Container)
}


def describe(layer: Layer) -> dict[str, Any]:
    """A layer as plain data: its type and its constructor's arguments."""
    if getattr(layers, layer.kind, None) not in type(layer).__mro__ or not layer.is_own:
        raise CheckpointError(f"layer {layer.label} is of a class that this library does not have")
    if any(callable(value) for value in layer.config.values()):
        raise CheckpointError(f"layer {layer.label} holds a function")
    return {"type": layer.kind, **{name: _described(value) for name, value in layer.config.items()}}


def _described(value: Any) -> Any:
    """An argument as plain data: layers are described, everything else is as it is."""
    if isinstance(value, Layer):
        return describe(value)
    if isinstance(value, list):
        return [_described(part) for part in value]
    return value


def shortened(description: dict[str, Any]) -> dict[str, Any]:
    """The same layer with the fewest arguments, and one number in place of a pair of equal ones."""
    same = describe(rebuild(description))
    for name, value in list(description.items()):
        if name not in ("type", "layers"):
            rest = {other: kept for other, kept in description.items() if other != name}
            if _gives(rest, same):
                description = rest
            elif isinstance(value, list | tuple) and _gives(description | {name: value[0]}, same):
                description = description | {name: value[0]}
    return {name: _shortened(value) for name, value in description.items()}


def _gives(description: dict[str, Any], same: dict[str, Any]) -> bool:
    try:
        return describe(rebuild(description)) == same
    except CheckpointError:
        return False


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return shortened(value)
    if isinstance(value, list):
        return [_shortened(part) for part in value]
    return value


def rebuild(description: Any, place: str = "") -> Layer:
    """The layer that :func:`describe` described, not yet built.

    ``place`` is its position in the network, for messages. Raises CheckpointError, which names the layer, for
    an unknown type, and for arguments that are unknown, missing or wrong.
    """
    if not isinstance(description, dict) or "type" not in description:
        raise CheckpointError(
            f"layer {place} is {shown(description)}, which has no type: expected one such as Conv2D"
        )
    kind, label = description["type"], f"layer {place}".strip()
    if not isinstance(kind, str) or kind not in KINDS:
        expected = f"expected {', '.join(KINDS)}{did_you_mean(kind, KINDS)}"
        raise CheckpointError(f"{label} has the unknown type {shown(kind)}, {expected}")
    label = f"{label} {kind}"
    arguments = {
        name: rebuild(value, f"{place}.{name}".strip(".")) if isinstance(value, dict) else value
        for name, value in description.items()
        if name != "type"
    }
    inside = _inside(arguments.pop("layers", []), label, place)
    known = inspect.signature(KINDS[kind]).parameters
    takes_layers = any(each.kind is each.VAR_POSITIONAL for each in known.values())
    names = [name for name, each in known.items() if each.kind is not each.VAR_POSITIONAL]
    names += ["layers"] if takes_layers else []
    for name in [*arguments, *(["layers"] if inside else [])]:
        if name not in names:
            expected = f"expected {', '.join(names)}" if names else "it has none"
            raise CheckpointError(
                f"{label} has no argument {shown(name)}: {expected}{did_you_mean(name, names)}"
            )
    for name, each in known.items():
        if name not in arguments and each.default is each.empty and each.kind is not each.VAR_POSITIONAL:
            raise CheckpointError(f"{label} lacks {name}: expected a value for it")
    try:
        return KINDS[kind](*inside, **arguments)
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
        raise CheckpointError(f"{label}: {error}") from error


def _inside(parts: Any, label: str, place: str) -> list[Layer]:
    """The layers inside a layer."""
    if not isinstance(parts, list):
        raise CheckpointError(f"{label}: layers is {shown(parts)}, expected a list of layers")
    return [rebuild(part, f"{place}.{number}".strip(".")) for number, part in enumerate(parts)]
