"""Calls of kernels by name: (the kernel, its arguments), where arrays may be written to."""

from helpers.kernel_calls import (
    activations,
    arithmetic,
    augmentation,
    batches,
    losses,
    normalization,
    pooling,
    updates,
)

CALLS = {
    **activations.CALLS,
    **arithmetic.CALLS,
    **augmentation.CALLS,
    **batches.CALLS,
    **losses.CALLS,
    **normalization.CALLS,
    **pooling.CALLS,
    **updates.CALLS,
}
