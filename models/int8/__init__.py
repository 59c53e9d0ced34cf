"""Networks in INT8: quantisation after training."""
