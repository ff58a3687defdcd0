"""The memory of a network's activations and their gradients, which share places if they can."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

from backends.memory import Array, Device, Shape

BOUNDARY = 256  # bytes, on which every array begins
MOST_VIEWS = 1000  # of a chunk that are remembered
Gap = tuple[int, int]  # from, up to


class Place:
    """The bytes of an array. They are free again if it is not owned any more and nobody holds it."""

    def __init__(self, chunk: "Chunk", start: int, size: int, array: Array) -> None:
        self.chunk, self.start, self.stop = chunk, start, start + size
        self.array = array
        self.is_owned = True
        self.holders = 0


class Chunk:
    """One allocation of an arena."""

    def __init__(self, device: Device, size: int) -> None:
        self.size = size
        self.storage = device.empty(size, device.xp.uint8)
        self.address = device.address(self.storage)
        self.places: list[Place] = []  # in the order of their addresses
        self._views: dict[Any, Array] = {}

    def gaps(self) -> Iterator[Gap]:
        """What no array has, in the order of the addresses."""
        start = 0
        for place in self.places:
            if place.start > start:
                yield start, place.start
            start = place.stop
        if self.size > start:
            yield start, self.size

    def take(self, start: int, size: int, shape: Shape, dtype: Any) -> Place:
        """A place in a gap for an array of ``size`` bytes, rounded up."""
        array = self._views.get((start, shape))
        if array is None:
            if len(self._views) == MOST_VIEWS:
                self._views.clear()
            numbers = self.storage[start : start + prod(shape) * dtype.itemsize]
            array = self._views[start, shape] = numbers.view(dtype).reshape(shape)
        place = Place(self, start, size, array)
        after = sum(other.start < start for other in self.places)
        self.places.insert(after, place)
        return place


class Arena:
    """One memory for arrays that are not needed at the same time.

    A layer's output in training has a place (:meth:`allocate`) until it is freed. What layers only pass to
    each other, gradients and the outputs of inference, is made by :meth:`like`; at most two of these are
    valid at a time. A layer that needs one of them, or an output, for longer holds it (:meth:`holding`).

    The places follow from the calls alone, so the same step has the same places each time. Outputs lie side
    by side from the beginning. The backward pass frees the last ones first, so that the gradients, which are
    placed at the end, find memory in one piece.
    """

    shares = True  # False, for checks: what was freed stays as it is until :meth:`clear`

    def __init__(self, device: Device, dtype: Any) -> None:
        self.device = device
        self.dtype = device.xp.dtype(dtype)
        self._chunks: list[Chunk] = []
        self._passed: list[Place] = []  # between layers
        self._deferred: list[Place] | None = None  # what is freed later

    def clear(self, kept: Array) -> None:
        """Free all arrays but ``kept``, which stays until the next call."""
        place = self._find(kept)
        for chunk in self._chunks:
            chunk.places = [each for each in chunk.places if each is place]
        self._passed = []

    def reserve(self, size: int, kept: Array) -> None:
        """Have ``size`` bytes in one piece, unless arrays have owners; ``kept`` may be passed on still."""
        place = self._find(kept)
        self._pass([each for each in self._passed if each is place])
        owned = any(place.is_owned for place in self._places())
        if size > max((chunk.size for chunk in self._chunks), default=0) and not owned:
            self.release()
            self._add(_rounded(size))

    def release(self) -> None:
        """Free the memory; the next array allocates it again."""
        if self._chunks:  # else nothing has moved
            self.device.allocations += 1
        self._chunks, self._passed = [], []

    def allocate(self, shape: Shape) -> Place:
        """The place of an array that is valid until it is freed."""
        return self._placed(shape, lambda gaps: gaps[0][0])

    def free(self, place: Place) -> None:
        """The owner of an array does not need it any more; it may say so again."""
        if self._deferred is None:
            self._disown(place)
        else:
            self._deferred.append(place)

    def free_array(self, array: Array) -> None:
        """Free the place that ``array`` or what it is a view of has, if it has one."""
        place = self._find(array)
        if place is not None:
            self.free(place)

    def like(self, array: Array, shape: Shape) -> Array:
        """An array to pass on; it and ``array`` are valid until the next call with another array."""
        before = self._find(array)
        self._pass([place for place in self._passed if place is before])

        def away(gaps: list[Gap]) -> int:
            """In the smallest gap, the end away from ``array``, so that what is free stays in one piece."""
            start, stop = min(reversed(gaps), key=_length)
            is_before = before is not None and stop <= before.start
            return start if is_before else stop - self._size(shape)

        place = self._placed(shape, away)
        self._passed.append(place)
        return place.array

    def pass_on(self, array: Array) -> Array:
        """``array``, which is held, as the latest one of :meth:`like`."""
        place = self._find(array)
        if place is not None:
            place.is_owned = True
            self._pass([place])
        return array

    @contextmanager
    def holding(self, *arrays: Array | None) -> Iterator[None]:
        """In the ``with`` block, keep these arrays, or what they are views of."""
        found = [self._find(array) for array in arrays if array is not None]
        places = [place for place in found if place is not None]
        for place in places:
            place.holders += 1
        try:
            yield
        finally:
            for place in places:
                place.holders -= 1
                self._drop(place)

    @contextmanager
    def deferring(self) -> Iterator[None]:
        """In the ``with`` block, keep what is freed; after it, this is free unless it is passed on."""
        outer, self._deferred = self._deferred, []
        try:
            yield
        finally:
            deferred, self._deferred = self._deferred, outer
            for place in deferred:
                if place not in self._passed:
                    self.free(place)

    def keep(self, array: Array) -> None:
        """Keep ``array``, or what it is a view of, until :meth:`clear`."""
        place = self._find(array)
        if place is not None:
            place.holders += 1

    @property
    def state(self) -> Any:
        """Which places there are, for :meth:`restore`."""
        return [(place, place.is_owned, place.holders) for place in self._places()], [*self._passed]

    def restore(self, state: Any) -> None:
        """Let there be the places that there were at another time."""
        places, passed = state
        for chunk in self._chunks:
            chunk.places = []
        for place, is_owned, holders in places:
            place.is_owned, place.holders = is_owned, holders
            place.chunk.places.append(place)
        self._passed = [*passed]

    def _places(self) -> Iterator[Place]:
        for chunk in self._chunks:
            yield from chunk.places

    def _find(self, array: Array) -> Place | None:
        """The place that ``array`` is in."""
        address = self.device.address(array)
        for chunk in self._chunks:
            offset = address - chunk.address
            if 0 <= offset < chunk.size:
                return next((place for place in chunk.places if place.start <= offset < place.stop), None)
        return None

    def _disown(self, place: Place) -> None:
        place.is_owned = False
        self._drop(place)

    def _drop(self, place: Place) -> None:
        """Let other arrays have the bytes, if nobody needs them."""
        if self.shares and not place.is_owned and not place.holders and place in place.chunk.places:
            place.chunk.places.remove(place)

    def _pass(self, places: list[Place]) -> None:
        """Let these be what layers pass to each other, and free the others."""
        before, self._passed = self._passed, places
        for place in before:
            if place not in places:
                self._disown(place)

    def _placed(self, shape: Shape, start_of: Callable[[list[Gap]], int]) -> Place:
        """A place in the first chunk with a gap, so that a step repeated finds its places again."""
        size = self._size(shape)
        for chunk in self._chunks:
            gaps = [gap for gap in chunk.gaps() if _length(gap) >= size]
            if gaps:
                return chunk.take(start_of(gaps), size, shape, self.dtype)
        return self._add(size).take(0, size, shape, self.dtype)

    def _size(self, shape: Shape) -> int:
        return _rounded(prod(shape) * self.dtype.itemsize)

    def _add(self, size: int) -> Chunk:
        self._chunks.append(Chunk(self.device, size))
        return self._chunks[-1]


def _length(gap: Gap) -> int:
    start, stop = gap
    return stop - start


def _rounded(size: int) -> int:
    """``size`` rounded up to a multiple of BOUNDARY."""
    return -(-size // BOUNDARY) * BOUNDARY
