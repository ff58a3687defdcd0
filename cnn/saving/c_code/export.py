"""Writes a network as a C file and its header."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from backends.interoperability import as_array, to_host
from backends.memory import Array
from cnn.data.checked import as_images
from cnn.data.dataset import Dataset
from cnn.data.preprocessing import Preprocessing
from cnn.data.samples import picked
from cnn.network import Network
from cnn.saving.c_code.floats import Float32
from cnn.saving.c_code.int8 import Int8
from cnn.saving.c_code.operations import program_of
from cnn.saving.c_code.planning import plan
from cnn.saving.c_code.text import Code, identifier, in_words, library, string
from cnn.support import random
from cnn.support.errors import ArgumentError, DataError
from cnn.support.files import write_whole
from cnn.support.libraries import require
from cnn.support.text import some_of
from cnn.support.version import VERSION

IMAGES = 256  # on which ranges are measured
SUFFIX = ".c"


@dataclass(frozen=True)
class Exported:
    """The names and the sizes of an exported network."""

    header: Path
    function: str  # the name of the function that predicts
    arithmetic: str  # "float32" or "int8"
    constant_bytes: int
    work_bytes: int
    multiply_adds: int


def export(
    network: Network, path: str | Path, classes: Sequence[str] | None = None, calibration: Any = None
) -> Exported:
    """Write ``network`` as a file of C99 code, with the outputs of ``network.predict``, and its header.

    Parameters
    ----------
    network : Network
        A built network. Weights are written in float32, or in int8 if there is a ``calibration``. A
        mixed-precision network is exported as its copy in float32.
    path : str or Path
        A file in an existing folder. The names in the code begin with the file's name. The same network
        always gives the same bytes.
    classes : sequence of str
        The class names, which become an array of strings.
    calibration : array
        A few hundred training images (N, C, H, W). The code then computes in integers: weights of 8 bits
        with a scale for each output channel, and activations of 8 bits whose ranges are measured on these
        images, as :func:`calibration_images` chooses them.

    Raises
    ------
    ArgumentError
        If C code cannot express a layer, if a weight is not finite, if the path does not end in .c, or if
        the package jinja2 is missing.
    OSError
        If a file cannot be written; no partial file is left behind.
    """
    network = network.in_full_precision()
    require("jinja2", "to write C code")
    if classes is not None and len(classes) != prod(network.output_shape):
        raise ArgumentError(
            f"classes has {len(classes)} names, the network has {prod(network.output_shape)} outputs: "
            "expected a name for each"
        )
    path, preprocessing = Path(path), _preprocessing(network)
    header = header_of(path)
    if calibration is None:
        arithmetic: Float32 | Int8 = Float32(program_of(network), preprocessing)
    else:
        images = to_host(as_array(calibration) if preprocessing is None else as_images(calibration))
        network.check_images(images)
        program = program_of(network, _prepared(network, preprocessing, images))
        arithmetic = Int8(program, preprocessing, network, images.dtype == np.uint8)
    code = _code(arithmetic)
    exported = Exported(
        header=header,
        function=f"{identifier(path.stem)}_predict",
        arithmetic=arithmetic.name,
        constant_bytes=code.constant_bytes,
        work_bytes=max(1, code.plan.size) * arithmetic.itemsize,
        multiply_adds=arithmetic.multiply_adds,
    )
    facts = {
        **vars(exported),
        "prefix": identifier(path.stem), "PREFIX": identifier(path.stem).upper(),
        "source": path.name, "header": header.name, "version": VERSION,
        "is_image": preprocessing is not None,
        "shape": network.input_shape, "output_shape": network.output_shape,
        "inputs": prod(network.input_shape), "outputs": prod(network.output_shape),
        "work": max(1, code.plan.size), "element": arithmetic.element,
        "class_names": list(classes or ()), "constants": code.constants, "statements": code.statements,
        "functions": list(library(code.functions, arithmetic.sources)),
        "in_words": in_words, "string": string, "unused": _unused(code.statements["run"]),
    }  # fmt: skip
    write_whole(header, _rendered("model.h.jinja", facts))
    write_whole(path, _rendered("model.c.jinja", facts))
    return exported


def calibration_images(train: Dataset, class_names: Sequence[str], seed: int = 0) -> Any:
    """A few hundred training images of these classes, chosen by ``seed``."""
    known = [label for label, name in enumerate(train.classes) if name in class_names]
    places = np.flatnonzero(np.isin(train.labels, known))
    if not places.size:
        raise DataError(
            f"{train!r} has none of the classes {some_of(class_names)}: give other data with --data"
        )
    count = min(IMAGES, places.size)
    chosen = random.generator(seed, random.CALIBRATION).choice(places, count, replace=False)
    return to_host(picked(train.images, np.sort(chosen)))


def header_of(path: Path) -> Path:
    """The header's path for a C file; ArgumentError unless the name ends in .c and C can include it."""
    if path.suffix != SUFFIX:
        raise ArgumentError(f"{str(path)!r} is not the name of a C file: expected one that ends in {SUFFIX}")
    if set(path.name) & set('"\\\n'):
        raise ArgumentError(
            f"{str(path)!r} has a quotation mark, a backslash or a line break in its name: name another file"
        )
    return path.with_suffix(".h")


def _preprocessing(network: Network) -> Preprocessing | None:
    """The preprocessing of images; None if the network does not take images."""
    is_image = len(network.input_shape) == 3
    return network.preprocessing or Preprocessing.none(network.input_shape[0]) if is_image else None


def _prepared(network: Network, preprocessing: Preprocessing | None, images: Any) -> Array:
    """Images as the network gets them: (C, H, W, N) on its device."""
    if preprocessing is not None:
        shift, scale = preprocessing.arrays(images.dtype, network.dtype)
        images = (images - shift.reshape(-1, 1, 1)) * scale.reshape(-1, 1, 1)
    return network.backend.asarray(np.moveaxis(images, 0, -1), dtype=network.dtype)


def _code(arithmetic: Float32 | Int8) -> Code:
    """All statements and constants."""
    code = Code(plan(arithmetic.nodes, arithmetic.input, arithmetic.output))
    code.begin("run")
    for node in arithmetic.nodes:
        code.comment(node)
        arithmetic.write(code, node)
    arithmetic.prepare(code)
    return code


def _unused(statements: list[str]) -> list[str]:
    """The parameters of ``run`` that these statements do not use."""
    text = " ".join(statements)
    return [name for name in ("probabilities", "work") if not re.search(rf"\b{name}\b", text)]


def _rendered(template: str, facts: dict[str, Any]) -> bytes:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(
            lambda name: files("cnn.saving.c_code").joinpath(name).read_text("utf-8")
        ),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(facts).encode("utf-8", "surrogateescape")
