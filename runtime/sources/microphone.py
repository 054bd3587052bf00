"""A microphone through PortAudio that may be pulled out and put back."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import InputError, SourceError
from edgeser.runtime.owner import OwnerProcess
from edgeser.runtime.sources.base import Source, nothing
from edgeser.runtime.sources.conversion import MAX_CHANNELS, Converter
from edgeser.runtime.sources.devices import InputDevice, alone, choose, choose_again, start_portaudio

log = logging.getLogger(__name__)

_QUEUED_S = 4.0  # a reader that stalls for less loses nothing
_SILENT_S = 2.5  # without a block for so long, a device is gone: a sound server may gather 2 s of audio
_START_S = 5.0  # the first block may take longer
_BACKOFF_S = (0.5, 8.0)
_CLOSE_S = 0.4

_Choose = Callable[[Any], InputDevice]


class Microphone(Source):
    """A microphone, live. When its device is lost, `read` returns nothing until it is back, for as long as it takes.

    A device is lost when PortAudio's stream has stopped or has sent no block for 2.5 s. It is looked for after 0.5 s,
    1 s, and so on up to every 8 s: the same device, or the default one if none was named.

    Args:
        device: A number (`3`, `"3"`), or a part of the name in any case (see `input_devices`); None: the default one.
        rate: Hz to open the device at; None: 16 kHz, or where it is not offered the device's own.
        chunk_ms: Milliseconds of a block.

    Raises:
        InputError: A rate or block length out of range.
    """

    live = True

    def __init__(self, device: int | str | None = None, rate: int | None = None, chunk_ms: int = 20) -> None:
        if not 1 <= chunk_ms <= 1000:
            raise InputError(f"microphone: got blocks of {chunk_ms} ms, expected 1 to 1000")
        if rate is not None:
            Converter(rate)  # refuses a rate out of range
        self.name = "microphone"
        self._device, self._rate, self._chunk_ms = device, rate, chunk_ms
        self._lock = threading.Lock()
        self._capture: _Capture | None = None
        self._closed: threading.Event | None = None
        self._back = threading.Event()
        self._earlier_overflows = 0
        self._owner = OwnerProcess(self.name, SourceError)

    def open(self) -> None:
        self.close()
        if not self._owner.is_here:  # a lock or a device of the other process is none here
            self._lock, self._capture = threading.Lock(), None
            self._owner = OwnerProcess(self.name, SourceError)
        capture = self._start(lambda audio: choose(audio, self._device))
        self.name = f"microphone {capture.device.name}"
        log.info("%s: open at %d Hz, channels: %d", self.name, capture.rate, capture.channels)
        self._earlier_overflows = self.overflows
        with self._lock:
            self._closed = threading.Event()
            self._capture = capture

    def _start(self, choose_device: _Choose) -> _Capture:
        return _Capture(choose_device, self._rate, self._chunk_ms)

    def read(self, timeout_s: float) -> Samples | None:
        self._owner.check()
        with self._lock:
            closed, capture = self._closed, self._capture
        if closed is None:
            raise SourceError(f"{self.name}: is not open: call open() first")
        if capture is None:  # closed, or lost
            if not closed.is_set():
                self._back.wait(timeout_s)
            return None if closed.is_set() else nothing()
        samples = capture.take(timeout_s)
        self.overflows = self._earlier_overflows + capture.overflows
        if samples.size == 0 and capture.lost():
            self._lose(capture, closed)
        return samples

    def _lose(self, capture: _Capture, closed: threading.Event) -> None:
        with self._lock:
            if closed.is_set():
                return
            self._capture = None
            self._back.clear()
        self.interruptions += 1
        self._earlier_overflows = self.overflows
        log.warning("%s: lost; looking for it until it is back", self.name)
        threading.Thread(target=self._recover, args=(capture, closed), name="edgeser-microphone", daemon=True).start()

    def _recover(self, old: _Capture, closed: threading.Event) -> None:
        """Look for the device until it sends audio again, or the source is closed."""
        _close(old, _SILENT_S)
        lost_s = time.monotonic()
        wait_s, longest_s = _BACKOFF_S
        while not closed.wait(wait_s):
            wait_s = min(2 * wait_s, longest_s)
            try:
                # Each attempt starts PortAudio anew: it lists the devices only then.
                capture = self._start(
                    lambda audio: choose(audio, None) if self._device is None else choose_again(audio, old.device)
                )
            except (InputError, SourceError) as error:
                log.debug("%s: not back yet: %s", self.name, error)
                continue
            if capture.starts(closed):
                with self._lock:
                    if not closed.is_set():
                        log.warning("%s: back after %.1f s", self.name, time.monotonic() - lost_s)
                        self._capture = capture
                        self._back.set()
                        return
            _close(capture, _SILENT_S)

    def close(self) -> None:
        if not self._owner.is_here:
            return  # the device is the other process's
        with self._lock:
            capture, self._capture = self._capture, None
            if self._closed is not None:
                self._closed.set()
        self._back.set()
        if capture is not None:
            _close(capture, _CLOSE_S)


class _Capture:
    """One opened device: PortAudio's thread fills a bounded queue, one reader empties it.

    Raises:
        InputError: No such device.
        SourceError: It cannot be opened.
    """

    def __init__(self, choose_device: _Choose, rate: int | None, chunk_ms: int) -> None:
        self.overflows = 0
        self._chunk_ms = chunk_ms
        self._chunks: queue.Queue[bytes] = queue.Queue(maxsize=max(2, round(_QUEUED_S * 1000 / chunk_ms)))
        self._heard = threading.Event()
        self._lock = threading.Lock()
        self._closed = False
        with alone():
            self._audio = start_portaudio()
            try:
                self.device = choose_device(self._audio)
                self._stream = self._open(rate)
            except BaseException:
                self._audio.terminate()
                raise
        self._last_s = time.monotonic()

    def _open(self, rate: int | None) -> Any:
        """Open the device in the first way it offers: 16 kHz before its own rate, one channel before all it has."""
        import pyaudio

        self._overflow, self._continue = pyaudio.paInputOverflow, pyaudio.paContinue
        rates = dict.fromkeys([SAMPLE_RATE, self.device.rate] if rate is None else [rate])
        ways = [(way, channels) for way in rates for channels in dict.fromkeys((1, self.device.channels))]
        reason: Exception | None = None
        for self.rate, self.channels in ways:
            if self.channels > MAX_CHANNELS:
                continue
            try:
                stream = self._audio.open(
                    rate=self.rate,
                    channels=self.channels,
                    format=pyaudio.paInt16,
                    input=True,
                    input_device_index=self.device.index,
                    frames_per_buffer=max(1, self.rate * self._chunk_ms // 1000),
                    stream_callback=self._receive,
                )
            except (OSError, ValueError) as error:
                reason = error
            else:
                self._converter = Converter(self.rate, self.channels)
                return stream
        asked = " or ".join(f"{way} Hz" for way in rates)
        raise SourceError(
            f"microphone {self.device.name}: does not open at {asked} ({reason}): "
            "close the program that uses it, or name another device or rate"
        ) from reason

    def _receive(self, data: bytes, _frames: int, _times: object, status: int) -> tuple[None, int]:
        """Take a block on PortAudio's thread, which must not wait."""
        self._last_s = time.monotonic()
        self._heard.set()
        if status & self._overflow:
            self.overflows += 1
        try:
            self._chunks.put_nowait(data)
        except queue.Full:
            self.overflows += 1
        return None, self._continue

    def starts(self, closed: threading.Event) -> bool:
        """Wait for the first block, 5 s at most."""
        while not self._heard.wait(0.05):
            if closed.is_set() or self.lost():
                return False
        return True

    def take(self, timeout_s: float) -> Samples:
        """Return all that has come, or wait for the next block."""
        blocks = []
        with contextlib.suppress(queue.Empty):
            blocks.append(self._chunks.get(timeout=max(0.0, timeout_s)))
            while True:
                blocks.append(self._chunks.get_nowait())
        return self._converter(np.frombuffer(b"".join(blocks), np.int16).reshape(-1, self.channels))

    def lost(self) -> bool:
        """Say whether the device sends nothing any more."""
        limit_s = _SILENT_S if self._heard.is_set() else _START_S
        if time.monotonic() - self._last_s > limit_s:
            return True
        with self._lock:
            try:
                return self._closed or not self._stream.is_active()
            except OSError:
                return True

    def close(self) -> None:
        """Close the device and PortAudio; may hang when the driver does."""
        with self._lock:
            if self._closed:
                return
            self._closed = True  # nobody asks the stream anything from here on
        with contextlib.suppress(queue.Full):
            self._chunks.put_nowait(b"")  # wakes a waiting reader
        with alone():
            try:
                with contextlib.suppress(OSError):
                    self._stream.close()
            finally:
                self._audio.terminate()


def _close(capture: _Capture, limit_s: float) -> None:
    """Close a device on a thread of its own, and leave that behind if the driver hangs."""
    thread = threading.Thread(target=capture.close, name="edgeser-microphone-close", daemon=True)
    thread.start()
    thread.join(limit_s)
    if thread.is_alive():
        log.warning("microphone %s: still not closed after %.1f s; left behind", capture.device.name, limit_s)
