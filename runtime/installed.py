"""Which libraries are there, without importing any."""

from __future__ import annotations

import importlib.util


def is_installed(module: str) -> bool:
    """Whether a module can be imported, as far as can be told without doing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # something else of that name that was imported by hand
        return False
