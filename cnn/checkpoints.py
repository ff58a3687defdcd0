"""Weights and architecture in one safetensors file: data only, nothing is ever unpickled."""

import json
from pathlib import Path
from typing import Any

from backends import Backend
from cnn import layers
from cnn.errors import ArgumentError, CheckpointError, ShapeError
from cnn.files import write_whole
from cnn.layers.layer import Layer
from cnn.network import Sequential

VERSION = "1"


def save(network: Sequential, path: str | Path) -> None:
    """Write ``network`` to ``path``, whole or not at all.

    The file's metadata say how to build the network again; where they cannot (functions in an
    Activation, a layer class of one's own) they name the layer, and :func:`load` asks for ``network=``.
    """
    from safetensors.numpy import save as serialize

    metadata = {
        "format": "xpcnn",
        "version": VERSION,
        "dtype": network.dtype,
        "input_shape": json.dumps(network.input_shape),
    }
    try:
        metadata["network"] = json.dumps(describe(network))
    except CheckpointError as error:
        metadata["not_described"] = str(error)
    write_whole(path, serialize(network.state_dict(), metadata))


def load(path: str | Path, device: Backend | str = "auto", network: Sequential | None = None) -> Sequential:
    """The network in the file ``path``, on ``device``; or its weights put into ``network``.

    Raises CheckpointError where the file is missing, broken, not of this kind, or of another architecture.
    """
    state, metadata = read(path)
    try:
        if network is None:
            network = _rebuild(metadata, device)
        network.load_state_dict(state)
    except (CheckpointError, ShapeError, ArgumentError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    return network


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, str]]:
    """(arrays by name, metadata) of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"there is no file {path}: expected a safetensors file of weights") from None
    except (SafetensorError, OSError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is no readable safetensors file: {error}") from error


def describe(layer: Layer) -> dict[str, Any]:
    """A layer as plain data: its type and its constructor's arguments."""
    if isinstance(layer, Sequential):
        return {"type": "Sequential", "layers": [describe(inner) for inner in layer.layers]}
    if getattr(layers, type(layer).__name__, None) is not type(layer):
        raise CheckpointError(f"layer {layer.label} is of a class that this library does not have")
    if any(callable(value) for value in layer.config.values()):
        raise CheckpointError(f"layer {layer.label} holds a function")
    return {"type": type(layer).__name__, **layer.config}


def rebuild(description: Any) -> Layer:
    """The layer that :func:`describe` described, not yet built."""
    try:
        arguments = dict(description)
        kind = arguments.pop("type")
        if kind == "Sequential":
            return Sequential(*(rebuild(inner) for inner in arguments["layers"]))
        if kind not in layers.__all__ or not issubclass(getattr(layers, kind), Layer):
            raise CheckpointError(f"unknown layer type {kind!r}")
        return getattr(layers, kind)(**arguments)
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"the description of the network is broken: {error}") from error


def _rebuild(metadata: dict[str, str], device: Backend | str) -> Sequential:
    if "network" not in metadata:
        reason = metadata.get("not_described", "the file does not say which network it belongs to")
        raise CheckpointError(f"{reason}; give the network to load it into: cnn.load(path, network=...)")
    try:
        description = json.loads(metadata["network"])
        input_shape = tuple(json.loads(metadata["input_shape"]))
        dtype = metadata["dtype"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the description of the network is broken: {error}") from error
    network = rebuild(description)
    if not isinstance(network, Sequential):
        raise CheckpointError("the description of the network is broken: expected a Sequential")
    network.build(input_shape, backend=device, dtype=dtype)
    return network
