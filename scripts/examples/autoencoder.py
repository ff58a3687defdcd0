"""An autoencoder on MNIST: each picture is squeezed into a few numbers, and drawn again from these.

    python scripts/examples/autoencoder.py [DATA]

DATA is what cnn.data.load takes, with grey images whose sides are multiples of 4. autoencoder.png then shows
ten test images, and below each of them what is drawn from its numbers.
"""

import sys

import numpy as np
from PIL import Image

import cnn


def autoencoder(height, width, numbers):
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


def main(data="mnist", epochs=5, numbers=16, out="autoencoder.png"):
    """Train, and write the picture; -> the loss of each epoch on the test images."""
    train, test = (cnn.data.Dataset(part.images, targets=part.images) for part in cnn.data.load(data))
    net = autoencoder(*train.shape[1:], numbers)
    history = cnn.fit(
        net, train, validation=test, loss=cnn.MeanSquaredError(), optimizer=cnn.Adam(0.002),
        epochs=epochs, schedule=cnn.schedules.Cosine(),
    )  # fmt: skip
    some = test.images[:10, 0]
    drawn = np.rint(255 * net.predict(some)[:, 0]).astype(np.uint8)
    Image.fromarray(np.vstack([np.hstack(list(some)), np.hstack(list(drawn))])).save(out)
    return [epoch["validation_loss"] for epoch in history]


if __name__ == "__main__":
    main(*sys.argv[1:2])
