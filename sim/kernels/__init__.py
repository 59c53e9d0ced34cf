"""Fast exact kernels in Numba and BLAS."""
