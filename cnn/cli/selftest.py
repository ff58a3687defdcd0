"""``cnn selftest``."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

import backends
from backends import Backend
from cnn.cli.app import app, examples
from cnn.cli.options import DEFAULT, AsJson, Device, Threads, choices
from cnn.cli.output import Status, print_json, say
from cnn.comparison.setups import kernel_sets
from cnn.runs.setting import cut
from cnn.support.terminal import print_table, write_line
from cnn.support.text import printable

if TYPE_CHECKING:
    from cnn.selftest import Section

Cards = list[tuple[Backend, "dict[str, Section]"]]

TITLES = {
    "gradients": "gradients, by finite differences",
    "parity": "the same as the reference",
    "bfloat16": "the same in bfloat16",
    "float16": "the same in float16",
}


@app.command(
    epilog=examples(
        "cnn selftest",
        "cnn selftest --device cuda --json",
        "cnn selftest --kernels portable,signal --threads 1",
    )
)
def selftest(
    device: Device = DEFAULT.device,
    kernels: Annotated[
        str | None,
        typer.Option(
            help="Kernel sets, separated by commas, as in portable,signal.",
            show_default="all that the device has",
            autocompletion=lambda: choices("kernels"),
        ),
    ] = None,
    threads: Threads = DEFAULT.threads,
    as_json: AsJson = False,
) -> None:
    """Check that a device computes the right numbers. The exit code is 1 if a check fails.

    Checks gradients against finite differences, and every kernel against the reference: float64 on the CPU,
    with convolution by scipy.signal. On devices that compute in 16 bits, kernels, layers and training are
    compared in bfloat16 and float16, too.
    """
    from cnn.selftest import left_out, run  # whose tables take a moment to import

    cards = []
    status = Status()
    for backend in _setups(device, cut(kernels), threads):
        status.say(f"checking {_name(backend)}")
        backend.kernels.when_compiling(status.say)
        cards.append((backend, run(backend, lambda check: status.show(check.name))))
    status.clear()
    passed = not any(section.failed for _, card in cards for section in card.values())
    if as_json:
        results = [
            {"device": backend.describe()}
            | {name: asdict(section) for name, section in card.items()}
            | {"left_out": left_out(backend)}
            for backend, card in cards
        ]
        print_json({"passed": passed, "results": results})
    else:
        _show(cards, left_out(cards[0][0]))
    if not passed:
        raise typer.Exit(1)


def _setups(device: str, kernels: list[str] | None, threads: int | None) -> list[Backend]:
    """The device with each kernel set that was asked for, or each that it has."""
    best = backends.get(device, threads=threads)
    if kernels is not None:
        return list(dict.fromkeys(backends.get(best.name, name) for name in kernels))
    names = kernel_sets(best.name, note=lambda reason: say(f"note: {reason}"))
    return [backends.get(best.name, name) for name in names]


def _show(cards: Cards, absent: dict[str, str]) -> None:
    """Print the scorecard, a column for each kernel set; then the checks that failed, and the absent ones."""
    first, sections = cards[0]
    about = first.describe()
    write_line(f"{first.name} ({about.get('gpu') or about.get('processor')})")
    headings = ["passed", *(backend.kernels.name for backend, _ in cards)]
    print_table(headings, [[TITLES[name], *(_score(card[name]) for _, card in cards)] for name in sections])
    for backend, card in cards:
        for name, section in card.items():
            for failure in section.failed:
                where = f"{_name(backend)}: {TITLES[name]}"
                write_line(printable(f"WRONG on {where}: {failure.name}: {failure.reason}"))
    for reason in dict.fromkeys(absent.values()):
        names = " and ".join(name for name, why in absent.items() if why == reason)
        write_line(printable(f"{names} left out: {reason}"))


def _name(backend: Backend) -> str:
    return f"{backend.name} {backend.kernels.name}"


def _score(section: "Section") -> str:
    return f"{section.passed} of {section.passed + len(section.failed)}"
