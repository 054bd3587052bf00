"""Streams, conversion and detectors under load from several threads."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edgeser.runtime.asr import BufferedSession, RecognizedWord
from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import AsrError
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.sources import Converter, FileSource, Intake, PcmSource, Source
from edgeser.runtime.streams import Event, IsolatedStream, StreamOptions
from edgeser.runtime.vad import VAD_FRAME, SileroVad

THREADS = 4
RATE = 48_000


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Make each call in a thread of its own, all at the same time; raise what one of them raised."""
    found: list[Any] = [None] * len(calls)
    begin = threading.Barrier(len(calls))

    def work(index: int) -> None:
        begin.wait(30)
        try:
            found[index] = calls[index]()
        except BaseException as error:
            found[index] = error

    threads = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads), "hangs"
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return found


@pytest.fixture(scope="module")
def noise() -> Samples:
    """Two seconds at 48 kHz."""
    return np.random.default_rng(0).standard_normal(2 * RATE).astype(np.float32) * np.float32(0.01)


def chunks(samples: Samples, size: int = 960) -> list[Samples]:
    return [samples[begin : begin + size] for begin in range(0, samples.shape[0], size)]


def converter() -> Callable[[Samples], Samples]:
    return Converter(RATE)


def intake() -> Callable[[Samples], Samples]:
    taken = Intake()
    return lambda chunk: taken(chunk, RATE)


@pytest.mark.parametrize("make", [converter, intake])
def test_converters_lose_nothing(make: Callable[[], Callable[[Samples], Samples]], noise: Samples) -> None:
    convert = make()

    def feed() -> int:
        return sum(convert(chunk).shape[0] for _ in range(5) for chunk in chunks(noise))

    given = sum(at_once(*[feed] * THREADS))
    expected = THREADS * 5 * noise.shape[0] * SAMPLE_RATE // RATE
    assert expected - 700 < given <= expected  # what resampling holds back


def test_an_intake_of_two_rates_takes_each_chunk_whole(noise: Samples) -> None:
    intake = Intake()

    def feed(rate: int) -> int:
        return sum(intake(chunk, rate).shape[0] for chunk in chunks(noise))

    given = sum(at_once(lambda: feed(RATE), lambda: feed(44_100), lambda: feed(SAMPLE_RATE)))
    given += intake.flush().shape[0]
    expected = noise.shape[0] * (SAMPLE_RATE / RATE + SAMPLE_RATE / 44_100 + 1)
    assert given == pytest.approx(expected, abs=2 * 3 * len(chunks(noise)))  # a rounding for each change of rate


@pytest.mark.parametrize("wait", [False, True])
def test_a_stream_takes_what_several_threads_push(mute: Runtime, noise: Samples, wait: bool) -> None:
    with mute.open_stream(options=StreamOptions(buffer_s=60.0)) as stream:

        def push() -> None:
            for chunk in chunks(noise):
                stream.push(chunk, RATE, wait=wait)
                stream.activity  # noqa: B018
                assert stream.stats.dropped == 0

        def mark() -> None:
            for _ in range(20):
                stream.gap()
                stream.flush(0.01)

        at_once(*[push] * THREADS, mark)
        assert stream.flush(60)
        assert stream.stats.lost_s == 0
        assert stream.stats.audio_s == pytest.approx(THREADS * 2, abs=0.01)


