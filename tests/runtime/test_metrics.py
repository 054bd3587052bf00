from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional import classification as reference

from edgeser.runtime.errors import InputError
from edgeser.runtime.labels import FOUR_EMOTIONS, NO_SPEECH
from edgeser.runtime.metrics import measure

PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)


def named(indices: list[int]) -> list[str]:
    return [FOUR_EMOTIONS[i] for i in indices]


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_agrees_with_torchmetrics(pairs: list[tuple[int, int]]) -> None:
    predicted, actual = map(list, zip(*pairs, strict=True))
    guess, truth = torch.tensor(predicted), torch.tensor(actual)
    recall = reference.multiclass_recall(guess, truth, 4, average="none").numpy()
    present = sorted(set(actual))
    got = measure(named(predicted), named(actual), FOUR_EMOTIONS)
    assert got.wa == pytest.approx(reference.multiclass_accuracy(guess, truth, 4, average="micro").item(), abs=1e-6)
    assert got.wf1 == pytest.approx(reference.multiclass_f1_score(guess, truth, 4, average="weighted").item(), abs=1e-6)
    assert got.ua == pytest.approx(recall[present].mean(), abs=1e-6)
    assert got.recall == pytest.approx({FOUR_EMOTIONS[i]: recall[i] for i in present}, abs=1e-6)
    np.testing.assert_array_equal(got.confusion, reference.multiclass_confusion_matrix(guess, truth, 4).numpy())
    assert got.count == len(pairs)
    if len(present) == 4:
        macro = reference.multiclass_recall(guess, truth, 4, average="macro").item()
        assert got.ua == pytest.approx(macro, abs=1e-6)


def test_a_worked_example() -> None:
    got = measure(["sad", "sad", "angry", "happy"], ["sad", "angry", "angry", "angry"], FOUR_EMOTIONS)
    assert got.as_dict() == {
        "utterances": 4,
        "wa": 0.5,
        "ua": 0.6667,  # (1/3 + 1/1) / 2: happy and neutral have no utterances
        "wf1": 0.5417,  # (3 * 0.5 + 1 * 2/3) / 4
        "recall": {"angry": 0.3333, "sad": 1.0},
        "confusion": [[1, 1, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]],
        "labels": list(FOUR_EMOTIONS),
    }


def test_where_no_speech_was_found_nothing_is_right() -> None:
    got = measure(["sad", NO_SPEECH, "angry", NO_SPEECH], ["sad", "sad", "angry", "happy"], FOUR_EMOTIONS)
    assert got.count == 4
    assert got.wa == 0.5
    assert got.ua == pytest.approx((1 + 0.5 + 0) / 3)
    assert got.wf1 == pytest.approx((1 * 1 + 2 * 2 / 3 + 0) / 4)
    assert got.recall == {"angry": 1.0, "happy": 0.0, "sad": 0.5}
    assert got.unanswered == (0, 1, 0, 1)
    assert got.as_dict()["unanswered"] == [0, 1, 0, 1]
    assert sum(map(sum, got.confusion)) == 2
    with pytest.raises(InputError, match="got no speech"):
        measure(["sad"], [NO_SPEECH], FOUR_EMOTIONS)


@pytest.mark.parametrize(("predicted", "actual"), [([], []), (["sad"], []), (["sad"], ["sad", "sad"])])
def test_nothing_to_compare_is_refused(predicted: list[str], actual: list[str]) -> None:
    with pytest.raises(InputError, match=f"got {len(predicted)} predictions for {len(actual)} labels"):
        measure(predicted, actual, FOUR_EMOTIONS)


@pytest.mark.parametrize(("predicted", "actual"), [(["calm"], ["sad"]), (["sad"], ["calm"])])
def test_unknown_label_is_refused(predicted: list[str], actual: list[str]) -> None:
    with pytest.raises(InputError, match="got calm, the model knows angry, happy, neutral, sad"):
        measure(predicted, actual, FOUR_EMOTIONS)
