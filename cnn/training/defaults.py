"""What a training run takes for what is not given, measured in docs/measurements/defaults.md.

It is SGD with momentum, with its gradient clipped, at a learning rate that follows the batch size. On small
batches and on photographs a few long or noisy gradients would otherwise drive ReLUs to where they give 0 for
every image and never recover.
"""

from math import sqrt

from cnn.support.arguments import whole

MOMENTUM, CLIP = 0.9, 1.0
SCHEDULE, WARMUP = "linear", 100  # steps
RATE, ITS_BATCH, HIGHEST_RATE = 0.05, 128, 0.1


def learning_rate(batch_size: int, images: int) -> float:
    """SGD's learning rate: it grows with the square root of the batch size, up to a limit."""
    return min(RATE * sqrt(min(whole("batch_size", batch_size), images) / ITS_BATCH), HIGHEST_RATE)
