"""Which utterances train, which choose the best epoch and which test: the papers' protocols, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from edgeser.corpora.utterance import Utterance
from edgeser.runtime.errors import InputError

SESSIONS = "leave-one-session-out"
SPEAKERS = "leave-one-speaker-out"
CORPORA = "leave-one-corpus-out"
ALL = "all"
UNSEEN = "test-only"
"""The fold that trains on all that may be trained on and tests on what may only be tested on."""

_RANDOM_FOLDS = 5
_RANDOM_SHARES = (0.25, 0.2)  # validation and test, the rest trains
_CLASS_SHARES = (0.1, 0.2)
_SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Fold:
    """One division of a corpus.

    Attributes:
        name: The session, speaker or corpus that tests; of random splits a number; `official`, `split`, `all`, or
            `UNSEEN` for what may only be tested on.
        train: Utterances to learn from.
        test: Utterances to measure on; never seen in training, nor used to choose anything.
        validation: Utterances to choose the best epoch by; empty where a protocol has none.
    """

    name: str
    train: tuple[Utterance, ...]
    test: tuple[Utterance, ...]
    validation: tuple[Utterance, ...] = ()

    def __post_init__(self) -> None:
        if "/" in self.name or self.name in ("", ".", ".."):
            raise InputError(f"fold: got name {self.name!r}, expected one that can stand in a folder's: rename it")


Protocol = Callable[[Sequence[Utterance], int], list[Fold]]


def make_folds(protocol: str, utterances: Sequence[Utterance], names: Sequence[str] = (), seed: int = 1) -> list[Fold]:
    """Divide a corpus by a protocol.

    Args:
        protocol: One of `PROTOCOLS`.
        utterances: All that take part, each with its emotion.
        names: Folds that are wanted; empty for every one.
        seed: Of the protocols that draw.

    Raises:
        InputError: There is no such protocol or fold, the corpus lacks what the protocol goes by, or has utterances
            that may only be tested on, which this protocol would train on.
    """
    kept = [u for u in utterances if u.is_test_only]
    if kept and check_protocol(protocol) not in (CORPORA, ALL):
        raise InputError(
            f"{protocol}: {len(kept)} of {len(utterances)} utterances may only be tested on ({kept[0].id}: role "
            f"{kept[0].role}): leave them out, in a manifest by ?role!=test, or use {CORPORA}"
        )
    folds = {fold.name: fold for fold in PROTOCOLS[check_protocol(protocol)](utterances, seed)}
    unknown = [name for name in names if name not in folds]
    if unknown:
        raise InputError(f"folds: got {', '.join(unknown)}, {protocol} gives {', '.join(folds)}")
    return [folds[name] for name in names or folds]


def check_protocol(name: str) -> str:
    """Return the name of a protocol.

    Raises:
        InputError: It is none.
    """
    if name not in PROTOCOLS:
        raise InputError(f"protocol: got {name!r}, expected one of {', '.join(PROTOCOLS)}")
    return name


def leave_one_session_out(utterances: Sequence[Utterance], seed: int = 1) -> list[Fold]:
    """Hold out each session in turn, as KS-Transformer and DropFormer do on IEMOCAP."""
    groups = _groups(utterances, SESSIONS, "session", 2)
    return [Fold(name, tuple(u for u in utterances if u.session != name), test) for name, test in groups.items()]


def leave_one_speaker_out(utterances: Sequence[Utterance], seed: int = 1) -> list[Fold]:
    """Hold out each speaker in turn, for corpora without sessions such as RAVDESS and EmoDB."""
    groups = _groups(utterances, SPEAKERS, "speaker", 2)
    return [Fold(name, tuple(u for u in utterances if u.speaker != name), test) for name, test in groups.items()]


def leave_one_corpus_out(utterances: Sequence[Utterance], seed: int = 1) -> list[Fold]:
    """Hold out each corpus in turn; what may only be tested on is tested by one more fold, which trains on the rest.

    No line of dialogue should stand in two corpora: words would then be heard before, though no voice was.
    """
    ours, kept = (tuple(u for u in utterances if u.is_test_only == is_kept) for is_kept in (False, True))
    groups = _groups(ours, CORPORA, "corpus", 1 if kept else 2)
    if kept and UNSEEN in groups:
        raise InputError(f"{CORPORA}: a corpus is called {UNSEEN}, which is the name of a fold: rename it")
    # The only corpus to train on cannot be held out.
    held_out = groups if len(groups) > 1 else {}
    folds = [Fold(name, tuple(u for u in ours if u.corpus != name), test) for name, test in held_out.items()]
    return [*folds, Fold(UNSEEN, ours, kept)] if kept else folds


def rotating(utterances: Sequence[Utterance], seed: int = 1) -> list[Fold]:
    """Let each session test in turn while the next one validates (Multilevel Transformer: 3, 1 and 1 of five)."""
    groups = list(_groups(utterances, "rotating", "session", 3).items())
    folds = []
    for place, (name, test) in enumerate(groups):
        follower, validation = groups[(place + 1) % len(groups)]
        train = tuple(u for u in utterances if u.session not in (name, follower))
        folds.append(Fold(name, train, test, validation))
    return folds


def random_splits(utterances: Sequence[Utterance], seed: int = 1) -> list[Fold]:
    """Draw five splits of 0.55, 0.25 and 0.2 for training, validation and test (He et al., section 3.1).

    Recordings are drawn, so that all utterances of one recording are on one side. The five test splits overlap.
    """
    recordings = _recordings(utterances)
    folds = []
    for number in range(1, _RANDOM_FOLDS + 1):
        order = np.random.default_rng((seed, number)).permutation(len(recordings))
        parts = _cut([recordings[i] for i in order], _RANDOM_SHARES, "random: the corpus")
        folds.append(_fold(str(number), utterances, parts))
    return folds


def per_class(utterances: Sequence[Utterance], seed: int = 1) -> list[Fold]:
    """Split each emotion 7, 1 and 2 for training, development and test (KS-Transformer on LSSED).

    Recordings are drawn, so that all utterances of one recording are on one side; one counts with the emotion that
    most of its utterances have.
    """
    classes: dict[str, list[_Recording]] = {}
    for recording in _recordings(utterances):
        emotion = Counter(str(u.emotion) for u in recording).most_common(1)[0][0]
        classes.setdefault(emotion, []).append(recording)
    parts: tuple[list[_Recording], ...] = ([], [], [])
    for place, emotion in enumerate(sorted(classes)):
        order = np.random.default_rng((seed, place)).permutation(len(classes[emotion]))
        drawn = [classes[emotion][i] for i in order]
        for part, some in zip(parts, _cut(drawn, _CLASS_SHARES, f"per-class: {emotion}"), strict=True):
            part.extend(some)
    return [_fold("split", utterances, parts)]


def official(utterances: Sequence[Utterance], seed: int = 1) -> list[Fold]:
    """Take the corpus's own training, development and test splits, as MELD has them."""
    others = [u for u in utterances if u.split not in _SPLITS]
    if others:
        raise InputError(
            f"official: {len(others)} utterances have another split than {', '.join(_SPLITS)} "
            f"({others[0].id}: {others[0].split!r}): exclude them, or use another protocol, for example random"
        )
    parts = {name: tuple(u for u in utterances if u.split == name) for name in _SPLITS}
    missing = [name for name in _SPLITS if not parts[name]]
    if missing:
        raise InputError(
            f"official: the corpus has no utterances with split {', '.join(missing)}, expected {', '.join(_SPLITS)}: "
            "use another protocol, for example random"
        )
    return [Fold("official", parts["train"], parts["test"], parts["dev"])]


