"""The results of all parts as a page for docs/measurements."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from shared.markdown import markdown

from backends.text import readable_bytes
from cnn.support.text import figure, milliseconds
from measurements.plan import PARTS
from measurements.record import DONE, NOT_STARTED, SKIPPED, Record

PEERS = {"pytorch": "PyTorch eager", "torch.compile": "torch.compile"}
STEPS = """\
A training step gathers a batch from images that are on the device, and runs forward, loss, backward and an
SGD update with momentum. Launches are the nodes of the recorded graph: kernels, products, copies and fills.
The times are medians of blocks of steps without a wait between them; "device" is the time of one recorded
step between two events.
"""
BENCHMARK = """\
Before anything was timed, all libraries had to give the same outputs, loss and changes of the weights, from
the same weights and batch. Each row is from a process of its own, in which the libraries took turns; times
are medians in milliseconds. "Times as fast" is the other library's time divided by ours.
`scripts/benchmarks/bench_peers.py` describes what a step is. On a GPU, torch.compile uses the mode
max-autotune, with the whole step compiled as one, or all but its update if the network has normalizations. In
bfloat16, PyTorch runs forward and loss in torch.autocast, and the parameters of both are in float32.
"""
MEMORY = """\
What the process took from the device, including what the allocators keep for later. "Built" is after the
network, the optimizer and the data set were made, "peak" is with the recorded step and its own pool, and
"growth" is over the steps after the third, in which nothing should be allocated or copied.
"""
CROSSOVER = """\
Milliseconds of a training step on both devices, which had to compute the same steps before. From a batch size
on, the GPU is faster if even its slower quartile is below the CPU's faster quartile, there and at all larger
ones.
"""


def make(records: Sequence[Record], device: str, command: str) -> str:
    """The page: what ran on which device, and a section for each kind of measurement that has results."""
    by_name = {record.part: record for record in records}
    parts = [*head(by_name["device"].found, device, command), "## What ran\n", overview(records)]
    sections: tuple[tuple[str, str, Callable[[Sequence[Record]], Iterator[str]]], ...] = (
        ("Tests", "tests", tests),
        ("Training steps", "steps", steps),
        ("Comparison with PyTorch", "benchmark", benchmark),
        ("Checks of `cnn selftest`", "selftest", selftest),
        ("Memory", "memory", memory),
        ("The CPU and the GPU", "crossover", crossover),
    )
    for title, module, make_section in sections:
        chosen = [record for record in records if PARTS[record.part].module == module and record.found]
        if text := list(make_section(chosen)):
            parts += [f"## {title}\n", *text]
    return "\n".join(parts)


def head(found: dict[str, Any], device: str, command: str) -> Iterator[str]:
    """The title, how to measure again, and the hardware and software."""
    about, machine = found.get("device", {}), found.get("machine", {})
    if device == "cpu":
        yield f"# Measurements on a CPU: {about.get('processor', 'unknown')}\n"
        yield "**Nothing on this page was measured on a GPU**: the script ran with `--device cpu`.\n"
    else:
        yield f"# Measurements on {about.get('gpu', 'a GPU')}\n"
    yield f"```\n{command}\n```\n"
    if not about:
        yield "The part `device` did not end, so the hardware is not known.\n"
        return
    versions = {"xpcnn": machine.get("xpcnn"), "Python": machine.get("python"), **machine.get("packages", {})}
    facts = {
        **about,
        "memory": readable_bytes(found["memory"]["total"]) if "total" in found["memory"] else None,
        **{
            f"nvidia-smi: {name}": value
            for each in found.get("nvidia_smi", [])
            for name, value in each.items()
        },
        "system": machine.get("system"),
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items() if number),
        "commit": found.get("commit"),
        "time": machine.get("time"),
    }
    yield table(("fact", "value"), [[name, str(value)] for name, value in facts.items() if value is not None])
    if missing := found.get("missing"):
        named = ", ".join(f"{name} ({purpose})" for name, purpose in missing.items())
        packages = " ".join(missing)
        yield f"Not installed: {named}. To measure that too, `pip install {packages}` and run it again.\n"


def overview(records: Sequence[Record]) -> str:
    """A row for each part: how it ended."""
    rows = [
        [f"`{record.part}`", record.outcome, figure(record.seconds), cell(record.reason)]
        for record in records
    ]
    return table(("part", "outcome", "s", "reason"), rows)


def tests(records: Sequence[Record]) -> Iterator[str]:
    """Counts of each part, the failures, and the files that could not be read."""
    outcomes = ("passed", "failed", "skipped")
    counted = [record for record in records if "passed" in record.found]
    if not counted:
        return
    yield table(
        ("part", *outcomes), [[record.part, *(str(record.found[o]) for o in outcomes)] for record in counted]
    )
    for record in counted:
        found = record.found
        if found.get("running") and record.outcome not in (DONE, SKIPPED):
            yield f"`{record.part}` ended during `{found['running']}`.\n"
        if found["failures"]:
            yield "".join(f"- failed: `{test}`: {cell(why)}\n" for test, why in found["failures"].items())
        if found["not_collected"]:
            yield "".join(
                f"- not read: `{path}`: {cell(why)}\n" for path, why in found["not_collected"].items()
            )


def steps(records: Sequence[Record]) -> Iterator[str]:
    """A row for each network and kernel set."""
    headings = (
        "network", "batch", "kernels", "launches", "recorded, ms", "quartiles", "device, ms",
        "call by call, ms", "times as fast", "first step, s", "recording, s",
    )  # fmt: skip
    for record in records:
        rows = record.found.get("rows", [])
        cells = [
            [
                row["network"],
                str(row["batch_size"]),
                row["kernels"],
                str(row["launches"] or "-"),
                milliseconds(row["recorded"]["median"]),
                f"{milliseconds(row['recorded']['low'])} to {milliseconds(row['recorded']['high'])}",
                milliseconds(row["device_seconds"]),
                milliseconds(row["plain"]["median"]),
                figure(row["plain"]["median"] / row["recorded"]["median"]),
                figure(row["first_seconds"]),
                figure(row["record_seconds"]),
            ]
            for row in rows
        ]
        if cells:
            yield STEPS
            yield table(headings, cells)
        for row in rows:
            if row["not_recorded"]:
                yield f"- {row['network']}, {row['kernels']}: {row['not_recorded']}\n"
        for name, why in record.found.get("absent", {}).items():
            yield f"- the {name} kernels were not measured: {why}\n"


def benchmark(records: Sequence[Record]) -> Iterator[str]:
    """A row for each network, phase and mode of PyTorch, with ours from the same process."""
    headings = (
        "network", "phase", "batch", "products", "ours", "quartiles", "library", "its", "times as fast",
    )  # fmt: skip
    rows = [row for record in records for row in compared(record.found)]
    if rows:
        yield BENCHMARK
        yield table(headings, rows)
    absent = {why for record in records for why in record.found.get("absent", {}).values()}
    if absent:
        yield "".join(f"- not measured: {why}\n" for why in sorted(absent))


def compared(found: dict[str, Any]) -> Iterator[list[str]]:
    """The rows of a benchmark's figures."""
    figures = found.get("figures", [])
    tf32 = found.get("machine", {}).get("device", {}).get("tf32")
    products = "TF32" if tf32 else found.get("dtype", "float32")
    for ours in figures:
        if ours["peer"] != "compiled":
            continue
        same = [f for f in figures if (f["phase"], f["peer"] in PEERS) == (ours["phase"], True)]
        own = ours["seconds"]
        begin = [
            ours["network"],
            ours["phase"],
            str(ours["batch_size"]),
            products,
            milliseconds(own["median"]),
            f"{milliseconds(own['low'])} to {milliseconds(own['high'])}",
        ]
        for other in same:
            theirs = other["seconds"]["median"]
            yield [*begin, PEERS[other["peer"]], milliseconds(theirs), figure(theirs / own["median"])]
        if not same:
            yield [*begin, "-", "-", "-"]


