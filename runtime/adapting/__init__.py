"""Adapting a bundle to one user's voice, on the device: from a few labelled clips to a bundle of its own."""

from __future__ import annotations

from edgeser.runtime.adapting.adapt import Adapted, Naming, adapt, check_adaptable, write_adapted
from edgeser.runtime.adapting.clips import Clips
from edgeser.runtime.adapting.evidence import Observations, Observed, Observer, clips_of

__all__ = [
    "Adapted",
    "Clips",
    "Naming",
    "Observations",
    "Observed",
    "Observer",
    "adapt",
    "check_adaptable",
    "clips_of",
    "write_adapted",
]
