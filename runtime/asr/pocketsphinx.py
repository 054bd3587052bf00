"""PocketSphinx: small, offline, with its English model in its wheel."""

from __future__ import annotations

import threading

import numpy as np

from edgeser.runtime.asr.base import Asr, AsrSession, BufferedSession, RecognizedWord, is_word
from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import AsrError, MissingDependencyError

_FRAMES_PER_SECOND = 100
_MIN_SAMPLES = SAMPLE_RATE // 5  # no word is shorter than 0.2 s, and the decoder fails on less than a few frames
# Full scale 1.0. The decoder hears "dog" in digital zeros and "with" in noise of half a step of 16 bits, at confidence
# 1.0. In speech that peaks at 20 steps it recognises no word; at 50 steps it begins to.
_SILENCE_PEAK = 10 / 32768


class PocketSphinxAsr(Asr):
    """US English, continuous speech, the model that ships with the package. Decodes when an utterance is over.

    Raises:
        MissingDependencyError: pocketsphinx is not installed.
    """

    name = "pocketsphinx"

    def __init__(self) -> None:
        try:
            import pocketsphinx
        except ImportError as error:
            raise MissingDependencyError("pocketsphinx", "asr", "recognising English words") from error
        self._decoder = pocketsphinx.Decoder(samprate=SAMPLE_RATE, loglevel="FATAL")
        self._turn = threading.Lock()  # sessions share the one decoder

    def start(self) -> AsrSession:
        return BufferedSession(self._decode)

    def _decode(self, samples: Samples) -> tuple[RecognizedWord, ...]:
        if samples.shape[0] < _MIN_SAMPLES or float(np.abs(samples).max()) < _SILENCE_PEAK:
            return ()
        with self._turn:
            return self._decode_alone(samples)

    def _decode_alone(self, samples: Samples) -> tuple[RecognizedWord, ...]:
        pcm = (np.clip(samples, -1.0, 1.0) * 32767.0).astype(np.int16)
        try:
            # The decoder's front end carries state from one utterance to the next, and with it another answer.
            self._decoder.reinit_feat()
            self._decoder.start_utt()
            try:
                self._decoder.process_raw(pcm.tobytes(), full_utt=True)
            finally:
                self._decoder.end_utt()
            segments = list(self._decoder.seg() or ())
        except RuntimeError as error:
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


def _spelling(word: str) -> str:
    """Cut the mark of a second pronunciation: `the(2)` -> `the`."""
    return word.partition("(")[0]
