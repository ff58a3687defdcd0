"""What was trained is opened alike: the folder of a run, or a file of weights that describes its network."""

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.small_run import SMALL
from PIL import Image

import backends
import cnn
from cnn.runs.trained import load_trained


@pytest.fixture
def run(command, own_data):
    assert command("train", *SMALL, "--data", own_data, "--out", "run")[0] == 0
    return Path("run")


def test_a_runs_file_alone_is_used_like_the_run(command, run, own_data):
    file = run / "model.safetensors"
    of_run, of_file = (
        json.loads(command("evaluate", source, "--data", own_data, "--json")[1]) for source in (run, file)
    )
    assert of_run == of_file
    Image.fromarray(np.zeros((20, 20), np.uint8)).save("dark.png")
    of_run, of_file = (command("predict", source, "dark.png", "--json")[1] for source in (run, file))
    assert of_run == of_file
    assert list(json.loads(of_file)[0]["probabilities"]) == ["dark", "bright"]
    exported = [json.loads(command("export", source, "a.onnx", "--json")[1]) for source in (run, file)]
    assert exported[0] == exported[1]
    assert exported[0]["classes"] == ["dark", "bright"]


def test_a_run_keeps_its_network_if_the_name_stands_for_another_one(command, run, own_data, monkeypatch):
    monkeypatch.setitem(
        cnn.models.MODELS, load_trained(run, backends.get("cpu")).config.model, cnn.models.lenet5
    )
    assert command("evaluate", run)[0] == 0
    assert command("report", run)[0] == 0
    code, _, err = command("train", "--resume", run, "--epochs", 2)
    assert code == 0, err


def test_a_run_with_another_number_of_classes_than_outputs_is_refused(command, run):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"class_names": ["dark", "bright", "grey"]}))
    code, _, err = command("evaluate", run)
    assert code == 2
    assert "the network has 2 outputs, but there are 3 class_names" in err


def test_what_is_known_of_it(run):
    folder, file = (load_trained(source, backends.get("cpu")) for source in (run, run / "model.safetensors"))
    assert folder.class_names == file.class_names == ("dark", "bright")
    assert (folder.path, file.path) == (run, run / "model.safetensors")
    assert folder.config.epochs == 1
    assert file.config is None
    assert folder.about == file.about == {}
    np.testing.assert_array_equal(folder.network.flat.value, file.network.flat.value)


def test_a_file_without_class_names_numbers_them(tmp_path):
    network = cnn.models.lenet5(classes=4)
    network.build((1, 28, 28), backend="cpu")
    network.save(tmp_path / "a.safetensors")
    assert load_trained(tmp_path / "a.safetensors", backends.get("cpu")).class_names == ("0", "1", "2", "3")


