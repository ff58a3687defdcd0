"""The CPU kernels compiled by Numba: loops around tiles that are kept in registers."""
