"""``cnn compile``."""

import time
from typing import Annotated, Any

import typer

import backends
from backends.text import readable_bytes
from cnn.cli.app import app, examples
from cnn.cli.options import DEFAULT, AsJson, Threads
from cnn.cli.output import Status, print_json
from cnn.support.arguments import choice
from cnn.support.terminal import write_line

DTYPES = {"float32": ["float32"], "float64": ["float64"], "both": ["float32", "float64"]}


@app.command("compile", epilog=examples("cnn compile", "cnn compile --dtype both --json"))
def compile_ahead(
    dtype: Annotated[
        str, typer.Option(help="float32, float64 or both.", autocompletion=lambda: list(DTYPES))
    ] = DEFAULT.dtype,
    threads: Threads = DEFAULT.threads,
    as_json: AsJson = False,
) -> None:
    """Compile all CPU kernels for this processor before they are needed, for container images and installers.

    They are kept in the user's cache folder, or in the folder that the environment variable NUMBA_CACHE_DIR
    names. Without this command, a training run compiles what it needs.
    """
    dtypes = DTYPES[choice("--dtype", dtype, list(DTYPES))]
    status, start = Status(), time.perf_counter()
    kernels: Any = backends.get("cpu", "compiled", threads).kernels
    kernels.when_compiling(show=status.show)
    found = kernels.compile_all(dtypes)
    seconds = time.perf_counter() - start
    if as_json:
        print_json({**found, "seconds": round(seconds, 1)})
        return
    write_line(
        f"compiled {found['compiled']} kernels in {seconds:.1f} s; {found['present']} were there already; "
        f"{found['folder']} has {readable_bytes(found['bytes'])} of kernels"
    )
