"""What a Whisper recogniser's files are called."""

from __future__ import annotations

CROSS = "cross.onnx"
ENCODER = "encoder.onnx"
STEP = "step.onnx"
TOKENIZER = "tokenizer.json"
