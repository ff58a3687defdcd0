"""Evaluates a name in a Python file of the user, as in "mynet.py:make"."""

import importlib.util
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from backends.text import first_line
from cnn.support.errors import ArgumentError
from cnn.support.text import short


def is_code(text: str) -> bool:
    """Whether the text names a Python file and something in it."""
    name, colon, expression = text.rpartition(".py:")
    return bool(name and colon and expression)


def evaluated(text: str, option: str, example: str) -> Any:
    """The value of "FILE.py:EXPRESSION". Raises ArgumentError if it fails or does not have this form.

    ``option`` and ``example`` are shown in the message.
    """
    name, _, expression = text.rpartition(".py:")
    path = Path(f"{name}.py")
    if not is_code(text):
        raise ArgumentError(
            f'{option} is {text!r}, expected a Python file, a colon and a name in it, as in "{example}"'
        )
    if not path.is_file():
        raise ArgumentError(f"{option} is {text!r}, but there is no file {path}: give the path of a file")
    module_name = path.stem if path.stem not in sys.modules else f"own_{path.stem}"  # replace no module
    specification = importlib.util.spec_from_file_location(module_name, path)
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules[module_name] = module
    sys.path.insert(0, os.fspath(path.parent.absolute()))  # as if the file were run: it may import others
    try:
        specification.loader.exec_module(module)
        return eval(expression, vars(module))  # the user's own code, named by the user
    except Exception as error:
        raise failed(error, text, option) from error
    finally:
        sys.path.pop(0)


def failed(error: Exception, text: str, option: str) -> ArgumentError:
    """The error that says how the user's code failed, and in which line of its file."""
    path = os.path.realpath(text.rpartition(":")[0])
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    if isinstance(error, SyntaxError) and error.lineno:
        line: int | None = error.lineno
    else:
        line = frames[-1].lineno if frames else None
    where = f" in line {line}" if line else ""
    reason = f"{type(error).__name__}: {short(first_line(error), 200)}"
    return ArgumentError(f"{option} {text!r} fails{where} ({reason})")
