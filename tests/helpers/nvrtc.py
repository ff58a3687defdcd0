"""NVIDIA's runtime compiler, which needs no GPU: what CuPy compiles kernels with."""

import ctypes
import re
from importlib.util import find_spec
from pathlib import Path


def library():
    """The path of NVRTC in NVIDIA's package; None where that is not installed."""
    package = find_spec("nvidia")
    for folder in package.submodule_search_locations if package else []:
        for path in sorted(Path(folder).glob("**/libnvrtc.so.*")):
            if "alt" not in path.name:
                return str(path)
    return None


class CompileError(Exception):
    pass


def compile_source(source, architecture, definitions):
    """(the machine code, {kernel: (registers, bytes spilled)}) for such as "sm_90"."""
    nvrtc, program, log = _compiled(source, architecture, definitions)
    return _text(nvrtc, program, "CUBIN"), _resources(log)


def assembly(source, architecture, definitions):
    """The text of the compiled source, in the language that is common to all architectures (PTX)."""
    nvrtc, program, _ = _compiled(source, architecture, definitions)
    return _text(nvrtc, program, "PTX").decode()


def _compiled(source, architecture, definitions):
    """(NVRTC, the program, its log); raises CompileError."""
    nvrtc = ctypes.CDLL(library())
    options = [f"--gpu-architecture={architecture}", "-std=c++17", "-Xptxas=-v", *definitions]
    program = ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels", 0, None, None) == 0
    pointers = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    failed = nvrtc.nvrtcCompileProgram(program, len(options), pointers)
    log = _text(nvrtc, program, "ProgramLog").decode()
    if failed:
        raise CompileError(log)
    return nvrtc, program, log


def _text(nvrtc, program, what):
    size = ctypes.c_size_t()
    assert getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)) == 0
    buffer = ctypes.create_string_buffer(size.value)
    assert getattr(nvrtc, f"nvrtcGet{what}")(program, buffer) == 0
    return buffer.raw


def _resources(log):
    found = {}
    for part in log.split("Compiling entry function ")[1:]:
        name = re.match(r"'(\w+)'", part)[1]
        stores, loads = map(
            int, re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", part).groups()
        )
        found[name] = int(re.search(r"Used (\d+) registers", part)[1]), stores + loads
    return found
