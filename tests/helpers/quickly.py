"""For tests that compile kernels into a cache of their own."""

QUICKLY = {"NUMBA_OPT": "0"}  # environment: LLVM leaves the code as it is, in half of the time
