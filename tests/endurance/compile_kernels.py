"""Compile every CUDA source for every dtype and architecture: python tests/endurance/compile_kernels.py.

The tests take half of the combinations. No kernel may spill registers. Needs nvidia-cuda-nvrtc, but no GPU.
Prints the registers of each kernel; exits 1 if something is wrong.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from helpers.compiled_kernels import BUILDS, require_registers
from helpers.nvrtc import CompileError


def main() -> None:
    """Compile, and print what came of it."""
    wrong = 0
    for build in BUILDS:
        try:
            registers = require_registers(*build)
        except (AssertionError, CompileError) as error:
            wrong += 1
            print(*build, f"WRONG: {error}", flush=True)
        else:
            print(*build, ", ".join(f"{name} {count}" for name, count in registers.items()), flush=True)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
