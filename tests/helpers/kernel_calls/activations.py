"""Activations and their gradients."""

import numpy as np

from cnn.selftest.calls import EACH_FUNCTION
from helpers.kernel_calls.drawn import F, N, numbers

CALLS = {
    "add_bias": lambda: ("add_bias", numbers(F, 5, N), numbers(F)),
    "add_bias and ReLU": lambda: ("add_bias", numbers(F, 5, N), numbers(F), True),
    "relu": lambda: ("relu", numbers(F, N), numbers(F, N)),
    "relu_grad": lambda: ("relu_grad", numbers(F, 3, 3, N), numbers(F, 3, 3, N), numbers(F, 3, 3, N)),
    "relu_grad with sums": lambda: ("relu_grad", *(numbers(F, 300) for _ in range(3)), np.zeros(F)),
    "tanh_grad": lambda: ("tanh_grad", numbers(F, N), numbers(F, N), numbers(F, N)),
    **{
        f"activate, {function.name}": lambda function=function: (
            "activate", 3 * numbers(F, N), function, numbers(F, N),
        )
        for function in EACH_FUNCTION
    },
    **{
        f"activate_grad, {function.name}": lambda function=function: (
            "activate_grad", numbers(F, N), 3 * numbers(F, N), function, numbers(F, N),
        )
        for function in EACH_FUNCTION
    },
    "log_softmax": lambda: ("log_softmax", 100 * numbers(F, 3, N), numbers(F, 3, N)),
    "log_softmax_grad": lambda: ("log_softmax_grad", numbers(F, N), numbers(F, N), numbers(F, N)),
    "softmax": lambda: ("softmax", 100 * numbers(F, 3, N), numbers(F, 3, N)),
    "softmax_grad": lambda: ("softmax_grad", numbers(F, N), numbers(F, N), numbers(F, N)),
}  # fmt: skip
