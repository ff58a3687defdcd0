"""Devices, kernel sets and thread counts beside each other: the same steps, proved equal, then timed.

``compare`` measures on this machine; ``save``, ``load`` and ``beside`` bring machines together.
"""

from cnn.comparison.files import beside, load, save
from cnn.comparison.measure import compare
from cnn.comparison.results import Agreement, Column, Comparison, Work, crossover
from cnn.comparison.setups import Setup, setups

__all__ = [
    "Agreement",
    "Column",
    "Comparison",
    "Setup",
    "Work",
    "beside",
    "compare",
    "crossover",
    "load",
    "save",
    "setups",
]
