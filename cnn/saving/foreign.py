"""Weights of other programs: maps their names to a network's, and recognizes files that are not weights."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cnn.support.errors import CheckpointError
from cnn.support.text import some_of

WRAPPERS = ("module", "_orig_mod")  # in PyTorch's names, added by DataParallel and torch.compile
COUNTERS = ("num_batches_tracked", "n_averaged")  # PyTorch's, in batch normalization and averaged models

Shape = tuple[int, ...]

TORCH = (
    'a file of torch.save or another pickle, which could run code: convert it with `python -c "import torch; '
    "from safetensors.torch import save_file; save_file(torch.load('{path}', map_location='cpu', "
    "weights_only=True), '{stem}.safetensors')\"`"
)
KERAS = (
    "a file of Keras or TensorFlow, which lay out weights in another order: build the model in PyTorch, copy "
    "the weights there, and save them with safetensors.torch.save_file"
)
ARCHIVE = "an archive without arrays: it is damaged, or contains something else"
ARCHIVES = {".keras": KERAS, ".npz": ARCHIVE, ".zip": ARCHIVE}  # by suffix; others are files of torch.save
BEGINNINGS = {
    rb"PK|\x80[\x02-\x05]": TORCH,
    rb"\Z": "empty: copy or download it again",
    rb"\x89HDF\r\n|.{4}TFL3": KERAS,
    rb"\x93NUMPY": "a single array: save all of them by name, with numpy.savez or safetensors",
    rb"GGUF": "a GGUF file, of a language model: expected safetensors or .npz",
    rb"version https://git-lfs": "a Git LFS pointer, not the file itself: run `git lfs pull` to get it",
    rb"\x1f\x8b": "compressed: unpack it with gunzip first",
    rb"\s*<[!?a-zA-Z]": "a web page: download the file itself",
    rb"\{\s*\"": "a text in JSON, perhaps the index of several files: give the safetensors file itself",
    rb"\x08[\x03-\x14][\x12:]": "an ONNX file, to be named {stem}.onnx: make a run of it with `cnn import`",
}


def named(path: Path, start: bytes) -> str | None:
    """Recognize a file that is not weights by its first bytes, with advice; None if it is unknown."""
    for beginning, what in BEGINNINGS.items():
        if re.match(beginning, start, re.DOTALL):
            if start.startswith(b"PK"):
                what = ARCHIVES.get(path.suffix.lower(), what)
            return what.format(path=path, stem=path.stem)
    return None


def without_wrappers(state: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """``state`` with the network's names, if only wrappers changed them; otherwise unchanged."""
    kept = {name: array for name, array in state.items() if name.split(".")[-1] not in COUNTERS}
    parts = {name: [part for part in name.split(".") if part not in WRAPPERS] for name in kept}
    for count in range(min(map(len, parts.values()), default=0)):
        if len({tuple(own[:count]) for own in parts.values()}) > 1:
            break
        shorter = {name: ".".join(own[count:]) for name, own in parts.items()}
        if set(shorter.values()) == set(names) and len(set(shorter.values())) == len(shorter):
            return {shorter[name]: array for name, array in kept.items()}
    return dict(state) if set(names) - set(kept) else kept


def matched(state: Mapping[str, Any], shapes: Mapping[str, Shape]) -> dict[str, str]:
    """The file's names for a network's names, matched by shape and, if several match, by number in the name.

    Counts of batches are left out.

    Raises CheckpointError that names the first array that does not match.
    """
    left = {name: array for name, array in state.items() if name.split(".")[-1] not in COUNTERS}
    shapes = {name: shape for name, shape in shapes.items() if name.split(".")[-1] not in COUNTERS}
    _require_same_shapes(left, shapes)
    kinds = {_kind(name) for name in shapes}
    by_kind = {_kind(name) for name in left} <= kinds
    ours, theirs = defaultdict(list), defaultdict(list)
    for name, shape in shapes.items():
        ours[shape, _kind(name) if by_kind else ""].append(name)
    for name, array in left.items():
        theirs[array.shape, _kind(name) if by_kind else ""].append(name)
    found: dict[str, str] = {}
    for key in sorted(ours, key=lambda key: (len(ours[key]) > 1, -len(key[0]))):  # the unambiguous ones first
        found |= _paired(ours[key], theirs[key], found)
    return {name: found[name] for name in shapes}


def _require_same_shapes(state: Mapping[str, Any], shapes: Mapping[str, Shape]) -> None:
    left = dict(state)
    for name in left:
        if _kind(name).startswith("kernel"):
            raise CheckpointError(
                f"{name} is a name of Keras or Flax, which lay out weights in another order: save them from "
                "PyTorch, or transpose them to PyTorch's layout and give them its names"
            )
    for name, shape in shapes.items():
        fitting = next((other for other, array in left.items() if array.shape == shape), None)
        if fitting is None:
            turned = next((other for other, array in left.items() if array.shape == shape[::-1]), None)
            hint = f"; {turned} has it transposed" if turned and len(shape) == 2 else ""
            others = ", ".join(f"{other} {array.shape}" for other, array in list(left.items())[:4])
            raise CheckpointError(
                f"no array is left for this network's {name} {shape}{hint}"
                + (f"; those that are left are {others}" if others else "")
            )
        del left[fitting]
    if left:
        name, array = next(iter(left.items()))
        raise CheckpointError(f"{name} {array.shape} has no place in this network")


def _paired(ours: list[str], theirs: list[str], found: Mapping[str, str]) -> dict[str, str]:
    """Pair the names of arrays with the same shape: the network's with the file's."""
    if len(ours) != len(theirs):
        raise CheckpointError(f"{some_of(theirs)} do not match the names of this network's {some_of(ours)}")
    paired = {}
    for name in ours:  # first those of layers with another array already matched
        homes = {_layer(other) for mine, other in found.items() if _layer(mine) == _layer(name)}
        near = [other for other in theirs if _layer(other) in homes]
        if len(near) == 1:
            paired[name] = near[0]
    rest = [other for other in theirs if other not in paired.values()]
    if len(rest) > 1 and len({re.sub(r"\d+", "#", other) for other in rest}) > 1:
        raise CheckpointError(
            f"{some_of(rest)} have the same shape, and their names do not give their order: name them like "
            f"this network's {some_of(ours)}"
        )
    rest.sort(key=lambda other: [int(number) for number in re.findall(r"\d+", other)])
    return paired | dict(zip([name for name in ours if name not in paired], rest, strict=True))


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _kind(name: str) -> str:
    return re.split(r"[./]", name)[-1]
