"""From PyTorch to a bundle: lowering to ONNX, parity, packing."""
