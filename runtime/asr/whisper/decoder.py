"""Whisper's words from the encoder's last hidden state: the likeliest token, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.asr.base import RecognizedWord
from edgeser.runtime.asr.whisper.alignment import looked_at, token_rows, word_times
from edgeser.runtime.asr.whisper.files import CROSS, STEP, TOKENIZER
from edgeser.runtime.asr.whisper.rules import DecodingOptions, Rules, repeats
from edgeser.runtime.asr.whisper.tokens import WhisperTokens
from edgeser.runtime.engines import Engine, open_engine
from edgeser.runtime.errors import BundleError, InputError

ROW_S = 0.02
"""Seconds of a row of the encoder."""
_MOST_ROWS = 1500  # 30 s, what Whisper's encoder hears at most


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
    """A text as it grows: ids, log probabilities, and what the alignment heads looked at, one each."""

    ids: list[int]
    log_probabilities: list[float]
    attention: list[NDArray[np.float32]]
    no_speech: float = 0.0
    steps: int = 0


class WhisperDecoder:
    """Runs the graphs that `export_recogniser` wrote. From any thread; calls share nothing but the engines.

    Args:
        read: Gives a file by name: `cross.onnx`, `step.onnx`, `tokenizer.json`.
        open_graph: Opens a graph.
        language: Of the words, for a multilingual decoder.
        options: What keeps it from rambling.

    Attributes:
        rows: The longest window, in rows of 20 ms.
        width: Of a row.

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
        self._cross = open_graph(read(CROSS))
        self._step = open_graph(read(STEP))
        inputs = {spec.name: spec.shape for spec in self._step.inputs}
        outputs = {spec.name: spec.shape for spec in (*self._cross.outputs, *self._step.outputs)}
        try:
            rows, width = self._cross.inputs[0].shape[1:]
            self._is_fixed = rows is not None
            self.rows, self.width = rows or _MOST_ROWS, int(width or 0)
            self._past = {name: shape[1:] for name, shape in inputs.items() if name.startswith("past_")}
            self._places = int(inputs["past_keys_0"][3] or 0)
            count = int(outputs["logits"][1] or 0)
            agree = all(outputs[name] == shape for name, shape in inputs.items() if name.startswith("cross_"))
        except (KeyError, IndexError, ValueError) as error:
            raise BundleError(f"whisper: {CROSS} and {STEP} are not a recogniser's: {error}") from error
        if not agree or self.width < 1:
            raise BundleError(f"whisper: {CROSS} and {STEP} do not belong together: export them again")
        self.tokens = WhisperTokens(read(TOKENIZER), count, language)

    def decode(self, hidden: NDArray[np.float32], heard: int | None = None) -> Decoded:
        """Return the words of one utterance.

        Args:
            hidden: `(rows, width)` float32 of the encoder's window, of which the decoder looks at all.
            heard: So many of them, from the first, are audio rather than padding; `None` for all.

        Raises:
            InputError: The rows are too many, none, or of another width.
            EngineError: An engine failed.
        """
        if hidden.ndim != 2 or not 1 <= hidden.shape[0] <= self.rows or hidden.shape[1] != self.width:
            raise InputError(f"hidden: got {hidden.shape}, expected (1 to {self.rows}, {self.width})")
        audio = hidden.shape[0] if heard is None else heard
        if not 1 <= audio <= hidden.shape[0]:
            raise InputError(f"hidden: got {audio} rows of audio, expected 1 to {hidden.shape[0]}")
        said = self._say(hidden, audio * ROW_S)
        return self._judge(said, audio)

    def close(self) -> None:
        """Free the engines; a second call does nothing."""
        self._cross.close()
        self._step.close()

    def _say(self, hidden: NDArray[np.float32], seconds: float) -> _Said:
        """Run the decoder until it ends, repeats itself, or has said more than fits into the audio."""
        rows = hidden.shape[0]
        padded = np.zeros((1, self.rows if self._is_fixed else rows, self.width), np.float32)
        padded[0, :rows] = hidden
        feeds: dict[str, NDArray[Any]] = self._cross.run({"hidden": padded})
        feeds |= {name: np.zeros((1, *shape), np.float32) for name, shape in self._past.items()}
        feeds["heard"] = np.array([rows], np.int32)
        rules = Rules(self.tokens, self._options, rows * ROW_S, seconds)
        most = self._options.spare_tokens + round(seconds * self._options.max_tokens_per_s)
        said = _Said([], [], [])
        prompt = list(self.tokens.prompt)
        texts: list[str] = []
        places: list[int] = []

        def look() -> list[int]:
            rows = looked_at(np.stack(said.attention, axis=1))
            return [rows[place] for place in places]

        while said.steps < self._places:
            place = said.steps
            token = prompt[place] if place < len(prompt) else said.ids[-1]
            answer = self._run(feeds, token, place)
            said.steps += 1
            if place == 0:
                said.no_speech = float(_probabilities(answer["logits"][0])[self.tokens.no_speech])
            if place < len(prompt) - 1:
                continue
            allowed = rules.apply(answer["logits"][0], said.ids)
            chosen = int(allowed.argmax())
            said.ids.append(chosen)
            said.log_probabilities.append(float(np.log(_probabilities(allowed)[chosen])))
            said.attention.append(answer["alignment"][0])
            if chosen == self.tokens.end:
                break
            if self.tokens.is_text(chosen):
                texts.append(self.tokens.folded(chosen))
                places.append(len(said.ids) - 1)
                kept = repeats(texts, look, self._options.max_repeats)
                if kept is not None or len(texts) > most:
                    self._cut(said, len(texts) if kept is None else kept)
                    break
        return said

    def _run(self, feeds: dict[str, NDArray[Any]], token: int, place: int) -> dict[str, NDArray[Any]]:
        """Run one step, and write this token's keys and values into the cache."""
        feeds["token"] = np.array([token], np.int32)
        feeds["position"] = np.array([place], np.int32)
        answer = self._step.run(feeds)
        for layer in range(answer["keys"].shape[1]):
            feeds[f"past_keys_{layer}"][..., place] = answer["keys"][:, layer]
            feeds[f"past_values_{layer}"][:, :, place] = answer["values"][:, layer]
        return answer

    def _cut(self, said: _Said, texts: int) -> None:
        """Keep so many ids of text, and what stands before them and between."""
        places = [place for place, token in enumerate(said.ids) if self.tokens.is_text(token)]
        if texts < len(places):
            end = places[texts]
            del said.ids[end:], said.log_probabilities[end:]
            del said.attention[end + 1 :]  # the next token's shows where the last one ends

    def _judge(self, said: _Said, audio: int) -> Decoded:
        mean = float(np.mean(said.log_probabilities)) if said.log_probabilities else 0.0
        places = [place for place, token in enumerate(said.ids) if self.tokens.is_text(token)]
        ids = [said.ids[place] for place in places]
        words = self.tokens.words(ids)
        text = " ".join(word.text for word in words)
        is_doubtful = bool(words) and self._is_doubtful(mean, said.no_speech)
        if not words or is_doubtful:
            return Decoded((), is_doubtful, mean, said.no_speech, text, said.steps)
        after = min(places[-1] + 1, len(said.attention) - 1)
        attention = np.stack([said.attention[place] for place in (*places, after)], axis=1)  # (heads, T + 1, rows)
        times = word_times(token_rows(attention[..., :audio]), [(word.start, word.marks) for word in words])
        probabilities = np.exp([said.log_probabilities[place] for place in places])
        timed = tuple(
            RecognizedWord(
                word.text,
                round(start * ROW_S, 2),
                round(end * ROW_S, 2),
                float(probabilities[word.start : word.marks].mean()),
            )
            for word, (start, end) in zip(words, times, strict=True)
        )
        return Decoded(timed, False, mean, said.no_speech, text, said.steps)

    def _is_doubtful(self, mean: float, no_speech: float) -> bool:
        return mean - self._options.no_speech_penalty * no_speech < self._options.min_score


def _probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    exponents = np.exp(logits - logits.max())
    probabilities: NDArray[np.float32] = exponents / exponents.sum()
    return probabilities
