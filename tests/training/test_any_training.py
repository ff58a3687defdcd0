"""Trainings with any arguments on any data: they work, or say why not before anything is changed."""

import math
from contextlib import nullcontext as nothing

import numpy as np
import pytest

pytest.importorskip("hypothesis")
from helpers.any_values import ODD, PLAIN_ODD, a_call, attempt, examples
from hypothesis import assume, given
from hypothesis import strategies as st

import cnn
from cnn.training.named import OPTIMIZERS
from cnn.training.schedules import SCHEDULES

pytestmark = pytest.mark.filterwarnings("ignore:(Binary)?CrossEntropy expects")

LOSSES = [cnn.CrossEntropy, cnn.BinaryCrossEntropy, cnn.MeanSquaredError]


def some_images(count=10, classes=3, dtype=np.uint8):
    random = np.random.default_rng(count)
    images = random.integers(0, 256, (count, 1, 4, 4), dtype=np.uint8)
    return cnn.data.Dataset(images.astype(dtype), np.arange(count) % classes)


def small_network(softmax=False):
    layers = [cnn.Conv2D(2, 2), cnn.Tanh(), cnn.MaxPool2D(2, stride=1), cnn.Flatten(), cnn.Dense(3)]
    network = cnn.Sequential(*layers, *([cnn.Softmax()] if softmax else []))
    network.build((1, 4, 4), backend="cpu")
    return network


def one_of_a(kinds, odd=None):
    """A call of one of these classes."""
    return st.sampled_from(kinds).flatmap(lambda kind: a_call(kind, odd))


class TestSchedules:
    @examples(200)
    @given(one_of_a(list(SCHEDULES.values()), ODD), st.floats(0, 1))
    def test_factors_are_numbers_from_0_on(self, call, progress):
        schedule, refusal = attempt(call.make)
        if not refusal:
            schedule = schedule.over(1000)
            factors = [schedule(at) for at in (0, progress, 1)]
            assert all(math.isfinite(factor) and factor >= 0 for factor in factors), factors

    @pytest.mark.parametrize("arguments", [{"every": 0.01, "factor": 1e4}, {"every": 5e-324}])
    def test_steps_beyond_all_numbers_are_refused(self, arguments):
        _, refusal = attempt(cnn.schedules.Step, **arguments)
        assert "which overflows" in str(refusal)

    @examples(100)
    @given(one_of_a(list(SCHEDULES.values())))
    def test_documented_arguments_are_taken(self, call):
        call.make()


class TestOptimizers:
    @examples(150)
    @given(one_of_a(list(OPTIMIZERS.values()), PLAIN_ODD), st.sampled_from(["float32", "float64"]))
    def test_an_update_is_finite_or_the_arguments_are_refused(self, call, dtype):
        optimizer, refusal = attempt(call.make)
        if refusal or optimizer.learning_rate > 1 or optimizer.weight_decay > 1:
            return  # large numbers are taken at their word
        network = cnn.Sequential(cnn.Dense(2))
        network.build((3,), backend="cpu", dtype=dtype)
        network.flat.grad[...] = 0.5
        optimizer.build(network)
        for _ in range(2):
            optimizer.step(np.array([optimizer.learning_rate], dtype=dtype))
        assert np.isfinite(network.flat.value).all()


AUGMENTATIONS = [
    cnn.augment.Flip(),
    cnn.augment.AlternatingFlip(),
    cnn.augment.Rotate(10),
    cnn.augment.Brightness(0.2),
    cnn.augment.Mixup(0.3),
]
FIT = {
    "validation": st.none() | st.builds(some_images, count=st.integers(1, 9), classes=st.integers(1, 4)),
    "loss": st.none() | st.sampled_from(LOSSES).map(lambda kind: kind()),
    "optimizer": st.none() | one_of_a(list(OPTIMIZERS.values())),
    "epochs": st.integers(1, 3),
    "batch_size": st.integers(1, 12) | st.just(2**40),
    "schedule": st.none() | one_of_a(list(SCHEDULES.values())),
    "seed": st.integers(0, 2**70),
    "callbacks": st.lists(st.sampled_from([cnn.NaNGuard, cnn.Callback]).map(lambda kind: kind()), max_size=2),
    "graph": st.booleans(),
    "transforms": st.none() | st.just([cnn.ClipNorm(0.5), cnn.ClipValue(0.1)]),
    "accumulate": st.integers(1, 5),
    "normalize": st.booleans(),
    "augment": st.none() | st.lists(st.sampled_from(AUGMENTATIONS), max_size=2),
    "stream": st.none() | st.booleans(),
}


def fitted(network, arguments):
    """The history of a training with these arguments, in which calls are made."""
    arguments = {name: value.make() if hasattr(value, "make") else value for name, value in arguments.items()}
    with np.errstate(all="ignore"):
        return cnn.fit(network, some_images(), **{"callbacks": []} | arguments)


