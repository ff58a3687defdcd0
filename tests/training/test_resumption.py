"""A training that was stopped goes on, and ends with the same weights, bit for bit, as one that never was."""

import json

import numpy as np
import pytest
from helpers.standin import StandInBackend

import backends
import cnn
from cnn.saving import weights
from cnn.support.tensors import METADATA, serialized
from cnn.training import checkpoints
from cnn.training.checkpoints import SavedTraining

RANDOM = np.random.default_rng(0)
DATA = cnn.data.Dataset(RANDOM.integers(0, 256, (70, 1, 10, 10), dtype=np.uint8), RANDOM.integers(0, 4, 70))
OPTIMIZERS = {
    "plain": lambda: cnn.SGD(0.05),
    "momentum": lambda: cnn.SGD(0.05, momentum=0.9, weight_decay=1e-3),
    "adam": lambda: cnn.Adam(0.01),
    "adamw": lambda: cnn.AdamW(0.01),
}
DEVICES = {
    "compiled": lambda: backends.get("cpu", "compiled"),
    "portable": lambda: backends.get("cpu", "portable"),
    "graph": lambda: StandInBackend("compiled"),
    "no graph": lambda: StandInBackend("portable"),
}


def network(device=None, dtype="float32"):
    made = cnn.Sequential(
        cnn.Conv2D(3, 3, padding=1), cnn.ReLU(), cnn.MaxPool2D(2), cnn.Flatten(), cnn.Dense(6), cnn.Tanh(),
        cnn.Sequential(cnn.Dense(4)),
    )  # fmt: skip
    made.build((1, 10, 10), backend=device or backends.get("cpu", "portable"), dtype=dtype)
    return made


def fit(net, optimizer="momentum", callbacks=(), **more):
    arguments = {
        "validation": DATA, "epochs": 3, "batch_size": 16, "schedule": cnn.schedules.Linear(0.2), "seed": 5
    }  # fmt: skip
    optimizer = OPTIMIZERS[optimizer]() if isinstance(optimizer, str) else optimizer
    return cnn.fit(net, DATA, optimizer=optimizer, callbacks=callbacks, **arguments | more)


class StopAfter(cnn.Callback):
    """Stops the training after a number of steps."""

    def __init__(self, steps):
        self.left = steps

    def on_step(self, run):
        self.left -= 1
        run.stop = self.left == 0


def learned(history):
    """What a history tells besides the time that it took."""
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in history]


def assert_same_weights(net, other):
    for name, array in other.state_dict().items():
        np.testing.assert_array_equal(net.state_dict()[name], array, err_msg=name)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("device", DEVICES)
def test_it_ends_as_if_it_had_never_been_stopped(optimizer, device, tmp_path):
    make, path = DEVICES[device], tmp_path / "c.safetensors"
    whole = network(make())
    history = fit(whole, optimizer)
    fit(network(make()), optimizer, [StopAfter(7), cnn.Checkpoint(path)])
    fit(network(make()), optimizer, [StopAfter(5), cnn.Checkpoint(path)], resume=path)
    again = network(make())
    assert learned(fit(again, optimizer, resume=path)) == learned(history)
    assert_same_weights(again, whole)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("steps", range(1, 11))
def test_it_does_so_after_any_step(steps, stream, tmp_path):
    path, whole = tmp_path / "c.safetensors", network()
    history = fit(whole, epochs=2, stream=stream)
    stopped = fit(network(), callbacks=[StopAfter(steps), cnn.Checkpoint(path)], epochs=2, stream=stream)
    assert len(stopped) == (steps - 1) // 5  # an epoch that is not evaluated is not over
    again = network()
    assert learned(fit(again, epochs=2, resume=path, stream=stream)) == learned(history)
    assert_same_weights(again, whole)


def test_a_stop_by_a_callback_that_comes_late_is_kept_too(tmp_path):
    path = tmp_path / "c.safetensors"
    fit(network(), callbacks=[cnn.Checkpoint(path), StopAfter(3)])
    assert SavedTraining.read(path).position == "epoch 1, step 3 of 5"


