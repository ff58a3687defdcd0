"""NVIDIA GPUs: CuPy, cupyx.scipy.signal, and kernels in CUDA C++. CuPy is imported when it is used."""
