"""Kernels in CUDA C++; unsupported inputs fall back to the portable kernels.

Each concept has a source (``.cu``), which follows the headers (``.cuh``), and a module of the same name,
which decides which kernel is launched with which sizes.
"""

from backends.cuda.kernels.activations import CompiledActivationKernels
from backends.cuda.kernels.arithmetic import CompiledArithmeticKernels
from backends.cuda.kernels.augmentation import CompiledAugmentationKernels
from backends.cuda.kernels.batches import CompiledBatchKernels
from backends.cuda.kernels.convolution import CompiledConvolutionKernels
from backends.cuda.kernels.losses import CompiledLossKernels
from backends.cuda.kernels.normalization import CompiledNormalizationKernels
from backends.cuda.kernels.pooling import CompiledPoolingKernels
from backends.cuda.kernels.updates import CompiledUpdateKernels


class CompiledKernels(
    CompiledArithmeticKernels,
    CompiledBatchKernels,
    CompiledAugmentationKernels,
    CompiledActivationKernels,
    CompiledNormalizationKernels,
    CompiledLossKernels,
    CompiledUpdateKernels,
    CompiledPoolingKernels,
    CompiledConvolutionKernels,
    records_launches=True,
):
    """Few kernels per step, each in a single pass; products by cuBLAS."""

    name = "compiled"
    takes_halves = True