def test_what_is_stopped_at_an_epochs_end_goes_on_with_the_next(tmp_path):
    class Stop(cnn.Callback):
        def on_epoch(self, run, record):
            run.stop = True

    path, whole = tmp_path / "c.safetensors", network()
    fit(whole)
    history = fit(network(), callbacks=[Stop(), cnn.Checkpoint(path)])
    assert len(history) == 1
    assert SavedTraining.read(path).position == "the end of epoch 1"
    again = network()
    fit(again, resume=path)
    assert_same_weights(again, whole)


def test_on_another_device_it_goes_on_as_well(tmp_path):
    path, whole = tmp_path / "c.safetensors", network(dtype="float64")
    fit(whole, "adam")
    fit(network(dtype="float64"), "adam", [StopAfter(8), cnn.Checkpoint(path)])
    again = network(StandInBackend(), "float64")
    fit(again, "adam", resume=path)
    for name, array in whole.state_dict().items():
        np.testing.assert_allclose(again.state_dict()[name], array, rtol=1e-9, atol=1e-12)


def test_what_a_callback_adds_to_the_history_is_kept(tmp_path):
    class Add(cnn.Callback):
        def on_epoch(self, run, record):
            record["largest"] = run.network.flat.value.max()  # a number of NumPy's

    path = tmp_path / "c.safetensors"
    history = fit(network(), callbacks=[Add(), cnn.Checkpoint(path)])
    assert SavedTraining.read(path).history == history


def test_a_finished_training_goes_on_where_more_epochs_are_asked_for(tmp_path):
    path = tmp_path / "c.safetensors"
    first = fit(network(), callbacks=[cnn.Checkpoint(path)])
    net = network()
    assert fit(net, resume=path) == first  # as it is written down, seconds too
    assert_same_weights(net, cnn.load(path, device="cpu"))
    assert [line["epoch"] for line in fit(network(), resume=path, epochs=5)] == [1, 2, 3, 4, 5]
    with pytest.raises(cnn.CheckpointError, match="at the end of epoch 3, but epochs is 2: expected more"):
        fit(network(), resume=path, epochs=2)


def test_an_epoch_that_has_begun_is_not_left_out(tmp_path):
    path = tmp_path / "c.safetensors"
    fit(network(), callbacks=[StopAfter(7), cnn.Checkpoint(path)])
    with pytest.raises(cnn.CheckpointError, match=r"at epoch 2, step 2 of 5, but epochs is 1: expected more"):
        fit(network(), resume=path, epochs=1)


def test_a_rate_that_a_callback_has_changed_stays_changed(tmp_path):
    class Halve(cnn.Callback):
        def on_epoch(self, run, record):
            run.training.optimizer.learning_rate *= 0.5
            run.training.optimizer.weight_decay *= 2

    path, whole = tmp_path / "c.safetensors", network()
    fit(whole, callbacks=[Halve()])
    fit(network(), callbacks=[Halve(), StopAfter(12), cnn.Checkpoint(path)])
    again = network()
    fit(again, callbacks=[Halve()], resume=path)
    assert_same_weights(again, whole)


def test_numbers_of_numpys_are_no_trouble(tmp_path):
    class Add(cnn.Callback):
        def on_epoch(self, run, record):
            record["confusion"] = np.zeros((2, 2))

    path = tmp_path / "c.safetensors"
    fit(network(), callbacks=[Add(), StopAfter(7), cnn.Checkpoint(path)], seed=np.int64(5))
    assert len(fit(network(), resume=path)) == 3


