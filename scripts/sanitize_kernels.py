"""Run every CUDA kernel under compute-sanitizer: python scripts/sanitize_kernels.py, on a machine with a GPU.

memcheck sees what reaches beyond an array, racecheck threads that do not wait for each other where they share
memory, synccheck barriers that some threads miss. Exits 1 where one of them finds something.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

TOOLS = ("memcheck", "racecheck", "synccheck")
ROOT = Path(__file__).resolve().parent.parent
TESTS = "tests/backends/test_cuda_kernels.py"
# without CuPy's pool, so that what lies beyond an array is nobody's
PROGRAM = f"""
import cupy, pytest, sys
cupy.cuda.set_allocator(None)
sys.exit(pytest.main(["-q", "-m", "gpu", "-p", "no:cacheprovider", "{TESTS}"]))
"""


def main() -> None:
    """One tool after the other; all are heard."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        sys.exit(
            "error: compute-sanitizer is not on the PATH: "
            "install the CUDA toolkit, or add its bin folder to PATH"
        )
    failed = []
    for tool in TOOLS:
        print(f"compute-sanitizer, {tool}", flush=True)
        command = [sanitizer, "--tool", tool, "--error-exitcode", "1", sys.executable, "-c", PROGRAM]
        if subprocess.run(command, cwd=ROOT).returncode:
            failed.append(tool)
    if failed:
        sys.exit(f"error: under {' and '.join(failed)} something failed, which stands above")


if __name__ == "__main__":
    main()
