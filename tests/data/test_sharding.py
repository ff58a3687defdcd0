"""How batches are cut into shards, and what a feed gives out of those of one process."""

import numpy as np
import pytest
from helpers.standin import StandInBackend

import backends
import cnn
from cnn.data.feed import Feed
from cnn.data.sharding import WHOLE, Sharding

pytest.importorskip("hypothesis")
from hypothesis import given, settings
from hypothesis import strategies as st

BACKENDS = {
    "on the device": (lambda: backends.get("cpu", "portable"), False),
    "streamed": (lambda: backends.get("cpu", "portable"), True),
    "streamed to another device": (StandInBackend, True),
}
IMAGES = np.random.default_rng(0).integers(0, 256, (63, 1, 6, 6), dtype=np.uint8)
LABELS = np.arange(63) % 5
ORDER = np.random.default_rng(1).permutation(63)


def of_each(count, processes):
    """The shardings of all processes."""
    return [Sharding.of(count, rank, processes) for rank in range(processes)]


@st.composite
def shared_out(draw):
    """Numbers of shards and of processes."""
    count = draw(st.integers(1, 40))
    return count, draw(st.integers(1, count))


class TestSharding:
    @given(shared_out(), st.integers(0, 300))
    def test_the_shards_of_all_processes_follow_each_other_and_have_each_sample_once(self, shared, samples):
        count, processes = shared
        found = [cut for sharding in of_each(count, processes) for cut in sharding.cut(samples)]
        assert [shard for shard, _, _ in found] == list(range(count))
        stops = [first + size for _, first, size in found]
        assert [first for _, first, _ in found] == [0, *stops[:-1]]
        assert stops[-1] == samples

    @given(st.integers(1, 40), st.integers(0, 300))
    def test_sizes_differ_by_at_most_one(self, count, samples):
        sizes = [size for *_, size in Sharding.of(count).cut(samples)]
        assert max(sizes) - min(sizes) <= 1

    @given(shared_out(), st.integers(0, 300))
    def test_a_span_has_the_samples_of_all_shards_of_a_process(self, shared, samples):
        count, processes = shared
        for sharding in of_each(count, processes):
            (_, first, _), *_ = cuts = list(sharding.cut(samples))
            assert sharding.span(samples) == (first, first + sum(size for *_, size in cuts))

    @given(shared_out(), st.integers(0, 300))
    def test_the_shards_that_have_samples_are_counted_over_all_processes(self, shared, samples):
        count, processes = shared
        filled = [size > 0 for sharding in of_each(count, processes) for *_, size in sharding.cut(samples)]
        assert {sharding.filled(samples) for sharding in of_each(count, processes)} == {sum(filled)}

    @given(shared_out())
    def test_every_process_has_a_shard_and_none_has_two_more_than_another(self, shared):
        sizes = [len(sharding.own) for sharding in of_each(*shared)]
        assert min(sizes) >= 1
        assert max(sizes) - min(sizes) <= 1

    def test_there_are_no_more_processes_than_shards(self):
        with pytest.raises(cnn.errors.ArgumentError) as caught:
            Sharding.of(4, 0, 6)
        assert str(caught.value) == (
            "6 processes, but this run cuts each batch into 4 shards: start at most 4"
        )
        with pytest.raises(
            cnn.errors.ArgumentError, match=r"^2 processes, .* into 1 shard: start at most 1$"
        ):
            Sharding.of(1, 1, 2)

    def test_a_batch_that_is_not_cut_is_one_shard(self):
        assert list(WHOLE.cut(7)) == [(0, 0, 7)]
        assert WHOLE.span(7) == (0, 7)
        assert Sharding.of(1) == WHOLE


def feed_of(sharding, device="on the device", images=63, **options):
    """A feed of the first images, at the start of an epoch, with a rate for each step."""
    make, stream = BACKENDS[device]
    options = {"batch_size": 20, "stream": stream} | options
    feed = Feed(make(), "float32", IMAGES[:images], LABELS[:images], sharding=sharding, **options)
    feed.start([number for number in ORDER if number < images], np.arange(1, len(feed) + 1), epoch=1)
    return feed