def selftest(records: Sequence[Record]) -> Iterator[str]:
    """The number of checks of each kernel set, and those that failed."""
    for record in records:
        results = record.found.get("results", {})
        rows = [
            [kernels, section, str(found["passed"]), str(len(found["failed"]))]
            for kernels, sections in results.items()
            for section, found in sections.items()
        ]
        if rows:
            yield table(("kernels", "section", "passed", "failed"), rows)
        if wrong := [
            f"- failed: {kernels}, {section}: {each['name']}: {cell(each['reason'])}\n"
            for kernels, sections in results.items()
            for section, found in sections.items()
            for each in found["failed"]
        ]:
            yield "".join(wrong)
        if record.outcome not in (DONE, SKIPPED, NOT_STARTED) and "running" in record.found:
            yield f"The last check that began was {record.found['running']}.\n"
        yield from (f"- not checked: {why}\n" for why in record.found.get("absent", []))


def memory(records: Sequence[Record]) -> Iterator[str]:
    """A row for each network, and for ways to take less memory."""
    headings = (
        "network", "batch", "dtype", "built, MB", "peak, MB", "PyTorch's peak, MB", "allocated of it, MB",
        "steps", "growth, bytes", "crossings",
    )  # fmt: skip
    rows = [row for record in records for row in record.found.get("rows", [])]
    if rows:
        yield MEMORY
        yield table(headings, list(map(memory_cells, rows)))


def memory_cells(row: dict[str, Any]) -> list[str]:
    """The cells of a network."""
    theirs = row.get("pytorch") or {}
    megabytes = (row["built"], row["peak"], theirs.get("reserved"), theirs.get("allocated"))
    return [
        row["network"],
        str(row["batch_size"]),
        row["dtype"] + ", recompute" * row["recompute"],
        *("-" if nbytes is None else figure(nbytes / 1e6) for nbytes in megabytes),
        *(str(row[name]) for name in ("steps", "growth", "crossings")),
    ]


def crossover(records: Sequence[Record]) -> Iterator[str]:
    """For each model a sentence and a row for each batch size."""
    models = {name: found for record in records for name, found in record.found.get("models", {}).items()}
    if models:
        yield CROSSOVER
    for name, found in models.items():
        first, other = (column["name"] for column in found["comparison"]["columns"])
        begin = "at none of these batch sizes" if found["crossover"] is None else (
            f"from batch size {found['crossover']} on"
        )  # fmt: skip
        yield f"{name}: {other} is always faster than {first} {begin}.\n"
        rows = [
            [str(t["batch_size"]), milliseconds(t["first"]), milliseconds(t["other"])] for t in found["times"]
        ]
        yield table(("batch size", first, other), rows)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return markdown(headings, [[cell(value) for value in row] for row in rows])


def cell(text: str) -> str:
    """The text in one line of a table."""
    return " ".join(text.split()).replace("|", "\\|")