class TestFit:
    @examples(60)
    @given(st.fixed_dictionaries({}, optional=FIT), st.booleans())
    def test_documented_arguments_train_the_same_twice_or_are_refused(self, arguments, softmax):
        networks = small_network(softmax), small_network(softmax)
        before = networks[0].flat.value.copy()
        history, refusal = attempt(fitted, networks[0], arguments)
        if refusal:
            if not isinstance(refusal, cnn.TrainingError):
                np.testing.assert_array_equal(networks[0].flat.value, before)
            return
        assert [record["epoch"] for record in history] == list(range(1, arguments.get("epochs", 1) + 1))
        assert all(0 <= record["accuracy"] <= 1 and record["learning_rate"] >= 0 for record in history)
        assert ("validation_loss" in history[0]) == (arguments.get("validation") is not None)
        again = fitted(networks[1], arguments)
        np.testing.assert_array_equal(networks[1].flat.value, networks[0].flat.value)
        np.testing.assert_array_equal([record["loss"] for record in again], [r["loss"] for r in history])

    def test_a_schedule_that_needs_validation_images_is_refused_before_anything_changes(self):
        network = small_network()
        before = network.flat.value.copy()
        with pytest.raises(cnn.ArgumentError, match="schedule watches validation_loss, but there are no"):
            cnn.fit(network, some_images(), epochs=2, schedule=cnn.schedules.Plateau())
        np.testing.assert_array_equal(network.flat.value, before)

    @examples(150)
    @given(st.sampled_from(sorted(FIT.keys() - {"callbacks"})), PLAIN_ODD)
    def test_one_odd_argument_changes_nothing_or_trains(self, name, value):
        assume(name != "epochs" or not isinstance(value, int) or value < 9)
        network = small_network()
        before = network.flat.value.copy()
        history, refusal = attempt(fitted, network, {name: value})
        if refusal:
            np.testing.assert_array_equal(network.flat.value, before)
        else:
            assert all(math.isfinite(record["loss"]) for record in history)

    @examples(60)
    @given(st.sampled_from(["network", "train"]), PLAIN_ODD)
    def test_it_takes_a_network_and_a_data_set(self, name, value):
        _, refusal = attempt(cnn.fit, **{"network": small_network(), "train": some_images()} | {name: value})
        assert isinstance(refusal, cnn.ArgumentError)

    def test_totals_of_nothing_are_no_numbers(self):
        seen = []

        class Looks(cnn.Callback):
            def on_start(self, run):
                seen.append(run.totals.read())

        cnn.fit(small_network(), some_images(), callbacks=[Looks()])
        assert math.isnan(seen[0]["loss"])
        assert math.isnan(seen[0]["accuracy"])


class TestEvaluate:
    @examples(100)
    @given(st.sampled_from(["network", "data", "loss", "batch_size"]), PLAIN_ODD)
    def test_its_arguments(self, name, value):
        network = small_network()
        expected = cnn.evaluate(network, some_images())
        arguments = {"network": network, "data": some_images()} | {name: value}
        result, refusal = attempt(cnn.evaluate, **arguments)
        if not refusal:
            assert result["accuracy"] == expected["accuracy"]
            assert result["loss"] == pytest.approx(expected["loss"])

    @examples(100)
    @given(st.integers(1, 30), st.integers(1, 40), st.sampled_from(LOSSES), st.booleans())
    def test_batches_do_not_change_it(self, count, batch_size, kind, softmax):
        network, data = small_network(softmax), some_images(count)
        with np.errstate(all="ignore"), pytest.warns() if softmax and kind is LOSSES[0] else nothing():
            whole = cnn.evaluate(network, data, kind(), batch_size=count)
            cut = cnn.evaluate(network, data, kind(), batch_size=batch_size)
        assert cut["accuracy"] == whole["accuracy"]
        np.testing.assert_allclose(cut["loss"], whole["loss"], rtol=1e-5)


class TestPredict:
    @examples(150)
    @given(st.sampled_from(["images", "batch_size"]), ODD)
    def test_its_arguments(self, name, value):
        network, images = small_network(), some_images().images
        expected = network.predict(images)
        probabilities, refusal = attempt(network.predict, **{"images": images} | {name: value})
        if not refusal:
            np.testing.assert_allclose(probabilities, expected, rtol=1e-5)


ARRAYS = [np.zeros(shape) for shape in ((), (3,), (3, 1), (3, 2), (1, 3, 2))]


class TestFunctionsOfOnesOwn:
    @examples(100)
    @given(st.sampled_from(["f", "f_prime"]), PLAIN_ODD | st.sampled_from(ARRAYS))
    def test_what_they_give_is_of_the_inputs_shape_or_refused(self, name, value):
        network = cnn.Sequential(cnn.Activation(**{"f": np.sin, "f_prime": np.cos} | {name: lambda x: value}))
        network.build((3,), backend="cpu", dtype="float64")
        x = np.ones((3, 2))
        _, refusal = attempt(network.forward, x, training=True)
        if not refusal:
            _, refusal = attempt(network.backward, np.ones((3, 2)))
        if refusal:
            assert isinstance(refusal, cnn.ShapeError)
            assert f"{name} gave " in str(refusal)
        else:
            assert isinstance(value, int | float | np.generic | np.ndarray)
