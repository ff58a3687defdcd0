"""The shards of a batch are added in one fixed order, and their sum is what a whole batch would give."""

import queue
import threading
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

import backends
import cnn
from cnn.data.sharding import Shard, Sharding
from cnn.support import random
from cnn.training.distributed import Communicator, tree
from cnn.training.distributed.exchange import Exchange
from cnn.training.distributed.reducer import ShardReducer

pytest.importorskip("hypothesis")
from hypothesis import given, settings
from hypothesis import strategies as st

CPU = backends.get("cpu", "portable")
SHARDS = 4
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.random((16, 2, 6, 6))  # float64, taken as they are
LABELS = RANDOM.integers(0, 3, 16)


def by_recursion(values):
    """The sum of a tree whose nodes are cut after the largest power of two below their number of leaves."""
    if len(values) == 1:
        return values[0]
    cut = max(power for power in (1, 2, 4, 8, 16) if power < len(values))
    return by_recursion(values[:cut]) + by_recursion(values[cut:])


@st.composite
def shared_out(draw, most=17):
    """Numbers of shards and of processes."""
    shards = draw(st.integers(1, most))
    return shards, draw(st.integers(1, shards))


def numbers(count, size, seed=0):
    """Vectors whose sums depend on the order: of magnitudes from 1e-3 to 1e3."""
    generator = np.random.default_rng(seed)
    values = generator.standard_normal((count, size)) * 10 ** generator.uniform(-3, 3, (count, size))
    return values.astype(np.float32)


class TestTree:
    @given(shared_out())
    def test_the_nodes_of_all_processes_cover_the_shards_in_their_order(self, shared):
        shards, processes = shared
        found = [
            node
            for rank in range(processes)
            for node in tree.nodes(Sharding.of(shards, rank, processes).own, shards)
        ]
        assert [first for first, _ in found] == [0, *(stop for _, stop in found[:-1])]
        assert found[-1][1] == shards

    @given(shared_out())
    def test_a_process_has_no_more_nodes_than_twice_the_depth(self, shared):
        shards, processes = shared
        for rank in range(processes):
            own = Sharding.of(shards, rank, processes).own
            assert len(tree.nodes(own, shards)) <= 2 * max(1, (len(own) - 1).bit_length())

    def test_one_process_has_the_whole_tree(self):
        assert tree.nodes(range(7), 7) == [(0, 7)]

    def test_a_process_has_the_largest_subtrees_in_its_shards(self):
        assert tree.nodes(range(3, 7), 7) == [(3, 4), (4, 7)]
        assert tree.nodes(range(1, 6), 8) == [(1, 2), (2, 4), (4, 6)]

    @given(shared_out())
    def test_the_order_is_the_same_however_the_shards_are_shared_out(self, shared):
        shards, processes = shared
        whole = tree.add_up({(v, v + 1): f"{v}" for v in range(shards)}, shards, "({}+{})".format)
        parts = {}
        for rank in range(processes):
            for first, stop in tree.nodes(Sharding.of(shards, rank, processes).own, shards):
                leaves = {(v - first, v + 1 - first): f"{v}" for v in range(first, stop)}
                parts[first, stop] = tree.add_up(leaves, stop - first, "({}+{})".format)
        assert tree.add_up(parts, shards, "({}+{})".format) == whole

    @pytest.mark.parametrize(
        ("shards", "order"),
        [
            (1, "0"),
            (2, "(0+1)"),
            (3, "((0+1)+2)"),
            (4, "((0+1)+(2+3))"),
            (5, "(((0+1)+(2+3))+4)"),
            (7, "(((0+1)+(2+3))+((4+5)+6))"),
        ],
    )
    def test_a_node_is_cut_after_the_largest_power_of_two(self, shards, order):
        leaves = {(v, v + 1): f"{v}" for v in range(shards)}
        assert tree.add_up(leaves, shards, "({}+{})".format) == order


class Queues:
    """A transport between threads, for process ``rank`` of so many."""

    is_recordable = True

    def __init__(self, sent, rank, size):
        self._sent, self._rank, self.size = sent, rank, size

    def exchange(self, sends, receives):
        for array, peer, number in sends:
            self._sent[self._rank, peer, number].put(array.copy())
        for array, peer, number in receives:
            array[...] = self._sent[peer, self._rank, number].get(timeout=60)

    def share(self, vector, edges):
        parts = [slice(*pair) for pair in pairwise(edges)]
        others = [peer for peer in range(self.size) if peer != self._rank]
        self.exchange(
            [(vector[parts[self._rank]], peer, "share") for peer in others],
            [(vector[parts[peer]], peer, "share") for peer in others],
        )


