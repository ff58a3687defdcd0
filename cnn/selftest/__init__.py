"""Whether a device computes what it should: public conformance cases, gradients, a reference beside it."""

from cnn.selftest.checks import Check, Failure, NotOurs, Section
from cnn.selftest.scorecard import run

__all__ = ["Check", "Failure", "NotOurs", "Section", "run"]
