"""The compiled CPU kernels: loops that Numba makes machine code of, around tiles held in registers."""
