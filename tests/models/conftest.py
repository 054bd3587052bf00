"""Models that read log-mels, and something for them to read."""

from __future__ import annotations

import pytest
import torch

from edgeser.models import InputSpec, build_model


@pytest.fixture(scope="session")
def build_filter_bank():
    """Build `(family, preset="compact", inputs=(750, 40), classes=4, **changes)` with the same weights every time."""

    def build(family, preset="compact", inputs=(750, 40), classes=4, **changes):
        torch.manual_seed(0)
        return build_model(family, preset, {"audio": InputSpec(*inputs, "log-mel")}, classes, **changes).eval()

    return build


@pytest.fixture(scope="session")
def batch():
    """Make inputs of these lengths for a model, 0 in padding: `(model, lengths)`."""

    def make(model, lengths=(750, 33, 1, 0)):
        torch.manual_seed(3)
        spec = model.inputs["audio"]
        rows = torch.randn(len(lengths), spec.length, spec.dim)
        for row, length in zip(rows, lengths, strict=True):
            row[length:] = 0.0
        return {"audio": rows, "audio_length": torch.tensor(lengths, dtype=torch.int32)}

    return make
