"""The microphone against a real PortAudio, ALSA and PulseAudio; only faults that none of them can show are put in."""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import EdgeSerError, InputError, MissingDependencyError, SourceError
from edgeser.runtime.sources import Microphone, input_devices

PATIENCE_S = 30.0


class Listener:
    """Reads a microphone on a thread, as a stream does."""

    def __init__(self, microphone: Microphone) -> None:
        self.microphone = microphone
        self.blocks: list[Samples] = []
        self.longest_read_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _listen(self) -> None:
        while not self._stop.is_set():
            start_s = time.monotonic()
            block = self.microphone.read(0.1)
            self.longest_read_s = max(self.longest_read_s, time.monotonic() - start_s)
            if block is None:
                return
            self.blocks.append(block)

    @property
    def heard(self) -> Samples:
        return np.concatenate([np.zeros(0, np.float32), *self.blocks])

    def wait_until(self, reached: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not reached():
            assert time.monotonic() < deadline_s, "waited for too long"
            time.sleep(0.05)

    def forget(self) -> None:
        self.blocks = []


def likeness(heard: Samples, played: Samples) -> float:
    """Return the highest normalised correlation of what was played with any stretch of what was heard."""
    size = heard.shape[0] + played.shape[0]
    spectrum = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(played, size))
    products = np.fft.irfft(spectrum, size)[: heard.shape[0] - played.shape[0] + 1]
    energy = np.concatenate([[0.0], np.cumsum(np.square(heard, dtype=np.float64))])
    stretch = energy[played.shape[0] :] - energy[: -played.shape[0]]
    norms = np.sqrt(np.maximum(stretch, 1e-6) * np.square(played, dtype=np.float64).sum())
    return float((products / norms).max())


