"""``cnn train --from``: a run that begins with the weights of another one."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import cnn
from cnn.models import heads
from cnn.runs import build
from cnn.runs.config import Config
from cnn.saving.weights import read

TRAIN = ("train", "--device", "cpu", "--no-report", "--batch-size", 16, "--epochs", 1)
CONSTANT = ("--schedule", "constant", "--warmup", 0)


@pytest.fixture(scope="module")
def other_data(tmp_path_factory):
    """Images like those of ``own_data``, in three other classes."""
    random = np.random.default_rng(1)
    arrays = {}
    for part, count in (("train", 60), ("test", 30)):
        labels = random.integers(0, 3, count)
        images = random.integers(0, 60, (count, 20, 20), dtype=np.uint8)
        for label in range(3):
            images[labels == label, :, 6 * label : 6 * label + 6] += 150
        arrays |= {f"x_{part}": images, f"y_{part}": labels}
    path = tmp_path_factory.mktemp("data") / "columns.npz"
    np.savez(path, **arrays, classes=np.array(["left", "middle", "right"]))
    return path


@pytest.fixture(scope="module")
def made_base(tmp_path_factory):
    return tmp_path_factory.mktemp("base") / "base"


@pytest.fixture
def base(command, own_data, made_base, tmp_path):
    """The folder of a run on ``own_data``, in each test a copy."""
    if not made_base.exists():
        assert command(*TRAIN, "--data", own_data, "--normalize", "--out", made_base)[0] == 0
    return shutil.copytree(made_base, tmp_path / "base")


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def weights_of(folder):
    return read(folder / "model.safetensors")[0]


def test_keeps_all_but_the_head(command, base, other_data, tmp_path):
    code, _, err = command(
        *TRAIN, "--from", "base", "--data", other_data, "--freeze", "all-but-head", "--out", "new"
    )
    assert code == 0, err
    assert (
        f"\nstarts from {base}: layer 11 Dense is new, for 3 other classes, and the layers before it have "
        "its weights; the images keep its size and normalization (1x20x20)" in err
    )
    assert "layers 0, 3, 7, 9 are frozen: training changes 255 of " in err
    old, new = weights_of(base), weights_of(tmp_path / "new")
    assert new["11.weight"].shape == (3, 84)
    for name in old:
        if not name.startswith("11."):
            np.testing.assert_array_equal(old[name], new[name], err_msg=name)
    assert config_of(tmp_path / "new")["model"] == "lenet5"
    network = cnn.load("new/model.safetensors", device="cpu")
    assert network.preprocessing == cnn.load("base/model.safetensors", device="cpu").preprocessing
    assert network.class_names == ("left", "middle", "right")
    assert [layer.trainable for layer in network.layers[:4]] == [False, True, True, False]


def test_the_network_without_its_weights_is_trainable(command, base, own_data):
    data = ("--data", own_data)
    assert command(*TRAIN, "--from", "base", *data, "--freeze", "all-but-head", "--out", "frozen")[0] == 0
    for model, out in (("frozen", "new"), ("frozen/model.safetensors", "newer")):
        code, _, err = command(*TRAIN, "--model", model, *data, "--out", out)
        assert code == 0, err
        assert not cnn.load(f"{out}/model.safetensors", device="cpu").frozen_names
    assert all(layer.trainable for layer in cnn.models.make("frozen").walk())
    assert cnn.load("frozen/model.safetensors", device="cpu").frozen_names


def test_running_statistics_stay_too(command, own_data, other_data, tmp_path):
    model = ("--model", "mnist-small")
    assert command(*TRAIN, *model, "--data", own_data, "--out", "base")[0] == 0
    assert command(*TRAIN, "--from", "base", "--data", other_data, "--freeze", 8, "--out", "new")[0] == 0
    old, new = weights_of(tmp_path / "base"), weights_of(tmp_path / "new")
    statistics = [name for name in old if "running" in name or "batches" in name]
    assert statistics
    for name in old:
        if not name.startswith("16."):
            assert np.array_equal(old[name], new[name]) == (int(name.partition(".")[0]) < 8), name


def test_the_same_classes_keep_their_head(command, base, own_data, tmp_path):
    code, _, err = command(*TRAIN, "--from", "base", "--data", own_data, "--learning-rate", 0, "--out", "new")
    assert code == 1  # nothing was learned
    assert "all layers have its weights, since the 2 classes are the same" in err
    for name, array in weights_of(base).items():
        np.testing.assert_array_equal(array, weights_of(tmp_path / "new")[name], err_msg=name)


def test_as_many_other_classes_get_a_new_head(command, base, other_data):
    file = base / "model.safetensors"
    code, out, _ = command(
        *TRAIN, "--from", file, "--data", other_data, "--classes", "left,right", "--freeze", 1, "--dry-run"
    )
    assert code == 0
    assert f"starts from {file}: layer 11 Dense is new, for 2 other classes" in out
    assert "layer 0 is frozen: training changes" in out


def test_resumes_bit_for_bit_without_the_base(command, base, other_data, tmp_path):
    given = (
        "--from",
        "base/model.safetensors",
        "--data",
        other_data,
        "--freeze",
        4,
        "--old-rate",
        0.1,
        *CONSTANT,
    )
    assert command(*TRAIN, *given, "--epochs", 2, "--out", "whole")[0] == 0
    assert command(*TRAIN, *given, "--out", "parts")[0] == 0
    shutil.rmtree(base)
    code, _, err = command("train", "--resume", "parts", "--epochs", 2, "--no-report")
    assert code == 0, err
    whole, parts = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name], err_msg=name)
    assert command("evaluate", "parts")[0] == 0
    code, _, err = command(*TRAIN, "--from", "parts", "--data", other_data, "--out", "again")
    assert code == 0, err
    assert "frozen" not in err  # only --freeze decides
    assert not np.array_equal(parts["0.weight"], weights_of(tmp_path / "again")["0.weight"])


def test_resumes_networks_that_files_do_not_describe(command, own_data, other_data, tmp_path):
    (tmp_path / "mynet.py").write_text(
        "import cnn\n\nclass Doubled(cnn.ReLU):\n    def forward(self, x, training=False):\n"
        "        y = super().forward(x, training)\n        y *= 2\n        return y\n\n"
        "net = cnn.Sequential(cnn.Conv2D(2, 5), Doubled(), cnn.Flatten(), cnn.Dense(2))\n"
    )
    assert command(*TRAIN, "--model", "mynet.py:net", "--data", own_data, "--out", "base")[0] == 0
    given = "--from", "base", "--data", other_data, "--freeze", 1
    code, _, err = command(*TRAIN, *given, "--out", "new")
    assert code == 0, err
    shutil.rmtree(tmp_path / "base")
    code, _, err = command("train", "--resume", "new", "--epochs", 2, "--no-report")
    assert code == 0, err
    assert "layer 0 is frozen" in err
    assert command("evaluate", "new")[0] == 0


def test_pictures_become_images_of_the_bases_size(command, tmp_path):
    random = np.random.default_rng(0)
    for folder, classes, side in (("old", ("dark", "light"), 30), ("new", ("low", "high", "off"), 44)):
        for number in range(12):
            for label, name in enumerate(classes):
                (tmp_path / folder / name).mkdir(parents=True, exist_ok=True)
                pixels = random.integers(100 * label, 100 * label + 50, (side, side + 6), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / folder / name / f"{number}.png")
    assert command(*TRAIN, "--data", "old", "--size", 20, "--fit", "letterbox", "--out", "base")[0] == 0
    code, _, err = command(*TRAIN, "--from", "base", "--data", "new", "--out", "tuned")
    assert code == 0, err
    assert "pictures letterboxed to 20x20, grey" in err
    assert "the images keep its size (1x20x20)" in err
    kept = config_of(tmp_path / "tuned")
    assert (kept["size"], kept["fit"], kept["channels"]) == ([20, 20], "letterbox", 1)
    shutil.rmtree(tmp_path / "base")
    assert command("train", "--resume", "tuned", "--epochs", 2, "--no-report")[0] == 0
    code, _, err = command(*TRAIN, "--from", "tuned", "--data", "new", "--size", 24, "--out", "more")
    assert code == 2
    assert "--size is 24x24, but" in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--model", "resnet8"),
            "--model is resnet8, but --from {base} has the model lenet5: leave --model out",
        ),
        (("--normalize",), "--normalize cannot be given with --from"),
        (("--freeze", "12"), "--freeze is 12, but layer 11 tells the classes apart"),
        (("--freeze", "some"), "--freeze is 'some', expected the number of first layers"),
        (
            ("--freeze", "all-but-head", "--old-rate", "0.1"),
            "--old-rate has no effect with --freeze all-but-head",
        ),
        (("--data", "mnist"), "mnist has images of 1x28x28, but {base} takes images of 1x20x20"),
        (("--old-rate", "-1"), "old_rate is -1"),
    ],
)
def test_what_does_not_fit_is_answered_in_a_sentence(command, base, other_data, flags, message, tmp_path):
    data = () if "--data" in flags else ("--data", other_data)
    code, _, err = command(*TRAIN, "--from", "base", *data, *flags, "--out", "new")
    assert code == 2
    assert message.format(base=base) in err.replace("\n", " ")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("flags", [("--freeze", "2"), ("--old-rate", "0.1")])
def test_needs_a_base(command, own_data, flags):
    code, _, err = command(*TRAIN, "--data", own_data, *flags)
    assert code == 2
    assert f"{flags[0]} needs --from: say which run or file has the trained network" in err


@pytest.mark.parametrize("source", ["nowhere", "nothing.safetensors", "data.npz"])
def test_a_base_that_is_none_is_named(command, own_data, tmp_path, source):
    shutil.copy(own_data, tmp_path / "data.npz")
    code, _, err = command(*TRAIN, "--data", own_data, "--from", source)
    assert code == 2
    assert str(tmp_path / source) in err


def test_the_same_model_may_be_given(command, base, other_data):
    given = "--from", "base", "--model", "lenet5", "--data", other_data
    assert command(*TRAIN, *given, "--dry-run")[0] == 0
    assert command(*TRAIN, *given, "--out", "new")[0] == 0
    code, _, err = command("train", "--config", "new", "--seed", 1, "--dry-run")
    assert code == 0, err


def test_old_layers_learn_more_slowly():
    network = cnn.Sequential(cnn.Conv2D(2, 3, bias=False), cnn.BatchNorm2D(), cnn.Flatten(), cnn.Dense(3))
    network.build((1, 6, 6), backend="cpu")
    settings = {"base": "base", "old_rate": 0.1}
    for decays, config in ((True, Config(**settings)), (False, Config(**settings, decay_biases=False))):
        groups = build.make_groups(config, network)
        found = {
            name: next((group.rate, group.weight_decay) for group in groups if group.fits(parameter))
            for name, parameter in network.parameters.items()
        }
        vector = None if decays else 0.0
        assert found == {
            "0.weight": (0.1, None), "1.weight": (0.1, vector), "1.bias": (0.1, vector),
            "3.weight": (1, None), "3.bias": (1, vector),
        }  # fmt: skip
    assert build.make_groups(Config(decay_biases=False), network) == build.make_groups(
        Config(decay_biases=False), None
    )
    assert heads.find_head(network) == "3"
