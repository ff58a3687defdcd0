"""Comparing devices: which setups, the proof that they compute the same, the measurements."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.standin import StandInBackend

import backends
import cnn
from backends.cpu.threads import available_cores
from backends.kernels import PortableKernels, SignalKernels
from cnn.comparison import Setup, Work, compare, crossover, measure, setups
from cnn.comparison.agreement import TOLERANCE, proof_batch_size, prove
from cnn.comparison.results import SweepPoint, rate, relative_speed, roofline_seconds
from cnn.comparison.setups import cpu_threads
from cnn.comparison.workload import make_workload, work
from cnn.inspection.timing import Spread
from cnn.support.errors import ArgumentError, DeviceUnavailable, DisagreementError


class TestSetups:
    @pytest.fixture(autouse=True)
    def _threads_can_be_limited(self):
        pytest.importorskip("threadpoolctl")

    def test_every_combination_that_was_asked_for(self):
        found = setups(["cpu"], ["portable", "signal"], [1])
        assert [setup.name for setup in found] == ["cpu portable, 1 thread", "cpu signal, 1 thread"]

    def test_the_cpu_alone_is_compared_in_its_kernels_and_threads(self, monkeypatch):
        cpu = backends.get("cpu")
        monkeypatch.setattr(backends, "available", lambda: {"cpu": cpu, "cuda": DeviceUnavailable("none")})
        names = [setup.name for setup in setups()]
        assert len(set(names)) == len(names)
        assert f"cpu {cpu.kernels.name}, 1 thread" in names
        assert any("signal" in name for name in names)

    def test_a_gpu_beside_the_cpu_is_compared_with_it(self, monkeypatch):
        cpu, gpu = backends.get("cpu"), StandInBackend()
        monkeypatch.setattr(backends, "available", lambda: {"cpu": cpu, "cuda:0": gpu})
        monkeypatch.setattr(backends, "get", lambda name, *_: {"cpu": cpu, "cuda:0": gpu}[name])
        first, second = setups()
        assert (first.backend, second.backend, second.threads) == (cpu, gpu, None)

    def test_the_thread_count_is_as_before_afterwards(self):
        before = cpu_threads()
        for threads in range(1, available_cores() + 1):
            with Setup(backends.get("cpu"), threads).active():
                assert cpu_threads() == threads
        assert cpu_threads() == before

    @pytest.mark.parametrize(
        ("choice", "message"),
        [
            ((["gpu"], None, None), "unknown device 'gpu'"),
            ((["cpu"], ["fast"], None), "unknown kernels 'fast'"),
            ((["cpu"], None, [0]), "threads is 0, expected a whole number from 1"),
        ],
    )
    def test_what_there_is_not_is_refused(self, choice, message):
        with pytest.raises(ArgumentError, match=message):
            setups(*choice)


class TestProof:
    """Nothing is timed before all compute the same."""

    @pytest.fixture
    def two(self, quick, monkeypatch):
        monkeypatch.setattr(measure, "_take_turns", lambda *_: pytest.fail("timed before the proof"))
        return [Setup(backends.get("cpu", kernels), 1) for kernels in ("portable", "signal")]

    @pytest.mark.parametrize(
        ("method", "result"),
        [
            ("conv2d", "layer 3 Conv2D's output"),
            ("conv2d_grad_weight", "layer 3 Conv2D's gradient of its weight"),
            ("conv2d_grad_input", "layer 3 Conv2D's gradient of its input"),
        ],
    )
    @pytest.mark.parametrize("wrong_in", ["float32", "float64"])
    def test_the_first_wrong_result_is_named(self, two, monkeypatch, method, result, wrong_in):
        right = getattr(SignalKernels, method)

        def wrong(self, a, b, out, window, groups=1):
            right(self, a, b, out, window, groups)
            if window.padding == (0, 0) and out.dtype == wrong_in:  # LeNet-5's second convolution
                out *= 1.1

        monkeypatch.setattr(SignalKernels, method, wrong)
        message = rf"do not compute the same: given the same input, {result} differs by .* in {wrong_in}"
        with pytest.raises(DisagreementError, match=message):
            compare(two, model="lenet5", batch_size=2)

    @pytest.mark.parametrize("place", [(0, 0, 0, 0), (-1, -1, -1, -1)])
    def test_one_wrong_number_at_the_border_is_seen(self, two, monkeypatch, place):
        def broken(self, x, weight, out, window, groups=1):
            PortableKernels.conv2d(self, x, weight, out, window, groups)
            out[place] = 0

        monkeypatch.setattr(SignalKernels, "conv2d", broken)
        with pytest.raises(DisagreementError, match="layer 0 Conv2D's output differs"):
            compare(two, model="notebook", batch_size=2)

    def test_a_nan_is_no_agreement(self, two, monkeypatch):
        def broken(self, x, weight, out, window, groups=1):
            PortableKernels.conv2d(self, x, weight, out, window, groups)
            out[0, 0, 0, 0] = np.nan

        monkeypatch.setattr(SignalKernels, "conv2d", broken)
        with pytest.raises(DisagreementError, match="layer 0 Conv2D's output differs by nan"):
            compare(two, model="notebook", batch_size=2)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_a_batch_that_is_gathered_wrongly_is_seen(self, two, monkeypatch, dtype):
        gather = PortableKernels.gather_batch

        def shifted(self, images, indices, out):
            gather(self, images, indices, out)
            if self.name == "signal" and out.dtype == dtype:
                out[...] = np.roll(out, 1, axis=-1)

        monkeypatch.setattr(PortableKernels, "gather_batch", shifted)
        message = f"given the same input, the batch differs by .* in {dtype}"
        with pytest.raises(DisagreementError, match=message):
            compare(two, model="lenet5", batch_size=2)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_a_loss_with_another_divisor_is_seen(self, two, monkeypatch, dtype):
        evaluate = cnn.CrossEntropy.evaluate

        def wrong(self, y, labels, losses, dy, divisor, sums):
            is_signal = self.backend.kernels.name == "signal" and dy.dtype == dtype
            evaluate(self, y, labels, losses, dy, divisor + is_signal, sums)

        monkeypatch.setattr(cnn.CrossEntropy, "evaluate", wrong)
        with pytest.raises(DisagreementError, match=f"the gradient of the loss differs by .* in {dtype}"):
            compare(two, model="lenet5", batch_size=2)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_another_momentum_is_seen(self, two, monkeypatch, dtype):
        step = cnn.SGD.step

        def wrong(self, rate):
            if self.backend.kernels.name == "signal" and self.flat.value.dtype == dtype:
                self.momentum = 0.5
            step(self, rate)

        monkeypatch.setattr(cnn.SGD, "step", wrong)
        with pytest.raises(DisagreementError, match=rf"the updated \S+ differs by .* in {dtype}"):
            compare(two, model="lenet5", batch_size=2)

    def test_what_shows_after_many_steps_only_is_seen_too(self, two, monkeypatch):
        step = cnn.SGD.step

        def tires(self, rate):
            self.steps = getattr(self, "steps", 0) + 1
            step(self, rate * (1 + (self.steps > 5 and self.backend.kernels.name == "signal")))

        monkeypatch.setattr(cnn.SGD, "step", tires)
        with pytest.raises(DisagreementError, match=r"after 10 whole steps, loss differs by .* in float64"):
            compare(two, model="lenet5", batch_size=2)

    def test_what_only_the_timed_batch_shows_is_seen_too(self, two, monkeypatch):
        right = SignalKernels.conv2d

        def wrong(self, x, weight, out, window, groups=1):
            right(self, x, weight, out, window, groups)
            out[..., 17:] *= 1.1

        monkeypatch.setattr(SignalKernels, "conv2d", wrong)
        with pytest.raises(DisagreementError, match=r"layer 0 Conv2D's output differs by .* in float32"):
            compare(two, model="notebook", batch_size=20)

    def test_the_small_batch_has_a_remainder_of_every_vector(self):
        assert [proof_batch_size(size) for size in (1, 16, 17, 128)] == [1, 16, 17, 17]

    def test_a_slow_setup_runs_few_steps_with_the_small_batch_only(self, two, monkeypatch):
        batch_sizes = set()
        gather = PortableKernels.gather_batch

        def watched(self, images, indices, out):
            if self.name == "signal":
                batch_sizes.add(len(indices))
            gather(self, images, indices, out)

        monkeypatch.setattr(PortableKernels, "gather_batch", watched)
        (first, other), (_, found) = prove(make_workload("notebook", 20, "float32"), two, slow=two[1:])
        assert batch_sizes == {17}
        assert (len(first), len(other)) == (10, 3)
        np.testing.assert_allclose(first[:3], other, rtol=1e-12)
        assert 0 < found.weights < 1e-12

    @pytest.mark.parametrize(("model", "batch_size"), [("lenet5", 8), ("notebook", 200), ("lenet5", 57)])
    def test_choices_that_turn_on_a_rounding_are_no_disagreement(self, quick, model, batch_size):
        """Found by trying: in float32 these trainings part at a maximum that two numbers nearly share."""

        class Reordered(PortableKernels):
            def conv2d(self, x, weight, out, window, groups=1):
                turned = np.ascontiguousarray(weight[:, :, ::-1, ::-1])  # the same sums from their other end
                flipped = np.ascontiguousarray(x[:, ::-1, ::-1])
                result = np.empty_like(out)
                PortableKernels.conv2d(self, flipped, turned, result, window, groups)
                out[...] = result[:, ::-1, ::-1]

        other = backends.CpuBackend()
        other.kernels = Reordered(other)
        workload = make_workload(model, batch_size, "float32")
        _, (_, found) = prove(workload, [Setup(backends.get("cpu"), 1), Setup(other, 1)])
        assert 0 < found.layers < 1e-5
        assert max(found.loss, found.gradients, found.weights) < 1e-12

    def test_rounding_stays_far_below_what_is_allowed(self, result):
        first, second = result.columns
        assert first.agreement is None
        assert 0 < second.agreement.layers < TOLERANCE["float32"] / 100
        assert 0 < second.agreement.weights < TOLERANCE["float64"] / 1000
        assert second.agreement.gradients < TOLERANCE["float64"] / 1000
        np.testing.assert_allclose(first.losses, second.losses, rtol=1e-12)
        assert len(first.losses) == result.steps == 10


class TestMeasurements:
    def test_every_column_has_every_layer(self, result):
        labels = [
            "0 Conv2D",
            "1 ReLU",
            "2 MaxPool2D",
            "3 Flatten",
            "4 Dense",
            "5 Tanh",
            "6 Dense",
            "7 Softmax",
        ]
        assert [work.layer for work in result.work] == labels
        for column in result.columns:
            assert [time.layer for time in column.layers] == labels
            assert all(time.forward.median > 0 for time in column.layers)
            parts = [part for time in column.layers for part in (time.forward, time.backward) if part]
            assert column.step.median > sum(part.low for part in parts) / 2  # the whole has all its parts

    def test_medians_lie_between_their_quartiles(self, result):
        for column in result.columns:
            spreads = [column.step, column.launch, *(point.step for point in column.sweep)]
            assert all(0 < spread.low <= spread.median <= spread.high for spread in spreads)

    def test_the_first_step_has_its_own_figure(self, result):
        assert all(column.first_step > column.step.low / 2 for column in result.columns)

    def test_the_sweep_has_every_batch_size(self, result):
        for column in result.columns:
            assert [point.batch_size for point in column.sweep] == [1, 4]

    def test_a_slow_setup_leaves_the_sweep(self, quick, monkeypatch):
        monkeypatch.setattr(measure, "SLOWEST", 0)
        (column,) = compare([Setup(backends.get("cpu"), 1)], "notebook", 2, rounds=1).columns
        assert [point.batch_size for point in column.sweep] == [1]

    def test_all_batch_sizes_are_timed_if_asked_for(self, quick, monkeypatch):
        monkeypatch.setattr(measure, "ALL_BATCH_SIZES", (1, 2, 3))
        (column,) = compare([Setup(backends.get("cpu"), 1)], "notebook", 2, rounds=1, sweep=True).columns
        assert [point.batch_size for point in column.sweep] == [1, 2, 3]

    def test_a_slow_setup_is_timed_at_small_batch_sizes_only(self, slow_result):
        first, slow = slow_result.columns
        assert first.step.median > 0
        assert first.first_step > 0
        assert (slow.step, slow.first_step) == (None, None)
        assert [time.layer for time in slow.layers] == [work.layer for work in slow_result.work]
        assert not any(time.forward or time.backward for time in slow.layers)
        assert [point.batch_size for point in slow.sweep] == [1, 4]
        assert len(slow.losses) == 3

    @pytest.mark.parametrize(
        ("names", "pauses"),
        [
            ("compiled compiled", 0),
            ("portable portable", 0),  # the same setup
            ("portable signal", 0),  # the same threads
            ("compiled portable compiled signal", 1),
            ("portable compiled portable signal compiled", 2),
        ],
    )
    def test_there_is_a_pause_after_the_threads_of_a_blas_library(self, monkeypatch, names, pauses):
        waits = []
        monkeypatch.setattr(measure, "_wait_for_sleep", lambda: waits.append(1))
        turns = measure._Turns()
        for name in names.split():
            turns.begin(Setup(SimpleNamespace(name="cpu", kernels=SimpleNamespace(name=name)), 2))
        assert len(waits) == pauses

    @pytest.mark.parametrize(("spinning", "seconds"), [(0, 0.02), (0.05, 0.08), (9, 0.26)])
    def test_a_pause_ends_when_the_threads_sleep_and_never_takes_long(self, monkeypatch, spinning, seconds):
        clock = Clock(spinning)
        monkeypatch.setattr(measure, "time", clock)
        monkeypatch.setattr(measure, "PAUSE", 0.25)
        measure._wait_for_sleep()
        assert clock.now == pytest.approx(seconds)

    def test_one_thread_leaves_none_spinning(self):
        assert not Setup(backends.get("cpu", "portable"), 1).leaves_threads_spinning
        assert not Setup(StandInBackend()).leaves_threads_spinning

    def test_every_phase_is_announced(self, quick):
        said, shown = [], []
        two = [Setup(backends.get("cpu", kernels), 1) for kernels in ("portable", "signal")]
        compare(two, "notebook", 2, rounds=1, say=said.append, show=shown.append)
        assert [text.split()[0] for text in said] == ["running", "checking", "timing", "timing", "timing"]
        assert "checking cpu signal, 1 thread: 10 whole steps, batch 2, float64" in shown
        assert "batch size 4 on cpu signal, 1 thread" in shown

    def test_the_columns_say_what_they_ran_on(self, result):
        assert [column.device["kernels"] for column in result.columns] == ["portable", "signal"]
        assert all(column.device["threads"] == 1 for column in result.columns)
        assert result.machine["packages"]["numpy"] == np.__version__

    def test_a_gpu_like_device_takes_part(self, quick):
        device = StandInBackend()
        both = [Setup(backends.get("cpu"), 1), Setup(device)]
        first, second = compare(both, model="notebook", batch_size=2, rounds=2).columns
        assert second.name == "standin:0 portable"
        assert (first.move_batch, second.move_batch.median > 0) == (None, True)  # the host's own memory
        assert second.agreement.weights < 1e-12
        assert len(second.layers) == len(first.layers)

    def test_nothing_is_timed_across_work_under_way(self):
        device, order = StandInBackend(), []
        device.synchronize = lambda: order.append("wait")
        measure.wall_clock(device, lambda: order.append("work"), 3)
        assert order == ["wait", "work", "work", "work", "wait"]


class Clock:
    """The clock of a process in which a thread is ``spinning`` for so many seconds."""

    def __init__(self, spinning):
        self.now, self.spinning = 0.0, spinning

    def perf_counter(self):
        return self.now

    def process_time(self):
        return min(self.now, self.spinning)

    def sleep(self, seconds):
        self.now += seconds


class TestWork:
    @pytest.fixture
    def rows(self):
        network = make_workload("lenet5", 2, "float32").start(backends.get("cpu"), 2).network
        return {row.layer: row for row in work(network, 2)}

    def test_convolutions_and_products_are_counted_by_hand(self, rows):
        assert rows["3 Conv2D"].forward_flops == 2 * 2 * (16 * 10 * 10) * (6 * 5 * 5)
        assert rows["3 Conv2D"].backward_flops == 2 * rows["3 Conv2D"].forward_flops
        assert rows["7 Dense"].forward_flops == 2 * 2 * 120 * 400

    def test_the_first_layer_is_spared_its_inputs_gradient(self, rows):
        assert rows["0 Conv2D"].backward_flops == rows["0 Conv2D"].forward_flops

    def test_bytes_are_inputs_outputs_and_parameters(self, rows):
        x, y, parameters = 2 * 400, 2 * 120, 120 * 400 + 120
        assert rows["7 Dense"].forward_bytes == 4 * (x + y + parameters)
        # read dy, x and the weights; write dx and the gradients of the weights
        assert rows["7 Dense"].backward_bytes == 4 * (y + x + parameters + x + parameters)

    def test_a_pools_winners_are_written_and_read_again(self, rows):
        x, y = 2 * 6 * 28 * 28, 2 * 6 * 14 * 14
        assert rows["2 MaxPool2D"].forward_bytes == 4 * (x + y) + y
        assert rows["2 MaxPool2D"].backward_bytes == 4 * (x + y) + y

    def test_another_view_of_the_same_numbers_is_no_work(self, rows):
        flatten = rows["6 Flatten"]
        assert (flatten.forward_flops, flatten.forward_bytes, flatten.backward_bytes) == (0, 0, 0)


class TestFigures:
    def test_the_roofline_is_the_slower_of_product_and_copy(self, result):
        column = replace(result.columns[0], product_flops=100.0, copy_bytes=10.0)
        assert roofline_seconds(Work("1 Dense", 200, 0, 1, 0), column) == 2  # of products
        assert roofline_seconds(Work("1 Dense", 1, 0, 30, 0), column) == 3  # of copies
        assert roofline_seconds(Work("1 Dense", 200, 1, 1, 30), column) == 5  # one after the other

    def test_a_clock_that_was_too_coarse_gives_no_figure(self):
        assert np.isnan(relative_speed(1, 0))
        assert np.isnan(rate(1, 0))

    @pytest.mark.parametrize(
        ("first", "other", "wins_from"),
        [
            ([1, 1, 1, 1], [2, 2, 0.9, 0.5], 4),
            ([1, 1, 1, 1], [0.5, 0.5, 0.5, 0.5], 1),
            ([1, 1, 1, 1], [2, 2, 2, 2], None),
            ([1, 1, 1, 1], [0.5, 2, 2, 0.5], 8),  # from which on it stays the faster one
            ([1, 1], [2, 0.5, 0.1, 0.1], 2),  # at the sizes that both were timed at
            ([1, 1, 1, 1], [1, 1, 1, 1], None),  # a draw is not won
        ],
    )
    def test_the_crossover(self, result, first, other, wins_from):
        assert crossover(self.column(result, first), self.column(result, other)) == wins_from

    def test_a_win_within_the_spread_is_none(self, result):
        first, other = self.column(result, [1, 1], 0.2), self.column(result, [0.9, 0.5], 0.2)
        assert crossover(first, other) == 2

    def column(self, result, seconds, spread=0):
        points = [SweepPoint(2**i, Spread(s, s - spread, s + spread)) for i, s in enumerate(seconds)]
        return replace(result.columns[0], sweep=points)


def test_an_unknown_model_is_refused():
    with pytest.raises(cnn.ArgumentError, match="unknown model 'resnet'"):
        compare([Setup(backends.get("cpu"), 1)], model="resnet")
