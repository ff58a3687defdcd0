"""The processor: NumPy, scipy.signal, and kernels compiled by Numba."""