class TestCheckpoint:
    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / "c.safetensors"
        fit(network(), callbacks=[StopAfter(7), cnn.Checkpoint(path)])
        return path

    def test_it_is_a_file_of_weights_too(self, path):
        loaded = cnn.load(path, device="cpu")
        assert_same_weights(loaded, cnn.load(path, network=network()))
        assert loaded.predict(DATA.images).shape == (70, 4)

    def test_it_is_written_within_an_epoch_too(self, tmp_path, monkeypatch):
        monkeypatch.setattr(cnn.Checkpoint, "seconds", 0)
        monkeypatch.setattr(cnn.Checkpoint, "share", np.inf)
        positions = []

        class Look(cnn.Callback):
            def on_step(self, run):
                positions.append(SavedTraining.read(tmp_path / "c").position)

        fit(network(), callbacks=[cnn.Checkpoint(tmp_path / "c"), Look()], epochs=1)
        assert positions == [f"epoch 1, step {step} of 5" for step in range(1, 6)]

    def test_one_with_numbers_that_are_not_finite_is_never_written(self, tmp_path):
        class Poison(cnn.Callback):
            def on_epoch(self, run, record):
                run.network.flat.value[:] = np.nan if run.epoch == 2 else run.network.flat.value

        path = tmp_path / "c.safetensors"
        fit(network(), callbacks=[Poison(), cnn.Checkpoint(path)])
        assert SavedTraining.read(path).position == "the end of epoch 1"
        assert np.isfinite(cnn.load(path, device="cpu").flat.value).all()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"batch_size": 8}, "began with batch_size 16, now it is 8: give the same, or start over"),
            ({"seed": 6}, "began with seed 5, now it is 6"),
            ({"schedule": cnn.schedules.Cosine()}, r"began with schedule Linear\(.*now it is Cosine\("),
            ({"loss": cnn.MeanSquaredError()}, "began with loss CrossEntropy, now it is MeanSquaredError"),
            ({"optimizer": "plain"}, "began with weight_decay 0.001, now it is 0.0"),
            ({"optimizer": "adam"}, "began with optimizer SGD, now it is Adam"),
        ],
    )
    def test_another_training_is_refused_before_anything_changes(self, path, change, message):
        net = network()
        with pytest.raises(cnn.CheckpointError, match=message):
            fit(net, resume=path, **change)
        assert_same_weights(net, network())

    def test_other_data_are_refused(self, path):
        other = cnn.data.Dataset(255 - DATA.images, DATA.labels)
        with pytest.raises(
            cnn.CheckpointError, match=r"began with 70 images that are not those of .*: give the data"
        ):
            cnn.fit(network(), other, batch_size=16, seed=5, resume=path, callbacks=[])
        with pytest.raises(
            cnn.CheckpointError, match=r"began with 70 images that are not those of Dataset\(60 "
        ):
            cnn.fit(network(), DATA.split(10)[0], batch_size=16, seed=5, resume=path, callbacks=[])

    def test_another_network_is_refused(self, path):
        other = cnn.Sequential(cnn.Flatten(), cnn.Dense(4))
        other.build((1, 10, 10), backend="cpu")
        with pytest.raises(cnn.CheckpointError, match=r"c.safetensors: the weights lack 1.weight"):
            fit(other, resume=path)

    def test_a_file_of_weights_is_refused(self, tmp_path):
        network().save(tmp_path / "w.safetensors")
        with pytest.raises(cnn.CheckpointError, match=r"w.safetensors: this is not a checkpoint"):
            fit(network(), resume=tmp_path / "w.safetensors")

    def test_a_folder_that_is_not_there_is_named_at_the_start(self, tmp_path):
        with pytest.raises(cnn.ArgumentError, match=r"the folder .*none does not exist"):
            fit(network(), callbacks=[cnn.Checkpoint(tmp_path / "none" / "c")])

    def test_a_refused_state_of_the_optimizer_leaves_the_network_alone(self, path, monkeypatch):
        class SGD(cnn.SGD):  # of the same name, with more to keep
            state_names = ("velocity", "more")

            def build(self, net):
                self.state_names = ("velocity", "more")
                super().build(net)

        net = network()
        monkeypatch.setitem(OPTIMIZERS, "more", lambda: SGD(0.05, momentum=0.9, weight_decay=1e-3))
        with pytest.raises(cnn.CheckpointError, match=r"lacks training/optimizer/more/0.weight"):
            fit(net, "more", resume=path)
        assert_same_weights(net, network())

    def test_one_that_is_missing_is_named(self, tmp_path):
        with pytest.raises(cnn.CheckpointError, match=r"none.safetensors does not exist"):
            fit(network(), resume=tmp_path / "none.safetensors")

    def test_a_single_changed_bit_is_noticed_wherever_it_says_something_else(self, path):
        whole, saved = path.read_bytes(), SavedTraining.read(path)
        noticed = 0
        for position in np.random.default_rng(0).integers(0, len(whole), 200):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << int(position) % 8
            path.write_bytes(damaged)
            try:
                read = vars(SavedTraining.read(path))
            except cnn.CheckpointError:
                noticed += 1
                continue
            for name, array in read.pop("arrays").items():  # 1e-05 may have become 1E-05
                np.testing.assert_array_equal(array, saved.arrays[name])
            assert read == {name: value for name, value in vars(saved).items() if name != "arrays"}
        assert noticed > 190

    def test_one_that_is_cut_short_is_noticed(self, path):
        whole = path.read_bytes()
        for length in (0, 7, 8, 100, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:length])
            with pytest.raises(cnn.CheckpointError, match=r"c.safetensors"):
                SavedTraining.read(path)

    @pytest.mark.parametrize(
        "change",
        [{"step": 9}, {"epoch": 5}, {"settings": {"steps": "many"}}, {"history": 3}, {"seconds": None}],
    )
    def test_one_that_cannot_be_is_refused_though_its_checksum_is_right(self, path, change):
        self.rewrite(path, change=change)
        with pytest.raises(cnn.CheckpointError, match=r"c.safetensors: the description .* cannot be used"):
            SavedTraining.read(path)

    @pytest.mark.parametrize("name", ["0.bias", "training/optimizer/velocity/0.bias"])
    def test_one_with_numbers_that_are_not_finite_is_refused(self, path, name):
        self.rewrite(path, {name: np.full(3, np.nan, dtype=np.float32)})
        with pytest.raises(
            cnn.CheckpointError, match=rf"c\.safetensors: {name} has 3 of 3 values that are NaN"
        ):
            SavedTraining.read(path)

    def test_a_flag_that_the_version_of_the_checkpoint_did_not_have_was_off(self, tmp_path):
        path = tmp_path / "muon.safetensors"
        fit(network(), callbacks=[cnn.Checkpoint(path)], epochs=1, optimizer=cnn.Muon())
        saved = SavedTraining.read(path)
        older = [
            {name: value for name, value in settings.items() if name not in ("hidden_only", "unit_rows")}
            for settings in (saved.settings, saved.optimizer)
        ]
        self.rewrite(path, change={"settings": older[0], "optimizer": older[1]})
        assert len(fit(network(), resume=path, epochs=2, optimizer=cnn.Muon())) == 2
        with pytest.raises(cnn.CheckpointError, match="began with unit_rows None, now it is True"):
            fit(network(), resume=path, epochs=2, optimizer=cnn.Muon(unit_rows=True))

    def rewrite(self, path, arrays=None, change=None):
        """Change what a checkpoint holds, and give it the right checksum."""
        before, metadata = weights.read_all(path)
        after = before | (arrays or {})
        assert after.keys() == before.keys()
        description = json.loads(metadata[METADATA]) | (change or {})
        del description[checkpoints.CHECKSUM]
        description[checkpoints.CHECKSUM] = checkpoints.checksum(after, description)
        path.write_bytes(serialized(after, description))


