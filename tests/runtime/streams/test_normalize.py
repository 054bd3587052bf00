"""A stream's running mean: its answers are those of `recognize` with the same state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import InputError
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.running_mean import RunningMean
from edgeser.runtime.streams import Event, IsolatedStream, StreamOptions


@pytest.fixture(scope="module")
def runtime(centered: Path) -> Iterator[Runtime]:
    with Runtime.load(centered, engine="onnxruntime", asr="none") as loaded:
        yield loaded


def chances(events: list[Event]) -> list[list[float]]:
    return [list(event.result.probabilities.values()) for event in events if not event.partial]


def one_by_one(runtime: Runtime, audio: Samples, events: list[Event], state: RunningMean) -> list[list[float]]:
    found = []
    for event in events:
        samples = audio[round(event.start_s * SAMPLE_RATE) : round(event.end_s * SAMPLE_RATE)]
        result = runtime.recognize(samples, SAMPLE_RATE, transcript="", state=state)
        found.append(list(result.probabilities.values()))
    return found


@pytest.mark.parametrize("chunk", [160, 1600, 160_000])
def test_answers_are_those_of_one_shot_with_the_same_state(
    runtime: Runtime, events: Callable[..., list[Event]], conversation: Samples, chunk: int
) -> None:
    found = events(runtime, conversation, chunk, normalize="run")
    assert len(found) == 4
    state = runtime.open_state()
    np.testing.assert_allclose(chances(found), one_by_one(runtime, conversation, found, state), atol=1e-5)
    assert state.count == 4


def test_nobody_asked_and_nothing_is_taken_out(
    runtime: Runtime, events: Callable[..., list[Event]], conversation: Samples, reference: list[Event]
) -> None:
    for normalize in ("none", None):
        assert chances(events(runtime, conversation, 1600, normalize=normalize)) == chances(reference)
    warm = chances(events(runtime, conversation, 1600, normalize="run"))
    assert warm[0] == chances(reference)[0]
    assert np.abs(np.array(warm) - chances(reference)).max() > 1e-3


def test_estimates_meanwhile_change_no_later_answer(
    runtime: Runtime, events: Callable[..., list[Event]], conversation: Samples
) -> None:
    rolling = events(runtime, conversation, 1600, normalize="run", partial=True)
    assert any(event.partial for event in rolling)
    assert chances(rolling) == chances(events(runtime, conversation, 1600, normalize="run"))


def test_a_state_is_taken_saved_and_gone_on_with(
    runtime: Runtime, events: Callable[..., list[Event]], conversation: Samples, tmp_path: Path
) -> None:
    whole = chances(events(runtime, conversation, 1600, normalize="run"))
    half = round(len(conversation) * 0.52)
    with runtime.open_stream(options=StreamOptions(normalize="run")) as stream:
        assert stream.state is not None
        assert stream.state.count == 0
        stream.push(conversation[:half], wait=True)
        assert stream.flush(60)
        stream.state.save(tmp_path / "voice.state")
    taken = stream.state
    assert taken is not None
    assert taken.count == 2
    state = RunningMean.load(tmp_path / "voice.state")
    rest = events(runtime, conversation[half:], 1600, state=state)
    assert state.count == 2, "a stream goes on with a copy of its own"
    np.testing.assert_allclose(chances(rest), whole[2:], atol=0.05)  # cut elsewhere by some frames
    cold = events(runtime, conversation[half:], 1600, normalize="none")
    assert np.abs(np.subtract(chances(rest), whole[2:])).max() < np.abs(np.subtract(chances(cold), whole[2:])).max() / 2
    assert chances(rest) == chances(events(runtime, conversation[half:], 1600, normalize="run", state=state))


def test_two_streams_that_begin_with_one_state_go_their_own_ways(
    runtime: Runtime, conversation: Samples, clip: Path
) -> None:
    shared = runtime.open_state()
    runtime.recognize(clip, state=shared)
    options = StreamOptions(state=shared)
    with runtime.open_stream(options=options) as one, runtime.open_stream(options=options) as other:
        one.push(conversation, wait=True)
        assert one.flush(60)
        assert other.flush(60)
        assert one.state is not None
        assert other.state is not None
        assert (shared.count, one.state.count, other.state.count) == (1, 5, 1)


def test_what_does_not_go_together_is_refused_at_once(runtime: Runtime, uncentered: Path) -> None:
    mute = Runtime.load(uncentered, engine="onnxruntime", asr="none")
    with pytest.raises(InputError, match="normalize: got a state with none, expected run"):
        StreamOptions(normalize="none", state=runtime.open_state())
    for options in (StreamOptions(normalize="run"), StreamOptions(state=runtime.open_state())):
        with pytest.raises(InputError, match=r"uncentered\.edgeser has no mean_prior"):
            mute.open_stream(options=options)
    with pytest.raises(InputError, match="state: is of encoder"):
        runtime.open_stream(options=StreamOptions(state=RunningMean("ab" * 32, np.zeros(3))))
    assert mute.open_stream(options=StreamOptions(normalize="none")).state is None
    mute.close()


def test_a_stream_in_a_process_of_its_own_does_the_same(
    runtime: Runtime,
    events: Callable[..., list[Event]],
    conversation: Samples,
    centered: Path,
    uncentered: Path,
    clip: Path,
) -> None:
    state = runtime.open_state()
    runtime.recognize(clip, state=state)
    options = StreamOptions(normalize="run", state=state)
    with IsolatedStream(bundle=centered, engine="onnxruntime", asr="none", options=options) as stream:
        for begin in range(0, conversation.shape[0], SAMPLE_RATE):
            stream.push(conversation[begin : begin + SAMPLE_RATE])
            assert stream.flush(60)
        taken, found = stream.state, []
        while (event := stream.next_event(0)) is not None:
            found.append(event)
    assert len(found) > 4
    np.testing.assert_allclose(chances(found), one_by_one(runtime, conversation, found, state), atol=1e-5)
    assert taken is not None
    assert taken.count == state.count
    np.testing.assert_allclose(taken.mean, state.mean, atol=1e-6)
    with pytest.raises(InputError, match=r"uncentered\.edgeser has no mean_prior"):
        IsolatedStream(bundle=uncentered, engine="onnxruntime", asr="none", options=StreamOptions(normalize="run"))
