"""The ``cnn`` command, a module for each of its commands.

Results go to standard output, progress and errors to standard error.
"""

from cnn.cli import needed  # noqa: F401 - first, since it says so if one of them cannot be imported
from cnn.cli.app import app, main

# Each adds its command to the app; --help lists them in this order.
# isort: off
from cnn.cli import train
from cnn.cli import evaluate
from cnn.cli import predict
from cnn.cli import demo
from cnn.cli import report
from cnn.cli import runs
from cnn.cli import compare
from cnn.cli import summary
from cnn.cli import export
from cnn.cli import import_
from cnn.cli import gradcheck
from cnn.cli import selftest
from cnn.cli import compile
from cnn.cli import info
# isort: on

__all__ = [
    "app",
    "compare",
    "compile",
    "demo",
    "evaluate",
    "export",
    "gradcheck",
    "import_",
    "info",
    "main",
    "predict",
    "report",
    "runs",
    "selftest",
    "summary",
    "train",
]
