"""The examples in scripts/examples run, and their networks learn."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import cnn

EXAMPLES = Path(__file__).parents[2] / "scripts" / "examples"


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pictures(path, channels, size, count=512):
    """A file of noisy pictures of two classes, dark ones with rows and bright ones with columns."""
    random = np.random.default_rng(0)
    labels = np.arange(count) % 2
    images = random.integers(0, 100, (count, channels, size, size))
    images[labels == 0, :, ::2] += 50
    images[labels == 1, :, :, ::2] += 100
    arrays = {"x_train": images, "y_train": labels, "x_test": images[:64], "y_test": labels[:64]}
    np.savez(path, **{name: value.astype(np.uint8) for name, value in arrays.items()})
    return path


def test_a_residual_network_on_pictures(tmp_path):
    data = pictures(tmp_path / "pictures.npz", channels=3, size=12)
    assert loaded("resnet_on_pictures").main(data, epochs=4) > 0.8


def test_squeeze_and_excite(tmp_path, capsys):
    data = pictures(tmp_path / "pictures.npz", channels=1, size=12)
    assert loaded("squeeze_and_excite").main(data, epochs=6) > 0.8
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 8
    assert all(line.endswith("right") for line in lines), lines


def test_the_block_is_saved_by_its_names():
    block = loaded("squeeze_and_excite").SqueezeAndExcite
    net = cnn.Sequential(block(8, reduction=2))
    net.build((8, 4, 4), backend="cpu")
    assert list(net.state_dict()) == [
        f"0.gate.{layer}.{part}" for layer in (1, 3) for part in ("weight", "bias")
    ]


def test_the_autoencoder_learns_to_draw(tmp_path, capsys):
    random, arrays = np.random.default_rng(0), {}
    for part, count in (("train", 600), ("test", 20)):  # two bright lines
        images, places = np.zeros((count, 12, 12), np.uint8), random.integers(0, 10, count)
        for image, place in zip(images, places, strict=True):
            image[place : place + 2] = 255
        arrays |= {f"x_{part}": images, f"y_{part}": places}
    np.savez(tmp_path / "lines.npz", **arrays)
    out = tmp_path / "autoencoder.png"
    losses = loaded("autoencoder").main(tmp_path / "lines.npz", epochs=40, numbers=6, out=out)
    assert losses[-1] < losses[0] / 2
    assert "accuracy" not in capsys.readouterr().err
    assert pytest.importorskip("PIL.Image").open(out).size == (120, 24)


def test_fine_tuning(tmp_path, capsys):
    random = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 400), ("test", 100)):
        labels = np.arange(count) % 10
        images = random.integers(0, 80, (count, 20, 20))
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 2] += 150  # a bright line, whose place is the class
        arrays |= {f"x_{part}": images.astype(np.uint8), f"y_{part}": labels}
    np.savez(tmp_path / "lines.npz", **arrays)
    found = loaded("fine_tuning").main(tmp_path / "lines.npz", per_class=10, seeds=1, epochs=2, base_epochs=1)
    assert {len(each) for each in found.values()} == {1}
    assert "| all layers |" in capsys.readouterr().out
