"""Whisper tiny.en on the four clips: the very words, over any window, and none where there are none."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeser.runtime.asr.whisper import CROSS, STEP, Decoded, DecodingOptions, WhisperDecoder
from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio
from edgeser.runtime.errors import BundleError, EngineError, InputError

Hear = Callable[[Samples, int], NDArray[np.float32]]
SPOKEN = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}


@pytest.fixture(scope="module")
def recordings(clips: list[Path]) -> dict[str, Samples]:
    """The clips' samples, by what is said in them."""
    return {f"{SPOKEN[clip.stem.split('-')[4]]} {clip.stem}": load_audio(clip) for clip in clips}


def decode(decoder: WhisperDecoder, hear: Hear, samples: Samples, window: int) -> Decoded:
    return decoder.decode(hear(samples, window), min(window, samples.shape[0] // 320))


@pytest.mark.parametrize("window", [0, 250, 460])
def test_the_very_words_over_any_window_that_holds_them(
    window: int, decoder: WhisperDecoder, hear: Hear, recordings: Mapping[str, Samples]
) -> None:
    for name, samples in recordings.items():
        heard = decode(decoder, hear, samples, window or samples.shape[0] // 320)
        sentence = " ".join(name.split()[:-1])
        assert heard.text.rstrip(".!") == sentence
        assert [word.text for word in heard.words] == heard.text.split()
        assert not heard.is_doubtful
        assert -0.95 < heard.mean_log_probability < 0
        assert heard.no_speech < 0.4
        assert heard.steps <= 14  # six words, two timestamps, a mark, the end; a repeat is found at its third token


def test_times_are_those_of_the_voice(decoder: WhisperDecoder, hear: Hear, recordings: Mapping[str, Samples]) -> None:
    """From 0.5 s before the first sound within 30 dB of the loudest to 0.4 s after the last one."""
    for samples in recordings.values():
        words = decode(decoder, hear, samples, 250).words
        level = np.convolve(samples**2, np.ones(800) / 800, "same")
        loud = np.flatnonzero(level > level.max() * 1e-3) / SAMPLE_RATE
        assert words[0].start_s == pytest.approx(loud[0], abs=0.5)
        assert words[-1].end_s == pytest.approx(loud[-1], abs=0.4)
        assert all(0 <= word.start_s < word.end_s <= samples.shape[0] / SAMPLE_RATE for word in words)
        assert all(before.end_s <= after.start_s for before, after in itertools.pairwise(words))
        assert all(0 < word.confidence <= 1 for word in words)


def test_what_is_said_twice_is_heard_twice(
    decoder: WhisperDecoder, hear: Hear, recordings: Mapping[str, Samples]
) -> None:
    name, samples = next(iter(recordings.items()))
    sentence = samples[int(0.8 * SAMPLE_RATE) : int(2.9 * SAMPLE_RATE)]
    heard = decode(decoder, hear, np.concatenate([sentence, sentence]), 250)
    said = [word.text.rstrip(".,!").casefold() for word in heard.words]
    assert said == 2 * name.casefold().split()[:-1]
    assert heard.words[6].start_s > 2.0


def test_the_whole_thirty_seconds_are_ctranslate2s(
    decoder: WhisperDecoder, hear: Hear, recordings: Mapping[str, Samples], packaged: Callable[[str], Path]
) -> None:
    """Over 30 s CTranslate2's own greedy decoder says the same tokens, at the same probability."""
    import ctranslate2

    folder = packaged("whisper-tiny.en")
    other = ctranslate2.models.Whisper(str(folder), device="cpu", compute_type="float32", intra_threads=1)
    samples = next(iter(recordings.values()))
    hidden = hear(samples, 1500)
    answer = other.generate(
        ctranslate2.StorageView.from_array(np.ascontiguousarray(hidden[None])),
        [list(decoder.tokens.prompt)],
        beam_size=1,
        return_scores=True,
        return_no_speech_prob=True,
    )[0]
    heard = decoder.decode(hidden)
    ids = [token for token in answer.sequences_ids[0] if decoder.tokens.is_text(token)]
    assert heard.text == " ".join(word.text for word in decoder.tokens.words(ids))
    assert heard.no_speech == pytest.approx(answer.no_speech_prob, abs=1e-4)
    assert heard.steps == len(answer.sequences_ids[0]) + 1


@pytest.mark.parametrize("seconds", [0.3, 1.0, 3.0])
def test_no_words_in_silence(seconds: float, decoder: WhisperDecoder, hear: Hear) -> None:
    heard = decode(decoder, hear, np.zeros(int(seconds * SAMPLE_RATE), np.float32), 150)
    assert heard.words == ()
    assert heard.no_speech > 0.9


def test_no_words_in_noise_and_hum(decoder: WhisperDecoder, hear: Hear) -> None:
    time = np.arange(4 * SAMPLE_RATE) / SAMPLE_RATE
    hum = 0.05 * sum(np.sin(2 * np.pi * 50 * k * time) / k for k in (1, 2, 3))
    noise = np.random.default_rng(0).normal(0, 0.01, time.shape)
    for samples in (hum, noise, noise * 1e-3):
        heard = decode(decoder, hear, samples.astype(np.float32), 200)
        assert heard.words == ()
        assert heard.is_doubtful == bool(heard.text)


def test_text_that_is_not_sure_has_no_words(
    files: Mapping[str, bytes], hear: Hear, recordings: Mapping[str, Samples]
) -> None:
    samples = next(iter(recordings.values()))
    with_doubt = WhisperDecoder(files.__getitem__, options=DecodingOptions(min_score=0.0))
    heard = decode(with_doubt, hear, samples, 200)
    with_doubt.close()
    assert heard.text.startswith(("Kids", "Dogs"))
    assert heard.is_doubtful
    assert heard.words == ()


def test_never_more_tokens_than_fit_into_the_audio(
    files: Mapping[str, bytes], hear: Hear, recordings: Mapping[str, Samples]
) -> None:
    samples = next(iter(recordings.values()))
    short = WhisperDecoder(
        files.__getitem__, options=DecodingOptions(max_tokens_per_s=1.0, spare_tokens=0, min_score=-9.0)
    )
    heard = decode(short, hear, samples, 200)
    short.close()
    assert heard.steps == 2 + round(samples.shape[0] // 320 * 0.02)
    assert len(heard.words) == heard.steps - 1


def test_threads_share_a_decoder(decoder: WhisperDecoder, hear: Hear, recordings: Mapping[str, Samples]) -> None:
    states = [(hear(samples, 200), samples.shape[0] // 320) for samples in recordings.values()]
    alone = [decoder.decode(*state) for state in states]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda state: decoder.decode(*state), states)) == alone


@pytest.mark.parametrize(
    ("hidden", "audio", "message"),
    [
        (np.zeros((0, 384), np.float32), None, r"hidden: got float32 \(0, 384\), expected float32 \(1 to 1500, 384\)"),
        (np.zeros((9, 383), np.float32), None, r"hidden: got float32 \(9, 383\)"),
        (np.zeros((1501, 384), np.float32), None, r"hidden: got float32 \(1501, 384\)"),
        (np.zeros((9, 384)), None, r"hidden: got float64 \(9, 384\)"),
        (np.zeros((9, 384), np.float32), 10, "hidden: got 10 rows of audio, expected 1 to 9"),
        (np.zeros((9, 384), np.float32), 0, "hidden: got 0 rows of audio, expected 1 to 9"),
    ],
)
def test_what_is_no_hidden_state(
    hidden: NDArray[np.float32], audio: int | None, message: str, decoder: WhisperDecoder
) -> None:
    with pytest.raises(InputError, match=message):
        decoder.decode(hidden, audio)


def test_one_row(decoder: WhisperDecoder) -> None:
    assert decoder.decode(np.zeros((1, 384), np.float32)).steps >= 2


def test_other_graphs_are_refused(files: Mapping[str, bytes]) -> None:
    swapped = {**files, CROSS: files[STEP], STEP: files[CROSS]}
    with pytest.raises(BundleError, match=r"whisper: cross.onnx and step.onnx are not a recogniser's"):
        WhisperDecoder(swapped.__getitem__)
    with pytest.raises(EngineError, match="refuses the graph"):
        WhisperDecoder({**files, STEP: b"none"}.__getitem__)
