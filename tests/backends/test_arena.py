"""The arena: arrays in use never overlap, and a step that is repeated has the same places."""

from itertools import pairwise

import numpy as np
import pytest
from helpers.standin import StandInBackend
from hypothesis import given, settings
from hypothesis import strategies as st

import backends
from backends.arena import Arena

DEVICES = {"cpu": lambda: backends.CpuBackend("portable"), "stand-in": StandInBackend}


@pytest.fixture(params=DEVICES)
def device(request):
    return DEVICES[request.param]()


@pytest.fixture
def arena(device):
    return Arena(device, "float32")


def extent(arena, array):
    start = arena.device.address(array)
    return range(start, start + array.nbytes)


def overlap(arena, one, other):
    first, second = extent(arena, one), extent(arena, other)
    return max(first.start, second.start) < min(first.stop, second.stop)


def chunks(arena):
    return [chunk.size for chunk in arena._chunks]


class TestOutputs:
    def test_they_lie_side_by_side_in_memory_that_was_reserved(self, arena):
        outside = arena.device.zeros(1, "float32")
        arena.reserve(4 * 1024, outside)
        places = [arena.allocate((16, 16)) for _ in range(4)]
        assert chunks(arena) == [4096]
        addresses = [arena.device.address(place.array) for place in places]
        np.testing.assert_array_equal(np.diff(addresses), 1024)
        assert [place.array.shape for place in places] == [(16, 16)] * 4

    def test_what_is_freed_has_space_for_others(self, arena):
        first, second = arena.allocate((64,)), arena.allocate((64,))
        arena.free(first)
        arena.free(first)  # again, which does nothing
        assert arena.device.address(arena.allocate((32,)).array) == arena.device.address(first.array)
        assert not overlap(arena, arena.allocate((64,)).array, second.array)

    def test_a_view_frees_what_it_is_a_view_of(self, arena):
        place = arena.allocate((4, 16))
        arena.free_array(place.array.reshape(64)[16:])
        assert arena.device.address(arena.allocate((64,)).array) == arena.device.address(place.array)

    def test_what_is_held_is_not_free(self, arena):
        place = arena.allocate((64,))
        with arena.holding(place.array[8:], arena.device.zeros(4, "float32")):
            arena.free(place)
            assert not overlap(arena, arena.allocate((64,)).array, place.array)
        assert arena.device.address(arena.allocate((64,)).array) == arena.device.address(place.array)

    def test_what_is_freed_may_be_deferred_and_passed_on(self, arena):
        first, second = arena.allocate((64,)), arena.allocate((64,))
        with arena.deferring():
            with arena.deferring():
                arena.free(first)
            arena.free(second)
            assert not overlap(arena, arena.allocate((64,)).array, first.array)
            arena.pass_on(second.array)
        assert overlap(arena, arena.allocate((64,)).array, first.array)
        assert not overlap(arena, arena.like(second.array, (64,)), second.array)

    def test_what_is_kept_stays_until_all_are_freed(self, arena):
        place, other = arena.allocate((64,)), arena.device.zeros(4, "float32")
        arena.keep(place.array)
        arena.free(place)
        assert not overlap(arena, arena.allocate((64,)).array, place.array)
        arena.clear(other)
        assert arena.device.address(arena.allocate((64,)).array) == arena.device.address(place.array)

    @pytest.mark.parametrize("passed", [True, False])
    def test_clearing_spares_one_array(self, arena, passed):
        arrays = [arena.allocate((64,)).array for _ in range(3)]
        if passed:
            arrays[1] = arena.like(arrays[0], (64,))
        arena.clear(arrays[1])
        dy = arrays[0]
        for _ in range(3):
            assert not overlap(arena, arena.allocate((64,)).array, arrays[1])
            dy = arena.like(dy, (64,))
            assert not overlap(arena, dy, arrays[1])


class TestWhatIsPassedOn:
    def test_the_new_array_and_the_one_before_are_valid(self, arena):
        x = arena.device.zeros(64, "float32")
        for size in (64, 128, 32, 256, 64, 64):
            y = arena.like(x, (size,))
            assert not overlap(arena, x, y)
            x = y

    def test_two_of_the_same_array_may_share_a_place(self, arena):
        x = arena.like(arena.device.zeros(4, "float32"), (64,))
        first, second = arena.like(x, (64,)), arena.like(x, (64,))
        assert arena.device.address(first) == arena.device.address(second)

    def test_it_takes_the_place_of_outputs_that_are_not_needed_any_more(self, arena):
        outside = arena.device.zeros(1, "float32")
        arena.reserve(1024, outside)
        outputs = [arena.allocate((64,)) for _ in range(4)]
        for place in outputs[2:]:
            arena.free(place)
        dy = arena.like(outside, (64,))
        assert overlap(arena, dy, outputs[3].array)
        assert overlap(arena, arena.like(dy, (64,)), outputs[2].array)
        assert chunks(arena) == [1024]

    def test_it_can_be_held_while_others_are_made_and_passed_on_then(self, arena):
        x = arena.like(arena.device.zeros(4, "float32"), (64,))
        with arena.holding(x):
            y = x
            for _ in range(4):
                y = arena.like(y, (64,))
                assert not overlap(arena, x, y)
            assert arena.pass_on(x) is x
        assert not overlap(arena, x, arena.like(x, (64,)))


