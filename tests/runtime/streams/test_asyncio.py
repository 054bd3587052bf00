"""Events in asyncio: those of a stream, whatever is cancelled on the way."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import EngineError, InputError
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.streams import Stream, StreamOptions

COUNT = 8


@pytest.fixture(scope="module")
def remark(speech: Samples) -> Samples:
    """A second of speech, and a second of silence."""
    return np.concatenate([speech[SAMPLE_RATE : 2 * SAMPLE_RATE], np.zeros(SAMPLE_RATE, np.float32)])


async def fed(stream: Stream, remark: Samples) -> None:
    for _ in range(COUNT):
        await asyncio.to_thread(stream.push, remark, SAMPLE_RATE, wait=True)
    stream.end()


@pytest.mark.parametrize("wait_s", [0.005, 0.03, 0.2])
def test_a_cancelled_wait_eats_no_event(mute: Runtime, remark: Samples, wait_s: float) -> None:
    async def gather() -> tuple[list[int], int]:
        with mute.open_stream() as stream:
            feeding = asyncio.create_task(fed(stream, remark))
            got, cancelled = [], 0
            events = stream.__aiter__()
            while True:
                try:
                    got.append((await asyncio.wait_for(events.__anext__(), wait_s)).utterance)
                except asyncio.TimeoutError:
                    cancelled += 1
                    if cancelled % 3 == 0:
                        events = stream.__aiter__()
                except StopAsyncIteration:
                    break
            await feeding
            assert stream.stats.missed_events == 0
            return got, cancelled

    got, cancelled = asyncio.run(gather())
    assert got == list(range(COUNT))
    assert cancelled > 0


def test_two_tasks_share_the_events(mute: Runtime, remark: Samples) -> None:
    async def gather() -> list[list[int]]:
        with mute.open_stream() as stream:

            async def take() -> list[int]:
                return [event.utterance async for event in stream]

            return list(await asyncio.gather(take(), take(), fed(stream, remark)))[:2]  # type: ignore[arg-type]

    first, second = asyncio.run(gather())
    assert sorted(first + second) == list(range(COUNT))


def test_the_error_of_a_stream_is_raised(mute: Runtime, remark: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise EngineError("no memory")

    monkeypatch.setattr(mute, "answer", fail)

    async def gather() -> None:
        with mute.open_stream() as stream:
            await fed(stream, remark)
            async for _ in stream:
                pass

    with pytest.raises(EngineError, match="in a row got no answer: no memory"):
        asyncio.run(gather())


def test_a_stream_with_a_callback_has_no_events_to_wait_for(mute: Runtime) -> None:
    async def gather() -> None:
        with mute.open_stream(lambda event: None, options=StreamOptions()) as stream:
            async for _ in stream:
                pass

    with pytest.raises(InputError, match="got on_event and a fetch of Events"):
        asyncio.run(gather())
