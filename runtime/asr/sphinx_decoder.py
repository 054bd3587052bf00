"""PocketSphinx's decoder, called so that other threads go on: its Python module keeps the interpreter's lock.

A second of speech takes it about as long, and through the module no Python thread runs meanwhile: no audio is captured
and no signal answered. So the C functions of the same library are called here (`pocketsphinx.h` of PocketSphinx 5).
"""

from __future__ import annotations

import ctypes
import json
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgeser.runtime.errors import AsrError, MissingDependencyError

_POINTER, _INT, _TEXT = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
_FUNCTIONS: dict[str, tuple[Any, ...]] = {  # what each returns, then its arguments
    "ps_config_parse_json": (_POINTER, _POINTER, _TEXT),
    "ps_config_free": (_INT, _POINTER),
    "ps_init": (_POINTER, _POINTER),
    "ps_free": (_INT, _POINTER),
    "ps_reinit_feat": (_INT, _POINTER, _POINTER),
    "ps_start_utt": (_INT, _POINTER),
    "ps_process_raw": (_INT, _POINTER, _TEXT, ctypes.c_size_t, _INT, _INT),
    "ps_end_utt": (_INT, _POINTER),
    "ps_get_logmath": (_POINTER, _POINTER),
    "logmath_exp": (ctypes.c_double, _POINTER, _INT),
    "ps_seg_iter": (_POINTER, _POINTER),
    "ps_seg_next": (_POINTER, _POINTER),
    "ps_seg_word": (_TEXT, _POINTER),
    "ps_seg_frames": (None, _POINTER, _POINTER, _POINTER),
    "ps_seg_prob": (_INT, _POINTER, _POINTER, _POINTER, _POINTER),
}


@dataclass(frozen=True)
class Segment:
    """A stretch of an utterance that the decoder names: a word, silence or noise.

    Attributes:
        word: Its name in the dictionary.
        start_frame: First frame.
        end_frame: Last frame.
        prob: Posterior probability; rounding takes it a little above 1.
    """

    word: str
    start_frame: int
    end_frame: int
    prob: float


class SphinxDecoder:
    """Decodes whole utterances with the US English model that ships with the package, one at a time.

    Args:
        rate: Sample rate in Hz.

    Raises:
        MissingDependencyError: pocketsphinx is not installed.
        AsrError: Its library or its model is not what it should be.
    """

    def __init__(self, rate: int) -> None:
        try:
            import pocketsphinx
            from pocketsphinx import _pocketsphinx
        except ImportError as error:
            raise MissingDependencyError("pocketsphinx", "asr", "recognising English words") from error
        self._library = _functions(_pocketsphinx.__file__)
        model = {
            "hmm": pocketsphinx.get_model_path("en-us/en-us"),
            "lm": pocketsphinx.get_model_path("en-us/en-us.lm.bin"),
            "dict": pocketsphinx.get_model_path("en-us/cmudict-en-us.dict"),
        }
        self._decoder = self._open({**model, "samprate": rate, "loglevel": "FATAL"})
        # Not at the interpreter's end: a call that was given up may still be in it.
        weakref.finalize(self, self._library.ps_free, self._decoder).atexit = False
        self._turn = threading.Lock()

    def decode(self, pcm: bytes) -> list[Segment]:
        """Return the segments of 16-bit mono samples.

        Raises:
            AsrError: The decoder failed.
        """
        with self._turn:
            # The front end carries state from one utterance to the next, and with it another answer.
            self._done("ps_reinit_feat", None)
            self._done("ps_start_utt")
            try:
                self._done("ps_process_raw", pcm, len(pcm) // 2, False, True)
            finally:
                self._done("ps_end_utt")
            return list(self._segments())

    def _open(self, config: dict[str, Any]) -> int:
        parsed = self._library.ps_config_parse_json(None, json.dumps(config).encode())
        decoder: int | None = self._library.ps_init(parsed)
        self._library.ps_config_free(parsed)  # the decoder keeps it
        if not decoder:
            raise AsrError(f"pocketsphinx: {config['hmm']} is no model that it opens: install pocketsphinx again")
        return decoder

    def _done(self, name: str, *arguments: Any) -> None:
        if getattr(self._library, name)(self._decoder, *arguments) < 0:
            raise AsrError(f"pocketsphinx: {name} failed")

    def _segments(self) -> Iterator[Segment]:
        library, first, last = self._library, _INT(), _INT()
        logmath = library.ps_get_logmath(self._decoder)
        segment = library.ps_seg_iter(self._decoder)
        while segment:
            library.ps_seg_frames(segment, ctypes.byref(first), ctypes.byref(last))
            prob = library.logmath_exp(logmath, library.ps_seg_prob(segment, None, None, None))
            yield Segment(library.ps_seg_word(segment).decode(), first.value, last.value, prob)
            segment = library.ps_seg_next(segment)


def _functions(file: str) -> ctypes.CDLL:
    library = ctypes.CDLL(file)
    try:
        for name, (result, *arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError as error:
        raise AsrError(f"pocketsphinx: {file} lacks {name}: install pocketsphinx 5 from PyPI") from error
    return library
