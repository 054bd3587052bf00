"""What an epoch is made of: balanced, the same in every process and after a resumption."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeser.corpora import Utterance, read_corpus
from edgeser.runtime.errors import InputError
from edgeser.training.copies import Copy, copy_of
from edgeser.training.recipe import Recipe
from edgeser.training.sampler import LEVELS, RecordingSampler, Sampling
from edgeser.training.waveforms import AcousticCondition

# As unequal as the real ones: emotions that a corpus does not have, a speaker with one recording.
SHARES = {
    ("proxy", "R01", "angry"): 40,
    ("proxy", "R01", "sad"): 30,
    ("proxy", "R02", "sad"): 1,
    ("proxy", "R02", "happy"): 9,
    ("nemo", "N1", "happy"): 3,
    ("nemo", "N2", "angry"): 5,
    ("nemo", "N2", "sad"): 2,
    ("phones", "P1", "angry"): 1,
    ("phones", "P2", "happy"): 1,
}


def utterances(lines: int = 1) -> list[Utterance]:
    return [
        Utterance(f"{c}{s}{e}{n}{line}", Path(f"{c}{s}{e}{n}.wav"), e, speaker=s, corpus=c)
        for (c, s, e), count in SHARES.items()
        for n in range(count)
        for line in range(lines)
    ]


def counts(everything: list[Utterance], sampler: RecordingSampler, *levels: str) -> Counter[tuple[str, ...]]:
    return Counter(tuple(str(getattr(everything[index], level)) for level in levels) for index, _ in sampler)


def test_corpora_emotions_and_speakers_come_equally_often() -> None:
    everything = utterances(lines=2)
    sampler = RecordingSampler(everything, Sampling(1, LEVELS, size=1800))
    assert len(sampler) == len(list(sampler)) == 1800
    assert counts(everything, sampler, "corpus") == {("proxy",): 600, ("nemo",): 600, ("phones",): 600}
    within = counts(everything, sampler, "corpus", "emotion")
    assert {count for (corpus, _), count in within.items() if corpus != "phones"} == {200}
    assert within["phones", "angry"] == within["phones", "happy"] == 300  # it has no sad
    assert counts(everything, sampler, "corpus", "emotion", "speaker")["proxy", "sad", "R02"] == 100
    # Both lines of a recording are drawn.
    assert len({index % 2 for index, _ in sampler}) == 2


@pytest.mark.parametrize(
    ("balance", "equal"), [(("corpus",), "corpus"), (("emotion", "corpus"), "emotion"), (("speaker",), "speaker")]
)
def test_the_first_level_rules(balance: tuple[str, ...], equal: str) -> None:
    everything = utterances()
    found = counts(everything, RecordingSampler(everything, Sampling(3, balance)), equal)
    assert sum(found.values()) == len(everything)
    assert max(found.values()) - min(found.values()) <= 1


def test_a_recording_comes_again_only_where_there_are_too_few() -> None:
    everything = utterances()
    drawn = Counter(index for index, _ in RecordingSampler(everything, Sampling(1, LEVELS)))
    for index, count in drawn.items():
        cell = (everything[index].corpus, everything[index].emotion, everything[index].speaker)
        others = [drawn[i] for i, u in enumerate(everything) if (u.corpus, u.emotion, u.speaker) == cell]
        assert count - min(others) <= 1
    # A repetition says so: it is augmented otherwise.
    draws = list(RecordingSampler(everything, Sampling(1, LEVELS)))
    assert len(set(draws)) == len(draws) > len({index for index, _ in draws})


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(LEVELS), unique=True),
    st.integers(0, 300),
    st.integers(1, 4),
    st.integers(0, 5),
)
def test_processes_share_one_order_that_seed_and_epoch_fix(
    balance: list[str], size: int, ranks: int, epoch: int
) -> None:
    everything, sampling = utterances(), Sampling(7, tuple(balance), size)
    whole = RecordingSampler(everything, sampling)
    shares = [RecordingSampler(everything, sampling, rank, ranks) for rank in range(ranks)]
    for sampler in (whole, *shares):
        sampler.epoch = epoch
    parts = [list(share) for share in shares]
    assert {len(part) for part in parts} == {-(-len(whole) // ranks)}
    dealt = [part[place] for place in range(len(parts[0])) for part in parts]
    assert dealt[: len(whole)] == list(whole)
    assert len(whole) == (size or len(everything))
    later = RecordingSampler(everything, sampling)
    later.epoch = epoch + 1
    assert list(later) != list(whole) or len(whole) < 3


def test_without_balance_every_recording_comes_once() -> None:
    everything = utterances(lines=3)
    draws = list(RecordingSampler(everything, Sampling(1)))
    assert len({everything[index].audio for index, _ in draws}) == len(draws) == len(everything) // 3
    assert {before for _, before in draws} == {0}


def test_an_epoch_of_another_size(corpus: str) -> None:
    everything = read_corpus(corpus)
    few = [index for index, _ in RecordingSampler(everything, Sampling(1, size=5))]
    assert len(set(few)) == len(few) == 5
    many = Counter(index for index, _ in RecordingSampler(everything, Sampling(1, size=20)))
    assert sorted(many.values()) == [2] * 4 + [3] * 4


def test_a_recording_is_drawn_itself_or_as_one_of_its_copies() -> None:
    everything = utterances(lines=2)
    copies = [copy_of(u, AcousticCondition(), number) for u in everything for number in (1, 2, 3)]
    heard = [*everything, *copies]
    for balance in ((), LEVELS):
        drawn: Counter[int] = Counter()
        sampler = RecordingSampler(heard, Sampling(1, balance, clean_share=0.4))
        assert len(sampler) == len(everything) // 2, "copies make no epoch longer"
        for sampler.epoch in range(30):
            drawn.update(heard[i].copy if isinstance(heard[i], Copy) else 0 for i, _ in sampler)
        shares = [drawn[number] / drawn.total() for number in range(4)]
        np.testing.assert_allclose(shares, [0.4, 0.2, 0.2, 0.2], atol=0.04)
    for share, expected in ((1.0, {0}), (0.0, {1, 2, 3})):
        found = RecordingSampler(heard, Sampling(1, clean_share=share))
        assert {heard[i].copy if isinstance(heard[i], Copy) else 0 for i, _ in found} == expected
    # Without copies the share changes no draw.
    assert list(RecordingSampler(everything, Sampling(1, clean_share=0.0))) == list(
        RecordingSampler(everything, Sampling(1))
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"balance": ["corpus", "voice"]}, r"balance \['corpus', 'voice'\], expected of corpus, emotion, speaker"),
        ({"balance": ["corpus", "corpus"]}, "each once"),
        ({"balance": "corpus"}, "balance: got 'corpus', expected a list of names"),
        ({"balance": [1]}, "balance: got 1, expected text"),
        ({"epoch_size": -1}, "epoch_size -1, expected 0 or more"),
        ({"clean_share": 1.5}, "clean_share 1.5, expected 0 to 1"),
        ({"borrow": 1.5}, "borrow 1.5, expected 0 to 1"),
    ],
)
def test_a_recipe_that_cannot_be_drawn_by(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe.from_dict(values)
    assert Recipe.from_dict({"balance": ["corpus", "emotion"], "epoch_size": 9}).sampling == Sampling(
        1, ("corpus", "emotion"), 9
    )
