"""Exported C code, compiled by the machine's own compiler and run on images."""

import shutil
import subprocess

import numpy as np
import pytest

needed = pytest.mark.skipif(shutil.which("cc") is None, reason="NO EXPORTED C CODE WAS RUN: there is no cc")

STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
CHECKED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

PROGRAM = r"""
{includes}
#include <stdio.h>
#include <string.h>

/* Reads inputs of the function that is named, and writes its answer to each. */
int main(int count, char **names)
{{
    if (count < 2) {{
        return 1;
    }}
{runs}
    return 0;
}}
"""
RUN = r"""
    if (strcmp(names[1], "{function}") == 0) {{
        static {element} work[{P}_WORK];
        static {kind} image[{P}_INPUTS];
        static float probabilities[{P}_CLASSES];
        memset(work, 77, sizeof work);
        while (fread(image, sizeof image, 1, stdin) == 1) {{
            {function}(image, probabilities, work);
            fwrite(probabilities, sizeof probabilities, 1, stdout);
        }}
    }}
"""


class Program:
    """A program with the functions of several C files."""

    def __init__(self, exported, flags=(), compiler="cc"):
        """Compile what was exported; every warning is an error."""
        first = exported[0].header
        runs = [RUN.format(**names) for each in exported for names in _functions(each)]
        includes = "\n".join(f'#include "{each.header.name}"' for each in exported)
        main = first.with_name("main.c")
        main.write_text(PROGRAM.format(includes=includes, runs="".join(runs)))
        self._path = first.with_name("main.out")
        sources = [main, *(each.header.with_suffix(".c") for each in exported)]
        subprocess.run([compiler, *STRICT, *flags, *sources, "-lm", "-o", self._path], check=True)

    def predict(self, exported, images):
        """The answers to images of bytes or floats, one row for each."""
        is_bytes = images.dtype == np.uint8
        images = np.ascontiguousarray(images if is_bytes else images.astype(np.float32))
        command = [self._path, exported.function + ("_bytes" if is_bytes else "")]
        answer = subprocess.run(command, input=images.tobytes(), stdout=subprocess.PIPE, check=True).stdout
        return np.frombuffer(answer, np.float32).reshape(len(images), -1)


def _functions(exported):
    """What the functions for either kind of input are called with."""
    names = {
        "element": "int8_t" if exported.arithmetic == "int8" else "float",
        "P": exported.function.removesuffix("_predict").upper(),
    }
    yield names | {"function": exported.function, "kind": "float"}
    if f"{exported.function}_bytes" in exported.header.read_text():
        yield names | {"function": f"{exported.function}_bytes", "kind": "unsigned char"}
