"""The defaults of training runs, measured in docs/measurements/defaults.md.

The default is SGD with momentum and a clipped gradient, at a learning rate that depends on the batch size.
On small batches and on photographs, a few large or noisy gradients could otherwise push ReLUs to a state in
which they output 0 for every image and never recover.

The number of epochs and the batch size follow from the number of training images: a few hundred images need
many small steps. Picture files have a default network of their own, and their
brightness and contrast are augmented.
"""

from math import ceil, floor, log2, sqrt

from cnn.support.arguments import whole

MOMENTUM, CLIP = 0.9, 1.0
MODEL, PICTURES_MODEL = "lenet5", "photo-small"
PICTURES_AUGMENT = ("brightness=0.3", "contrast=0.3")  # no class depends on them, as it may on being mirrored
SCHEDULE, WARMUP = "linear", 100  # steps
RATE, ITS_BATCH, HIGHEST_RATE = 0.05, 128, 0.1
EPOCHS, MOST_EPOCHS, SEEN = 3, 40, 30_000  # SEEN: images in all epochs together
BATCH_SIZE, LEAST_BATCH_SIZE, MANY = 128, 8, 8192  # MANY: images from which on batches have their full size


def epochs(images: int) -> int:
    """The number of epochs in which a run sees SEEN images, at least EPOCHS and at most MOST_EPOCHS."""
    return min(max(EPOCHS, ceil(SEEN / images)), MOST_EPOCHS)


def batch_size(images: int) -> int:
    """The batch size: the power of two nearest to the square root of the number of training images."""
    return min(max(LEAST_BATCH_SIZE, 1 << floor(log2(images) / 2 + 0.5)), BATCH_SIZE)


def learning_rate(batch_size: int, images: int) -> float:
    """SGD's learning rate, which grows with the square root of the batch size up to a limit."""
    return min(RATE * sqrt(min(whole("batch_size", batch_size), images) / ITS_BATCH), HIGHEST_RATE)
