"""What a training run takes for what is not given, measured in docs/measurements/defaults.md.

It is SGD with momentum, at a learning rate that follows the batch size (Goyal et al. 2017): the gradient of
a small batch is noisy, and at the rate of a large batch it drives ReLUs to where they give 0 for every image
and never recover.
"""

from cnn.arguments import whole

MOMENTUM = 0.9
SCHEDULE, WARMUP = "linear", 100  # steps
LOWEST_RATE, HIGHEST_RATE, ITS_BATCH = 0.001, 0.1, 256


def learning_rate(batch_size: int, images: int) -> float:
    """SGD's learning rate for so many images: in proportion to the batch size, between the two limits."""
    rate = HIGHEST_RATE * min(whole("batch_size", batch_size), images) / ITS_BATCH
    return min(max(rate, LOWEST_RATE), HIGHEST_RATE)
