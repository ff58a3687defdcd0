"""Everything beside PyTorch: ``make test-peers``.

``make test`` runs it with fewer examples where PyTorch is installed, and leaves it out where it is not.
"""

from importlib.util import find_spec

import pytest

if find_spec("hypothesis"):
    from hypothesis import settings

    settings.register_profile("peers", max_examples=1000)


def pytest_addoption(parser):
    parser.addoption("--need-pytorch", action="store_true", help="fail at once where there is no PyTorch")


def pytest_sessionstart(session):
    if session.config.getoption("need_pytorch") and not find_spec("torch"):
        raise pytest.UsageError("PyTorch is not installed: pip install torch, or call make test-peers")
