"""Speech recognisers behind one small interface."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path

from edgeser.runtime.asr.base import Asr, AsrSession, BufferedSession, NoAsr, RecognizedWord, Transcript
from edgeser.runtime.asr.isolated import IsolatedAsr
from edgeser.runtime.asr.pocketsphinx import PocketSphinxAsr
from edgeser.runtime.asr.vosk import VoskAsr
from edgeser.runtime.errors import AsrError, InputError, MissingDependencyError

log = logging.getLogger(__name__)

RECOGNISERS: Mapping[str, type[Asr]] = {asr.name: asr for asr in (PocketSphinxAsr, NoAsr)}
"""Those that need nothing but their name; `vosk:MODEL` also needs a model."""

BUNDLED = "whisper"
"""The one that a bundle brings, see `Bundle.recogniser`; it runs in the bundle's engine, so it is not opened here."""

_VOSK = "vosk:"
_GRAMMAR = "?grammar="
_AUTO_MODEL = "en-us"  # the default bundle was trained on English words

__all__ = [
    "BUNDLED",
    "RECOGNISERS",
    "Asr",
    "AsrSession",
    "BufferedSession",
    "IsolatedAsr",
    "NoAsr",
    "PocketSphinxAsr",
    "RecognizedWord",
    "Transcript",
    "VoskAsr",
    "check_name",
    "open_asr",
]


def open_asr(name: str = "auto", *, isolate: bool = False) -> Asr:
    """Open a recogniser by name.

    Args:
        name: `pocketsphinx`, `none`, `vosk:MODEL` (a folder, or a language such as `vosk:ko`), or
            `vosk:MODEL?grammar=FILE` (a phrase a line); or `auto`: Vosk where it is installed and finds a US English
            model, else PocketSphinx where it is installed, else none.
        isolate: Run it in a process of its own, so that its crash or hang is an error and no more.

    Raises:
        InputError: No such recogniser, model or grammar.
        MissingDependencyError: The named one is not installed.
        AsrError: It does not start.
    """
    if check_name(name) == BUNDLED:
        raise InputError(f"asr: got {BUNDLED}, which a bundle brings: load a Runtime with a bundle that has it")
    if isolate and name != NoAsr.name:
        return IsolatedAsr(name)
    if name == "auto":
        return _best()
    if name.startswith(_VOSK):
        model, _, grammar = name[len(_VOSK) :].partition(_GRAMMAR)
        return VoskAsr(model, _phrases(Path(grammar)) if grammar else None)
    return RECOGNISERS[name]()


def check_name(name: str) -> str:
    """Return a recogniser's name when it could be one; nothing is opened.

    Raises:
        InputError: It is none.
    """
    if name in ("auto", BUNDLED) or name in RECOGNISERS or (name.startswith(_VOSK) and name != _VOSK):
        return name
    raise InputError(
        f"asr: got {name!r}, expected auto, {BUNDLED}, {', '.join(RECOGNISERS)} or vosk:MODEL, for example vosk:en-us"
    )


def _best() -> Asr:
    if importlib.util.find_spec("vosk"):
        try:
            return VoskAsr(_AUTO_MODEL)
        except InputError as error:
            log.debug("vosk is not used: %s", error)
        except (AsrError, MissingDependencyError) as error:
            log.warning("vosk is not used: %s", error)
    try:
        return PocketSphinxAsr()
    except MissingDependencyError as error:
        log.info("no words, the voice alone decides: %s", error)
        return NoAsr()


def _phrases(file: Path) -> list[str]:
    """Read a grammar: a phrase a line, empty lines aside."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"grammar: {file} is not readable as text ({error}): expected a phrase a line") from error
    return [line.strip() for line in lines if line.strip()]
