"""What a training run takes by default, and what it says when the network does not learn."""

import json
import warnings

import numpy as np
import pytest

import backends
import cnn
from cnn.training import defaults
from cnn.training.checkpoints import SavedTraining


def bright(count=200, classes=4, shares=None):
    """Images whose class is how bright they are."""
    random = np.random.default_rng(0)
    labels = random.choice(classes, count, p=shares)
    images = random.integers(0, 60, (count, 1, 6, 6)) + (labels * 180 // classes)[:, None, None, None]
    return cnn.data.Dataset(images.astype(np.uint8), labels, classes)


def network(classes=4):
    net = cnn.Sequential(cnn.Flatten(), cnn.Dense(16), cnn.ReLU(), cnn.Dense(classes))
    net.build((1, 6, 6), backend=backends.get("cpu"))
    return net


class Kill(cnn.Callback):
    """Leaves no ReLU of the network alive in the middle of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_step(self, run):
        if (run.epoch, run.step) == (self.epoch, 2):
            run.network.parameters["1.weight"].value[:] = 0
            run.network.parameters["1.bias"].value[:] = -1


def trained(data, *callbacks, net=None, **options):
    """(the guard, what was warned of) after a training run."""
    guard = cnn.LearningGuard()
    options = {"epochs": 3, "batch_size": 20, "callbacks": [*callbacks, guard]} | options
    with warnings.catch_warnings(record=True) as caught, np.errstate(all="ignore"):
        warnings.simplefilter("always")
        cnn.fit(net or network(len(data.classes)), data, **options)
    return guard, [str(warning.message) for warning in caught]


class TestDefaults:
    @pytest.mark.parametrize(("batch_size", "rate"), [(8, 0.0125), (32, 0.025), (128, 0.05), (2048, 0.1)])
    def test_the_rate_follows_the_square_root_of_the_batch_size(self, batch_size, rate):
        assert defaults.learning_rate(batch_size, images=60_000) == pytest.approx(rate)

    def test_a_batch_has_no_more_images_than_there_are(self):
        assert defaults.learning_rate(128, images=32) == pytest.approx(0.025)

    def test_fit_takes_what_the_command_takes(self, command, tmp_path):
        data = bright(100)
        arrays = {
            "x_train": data.images,
            "y_train": data.labels,
            "x_test": data.images,
            "y_test": data.labels,
        }
        np.savez(tmp_path / "data.npz", **arrays)
        flags = ("--model", "notebook", "--data", "data.npz", "--batch-size", 16, "--epochs", 3)
        assert command("train", *flags, "--no-report", "--device", "cpu", "--out", "run")[0] == 0
        net = cnn.models.notebook(4)
        net.build(data.shape, backend="cpu", seed=0)
        cnn.fit(net, data, epochs=3, batch_size=16, callbacks=[])
        for name, array in cnn.load("run/model.safetensors", device="cpu").state_dict().items():
            np.testing.assert_array_equal(array, net.state_dict()[name])

    def test_with_an_optimizer_of_ones_own_the_rate_is_constant(self):
        history = cnn.fit(network(), bright(), optimizer=cnn.SGD(0.01), epochs=2, callbacks=[])
        assert [record["learning_rate"] for record in history] == [0.01, 0.01]

    def test_with_an_optimizer_of_ones_own_no_gradient_is_clipped(self):
        ends = []
        for more in ({}, {"transforms": []}, {"transforms": [cnn.ClipNorm(1e-3)]}):
            net = network()
            cnn.fit(net, bright(), optimizer=cnn.SGD(0.01), callbacks=[], **more)
            ends.append(net.flat.value)
        np.testing.assert_array_equal(ends[0], ends[1])
        assert not np.array_equal(ends[0], ends[2])

    def test_a_run_of_version_0_1_knows_of_no_clipping(self, command, own_data, tmp_path):
        flags = (
            "--data",
            own_data,
            "--model",
            "notebook",
            "--device",
            "cpu",
            "--batch-size",
            16,
            "--epochs",
            1,
        )
        old = ("--learning-rate", 0.1, "--warmup", 0.2, "--clip", 0, "--no-report", "--out", "old")
        assert command("train", *flags, *old)[0] == 0
        path = tmp_path / "old" / "config.json"
        config = json.loads(path.read_text())
        del config["clip"]
        path.write_text(json.dumps(config))
        code, _, err = command("train", "--config", path, "--out", "again", "--no-report")
        assert code == 0, err
        first, second = (cnn.load(f"{name}/model.safetensors", device="cpu") for name in ("old", "again"))
        np.testing.assert_array_equal(second.flat.value, first.flat.value)
        code, _, err = command("train", "--resume", "old", "--epochs", 2, "--no-report")
        assert code == 0, err

    def test_a_checkpoint_continues_with_the_defaults_that_it_began_with(self, tmp_path):
        data, path = bright(), tmp_path / "c.safetensors"
        first = {"optimizer": cnn.SGD(0.05, momentum=0.9), "schedule": cnn.schedules.Constant()}  # in 0.1
        cnn.fit(network(), data, **first, epochs=1, batch_size=20, callbacks=[cnn.Checkpoint(path)])
        resumed, whole = network(), network()
        cnn.fit(resumed, data, epochs=2, batch_size=20, callbacks=[], resume=path)
        first["optimizer"] = cnn.SGD(0.05, momentum=0.9)
        cnn.fit(whole, data, **first, epochs=2, batch_size=20, callbacks=[])
        np.testing.assert_array_equal(resumed.flat.value, whole.flat.value)


class TestWhatIsWarnedOf:
    @pytest.mark.parametrize("epoch", [1, 2, 3])
    def test_a_network_that_has_collapsed(self, epoch):
        guard, said = trained(bright(), Kill(epoch), optimizer=cnn.SGD(0.05), validation=bright())
        assert said == [
            f"the network predicts the same class for every image after epoch {epoch}; start again with "
            "a lower learning rate, for example 0.005"
        ]
        assert "the same class for every image after epoch 3" in guard.failure

    @pytest.mark.parametrize("shares", [[0.9, 0.1], [0.1, 0.9]])
    def test_also_if_the_most_frequent_class_is_most_of_the_images(self, shares):
        data = bright(classes=2, shares=shares)
        guard, _ = trained(data, Kill(1), optimizer=cnn.SGD(0.01))
        assert "the same class" in guard.failure

    def test_a_loss_above_that_at_the_start(self):
        linear = cnn.Sequential(cnn.Flatten(), cnn.Dense(4))
        linear.build((1, 6, 6), backend="cpu")
        _, said = trained(bright(), net=linear, optimizer=cnn.SGD(30), batch_size=64)
        assert len(said) == 1
        assert "in epoch 1, above 1." in said[0]
        assert said[0].endswith(" at the start; start again with a lower learning rate, for example 3")

    def test_an_accuracy_that_was_better_before(self):
        # without validation a last batch of 2 cannot say whether all answers are alike
        guard, _ = trained(bright(202, classes=2), Kill(3), epochs=4, optimizer=cnn.SGD(0.1, momentum=0.9))
        assert "no better than always predicting the most frequent class (" in guard.failure
        assert "% before; start again with a lower learning rate" in guard.failure

    def test_no_better_than_guessing_is_a_doubt_and_no_failure(self):
        data = bright(204)
        guard, said = trained(data, optimizer=cnn.SGD(1e-9), net=always_the_first(data))
        assert guard.failure is None
        assert len(said) == 1
        assert "in epoch 3, no better than always predicting the most frequent class" in said[0]
        assert said[0].endswith("or more epochs")

    def test_a_learning_rate_of_0(self):
        _, said = trained(bright(), optimizer=cnn.SGD(0.0), net=always_the_first(bright()))
        assert said[0].endswith("try a learning rate above 0, or more epochs")

    def test_by_default_fit_warns(self):
        with pytest.warns(cnn.errors.Notice, match="lower learning rate"), np.errstate(all="ignore"):
            cnn.fit(network(), bright(), optimizer=cnn.SGD(30), batch_size=64)


def always_the_first(data):
    """A network that answers with the class 0, and not always alike."""
    net = network(len(data.classes))
    net.parameters["3.bias"].value[:] = [20, 0, 0, 0]
    return net


class TestWhatIsNot:
    def quiet(self, data, **options):
        guard, said = trained(data, **options)
        assert (said, guard.failure) == ([], None)

    @pytest.mark.parametrize(("batch_size", "epochs"), [(1, 5), (16, 20), (128, 50)])
    def test_a_network_that_learns(self, batch_size, epochs):
        self.quiet(bright(), batch_size=batch_size, epochs=epochs)

    def test_a_single_class_which_is_noted_before(self):
        guard, said = trained(cnn.data.Dataset(bright().images, np.ones(200, int), ["a", "b"]))
        note = "all training images are of one class, b: the network will predict this class for every image"
        assert (said, guard.failure) == ([note], None)

    def test_an_accuracy_that_falls_while_the_loss_does_too(self):
        """As in epochs of a step or two."""

        class Figures(cnn.Callback):
            def on_epoch(self, run, record):
                record |= {1: {"loss": 1.3, "accuracy": 0.8}, 2: {"loss": 1.2, "accuracy": 0.1}}[run.epoch]

        guard, _ = trained(bright(), Figures(), epochs=2)
        assert guard.failure is None

    def test_a_first_epoch_that_is_not_far_yet(self):
        self.quiet(bright(), optimizer=cnn.SGD(1e-6), epochs=1)

    def test_most_images_of_one_class_which_is_noted_before(self):
        guard, said = trained(bright(classes=2, shares=[0.9, 0.1]), epochs=1)
        note = "the classes are unbalanced, from 30 training images of 1 to 170 of 0"
        assert (said, guard.failure) == ([note], None)

    def test_right_answers_that_cannot_be_told_apart(self):
        net = network(2)
        data = bright(classes=2)
        for name, value in {
            "1.weight": 1,
            "1.bias": -10,
            "3.weight": [[-1e3], [1e3]],
            "3.bias": [1e3, 0],
        }.items():
            net.parameters[name].value[:] = value
        assert cnn.evaluate(net, data) == {"loss": 0, "accuracy": 1}
        self.quiet(data, net=net, optimizer=cnn.SGD(0.0))


def test_the_loss_at_the_start_survives_an_interruption(tmp_path):
    path, data = tmp_path / "c.safetensors", bright()
    guards = cnn.LearningGuard(), cnn.Checkpoint(path)
    with pytest.warns(RuntimeWarning, match="lower"), np.errstate(all="ignore"):
        cnn.fit(network(), data, optimizer=cnn.SGD(30), batch_size=64, callbacks=guards)
    saved = SavedTraining.read(path).first_loss
    assert 1 < saved < 3
    seen = []

    class Look(cnn.Callback):
        def on_epoch(self, run, record):
            seen.append(run.first_loss)

    with np.errstate(all="ignore"):
        options = {"optimizer": cnn.SGD(30), "batch_size": 64, "callbacks": [Look()]}
        cnn.fit(network(), data, epochs=2, resume=path, **options)
    assert seen == [saved]


class TestTheCommand:
    FLAGS = ("--model", "lenet5", "--device", "cpu", "--batch-size", 32, "--out", "run", "--no-report")

    @pytest.fixture
    def digits(self, tmp_path):
        train, test = cnn.data.load("mnist")
        train, test = train.only(per_class=20), test.only(per_class=20)
        arrays = {"x_train": train.images, "y_train": train.labels}
        np.savez(tmp_path / "digits.npz", **arrays, x_test=test.images, y_test=test.labels)
        return "digits.npz"

    @pytest.mark.parametrize("rate", [10, 100])
    def test_a_training_that_failed_ends_with_1_and_all_is_kept(self, command, digits, tmp_path, rate):
        code, out, err = command(
            "train", *self.FLAGS, "--data", digits, "--learning-rate", rate, "--epochs", 2
        )
        assert code == 1, err
        last = err.splitlines()[-1]
        assert last.startswith("error: ")
        assert last.endswith(f"a lower learning rate, for example {rate / 10:g}")
        assert out.startswith("test accuracy")
        names = {"model.safetensors", "checkpoint.safetensors", "evaluation.safetensors", "metrics.csv"}
        assert names <= {path.name for path in (tmp_path / "run").iterdir()}

    def test_the_first_epoch_that_fails_is_noted(self, command, digits):
        flags = ("--data", digits, "--learning-rate", 100, "--epochs", 2)
        _, _, err = command("train", *self.FLAGS, *flags)
        first, note = (
            position
            for position, line in enumerate(err.splitlines())
            if line.startswith(("epoch 1", "note: the"))
        )
        assert note == first + 1
        assert err.count("note: the ") == 1

    def test_for_programs_the_result_is_whole(self, command, digits):
        code, out, _ = command("train", *self.FLAGS, "--data", digits, "--learning-rate", 10, "--json")
        assert code == 1
        assert json.loads(out)["count"] == 200

    def test_what_is_not_held_out_is_called_test_and_its_result_is_said_once(self, command, digits):
        _, out, err = command("train", *self.FLAGS, "--data", digits, "--epochs", 2)
        lines = [line for line in err.splitlines() if line.startswith("epoch")]
        assert "|  test loss " in lines[0]
        assert "test" not in lines[1]
        assert out.startswith("test accuracy ")
        assert "validation" not in out + err

    def test_what_is_held_out_is_called_validation(self, command, digits):
        _, _, err = command("train", *self.FLAGS, "--data", digits, "--epochs", 2, "--validation", 0.2)
        assert err.count("|  validation loss ") == 2
