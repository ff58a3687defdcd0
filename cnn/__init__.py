"""Convolutional networks, written once for NumPy on a CPU and CuPy on a CUDA GPU."""

from backends import needed  # noqa: F401 - first, since it says so if NumPy cannot be imported
from cnn import data, models
from cnn.data.preprocessing import Preprocessing
from cnn.inspection.gradient_check import GradientCheck, check_gradients
from cnn.inspection.layer_checks import LayerCheck, check_layer
from cnn.layers import (
    Activation,
    AdaptiveAvgPool2D,
    AvgPool2D,
    BatchNorm1D,
    BatchNorm2D,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    Layer,
    MaxPool2D,
    Parallel,
    Parameter,
    ReLU,
    Reshape,
    Residual,
    Softmax,
    Tanh,
    initializers,
)
from cnn.network import Network as Sequential
from cnn.saving.weights import load
from cnn.support import errors
from cnn.support.errors import (
    ArgumentError,
    CheckpointError,
    DataError,
    DeviceLost,
    DeviceUnavailable,
    OutOfMemory,
    ShapeError,
    TrainingError,
)
from cnn.support.version import VERSION
from cnn.training import callbacks, losses, metrics, optimizers, schedules
from cnn.training.callbacks import Callback, Checkpoint, CSVLog, LearningGuard, NaNGuard, Progress
from cnn.training.evaluation import evaluate
from cnn.training.fit import fit
from cnn.training.gradients import ClipNorm, ClipValue, GradientTransform
from cnn.training.losses import BinaryCrossEntropy, CrossEntropy, Loss, MeanSquaredError
from cnn.training.optimizers import SGD, Adam, AdamW, Optimizer

__version__ = VERSION

__all__ = [
    "SGD",
    "Activation",
    "Adam",
    "AdamW",
    "AdaptiveAvgPool2D",
    "ArgumentError",
    "AvgPool2D",
    "BatchNorm1D",
    "BatchNorm2D",
    "BinaryCrossEntropy",
    "CSVLog",
    "Callback",
    "Checkpoint",
    "CheckpointError",
    "ClipNorm",
    "ClipValue",
    "Conv2D",
    "CrossEntropy",
    "DataError",
    "Dense",
    "DeviceLost",
    "DeviceUnavailable",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2D",
    "GlobalMaxPool2D",
    "GradientCheck",
    "GradientTransform",
    "Layer",
    "LayerCheck",
    "LearningGuard",
    "Loss",
    "MaxPool2D",
    "MeanSquaredError",
    "NaNGuard",
    "Optimizer",
    "OutOfMemory",
    "Parallel",
    "Parameter",
    "Preprocessing",
    "Progress",
    "ReLU",
    "Reshape",
    "Residual",
    "Sequential",
    "ShapeError",
    "Softmax",
    "Tanh",
    "TrainingError",
    "callbacks",
    "check_gradients",
    "check_layer",
    "data",
    "errors",
    "evaluate",
    "fit",
    "initializers",
    "load",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "schedules",
]
