"""One integer program as golden model, RTL and HLS kernels, equal bit for bit."""
