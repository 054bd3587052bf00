"""Whisper's tokens: which ids are words, times and commands, and text from ids."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgeser.runtime.errors import BundleError

SECONDS_PER_TIMESTAMP = 0.02
_LAST_TIMESTAMP = 1500  # 30 s
_ENGLISH_ONLY = 51_864  # ids of a decoder that knows English alone; all others have more
# As Whisper's authors list them: marks that stand for sounds, speakers and songs rather than for words.
_MARKS = (
    *'"#()*+/:;<=>@[\\]^_`{|}~「」『』',
    *("<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "((", "))", "(((", ")))", "[[", "]]", "{{", "}}"),
    *("♪♪", "♪♪♪"),
)
_OPENING = ("", *"\"'([{$£€#")
_NOTES = tuple("♩♪♫♬♭♮♯")
_DASHES = (" -", " '")
ENCODED = (*_DASHES, *(text for mark in (*_MARKS, *_NOTES) for text in (mark, f" {mark}")))
"""The only texts that are ever turned into ids."""


@dataclass(frozen=True)
class Word:
    """A word's text, and which ids it is.

    Attributes:
        text: With the marks that touch it.
        start: Its first id.
        marks: Where the marks behind it begin; `end` where there are none.
        end: After its last id.
    """

    text: str
    start: int
    marks: int
    end: int


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
        found = {self._encode(dash)[0] for dash in _DASHES}
        for mark in (*_MARKS, *_NOTES):
            for ids in (self._encode(mark), self._encode(f" {mark}")):
                if len(ids) == 1 or mark in _NOTES:
                    found.add(ids[0])
        return tuple(sorted(found))

    def words(self, tokens: Sequence[int]) -> list[Word]:
        """Cut ids of text into words: one begins at each space that a letter or digit follows."""
        words: list[Word] = []
        for text, start, end in self._pieces(tokens):
            is_said = any(character.isalnum() for character in text)
            if not words or (text.startswith(" ") and is_said):
                words.append(Word(text, start, end if is_said else start, end))
            else:  # more of the word, or marks behind it
                word = words[-1]
                words[-1] = Word(word.text + text, word.start, end if is_said else word.marks, end)
        said = (word for word in words if word.marks > word.start)
        return [Word(word.text.strip(), word.start, word.marks, word.end) for word in said]

    def _pieces(self, tokens: Sequence[int]) -> list[tuple[str, int, int]]:
        """Return the text of each id, of several where a character takes them, and where they lie.

        Marks that stand before a word (`"`, `$`) are one piece with what follows.
        """
        pieces: list[tuple[str, int, int]] = []
        start = 0
        for end in range(1, len(tokens) + 1):
            text = self._text(tokens[start:end])
            opens = text.startswith(" ") and not any(c.isalnum() for c in text) and text.strip() in _OPENING
            if ("\N{REPLACEMENT CHARACTER}" in text or opens) and end < len(tokens):
                continue
            pieces.append((text, start, end))
            start = end
        return pieces

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
