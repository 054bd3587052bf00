"""A Runtime and its parts under load from several threads: the answers of one thread, and nobody waits in vain."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeser.runtime.asr import IsolatedAsr, PocketSphinxAsr, RecognizedWord
from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio
from edgeser.runtime.errors import AsrError
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.results import Result
from edgeser.runtime.streams import StreamOptions, Words

LINES = ("dogs are sitting by the door", "how dare you get out of my house", "i am so sorry", "")
ROUNDS = 4


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    with Runtime.load(engine="onnxruntime", asr="none") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def heard(clips: list[Path]) -> list[Samples]:
    return [load_audio(clip) for clip in clips]


def together(*calls: Callable[[], Any], rounds: int = ROUNDS) -> list[list[Any]]:
    """Make each call in a thread of its own, over and over, all at the same time."""
    found: list[list[Any]] = [[] for _ in calls]
    begin = threading.Barrier(len(calls))

    def work(call: Callable[[], Any], mine: list[Any]) -> None:
        begin.wait(30)
        for _ in range(rounds):
            try:
                mine.append(call())
            except Exception as error:
                mine.append(error)

    threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in zip(calls, found, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    return found


def timeless(result: Result) -> Result:
    return dataclasses.replace(result, timings=None)  # type: ignore[arg-type]


def test_every_call_answers_as_in_one_thread(runtime: Runtime, heard: list[Samples]) -> None:
    def recognise(index: int) -> Callable[[], Any]:
        return lambda: timeless(runtime.recognize(heard[index], SAMPLE_RATE, transcript=LINES[index]))

    def answer(index: int) -> Callable[[], Any]:
        words = [RecognizedWord(word, 0.1 * i, 0.1 * i + 0.1, 0.9) for i, word in enumerate(LINES[index].split())]
        return lambda: timeless(runtime.answer(heard[index], words))

    def batch() -> Any:
        return [timeless(result) for result in runtime.recognize_batch(heard, LINES)]

    calls = [batch, *(make(index) for make in (recognise, answer) for index in range(2)), batch]
    expected = [call() for call in calls]
    for found, single in zip(together(*calls), expected, strict=True):
        assert found == [single] * ROUNDS


@pytest.mark.parametrize("name", ["audio", "text"])
def test_every_frontend_gives_the_same_rows(runtime: Runtime, heard: list[Samples], name: str) -> None:
    inputs: list[Any] = heard if name == "audio" else list(LINES)
    frontend: Any = runtime.frontends[name]
    expected = [frontend(one).values for one in inputs]
    calls = [(lambda one=one: frontend(one).values) for one in inputs]
    for found, single in zip(together(*calls), expected, strict=True):
        for rows in found:
            np.testing.assert_array_equal(rows, single)


def test_log_mel_gives_the_same_rows(heard: list[Samples]) -> None:
    from edgeser.runtime.frontends.log_mel import LogMel

    frontend = LogMel()
    expected = [frontend.extract(one) for one in heard]
    calls = [(lambda one=one: frontend.extract(one)) for one in heard]
    for found, single in zip(together(*calls), expected, strict=True):
        for rows in found:
            np.testing.assert_array_equal(rows, single)


@pytest.mark.parametrize("isolate", [False, True])
def test_streams_answer_while_recognize_waits_for_words(heard: list[Samples], isolate: bool) -> None:
    """PocketSphinx works for ten seconds and more; meanwhile the voice alone decides, and all other calls answer."""
    ended = threading.Event()

    def recognise() -> None:
        with contextlib.suppress(AsrError):  # closed while it works
            runtime.recognize(np.concatenate(heard), SAMPLE_RATE)
        ended.set()

    with Runtime.load(engine="onnxruntime", asr="none") as runtime:
        runtime.asr = IsolatedAsr("pocketsphinx", hang_s=120.0) if isolate else PocketSphinxAsr()
        threading.Thread(target=recognise, daemon=True).start()
        with runtime.open_stream(options=StreamOptions(asr_deadline_s=0.1)) as stream:
            for _ in range(2):
                stream.push(np.concatenate([heard[3], np.zeros(SAMPLE_RATE, np.float32)]))
                event = stream.next_event(60)
                assert event is not None
                assert event.words is Words.LATE
        assert runtime.recognize(heard[3], SAMPLE_RATE, transcript="").transcript == ""
        assert runtime.recognize_batch([heard[3]], [""])[0].transcript == ""
        assert not ended.is_set()
        runtime.asr.close()
        assert ended.wait(120)


def test_pocketsphinx_hears_the_same(speech: Samples) -> None:
    asr = PocketSphinxAsr()
    parts = [speech[int(0.8 * SAMPLE_RATE) : int(2.2 * SAMPLE_RATE)], speech[: int(1.6 * SAMPLE_RATE)]]
    expected = [asr.transcribe(part) for part in parts]
    assert all(expected)
    calls = [(lambda part=part: asr.transcribe(part)) for part in itertools.chain(parts, parts)]
    for found, single in zip(together(*calls, rounds=1), [*expected, *expected], strict=True):
        assert found == [single]
