"""A residual network on small colour pictures, with augmentation and today's schedule, on one screen.

    python scripts/examples/resnet_on_pictures.py cifar10

The argument is any data set that ``cnn train --data`` takes.
"""

import sys

import cnn


def convolution(channels, stride=1):
    """A 3x3 convolution with normalization."""
    return cnn.Conv2D(channels, 3, stride=stride, padding=1, bias=False), cnn.BatchNorm2D()


def block(channels, stride=1):
    """Two convolutions, and around them a 1x1 convolution, or nothing if the shape stays."""
    shortcut = None
    if stride > 1:
        shortcut = cnn.Sequential(cnn.Conv2D(channels, 1, stride=stride, bias=False), cnn.BatchNorm2D())
    layers = *convolution(channels, stride), cnn.ReLU(), *convolution(channels)
    return cnn.Residual(*layers, shortcut=shortcut), cnn.ReLU()


def main(data, epochs=10):
    """Train on ``data``; -> the accuracy on its test images."""
    train, test = cnn.data.load(data)
    net = cnn.Sequential(
        *convolution(16), cnn.ReLU(), *block(16), *block(32, stride=2), *block(64, stride=2),
        cnn.GlobalAvgPool2D(), cnn.Dropout(0.1), cnn.Dense(len(train.classes)),
    )  # fmt: skip
    weight_decay = {"weight_decay": 5e-4, "groups": [cnn.Group("*.bias", weight_decay=0)]}
    cnn.fit(
        net, train, validation=test, epochs=epochs, batch_size=128, normalize=True,
        optimizer=cnn.SGD(0.1, momentum=0.9, nesterov=True, **weight_decay),
        schedule=cnn.schedules.OneCycle(), loss=cnn.CrossEntropy(label_smoothing=0.1),
        augment=[cnn.augment.Crop(padding=4), cnn.augment.Flip()],
    )  # fmt: skip
    return cnn.evaluate(net, test)["accuracy"]


if __name__ == "__main__":
    print(f"test accuracy {main(sys.argv[1] if len(sys.argv) > 1 else 'cifar10'):.2%}")
