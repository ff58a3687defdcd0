"""A folder of pictures of one's own: cnn train, evaluate and predict prepare them in the same way."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers import ROOT

import cnn
from cnn.runs.folder import RunFolder

pytest.importorskip("PIL")
from PIL import Image, ImageOps

TRAIN = ("train", "--model", "mnist-small", "--epochs", 8, "--batch-size", 8, "--no-report", "--out", "run")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Striped pictures of two classes in several sizes and formats; one of them is broken."""
    random = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("pictures") / "Fotos (é)"
    for part, count in (("train", 24), ("test", 10)):
        for name in ("down", "across"):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                across, down = random.integers(40, 90, 2)
                waves = np.sin(np.arange(across) / 4 + np.zeros((down, across)))
                pixels = np.clip(128 + 80 * waves + random.normal(0, 30, waves.shape), 0, 255)
                pixels = pixels.T if name == "across" else pixels
                suffix = ("jpg", "png", "webp", "bmp")[number % 4]
                picture = Image.fromarray(pixels.astype(np.uint8)).convert("RGB")
                picture.save(folder / part / name / f"{number:02}.{suffix}")
    (folder / "train/down/broken.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CNN_DATA", str(tmp_path / "cache"))


@pytest.mark.parametrize("fit", ["crop", "letterbox"])
def test_predict_gives_what_evaluate_counts(command, photos, tmp_path, fit):
    code, _, err = command(*TRAIN, "--data", photos, "--size", 24, "--fit", fit)
    assert code == 0, err
    assert "pictures " + {"crop": "cropped", "letterbox": "letterboxed"}[fit] + " to 24x24, grey" in err
    assert "skipped 1 of 49 pictures" in err
    assert "broken.jpg: this is a damaged or incomplete JPEG picture" in err

    found = json.loads(command("evaluate", "run", "--json")[1])
    assert found["count"] == 20
    assert found["accuracy"] > 0.9
    right = 0
    for name in ("down", "across"):
        answers = json.loads(command("predict", "run", photos / "test" / name, "--json")[1])
        right += sum(answer["class"] == name for answer in answers)
    assert right == round(found["accuracy"] * 20)

    again = json.loads(command("evaluate", "run", "--data", photos, "--json")[1])
    assert again["accuracy"] == found["accuracy"]
    network = cnn.load(tmp_path / "run" / "model.safetensors", device="cpu")
    assert (network.input_shape, network.preprocessing.fit) == ((1, 24, 24), fit)


def test_the_onnx_file_says_how_pictures_are_prepared(command, photos, tmp_path):
    """Pictures that are prepared with Pillow as the file says get the labels that predict gives."""
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    flags = "--size", "24x20", "--channels", 3, "--normalize"
    assert command(*TRAIN, "--data", photos, *flags)[0] == 0
    assert command("export", "run", "model.onnx")[0] == 0
    properties = {entry.key: json.loads(entry.value) for entry in onnx.load("model.onnx").metadata_props}
    prepared = properties["preprocessing"]
    assert (prepared["fit"], prepared["resampling"]) == ("crop", "bicubic")
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])

    answers = json.loads(command("predict", "run", photos / "test/down", photos / "test/across", "--json")[1])
    assert {answer["class"] for answer in answers} == {"down", "across"}
    for answer in answers:
        picture = Image.open(answer["file"]).convert("RGB" if prepared["channels"] == 3 else "L")
        size = prepared["width"], prepared["height"]
        pixels = np.asarray(ImageOps.fit(picture, size, Image.Resampling.BICUBIC), dtype=np.float32)
        images = pixels.transpose(2, 0, 1)[None] * np.float32(prepared["scale"])
        (shares,) = session.run(None, {"images": images})
        expected = [answer["probabilities"][name] for name in properties["classes"]]
        np.testing.assert_allclose(shares[0], expected, atol=1e-5)


def test_images_of_classes_that_the_network_does_not_know_are_left_out_with_a_note(command, photos, tmp_path):
    assert command(*TRAIN, "--data", photos, "--size", 16, "--epochs", 1)[0] == 0
    more = shutil.copytree(photos, tmp_path / "more")
    shutil.copytree(more / "test/down", more / "test/zebra")
    code, out, err = command("evaluate", "run", "--data", more)
    assert code == 0
    assert "on 20 images\n" in out
    assert "10 images of classes that the network does not know are left out: 'zebra'" in err


def test_a_folder_of_classes_is_tested_as_a_whole_unless_the_network_was_trained_on_it(
    command, photos, tmp_path
):
    own = shutil.copytree(photos / "test", tmp_path / "own")
    assert command(*TRAIN, "--data", own, "--size", 16, "--epochs", 1)[0] == 0
    for flags in ((), ("--data", own)):
        code, out, err = command("evaluate", "run", *flags)
        assert (code, "on 4 images" in out, "a test set of 4 pictures is held out" in err) == (0, True, True)
    code, out, err = command("evaluate", "run", "--data", photos / "test")
    assert (code, "on 20 images" in out) == (0, True)
    assert "there is no test set: all 20 pictures are tested" in err