def given_out(feed, first=0):
    """Images (n, C, H, W), targets (n, ...) and rates that the feed gives out for each batch."""
    to_host = feed.backend.to_host
    for _ in feed.batches(first):
        images, targets, rates = [], [], []
        for shard in feed.shards:
            for size in shard.sizes:
                x, y = feed.gather(size)
                images.append(np.moveaxis(to_host(x), -1, 0))
                targets.append(np.moveaxis(to_host(y), -1, 0))
                rates.append(float(to_host(feed.rate)[0]))
        if not images:
            feed.skip()
            rates.append(float(to_host(feed.rate)[0]))
        yield *map(np.concatenate, (images or [IMAGES[:0]], targets or [LABELS[:0]])), rates


def given_out_by_all(count, processes, *arguments, **options):
    """The images and targets of each batch, from the feeds of all processes."""
    each = [given_out(feed_of(sharding, *arguments, **options)) for sharding in of_each(count, processes)]
    for batches in zip(*each, strict=True):
        images, targets, _ = zip(*(batch for batch in batches if len(batch[0])), strict=True)
        yield np.concatenate(images), np.concatenate(targets)


def require_same(found, expected):
    for batch, other in zip(found, expected, strict=True):
        for values, others in zip(batch, other, strict=True):
            np.testing.assert_array_equal(values, others)


@pytest.mark.parametrize("device", BACKENDS)
class TestFeed:
    @given(shared_out(), st.integers(40, 63), st.integers(1, 3))
    @settings(deadline=None, max_examples=40)
    def test_all_processes_together_give_out_the_batches_of_one(self, device, shared, images, parts):
        options = {"images": images, "batch_size": max(shared[0], 8)}
        whole = given_out_by_all(1, 1, **options)
        require_same(given_out_by_all(*shared, device, parts=parts, **options), whole)

    def test_the_last_batch_may_have_more_samples_for_a_process_than_the_others(self, device):
        """Shard 2 of 5 has 1 of 8 samples, and 2 of 7."""
        assert Sharding.of(5, 2, 5).span(8) == (3, 4)
        assert Sharding.of(5, 2, 5).span(7) == (2, 4)
        *_, (images, targets, _) = given_out(feed_of(Sharding.of(5, 2, 5), device, batch_size=8))
        chosen = ORDER[56:63][2:4]
        np.testing.assert_array_equal(targets, LABELS[chosen])
        np.testing.assert_allclose(images, IMAGES[chosen] / 255, rtol=1e-6)

    @pytest.mark.parametrize("parts", [1, 2])
    @pytest.mark.parametrize("sharding", of_each(4, 3))
    def test_an_epoch_is_resumed_at_any_batch(self, device, parts, sharding):
        feed = feed_of(sharding, device, parts=parts)
        whole = list(given_out(feed))
        for first in range(len(feed)):
            require_same(given_out(feed, first), whole[first:])

    @pytest.mark.parametrize("parts", [1, 2])
    @pytest.mark.parametrize("sharding", of_each(4, 4))
    def test_every_part_of_every_shard_has_the_rate_of_its_batch(self, device, parts, sharding):
        """Shard 0 of the last 3 images is empty; its process takes the rate all the same."""
        *_, (images, _, _) = batches = list(given_out(feed_of(sharding, device, parts=parts)))
        assert len(images) == (sharding.own.start > 0)
        assert [set(rates) for *_, rates in batches] == [{1}, {2}, {3}, {4}]

    def test_augmentation_changes_an_image_in_the_same_way_in_any_process(self, device):
        options = {"augment": [cnn.augment.Shift(2), cnn.augment.Flip()], "seed": 3}
        whole = list(given_out_by_all(1, 1, **options))
        require_same(given_out_by_all(5, 3, device, **options), whole)
        (unchanged, _), *_ = given_out_by_all(1, 1)
        assert (whole[0][0] != unchanged).any()

    @pytest.mark.parametrize("augmentation", [cnn.augment.Mixup(0.4), cnn.augment.CutMix(1.0)])
    def test_images_are_mixed_within_their_shard(self, device, augmentation):
        """So no process needs the images of another."""
        options = {"augment": [augmentation], "seed": 3, "classes": 5}
        found = list(given_out_by_all(5, 3, device, **options))
        require_same(found, given_out_by_all(5, 1, **options))
        for number, (_, shares) in enumerate(found):
            labels = LABELS[ORDER[20 * number : 20 * number + 20]]
            assert len(shares) == len(labels)
            for _, first, size in Sharding.of(5).cut(len(labels)):
                place = slice(first, first + size)
                assert set(np.flatnonzero(shares[place].any(axis=0))) <= set(labels[place])
            assert (np.count_nonzero(shares, axis=1) > 1).any() == (len(labels) > 5)
