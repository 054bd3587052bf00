from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from edgeser.runtime.errors import BundleError, InputError
from edgeser.runtime.frontends import Statistics

ROWS = (np.random.default_rng(0).normal(size=(500, 3)) * [1, 10, 0.1] + [0, -100, 5]).astype(np.float32)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 500), max_size=6))
def test_measured_in_parts_as_in_one(cuts: list[int]) -> None:
    """Whatever the parts, empty ones too; within 1e-5 of NumPy's float64."""
    statistics = Statistics.of(np.split(ROWS, sorted(cuts)))
    np.testing.assert_allclose(statistics.mean, ROWS.astype(np.float64).mean(axis=0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(statistics.std, ROWS.astype(np.float64).std(axis=0), rtol=1e-5)
    assert (statistics.mean.dtype, statistics.std.dtype) == (np.float32, np.float32)


def test_a_large_offset_keeps_the_deviation() -> None:
    """Sums of squares would lose it: the mean is a million deviations away."""
    rows = np.array([[1e6], [1e6 + 1], [1e6 + 2]], np.float32)
    assert Statistics.of([rows, rows]).std[0] == pytest.approx(np.sqrt(2 / 3), rel=1e-4)


def test_a_constant_column_stays_finite() -> None:
    statistics = Statistics.of([np.full((5, 2), 3, np.float32)])
    statistics.check(2)
    assert not statistics.normalise(np.full((4, 2), 3, np.float32)).any()


def test_no_rows() -> None:
    for corpus in ([], [np.zeros((0, 3), np.float32)]):
        with pytest.raises(InputError, match="statistics: got no rows, expected a corpus's"):
            Statistics.of(corpus)


def test_normalised_rows() -> None:
    rows = Statistics.of([ROWS]).normalise(ROWS)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(rows.std(axis=0), 1, atol=1e-4)
    np.testing.assert_array_equal(Statistics.none(3).normalise(ROWS), ROWS)


def test_bytes_there_and_back() -> None:
    statistics = Statistics.of([ROWS])
    back = Statistics.from_bytes(statistics.to_bytes())
    np.testing.assert_array_equal(back.mean, statistics.mean)
    np.testing.assert_array_equal(back.std, statistics.std)
    column = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(3, 2))[:, 1] + 1  # not contiguous in memory
    strided = Statistics.from_bytes(Statistics(column[::2], column[::2]).to_bytes())
    np.testing.assert_array_equal(strided.mean, column[::2])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x" * 20,
        Statistics.none(3).to_bytes()[:-1],
        save({"mean": np.zeros(3, np.float32)}),
        save({"mean": np.zeros(3, np.float32), "std": np.ones(3, np.complex64)}),
        save({"mean": np.zeros(3, np.int8), "std": np.ones(3, np.float32)}),
    ],
)
def test_bytes_that_are_something_else(content: bytes) -> None:
    with pytest.raises(BundleError, match=r"statistics\.safetensors is not usable") as caught:
        Statistics.from_bytes(content)
    assert "\n" not in str(caught.value)
