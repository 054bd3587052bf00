"""Two passes: neither order nor workers nor a run that was cut off changes an answer."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeser.runtime.errors import EdgeSerError, InputError
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.scoring import InProcess, Job, Plan, Recording, Scorer, Setup, Workers, journal_path, score_to_file
from edgeser.runtime.scoring.jobs import mean_in
from edgeser.runtime.scoring.means import Means

RUN = Plan("run", 2.0, "ab" * 32)


@pytest.fixture(scope="module")
def centered_setup(centered: Path) -> Setup:
    return Setup(centered, engine="onnxruntime", asr="none", normalize="run")


@pytest.fixture(scope="module")
def centered_scorer(centered_setup: Setup) -> Iterator[InProcess]:
    with InProcess(centered_setup, batch_size=4) as opened:
        assert isinstance(opened, InProcess)
        yield opened


@pytest.fixture(scope="module")
def voices(snippets: list[Recording]) -> list[Recording]:
    """The snippets, each with the speaker of its clip, and two in which nobody is heard."""
    spoken = [dataclasses.replace(r, speaker=r.path.stem, transcript="") for r in snippets]
    missing = Recording("missing", Path("missing.flac"), transcript="", speaker=spoken[0].speaker)
    quiet = dataclasses.replace(spoken[0], id="quiet", start_s=0.0, end_s=0.2)
    return [*spoken, missing, quiet]


def scored(recordings: list[Recording], scorer: Scorer, out: Path) -> dict[str, Any]:
    score_to_file(recordings, out, scorer)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == [recording.id for recording in recordings]
    return {row["id"]: {k: v for k, v in row.items() if k != "ms"} for row in rows}


def expected(recordings: list[Recording], runtime: Runtime, shift: np.ndarray) -> dict[str, float]:
    found = {}
    for recording in recordings:
        (result,) = runtime.recognize_batch([recording.load()], [""], [shift])
        found[recording.id] = result.probabilities["sad"]
    return found


def test_every_recording_loses_the_mean_of_all(
    voices: list[Recording], centered_scorer: InProcess, tmp_path: Path
) -> None:
    rows = scored(voices, centered_scorer, tmp_path / "a.jsonl")
    runtime = centered_scorer._runtime
    state = runtime.open_state()
    for recording in voices:
        if recording.id not in ("missing", "quiet"):
            mean = runtime.mean_of(recording.load())
            if mean is not None:
                state.add(mean)
    assert state.count > 8
    assert "no such file" in rows["missing"]["error"]
    assert rows["quiet"]["label"] == "no speech"
    heard = [recording for recording in voices if rows[recording.id].get("label") not in (None, "no speech")]
    for name, sad in expected(heard, runtime, runtime.normalization.shift(state)).items():
        assert rows[name]["p_sad"] == pytest.approx(sad, abs=1e-3)


def test_order_workers_and_batches_change_nothing(
    voices: list[Recording], centered_setup: Setup, centered_scorer: InProcess, tmp_path: Path
) -> None:
    here = scored(voices, centered_scorer, tmp_path / "a.jsonl")
    with Workers(centered_setup, 2, 3) as workers:
        there = scored(voices[::-1], workers, tmp_path / "b.jsonl")
    assert there.keys() == here.keys()
    for name, row in here.items():
        assert there[name].get("label") == row.get("label")
        assert there[name].get("p_sad") == pytest.approx(row.get("p_sad"), abs=2e-6)


class Stop(Exception):
    pass


@pytest.mark.parametrize("after", [3, 14, 17, 27])
def test_a_run_that_was_cut_off_in_either_pass_goes_on(
    voices: list[Recording], centered_scorer: InProcess, tmp_path: Path, after: int
) -> None:
    whole = scored(voices, centered_scorer, tmp_path / "whole.jsonl")
    out, seen = tmp_path / "cut.jsonl", []

    def step(what: object) -> None:
        if what != 0:
            seen.append(what)
        if len(seen) == after:
            raise Stop

    with pytest.raises(Stop):
        score_to_file(voices, out, centered_scorer, on_row=step, on_measured=step)
    assert not out.exists()
    measured: list[int] = []
    answered: list[Mapping[str, Any]] = []
    summary = score_to_file(voices, out, centered_scorer, on_row=answered.append, on_measured=measured.append)
    # The one that is missing is tried again.
    assert measured[0] == min(after, 14) - (after >= 13)
    assert sum(measured) == len(voices) == 14
    assert summary.resumed == max(0, after - 14 - 1)
    rows = {row["id"]: row for row in map(json.loads, out.read_text(encoding="utf-8").splitlines())}
    for name, row in whole.items():
        assert {k: v for k, v in rows[name].items() if k != "ms"} == row


def test_answers_that_were_made_with_another_mean_are_stale(
    voices: list[Recording], centered_scorer: InProcess, tmp_path: Path
) -> None:
    out = tmp_path / "a.jsonl"
    spoken = voices[:12]
    scored(spoken[:6], centered_scorer, out)
    measured: list[int] = []
    summary = score_to_file(spoken, out, centered_scorer, on_measured=measured.append)
    assert (summary.resumed, measured) == (0, [6, *[1] * 6])
    again = score_to_file(spoken, out, centered_scorer, on_measured=lambda count: None)
    assert again.resumed == 12
    assert scored(spoken, centered_scorer, out) == scored(spoken, centered_scorer, tmp_path / "fresh.jsonl")
    back = score_to_file(spoken[:6], out, centered_scorer)
    assert back.resumed == 6, "what was made before with this mean still stands"


def test_speakers_lose_their_own_mean(
    voices: list[Recording], centered_setup: Setup, centered_scorer: InProcess, tmp_path: Path
) -> None:
    with InProcess(dataclasses.replace(centered_setup, normalize="speaker"), 4) as scorer:
        rows = scored(voices, scorer, tmp_path / "a.jsonl")
        speaker = voices[1].speaker
        own = [recording for recording in voices if recording.speaker == speaker]
        alone = scored(own, centered_scorer, tmp_path / "b.jsonl")
        for recording in own:
            assert rows[recording.id] == alone[recording.id]
        nameless = [*voices[:2], dataclasses.replace(voices[2], speaker="")]
        message = f"normalize: got speaker, and 1 recordings without a speaker, '{voices[2].id}' the first"
        with pytest.raises(InputError, match=message):
            score_to_file(nameless, tmp_path / "c.jsonl", scorer)
    assert not journal_path(tmp_path / "c.jsonl").exists()


def test_with_a_state_there_is_one_pass_and_it_stays_as_it_is(
    voices: list[Recording], centered_setup: Setup, centered_scorer: InProcess, tmp_path: Path
) -> None:
    state = centered_scorer._runtime.open_state()
    state.add(np.linspace(-1, 1, state.mean.size))
    out = tmp_path / "a.jsonl"
    with InProcess(dataclasses.replace(centered_setup, normalize=None, state=state), 4) as scorer:
        rows = scored(voices, scorer, out)
        score_to_file(voices, out, scorer, on_measured=lambda count: pytest.fail("measured"))
    assert state.count == 1
    shift = centered_scorer._runtime.normalization.shift(state)
    heard = [recording for recording in voices if rows[recording.id].get("label") not in (None, "no speech")]
    for name, sad in expected(heard, centered_scorer._runtime, shift).items():
        assert rows[name]["p_sad"] == pytest.approx(sad, abs=1e-4)
    other = state.copy()
    other.add(np.ones(other.mean.size))
    with InProcess(dataclasses.replace(centered_setup, state=other), 4) as scorer:
        assert score_to_file(voices, out, scorer).resumed == 0


def test_a_journal_knows_how_it_was_begun(
    voices: list[Recording], centered_setup: Setup, centered_scorer: InProcess, tmp_path: Path
) -> None:
    out = tmp_path / "a.jsonl"
    with pytest.raises(Stop):
        score_to_file(voices, out, centered_scorer, on_row=lambda row: (_ for _ in ()).throw(Stop()))
    with InProcess(dataclasses.replace(centered_setup, normalize="none"), 4) as plain:
        with pytest.raises(InputError, match=r"was begun with normalize run, not none: go on with"):
            score_to_file(voices, out, plain)
        score_to_file(voices, out, centered_scorer)
        assert score_to_file(voices, out, plain).resumed == 0


def test_a_journal_from_before_there_were_means_goes_on(
    snippets: list[Recording], scorer: InProcess, tmp_path: Path
) -> None:
    out = tmp_path / "a.jsonl"
    score_to_file(snippets, out, scorer)
    journal = journal_path(out)
    head, *rest = journal.read_bytes().splitlines(keepends=True)
    begun = json.loads(head)
    assert begun.pop("normalize") == "none"
    journal.write_bytes(b"".join([f"{json.dumps(begun)}\n".encode(), *rest]))
    assert score_to_file(snippets, out, scorer).resumed == 12


def test_a_bundle_that_was_not_trained_for_it(setup: Setup, uncentered: Path) -> None:
    for normalize in ("run", "speaker"):
        with pytest.raises(InputError, match=r"uncentered\.edgeser has no mean_prior"):
            InProcess(dataclasses.replace(setup, bundle=uncentered, normalize=normalize))
    with pytest.raises(InputError, match="normalize: got 'all', expected none, run, speaker"):
        InProcess(dataclasses.replace(setup, normalize="all"))


VALUES = hnp.arrays(np.float64, st.tuples(st.integers(1, 30), st.just(4)), elements=st.floats(-30, 30))


def mean_row(mean: np.ndarray) -> dict[str, str]:
    return {"mean": base64.b64encode(mean.astype("<f2").tobytes()).decode()}


@given(VALUES, st.randoms())
def test_sums_do_not_depend_on_the_order(values: np.ndarray, random: Any) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)
    recording = Recording("a", Path("a.wav"))
    shifts = []
    for order in (list(values), shuffled):
        means = Means(RUN)
        for mean in order:
            means.add(recording, mean_row(mean))
        shifts.append(means.shift(recording))
    np.testing.assert_array_equal(*shifts)
    np.testing.assert_allclose(shifts[0], values.sum(axis=0) / (len(values) + 2), atol=0.02)


@pytest.mark.parametrize("text", ["nonsense!", "AAA", "AA==", base64.b64encode(b"\x00\x7c").decode(), 5, None])
def test_a_damaged_mean_is_one_line(text: Any) -> None:
    with pytest.raises(EdgeSerError, match="a: the mean of its rows is damaged: start over with --restart"):
        mean_in({"id": "a", "mean": text})


def test_what_failed_or_had_no_speech_has_no_mean(voices: list[Recording], centered_scorer: InProcess) -> None:
    rows = {recording.id: row for recording, row in centered_scorer.rows(voices[-2:], Job.MEAN)}
    assert "error" in rows["missing"]
    assert rows["quiet"]["mean"] == ""
    assert [mean_in(row) for row in rows.values()] == [None, None]


def test_the_runtimes_own_score_does_the_same(clips: list[Path], centered_scorer: InProcess) -> None:
    runtime = centered_scorer._runtime
    paths = [*clips, Path("missing.flac")]
    state = runtime.open_state()
    for clip in clips:
        mean = runtime.mean_of(Recording("a", clip).load())
        assert mean is not None
        state.add(mean)
    failed: list[Path] = []
    two_passes = list(runtime.score(iter(paths), normalize="run", on_error=lambda path, why: failed.append(path)))
    assert failed == paths[-1:]
    for fixed in (state, state.copy()):
        one_pass = list(runtime.score(clips, state=fixed))
        assert fixed.count == len(clips)
        for one, other in zip(two_passes, one_pass, strict=True):
            assert list(one.probabilities.values()) == pytest.approx(list(other.probabilities.values()), abs=1e-3)
    with pytest.raises(InputError, match="expected none, run"):
        list(runtime.score(clips, normalize="speaker"))
