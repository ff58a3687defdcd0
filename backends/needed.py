"""Imports what no backend works without."""

from backends.libraries import require_to_start

require_to_start("numpy.linalg")