def train_on_all(utterances: Sequence[Utterance], seed: int = 1) -> list[Fold]:
    """Hold out nothing but what may only be tested on, for the model that ships."""
    kept = tuple(u for u in utterances if u.is_test_only)
    return [Fold(ALL, tuple(u for u in utterances if not u.is_test_only), kept)]


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        SESSIONS: leave_one_session_out,
        SPEAKERS: leave_one_speaker_out,
        CORPORA: leave_one_corpus_out,
        "rotating": rotating,
        "random": random_splits,
        "per-class": per_class,
        "official": official,
        ALL: train_on_all,
    }
)
"""What `--protocol` takes; a seed matters to `random` and `per-class` alone."""

_Recording = tuple[Utterance, ...]


def _groups(utterances: Sequence[Utterance], protocol: str, what: str, least: int) -> dict[str, _Recording]:
    """Group utterances by session, speaker or corpus, in the order of their names."""
    groups: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        groups.setdefault(getattr(utterance, what), []).append(utterance)
    if "" in groups or len(groups) < least:
        nameless = len(groups.pop("", []))
        several, other = ("corpora" if what == "corpus" else f"{what}s"), (SPEAKERS if what != "speaker" else "random")
        raise InputError(
            f"{protocol}: the corpus has {len(groups)} {several} and {nameless} utterances without one, expected "
            f"{least} or more {several} and one on every row: use another protocol, for example {other}"
        )
    return {name: tuple(groups[name]) for name in sorted(groups)}


def _recordings(utterances: Sequence[Utterance]) -> list[_Recording]:
    """Group utterances by recording, in an order that does not depend on the corpus's."""
    groups: dict[tuple[str, float, float | None], list[Utterance]] = {}
    for utterance in sorted(utterances, key=lambda u: u.id):
        groups.setdefault(utterance.recording, []).append(utterance)
    return [tuple(group) for group in groups.values()]


def _cut(recordings: list[_Recording], shares: tuple[float, float], what: str) -> tuple[list[_Recording], ...]:
    """Cut shuffled recordings into training, validation and test, none of them empty."""
    validation, test = (max(1, round(share * len(recordings))) for share in shares)
    if len(recordings) < validation + test + 1:
        raise InputError(
            f"{what} has {len(recordings)} recordings, expected 3 or more: one to train, validate and test"
        )
    return recordings[validation + test :], recordings[:validation], recordings[validation : validation + test]


def _fold(name: str, utterances: Sequence[Utterance], parts: tuple[list[_Recording], ...]) -> Fold:
    """Make a fold of recordings, its utterances in the corpus's order."""
    train, validation, test = ({u.id for recording in part for u in recording} for part in parts)
    return Fold(
        name,
        tuple(u for u in utterances if u.id in train),
        tuple(u for u in utterances if u.id in test),
        tuple(u for u in utterances if u.id in validation),
    )
