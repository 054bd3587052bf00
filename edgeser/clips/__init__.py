"""Four acted sentences that ship with the package; the README beside this file has their source and licence."""

from __future__ import annotations

from pathlib import Path

CLIPS = Path(__file__).parent
"""The clips' folder: FLAC, 16 kHz mono, 3 to 4 s each, under their names in RAVDESS."""


def example_clips() -> list[Path]:
    """Return the clips, sorted by name."""
    return sorted(CLIPS.glob("*.flac"))
