"""What ``--help`` prints: plain text in groups, folded between words, from 50 columns on."""

import ast
import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from cnn.support.streams import log
from cnn.support.terminal import fold, write_line

OPTIONAL = "[NAME]"  # the metavar of an option that may be given without a value
NAMES = 28  # columns of the names of arguments and options; what is longer has a line of its own

UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # typer exports none of its bases


class Command(TyperCommand):
    """A command whose options are grouped by their ``rich_help_panel``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, self._with_empty_values(args))
        except UsageError as error:
            error.ctx = error.ctx or ctx  # type: ignore[attr-defined]  # the parser omits some
            raise

    def _with_empty_values(self, args: list[str]) -> list[str]:
        """``args`` with an empty value for an ``OPTIONAL`` option without a value."""
        optional = {flag for each in self.params if each.metavar == OPTIONAL for flag in each.opts}
        end = args.index("--") if "--" in args else len(args)  # only arguments come after it
        following = [*args[1:end], "-"]
        options = [
            f"{word}=" if word in optional and after.startswith("-") else word
            for word, after in zip(args[:end], following, strict=False)
        ]
        return options + args[end:]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        write_help(self, ctx, formatter, {})


class Group(TyperGroup):
    """The commands together."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            write_line(ctx.get_help(), log())
            ctx.exit(2)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # newer versions of typer would end without a word
            raise typer.Abort from None

    def format_help(self, ctx: Any, formatter: Any) -> None:
        write_help(self, ctx, formatter, {name: self.commands[name] for name in self.list_commands(ctx)})


def write_help(command: Any, context: Any, formatter: Any, commands: dict[str, Any]) -> None:
    """Write usage, description, parameters by group, ``commands`` and examples to ``formatter``."""

    def write(text: str, indent: str = "") -> None:
        formatter.write(fold(text, formatter.width, indent) + "\n")

    def write_pair(name: str, meaning: str) -> None:
        if len(name) > NAMES - 4:
            write(f"  {name}")
            name = ""
        write(f"  {name:<{NAMES - 2}}{meaning}".rstrip(), " " * NAMES)

    write(" ".join(["Usage:", context.command_path, *command.collect_usage_pieces(context)]), "  ")
    write("\n" + paragraphs(command.help))
    for title, records in groups(command, context).items():
        write(f"\n{title}:")
        for name, meaning in records:
            write_pair(name, meaning)
    if commands:
        write("\nCommands:")
    for name, each in commands.items():
        write_pair(name, paragraphs(each.help).split("\n")[0])
    if command.epilog:
        write("\n" + command.epilog, "      ")


def groups(command: Any, context: Any) -> dict[str, list[tuple[str, str]]]:
    """(Names, meaning) of the arguments and options, under the title that each is shown below."""
    found: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(context):
        if record := parameter.get_help_record(context):
            usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
            title = getattr(parameter, "rich_help_panel", None) or usual
            name, meaning = record
            meaning = meaning.replace(r"\[", "[")  # as typer 0.15 escapes it for rich
            found.setdefault(title, []).append((name, meaning))
    return found


def description(function: Callable[..., Any]) -> str:
    """A function's docstring; under ``python -OO``, which drops it, from the source."""
    if function.__doc__:
        return function.__doc__
    with suppress(OSError):  # there may be no source
        (definition,) = ast.parse(inspect.getsource(function)).body
        return ast.get_docstring(definition) or ""  # type: ignore[arg-type]
    return ""


def paragraphs(text: str | None) -> str:
    """A docstring with each paragraph on one line."""
    whole = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in whole)
