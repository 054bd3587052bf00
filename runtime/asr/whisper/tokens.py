"""Whisper's tokens: which ids are words, times and commands, and text from ids."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from edgeser.runtime.errors import BundleError

SECONDS_PER_TIMESTAMP = 0.02
_LAST_TIMESTAMP = 1500  # 30 s
_ENGLISH_ONLY = 51_864  # ids of a decoder that knows English alone; all others have more
# As Whisper's authors list them: marks that stand for sounds, speakers and songs rather than for words.
_MARKS = (
    *'"#()*+/:;<=>@[\\]^_`{|}~「」『』',
    *"<< >> <<< >>> -- --- -( -[ (' (\" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪".split(),
)
_NOTES = tuple("♩♪♫♬♭♮♯")


class WhisperTokens:
    """The ids of Whisper's vocabulary, told apart.

    Args:
        tokenizer: `tokenizer.json`.
        count: Ids that the decoder knows.
        language: Whose token a multilingual decoder is prompted with; an English one takes none.

    Attributes:
        prompt: What the decoder is told first.
        end: Ends the text.
        no_speech: Whose probability after the first token of the prompt says that nobody spoke.
        no_timestamps: Would ask for text without times.
        first_timestamp: 0.00 s; each next one is 0.02 s later.
        non_speech: Text that stands for no words: brackets, notes, dashes of speakers.

    Raises:
        BundleError: It is no Whisper tokenizer, or not this decoder's, or it knows no such language.
    """

    def __init__(self, tokenizer: bytes, count: int, language: str = "en") -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer: Any = Tokenizer.from_str(tokenizer.decode())
            added = {token["content"]: int(token["id"]) for token in json.loads(tokenizer)["added_tokens"]}
        except BaseException as error:  # plain `Exception`, or a panic of the library's Rust code
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise BundleError(f"whisper: tokenizer.json is not usable: {reason}") from error
        self.end = self._id(added, "<|endoftext|>")
        start = self._id(added, "<|startoftranscript|>")
        self.no_speech = self._id(added, "<|nospeech|>", "<|nocaptions|>")
        self.no_timestamps = self._id(added, "<|notimestamps|>")
        self.first_timestamp = self.no_timestamps + 1
        if self.first_timestamp + _LAST_TIMESTAMP + 1 != count:
            raise BundleError(
                f"whisper: tokenizer.json ends at {self.first_timestamp + _LAST_TIMESTAMP}, the decoder at {count - 1}"
            )
        self.count = count
        if count > _ENGLISH_ONLY:
            self.prompt: tuple[int, ...] = (
                start,
                self._id(added, f"<|{language}|>"),
                self._id(added, "<|transcribe|>"),
            )
        elif language != "en":
            raise BundleError(f"whisper: got language {language!r}, this decoder knows English only")
        else:
            self.prompt = (start,)
        self.non_speech = self._non_speech()

    def is_text(self, token: int) -> bool:
        """Whether an id is a piece of text."""
        return 0 <= token < self.end

    def folded(self, token: int) -> str:
        """Return an id's text without its space and case: `And` that begins a sentence is `and`."""
        return self._text([token]).strip().casefold()

    def seconds(self, token: int) -> float:
        """Return what a timestamp says."""
        return (token - self.first_timestamp) * SECONDS_PER_TIMESTAMP

    def _non_speech(self) -> tuple[int, ...]:
        found = {self._encode(" -")[0], self._encode(" '")[0]}
        for mark in (*_MARKS, *_NOTES):
            for ids in (self._encode(mark), self._encode(f" {mark}")):
                if len(ids) == 1 or mark in _NOTES:
                    found.add(ids[0])
        return tuple(sorted(found))

    def words(self, tokens: Sequence[int]) -> list[tuple[str, slice]]:
        """Cut ids of text into words: a word begins at a space; marks stay with the word that they touch.

        Returns:
            Each word without its space, and where its ids lie in `tokens`.
        """
        pieces: list[tuple[str, int, int]] = []
        start = 0
        for end in range(1, len(tokens) + 1):
            text = self._text(tokens[start:end])
            if "\N{REPLACEMENT CHARACTER}" in text and end < len(tokens):
                continue  # the rest of a character is in the next id
            pieces.append((text, start, end))
            start = end
        words: list[tuple[str, slice]] = []
        for text, first, last in pieces:
            if not words or (text.startswith(" ") and any(c.isalnum() for c in text + self._following(pieces, last))):
                words.append((text.strip(), slice(first, last)))
            else:
                said, place = words[-1]
                words[-1] = (f"{said}{text.rstrip()}", slice(place.start, last))
        return [(text, place) for text, place in words if any(c.isalnum() for c in text)]

    @staticmethod
    def _following(pieces: Sequence[tuple[str, int, int]], place: int) -> str:
        """Return the pieces that continue a word, from an id on."""
        text = ""
        for piece, first, _ in pieces:
            if first >= place:
                if piece.startswith(" "):
                    break
                text += piece
        return text

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    @staticmethod
    def _id(added: dict[str, int], *names: str) -> int:
        for name in names:
            if name in added:
                return added[name]
        raise BundleError(f"whisper: tokenizer.json has no {names[0]}, expected Whisper's own")
