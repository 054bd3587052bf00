"""Whisper's words from the encoder's last hidden state: the likeliest token, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.asr.base import RecognizedWord
from edgeser.runtime.asr.whisper.alignment import looked_at, token_rows, word_times
from edgeser.runtime.asr.whisper.files import TOKENIZER
from edgeser.runtime.asr.whisper.rules import DecodingOptions, Rules, repeats, strays
from edgeser.runtime.asr.whisper.steps import DecoderGraphs, Step, Steps
from edgeser.runtime.asr.whisper.tokens import WhisperTokens, Word
from edgeser.runtime.engines import Engine, open_engine
from edgeser.runtime.errors import InputError

ROW_S = 0.02
"""Seconds of a row of the encoder."""


@dataclass(frozen=True)
class Decoded:
    """What was heard.

    Attributes:
        words: With times from the start of the audio; `()` where there were none, or none that can be trusted.
        is_doubtful: Whether there is text that is not in `words`, because it is likely made up.
        mean_log_probability: Of a token, the end included; 0 is certainty.
        no_speech: How likely it is that nobody spoke, 0 to 1.
        text: All that was decoded, doubtful or not.
        steps: How often the decoder ran.
    """

    words: tuple[RecognizedWord, ...]
    is_doubtful: bool
    mean_log_probability: float
    no_speech: float
    text: str
    steps: int


@dataclass
class _Said:
    """A text as it grows, token by token.

    Attributes:
        ids: Timestamps among them.
        log_probabilities: Of each.
        attention: Where the alignment heads looked when each was said, `(heads, rows)`; it may go on behind a cut.
        texts: Of the ids that are text, folded.
        places: Where those stand in `ids`.
        no_speech: How likely it is that nobody spoke.
    """

    ids: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    attention: list[NDArray[np.float32]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    no_speech: float = 0.0

    def rows(self) -> list[int]:
        """Return where each text was found."""
        rows = looked_at(np.stack(self.attention, axis=1))
        return [rows[place] for place in self.places]

    def cut(self, texts: int) -> None:
        """Keep so many texts, and what stands before them and between."""
        if texts < len(self.places):
            end = self.places[texts]
            del self.ids[end:], self.log_probabilities[end:], self.texts[texts:], self.places[texts:]


class WhisperDecoder:
    """Turns an encoder's hidden state into words, with the files that `export_recogniser` wrote. From any thread.

    Args:
        read: Gives a file by name: `cross.onnx`, `step.onnx`, `tokenizer.json`.
        open_graph: Opens a graph.
        language: Of the words, for a multilingual decoder.
        options: What keeps it from rambling.

    Attributes:
        graphs: What it runs.
        tokens: What it may say.

    Raises:
        BundleError: The files are not a Whisper recogniser's.
        EngineError: An engine refuses a graph.
    """

    def __init__(
        self,
        read: Callable[[str], bytes],
        open_graph: Callable[[bytes], Engine] = open_engine,
        language: str = "en",
        options: DecodingOptions | None = None,
    ) -> None:
        self._options = options or DecodingOptions()
        self.graphs = DecoderGraphs(read, open_graph)
        self.tokens = WhisperTokens(read(TOKENIZER), self.graphs.tokens, language)

    def decode(self, hidden: NDArray[np.float32], audio: int | None = None) -> Decoded:
        """Return the words of one utterance.

        Args:
            hidden: `(rows, width)` float32 of the encoder's window, of which the decoder looks at all.
            audio: So many of them, from the first, are audio rather than padding; `None` for all.

        Raises:
            InputError: The rows are too many, none, or of another width.
            EngineError: An engine failed.
        """
        steps = self.graphs.start(hidden)
        rows = hidden.shape[0] if audio is None else audio
        if not 1 <= rows <= hidden.shape[0]:
            raise InputError(f"hidden: got {audio} rows of audio, expected 1 to {hidden.shape[0]}")
        said = self._say(steps, Rules(self.tokens, self._options, hidden.shape[0] * ROW_S, rows * ROW_S), rows * ROW_S)
        kept = strays(said.texts, said.rows(), rows) if said.places else None
        if kept is not None:
            said.cut(kept)
        words = self.tokens.words([said.ids[place] for place in said.places])
        mean = float(np.mean(said.log_probabilities)) if said.log_probabilities else 0.0
        score = mean - self._options.no_speech_penalty * said.no_speech
        is_doubtful = bool(words) and score < self._options.min_score
        timed = _timed(words, said, rows) if words and not is_doubtful else ()
        return Decoded(timed, is_doubtful, mean, said.no_speech, " ".join(word.text for word in words), steps.count)

    def close(self) -> None:
        """Free the engines; a second call does nothing."""
        self.graphs.close()

    def _say(self, steps: Steps, rules: Rules, audio_s: float) -> _Said:
        """Run the decoder until it ends, repeats itself, or has said more than fits into the audio."""
        said = _Said()
        most = self._options.spare_tokens + round(audio_s * self._options.max_tokens_per_s)
        step = steps.say(self.tokens.prompt[0])
        said.no_speech = float(_probabilities(step.logits)[self.tokens.no_speech])
        for token in self.tokens.prompt[1:]:
            step = steps.say(token)
        while True:
            token = self._add(said, step, rules)
            kept = None
            if self.tokens.is_text(token):
                kept = repeats(said.texts, said.rows, self._options.max_repeats)
            if kept is not None:
                said.cut(kept)
            if kept is not None or token == self.tokens.end or len(said.texts) > most or steps.is_full:
                return said
            step = steps.say(token)

    def _add(self, said: _Said, step: Step, rules: Rules) -> int:
        """Say the likeliest token that the rules allow."""
        allowed = rules.apply(step.logits, said.ids)
        token = int(allowed.argmax())
        said.ids.append(token)
        said.log_probabilities.append(float(np.log(_probabilities(allowed)[token])))
        said.attention.append(step.attention)
        if self.tokens.is_text(token):
            said.texts.append(self.tokens.folded(token))
            said.places.append(len(said.ids) - 1)
        return token


def _timed(words: list[Word], said: _Said, audio: int) -> tuple[RecognizedWord, ...]:
    """Give words their times, within so many rows of audio, and confidences."""
    after = min(said.places[-1] + 1, len(said.attention) - 1)  # what follows the last shows where it ends
    attention = np.stack([said.attention[place] for place in (*said.places, after)], axis=1)  # (heads, T + 1, rows)
    times = word_times(token_rows(attention[..., :audio]), [(word.start, word.marks) for word in words])
    probabilities = np.exp([said.log_probabilities[place] for place in said.places])
    return tuple(
        RecognizedWord(
            word.text,
            round(start * ROW_S, 2),
            round(end * ROW_S, 2),
            float(probabilities[word.start : word.marks].mean()),
        )
        for word, (start, end) in zip(words, times, strict=True)
    )


def _probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    exponents = np.exp(logits - logits.max())
    probabilities: NDArray[np.float32] = exponents / exponents.sum()
    return probabilities
