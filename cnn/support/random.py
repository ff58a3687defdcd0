"""Where every random choice on the host comes from: a seed, a stream, and an epoch.

Nothing depends on what was drawn before, so a run can be taken up again anywhere.
"""

import numpy as np

from cnn.support.arguments import whole

WEIGHTS, SHUFFLE, SPLIT, CHECK = range(4)
"""The streams."""


def generator(seed: int, stream: int, epoch: int = 0) -> np.random.Generator:
    """The generator for one purpose in one epoch; ArgumentError for a negative seed."""
    return np.random.default_rng([whole("seed", seed, least=0), stream, epoch])
