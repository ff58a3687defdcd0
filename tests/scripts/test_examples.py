"""The examples in scripts/examples run, and their networks learn."""

import importlib.util
from pathlib import Path

import numpy as np

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