def exchanged(values, processes):
    """The vectors of each process after an exchange between threads, from those of all shards."""
    shards, size = values.shape
    keys = [*range(shards), "share"]
    sent = {(a, b, k): queue.SimpleQueue() for a in range(processes) for b in range(processes) for k in keys}
    found = [None] * processes

    def work(rank):
        own = tree.nodes(Sharding.of(shards, rank, processes).own, shards)
        vectors = [by_recursion(values[first:stop]).copy() for first, stop in own]
        add_all = Exchange(Queues(sent, rank, processes), rank, processes, CPU, shards, size, np.float32)
        for _ in range(2):  # the second time with what the first has left in the buffers
            again = [vector.copy() for vector in vectors]
            add_all(again)
        found[rank] = again[0]

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


class TestExchange:
    @given(shared_out(most=9), st.integers(1, 40))
    @settings(deadline=None, max_examples=50)
    def test_every_process_has_the_sum_in_the_order_of_the_tree(self, shared, size):
        shards, processes = shared
        values = numbers(shards, size)
        expected = by_recursion(values)
        for vector in exchanged(values, processes):
            np.testing.assert_array_equal(vector, expected)

    def test_the_order_matters_to_these_numbers(self):
        values = numbers(7, 40)
        assert (by_recursion(values) != sum(values)).any()


class Batches:
    """A batch of so many samples, as a feed has it, for one process."""

    def __init__(self, shards, samples):
        self.size, self.skipped = samples, 0
        self.shards = [
            Shard(number, first, [size] * (size > 0))
            for number, first, size in Sharding.of(shards).cut(samples)
        ]

    def skip(self):
        self.skipped += 1


def small(*layers):
    net = cnn.Sequential(*layers)
    net.build((2, 6, 6), backend=CPU, dtype="float64")
    return net


class TestShardReducer:
    def reducer(self, net, shards):
        loss = SimpleNamespace(total=None)
        return ShardReducer(net, loss, Sharding.of(shards), Communicator(shards=shards), False)

    @given(st.integers(2, 17), st.integers(1, 40))
    @settings(deadline=None, max_examples=50)
    def test_it_is_the_sum_in_the_order_of_the_tree_with_zeros_for_empty_shards(self, shards, samples):
        net = small(cnn.Flatten(), cnn.Dense(3))
        values = numbers(shards, net.flat.grad.size).astype(np.float64)
        batch = Batches(shards, samples)
        reducer = self.reducer(net, shards)
        for _ in range(2):
            reducer.begin(samples)
            for shard in batch.shards:
                reducer.begin_shard(shard)
                net.flat.grad[...] = values[shard.number]  # for an empty shard, the one before it remains
                reducer.add(shard)
            reducer.finish(batch)
        filled = [value * bool(shard.sizes) for value, shard in zip(values, batch.shards, strict=True)]
        np.testing.assert_array_equal(net.flat.grad, by_recursion(filled))
        assert batch.skipped == 0

    def test_statistics_change_by_the_mean_over_the_shards_that_have_samples(self):
        net = small(cnn.BatchNorm2D(), cnn.Flatten(), cnn.Dense(3))
        mean, batches = net.statistics["0.running_mean"], net.statistics["0.num_batches_tracked"]
        mean[...], batches[...] = 10, 5
        reducer, batch = self.reducer(net, 5), Batches(5, 4)
        assert [len(shard.sizes) for shard in batch.shards] == [0, 1, 1, 1, 1]
        reducer.begin(4)
        for shard in batch.shards:
            reducer.begin_shard(shard)
            assert (mean == 10).all()  # each shard starts with those from before the batch
            if shard.sizes:
                mean += shard.number
                batches += 1
            reducer.add(shard)
        reducer.finish(batch)
        np.testing.assert_array_equal(mean, 10 + (1 + 2 + 3 + 4) / 4)
        assert batches == 6

    def test_there_are_no_more_vectors_than_the_tree_is_deep(self, monkeypatch):
        net = small(cnn.Flatten(), cnn.Dense(3))
        reducer, batch, made = self.reducer(net, 16), Batches(16, 32), []
        monkeypatch.setattr(
            CPU, "zeros", lambda size, dtype: made.append(size) or np.zeros(size, dtype=dtype)
        )
        reducer.begin(32)
        for shard in batch.shards:
            reducer.begin_shard(shard)
            reducer.add(shard)
        reducer.finish(batch)
        assert made == [net.flat.grad.size] * 4


