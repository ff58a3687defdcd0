"""The layers: one file a concept."""

from cnn.layers.activation import (
    ELU,
    GELU,
    SELU,
    Activation,
    HardSigmoid,
    HardSwish,
    LeakyReLU,
    LogSoftmax,
    PReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from cnn.layers.channels import PadChannels, Rescale
from cnn.layers.convolution import Conv2D
from cnn.layers.dense import Dense
from cnn.layers.dropout import Dropout, Dropout2D
from cnn.layers.layer import Context, Layer, Parameter
from cnn.layers.normalization import BatchNorm1D, BatchNorm2D, GroupNorm, LayerNorm
from cnn.layers.padding import ReflectionPad2D, ReplicationPad2D, ZeroPad2D
from cnn.layers.pooling import AdaptiveAvgPool2D, AvgPool2D, GlobalAvgPool2D, GlobalMaxPool2D, MaxPool2D
from cnn.layers.residual import Parallel, Residual
from cnn.layers.sequential import Sequential
from cnn.layers.shape import Flatten, Reshape
from cnn.layers.transposed import ConvTranspose2D
from cnn.layers.upsampling import Upsample2D

__all__ = [
    "ELU",
    "GELU",
    "SELU",
    "Activation",
    "AdaptiveAvgPool2D",
    "AvgPool2D",
    "BatchNorm1D",
    "BatchNorm2D",
    "Context",
    "Conv2D",
    "ConvTranspose2D",
    "Dense",
    "Dropout",
    "Dropout2D",
    "Flatten",
    "GlobalAvgPool2D",
    "GlobalMaxPool2D",
    "GroupNorm",
    "HardSigmoid",
    "HardSwish",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "LogSoftmax",
    "MaxPool2D",
    "PReLU",
    "PadChannels",
    "Parallel",
    "Parameter",
    "ReLU",
    "ReflectionPad2D",
    "ReplicationPad2D",
    "Rescale",
    "Reshape",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "Upsample2D",
    "ZeroPad2D",
]
