"""Whether a device computes the right numbers: gradient checks, and every kernel next to a reference."""

from cnn.selftest.checks import Check, Failure, Section
from cnn.selftest.scorecard import left_out, run

__all__ = ["Check", "Failure", "Section", "left_out", "run"]
