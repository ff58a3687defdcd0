"""The examples run, here on a little data of the tests' own."""

import os
import re
import subprocess
import sys

import numpy as np
from helpers import ROOT
from PIL import Image


def run(name, *arguments, cwd):
    command = [sys.executable, str(ROOT / "scripts" / "examples" / name), *map(str, arguments)]
    environment = os.environ | {"CNN_DEVICE": "cpu", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_the_autoencoder_learns_to_draw(tmp_path):
    random = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 600), ("test", 20)):  # bars: a row or a column of two pixels
        images, places = np.zeros((count, 12, 12), np.uint8), random.integers(0, 10, count)
        for image, place in zip(images, places, strict=True):
            image[place : place + 2] = 255
        arrays |= {f"x_{part}": images, f"y_{part}": places}
    np.savez(tmp_path / "bars.npz", **arrays)
    done = run("autoencoder.py", "--data", "bars.npz", "--epochs", 40, "--numbers", 6, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    losses = [float(loss) for loss in re.findall(r"epoch \d+/40  loss ([0-9.]+)", done.stderr)]
    assert len(losses) == 40
    assert losses[-1] < losses[0] / 2
    assert "accuracy" not in done.stderr
    assert Image.open(tmp_path / "autoencoder.png").size == (120, 24)
