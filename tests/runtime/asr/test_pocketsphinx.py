from __future__ import annotations

import dataclasses
import itertools
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pocketsphinx
import pytest

from edgeser.runtime.asr import Asr, NoAsr, PocketSphinxAsr, RecognizedWord, open_asr
from edgeser.runtime.asr.sphinx_decoder import SphinxDecoder
from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio
from edgeser.runtime.errors import AsrError, InputError, MissingDependencyError

SPOKEN = {"01": "kids are talking by the door", "02": "dogs are sitting by the door"}


@pytest.fixture(scope="module")
def asr() -> PocketSphinxAsr:
    return PocketSphinxAsr()


@pytest.fixture(scope="module")
def sentences(clips: list[Path]) -> list[Samples]:
    """Two clips, cut to the sentence: decoding takes about as long as the audio."""
    return [load_audio(clip)[int(0.8 * SAMPLE_RATE) : int(2.7 * SAMPLE_RATE)] for clip in clips[:2]]


@pytest.fixture(scope="module")
def answers(asr: PocketSphinxAsr, sentences: list[Samples]) -> list[tuple[RecognizedWord, ...]]:
    """A recogniser's first answer, the same again, another utterance, loud noise, and the first once more."""
    noise = np.random.default_rng(0).normal(0, 0.3, SAMPLE_RATE // 3).astype(np.float32)
    first, other = sentences
    return [asr.transcribe(samples) for samples in (first, first, other, noise, first)]


def test_hears_the_words(clips: list[Path], answers: list[tuple[RecognizedWord, ...]]) -> None:
    for clip, words in zip(clips, (answers[0], answers[2]), strict=False):
        said = SPOKEN[clip.stem.split("-")[4]].split()
        heard = [word.text for word in words]
        assert len(set(said) & set(heard)) >= 5, heard
        assert len(heard) <= 8, heard


def test_words_are_plain_and_stand_in_the_order_of_time(
    sentences: list[Samples], answers: list[tuple[RecognizedWord, ...]]
) -> None:
    words = answers[0]
    assert all(word.text.isalpha() and word.text.islower() for word in words)
    assert all(0 <= word.confidence <= 1 for word in words)
    assert all(0 <= word.start_s < word.end_s <= sentences[0].shape[0] / SAMPLE_RATE for word in words)
    assert all(a.end_s <= b.start_s + 1e-9 for a, b in itertools.pairwise(words))
    assert 1.0 < words[-1].end_s - words[0].start_s < 1.9  # one short sentence


def test_the_same_samples_give_the_same_words(answers: list[tuple[RecognizedWord, ...]]) -> None:
    """To the last bit of times and confidences: an answer must not depend on what came before."""
    first, again, _, _, after_others = answers
    assert again == first
    assert after_others == first


@pytest.mark.parametrize("samples", [0, 1, 100, 400, 1600])
def test_too_short_for_words_is_heard_as_none(asr: PocketSphinxAsr, samples: int) -> None:
    assert asr.transcribe(np.zeros(samples, np.float32)) == ()
    assert isinstance(asr.transcribe(np.zeros(1600, np.float32)), tuple)  # and the recogniser still works


@pytest.mark.parametrize("steps", [0.0, 0.5])
def test_near_silence_holds_no_words(asr: PocketSphinxAsr, steps: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder hears "dog" in zeros and "with" in noise of half a step of 16 bits, sure of both."""
    noise = (np.random.default_rng(0).standard_normal(2 * SAMPLE_RATE) * steps / 32768).astype(np.float32)
    assert asr.transcribe(noise) == ()
    monkeypatch.setattr("edgeser.runtime.asr.pocketsphinx._SILENCE_PEAK", -1.0)
    assert [word.confidence for word in asr.transcribe(noise)] == [1.0]  # the gate is needed


def test_the_gate_lets_quiet_speech_through(asr: PocketSphinxAsr, sentences: list[Samples]) -> None:
    quiet = sentences[0] / np.abs(sentences[0]).max() * (100 / 32768)
    assert "sitting" in [word.text for word in asr.transcribe(quiet)]


@pytest.mark.parametrize("pieces", [[1] * 3_000, [0, 1_600, 0, 7]])
def test_any_chunking_gives_the_same_words(
    asr: PocketSphinxAsr, sentences: list[Samples], answers: list[tuple[RecognizedWord, ...]], pieces: list[int]
) -> None:
    buffer = np.empty(max(pieces), np.float32)
    session = asr.start()
    rest = sentences[0]
    for length in pieces:
        piece, rest = rest[:length], rest[length:]
        buffer[: piece.shape[0]] = piece
        session.accept(buffer[: piece.shape[0]])  # a view on what is written over next, as a ring's is
    session.accept(rest)
    assert session.partial() == ()
    assert session.finish() == answers[0]


def test_two_sessions_at_once(
    asr: PocketSphinxAsr, sentences: list[Samples], answers: list[tuple[RecognizedWord, ...]]
) -> None:
    heard: dict[int, tuple[RecognizedWord, ...]] = {}

    def listen(number: int) -> None:
        heard[number] = asr.transcribe(sentences[number])

    threads = [threading.Thread(target=listen, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == {0: answers[0], 1: answers[2]}


def test_a_session_that_is_over_says_so(asr: PocketSphinxAsr, sentences: list[Samples]) -> None:
    finished, cancelled = asr.start(), asr.start()
    assert finished.finish() == ()
    cancelled.accept(sentences[0])
    for session in (finished, cancelled):
        session.cancel()
        session.cancel()
        for call in (session.finish, lambda session=session: session.accept(sentences[0])):
            with pytest.raises(AsrError, match="session that is over, expected an open one: start a new session"):
                call()


def test_a_failure_is_told_and_the_next_utterance_is_heard(
    asr: PocketSphinxAsr, sentences: list[Samples], monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = sentences[0][: SAMPLE_RATE // 2]
    with monkeypatch.context() as patch:
        patch.setattr(asr._decoder._library, "ps_process_raw", lambda *given: -1)
        with pytest.raises(AsrError, match=r"pocketsphinx: failed on 0\.5 s of audio: .*ps_process_raw failed"):
            asr.transcribe(samples)
    assert isinstance(asr.transcribe(samples), tuple)


def test_answers_are_those_of_the_package_itself(sentences: list[Samples]) -> None:
    """To the last bit, though its C functions are called directly."""
    pcm = (sentences[0] * 32767.0).astype(np.int16).tobytes()
    theirs = pocketsphinx.Decoder(samprate=SAMPLE_RATE, loglevel="FATAL")
    theirs.start_utt()
    theirs.process_raw(pcm, full_utt=True)
    theirs.end_utt()
    expected = [(part.word, part.start_frame, part.end_frame, part.prob) for part in theirs.seg()]
    assert [dataclasses.astuple(part) for part in SphinxDecoder(SAMPLE_RATE).decode(pcm)] == expected


def test_other_threads_go_on_while_it_decodes(asr: PocketSphinxAsr, sentences: list[Samples]) -> None:
    """The package's own module holds the interpreter's lock: a stream would capture nothing meanwhile."""
    over, beats = threading.Event(), 0

    def decode() -> None:
        asr.transcribe(sentences[0])
        over.set()

    thread = threading.Thread(target=decode)
    thread.start()
    while not over.wait(0.01):
        beats += 1
    thread.join()
    assert beats >= 10  # decoding takes a second or more; with the lock held there is one


def test_a_signal_is_answered_while_it_decodes(clips: list[Path], sentences: list[Samples]) -> None:
    asr = PocketSphinxAsr()
    long = np.tile(load_audio(clips[0]), 20)  # 72 s of audio, and about as long to decode

    def ring(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    started = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            asr.transcribe(long)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - started < 20  # 1 s on an idle machine
    assert isinstance(asr.transcribe(sentences[0][: SAMPLE_RATE // 2]), tuple)  # by another decoder, without waiting


@pytest.mark.parametrize("name", ["auto", "pocketsphinx"])
def test_opened_by_name(name: str) -> None:
    assert isinstance(open_asr(name), PocketSphinxAsr)


def test_none_hears_nothing(speech: Samples) -> None:
    assert isinstance(open_asr("none"), NoAsr)
    assert isinstance(NoAsr(), Asr)
    assert NoAsr().transcribe(speech) == ()


def test_unknown_name() -> None:
    with pytest.raises(InputError, match="asr: got 'wisper', expected auto, whisper, pocketsphinx, none"):
        open_asr("wisper")


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(
        MissingDependencyError, match=r"pocketsphinx is not installed, .*: pip install 'edgeser\[asr\]'"
    ) as caught:
        open_asr("pocketsphinx")
    assert isinstance(caught.value.__cause__, ImportError)
    assert isinstance(open_asr("auto"), NoAsr)
