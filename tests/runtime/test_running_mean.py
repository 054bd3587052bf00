"""The state of a running mean: arithmetic, files, copies."""

from __future__ import annotations

import copy
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from edgeser.runtime.errors import InputError
from edgeser.runtime.running_mean import RunningMean, _seal
from edgeser.runtime.tensors import to_safetensors

ENCODER, OTHER = "ab" * 32, "cd" * 32
ROWS = hnp.arrays(np.float64, st.tuples(st.integers(1, 12), st.just(3)), elements=st.floats(-50, 50))


def heard(rows: NDArray[np.float64]) -> RunningMean:
    state = RunningMean(ENCODER, np.zeros(rows.shape[1]))
    for row in rows:
        state.add(row)
    return state


def same(one: RunningMean, other: RunningMean) -> bool:
    return (one.encoder, one.count) == (other.encoder, other.count) and np.array_equal(one.mean, other.mean)


@given(ROWS, st.floats(0.1, 1000))
def test_it_is_the_mean_of_what_was_added_pulled_to_zero_by_the_prior(rows: NDArray[np.float64], prior: float) -> None:
    state = heard(rows)
    assert state.count == len(rows)
    np.testing.assert_allclose(state.mean, rows.mean(axis=0), atol=1e-12)
    shift = state.shift(prior)
    assert shift.dtype == np.float32
    np.testing.assert_allclose(shift, rows.sum(axis=0) / (len(rows) + prior), atol=1e-5)


@given(ROWS, ROWS)
def test_merged_states_are_one_that_heard_both(one: NDArray[np.float64], other: NDArray[np.float64]) -> None:
    merged = heard(one)
    merged.merge(heard(other))
    together = heard(np.concatenate([one, other]))
    assert merged.count == together.count
    np.testing.assert_allclose(merged.mean, together.mean, atol=1e-12)


@given(ROWS)
def test_what_was_saved_pickled_or_copied_is_the_same_and_goes_its_own_way(rows: NDArray[np.float64]) -> None:
    import tempfile

    state = heard(rows)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mine.state"
        state.save(file)
        assert [path.name for path in Path(folder).iterdir()] == ["mine.state"]
        others = [RunningMean.load(file), pickle.loads(pickle.dumps(state)), state.copy(), copy.deepcopy(state)]
    for other in others:
        assert same(other, state)
        other.add(np.ones(3))
        assert other.count == state.count + 1


def test_nothing_heard_takes_nothing_out() -> None:
    state = RunningMean(ENCODER, np.zeros(4))
    assert not state.shift(5.0).any()
    state.merge(RunningMean(ENCODER, np.zeros(4)))
    assert state.count == 0


def test_a_thousand_million_utterances_still_count_one_more() -> None:
    state = RunningMean(ENCODER, np.full(2, 0.5), 10**9)
    state.add(np.full(2, 1.5))
    assert state.count == 10**9 + 1
    np.testing.assert_allclose(state.mean - 0.5, 1e-9, rtol=1e-5)
    with pytest.raises(InputError, match="more than 9007199254740992 utterances"):
        RunningMean(ENCODER, np.zeros(2), 2**53).add(np.zeros(2))


@pytest.mark.parametrize("bad", [np.full(3, np.nan), np.array([0.0, np.inf, 0.0]), np.zeros(2), np.zeros((1, 3))])
def test_what_is_no_mean_is_refused_and_changes_nothing(bad: NDArray[np.float64]) -> None:
    state = heard(np.ones((2, 3)))
    with pytest.raises(InputError, match=r"state: got a mean of shape .*, expected \(3,\), finite"):
        state.add(bad)
    assert same(state, heard(np.ones((2, 3))))


@pytest.mark.parametrize(
    ("mean", "count", "message"),
    [
        (np.zeros(3), -1, "a count of -1"),
        (np.ones(3), 0, "and 0 of no utterances"),
        (np.full(3, np.nan), 2, "finite"),
        (np.zeros((3, 3)), 2, r"shape \(3, 3\)"),
    ],
)
def test_impossible_states(mean: NDArray[np.float64], count: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RunningMean(ENCODER, mean, count)


def test_another_encoders_state_is_refused() -> None:
    state = heard(np.ones((2, 3)))
    message = "state: is of encoder abababababab with 3 columns, the bundle's is cdcdcdcdcdcd with 3: name another file"
    with pytest.raises(InputError, match=message):
        state.check(OTHER, 3)
    with pytest.raises(InputError, match="with 3 columns, the bundle's is abababababab with 4"):
        state.check(ENCODER, 4)
    with pytest.raises(InputError, match="is of encoder cdcdcdcdcdcd"):
        state.merge(RunningMean(OTHER, np.zeros(3)))


TENSORS = {
    "count": np.array([2], np.int64),
    "mean": np.ones(3),
    "encoder": np.zeros(32, np.uint8),
}


@pytest.mark.parametrize(
    "changed",
    [
        {"count": np.array([-1], np.int64)},
        {"count": np.array([2.0])},
        {"count": np.array([2, 2], np.int64)},
        {"count": np.array([0], np.int64)},
        {"mean": np.array([1.0, np.nan, 1.0])},
        {"mean": np.ones(3, np.float32)},
        {"mean": np.ones((1, 3))},
        {"mean": np.ones(0)},
        {"encoder": np.zeros(31, np.uint8)},
        {"more": np.ones(1)},
    ],
)
def test_a_file_that_holds_something_else_is_refused_in_one_line(
    changed: dict[str, NDArray[np.generic]], tmp_path: Path
) -> None:
    file = tmp_path / "a.state"
    tensors = {**TENSORS, **changed}
    file.write_bytes(to_safetensors({**tensors, "seal": _seal(tensors)}))
    refused(file)
    file.write_bytes(to_safetensors({**TENSORS, "seal": _seal(TENSORS)}))
    assert RunningMean.load(file).count == 2


def refused(file: Path) -> None:
    with pytest.raises(InputError) as caught:
        RunningMean.load(file)
    assert str(caught.value).startswith(f"{file}: is no state of a running mean, or damaged (")
    assert "\n" not in str(caught.value)


@settings(max_examples=60)
@given(st.data())
def test_a_damaged_file_is_refused_where_it_says_anything_else(data: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.state"
        whole = heard(np.ones((2, 3)))
        whole.save(file)
        content = bytearray(file.read_bytes())
        if data.draw(st.booleans()):
            del content[data.draw(st.integers(0, len(content) - 1)) :]
        else:
            content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        file.write_bytes(content)
        try:
            state = RunningMean.load(file)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert same(state, whole)


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.state: No such file"):
        RunningMean.load(tmp_path / "none.state")
    with pytest.raises(InputError, match="Is a directory"):
        RunningMean.load(tmp_path)
    (tmp_path / "empty.state").touch()
    refused(tmp_path / "empty.state")
    big = tmp_path / "big.state"
    with big.open("wb") as opened:
        opened.truncate(1 << 33)
    with pytest.raises(InputError, match="more than 16,777,216 bytes"):
        RunningMean.load(big)
    with pytest.raises(InputError, match="its folder does not exist"):
        heard(np.ones((1, 3))).save(tmp_path / "no" / "a.state")


def test_threads_that_add_to_one_state_lose_nothing() -> None:
    state = RunningMean(ENCODER, np.zeros(200))
    each = [np.full(200, float(number)) for number in range(8)]
    threads = [threading.Thread(target=lambda mean=mean: [state.add(mean) for _ in range(200)]) for mean in each]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state.count == 1600
    np.testing.assert_allclose(state.mean, 3.5, atol=1e-9)
