"""Tests of which rows of a recording are speech, and of its level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeser.runtime.audio import Samples
from edgeser.runtime.frontends.speech_rows import at_speech_level, rows_of_speech

HOP = 320


def test_what_is_quiet_is_a_pause(speech: Samples) -> None:
    heard = speech[16_000:32_000]
    quiet = np.concatenate([heard, heard * 0.01, np.zeros(3_200, np.float32), heard])  # 40 dB under it
    rows = rows_of_speech(quiet, HOP, HOP, 30.0)
    own = rows_of_speech(heard, HOP, HOP, 30.0)
    np.testing.assert_array_equal(rows, np.concatenate([own, own + 110]))
    assert 0 < own.size <= 50


def test_a_level_changes_nothing(speech: Samples) -> None:
    rows = rows_of_speech(speech, HOP, HOP, 30.0)
    for level in (1e-3, 0.5, 4.0):
        np.testing.assert_array_equal(rows_of_speech(speech * np.float32(level), HOP, HOP, 30.0), rows)


def test_digital_silence_is_one_long_row_of_speech() -> None:
    np.testing.assert_array_equal(rows_of_speech(np.zeros(3_200, np.float32), HOP, HOP, 30.0), np.arange(10))


@settings(max_examples=200, deadline=None)
@given(
    arrays(np.float32, st.integers(400, 4_000), elements=st.floats(-1, 1, width=32)),
    st.sampled_from([(320, 320), (160, 400)]),
    st.floats(0.5, 100.0),
)
def test_any_samples(samples: Samples, sizes: tuple[int, int], pause_db: float) -> None:
    hop, window = sizes
    rows = rows_of_speech(samples, hop, window, pause_db)
    powers = [
        float(np.sum(np.square(samples[start : start + window], dtype=np.float64)))
        for start in range(0, samples.size - window + 1, hop)
    ]
    assert np.argmax(powers) in rows
    assert (np.diff(rows) > 0).all()
    kept = np.array(powers)[rows]
    assert (kept >= max(powers) * 10 ** (-pause_db / 10) * (1 - 1e-6) - 1e-12).all()


def test_speech_is_brought_to_a_level(speech: Samples) -> None:
    padded = np.concatenate([np.zeros(32_000, np.float32), speech, np.zeros(32_000, np.float32)])
    brought = at_speech_level(padded, HOP, HOP, -26.0, -26.0)
    whole = brought[: brought.size // HOP * HOP]
    rows = whole.reshape(-1, HOP)[rows_of_speech(brought, HOP, HOP, 30.0)]
    assert 10 * np.log10(np.mean(np.square(rows, dtype=np.float64))) == pytest.approx(-26.0, abs=0.01)
    assert brought.dtype == np.float32
    for level in (1e-4, 0.5, 4.0):
        np.testing.assert_allclose(
            at_speech_level(padded * np.float32(level), HOP, HOP, -26.0, -26.0), brought, rtol=1e-4
        )


def test_between_the_levels_nothing_changes(speech: Samples) -> None:
    at_26 = at_speech_level(speech, HOP, HOP, -26.0, -26.0)
    np.testing.assert_array_equal(at_speech_level(at_26, HOP, HOP, -32.0, -20.0), at_26)
    np.testing.assert_allclose(at_speech_level(at_26, HOP, HOP, -20.0, -10.0), at_26 * 10 ** (6 / 20), rtol=1e-4)


def test_digital_silence_has_no_level() -> None:
    np.testing.assert_array_equal(at_speech_level(np.zeros(3_200, np.float32), HOP, HOP, -26.0, -26.0), np.zeros(3_200))
