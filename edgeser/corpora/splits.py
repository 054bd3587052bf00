"""Which utterances train and which test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeser.corpora.utterance import Utterance
from edgeser.runtime.errors import InputError


@dataclass(frozen=True)
class Fold:
    """One train and test division.

    Attributes:
        name: The session held out, or `all` when everything trains and nothing tests.
        train: Utterances to learn from.
        test: Utterances to measure on; never seen in training, nor used to choose anything.
        validation: Utterances to choose the best epoch by; empty where a protocol has none.
    """

    name: str
    train: tuple[Utterance, ...]
    test: tuple[Utterance, ...]
    validation: tuple[Utterance, ...] = ()


def leave_one_session_out(utterances: Sequence[Utterance], sessions: Sequence[str] = ()) -> list[Fold]:
    """Hold out each session in turn, the papers' protocol on IEMOCAP.

    Args:
        utterances: All of a corpus.
        sessions: Sessions to hold out; empty for every one.

    Raises:
        InputError: Utterances have no session, there is only one, or a named one is not there.
    """
    known = sorted({u.session for u in utterances})
    if "" in known or len(known) < 2:
        raise InputError(f"sessions: the corpus has {known}, leave-one-session-out needs two or more, on every row")
    unknown = [session for session in sessions if session not in known]
    if unknown:
        raise InputError(f"sessions: got {', '.join(unknown)}, the corpus has {', '.join(known)}")
    return [
        Fold(
            held_out,
            tuple(u for u in utterances if u.session != held_out),
            tuple(u for u in utterances if u.session == held_out),
        )
        for held_out in (sessions or known)
    ]


def train_on_all(utterances: Sequence[Utterance]) -> Fold:
    """Hold out nothing, for the model that ships."""
    return Fold("all", tuple(utterances), ())
