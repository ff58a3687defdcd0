"""A folder of 270 photographs trains with the defaults, and every command sees the same pixels."""

import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")
from helpers.photographs import CLASSES, write_photographs
from PIL import Image, ImageOps

from cnn.training import defaults


@pytest.fixture(scope="module")
def desktop(tmp_path_factory):
    """72 pictures to train and 18 to test of each class, and a broken one."""
    folder = tmp_path_factory.mktemp("desktop") / "Meine Bilder" / "été 2026 (Kopie)"
    write_photographs(folder / "train", 72, seed=0)
    write_photographs(folder / "test", 18, seed=1)
    (folder / "train" / CLASSES[1] / "IMG_0000.JPG").write_bytes(b"\xff\xd8\xff\xe0 broken")
    (folder / "desktop.ini").write_bytes(b"stray")
    return folder


@pytest.fixture
def photos(desktop, monkeypatch):
    monkeypatch.setenv("CNN_DATA", str(desktop.parent / "cache"))
    return desktop


def test_270_photographs_train_with_the_defaults(command, photos):
    code, out, err = command("train", "--data", photos, "--out", "mein Lauf", "--no-report")
    assert code == 0, err
    headline = next(line for line in err.splitlines() if line.startswith("photo-small on 216 images of "))
    assert "pictures cropped to 64x64, colour" in headline
    assert "; augmented by brightness=0.3 and contrast=0.3, 40 epochs, batches of 16; " in headline
    assert "skipped 1 of 217 pictures" in err
    assert "IMG_0000.JPG: " in err

    found = json.loads(command("evaluate", "mein Lauf", "--json")[1])
    assert found["count"] == 54
    assert found["accuracy"] >= 0.95
    assert f"accuracy {found['accuracy']:.2%}" in out

    answers = json.loads(command("predict", "mein Lauf", photos / "test", "--json")[1])
    right = sum(f"{answer['class']}/" in answer["file"] for answer in answers)
    assert len(answers) == 54
    assert right / 54 == found["accuracy"]

    _check_onnx(command, answers)


def _check_onnx(command, answers):
    """The exported file gives the same labels for pictures prepared as its metadata says."""
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    assert command("export", "mein Lauf", "model.onnx")[0] == 0
    properties = {entry.key: json.loads(entry.value) for entry in onnx.load("model.onnx").metadata_props}
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    for answer in answers:
        image = _prepared(Image.open(answer["file"]), properties["preprocessing"])
        (shares,) = session.run(None, {"images": image})
        expected = [answer["probabilities"][name] for name in properties["classes"]]
        np.testing.assert_allclose(shares[0], expected, atol=1e-5)
        assert properties["classes"][shares[0].argmax()] == answer["class"]


def _prepared(picture, how):
    """The picture as the input of the file, by Pillow alone."""
    assert (how["fit"], how["resampling"]) == ("crop", "bicubic")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picture = ImageOps.exif_transpose(picture).convert("RGBA")
    ground = Image.new("RGBA", picture.size, (how["ground"],) * 3 + (255,))
    opaque = Image.alpha_composite(ground, picture).convert({1: "L", 3: "RGB"}[how["channels"]])
    fitted = ImageOps.fit(opaque, (how["width"], how["height"]), Image.Resampling.BICUBIC)
    return np.asarray(fitted, np.float32).transpose(2, 0, 1)[None] * np.float32(how["scale"])


@pytest.mark.parametrize(
    ("flags", "headline"),
    [
        ((), "photo-small on .*; augmented by .*, 40 epochs, batches of 16; cpu"),
        (("--epochs", 2), "photo-small on .*; augmented by .*, batches of 16; cpu"),
        (("--augment", "flip"), "photo-small on .*; 40 epochs, batches of 16; cpu"),
        (("--model", "photo-small"), r"photo-small on [^;]*; 40 epochs, batches of 16; cpu"),
        (("--model", "mnist-small", "--batch-size", 128, "--epochs", 3), "mnist-small on [^;]*; cpu"),
    ],
)
def test_what_is_given_wins(command, photos, flags, headline):
    code, out, err = command("train", "--data", photos, "--dry-run", "--device", "cpu", *flags)
    assert code == 0, err
    assert re.match(headline, out)


def test_a_run_keeps_what_was_chosen(command, photos):
    flags = "--no-report", "--out", "run", "--epochs", 1
    assert command("train", "--data", photos, *flags)[0] == 0
    config = json.loads(Path("run/config.json").read_text("utf-8"))
    chosen = {name: config[name] for name in ("model", "augment", "epochs", "batch_size")}
    assert chosen == {
        "model": "photo-small", "augment": ["brightness=0.3", "contrast=0.3"], "epochs": 1, "batch_size": 16,
    }  # fmt: skip
    code, out, err = command("train", "--config", "run/config.json", "--dry-run", "--json")
    assert code == 0, err
    again = json.loads(out)["config"]
    assert {name: again[name] for name in chosen} == chosen
    assert command("train", "--resume", "run", "--epochs", 2)[0] == 0


def test_digits_and_large_sets_have_the_usual_defaults(command):
    code, out, _ = command("train", "--dry-run", "--json", "--device", "cpu")
    config = json.loads(out)["config"]
    chosen = [config[name] for name in ("model", "augment", "epochs", "batch_size", "learning_rate")]
    assert (code, chosen) == (0, ["lenet5", None, 3, 128, 0.05])


@pytest.mark.parametrize(
    ("images", "epochs", "batch_size"),
    [
        (2, 40, 8),
        (216, 40, 16),
        (1000, 30, 32),
        (5000, 6, 64),
        (8192, 4, 128),
        (10_000, 3, 128),
        (10**7, 3, 128),
    ],
)
def test_epochs_and_batch_size_follow_from_the_number_of_images(images, epochs, batch_size):
    assert (defaults.epochs(images), defaults.batch_size(images)) == (epochs, batch_size)
