"""Random generators for all choices on the host, made from a seed, a stream and an epoch.

No generator depends on earlier draws, so a run can be resumed at any point.
"""

import numpy as np

from cnn.support.arguments import whole

WEIGHTS, SHUFFLE, SPLIT, CHECK, DRAWS, AUGMENT, AUGMENT_RUN, CALIBRATION = range(8)
"""The streams."""


def generator(seed: int, stream: int, epoch: int = 0) -> np.random.Generator:
    """The generator for one purpose in one epoch; ArgumentError if the seed is negative."""
    return np.random.default_rng([whole("seed", seed, least=0), stream, epoch])


def stream(seed: int, purpose: int, number: int) -> int:
    """A whole number of 32 bits that follows from the three, for numbers that a device draws itself."""
    return int(np.random.SeedSequence([seed, purpose, number]).generate_state(1)[0])
