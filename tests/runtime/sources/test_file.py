from __future__ import annotations

import gc
import re
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio
from edgeser.runtime.errors import InputError, SourceError
from edgeser.runtime.sources import FileSource, Source


def heard(source: Source) -> Samples:
    blocks = []
    while (block := source.read(1.0)) is not None:
        blocks.append(block)
    return np.concatenate(blocks)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_it_gives_what_load_audio_gives(tmp_path: Path, speech: Samples, suffix: str, rate: int, channels: int) -> None:
    file = tmp_path / f"clip.{suffix}"
    soundfile.write(file, np.stack([speech] * channels, axis=1), rate)
    with FileSource(file) as source:
        got = heard(source)
        assert source.read(1.0) is None
    expected = load_audio(file)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)
    assert source.read(1.0) is None


@pytest.mark.parametrize("samples", [1, 1599, 1600, 1601, 3200])
def test_lengths_around_a_block(tmp_path: Path, speech: Samples, samples: int) -> None:
    soundfile.write(tmp_path / "a.wav", speech[20_000 : 20_000 + samples], SAMPLE_RATE, subtype="FLOAT")
    with FileSource(tmp_path / "a.wav") as source:
        np.testing.assert_array_equal(heard(source), speech[20_000 : 20_000 + samples])


def test_opened_again_it_starts_again(clip: Path, speech: Samples) -> None:
    source = FileSource(clip)
    for _ in range(2):
        source.open()
        np.testing.assert_array_equal(heard(source), speech)
    source.close()
    source.close()


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    file = tmp_path / "long.wav"
    minute = np.random.default_rng(0).standard_normal(44_100 * 60).astype(np.float32) * 0.1
    with soundfile.SoundFile(file, "w", 44_100, 1, "PCM_16") as out:
        out.write(minute)
    del minute
    with FileSource(file) as source:
        first = source.read(1.0)
        assert first is not None
        gc.collect()
        tracemalloc.start()
        samples = first.shape[0]
        while (block := source.read(1.0)) is not None:
            samples += block.shape[0]
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert samples == 60 * SAMPLE_RATE
    assert peak < 200_000  # bytes; all of it would be 4 million


def test_real_time_comes_at_its_time(clip: Path, speech: Samples) -> None:
    with FileSource(clip, real_time=True) as source:
        assert source.live
        start_s, samples, early = time.monotonic(), 0, []
        while (block := source.read(0.03)) is not None and samples < SAMPLE_RATE:
            if block.size:
                samples += block.shape[0]
                early.append(samples / SAMPLE_RATE - (time.monotonic() - start_s))
    # Never before it would have been heard; how late depends on the machine, so the limit is wide.
    assert max(early) < 0.005
    assert min(early) > -2.0
    assert len(early) >= 10


def test_real_time_makes_up_for_a_late_reader(clip: Path) -> None:
    with FileSource(clip, real_time=True) as source:
        time.sleep(1.05)
        start_s = time.monotonic()
        blocks = [source.read(0.0) for _ in range(10)]
        late_s = time.monotonic() - start_s
        assert [0 if block is None else block.size for block in blocks] == [1600] * 10
        rest = source.read(0.0)
    if late_s < 0.04:  # else the eleventh block is due already
        assert rest is not None
        assert rest.size == 0


def test_close_ends_a_wait(clip: Path) -> None:
    source = FileSource(clip, real_time=True)
    source.open()
    got: list[Samples | None] = []

    def drain() -> None:
        while (block := source.read(30.0)) is not None:
            got.append(block)

    thread = threading.Thread(target=drain)
    thread.start()
    time.sleep(0.25)
    source.close()
    thread.join(5.0)
    assert not thread.is_alive()
    assert 1 <= len(got) <= 20


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.wav: no such file"):
        FileSource(tmp_path / "none.wav").open()
    (tmp_path / "a.wav").write_text("This is no recording.")
    with pytest.raises(InputError, match=r"a\.wav: not readable as audio .*: expected WAV, FLAC or OGG"):
        FileSource(tmp_path / "a.wav").open()
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), SAMPLE_RATE)
    with pytest.raises(InputError, match=r"empty\.wav: holds no samples"):
        FileSource(tmp_path / "empty.wav").open()
    soundfile.write(tmp_path / "slow.wav", np.zeros(100), 1000)
    with pytest.raises(InputError, match=r"slow\.wav: audio: got a rate of 1000 Hz"):
        FileSource(tmp_path / "slow.wav").open()
    with pytest.raises(SourceError, match=r"empty\.wav: is not open: call open\(\) first"):
        FileSource(tmp_path / "empty.wav").read(0.1)


def test_no_number_in_the_middle(tmp_path: Path, speech: Samples) -> None:
    broken = speech.copy()
    broken[8_100] = np.nan
    soundfile.write(tmp_path / "nan.wav", broken, SAMPLE_RATE, subtype="FLOAT")
    with (
        FileSource(tmp_path / "nan.wav") as source,
        pytest.raises(InputError, match=r"nan\.wav: at 0\.5 s: audio: got NaN"),
    ):
        heard(source)


@pytest.mark.parametrize("rest", [b"", bytes(8000)])
def test_a_damaged_file_is_heard_as_far_as_it_goes(
    tmp_path: Path, clip: Path, speech: Samples, rest: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    raw = clip.read_bytes()
    (tmp_path / "bad.flac").write_bytes(raw[: len(raw) // 2] + rest)
    with FileSource(tmp_path / "bad.flac") as source:
        got = heard(source)
    assert got.shape[0] > 1.5 * SAMPLE_RATE
    np.testing.assert_array_equal(got, speech[: got.shape[0]])
    (line,) = caplog.messages
    assert re.search(r"bad\.flac: cut short: ends after 1\.\d\d of 3\.60 s \(flac decoder lost sync\)", line)
