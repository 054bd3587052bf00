"""What every speech recogniser is: a session takes samples as they come and gives words with times."""

from __future__ import annotations

import functools
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Concatenate, ParamSpec, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.audio import Samples
from edgeser.runtime.errors import AsrError


@dataclass(frozen=True)
class RecognizedWord:
    """A word as a recogniser heard it.

    Attributes:
        text: The word.
        start_s: Start, seconds from the first sample of its session.
        end_s: End, seconds.
        confidence: 0 to 1.
    """

    text: str
    start_s: float
    end_s: float
    confidence: float


@dataclass(frozen=True)
class Transcript:
    """What a recogniser made of one utterance.

    Attributes:
        words: In the order of time; none where it heard none, or none that it was sure of.
        is_doubtful: Whether there may have been words, but it was not sure of them.
    """

    words: tuple[RecognizedWord, ...] = ()
    is_doubtful: bool = False

    @property
    def text(self) -> str:
        """The words between blanks."""
        return " ".join(word.text for word in self.words)


class AsrSession(ABC):
    """One utterance being heard; from any thread, one call at a time. `accept` after its end is an `AsrError`."""

    @abstractmethod
    def accept(self, samples: Samples) -> None:
        """Hear the next `(n,)` float32 mono samples at 16 kHz, any n >= 0. How they are cut changes no answer.

        Raises:
            AsrError: The recogniser failed, or the session is over.
        """

    @abstractmethod
    def partial(self) -> tuple[RecognizedWord, ...]:
        """Return the best guess so far, cheaply; `()` where the recogniser cannot."""

    @abstractmethod
    def finish(self) -> tuple[RecognizedWord, ...]:
        """Return the words and end the session.

        Raises:
            AsrError: The recogniser failed, or the session is over.
        """

    @abstractmethod
    def cancel(self) -> None:
        """End the session without an answer; does nothing where it is over."""


class Asr(ABC):
    """Opens sessions, from any thread. Several may be open at once.

    Attributes:
        name: As users choose it.
        hears_along: Whether it works while someone speaks, so that a stream gives it the audio piece by piece. One that
            does not is asked with the whole utterance.
    """

    name: str
    hears_along: ClassVar[bool] = True

    @abstractmethod
    def start(self) -> AsrSession:
        """Begin to hear an utterance.

        Raises:
            AsrError: The recogniser cannot.
        """

    def hear(self, samples: Samples, hidden: NDArray[np.float32] | None = None) -> Transcript:
        """Recognise `(samples,)` float32 mono at 16 kHz, where an encoder has heard them already.

        Args:
            samples: The utterance.
            hidden: What the model's encoder gives a recogniser of the first window, see `Features.hidden`; `None` where
                it gives nothing.

        Raises:
            AsrError: The recogniser failed.
        """
        return Transcript(self.transcribe(samples))

    def transcribe(self, samples: Samples) -> tuple[RecognizedWord, ...]:
        """Recognise `(samples,)` float32 mono at 16 kHz: one whole session.

        Raises:
            AsrError: The recogniser failed.
        """
        session = self.start()
        try:
            session.accept(samples)
            return session.finish()
        finally:
            session.cancel()

    def close(self) -> None:  # noqa: B027 - most recognisers hold nothing that needs it
        """Free what the recogniser holds; sessions that are open fail."""

    def __enter__(self) -> Asr:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _HasTurn(Protocol):
    @property
    def _turn(self) -> threading.Lock: ...


_Session = TypeVar("_Session", bound=_HasTurn)
_Given = ParamSpec("_Given")
_Returned = TypeVar("_Returned")


def one_at_a_time(
    method: Callable[Concatenate[_Session, _Given], _Returned],
) -> Callable[Concatenate[_Session, _Given], _Returned]:
    """Let one thread at a time into the methods of a session that are marked so; the session has a lock, `_turn`."""

    @functools.wraps(method)
    def locked(self: _Session, /, *args: _Given.args, **kwargs: _Given.kwargs) -> _Returned:
        with self._turn:
            return method(self, *args, **kwargs)

    return locked


class BufferedSession(AsrSession):
    """A session of a recogniser that wants the whole utterance: gathers it, and decodes at the end.

    Args:
        decode: Turns `(samples,)` float32 into words.
    """

    def __init__(self, decode: Callable[[Samples], tuple[RecognizedWord, ...]]) -> None:
        self._decode = decode
        self._turn = threading.Lock()
        self._pieces: list[Samples] | None = []

    @one_at_a_time
    def accept(self, samples: Samples) -> None:
        # A copy: the caller's buffer may be a window on a ring that is written again.
        self._open().append(np.array(samples, np.float32))

    def partial(self) -> tuple[RecognizedWord, ...]:
        return ()

    @one_at_a_time
    def finish(self) -> tuple[RecognizedWord, ...]:
        pieces, self._pieces = self._open(), None
        return self._decode(np.concatenate(pieces) if pieces else np.zeros(0, np.float32))

    @one_at_a_time
    def cancel(self) -> None:
        self._pieces = None

    def _open(self) -> list[Samples]:
        if self._pieces is None:
            raise session_over()
        return self._pieces


class NoAsr(Asr):
    """Hears no words: the model judges by the voice alone."""

    name = "none"

    def start(self) -> AsrSession:
        return _Deaf()


class _Deaf(AsrSession):
    def accept(self, samples: Samples) -> None:
        pass

    def partial(self) -> tuple[RecognizedWord, ...]:
        return ()

    def finish(self) -> tuple[RecognizedWord, ...]:
        return ()

    def cancel(self) -> None:
        pass


def session_over() -> AsrError:
    """Return the error of a session that is used after its end."""
    return AsrError("asr: got samples for a session that is over, expected an open one: start a new session")


def is_word(text: str) -> bool:
    """Whether a recogniser's token was said; `<sil>`, `[NOISE]`, `[unk]` and their like were not."""
    return not text.startswith(("<", "["))
