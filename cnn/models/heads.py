"""The head of a network, the layer that tells the classes apart: it is found, replaced, or trained alone."""

from collections.abc import Mapping
from typing import Any

from cnn.layers.layer import Layer
from cnn.layers.sequential import Sequential
from cnn.network import Network
from cnn.support.arguments import instance, size
from cnn.support.errors import ArgumentError, ShapeError

COUNTS = ("out_features", "out_channels")  # arguments that are the number of outputs of a layer
ALL_BUT_HEAD = "all-but-head"


def replace_head(network: Network, classes: int, seed: int = 0) -> Network:
    """A network for other classes with the weights of ``network``, which stays as it is.

    The head is new: the last layer that has a number of outputs, such as ``Dense`` or ``Conv2D``, and what
    follows it. All other layers keep their weights and running statistics, whether they are frozen, and the
    network keeps its preprocessing, so its images have the same size and are normalized in the same way. The
    result is on the same device. ::

        net = cnn.replace_head(cnn.load("base.safetensors"), classes=5)
        net.freeze("*")
        net.unfreeze(cnn.find_head(net))                      # train the head alone
        cnn.fit(net, train, epochs=10)

        net.unfreeze("*")                                     # then all layers, the old ones slowly
        groups = [cnn.Group(f"{cnn.find_head(net)}.*"), cnn.Group("*", rate=0.1)]
        cnn.fit(net, train, epochs=10, optimizer=cnn.SGD(0.01, momentum=0.9, groups=groups))

    Parameters
    ----------
    network : Sequential
        A network that is built.
    classes : int
        The number of outputs of the new head.
    seed : int
        Seed of the new weights.

    Raises
    ------
    ArgumentError
        If the network has no such layer, or it is inside a branch.
    ShapeError
        If the new network would not have an output for each class.
    """
    instance("network", network, Network, 'cnn.load("base.safetensors")').require_built()
    made = with_head(network, classes)
    made.build(
        network.input_shape, backend=network.backend, seed=seed, dtype=network.dtype,
        fuse=network.context.fuse, winograd=network.context.winograd,
    )  # fmt: skip
    if made.output_shape != (classes,):
        raise ShapeError(
            f"with {classes} outputs in layer {find_head(made)}, the network's output is "
            f"{made.output_shape}: expected a network that ends with a number for each class"
        )
    take_body(made, network.state_dict())
    made.preprocessing = network.preprocessing
    new = head_names(made)
    made.freeze(*(name for name in network.frozen_names if name not in new))
    return made


def find_head(network: Network) -> str:
    """The name of the layer that tells the classes apart, such as "9" or "3.1".

    It is the last one with a number of outputs, such as ``Dense`` or ``Conv2D``. ArgumentError if there is
    none, or if it is inside a branch.
    """
    return ".".join(map(str, _place_of_head(network)))


def with_head(network: Network, classes: int) -> Network:
    """The same layers, not yet built, with a new head for so many classes."""
    classes = size("classes", classes)
    made = network.fresh()
    *outer, last = _place_of_head(made)
    inside: Any = made
    for index in outer:
        inside = inside.layers[index]
    head = inside.layers[last]
    name = next(name for name in COUNTS if name in head.config)
    trainable = {"trainable": True} if "trainable" in head.config else {}
    inside.layers[last] = type(head)(**head.config | {name: classes} | trainable)
    return made


def take_body(network: Network, state: Mapping[str, Any]) -> None:
    """Give all layers but the head the arrays of this ``state_dict``."""
    own, new = network.state_dict(), head_names(network)
    network.load_state_dict({name: own[name] if name in new else state[name] for name in own})


def head_names(network: Network) -> list[str]:
    """The names of the parameters and statistics of the head and of the layers after it."""
    paths = [layer.path for layer in network.walk()]
    new = paths[paths.index(find_head(network)) :]
    return [name for name in network.arrays if name.rpartition(".")[0] in new]


def freeze(network: Network, what: str) -> None:
    """Freeze the first layers: "3" freezes those that a summary shows as 0, 1 and 2, with the layers inside.

    "all-but-head" freezes all layers before the head. Everything else is trained. Raises ArgumentError if
    ``what`` includes the head, or no layer with weights.
    """
    network.unfreeze("*")
    head = head_names(network)
    below = [name for name in network.arrays if name not in head]
    first = _place_of_head(network)[0]
    if what == ALL_BUT_HEAD:
        chosen = below
    else:
        count = require_freezable(what)
        if count > first:
            raise ArgumentError(
                f"--freeze is {count}, but layer {find_head(network)} tells the classes apart and has to be "
                f"trained: expected a number up to {first}, or {ALL_BUT_HEAD}"
            )
        chosen = [name for name in below if int(name.partition(".")[0]) < count]
    if not chosen:
        found = f"the first one is layer {below[0].partition('.')[0]}" if below else "only the head has any"
        raise ArgumentError(f"--freeze is {what}, which includes no layer with weights: {found}")
    network.freeze(*chosen)


def require_freezable(what: str) -> int:
    """The number of layers in ``what``; 0 for "all-but-head". Raises ArgumentError for anything else."""
    if what == ALL_BUT_HEAD:
        return 0
    if not (what.isdecimal() and len(what) < 10 and int(what)):
        raise ArgumentError(
            f"--freeze is {what!r}, expected the number of first layers that are not trained, such as 3, or "
            f"{ALL_BUT_HEAD}"
        )
    return int(what)


def _place_of_head(network: Sequential) -> list[int]:
    """The positions that lead to the head: of the layer, and of the layer inside it, and so on."""
    found = _search(network)
    if found is None:
        raise ArgumentError(
            "the network has no layer that tells classes apart: expected one with a number of outputs, such "
            "as cnn.Dense(10), near its end"
        )
    return found


def _search(layers: Sequential) -> list[int] | None:
    for index, layer in reversed([*enumerate(layers.layers)]):
        if isinstance(layer, Sequential):
            if inside := _search(layer):
                return [index, *inside]
        elif any(name in layer.config for name in COUNTS):
            return [index]
        elif _has_outputs(layer):
            raise ArgumentError(
                f"layer {index} {layer.kind} is the last one with weights and has branches: expected a "
                "network that ends with a Dense or Conv2D layer for its classes"
            )
    return None


def _has_outputs(layer: Layer) -> bool:
    """Whether a layer with a number of outputs is inside this one."""
    inside = getattr(layer, "children", {}).values()
    return any(any(name in each.config for name in COUNTS) or _has_outputs(each) for each in inside)
