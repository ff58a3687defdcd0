"""Options of a benchmark's command line; a mistake is answered in one sentence."""

import argparse
from collections.abc import Callable, Iterable
from typing import NoReturn, TypeVar

T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """Answers a mistake in one sentence."""

    def __init__(self, description: str | None) -> None:
        super().__init__(
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def listed(each: Callable[[str], T]) -> Callable[[str], list[T]]:
    """As "1,32" into [1, 32]; each once."""
    return lambda text: list(dict.fromkeys(map(each, text.split(","))))


def one_of(names: Iterable[str]) -> Callable[[str], str]:
    """A name that must be among these."""

    def convert(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"unknown name {text!r}: expected some of {', '.join(names)}")
        return text

    return convert


def whole(most: int | None = None) -> Callable[[str], int]:
    """A whole number from 1."""

    def convert(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= (most or int(text)):
            limit = "" if most is None else f" to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1{limit}")
        return int(text)

    return convert
