"""Layers as plain data, so that a file can say how to make them again."""

from typing import Any

from cnn import layers
from cnn.layers.layer import Layer
from cnn.support.errors import CheckpointError


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


def rebuild(description: dict[str, Any]) -> Layer:
    """The layer that :func:`describe` described, not yet built."""
    arguments = {name: _rebuilt(value) for name, value in description.items()}
    kind = arguments.pop("type")
    if kind not in layers.__all__ or not issubclass(getattr(layers, kind), Layer):
        raise CheckpointError(f"unknown layer type {kind!r}")
    return getattr(layers, kind)(*arguments.pop("layers", ()), **arguments)


def _rebuilt(value: Any) -> Any:
    """An argument from plain data."""
    if isinstance(value, dict):
        return rebuild(value)
    if isinstance(value, list):
        return [_rebuilt(part) for part in value]
    return value
