"""``cnn info``."""

from typing import Any

import backends
from backends import DeviceUnavailable
from backends.text import readable_bytes
from cnn.cli.app import app, examples
from cnn.cli.options import AsJson
from cnn.cli.output import print_json
from cnn.support.environment import environment
from cnn.support.terminal import write_line


@app.command(epilog=examples("cnn info", "cnn info --json"))
def info(as_json: AsJson = False) -> None:
    """Show the devices, why one cannot be used, versions and libraries: what a bug report needs."""
    found = backends.available()
    devices = {
        name: {"usable": False, "reason": str(device)}
        if isinstance(device, DeviceUnavailable)
        else {"usable": True, **device.describe(), "memory": device.memory()}
        for name, device in found.items()
    }
    report = {**environment(), "devices": devices}
    if as_json:
        print_json(report)
    else:
        _print_nested(report)


def _print_nested(values: dict[str, Any], indent: str = "") -> None:
    for name, value in values.items():
        label = f"{indent}{name}"
        if not isinstance(value, dict):
            write_line(f"{label + ':':<22} {value}", indent=f"{indent}  ")
        elif name == "memory":
            counts = ", ".join(f"{readable_bytes(count)} {kind}" for kind, count in value.items())
            write_line(f"{label + ':':<22} {counts}", indent=f"{indent}  ")
        elif value:
            write_line(label)
            _print_nested(value, indent + "  ")
