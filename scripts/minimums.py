"""Runs the core's tests with the lowest versions that pyproject.toml allows, in a temporary environment.

It takes the lowest Python that is allowed, since later ones have no wheels of such old versions:
``make test-minimums PYTHON=python3.11``.
"""

import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("pytest", "pytest-xdist")  # of the extra "test", whose other tools need newer libraries
CORE = (
    "tests/layers", "tests/data", "tests/runs", "tests/training/test_training.py",
    "tests/cli/test_cli.py", "tests/cli/test_train.py", "tests/cli/test_data_of_runs.py",
    "tests/cli/test_config_file.py", "tests/cli/test_end_of_run.py", "tests/cli/test_mistakes.py",
    "tests/support/test_terminal.py", "tests/backends/test_libraries.py", "tests/test_network.py",
    "tests/saving/test_weights.py",
)  # fmt: skip
PYTEST = ("pytest", "-q", "-n", "auto", "--maxprocesses", "4", "-p", "no:cacheprovider", *CORE)


def project() -> dict[str, Any]:
    """What pyproject.toml says of the project."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return table


def lowest(requirements: Iterable[str]) -> dict[str, Version]:
    """The lowest version that each requirement with ``>=`` allows, by name."""
    return {
        requirement.name: Version(specifier.version)
        for requirement in map(Requirement, requirements)
        for specifier in requirement.specifier
        if specifier.operator == ">="
    }


def constraints(table: dict[str, Any]) -> dict[str, Version]:
    """The versions to install, by name: of the dependencies, of the extra "onnx" and of the tools."""
    extras = table["optional-dependencies"]
    tools = lowest(extras["test"])
    return lowest([*table["dependencies"], *extras["onnx"]]) | {name: tools[name] for name in TOOLS}


def main() -> int:
    """The exit status of the tests, or of what failed before."""
    table = project()
    (oldest,) = lowest([f"python{table['requires-python']}"]).values()
    if sys.version_info[:2] != oldest.release[:2]:
        print(f"This needs Python {oldest}: make test-minimums PYTHON=python{oldest}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="minimums-") as folder:
        venv, pinned = Path(folder, "venv"), Path(folder, "constraints.txt")
        lines = [f"{name}=={version}" for name, version in constraints(table).items()]
        pinned.write_text("\n".join(lines))
        print(f"Installing {', '.join(lines)} ...", file=sys.stderr)
        python = str(venv / "bin" / "python")
        for command in (
            [sys.executable, "-I", "-m", "venv", str(venv)],
            [python, "-I", "-m", "pip", "install", "-q", "-c", str(pinned), "-e", f"{ROOT}[onnx]", *TOOLS],
            [python, "-m", *PYTEST],
        ):
            done = subprocess.run(command, cwd=ROOT, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
            if done.returncode:
                return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
