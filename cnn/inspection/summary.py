"""A network as a table: layer, output shape, parameters, multiply-adds, memory.

The class of networks is not imported here, since ``net.summary()`` calls this module.
"""

from math import prod
from typing import Any

from backends.text import readable_bytes
from cnn.layers.planning import training_bytes
from cnn.support.terminal import print_table, write_line
from cnn.support.text import dimensions


def rows(network: Any) -> list[dict[str, Any]]:
    """One dict per layer. Multiply-adds and bytes are per image; bytes are those that training keeps.

    Of layers that training computes in one pass only the output of the last one is kept, and that only if
    the backward pass reads it.
    """
    network.require_built()
    itemsize = network.itemsize
    kept = set(network.kept_outputs())

    def kept_bytes(layer: Any, together: tuple[Any, ...]) -> int:
        has_output = layer is together[-1] and not kept.isdisjoint(together)
        return int(layer.kept_bytes + prod(layer.output_shape) * itemsize * has_output)

    inference = {layer: together for together in network.walk_passes(training=False) for layer in together}
    return [
        {
            "layer": layer.label,
            "output_shape": list(layer.output_shape),
            "parameters": sum(parameter.size for parameter in layer.own_parameters.values()),
            "trainable": layer.trainable,
            "multiply_adds": layer.multiply_adds,
            "bytes": kept_bytes(layer, together),
            "in_one_pass": _paths(together),
            "in_one_pass_in_inference": _paths(inference[layer]),
            "adds_up_moments": _adds_up_moments(layer, inference[layer]),
            "algorithm": layer.algorithm,
        }
        for together in network.walk_passes()
        for layer in together
    ]


def _paths(together: tuple[Any, ...]) -> list[str]:
    """The layers of a pass, if there are several."""
    return [layer.path for layer in together] if len(together) > 1 else []


def _adds_up_moments(layer: Any, together: tuple[Any, ...]) -> bool:
    """Whether in training the pass of the layer gives the moments for the normalization after it."""
    followed = layer is together[0] and len(together) > 1 and together[1].epilogue == "batch_norm"
    return followed and bool(layer.algorithm)


def totals(network: Any) -> dict[str, int]:
    """The totals of the network; bytes per image include gradients that layers pass on.

    These take the place of outputs that are not needed any more, so there are few.
    """
    table = rows(network)
    return {
        "parameters": sum(row["parameters"] for row in table),
        "trained_parameters": sum(
            parameter.size for parameter in network.parameters.values() if not parameter.frozen
        ),
        "multiply_adds": sum(row["multiply_adds"] for row in table),
        "parameter_bytes": parameter_bytes(network),
        "bytes_per_image": training_bytes(network, 1) + sum(layer.kept_bytes for layer in network.walk()),
    }


def parameter_bytes(network: Any) -> int:
    """Bytes of the parameters, their gradients and, in mixed precision, the rounded parameters."""
    flat = network.flat
    rounded = 0 if flat.operand is flat.value else flat.operand.nbytes
    return int(flat.value.nbytes + flat.grad.nbytes + rounded)


def show(network: Any) -> None:
    """Print the summary."""
    whole, table = totals(network), rows(network)
    headings = ["layer", "output shape", "parameters", "multiply-adds", "memory\nan image"]
    lines = [
        [
            row["layer"],
            dimensions(row["output_shape"]),
            f"{row['parameters']:,}",
            f"{row['multiply_adds']:,}",
            readable_bytes(row["bytes"]),
        ]
        for row in table
    ]
    figures = (
        f"{whole['parameters']:,}",
        f"{whole['multiply_adds']:,}",
        readable_bytes(whole["bytes_per_image"]),
    )
    footer = ["total", "", *figures]
    columns = {"in_one_pass": "in one\npass", "in_one_pass_in_inference": "in one pass\nin inference"}
    if all(row["in_one_pass"] == row["in_one_pass_in_inference"] for row in table):
        del columns["in_one_pass_in_inference"]
    for name, heading in columns.items():
        if any(row[name] for row in table):
            headings.append(heading)
            footer.append("")
            for line, row in zip(lines, table, strict=True):
                line.append(f"{row[name][0]}-{row[name][-1]}" if row[name] else "")
    print_table(headings, lines, footer)
    write_line(
        f"{network.dtype} on {network.backend.name}; parameters and their gradients use "
        f"{readable_bytes(whole['parameter_bytes'])}; the total memory per image includes the gradients that "
        "layers pass on"
    )
    if frozen := frozen_note(network):
        write_line(frozen)
    if summing := [row for row in table if row["adds_up_moments"]]:
        write_line(
            f"in training, layers {_list(summing)} compute the mean and the variance for the normalization "
            "after them in their own pass"
        )
    for algorithm in dict.fromkeys(row["algorithm"] for row in table if row["algorithm"]):
        layers = _list([row for row in table if row["algorithm"] == algorithm])
        write_line(f"{algorithm} computes large batches of layers {layers}")


def frozen_note(network: Any) -> str | None:
    """A sentence on the frozen layers of a network, if it has any."""
    frozen = [row for row in rows(network) if not row["trainable"]]
    if not frozen:
        return None
    whole = totals(network)
    changed = f"training changes {whole['trained_parameters']:,} of {whole['parameters']:,} parameters"
    are = f"layers {_list(frozen)} are" if len(frozen) > 1 else f"layer {_list(frozen)} is"
    return f"{are} frozen: {changed}"


def _list(table: list[dict[str, Any]]) -> str:
    """The numbers of the layers of some rows."""
    return ", ".join(row["layer"].partition(" ")[0] for row in table)
