"""Which utterances an epoch is made of, in an order that a seed fixes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from edgeser.corpora import Utterance
from edgeser.runtime.errors import InputError
from edgeser.training.copies import copy_key

LEVELS = ("corpus", "emotion", "speaker")
"""What an epoch can be balanced by, one within the other in the order that a recipe names them."""

Draw = tuple[int, int]
"""An utterance's index, and how often its recording was drawn before in this epoch."""


@dataclass(frozen=True)
class Sampling:
    """How an epoch is drawn.

    Attributes:
        seed: Of order and draws.
        balance: Some of `LEVELS`: equally many recordings of each corpus, in it of each emotion that it has, in that of
            each speaker. Empty for every recording once.
        size: Recordings an epoch; 0 for as many as there are.
        clean_share: Share of the draws of a recording with copies that take the recording itself.
    """

    seed: int
    balance: tuple[str, ...] = ()
    size: int = 0
    clean_share: float = 0.5

    def __post_init__(self) -> None:
        if not set(self.balance) <= set(LEVELS) or len(set(self.balance)) < len(self.balance):
            raise InputError(f"recipe: got balance {list(self.balance)}, expected of {', '.join(LEVELS)}, each once")
        if not 0.0 <= self.clean_share <= 1.0:
            raise InputError(f"recipe: got clean_share {self.clean_share}, expected 0 to 1")
        if self.size < 0:
            raise InputError(f"recipe: got epoch_size {self.size}, expected 0 or more")


class RecordingSampler(Sampler[Draw]):
    """The recordings of an epoch in a new order, each with one of its utterances drawn.

    Of a recording with copies, one is drawn: the recording itself, or any of its copies.

    A corpus may pair one recording with several transcripts; going through all pairs would show each
    recording several times an epoch and overfit it.

    Args:
        utterances: All that train.
        sampling: How they are drawn.
        rank: Which of several processes this is; each gets its share of one order.
        ranks: How many there are. All get equally many: where that does not come out, some recordings come twice.
    """

    def __init__(self, utterances: Sequence[Utterance], sampling: Sampling, rank: int = 0, ranks: int = 1) -> None:
        groups: dict[tuple[str, float, float | None], dict[tuple[int, ...], list[int]]] = {}
        for index, utterance in enumerate(utterances):
            groups.setdefault(utterance.recording, {}).setdefault(copy_key(utterance), []).append(index)
        self._groups = [list(group.values()) for group in groups.values()]
        self._names = [
            tuple(str(getattr(utterances[g[0][0]], level)) for level in sampling.balance) for g in self._groups
        ]
        self._sampling = sampling
        self._size = sampling.size or len(self._groups)
        self._rank, self._ranks = rank, ranks
        self.epoch = 0

    def __len__(self) -> int:
        return (self._size + self._ranks - 1) // self._ranks

    def __iter__(self) -> Iterator[Draw]:
        order = self.draws()
        for place in range(self._rank, len(self) * self._ranks, self._ranks):
            yield order[place % len(order)]

    def draws(self) -> list[Draw]:
        """Return all of this epoch's draws, of all processes together."""
        rng = np.random.default_rng((self._sampling.seed, self.epoch))
        if not self._sampling.balance and self._size == len(self._groups):
            recordings = [int(place) for place in rng.permutation(len(self._groups))]
        else:
            drawn = self._share(list(range(len(self._groups))), self._size, 0, rng)
            recordings = [drawn[place] for place in rng.permutation(len(drawn))]
        before: dict[int, int] = {}
        draws = []
        for recording in recordings:
            before[recording] = before.get(recording, -1) + 1
            draws.append((self._choose(self._groups[recording], rng), before[recording]))
        return draws

    def _choose(self, versions: list[list[int]], rng: np.random.Generator) -> int:
        """Draw one of a recording's utterances; the first version is the recording itself, the others are copies."""
        place = 0
        if len(versions) > 1 and rng.random() >= self._sampling.clean_share:
            place = int(rng.integers(1, len(versions)))
        return int(rng.choice(versions[place]))

    def _share(self, recordings: list[int], count: int, level: int, rng: np.random.Generator) -> list[int]:
        """Draw `count` of these recordings, equally many of each group at every level from this one on."""
        if level == len(self._sampling.balance):
            # All of them as often as they go into the count, and the rest of it drawn without repetition.
            whole, rest = divmod(count, len(recordings))
            return recordings * whole + [recordings[i] for i in rng.permutation(len(recordings))[:rest]]
        groups: dict[str, list[int]] = {}
        for recording in recordings:
            groups.setdefault(self._names[recording][level], []).append(recording)
        whole, rest = divmod(count, len(groups))
        more = set(rng.permutation(len(groups))[:rest].tolist())
        drawn: list[int] = []
        for place, name in enumerate(sorted(groups)):
            drawn += self._share(groups[name], whole + (place in more), level + 1, rng)
        return drawn
