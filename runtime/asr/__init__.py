"""Speech recognisers behind one small interface."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from edgeser.runtime.asr.base import Asr, AsrSession, BufferedSession, NoAsr, RecognizedWord
from edgeser.runtime.asr.pocketsphinx import PocketSphinxAsr
from edgeser.runtime.errors import InputError, MissingDependencyError

log = logging.getLogger(__name__)

RECOGNISERS: Mapping[str, type[Asr]] = {asr.name: asr for asr in (PocketSphinxAsr, NoAsr)}

__all__ = [
    "RECOGNISERS",
    "Asr",
    "AsrSession",
    "BufferedSession",
    "NoAsr",
    "PocketSphinxAsr",
    "RecognizedWord",
    "open_asr",
]


def open_asr(name: str = "auto") -> Asr:
    """Open a recogniser by name; `auto` takes PocketSphinx where it is installed, else none.

    Raises:
        InputError: No such recogniser.
        MissingDependencyError: The named one is not installed.
    """
    if name == "auto":
        try:
            return PocketSphinxAsr()
        except MissingDependencyError as error:
            log.info("no words, the voice alone decides: %s", error)
            return NoAsr()
    if name not in RECOGNISERS:
        raise InputError(f"asr: got {name!r}, expected auto, {', '.join(RECOGNISERS)}")
    return RECOGNISERS[name]()
