"""Whisper as the recogniser that comes with a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.asr.base import Asr, AsrSession, BufferedSession, RecognizedWord, Transcript
from edgeser.runtime.asr.whisper.decoder import ROW_S, WhisperDecoder
from edgeser.runtime.asr.whisper.files import ENCODER
from edgeser.runtime.asr.whisper.rules import DecodingOptions
from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import AsrError, BundleError, EngineError, InputError
from edgeser.runtime.frontends import AudioFrontend, OpenGraph, ReadFile, SpeechEncoder
from edgeser.runtime.frontends.base import option
from edgeser.runtime.frontends.onnx_encoder import HIDDEN, ROWS

ARCHITECTURE = "whisper"
_LIMITS = ("no_speech_penalty", "min_score")
_UNSURE_S = 0.5  # before the window's end: a word there may be one that was cut
_LEAST_S = 0.1  # of audio behind a window: nothing is said in less

Hidden = NDArray[np.float32]


class WhisperAsr(Asr):
    """Hears words in the last hidden state of an encoder: the one that the model hears with, or its own.

    What is longer than the encoder's window is heard window by window, from the first word that the one before may have
    cut.

    Args:
        description: What the manifest keeps: `architecture`, `rows` of the window, `language` of the words,
            `no_speech_penalty` and `min_score` (see `DecodingOptions`); and `encoder`, the description of its own one,
            see `SpeechEncoder`, where it has one.
        read: Gives its files.
        open_graph: Opens a graph.
        audio: The model's encoder, whose last hidden state is heard where there is no other.

    Raises:
        BundleError: The description or the files are not a recogniser's, or no encoder goes with them.
        EngineError: The engine refuses a graph.
    """

    name = "whisper"
    hears_along = False

    def __init__(
        self, description: Mapping[str, Any], read: ReadFile, open_graph: OpenGraph, audio: AudioFrontend | None = None
    ) -> None:
        architecture = option(description, "architecture", str)
        if architecture != ARCHITECTURE:
            raise BundleError(f"recogniser: got architecture {architecture!r:.60}, expected {ARCHITECTURE}")
        self.language = option(description, "language", str)
        rows = option(description, "rows", int)
        limits = {name: option(description, name, float) for name in _LIMITS if name in description}
        self._own = self._own_encoder(description, rows, read, open_graph)
        self._encoder = self._own or audio
        try:
            self._decoder = WhisperDecoder(read, open_graph, self.language, _options(limits))
        except BaseException:
            self.close()
            raise
        self._check_encoder(rows)

    def _own_encoder(
        self, description: Mapping[str, Any], rows: int, read: ReadFile, open_graph: OpenGraph
    ) -> SpeechEncoder | None:
        described = description.get("encoder")
        if described is None:
            return None
        if not isinstance(described, Mapping):
            raise BundleError(f"recogniser: encoder {described!r:.60}, expected its description")
        return SpeechEncoder(rows, described, lambda _: read(ENCODER), open_graph)

    def _check_encoder(self, rows: int) -> None:
        """Refuse an encoder whose rows the decoder was not made for."""
        encoder, width, most = self._encoder, self._decoder.graphs.width, self._decoder.graphs.rows
        output = ROWS if self._own is not None else HIDDEN
        given = encoder.widths.get(output) if isinstance(encoder, SpeechEncoder) else None
        if given == width and encoder is not None and encoder.length <= most and encoder.hop_s == ROW_S:
            self._window = encoder.samples_for(encoder.length)
            self._output = output
            return
        self.close()
        raise BundleError(
            f"recogniser: its decoder reads {output} {width} wide of up to {most} rows of {ROW_S * 1e3:.0f} ms, "
            f"no encoder of the bundle gives that: got {given} wide"
            + ("" if encoder is None else f", {encoder.hop_s * 1e3:g} ms")
        )

    def hear(self, samples: Samples, hidden: Hidden | None = None) -> Transcript:
        words: list[RecognizedWord] = []
        begin, is_doubtful = 0, False
        while True:
            piece = samples[begin : begin + self._window]
            heard = self._decode(piece, hidden if begin == 0 else None)
            is_doubtful |= heard.is_doubtful
            is_last = samples.shape[0] - begin - self._window < _LEAST_S * SAMPLE_RATE
            kept, step = (heard.words, 0) if is_last else self._whole_words(heard.words)
            words += (_later(word, begin / SAMPLE_RATE) for word in kept)
            if is_last:
                return Transcript(tuple(words), is_doubtful and not words)
            begin += step

    def _decode(self, piece: Samples, hidden: Hidden | None) -> Transcript:
        assert isinstance(self._encoder, SpeechEncoder)
        if piece.shape[0] < self._encoder.samples_for(1):
            return Transcript()
        try:
            if self._own is not None or hidden is None:
                hidden = self._encoder.run(piece)[self._output]
            rows = -(-piece.shape[0] // round(ROW_S * SAMPLE_RATE))
            decoded = self._decoder.decode(hidden, min(hidden.shape[0], rows))
        except (EngineError, InputError) as error:
            raise AsrError(f"{self.name}: {error}") from error
        return Transcript(decoded.words, decoded.is_doubtful)

    def _whole_words(self, words: tuple[RecognizedWord, ...]) -> tuple[tuple[RecognizedWord, ...], int]:
        """Return the words of a window that its end did not cut, and how many samples later the next one begins."""
        end_s = self._window / SAMPLE_RATE - _UNSURE_S
        whole = tuple(word for word in words if word.end_s <= end_s)
        cut = next((word.start_s for word in words if word.end_s > end_s), 0.0)
        return (whole, round(cut * SAMPLE_RATE)) if cut > _UNSURE_S else (words, self._window)

    def transcribe(self, samples: Samples) -> tuple[RecognizedWord, ...]:
        return self.hear(samples).words

    def start(self) -> AsrSession:
        return BufferedSession(self.transcribe)

    def close(self) -> None:
        if self._own is not None:
            self._own.close()
        if hasattr(self, "_decoder"):
            self._decoder.close()


def _options(limits: Mapping[str, float]) -> DecodingOptions:
    try:
        return replace(DecodingOptions(), **limits)  # type: ignore[arg-type]  # only those that are floats
    except InputError as error:
        raise BundleError(f"recogniser: {error}") from error


def _later(word: RecognizedWord, seconds: float) -> RecognizedWord:
    start_s, end_s = (round(second + seconds, 2) for second in (word.start_s, word.end_s))
    return RecognizedWord(word.text, start_s, end_s, word.confidence)