def test_digits_are_cut_out_of_pictures_on_request(command, photos, tmp_path):
    for number, name in enumerate(("one", "two") * 5):
        (tmp_path / "digits" / name).mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGB", (90, 60), (230, 230, 220))
        for bar in range(1 + number % 2):
            picture.paste((20, 20, 90), (20 + 20 * bar, 15, 26 + 20 * bar, 40 + number))
        picture.save(tmp_path / "digits" / name / f"{number}.png")
    flags = "--fit", "digit", "--epochs", 1
    code, _, err = command(*TRAIN, "--data", tmp_path / "digits", *flags)
    assert (code, "pictures as digits of 28x28, grey" in err) == (0, True), err
    code, _, err = command(*TRAIN, "--data", photos, *flags, "--out", "other")
    assert code == 2
    assert "more than 10% of the 49 pictures cannot be used, such as" in err
    assert ".jpg: fit is 'digit': " in err
    code, _, err = command(*TRAIN, "--data", photos, *flags, "--channels", 3, "--out", "other")
    assert (code, "fit is 'digit', which makes grey images, but channels is 3: leave it out" in err) == (
        2,
        True,
    )


def test_another_fit_on_request(command, photos):
    assert command(*TRAIN, "--data", photos, "--size", "20x28", "--epochs", 1)[0] == 0
    picture = photos / "test/down/01.png"
    own, crop, stretch = (
        json.loads(command("predict", "run", picture, "--json", "--show", *flags)[1])[0]["image"]
        for flags in ((), ("--fit", "crop"), ("--fit", "stretch"))
    )
    assert np.shape(own) == (1, 20, 28)
    assert own == crop != stretch


def test_a_run_is_repeated_from_its_config(command, photos, tmp_path):
    assert command(*TRAIN, "--data", photos, "--size", "20x28", "--epochs", 1)[0] == 0
    assert command("train", "--config", "run/config.json", "--out", "again", "--no-report")[0] == 0
    one, other = (cnn.load(tmp_path / name / "model.safetensors", device="cpu") for name in ("run", "again"))
    assert other.input_shape == (1, 20, 28)
    np.testing.assert_array_equal(one.flat.value, other.flat.value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--size", "big"), "--size is 'big', expected a height and a width as in 64 or 48x64"),
        (("--size", 0), "--size is '0', expected a height and a width"),
        (("--fit", "squeeze"), "fit is 'squeeze', expected stretch, crop, letterbox, digit"),
        (("--channels", 2), r"channels is 2, expected 1 \(grey\) or 3 \(colour\)"),
        (
            ("--data", "mnist", "--size", 32),
            "--size is for picture files, but mnist has images",
        ),
    ],
)
def test_mistakes_are_one_sentence(command, photos, tmp_path, flags, message):
    code, out, err = command(*TRAIN, "--data", photos, *flags)
    assert (code, out) == (2, "")
    assert re.search(f"error: .*{message}", err)
    assert not (tmp_path / "run").exists()


def test_a_run_on_mnist_that_does_not_say_how_pictures_are_fitted_finds_digits(command, tmp_path):
    flags = "--model", "mnist-small", "--per-class", 5, "--epochs", 1, "--no-report", "--out", "run"
    assert command("train", *flags)[0] == 0
    folder = RunFolder(tmp_path / "run")
    network = cnn.load(folder.weights, device="cpu")
    assert network.preprocessing.fit == "digit"
    network.preprocessing = None
    network.save(folder.weights)  # as version 0.1 wrote it
    assert folder.load(network.backend)[0].preprocessing.fit == "digit"


SLOW = """
import os, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
signal.signal(signal.SIGTERM, signal.SIG_DFL)
from cnn.cli import main
from cnn.data.readers import decoded

def slow(path, decode=decoded.decode):
    os.write(2, f"decoding {path}\\n".encode())  # at once, so that lines of several threads do not mix
    time.sleep(0.1)
    return decode(path)

decoded.decode = slow
main()
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_while_pictures_are_decoded_ends_soon_and_leaves_nothing(
    command, tmp_path, number, code, said
):
    for name in ("down", "across"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for count in range(300):
            Image.new("L", (8, 8), count % 256).save(tmp_path / "photos" / name / f"{count}.png")
    arguments = ["train", "--data", "photos", "--size", "8", "--channels", "1", "--out", "run"]
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not list(tmp_path.glob("cache/pictures/*")) and process.poll() is None:
            time.sleep(0.02)
        first = process.stderr.readline()
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    *others, last = [first.rstrip(), *err.splitlines()]
    assert process.returncode == code
    assert last == f"error: {said}"
    assert 0 < len(others) < 200
    assert all(line.startswith("decoding ") for line in others)
    assert not list(tmp_path.glob("cache/pictures/*"))
    assert not (tmp_path / "run").exists()