@pytest.fixture
def spoken(speech: Samples) -> Samples:
    """The clip's 1.5 s of speech."""
    return speech[SAMPLE_RATE : SAMPLE_RATE * 5 // 2]


@pytest.fixture
def sound(tmp_path: Path, spoken: Samples) -> Path:
    soundfile.write(tmp_path / "spoken.wav", spoken, SAMPLE_RATE)
    return tmp_path / "spoken.wav"


@pytest.fixture
def refuses_16_khz(monkeypatch: pytest.MonkeyPatch) -> None:
    """PortAudio as on hardware that has 44.1 kHz alone; PulseAudio has every rate."""
    pyaudio = pytest.importorskip("pyaudio")
    real = pyaudio.PyAudio.open

    def choosy(audio: Any, *args: Any, **options: Any) -> Any:
        if options["rate"] == SAMPLE_RATE:
            raise OSError(-9997, "Invalid sample rate")
        return real(audio, *args, **options)

    monkeypatch.setattr(pyaudio.PyAudio, "open", choosy)


@pytest.fixture
def microphones() -> Iterator[list[Microphone]]:
    opened: list[Microphone] = []
    yield opened
    for microphone in opened:
        microphone.close()


def hears(listener: Listener, virtual_microphone: Any, sound: Path, spoken: Samples) -> None:
    """Play into the microphone and wait until that was heard."""
    listener.wait_until(lambda: listener.heard.size > 0)
    virtual_microphone.play(sound)
    listener.wait_until(lambda: listener.heard.size > spoken.size and likeness(listener.heard, spoken) > 0.97)


def test_it_hears_what_is_played(virtual_microphone: Any, sound: Path, spoken: Samples) -> None:
    with Microphone() as microphone, Listener(microphone) as listener:
        hears(listener, virtual_microphone, sound, spoken)
        assert (microphone.live, microphone.name) == (True, "microphone default")
        assert (microphone.interruptions, microphone.overflows) == (0, 0)
        assert {block.dtype for block in listener.blocks} == {np.dtype(np.float32)}
    assert likeness(listener.heard, spoken[::-1]) < 0.5  # the measure tells sounds apart


def test_where_16_khz_is_not_offered_it_converts(
    virtual_microphone: Any, sound: Path, spoken: Samples, refuses_16_khz: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with Microphone("LEFT_mic") as microphone, Listener(microphone) as listener:
        hears(listener, virtual_microphone, sound, spoken)
    assert "microphone left_mic: open at 44100 Hz, channels: 1" in caplog.text


def test_opened_again_it_hears_again(virtual_microphone: Any) -> None:
    microphone = Microphone()
    for _ in range(2):
        with microphone:
            listen_for_a_block(microphone)
        assert microphone.read(60.0) is None


def listen_for_a_block(microphone: Microphone) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while (block := microphone.read(0.1)) is not None and not block.size:
        assert time.monotonic() < deadline_s
    assert block is not None


def test_a_fork_has_no_microphone(virtual_microphone: Any, forked: Callable[[Callable[[], object]], str]) -> None:
    with Microphone() as microphone:
        listen_for_a_block(microphone)
        assert re.search(r"SourceError: microphone.*load it after the fork", forked(lambda: microphone.read(5.0)))
        with microphone._lock:  # as another thread holds it
            assert forked(microphone.close) == "None"
        listen_for_a_block(microphone)


def test_devices_and_their_choice(virtual_microphone: Any) -> None:
    names = {device.name: device for device in input_devices()}
    assert {"default", "left_mic", "right_mic"} <= set(names)
    assert all(device.rate == 44_100 and device.channels > 0 for device in names.values())
    with Microphone(names["right_mic"].index) as microphone:
        assert microphone.name == "microphone right_mic"
    with pytest.raises(InputError, match=r"got '_mic', 2 devices match: take one of \d: left_mic, \d: right_mic"):
        Microphone("_mic").open()
    with pytest.raises(InputError, match=r"got 'studio', no such device: take one of .*\d: default"):
        Microphone("studio").open()
    with pytest.raises(InputError, match=r"got 99, no such device: take one of"):
        Microphone(99).open()


def test_a_device_that_does_not_open(virtual_microphone: Any, refuses_16_khz: None) -> None:
    with pytest.raises(
        SourceError,
        match=r"microphone default: does not open at 16000 Hz \(.*Invalid sample rate.*\): close the program",
    ):
        Microphone(rate=16_000).open()


def test_pulled_out_and_put_back(
    virtual_microphone: Any, sound: Path, spoken: Samples, caplog: pytest.LogCaptureFixture
) -> None:
    with Microphone("left_mic") as microphone, Listener(microphone) as listener:
        listener.wait_until(lambda: listener.heard.size > 0)
        virtual_microphone.unplug()
        listener.wait_until(lambda: microphone.interruptions == 1)
        time.sleep(1.2)  # at least one attempt that finds nothing
        listener.forget()
        assert listener.heard.size == 0
        virtual_microphone.plug()
        hears(listener, virtual_microphone, sound, spoken)
        assert microphone.interruptions == 1
        assert listener.longest_read_s < 2.0
    logged = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(logged) == 2
    assert logged[0] == "microphone left_mic: lost; looking for it until it is back"
    assert logged[1].startswith("microphone left_mic: back after ")


def test_the_sound_server_dies_and_comes_back(virtual_microphone: Any, sound: Path, spoken: Samples) -> None:
    with Microphone() as microphone, Listener(microphone) as listener:
        listener.wait_until(lambda: listener.heard.size > 0)
        virtual_microphone.kill()
        listener.wait_until(lambda: microphone.interruptions == 1)
        virtual_microphone.start()
        listener.forget()
        hears(listener, virtual_microphone, sound, spoken)
        assert microphone.interruptions == 1


def test_a_sound_server_that_hangs(virtual_microphone: Any, sound: Path, spoken: Samples) -> None:
    with Microphone() as microphone, Listener(microphone) as listener:
        listener.wait_until(lambda: listener.heard.size > 0)
        virtual_microphone.freeze()
        listener.wait_until(lambda: microphone.interruptions == 1)  # by the silence: the stream says it is active
        virtual_microphone.thaw()
        listener.forget()
        hears(listener, virtual_microphone, sound, spoken)
        assert listener.longest_read_s < 2.0
        virtual_microphone.freeze()
        start_s = time.monotonic()
        microphone.close()
        took_s = time.monotonic() - start_s
        virtual_microphone.thaw()
    assert took_s < 2.0  # 0.4 s on an idle machine; the server would hang for ever


def test_closed_while_it_is_lost(virtual_microphone: Any) -> None:
    microphone = Microphone()
    microphone.open()
    with Listener(microphone) as listener:
        listener.wait_until(lambda: listener.heard.size > 0)
        virtual_microphone.unplug()
        listener.wait_until(lambda: microphone.interruptions == 1)
        microphone.close()
        microphone.close()
        assert microphone.read(60.0) is None
        listener.wait_until(
            lambda: not any(thread.name.startswith("edgeser-microphone") for thread in threading.enumerate())
        )


def test_a_driver_that_hangs_keeps_nobody_waiting(
    virtual_microphone: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pyaudio = sys.modules["pyaudio"]
    real, release = pyaudio.PyAudio.Stream.close, threading.Event()

    def hang(stream: Any) -> None:
        release.wait(PATIENCE_S)
        real(stream)

    monkeypatch.setattr(pyaudio.PyAudio.Stream, "close", hang)
    microphone = Microphone()
    microphone.open()
    start_s = time.monotonic()
    microphone.close()
    took_s = time.monotonic() - start_s
    release.set()
    assert took_s < 5.0  # 0.4 s, on a machine that may be busy; the driver hangs for 30 s
    assert "microphone default: still not closed after 0.4 s; left behind" in caplog.text
    for thread in threading.enumerate():
        if thread.name == "edgeser-microphone-close":
            thread.join(PATIENCE_S)


def test_a_reader_that_stalls_is_told(virtual_microphone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeser.runtime.sources.microphone._QUEUED_S", 0.1)
    with Microphone() as microphone:
        deadline_s = time.monotonic() + PATIENCE_S
        while microphone.overflows == 0:
            assert time.monotonic() < deadline_s
            time.sleep(0.5)
            block = microphone.read(0.1)
            assert block is not None
            assert block.size <= 0.1 * SAMPLE_RATE


def test_without_pyaudio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyaudio", None)
    for act in (input_devices, Microphone().open):
        with pytest.raises(MissingDependencyError, match=r"pyaudio is not installed, .*pip install 'edgeser\[mic\]'"):
            act()


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="got blocks of 0 ms, expected 1 to 1000"):
        Microphone(chunk_ms=0)
    with pytest.raises(InputError, match="got a rate of 100 Hz"):
        Microphone(rate=100)
    with pytest.raises(SourceError, match=r"microphone: is not open: call open\(\) first"):
        Microphone().read(0.1)
    assert issubclass(SourceError, EdgeSerError)
    Microphone().close()