class TestMemory:
    def test_the_same_place_is_the_same_array_again_and_few_are_remembered(self, arena):
        x, outside = arena.device.zeros(1, "float32"), arena.device.zeros(1, "float32")
        arena.reserve(100_000, outside)
        assert arena.like(x, (8, 8)) is arena.like(x, (8, 8))
        for size in range(1, 3000):
            assert arena.like(x, (size,)).shape == (size,)
        assert sum(len(chunk._views) for chunk in arena._chunks) <= 1000

    def test_a_step_repeated_allocates_nothing_and_has_the_same_places(self, arena):
        outside = arena.device.zeros(1, "float32")

        def step():
            arena.clear(outside)
            arena.reserve(1000, outside)  # too few bytes
            outputs = [arena.allocate((size,)) for size in (64, 200, 32, 500, 64)]
            dy, seen = outside, []
            for place in reversed(outputs):
                seen += [place.array, dy]
                with arena.holding(dy):
                    dy = arena.like(arena.like(dy, (300,)), place.array.shape)
                arena.free(place)
            return [arena.device.address(array) for array in seen]

        first = step()
        taken = chunks(arena)
        assert len(taken) > 1
        assert step() == step() == first
        assert chunks(arena) == taken

    def test_more_is_reserved_in_one_piece_if_no_array_has_an_owner(self, arena):
        outside = arena.device.zeros(1, "float32")
        arena.reserve(1000, outside)
        arena.like(outside, (300,))
        arena.reserve(2000, outside)
        assert chunks(arena) == [2048]
        owned = arena.allocate((8,))
        arena.reserve(4000, outside)
        assert chunks(arena) == [2048]
        arena.free(owned)
        arena.reserve(4000, outside)
        assert chunks(arena) == [4096]
        arena.reserve(1000, outside)
        assert chunks(arena) == [4096]

    def test_released_memory_is_allocated_again(self, arena):
        arena.like(arena.device.zeros(1, "float32"), (300,))
        arena.release()
        assert chunks(arena) == []
        assert arena.allocate((300,)).array.shape == (300,)

    def test_steps_are_recorded_again_only_if_arrays_have_moved(self, arena):
        outside, before = arena.device.zeros(1, "float32"), arena.device.allocations
        arena.reserve(1000, outside)
        arena.allocate((1000,))  # in a second chunk
        arena.clear(outside)
        assert arena.device.allocations == before
        arena.reserve(10_000, outside)  # in one chunk instead
        assert arena.device.allocations == before + 1

    def test_its_state_can_be_returned_to(self, arena):
        x, place = arena.like(arena.device.zeros(1, "float32"), (64,)), arena.allocate((64,))
        state, places = arena.state, []
        for _ in range(2):
            arena.restore(state)
            dx = arena.like(x, (64,))
            assert not overlap(arena, dx, x)
            assert not overlap(arena, dx, place.array)
            places.append(arena.device.address(dx))
            arena.free(place)
            arena.like(dx, (64,))
        assert places[0] == places[1]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_two_arrays_in_use_overlap_whatever_is_done(data):
    arena = Arena(backends.CpuBackend("portable"), "float32")
    outside = np.zeros(1, "float32")
    owned, passed, held = [], [outside], []
    for _ in range(data.draw(st.integers(1, 40))):
        size = data.draw(st.integers(1, 400))
        match data.draw(st.sampled_from(["allocate", "free", "like", "hold", "let go"])):
            case "allocate":
                owned.append(arena.allocate((size,)))
            case "free" if owned:
                arena.free(owned.pop(data.draw(st.integers(0, len(owned) - 1))))
            case "like":
                x = data.draw(st.sampled_from([passed[-1], *(place.array for place in owned)]))
                y = arena.like(x, (size,))
                passed = [x, y] if any(x is each for each in passed) else [y]
            case "hold" if passed:
                context = arena.holding(passed[-1])
                context.__enter__()
                held.append((context, passed[-1]))
            case "let go" if held:
                held.pop()[0].__exit__(None, None, None)
        arrays = [*(place.array for place in owned), *passed, *(array for _, array in held)]
        used = {arena.device.address(array): array for array in arrays if array is not outside}
        ends = sorted((start, start + array.nbytes) for start, array in used.items())
        assert all(stop <= start for (_, stop), (start, _) in pairwise(ends))
