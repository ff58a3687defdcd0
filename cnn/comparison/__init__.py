"""Compares devices, kernel sets and thread counts: checks that their results agree, then times them.

``compare`` measures on this machine; ``save``, ``load`` and ``merge`` combine the results of machines.
"""

from cnn.comparison.measure import compare
from cnn.comparison.results import Agreement, Column, Comparison, Work, crossover
from cnn.comparison.saved import load, merge, save
from cnn.comparison.setups import Setup, setups

__all__ = [
    "Agreement",
    "Column",
    "Comparison",
    "Setup",
    "Work",
    "compare",
    "crossover",
    "load",
    "merge",
    "save",
    "setups",
]
