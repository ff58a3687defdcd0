"""The optimizers by the names that the command line and configurations have for them."""

from collections.abc import Mapping

from cnn.training.adaptive import LAMB, Adagrad, Lion, NAdam, RMSprop
from cnn.training.muon import Muon
from cnn.training.optimizers import SGD, Adam, AdamW, Optimizer

OPTIMIZERS: Mapping[str, type[Optimizer]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
    "adagrad": Adagrad,
    "nadam": NAdam,
    "lion": Lion,
    "lamb": LAMB,
    "muon": Muon,
}
