"""What Whisper's decoder may say next, when it has said enough, and whether there were words at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.asr.whisper.tokens import SECONDS_PER_TIMESTAMP, WhisperTokens
from edgeser.runtime.errors import InputError

Logits = NDArray[np.float32]
_REPEATED = 3  # ids: two are often the same twice, "of the"
_SAME_ROW = 12  # rows, a quarter of a second: nobody says three tokens again so soon
_LAST_SEGMENT_S = 0.3  # nothing is said in what is left after a timestamp so near to the end


@dataclass(frozen=True)
class DecodingOptions:
    """What keeps the decoder from rambling.

    Attributes:
        max_initial_timestamp_s: The first word begins within so many seconds.
        max_tokens_per_s: Of text, for each second of audio. The quickest speech has about 8.
        spare_tokens: Of text, whatever the audio's length.
        max_repeats: So many times may the same tokens follow on themselves, though they were said later each time; at
            the next the decoder is stopped, and of the copies the first stays.
        min_score: Text is doubtful whose mean log probability per token, less the penalty, is lower than this.
        no_speech_penalty: Times the probability that nobody spoke. Which two tell speech from noise best differs from
            model to model, so a recogniser's description may bring them.
    """

    max_initial_timestamp_s: float = 1.0
    max_tokens_per_s: float = 10.0
    spare_tokens: int = 6
    max_repeats: int = 4
    min_score: float = -0.9
    no_speech_penalty: float = 0.5

    def __post_init__(self) -> None:
        if not (self.max_tokens_per_s > 0 and self.spare_tokens >= 0 and self.max_repeats >= 1):
            raise InputError(
                f"whisper: got {self.max_tokens_per_s} tokens a second, {self.spare_tokens} spare and "
                f"{self.max_repeats} repeats, expected above 0, at least 0, at least 1"
            )
        if not (self.max_initial_timestamp_s >= 0 and self.no_speech_penalty >= 0):
            raise InputError(
                f"whisper: got a first timestamp of at most {self.max_initial_timestamp_s} s and a penalty of "
                f"{self.no_speech_penalty}, expected neither below 0"
            )


class Rules:
    """The rules for one utterance, as Whisper's authors published them, and what short windows need besides.

    - The first token is a timestamp, of at most a second.
    - Timestamps stand in pairs, but for the first and the last; they never go back, nor past the window.
    - Where all timestamps together are likelier than the likeliest text, it is a timestamp.
    - Marks that are no words are never said.
    - No text begins where hardly any audio is left.

    Args:
        tokens: The vocabulary.
        options: The limits.
        window_s: Seconds of the window.
        audio_s: Seconds of it that are no padding.
    """

    def __init__(self, tokens: WhisperTokens, options: DecodingOptions, window_s: float, audio_s: float) -> None:
        self._tokens = tokens
        self._options = options
        self._never = np.zeros(tokens.count, dtype=np.bool_)
        self._never[list(tokens.non_speech)] = True
        self._never[tokens.end + 1 : tokens.first_timestamp] = True
        self._never[tokens.first_timestamp + round(window_s / SECONDS_PER_TIMESTAMP) + 1 :] = True
        self._last = tokens.first_timestamp + max(0, round((audio_s - _LAST_SEGMENT_S) / SECONDS_PER_TIMESTAMP))

    def apply(self, logits: Logits, said: Sequence[int]) -> Logits:
        """Return `(tokens,)` logits with -inf for all that may not follow.

        Args:
            logits: `(tokens,)`.
            said: The ids so far, without the prompt.
        """
        first, end = self._tokens.first_timestamp, self._tokens.end
        allowed = np.where(self._never, -np.inf, logits).astype(np.float32)
        if not said:
            allowed[:first] = -np.inf
            allowed[first + round(self._options.max_initial_timestamp_s / SECONDS_PER_TIMESTAMP) + 1 :] = -np.inf
            return allowed
        if said[-1] >= first:
            if len(said) < 2 or said[-2] >= first:  # text follows a timestamp that opens
                allowed[first:] = -np.inf
            else:  # one that closes is followed by the end, or by one that opens
                allowed[:end] = -np.inf
                if said[-1] > self._last:
                    allowed[first:] = -np.inf
        last = max((token for token in said if token >= first), default=first)
        is_open = said[-1] < first
        allowed[first : last + int(is_open)] = -np.inf
        times, text = allowed[first:], allowed[:first]
        peak = times.max()
        if peak > -np.inf and peak + np.log(np.exp(times - peak).sum()) > text.max():
            allowed[:first] = -np.inf
        return allowed


def repeats(said: Sequence[str], look: Callable[[], Sequence[int]], most: int) -> int | None:
    """Return where a text that has begun to repeat itself should have ended.

    A person who says something again says it later. A decoder that has nothing more to hear goes over the same rows.

    Args:
        said: Pieces of text, one for each token.
        look: Gives the row that each was found at; asked for only where pieces are the same.
        most: So many copies of the same pieces may stand in a row, wherever they were found.

    Returns:
        How many pieces to keep, those before the repeat began; `None` where nothing is repeated.
    """
    count = len(said)
    starts = [i for i in range(count - _REPEATED) if said[i : i + _REPEATED] == said[-_REPEATED:]]
    rows = look() if starts else ()
    for start in starts:
        pairs = zip(rows[start : start + _REPEATED], rows[-_REPEATED:], strict=True)
        # One of them may have been found nowhere: the decoder often looks at silence as it begins.
        if sum(now <= before + _SAME_ROW for before, now in pairs) >= _REPEATED - 1:
            return _begin(said, rows, count - _REPEATED, count - _REPEATED - start)
    for size in range(1, count // (most + 1) + 1):
        if all(said[place] == said[place - size] for place in range(count - size * most, count)):
            return count - size * most
    return None


def strays(said: Sequence[str], rows: Sequence[int], audio: int) -> int | None:
    """Return where a text leaves what is heard: goes back over it in other words, or goes on when the audio has ended.

    Two words in a row, or the last, must do so: a single one may have been found in the wrong place.

    Args:
        said: Pieces of text, one for each token.
        rows: The row that each was found at.
        audio: Rows that are no padding.

    Returns:
        How many pieces to keep; `None` where nothing strays.
    """
    words = [place for place, text in enumerate(said) if any(character.isalnum() for character in text)]
    latest = 0
    for number, place in enumerate(words):
        following = words[number + 1 : number + 2]
        away = [
            row < latest - 2 * _SAME_ROW or row > audio + _SAME_ROW for row in (rows[p] for p in (place, *following))
        ]
        if all(away):
            return place
        latest = max(latest, rows[place])
    return None


def _begin(said: Sequence[str], rows: Sequence[int], place: int, distance: int) -> int:
    """Go back from where a repeat was seen to where it began: over words that were found out of order."""
    while place > distance and said[place - 1] == said[place - 1 - distance]:
        is_word = any(character.isalnum() for character in said[place - 1])
        is_in_order = rows[place - 1 - distance] + 4 * _SAME_ROW < rows[place - 1] < rows[place]
        if is_in_order or not is_word:
            break
        place -= 1
    return place