def test_a_figure_that_is_not_finite_is_null_in_the_file_and_itself_when_read(tmp_path):
    class Lose(cnn.Callback):
        def on_epoch(self, run, record):
            record["validation_loss"] = float("nan")

    path = tmp_path / "c.safetensors"
    fit(network(), "plain", [Lose(), cnn.Checkpoint(path)], epochs=1)
    text = weights.read_all(path)[1][METADATA]
    assert json.loads(text, parse_constant=pytest.fail)["history"][0]["validation_loss"] is None
    assert np.isnan(SavedTraining.read(path).history[0]["validation_loss"])


def test_the_best_weights_are_those_with_the_lowest_validation_loss(tmp_path):
    from cnn.training.callbacks import BestWeights

    kept = {}

    class Keep(cnn.Callback):
        def on_epoch(self, run, record):
            kept[record["validation_loss"]] = run.network.copy()

    class Lose(cnn.Callback):
        def on_epoch(self, run, record):
            if run.epoch == 1:
                record["validation_loss"] = float("nan")

    path = tmp_path / "best.safetensors"
    fit(network(), "plain", [Lose(), Keep(), BestWeights(path)], epochs=2)
    assert weights.epoch_of(path) == 2  # what is no number is no loss to be compared with
    kept.clear()
    fit(network(), "plain", [Keep(), BestWeights(path)], epochs=6, schedule=cnn.schedules.Constant())
    assert_same_weights(cnn.load(path, device="cpu"), kept[min(kept)])
