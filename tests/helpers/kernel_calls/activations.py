"""Activations and their gradients."""

import numpy as np

from backends.kernels.functions import Function
from cnn.selftest.calls import EACH_FUNCTION
from helpers.kernel_calls.drawn import F, N, numbers

CALLS = {
    "add_bias": lambda: ("add_bias", numbers(F, 5, N), numbers(F)),
    "add_bias and ReLU": lambda: ("add_bias", numbers(F, 5, N), numbers(F), True),
    "finish": lambda: ("finish", numbers(F, 5, N), numbers(F), numbers(F), Function("gelu")),
    "finish without scale": lambda: ("finish", numbers(F, 5, N), None, numbers(F, 5), Function("silu")),
    "finish without bias": lambda: ("finish", numbers(F, 5, N), numbers(F), None, None),
    "relu": lambda: ("relu", numbers(F, N), numbers(F, N)),
    "relu_grad": lambda: ("relu_grad", numbers(F, 3, 3, N), numbers(F, 3, 3, N), numbers(F, 3, 3, N)),
    "relu_grad with sums": lambda: ("relu_grad", *(numbers(F, 300) for _ in range(3)), np.zeros(F)),
    "relu in place": lambda: ("relu", *[numbers(F, N)] * 2),
    "tanh": lambda: ("tanh", numbers(F, N), numbers(F, N)),
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
    "add_activate": lambda: (
        "add_activate", numbers(F, N), numbers(F, N), Function("silu"), numbers(F, N),
    ),
    "add_activate without a function": lambda: (
        "add_activate", numbers(F, N), numbers(F, N), None, numbers(F, N),
    ),
    "prelu": lambda: ("prelu", numbers(F, 3, N), numbers(F), numbers(F, 3, N)),
    "prelu with one weight": lambda: ("prelu", numbers(F, 3, N), numbers(1), numbers(F, 3, N)),
    "prelu_grad": lambda: (
        "prelu_grad", numbers(F, 3, N), numbers(F, 3, N), numbers(F), numbers(F), numbers(F, 3, N),
    ),
    "prelu_grad of long rows, the weight's alone": lambda: (
        "prelu_grad", numbers(2, 70, N), numbers(2, 70, N), numbers(1), numbers(1), None,
    ),
    "log_softmax": lambda: ("log_softmax", 100 * numbers(F, 3, N), numbers(F, 3, N)),
    "log_softmax_grad": lambda: ("log_softmax_grad", numbers(F, N), numbers(F, N), numbers(F, N)),
    "softmax": lambda: ("softmax", 100 * numbers(F, 3, N), numbers(F, 3, N)),
    "softmax_grad": lambda: ("softmax_grad", numbers(F, N), numbers(F, N), numbers(F, N)),
}  # fmt: skip
