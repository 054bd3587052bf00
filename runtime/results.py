"""What the runtime answers, and how importances become words and moments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.asr import RecognizedWord
from edgeser.runtime.frontends import AudioFrontend, Token

_SPAN_SHARE = 0.2  # the most important fifth of the frames is what "mattered" means
_SPAN_GAP_S = 0.10  # closer spans are heard as one
_WORD_FACTOR = 1.25  # a word matters when it draws a quarter more attention than an average one


@dataclass(frozen=True)
class Word:
    """A word of the transcript.

    Attributes:
        text: As it stands in the transcript.
        importance: Share of the words' importance, 0 to 1; the words of an utterance sum to 1.
            0 for words past the model's 20 tokens, and where the model gives no importance of words.
        mattered: Whether it mattered clearly more than an average word.
        start_s: When it was said, seconds from the start of the audio; `None` where no recogniser told.
        end_s: When it ended.
        confidence: The recogniser's, 0 to 1; `None` where none told.
    """

    text: str
    importance: float
    mattered: bool
    start_s: float | None = None
    end_s: float | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class Span:
    """A stretch of the audio that mattered.

    Attributes:
        start_s: Seconds from the start of the audio.
        end_s: Seconds from the start of the audio.
        importance: Share of the audio's importance, 0 to 1.
    """

    start_s: float
    end_s: float
    importance: float


@dataclass(frozen=True)
class Timings:
    """Milliseconds that each stage took for one utterance; in a batch, the batch's share.

    In a stream the voice detector works while someone speaks, and counts as 0 here.
    """

    asr_ms: float
    audio_ms: float
    text_ms: float
    engine_ms: float
    vad_ms: float = 0.0

    @property
    def total_ms(self) -> float:
        """Milliseconds from samples to result."""
        return self.vad_ms + self.asr_ms + self.audio_ms + self.text_ms + self.engine_ms


@dataclass(frozen=True)
class Result:
    """The emotion of one utterance, and why.

    Where no speech was found and the caller gave no words, neither recogniser nor model was asked: the label is
    `NO_SPEECH`, all emotions are equally probable, and there are no words and spans.

    Attributes:
        label: The most probable emotion; or `NO_SPEECH`; or `UNSURE`, where only a share of the utterances is to be
            answered and this one can be trusted less.
        probabilities: By emotion; they sum to 1.
        transcript: The words the model got; empty when none were recognised.
        words: The transcript's words, with what they weighed.
        spans: The moments that mattered most, in the order of time; none where the model gives no importance of audio.
        duration_s: Length of the audio.
        heard_s: How much of it the model heard: its window is fixed, 4.6 s with 460 frames of 10 ms.
        engine: Name of the engine that answered.
        timings: Time taken.
        speech_share: Share of the first `heard_s` in which the voice detector heard speech, 0 to 1; 0 where that is
            less than 0.1 s. In a stream by the stream's own thresholds.
        truncated: The audio is from a file that ends before its header says, or broke off; the answer is to what is
            there.
        confidence: How probable it is that the most probable emotion is the right one for a voice that the model never
            heard, 0 to 1; `None` without speech, and where the bundle does not say.
        is_doubtful: Whether the recogniser may have heard words but was not sure of them: there are none in
            `transcript`, and the voice alone decided.
    """

    label: str
    probabilities: Mapping[str, float]
    transcript: str
    words: tuple[Word, ...]
    spans: tuple[Span, ...]
    duration_s: float
    heard_s: float
    engine: str
    timings: Timings
    speech_share: float
    truncated: bool = False
    confidence: float | None = None
    is_doubtful: bool = False

    @property
    def has_speech(self) -> bool:
        """Whether speech was found. Without it an answer, if there is one, rests on the caller's words."""
        return self.speech_share > 0.0

    @property
    def probability(self) -> float | None:
        """The label's probability; `None` where the label is no emotion."""
        return self.probabilities.get(self.label)


def result_row(result: Result) -> dict[str, Any]:
    """Return the answer as a flat row of plain values.

    `label, p_<class>..., confidence, speech_share, transcript, words, spans, engine, ms`.
    """
    return {
        "label": result.label,
        **{f"p_{label}": round(p, 6) for label, p in result.probabilities.items()},
        "confidence": None if result.confidence is None else round(result.confidence, 4),
        "speech_share": round(result.speech_share, 4),
        "transcript": result.transcript,
        "words": [[word.text, round(word.importance, 4)] for word in result.words],
        "spans": [[span.start_s, span.end_s, round(span.importance, 4)] for span in result.spans],
        "engine": result.engine,
        "ms": round(result.timings.total_ms, 3),
    }


def explain_audio(
    importance: NDArray[np.float32], moments: NDArray[np.intp], frontend: AudioFrontend
) -> tuple[Span, ...]:
    """Turn the importance of audio rows into the spans that mattered.

    Args:
        importance: `(length,)`, >= 0.
        moments: `(valid,)`, which row of the audio each of the first ones is; see `Features.moments`.
        frontend: Knows when a row was heard.

    Returns:
        Spans over the most important fifth of the rows, those closer than 0.1 s joined.
    """
    valid = moments.size
    rows = np.asarray(importance[:valid], dtype=np.float64)
    total = rows.sum()
    if valid == 0 or total <= 0:
        return ()
    threshold = np.partition(rows, -max(1, round(valid * _SPAN_SHARE)))[-max(1, round(valid * _SPAN_SHARE))]
    chosen = np.flatnonzero(rows >= threshold)
    breaks = np.flatnonzero(np.diff(moments[chosen]) * frontend.hop_s > _SPAN_GAP_S)
    spans = []
    for run in np.split(chosen, breaks + 1):
        start_s, end_s = moments[run[[0, -1]]] * frontend.hop_s + (0.0, frontend.window_s)
        share = rows[run[0] : run[-1] + 1].sum() / total
        spans.append(Span(round(float(start_s), 3), round(float(end_s), 3), float(share)))
    return tuple(spans)


def explain_words(
    transcript: str,
    tokens: Sequence[Token],
    importance: NDArray[np.float32] | None,
    recognized: Sequence[RecognizedWord] = (),
) -> tuple[Word, ...]:
    """Turn the importance of text rows into words with weights.

    Args:
        transcript: Words between blanks.
        tokens: The transcript's tokens; those past the model's length have no row, and no importance.
        importance: `(length,)`, >= 0; `None` when the model gives none.
        recognized: The recogniser's words, one for each word of the transcript, or none.
    """
    places = _word_places(transcript)
    weights = np.zeros(len(places))
    if importance is not None:
        for token, weight in zip(tokens, importance, strict=False):
            for i, (start, end) in enumerate(places):
                if start <= token.start < end:
                    weights[i] += float(weight)
    total = weights.sum()
    shares = weights / total if total > 0 else weights
    covered = int((weights > 0).sum())
    words = []
    for i, (start, end) in enumerate(places):
        heard = recognized[i] if len(recognized) == len(places) else None
        words.append(
            Word(
                transcript[start:end],
                float(shares[i]),
                bool(covered > 1 and shares[i] > _WORD_FACTOR / covered),
                heard.start_s if heard else None,
                heard.end_s if heard else None,
                heard.confidence if heard else None,
            )
        )
    return tuple(words)


def _word_places(transcript: str) -> list[tuple[int, int]]:
    places, end = [], 0
    for word in transcript.split():
        start = transcript.index(word, end)
        end = start + len(word)
        places.append((start, end))
    return places
