"""A small experiment on real recordings: words alone, so that a fold takes a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

TABLE = """
title = "Attention to words"
source = "Chen et al., figure 6"
corpus = "manifest:corpus.csv"
columns = ["WA", "UA", "parameters"]
published_on = "IEMOCAP"

[options]
modalities = ["text"]

[recipe]
epochs = 1
batch_size = 4

[[rows]]
name = "key-sparse"
published = { WA = 0.743, UA = [75.3, 0.2] }

[[rows]]
name = "dense | plain"
variant = "dense attention"

[[references]]
name = "STSER (2020)"
published = { WA = 0.711, UA = 0.721 }
"""


@pytest.fixture
def toml(tmp_path: Path) -> Callable[..., Path]:
    """Write the small experiment with parts of it replaced: `(old, new, ...)`."""

    def write(*changes: str) -> Path:
        text = TABLE
        for old, new in zip(changes[::2], changes[1::2], strict=True):
            assert old in text, old
            text = text.replace(old, new)
        file = tmp_path / "table.toml"
        file.write_text(text, encoding="utf-8")
        return file

    return write
