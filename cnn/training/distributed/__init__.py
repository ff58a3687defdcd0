"""Training in several processes, on one machine or on several: ``cnn.distributed``."""

from cnn.training.distributed.communicator import Communicator
from cnn.training.distributed.start import communicator

__all__ = ["Communicator", "communicator"]
