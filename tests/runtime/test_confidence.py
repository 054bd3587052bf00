"""How far an answer can be trusted: what a manifest says of it, and what the Runtime, streams and rows make of that."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeser.corpora import Utterance, read_corpus
from edgeser.corpora.inputs import recording_of
from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio
from edgeser.runtime.bundle import Bundle
from edgeser.runtime.confidence import COLD, RUN, Confidence, ConfidenceCurve
from edgeser.runtime.errors import BundleError, InputError
from edgeser.runtime.labels import NO_SPEECH, UNSURE
from edgeser.runtime.recognizer import Runtime, default_bundle
from edgeser.runtime.scoring import InProcess, Setup, score, score_to_file
from edgeser.runtime.streams import StreamOptions, event_row

CURVE = ConfidenceCurve((0.4, 0.6, 0.8), (0.3, 0.5, 0.9), (0.5, 1.0), (0.7, 0.3), (0.9, 0.6))
CONFIDENCE = Confidence({"EMOVO": 336, "TESS": 240}, {COLD: CURVE})
ENGINE: Mapping[str, Any] = {"engine": "onnxruntime", "asr": "none"}


@pytest.fixture(scope="module")
def runtime(confident: Path) -> Iterator[Runtime]:
    with Runtime.load(confident, **ENGINE) as opened:
        yield opened


@pytest.fixture(scope="module")
def plain(uncentered: Path) -> Iterator[Runtime]:
    """A bundle that has no table."""
    with Runtime.load(uncentered, **ENGINE) as opened:
        yield opened


@pytest.fixture(scope="module")
def utterances(wide_corpus: str) -> Sequence[Utterance]:
    """What the table was measured on."""
    return read_corpus(wide_corpus)


def test_a_curve_is_straight_between_its_knots() -> None:
    assert [CURVE.of(p) for p in (0.0, 0.4, 0.5, 0.7, 1.0)] == pytest.approx([0.3, 0.3, 0.4, 0.7, 0.9])
    assert not CURVE.is_unsure(0.0, 1.0)
    assert CURVE.is_unsure(0.69, 0.5)
    assert not CURVE.is_unsure(0.7, 0.5)
    assert CURVE.is_unsure(0.49, 0.75)  # half-way between the thresholds of a half and of all


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"confidence": (0.3, 0.5, 1.1)}, "confidence, expected numbers from 0 to 1"),
        ({"confidence": (0.3, 0.5, float("nan"))}, "confidence, expected numbers from 0 to 1"),
        ({"confidence": (0.3, 0.5, True)}, "confidence, expected numbers from 0 to 1"),
        ({"confidence": (0.5, 0.3, 0.9)}, "confidence, expected numbers that do not fall"),
        ({"confidence": (0.5, 0.9)}, "expected as many"),
        ({"probability": (0.4, 0.4, 0.8)}, "probability, expected numbers that rise"),
        ({"probability": ()}, "probability, expected numbers"),
        ({"threshold": (0.3, 0.7)}, "threshold, expected numbers that do not rise"),
        ({"accuracy": (0.3,)}, "expected as many thresholds"),
    ],
)
def test_what_is_no_curve(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        dataclasses.replace(CURVE, **changes)


def test_a_table_reads_as_it_was_written() -> None:
    content = json.loads(json.dumps(dataclasses.asdict(CONFIDENCE)))
    assert Confidence.from_json(content) == CONFIDENCE
    for wrong in (
        {**content, "corpora": {}},
        {**content, "corpora": {"a\nb": 1}},
        {**content, "corpora": {"a": True}},
        {**content, "states": {RUN: content["states"][COLD]}},
        {**content, "states": {COLD: []}},
        {**content, "states": {COLD: {**content["states"][COLD], "probability": 1}}},
        {**content, "states": {COLD: {**content["states"][COLD], "more": []}}},
        {**content, "more": 1},
    ):
        with pytest.raises(BundleError, match=r"manifest\.json: confidence: ") as raised:
            Confidence.from_json(wrong)
        assert "\n" not in str(raised.value)


def test_a_manifest_has_a_state_for_the_mean_where_the_model_has(confident: Path, uncentered: Path) -> None:
    manifest = Bundle.open(confident).manifest
    assert manifest.confidence is not None
    assert type(manifest).from_json(manifest.to_json()) == manifest
    with pytest.raises(BundleError, match=r"confidence of \['cold'\], and a mean_prior"):
        dataclasses.replace(manifest, confidence=CONFIDENCE)
    other = Bundle.open(uncentered).manifest
    assert dataclasses.replace(other, confidence=CONFIDENCE).confidence == CONFIDENCE
    with pytest.raises(BundleError, match=r"confidence of \['cold', 'run'\], and no mean_prior"):
        dataclasses.replace(other, confidence=manifest.confidence)


@pytest.mark.parametrize("label", [UNSURE, NO_SPEECH])
def test_no_emotion_is_called_as_what_is_none(label: str) -> None:
    manifest = Bundle.open(default_bundle()).manifest
    with pytest.raises(BundleError, match="is the name of no emotion"):
        dataclasses.replace(manifest, labels=(label, *manifest.labels[1:]))


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9, 1.0])
def test_as_many_are_answered_as_were_asked_for(
    runtime: Runtime, utterances: Sequence[Utterance], share: float
) -> None:
    recordings = [recording_of(u, u.transcript) for u in utterances]
    results = [one.result for one in score(runtime, recordings, answered=share)]
    answered = [result for result in results if result is not None and result.label != UNSURE]
    # One more or fewer: predictions are kept with six digits, so the one at the threshold may be on either side of it.
    assert abs(len(answered) - share * len(results)) <= 1
    curve = runtime.bundle.manifest.confidence
    assert curve is not None
    for result in filter(None, results):
        top = max(result.probabilities.values())
        assert result.confidence == pytest.approx(curve.states[COLD].of(top))
        assert result.label == UNSURE or result.probabilities[result.label] == top
        assert (result.probability is None) == (result.label == UNSURE)


def test_what_was_heard_before_has_a_curve_of_its_own(runtime: Runtime, clips: Sequence[Path]) -> None:
    table = runtime.bundle.manifest.confidence
    assert table is not None
    state = runtime.open_state()
    first, second = (runtime.recognize(clip, transcript="", state=state) for clip in clips[:2])
    for result, name in ((first, COLD), (second, RUN)):
        assert result.confidence == pytest.approx(table.states[name].of(max(result.probabilities.values())))
    assert first.confidence == runtime.recognize(clips[0], transcript="").confidence


def test_nothing_is_claimed_of_silence(runtime: Runtime) -> None:
    result = runtime.recognize(np.zeros(SAMPLE_RATE, np.float32), SAMPLE_RATE, answered=0.5)
    assert (result.label, result.confidence) == (NO_SPEECH, None)


def test_a_bundle_without_a_table_says_nothing(plain: Runtime, uncentered: Path, speech: Samples, clip: Path) -> None:
    assert plain.recognize(speech, SAMPLE_RATE, transcript="").confidence is None
    message = r"got 0\.8, and uncentered\.edgeser has no confidence table, expected 1"
    with pytest.raises(InputError, match=message):
        plain.recognize(speech, SAMPLE_RATE, answered=0.8)
    with pytest.raises(InputError, match=message):
        next(iter(plain.score([clip], answered=0.8)))
    with pytest.raises(InputError, match=message):
        plain.open_stream(options=StreamOptions(answered=0.8))
    with pytest.raises(InputError, match=message):
        InProcess(Setup(uncentered, **ENGINE, answered=0.8))


@pytest.mark.parametrize("share", [0.0, 0.04, 1.01, -1.0, float("nan")])
def test_what_is_no_share(runtime: Runtime, speech: Samples, share: float) -> None:
    with pytest.raises(InputError, match=r"expected a share of the utterances, 0\.05 to 1"):
        runtime.recognize(speech, SAMPLE_RATE, answered=share)
    with pytest.raises(InputError, match=r"expected a share of the utterances, 0\.05 to 1"):
        StreamOptions(answered=share)


def test_a_stream_answers_as_one_call_does(runtime: Runtime, clips: Sequence[Path]) -> None:
    labels = set()
    for clip in clips:
        with runtime.open_stream(options=StreamOptions(answered=0.3)) as stream:
            stream.push(np.concatenate([load_audio(clip), np.zeros(SAMPLE_RATE, np.float32)]), wait=True)
            stream.end()
            events = list(stream)
        for event in events:
            row = event_row(event)
            assert row["confidence"] == round(event.result.confidence or 0.0, 4)
            assert row["label"] == event.label == event.result.label
            labels.add(event.label)
    assert UNSURE in labels


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_rows_say_how_far_to_trust_them(
    confident: Path, utterances: Sequence[Utterance], tmp_path: Path, suffix: str
) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    recordings = [recording_of(u, u.transcript) for u in utterances[:6]]
    rows: list[Mapping[str, Any]] = []
    with InProcess(Setup(confident, **ENGINE, answered=0.5)) as scorer:
        score_to_file(recordings, tmp_path / f"rows{suffix}", scorer, on_row=rows.append)
    assert {row["label"] for row in rows} > {UNSURE}
    content = (tmp_path / f"rows{suffix}").read_bytes()
    if suffix == ".csv":
        head = content.decode().splitlines()[0].split(",")
        assert head[head.index("confidence") + 1] == "speech_share"
    elif suffix == ".parquet":
        from pyarrow import parquet

        assert parquet.read_table(tmp_path / "rows.parquet")["confidence"].to_pylist() == [
            r["confidence"] for r in rows
        ]
    else:
        assert [json.loads(line)["confidence"] for line in content.splitlines()] == [r["confidence"] for r in rows]


def test_another_share_does_not_go_on_with_a_run(
    confident: Path, utterances: Sequence[Utterance], tmp_path: Path
) -> None:
    recordings = [recording_of(u, u.transcript) for u in utterances[:3]]
    out = tmp_path / "rows.jsonl"

    def stop(row: Mapping[str, Any]) -> None:
        raise KeyboardInterrupt

    with InProcess(Setup(confident, **ENGINE, answered=0.5)) as half, pytest.raises(KeyboardInterrupt):
        score_to_file(recordings, out, half, on_row=stop)
    with InProcess(Setup(confident, **ENGINE)) as everything:
        with pytest.raises(InputError, match=r"begun with answered 0\.5, not 1\.0"):
            score_to_file(recordings, out, everything)
        assert score_to_file(recordings, out, everything, restart=True).resumed == 0
