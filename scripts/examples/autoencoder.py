"""An autoencoder on MNIST: each picture is squeezed into a few numbers, and drawn again from these.

    python scripts/examples/autoencoder.py --epochs 5

The last picture shows test images above what the network makes of them.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from PIL import Image

import cnn


def autoencoder(height: int, width: int, numbers: int) -> cnn.Sequential:
    """Two convolutions that halve the picture, ``numbers`` in the middle, and the way back."""
    small = (16, height // 4, width // 4)
    return cnn.Sequential(
        cnn.Conv2D(8, 3, stride=2, padding=1), cnn.ReLU(),
        cnn.Conv2D(16, 3, stride=2, padding=1), cnn.ReLU(),
        cnn.Flatten(), cnn.Dense(numbers),
        cnn.Dense(int(np.prod(small))), cnn.ReLU(), cnn.Reshape(small),
        cnn.ConvTranspose2D(8, 4, stride=2, padding=1), cnn.ReLU(),
        cnn.ConvTranspose2D(1, 4, stride=2, padding=1), cnn.Sigmoid(),
    )  # fmt: skip


def main() -> None:
    """Train, and write a picture of the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist", help="grey images with sides that are multiples of 4")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--numbers", type=int, default=16, help="how many a picture is squeezed into")
    parser.add_argument("--out", default="autoencoder.png", help="the picture")
    options = parser.parse_args()

    train, test = (cnn.data.Dataset(part.images, targets=part.images) for part in cnn.data.load(options.data))
    net = autoencoder(*train.shape[1:], options.numbers)
    cnn.fit(
        net, train, validation=test, loss=cnn.MeanSquaredError(), optimizer=cnn.Adam(0.002),
        epochs=options.epochs, schedule=cnn.schedules.Cosine(),
    )  # fmt: skip

    some = test.images[:10, 0]
    drawn = np.rint(255 * net.predict(some)[:, 0]).astype(np.uint8)
    Image.fromarray(np.vstack([np.hstack(list(some)), np.hstack(list(drawn))])).save(options.out)
    print(f"{options.out} shows ten test images, and below them what is drawn from {options.numbers} numbers")


if __name__ == "__main__":
    main()
