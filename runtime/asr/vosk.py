"""Vosk: streaming recognition in some twenty languages, with a model that the user brings."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeser.runtime.asr.base import Asr, AsrSession, RecognizedWord, is_word, one_at_a_time, session_over
from edgeser.runtime.asr.vosk_models import check_model, find_model, takes_grammar, without_dither
from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.c_locale import c_numbers
from edgeser.runtime.caches import ensure_home
from edgeser.runtime.errors import AsrError, InputError, MissingDependencyError
from edgeser.runtime.interruptible import interruptibly
from edgeser.runtime.memory import check_room
from edgeser.runtime.owner import OwnerProcess

_BLOCK = SAMPLE_RATE // 10  # samples; how the audio is cut changes the answer, so it is always cut the same way
_RETIRE_SAMPLES = 300 * SAMPLE_RATE  # by then it holds 100 MB of graph that it composed (Korean), and it would grow
_LOG_ERRORS = -2  # Kaldi's level: warnings, as of a word that the grammar has and the model has not, are ours to give


class VoskAsr(Asr):
    """Recognises while the person speaks.

    A recogniser composes its graph as it goes and keeps what it has composed: it is used again for the next utterance,
    which is then decoded several times quicker, to the same words. One that heard five minutes is dropped.

    Args:
        model: A model's folder, or a language such as `ko` or `en-us`; see `vosk_models.find_model`.
        grammar: The only phrases to listen for, words apart by spaces; `None` for all the model knows. Write `[unk]`
            for everything else, where the model has that word.

    Raises:
        MissingDependencyError: vosk is not installed.
        InputError: There is no such model here, or the grammar does not fit it.
        AsrError: The model is damaged or for another sample rate.
    """

    name = "vosk"

    def __init__(self, model: str | Path, grammar: Sequence[str] | None = None) -> None:
        self._vosk = _library()
        self.folder = find_model(str(model))
        check_model(self.folder)
        check_room("vosk")
        self._vosk.SetLogLevel(_LOG_ERRORS)
        try:
            with without_dither(self.folder) as folder:
                self._model: Any = interruptibly(lambda: self._open(str(folder)))
        except Exception as error:  # vosk raises nothing narrower
            raise AsrError(f"asr: {self.folder} is no model that Vosk opens ({error}): unpack it again") from error
        self._grammar = None if grammar is None else self._checked(grammar)
        self._owner = OwnerProcess(self.name, AsrError)
        self._turn = threading.Lock()
        self._idle = [self._new()]

    def start(self) -> AsrSession:
        self._owner.check()
        with self._turn:
            if self._model is None:
                raise AsrError("vosk: closed, expected an open recogniser: open another")
            return _VoskSession(self, self._idle.pop() if self._idle else self._new())

    def close(self) -> None:
        if not self._owner.is_here:
            return
        with self._turn:
            self._model = None
            self._idle.clear()

    def give_back(self, recogniser: _Recogniser) -> None:
        """Take a recogniser whose utterance is over, for the next one."""
        with self._turn:
            if self._model is not None and recogniser.heard < _RETIRE_SAMPLES:
                self._idle.append(recogniser)

    @c_numbers()
    def _open(self, folder: str) -> Any:
        return self._vosk.Model(folder)  # seconds, and gigabytes, for a large one

    def _new(self) -> _Recogniser:
        try:
            extra = () if self._grammar is None else (self._grammar,)
            return _Recogniser(self._vosk.KaldiRecognizer(self._model, SAMPLE_RATE, *extra))
        except Exception as error:
            raise AsrError(f"asr: {self.folder} does not start ({error}): unpack the model again") from error

    def _checked(self, grammar: Sequence[str]) -> str:
        """Return a grammar as JSON; the library would leave out without a word what it does not know."""
        phrases = [" ".join(phrase.split()) for phrase in grammar]
        if not phrases or not all(phrases):
            raise InputError(f"grammar: got {list(grammar)}, expected at least one phrase, and none empty")
        if not takes_grammar(self.folder):
            raise InputError(f"grammar: {self.folder} has a fixed graph, expected a model with HCLr.fst (a small one)")
        words = dict.fromkeys(word for phrase in phrases for word in phrase.split())
        unknown = [word for word in words if self._model.vosk_model_find_word(word) < 0]
        if unknown:
            raise InputError(f"grammar: the model does not know {', '.join(unknown)}: use words that it knows")
        return json.dumps(phrases, ensure_ascii=False)


class _Recogniser:
    """A native recogniser, and how much it has heard: its times count from its first sample, over all utterances.

    It prints numbers in the locale of the process, in JSON too: hence `c_numbers`.
    """

    def __init__(self, native: Any) -> None:
        self._native = native
        self._native.SetWords(True)
        self._native.SetPartialWords(True)
        self.heard = 0

    @c_numbers()
    def accept(self, pcm: bytes) -> list[dict[str, Any]]:
        """Hear 16-bit samples; return the words of a stretch that the recogniser takes to be over, else none."""
        self.heard += len(pcm) // 2
        ended = self._native.AcceptWaveform(pcm)
        return _entries(self._native.Result(), "result") if ended else []

    @c_numbers()
    def partial(self) -> list[dict[str, Any]]:
        return _entries(self._native.PartialResult(), "partial_result")

    def finish(self) -> list[dict[str, Any]]:
        """Return the last words; the next utterance starts from nothing."""
        return interruptibly(self._finish)

    @c_numbers()
    def _finish(self) -> list[dict[str, Any]]:
        return _entries(self._native.FinalResult(), "result")  # a large model rescores, which may take seconds


class _VoskSession(AsrSession):
    def __init__(self, asr: VoskAsr, recogniser: _Recogniser) -> None:
        self._asr = asr
        self._turn = threading.Lock()  # Kaldi ends the process when two threads use one recogniser
        self._recogniser: _Recogniser | None = recogniser
        self._start = recogniser.heard
        self._noise = np.random.default_rng(0)
        self._waiting = np.zeros(0, np.float32)
        self._words: list[dict[str, Any]] = []

    @one_at_a_time
    def accept(self, samples: Samples) -> None:
        recogniser = self._open()
        waiting = np.concatenate([self._waiting, samples])
        whole = waiting.shape[0] - waiting.shape[0] % _BLOCK
        self._waiting = waiting[whole:]
        for start in range(0, whole, _BLOCK):
            self._feed(recogniser, waiting[start : start + _BLOCK])

    @one_at_a_time
    def partial(self) -> tuple[RecognizedWord, ...]:
        recogniser = self._open()
        return self._placed([*self._words, *recogniser.partial()], recogniser)

    @one_at_a_time
    def finish(self) -> tuple[RecognizedWord, ...]:
        recogniser = self._open()
        if self._waiting.size:
            self._feed(recogniser, self._waiting)
        self._words += self._guarded(recogniser.finish)
        words = self._placed(self._words, recogniser)
        self._recogniser = None
        self._asr.give_back(recogniser)
        return words

    @one_at_a_time
    def cancel(self) -> None:
        recogniser, self._recogniser = self._recogniser, None
        if recogniser is not None:
            recogniser.finish()
            self._asr.give_back(recogniser)

    def _feed(self, recogniser: _Recogniser, block: Samples) -> None:
        """Hear a block, with noise of one step of 16 bits as Kaldi would add it, but the same for the same samples."""
        steps = block * 32767.0 + self._noise.standard_normal(block.shape[0], np.float32)
        pcm = np.clip(np.rint(steps), -32768, 32767).astype(np.int16).tobytes()
        self._words += self._guarded(lambda: recogniser.accept(pcm))

    def _guarded(self, call: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        try:
            return call()
        except BaseException as error:
            self._recogniser = None  # after an interrupt a call may still be in it
            if not isinstance(error, Exception):
                raise
            raise AsrError(f"vosk: failed on an utterance: {error}") from error  # vosk raises nothing narrower

    def _placed(self, entries: Sequence[dict[str, Any]], recogniser: _Recogniser) -> tuple[RecognizedWord, ...]:
        """Move words to the session's own time, inside its audio; frames are 10 ms."""
        origin_s = self._start / SAMPLE_RATE
        length_s = (recogniser.heard - self._start) / SAMPLE_RATE

        def place(time_s: float) -> float:
            return min(max(0.0, round(time_s - origin_s, 2)), length_s)

        return tuple(
            RecognizedWord(entry["word"], place(entry["start"]), place(entry["end"]), min(1.0, entry["conf"]))
            for entry in entries
            if is_word(entry["word"])
        )

    def _open(self) -> _Recogniser:
        if self._recogniser is None:
            raise session_over()
        return self._recogniser


def _library() -> Any:
    ensure_home()  # it asks for one when it is imported
    try:
        import vosk
    except ImportError as error:
        raise MissingDependencyError("vosk", "asr", "recognising words while they are spoken") from error
    except OSError as error:
        what = "install libatomic1 (apt)" if "libatomic" in str(error) else "install vosk again"
        raise AsrError(f"vosk: its native library does not load ({error}): {what}") from error
    return vosk


def _entries(answer: str, key: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(answer).get(key, [])
    return entries
