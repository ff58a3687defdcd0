"""Recognizes by its name which part of a data set an array or file contains."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cnn.support.errors import DataError
from cnn.support.text import some_of

PARTS = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "te", "t10k"), "test"),
}
_KINDS = {
    **dict.fromkeys(
        ("x", "image", "images", "img", "imgs", "data", "pixels", "input", "inputs", "feature", "features"),
        "images",
    ),
    **dict.fromkeys(("y", "label", "labels", "lbl", "lbls", "target", "targets"), "labels"),
}
_PART, _KIND = "|".join(PARTS), "|".join(_KINDS)
_RUN_TOGETHER = re.compile(f"({_PART})({_KIND})|({_KIND})({_PART})")  # as in xtrain
_CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])")  # as in trainImages
_NPY = re.compile(r"\.npy$", re.IGNORECASE)
_OF_THE_FORMAT = re.compile(r"idx\d?|ubyte|int|gz|\d")  # the digit: a second download, "name (1)"


class Role(NamedTuple):
    """The parts of a name: "train", "val", "test" or ""; "images" or "labels"; other words."""

    part: str
    kind: str
    rest: tuple[str, ...]


class Parts(NamedTuple):
    """The names of the (images, labels) for training and for testing, and notes on the choice."""

    train: tuple[str, str]
    test: tuple[str, str]
    notes: tuple[str, ...]


def role_of(name: str) -> Role | None:
    """The role of ``name``, which may include folders; None if it names neither images nor labels."""
    *folders, own = [_words(piece) for piece in _NPY.sub("", name.strip("/")).split("/")]
    part, kind = _only(own, PARTS), _only(own, _KINDS)
    above = [word for folder in folders for word in folder]
    part, kind = part or _only(above, PARTS), kind or _only(above, _KINDS)
    if not kind:
        return None
    known = (*PARTS, *_KINDS)
    rest = [word for word in own if word not in known and not _OF_THE_FORMAT.fullmatch(word)]
    return Role(part, kind, tuple(rest))


def part_of(name: str) -> str:
    """The part that a name tells: "train", "val", "test" or ""."""
    return _only(_words(name), PARTS)


def parts_among(names: Iterable[str], place: str, usual: Sequence[str], expected: str) -> Parts:
    """Find the images and labels for training and testing among ``names``.

    The ``usual`` names, in the order of :class:`Parts`, are preferred; ``expected`` describes them. If there
    is no test set, the validation set is used. Raises DataError if the names do not form a complete set.
    """
    sets: dict[tuple[str, ...], dict[tuple[str, str], list[str]]] = {}
    for name in names:
        role = role_of(name)
        if role:
            sets.setdefault(role.rest, {}).setdefault((role.part, role.kind), []).append(name)
    whole = [found for found in sets.values() if not _missing(found)]
    if not whole:
        fullest = min(sets.values(), key=lambda found: len(_missing(found)), default={})
        raise _incomplete(fullest, place, usual, expected)
    found = sets[()] if sets.get(()) in whole else whole[0]
    if len(whole) > 1 and found is not sets.get(()):
        several = some_of("-".join(rest) for rest, found in sets.items() if found in whole)
        raise DataError(
            f"{place}: contains several data sets, {several}: move the one to use to its own folder"
        )
    tested = _tested(found)
    x_train, y_train, x_test, y_test = (
        _best(found[part, kind], place, usual) for part in ("train", tested) for kind in ("images", "labels")
    )
    notes = []
    if tested == "val":
        notes.append(f"there is no test set: {x_test} is used for testing")
    elif ("val", "images") in found:
        notes.append(f"{found['val', 'images'][0]} is not used")
    return Parts((x_train, y_train), (x_test, y_test), tuple(notes))


def _words(name: str) -> list[str]:
    words = re.split(r"[^a-z0-9]+", _CAMEL_CASE.sub("_", name).lower())
    cut = []
    for word in filter(None, words):
        together = _RUN_TOGETHER.fullmatch(word)
        cut += [piece for piece in together.groups() if piece] if together else [word]
    return cut


def _only(words: list[str], meanings: dict[str, str]) -> str:
    """The meaning of the words; "" if they have none or several."""
    found = {meanings[word] for word in words if word in meanings}
    return found.pop() if len(found) == 1 else ""


def _tested(found: dict[tuple[str, str], list[str]]) -> str:
    """The part to use for testing."""
    only_val = not any(part == "test" for part, _ in found) and any(part == "val" for part, _ in found)
    return "val" if only_val else "test"


def _missing(found: dict[tuple[str, str], list[str]]) -> list[tuple[str, str]]:
    parts = ("train", _tested(found))
    return [(part, kind) for part in parts for kind in ("images", "labels") if (part, kind) not in found]


def _incomplete(
    found: dict[tuple[str, str], list[str]], place: str, usual: Sequence[str], expected: str
) -> DataError:
    """The error about missing parts, with names in the style of the existing ones."""
    roles = [(part, kind) for part in ("train", "test") for kind in ("images", "labels")]
    named = {part for part, _ in found if part}
    own = not named or any(_is_usual(name, usual) for names in found.values() for name in names)
    called = dict(zip(roles, usual, strict=True)) if own else {}
    missing = [called.get(role, "_".join(role)) for role in _missing(found)]
    message = f"{place}: missing {', '.join(missing)}; expected {expected}"
    if ("", "images") in found and ("", "labels") in found and not named:
        several = (
            f"{found['', 'images'][0]} and {found['', 'labels'][0]} are not split into training and test"
        )
        message += f"; {several}: hold out some of the images for the test"
    elif named == {"train"}:
        message += "; there is no test set: hold out some of the images, and save them under these names"
    return DataError(message)


def _best(names: list[str], place: str, usual: Sequence[str]) -> str:
    """The preferred one of several names: a usual name, a file, not in a subfolder, not compressed."""

    def rank(name: str) -> tuple[bool, bool, int, bool, bool]:
        copied = re.search(r"\(\d+\)", name) is not None
        return not _is_usual(name, usual), name.endswith("/"), name.count("/"), copied, name.endswith(".gz")

    best, *others = sorted(names, key=rank)
    if others and rank(best) == rank(others[0]):
        raise DataError(
            f"{place}: {best} and {others[0]} seem to be the same part: remove one of them, or give "
            "the folder of one set"
        )
    return best


def _is_usual(name: str, usual: Sequence[str]) -> bool:
    return name.removesuffix(".gz") in usual
