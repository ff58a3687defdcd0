"""Convolutional networks, written once for NumPy on a CPU and CuPy on a CUDA GPU."""

from backends import needed  # noqa: F401 - first, since it says so if NumPy cannot be imported
from cnn import data, initializers, models, schedules
from cnn.callbacks import Callback, Checkpoint, CSVLog, LearningGuard, NaNGuard, Progress
from cnn.checkpoints import load
from cnn.errors import (
    ArgumentError,
    CheckpointError,
    DataError,
    DeviceLost,
    DeviceUnavailable,
    OutOfMemory,
    ShapeError,
    TrainingError,
)
from cnn.gradients import GradientCheck, check_gradients
from cnn.layers import (
    Activation,
    AvgPool2D,
    Conv2D,
    Dense,
    Flatten,
    Layer,
    MaxPool2D,
    Parameter,
    ReLU,
    Reshape,
    Softmax,
    Tanh,
)
from cnn.losses import BinaryCrossEntropy, CrossEntropy, Loss, MeanSquaredError
from cnn.network import Sequential
from cnn.optimizers import SGD, Adam, AdamW, Optimizer
from cnn.training import evaluate, fit
from cnn.transforms import ClipNorm, GradientTransform

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Activation",
    "Adam",
    "AdamW",
    "ArgumentError",
    "AvgPool2D",
    "BinaryCrossEntropy",
    "CSVLog",
    "Callback",
    "Checkpoint",
    "CheckpointError",
    "ClipNorm",
    "Conv2D",
    "CrossEntropy",
    "DataError",
    "Dense",
    "DeviceLost",
    "DeviceUnavailable",
    "Flatten",
    "GradientCheck",
    "GradientTransform",
    "Layer",
    "LearningGuard",
    "Loss",
    "MaxPool2D",
    "MeanSquaredError",
    "NaNGuard",
    "Optimizer",
    "OutOfMemory",
    "Parameter",
    "Progress",
    "ReLU",
    "Reshape",
    "Sequential",
    "ShapeError",
    "Softmax",
    "Tanh",
    "TrainingError",
    "check_gradients",
    "data",
    "evaluate",
    "fit",
    "initializers",
    "load",
    "models",
    "schedules",
]
