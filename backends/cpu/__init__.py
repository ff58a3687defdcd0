"""The CPU backend: NumPy, scipy.signal, and kernels compiled by Numba."""
