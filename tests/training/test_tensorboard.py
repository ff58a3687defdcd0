"""Logs for TensorBoard, read back with TensorBoard's own reader."""

import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT

import cnn
from cnn.training.tensorboard import TensorBoard, histogram, installed

pytest.importorskip("tensorboard")

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 6, 6), dtype=np.uint8)
DATA = cnn.data.Dataset(IMAGES, IMAGES[:, 0, 0] // 128, classes=2)


def train(*callbacks, epochs=3, validation=DATA):
    network = cnn.Sequential(cnn.Conv2D(2, 3), cnn.ReLU(), cnn.Flatten(), cnn.Dense(2))
    network.build(DATA.shape, backend="cpu")
    history = cnn.fit(network, DATA, validation, epochs=epochs, batch_size=16, callbacks=callbacks)
    return network, history


def read(folder):
    """{tag: {step: array}} as TensorBoard sees the folder."""
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    log = EventAccumulator(str(folder)).Reload()
    return {
        tag: {event.step: make_ndarray(event.tensor_proto) for event in log.Tensors(tag)}
        for tag in log.Tags()["tensors"]
    }


def test_every_figure_of_the_history_is_there(tmp_path):
    _, history = train(TensorBoard(tmp_path))
    log = read(tmp_path)
    tags = {
        "loss/training": "loss",
        "loss/validation": "validation_loss",
        "accuracy/training": "accuracy",
        "accuracy/validation": "validation_accuracy",
        "learning_rate": "learning_rate",
        "images_per_second": "images_per_second",
    }
    assert len(history) == 3
    for tag, name in tags.items():
        assert log[tag] == {record["epoch"]: np.float32(record[name]) for record in history}, tag


def test_without_validation_there_is_none_in_the_log(tmp_path):
    train(TensorBoard(tmp_path), validation=None)
    assert not [tag for tag in read(tmp_path) if "validation" in tag]


def test_every_parameter_has_a_histogram_an_epoch(tmp_path):
    network, _ = train(TensorBoard(tmp_path))
    log = read(tmp_path)
    for name, weights in network.state_dict().items():
        histograms = log[f"parameters/{name}"]
        assert list(histograms) == [1, 2, 3]
        left, right, count = histograms[3].T  # after the last epoch: the trained network's
        assert (left[0], right[-1]) == (weights.min(), weights.max())
        np.testing.assert_array_equal(left[1:], right[:-1])
        np.testing.assert_array_equal(count, np.histogram(weights.astype(np.float64), 30)[0])


def test_a_buckets_count_is_that_of_the_numbers_up_to_its_limit():
    numbers = np.array([0, 0, 0.05, 1, 2, 3], dtype=np.float32)
    made = histogram(numbers)
    assert (made["min"], made["max"], made["num"], made["sum_squares"]) == (0, 3, 6, pytest.approx(14.0025))
    assert made["sum"] == pytest.approx(6.05)
    assert (made["bucket"][0], made["bucket_limit"][0]) == (3, pytest.approx(0.1))
    assert (made["bucket"][-1], made["bucket_limit"][-1]) == (1, 3)


def test_numbers_that_are_not_finite_are_left_out_of_histograms():
    assert histogram(np.array([1.0, np.nan, np.inf, 2.0]))["num"] == 2
    assert histogram(np.array([np.nan])) == {}


def test_a_histogram_of_nothing_can_be_written(tmp_path):
    class Spoil(cnn.Callback):
        def on_epoch(self, run, record):
            run.network.flat.value.fill(np.nan)

    train(Spoil(), TensorBoard(tmp_path), epochs=1)
    assert read(tmp_path)["parameters/0.weight"][1].shape == (0, 3)


def hyperparameters(folder):
    """Those that the tab HParams shows, by name."""
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    content = EventAccumulator(str(folder)).Reload().PluginTagToContent(metadata.PLUGIN_NAME)
    found = metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG]).hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in found.items()}


def test_hyperparameters_are_those_of_fit(tmp_path):
    train(TensorBoard(tmp_path))
    found = hyperparameters(tmp_path)
    expected = {"batch_size": 16, "optimizer": "SGD", "learning_rate": 0.05 * (16 / 128) ** 0.5, "seed": 0}
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert "accumulate" not in found  # it is not used


def test_hyperparameters_are_those_that_are_given(tmp_path):
    given = {"model": "mine", "rate": 0.5, "flip": True, "augment": ["flip", "shift=2"], "size": None}
    train(TensorBoard(tmp_path, given))
    assert hyperparameters(tmp_path) == {
        "model": "mine", "rate": 0.5, "flip": True, "augment": '["flip", "shift=2"]',
    }  # fmt: skip


def test_a_run_of_the_command_has_its_settings(command, own_data):
    flags = "--epochs", 1, "--batch-size", 128, "--no-report", "--out", "run"
    assert command("train", "--data", own_data, *flags)[0] == 0
    found = hyperparameters("run/tensorboard")
    assert found["model"] == "lenet5"
    assert (found["epochs"], found["batch_size"], found["optimizer"]) == (1, 128, "sgd")
    assert "device" not in found


def test_an_epoch_is_in_the_file_as_soon_as_it_is_over(tmp_path):
    seen = []

    class Look(cnn.Callback):
        def on_epoch(self, run, record):
            seen.append(list(read(tmp_path)["loss/training"]))

    train(TensorBoard(tmp_path), Look(), epochs=2)
    assert seen == [[1], [1, 2]]


def test_each_training_adds_a_file(tmp_path):
    train(TensorBoard(tmp_path / "a" / "b"), epochs=1)
    train(TensorBoard(tmp_path / "a" / "b"), epochs=1)
    assert len(list((tmp_path / "a" / "b").glob("*tfevents*"))) == 2


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path, monkeypatch):
    from tensorboard.summary.writer.record_writer import RecordWriter

    weights = tmp_path / "model.safetensors"
    write, writes = RecordWriter.write, []

    def fills_up(self, data):
        writes.append(data)
        if len(writes) > 3:
            raise OSError(28, "No space left on device")
        write(self, data)

    monkeypatch.setattr(RecordWriter, "write", fills_up)
    with pytest.raises(OSError, match=r"No space left on device: .*tfevents"):
        train(cnn.Checkpoint(weights), TensorBoard(tmp_path / "log"))
    assert list(read(tmp_path / "log")["loss/training"]) == [1]
    assert cnn.load(weights, device="cpu").output_shape == (2,)


def test_a_folder_that_cannot_be_made_is_named_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        train(TensorBoard(tmp_path / "file" / "log"))


def test_where_the_package_is_missing_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    assert installed()
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert not installed()
    with pytest.raises(cnn.ArgumentError, match="pip install tensorboard"):
        train(TensorBoard(tmp_path / "log"))
    assert not (tmp_path / "log").exists()


def test_asking_whether_it_is_installed_does_not_import_it():
    code = (
        "import sys, cnn.training.tensorboard as t; "
        "assert t.installed(); assert 'tensorboard' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
