"""TensorRT and TensorRT-RTX engines from bundles, built where they are to run; none of it needs PyTorch."""
