from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeser.runtime.asr.whisper.rules import DecodingOptions, Rules, repeats, strays
from edgeser.runtime.asr.whisper.tokens import WhisperTokens
from edgeser.runtime.errors import InputError

Tokens = Callable[[str], WhisperTokens]


@pytest.fixture(scope="module")
def english(tokens: Tokens) -> WhisperTokens:
    return tokens("whisper-tiny.en")


def noise(tokens: WhisperTokens, seed: int, times: float = 0.0) -> np.ndarray:
    """Logits of which timestamps have so much more."""
    logits = np.random.default_rng(seed).normal(0, 3, tokens.count).astype(np.float32)
    logits[tokens.first_timestamp :] += times
    return logits


def say(tokens: WhisperTokens, rules: Rules, seed: int, most: int = 40) -> list[int]:
    said: list[int] = []
    while len(said) < most and tokens.end not in said:
        logits = noise(tokens, seed + len(said), times=(-9.0, 0.0)[seed % 2])
        logits[tokens.end] += 6.0
        said.append(int(rules.apply(logits, said).argmax()))
    return said


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_whatever_the_decoder_wants_the_grammar_holds(seed: int, english: WhisperTokens) -> None:
    """A timestamp within a second, then pairs around text, in order and within the window; no marks."""
    first, end = english.first_timestamp, english.end
    said = say(english, Rules(english, DecodingOptions(), 4.0, 3.0), seed)
    times = [english.seconds(token) for token in said if token >= first]
    assert said[0] >= first
    assert times[0] <= 1.0
    assert times == sorted(times)
    assert times[-1] <= 4.0
    texts = [token for token in said if token < first]
    assert not set(texts) & set(english.non_speech)
    assert all(token <= end for token in texts)
    for before, token, after in zip(said, said[1:], said[2:], strict=False):
        if token >= first and before < first:  # one that closes
            assert after >= first or after == end
            assert english.seconds(token) <= 2.7 or after == end
        if token >= first and before >= first:  # one that opens
            assert after < first


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), length=st.integers(0, 8))
def test_the_timestamp_rules_are_transformers(seed: int, length: int, english: WhisperTokens) -> None:
    from transformers import GenerationConfig
    from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

    rules = Rules(english, DecodingOptions(), 30.0, 40.0)
    said = say(english, rules, seed, length)
    if english.end in said:
        said.pop()
    config = GenerationConfig(eos_token_id=english.end, bos_token_id=english.end, max_initial_timestamp_index=50)
    config.no_timestamps_token_id = english.no_timestamps
    theirs = WhisperTimeStampLogitsProcessor(config, begin_index=1)
    logits = noise(english, seed + 99, times=(-9.0, 0.0, 5.0)[seed % 3])
    # What only ours forbids they must not see either: it takes part in the sums.
    logits[[*english.non_speech, *range(english.end + 1, english.first_timestamp)]] = -np.inf
    ids = torch.tensor([[*english.prompt, *said]])
    expected = theirs(ids, torch.from_numpy(logits.copy())[None])[0].numpy()
    np.testing.assert_array_equal(rules.apply(logits, said), expected)


SAME = ["kids", "are", "talking", "by", "the", "door", "."]


@pytest.mark.parametrize(
    ("said", "rows", "kept"),
    [
        (SAME, [50, 70, 85, 100, 110, 120, 200], None),
        # It begins again at the same rows: stopped at the third piece, whose first was found in the silence.
        ([*SAME, *SAME[:2]], [50, 70, 85, 100, 110, 120, 200, 198, 68], None),
        ([*SAME, *SAME[:3]], [50, 70, 85, 100, 110, 120, 200, 198, 68, 90], 7),
        # Found late: only the third to fifth are at the same rows.
        ([*SAME, *SAME[:5]], [50, 70, 85, 100, 110, 120, 200, 198, 198, 90, 104, 108], 7),
        # Said again, later.
        ([*SAME, *SAME], [50, 70, 85, 100, 110, 120, 200, 250, 270, 285, 300, 310, 320, 400], None),
        # A loop of one piece, at one row, and said again and again.
        (["no", ".", "no", ".", "no"], [10, 20, 11, 20, 12], 2),
        (["no"] * 4, [10, 30, 50, 70], None),
        (["no"] * 5, [10, 30, 50, 70, 90], 1),
        (["of", "the", "door", "of", "the"], [1, 2, 3, 1, 2], None),
        ([], [], None),
    ],
)
def test_repeats(said: list[str], rows: list[int], kept: int | None) -> None:
    assert repeats(said, lambda: rows, 4) == kept


@settings(max_examples=300, deadline=None)
@given(said=st.lists(st.sampled_from("abc"), max_size=20), data=st.data())
def test_what_is_kept_is_the_beginning(said: list[str], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, 460), min_size=len(said), max_size=len(said)))
    kept = repeats(said, lambda: rows, 4)
    assert kept is None or 0 < kept < len(said)


def test_options_that_cannot_be() -> None:
    for wrong in ({"max_tokens_per_s": 0.0}, {"spare_tokens": -1}, {"max_repeats": 0}):
        with pytest.raises(InputError, match="expected above 0, at least 0, at least 1"):
            DecodingOptions(**wrong)
    for wrong in ({"max_initial_timestamp_s": -1.0}, {"no_speech_penalty": -0.1}):
        with pytest.raises(InputError, match="expected neither below 0"):
            DecodingOptions(**wrong)


@pytest.mark.parametrize(
    ("text", "audio", "kept"),
    [
        # What tiny.en found in recordings of LJSpeech and HiFiTTS: each piece with its row.
        ("f@4 ailing@8 further@32 news@47 ,@96 failing@2", 65, 5),
        ("not@5 in@17 the@24 skies@39 ,@68 but@97", 56, 5),
        ("easy@13 to@19 die@37 by@51 water@69 than@81 on@95 iron@106 .@112 it@1 's@12 easier@15", 126, 9),
        ("agency@6 involved@47 .@72 the@0 emergency@1 involved@45 .@25", 76, 3),
        # The federal is found before the, and and before fell: nothing strays.
        ("of@347 the@366 federal@364 agencies@392 from@409", 460, None),
        ("and@16 fell@23 and@37 fell@49 and@43 towards@58 our@75 sovereign@94 lord@115 .@145", 134, None),
        ("so@10 said@90 he@12 again@120", 150, None),  # a single one in the wrong place
        (".@100", 20, None),
    ],
)
def test_a_text_that_leaves_what_is_heard(text: str, audio: int, kept: int | None) -> None:
    pieces = [piece.split("@") for piece in text.split()]
    assert strays([text for text, _ in pieces], [int(row) for _, row in pieces], audio) == kept


def test_nothing_strays_from_nothing() -> None:
    assert strays([], [], 10) is None
