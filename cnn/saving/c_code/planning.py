"""Gives each value of a program a place in the work buffer or in the output."""

from collections.abc import Sequence
from dataclasses import dataclass

from cnn.saving.c_code.operations import Node, Value

IN_PLACE = {
    "activate", "prelu", "scale_and_shift", "multiply", "normalize", "softmax", "log_softmax", "reshape",
    "add",
}  # fmt: skip
"""Operations whose output may be where their first input is."""
OUTPUT = None  # the place of the program's output, which is the caller's array


@dataclass(frozen=True)
class Plan:
    """The offset of each value in a work buffer of so many numbers."""

    places: dict[Value, int | None]
    size: int


@dataclass
class _Room:
    """A part of the work buffer for values that replace one another, used from one node to another."""

    size: int
    begin: int
    end: int
    offset: int | None = OUTPUT


def plan(nodes: Sequence[Node], first: Value, last: Value) -> Plan:
    """The places of all values of ``nodes``; ``first`` is the input, in the work buffer, ``last`` the output.

    Two values share numbers only if one is not needed any more when the other one is written. The largest
    rooms get their place first, each the lowest that is free while it is used.
    """
    last_use = {value: number for number, node in enumerate(nodes) for value in node.inputs}
    last_use[last] = len(nodes)
    rooms = {first: _Room(first.size, -1, last_use.get(first, -1))}
    for number, node in enumerate(nodes):
        source, until = node.inputs[0], last_use.get(node.output, number)
        if node.kind in IN_PLACE and last_use[source] == number:
            rooms[node.output] = rooms[source]
            rooms[source].end = until
        else:
            rooms[node.output] = _Room(node.output.size, number, until)
    placed: list[_Room] = []
    distinct = {id(room): room for value, room in rooms.items() if room is not rooms[last]}
    for room in sorted(distinct.values(), key=lambda room: -room.size):
        taken = [other for other in placed if other.begin <= room.end and room.begin <= other.end]
        ends = sorted({0, *(_end(other) for other in taken)})
        room.offset = next(at for at in ends if not any(_overlaps(at, room.size, other) for other in taken))
        placed.append(room)
    places = {value: room.offset for value, room in rooms.items()}
    return Plan(places, max(map(_end, placed), default=0))


def _end(room: _Room) -> int:
    assert room.offset is not None
    return room.offset + room.size


def _overlaps(offset: int, size: int, room: _Room) -> bool:
    assert room.offset is not None
    return offset < _end(room) and room.offset < offset + size
