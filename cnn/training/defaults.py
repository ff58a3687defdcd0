"""The defaults of training runs, measured in docs/measurements/defaults.md.

The default is SGD with momentum and a clipped gradient, at a learning rate that depends on the batch size.
On small batches and on photographs, a few large or noisy gradients could otherwise push ReLUs to a state in
which they output 0 for every image and never recover.
"""

from math import sqrt

from cnn.support.arguments import whole

MOMENTUM, CLIP = 0.9, 1.0
SCHEDULE, WARMUP = "linear", 100  # steps
RATE, ITS_BATCH, HIGHEST_RATE = 0.05, 128, 0.1


def learning_rate(batch_size: int, images: int) -> float:
    """SGD's learning rate, which grows with the square root of the batch size up to a limit."""
    return min(RATE * sqrt(min(whole("batch_size", batch_size), images) / ITS_BATCH), HIGHEST_RATE)