def test_three_threads_at_48_khz_neither_hang_nor_crash() -> None:
    """As a program of its own, as it was found: of six runs three hung, one was a segmentation fault."""
    code = """
import threading, numpy, edgeser
runtime = edgeser.Runtime.load(engine="onnxruntime", asr="none", self_test=False)
stream = runtime.open_stream()
audio = numpy.random.default_rng(0).standard_normal(48000 * 4).astype("f4") * 0.01
def push():
    for begin in range(0, len(audio), 960):
        stream.push(audio[begin : begin + 960], 48000)
threads = [threading.Thread(target=push) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
stream.flush()
print(stream.stats.audio_s)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert float(done.stdout) == pytest.approx(12.0, abs=0.01)


def test_an_isolated_stream_takes_what_several_threads_push(noise: Samples) -> None:
    with IsolatedStream(asr="none", engine="onnxruntime") as stream:

        def push() -> None:
            for chunk in chunks(noise):
                stream.push(chunk, RATE)
                assert stream.error is None

        def mark() -> None:
            for _ in range(20):
                stream.gap()
                stream.flush(0.01)

        at_once(*[push] * THREADS, mark)
        assert stream.flush(60)
        assert stream.stats.audio_s == pytest.approx(THREADS * 2, abs=0.01)


def test_several_threads_share_the_events(mute: Runtime, conversation: Samples) -> None:
    with mute.open_stream() as stream:
        stream.push(conversation, wait=True)
        stream.end()

        def take() -> list[Event]:
            return list(stream)

        taken = at_once(take, take, take)
    assert sorted(event.utterance for part in taken for event in part) == [0, 1, 2, 3]


def test_a_push_that_waits_holds_up_nobody(mute: Runtime, conversation: Samples) -> None:
    """Nobody fetches, so the first push waits for room; marks, counters and a live push do not."""
    options = StreamOptions(buffer_s=1.0, max_events=1, max_utterances=1)
    with mute.open_stream(options=options) as stream:
        patient = threading.Thread(target=lambda: stream.push(np.tile(conversation, 4), wait=True), daemon=True)
        patient.start()
        while stream.stats.events < 2:
            threading.Event().wait(0.01)
        threading.Event().wait(0.5)
        assert patient.is_alive()
        assert at_once(stream.gap)[0] is None
        assert at_once(lambda: stream.flush(0.1))[0] is False
        assert at_once(lambda: stream.push(conversation[:1600]))[0] is None
        assert at_once(stream.end)[0] is None
        assert patient.is_alive()
    patient.join(20)
    assert not patient.is_alive()


def test_streams_side_by_side_answer_as_alone(mute: Runtime, conversation: Samples) -> None:
    def answer() -> list[tuple[float, float, dict[str, float]]]:
        with mute.open_stream() as stream:
            stream.push(conversation, wait=True)
            stream.end()
            return [(event.start_s, event.end_s, dict(event.result.probabilities)) for event in stream]

    alone = answer()
    assert at_once(*[answer] * 3) == [alone] * 3


def test_a_detector_survives_several_threads(speech: Samples) -> None:
    """Its memory belongs to one stream; what it says to several is of no use, but it says it."""
    detector = SileroVad()

    def ask() -> bool:
        for begin in range(0, speech.shape[0] - VAD_FRAME, VAD_FRAME):
            if not 0.0 <= detector.probability(speech[begin : begin + VAD_FRAME]) <= 1.0:
                return False
            if begin % (20 * VAD_FRAME) == 0:
                detector.reset()
        return True

    assert at_once(*[ask] * THREADS) == [True] * THREADS


@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_a_source_gives_each_chunk_once(kind: str, speech: Samples, tmp_path: Path) -> None:
    path = tmp_path / f"talk.{kind}"
    if kind == "file":
        soundfile.write(path, speech, SAMPLE_RATE, format="WAV", subtype="FLOAT")
    else:
        path.write_bytes(speech.tobytes())
    with path.open("rb") as pipe:
        source: Source = FileSource(path) if kind == "file" else PcmSource(pipe, sample_format="float32")

        def read() -> list[float]:
            taken: list[float] = []
            while (samples := source.read(0.2)) is not None:
                taken += samples.tolist()
            return taken

        with source:
            taken = at_once(*[read] * THREADS)
    assert sorted(value for part in taken for value in part) == sorted(speech.tolist())


def test_a_session_takes_what_several_threads_say() -> None:
    heard: list[int] = []

    def decode(samples: Samples) -> tuple[RecognizedWord, ...]:
        heard.append(samples.shape[0])
        return ()

    session = BufferedSession(decode)

    def say() -> None:
        for _ in range(500):
            session.accept(np.zeros(10, np.float32))

    def finish() -> bool:
        try:
            session.finish()
        except AsrError:
            return False
        return True

    at_once(*[say] * THREADS)
    assert sorted(at_once(*[finish] * THREADS)) == [False] * (THREADS - 1) + [True]
    assert heard == [THREADS * 5000]