class TestClassNames:
    @pytest.fixture
    def network(self):
        network = cnn.Sequential(cnn.Flatten(), cnn.Dense(2))
        network.build((1, 4, 4), backend="cpu")
        return network

    def test_training_sets_them_and_files_copies_and_pickles_keep_them(self, network, tmp_path):
        assert network.class_names is None
        images = np.zeros((4, 1, 4, 4), np.uint8)
        data = cnn.data.Dataset(images, [0, 1, 0, 1], classes=["cat", "dog"])
        cnn.fit(network, data, callbacks=[cnn.Checkpoint(tmp_path / "checkpoint")])
        network.save(tmp_path / "a.safetensors")
        files = [cnn.load(tmp_path / name, device="cpu") for name in ("checkpoint", "a.safetensors")]
        for again in (network, network.copy(), pickle.loads(pickle.dumps(network)), *files):
            assert again.class_names == ("cat", "dog")

    def test_those_of_other_data_are_kept_if_the_outputs_are_more(self, network):
        network.class_names = "cat", "dog"
        images = np.zeros((4, 1, 4, 4), np.uint8)
        cnn.fit(network, cnn.data.Dataset(images, targets=np.zeros((4, 2))), callbacks=[])
        assert network.class_names == ("cat", "dog")

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (["cat"], r"class_names: 1 names, expected one for each output of \(2,\)"),
            (["cat", "cat"], "class_names: 'cat' occurs more than once"),
            (["cat", 2], "class_names: 2 at position 1: expected printable text"),
            ("ab", "class_names: 'ab' is neither a count nor a list of names"),
        ],
    )
    def test_wrong_ones_are_refused(self, network, names, message):
        with pytest.raises(cnn.DataError, match=message):
            network.class_names = names

    def test_a_damaged_file_says_so(self, network, tmp_path):
        network.save(tmp_path / "a.safetensors", {"class_names": ["cat"]})
        with pytest.raises(
            cnn.CheckpointError, match=r"a\.safetensors: the description of the class names cannot"
        ):
            cnn.load(tmp_path / "a.safetensors", device="cpu")

    def test_a_part_of_a_network_has_none(self):
        inner = cnn.Sequential(cnn.Dense(2))
        cnn.Sequential(inner).build((3,), backend="cpu")
        with pytest.raises(cnn.ArgumentError, match="which has the class names: use that network"):
            inner.class_names = ["cat", "dog"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export", "nowhere", "a.onnx"), "nowhere is not the folder of a run.* or a .safetensors file"),
        (("export", "nowhere.safetensors", "a.onnx"), "the file nowhere.safetensors does not exist"),
        (
            ("export", "net.toml", "a.onnx"),
            "net.toml is a network without weights: train it with",
        ),
        (("export", "mynet.py:make", "a.onnx"), "mynet.py:make is a network without weights"),
        (("export", "lenet5", "a.onnx"), "lenet5 is a network without weights"),
        (("export", ".", "a.onnx"), r"\. is not the folder of a run"),
        (
            ("export", "weights.safetensors", "a.onnx"),
            "does not say which network.*; `cnn import` makes a run",
        ),
        (("export", "text.txt", "a.onnx"), "text.txt is not a readable safetensors file"),
        (("export", "pictures.safetensors", "a.onnx"), r"output of the network has the shape \(1, 4, 4\)"),
        (
            ("evaluate", "ready.safetensors"),
            "ready.safetensors does not name its data: give them with --data",
        ),
        (
            ("export", "ready.safetensors", "a.onnx", "--weights", "best"),
            "--weights is 'best', but .* one set",
        ),
    ],
)
def test_mistakes_are_one_sentence(command, tmp_path, arguments, message):
    for name in ("text.txt", "net.toml"):
        (tmp_path / name).write_text("weights")
    for name, layers in (("ready", [cnn.Flatten(), cnn.Dense(2)]), ("pictures", [cnn.ReLU()])):
        network = cnn.Sequential(*layers)
        network.build((1, 4, 4), backend="cpu")
        network.save(tmp_path / f"{name}.safetensors")
    from safetensors.numpy import save_file

    save_file({"0.weight": np.zeros(3, np.float32)}, tmp_path / "weights.safetensors")
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert re.search(message, err), err
    assert err.count("\n") == 1


def test_the_runs_own_images_are_read_as_in_training(command, own_data, tmp_path):
    assert command("train", *SMALL, "--data", own_data, "--transposed", "--out", "turned")[0] == 0
    trained = load_trained(Path("turned"), backends.get("cpu"))
    train, test = cnn.data.load(own_data)
    np.testing.assert_array_equal(trained.training_set(None).images, train.images.transpose(0, 1, 3, 2))
    np.testing.assert_array_equal(trained.test_set(None).images, test.images.transpose(0, 1, 3, 2))
    other = tmp_path / "other.npz"
    other.write_bytes(own_data.read_bytes())
    np.testing.assert_array_equal(trained.test_set(str(other)).images, test.images)
    np.testing.assert_array_equal(trained.training_set(str(other)).images, train.images)
