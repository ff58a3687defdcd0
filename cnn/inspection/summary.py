"""A network as a table: layer, output shape, parameters, multiply-adds, memory.

The class of networks is not imported here, since ``net.summary()`` calls this module.
"""

from math import prod
from typing import Any

from backends.text import readable_bytes
from cnn.support.terminal import print_table, write_line


def rows(network: Any) -> list[dict[str, Any]]:
    """One dict per layer. Multiply-adds and bytes are per image; bytes are those that training keeps.

    Of fused layers only the output of the last one is kept.
    """
    network.require_built()
    return [
        {
            "layer": layer.label,
            "output_shape": list(layer.output_shape),
            "parameters": sum(parameter.size for parameter in layer.own_parameters.values()),
            "multiply_adds": layer.multiply_adds,
            "bytes": layer.kept_bytes if layer is together[-1] else 0,
            "in_one_pass": [other.path for other in together] if len(together) > 1 else [],
            "algorithm": layer.algorithm,
        }
        for together in network.walk_passes()
        for layer in together
    ]


def totals(network: Any) -> dict[str, int]:
    """The totals of the network; bytes per image include the two arrays in which gradients are passed on."""
    table = rows(network)
    itemsize = network.backend.xp.dtype(network.dtype).itemsize
    largest = max((prod(row["output_shape"]) for row in table), default=0)
    return {
        "parameters": sum(row["parameters"] for row in table),
        "multiply_adds": sum(row["multiply_adds"] for row in table),
        "parameter_bytes": network.flat.value.nbytes + network.flat.grad.nbytes,
        "bytes_per_image": sum(row["bytes"] for row in table) + 2 * largest * itemsize,
    }


def show(network: Any) -> None:
    """Print the summary."""
    whole, table = totals(network), rows(network)
    headings = ["layer", "output shape", "parameters", "multiply-adds", "memory\nan image"]
    lines = [
        [
            row["layer"],
            "x".join(map(str, row["output_shape"])),
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
    if any(row["in_one_pass"] for row in table):
        headings.append("in one\npass")
        footer.append("")
        for line, row in zip(lines, table, strict=True):
            together = row["in_one_pass"]
            line.append(f"{together[0]}-{together[-1]}" if together else "")
    print_table(headings, lines, footer)
    write_line(
        f"{network.dtype} on {network.backend.name}; parameters and their gradients use "
        f"{readable_bytes(whole['parameter_bytes'])}; the total memory per image includes the gradients that "
        "layers pass on"
    )
    for algorithm in dict.fromkeys(row["algorithm"] for row in table if row["algorithm"]):
        layers = ", ".join(row["layer"].partition(" ")[0] for row in table if row["algorithm"] == algorithm)
        write_line(f"{algorithm} computes large batches of layers {layers}")