class Keep(cnn.training.gradients.GradientTransform):
    """Keeps the gradient of the latest step."""

    def apply(self, network):
        self.gradient = network.flat.grad.copy()


def one_step(net, shards, count=16, **options):
    """Train for one step, without a change of the weights; -> the gradient."""
    keep = Keep()
    cnn.fit(
        net, cnn.data.Dataset(IMAGES[:count], LABELS[:count], 3), optimizer=cnn.SGD(0), batch_size=count,
        callbacks=[], transforms=[keep], processes=Communicator(shards=shards), **options,
    )  # fmt: skip
    return keep.gradient


def shards_of_the_batch(count):
    """The images and labels of each shard, as the first step has them."""
    order = random.generator(0, random.SHUFFLE, 0).permutation(count)
    for first, stop in ((count * v // SHARDS, count * (v + 1) // SHARDS) for v in range(SHARDS)):
        yield IMAGES[order[first:stop]], LABELS[order[first:stop]]


def convolution(*more):
    return cnn.Conv2D(3, 3), *more, cnn.Tanh(), cnn.Flatten(), cnn.Dense(3)


class TestAgainstAWholeBatch:
    @pytest.mark.parametrize("count", [16, 15])  # shards of 4, and of 3 and 4
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"loss": cnn.CrossEntropy(class_weights=(1, 2, 4))},
            {"augment": [cnn.augment.Shift(1), cnn.augment.Flip()]},
        ],
        ids=["plain", "class weights", "augmentation"],
    )
    def test_the_gradient_is_that_of_the_whole_batch(self, count, options):
        cut, whole = (one_step(small(*convolution()), v, count, **options) for v in (SHARDS, 1))
        assert abs(whole).max() > 0.01
        np.testing.assert_allclose(cut, whole, rtol=0, atol=1e-12)

    def test_dropout_draws_what_it_draws_for_the_whole_batch(self):
        cut, whole = (one_step(small(*convolution(cnn.Dropout2D(0.3), cnn.Dropout())), v) for v in (4, 1))
        np.testing.assert_allclose(cut, whole, rtol=0, atol=1e-12)
        assert abs(whole - one_step(small(*convolution()), 1)).max() > 0.01


class TestBatchNorm:
    """As PyTorch's DistributedDataParallel: each shard is normalized by itself, gradients are averaged."""

    @pytest.fixture(params=[16, 15])
    def computed(self, request):
        """A network after one step in shards, its gradient, and four networks that have each seen a shard."""
        count, start = request.param, small(*convolution(cnn.BatchNorm2D()))
        four, gradients = [start.copy() for _ in range(SHARDS)], []
        for net, (images, labels) in zip(four, shards_of_the_batch(count), strict=True):
            loss = cnn.CrossEntropy()
            loss.build(net)
            y = net.forward(np.ascontiguousarray(np.moveaxis(images, 0, -1)), training=True)
            loss.forward(y, labels)
            net.backward(loss.backward(), input_grad=False)
            gradients.append(net.flat.grad.copy() * len(labels) / count)  # the mean, weighted by images
        net = start.copy()
        return net, one_step(net, SHARDS, count), four, gradients

    def test_the_gradient_is_the_mean_of_those_of_four_networks(self, computed):
        _, gradient, _, gradients = computed
        assert abs(gradient).max() > 0.01
        np.testing.assert_allclose(gradient, sum(gradients), rtol=0, atol=1e-12)

    def test_it_is_not_that_of_the_whole_batch(self, computed):
        _, gradient, _, _ = computed
        whole = one_step(small(*convolution(cnn.BatchNorm2D())), 1)
        assert abs(gradient - whole).max() > 1e-3

    @pytest.mark.parametrize("name", ["1.running_mean", "1.running_var"])
    def test_running_statistics_are_the_mean_of_those_of_four_networks(self, computed, name):
        net, _, four, _ = computed
        expected = np.mean([each.statistics[name] for each in four], axis=0)
        np.testing.assert_allclose(net.statistics[name], expected, rtol=0, atol=1e-12)
        assert abs(expected - four[0].statistics[name]).max() > 1e-4

    def test_a_batch_counts_once(self, computed):
        assert computed[0].statistics["1.num_batches_tracked"] == 1
