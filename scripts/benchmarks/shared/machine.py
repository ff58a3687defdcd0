"""The machine that a benchmark runs on."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from backends import Backend
from cnn.support.environment import environment

PACKAGES = ("numba", "torch", "jax", "jaxlib")


def describe_machine(backend: Backend) -> dict[str, Any]:
    """Hardware, system and versions, also of the libraries that are compared with ours."""
    versions = {name: _version(name) for name in PACKAGES}
    return environment() | {"device": backend.describe(), "peers": versions}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
