"""PocketSphinx: small, offline, with its English model in its wheel."""

from __future__ import annotations

import threading

import numpy as np

from edgeser.runtime.asr.base import Asr, AsrSession, BufferedSession, RecognizedWord, is_word
from edgeser.runtime.asr.sphinx_decoder import SphinxDecoder
from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import AsrError
from edgeser.runtime.interruptible import interruptibly
from edgeser.runtime.memory import check_room
from edgeser.runtime.owner import OwnerProcess

_FRAMES_PER_SECOND = 100
_MIN_SAMPLES = SAMPLE_RATE // 5  # no word is shorter than 0.2 s, and the decoder fails on less than a few frames
# Full scale 1.0. The decoder hears "dog" in digital zeros and "with" in noise of half a step of 16 bits, at confidence
# 1.0. In speech that peaks at 20 steps it recognises no word; at 50 steps it begins to.
_SILENCE_PEAK = 10 / 32768


class PocketSphinxAsr(Asr):
    """US English, continuous speech, the model that ships with the package. Decodes when an utterance is over.

    Other threads go on while it decodes, and in the main thread a signal is answered at once: the utterance that was
    given up is still decoded to its end, by a decoder that is then dropped.

    Raises:
        MissingDependencyError: pocketsphinx is not installed.
        AsrError: Its library or its model is not what it should be; or there is too little memory for it.
    """

    name = "pocketsphinx"

    def __init__(self) -> None:
        check_room(self.name)  # without memory it ends the process, with status 255
        self._decoder: SphinxDecoder | None = SphinxDecoder(SAMPLE_RATE)  # one for all sessions: it takes 100 MB
        self._owner = OwnerProcess(self.name, AsrError)
        self._turn = threading.Lock()

    def start(self) -> AsrSession:
        self._owner.check()
        return BufferedSession(self._decode)

    def _decode(self, samples: Samples) -> tuple[RecognizedWord, ...]:
        if samples.shape[0] < _MIN_SAMPLES or float(np.abs(samples).max()) < _SILENCE_PEAK:
            return ()
        check_room(self.name, decoding=True)
        pcm = (np.clip(samples, -1.0, 1.0) * 32767.0).astype(np.int16).tobytes()
        decoder = self._open()
        try:
            segments = interruptibly(lambda: decoder.decode(pcm), self._drop)
        except AsrError as error:
            raise AsrError(
                f"pocketsphinx: failed on {samples.shape[0] / SAMPLE_RATE:.1f} s of audio: {error}"
            ) from error
        return tuple(
            RecognizedWord(
                _spelling(segment.word),
                segment.start_frame / _FRAMES_PER_SECOND,
                (segment.end_frame + 1) / _FRAMES_PER_SECOND,
                min(1.0, segment.prob),
            )
            for segment in segments
            if is_word(segment.word)
        )

    def _open(self) -> SphinxDecoder:
        with self._turn:
            if self._decoder is None:
                self._decoder = SphinxDecoder(SAMPLE_RATE)
            return self._decoder

    def _drop(self) -> None:
        self._decoder = None


def _spelling(word: str) -> str:
    """Cut the mark of a second pronunciation: `the(2)` -> `the`."""
    return word.partition("(")[0]
